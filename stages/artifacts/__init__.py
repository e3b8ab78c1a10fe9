"""What stages hand on to each other, one module per artifact."""
