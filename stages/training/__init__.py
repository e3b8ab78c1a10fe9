"""Training a model on batches from an array, in repeats, and keeping what evaluate needs."""
