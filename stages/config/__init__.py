"""What `params.yaml` may contain, one module per section: types, ranges and defaults, and no messages."""
