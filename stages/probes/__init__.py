"""Classifiers on features that are solved, not trained."""
