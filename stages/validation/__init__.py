"""The check of a study: rules across entries, suggestions, and the sentences of errors."""
