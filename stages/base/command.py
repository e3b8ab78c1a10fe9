"""What every `python -m stages.<stage> [entry]` does before and after its own work."""

import sys
from collections.abc import Callable
from pathlib import Path

from stages.base.errors import UserError
from stages.study import Study, load_study

PARAMS = Path("params.yaml")


def run_stage(work: Callable[..., str], section: str | None = None) -> None:
    """Check the whole study, do `work`, and print the line it returns; end with exit code 1 on a `UserError`.

    `work` is called with the study, and with the entry named on the command line where `section` says which section
    of `params.yaml` it comes from.
    """
    stage = Path(sys.argv[0]).stem
    arguments = sys.argv[1:]
    try:
        study = load_study(PARAMS)
        if section is None:
            if arguments:
                raise UserError(f"stages.{stage} takes no argument, but was given {' '.join(arguments)!r}.")
            print(f"{stage}: {work(study)}")
        else:
            entry = _entry(study, stage, section, arguments)
            print(f"{stage} {entry}: {work(study, entry)}")
    except UserError as error:
        print(f"{stage}: {error}", file=sys.stderr)
        sys.exit(1)


def _entry(study: Study, stage: str, section: str, arguments: list[str]) -> str:
    names = list(getattr(study, section))
    accepted = f"name one of {section} in {PARAMS}: {', '.join(names) or 'the section is empty'}"
    if len(arguments) != 1:
        raise UserError(f"stages.{stage} takes one entry; {accepted}.")
    if arguments[0] not in names:
        raise UserError(f"there is no {arguments[0]!r} in {section}; {accepted}.")
    return arguments[0]
