"""What a command for the use of models does before and after its own work."""

import argparse
import sys
from collections.abc import Callable

from stages.base.command import PARAMS
from stages.base.errors import UserError
from stages.study import Study, load_study


def run_command(parser: argparse.ArgumentParser, work: Callable[[Study, argparse.Namespace], int]) -> None:
    """Check the study, do `work` with it and the arguments, and exit with the code it returns; 1 on a `UserError`."""
    given = parser.parse_args()
    try:
        code = work(load_study(PARAMS), given)
    except UserError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        code = 1
    except BrokenPipeError:  # whoever reads has seen enough
        sys.stderr.close()
        code = 0
    except OSError as error:
        print(f"{parser.prog}: {str(error.filename)!r} cannot be used ({error.strerror}).", file=sys.stderr)
        code = 1
    sys.exit(code)
