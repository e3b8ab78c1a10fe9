"""Bringing files here: from an address or a path, and from Kaggle."""
