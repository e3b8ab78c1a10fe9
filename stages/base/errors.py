"""The one exception whose message is written for the user."""


class UserError(Exception):
    """Something the user can mend; the message is one sentence that names the entry, the value and the way out."""
