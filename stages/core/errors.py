"""What is told to the user: the one exception whose message is written for them, and errors of the system."""

import errno
import os


class UserError(Exception):
    """Something the user can mend; the message is one sentence that names the entry, the value and the way out."""


def describe_os_error(error: OSError) -> str:
    """What is wrong with a file or a disk, and the way out, without a full stop."""
    where = f"{str(error.filename)!r} cannot be used" if error.filename else "a file cannot be read or written"
    # The system's words, where it has some for the number of the error: those of h5py fill several lines.
    known = os.strerror(error.errno) if error.errno in errno.errorcode else error.strerror
    return f"{where} ({known or str(error) or type(error).__name__}); make room or mend the permission"
