"""What stages hand on to each other, one module for each artifact."""
