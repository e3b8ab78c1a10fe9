"""The check of a study: rules within and across entries, suggestions, and the sentences of errors.

Only the stage `check` imports this package, so a change to a rule or a sentence reruns nothing else.
"""
