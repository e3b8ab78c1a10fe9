"""Dividing the images of a task into train, validation and test without leaks."""
