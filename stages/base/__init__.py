"""What every stage uses: its start and its errors, reading and writing files."""
