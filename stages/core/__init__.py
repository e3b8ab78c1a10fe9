"""The start of a stage, errors for the user, and files that are written whole or not at all."""
