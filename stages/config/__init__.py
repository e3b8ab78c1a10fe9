"""What `params.yaml` may say, one module for each section."""
