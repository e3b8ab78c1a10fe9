"""Runs a user's command (`python -m stages.predict ...`): parses its arguments and reports errors in one sentence."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from stages.core.errors import UserError, describe_os_error

INTERRUPTED = 130  # the exit code of shells after Ctrl-C


def run_command(parser: argparse.ArgumentParser, work: Callable[[argparse.Namespace], int]) -> None:
    """Parse the command line, call `work` with the arguments, and exit with the code that it returns.

    A `UserError`, a file that cannot be read or written, and Ctrl-C end it with one sentence on standard error.
    """
    arguments = parser.parse_args()
    try:
        code, message = work(arguments), ""
        sys.stdout.flush()
    except UserError as error:
        code, message = 1, str(error)
    except KeyboardInterrupt:
        code, message = INTERRUPTED, "interrupted."
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it: not an error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code, message = 0, ""
    except OSError as error:
        code, message = 1, describe_os_error(error)
    if message:
        print(f"{parser.prog}: {message}", file=sys.stderr)
    sys.exit(code)


def git_problem() -> str:
    """A sentence if this is a copy of the project without git, as a ZIP download is: DVC's own has no remedy."""
    here = Path.cwd()
    if Path(".dvc").is_dir() and not any((folder / ".git").exists() for folder in (here, *here.parents)):
        return "DVC needs a git repository, which this folder is not. Run `git init` here."
    return ""
