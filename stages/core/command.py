"""What a command for the use of models does before and after its own work."""

import argparse
import os
import sys
from collections.abc import Callable

from stages.core.errors import UserError, describe_os_error
from stages.core.stage import PARAMS
from stages.validation.study import Study, load_study


def run_command(parser: argparse.ArgumentParser, work: Callable[[Study, argparse.Namespace], int]) -> None:
    """Check the study, do `work` with it and the arguments, and exit with the code it returns.

    A `UserError`, a file that cannot be used and an interruption from the keyboard are answered in one sentence.
    """
    given = parser.parse_args()
    try:
        code, sentence = work(load_study(PARAMS), given), ""
        sys.stdout.flush()
    except UserError as error:
        code, sentence = 1, str(error)
    except KeyboardInterrupt:
        code, sentence = 130, "interrupted."
    except BrokenPipeError:  # whoever reads, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code, sentence = 0, ""
    except OSError as error:
        code, sentence = 1, f"{describe_os_error(error)}."
    if sentence:
        print(f"{parser.prog}: {sentence}", file=sys.stderr)
    sys.exit(code)
