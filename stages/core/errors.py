"""`UserError`, whose message is for the user, and the description of operating system errors."""

import errno
import os


class UserError(Exception):
    """An error that the user can fix: each sentence names the entry, the value and what to do; one sentence a line."""

    def __init__(self, *sentences: str):
        super().__init__("\n  ".join(sentences))
        self.sentences = sentences


def describe_os_error(error: OSError) -> str:
    """What is wrong with a file or a disk, and what to do, in one sentence."""
    where = f"{str(error.filename)!r} cannot be used" if error.filename else "a file cannot be read or written"
    # Prefer the system's description of the error number: those of h5py fill several lines.
    known = os.strerror(error.errno) if error.errno in errno.errorcode else error.strerror
    return f"{where} ({known or str(error) or type(error).__name__}). Free some space, or correct the permissions."
