"""What `params.yaml` may contain, one module for each section: types, ranges and defaults, and no messages."""
