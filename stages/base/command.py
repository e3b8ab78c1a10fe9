"""What every `python -m stages.<stage> [entry]` does before and after its own work."""

import sys
from collections.abc import Callable
from pathlib import Path

from stages.base.errors import UserError, trouble_with
from stages.study import Study, load_study

PARAMS = Path("params.yaml")


def run_stage(work: Callable[..., str], *sections: str) -> None:
    """Check the whole study, do `work`, and print the line it returns; end with exit code 1 on a `UserError`.

    `work` is called with the study, and with the entry named on the command line where `sections` says in which
    sections of `params.yaml` it stands. A disk that is full, or a file that may not be read or written, is
    answered in one sentence too.
    """
    stage = Path(sys.argv[0]).stem
    arguments = sys.argv[1:]
    try:
        study = load_study(PARAMS)
        if not sections:
            if arguments:
                raise UserError(f"stages.{stage} takes no argument, but was given {' '.join(arguments)!r}.")
            print(f"{stage}: {work(study)}")
        else:
            entry = _entry(study, stage, sections, arguments)
            print(f"{stage} {entry}: {work(study, entry)}")
    except UserError as error:
        _end(stage, str(error))
    except KeyboardInterrupt:
        _end(stage, "interrupted; run again to go on.", code=130)
    except OSError as error:
        _end(stage, f"{trouble_with(error)}, and run again.")


def _end(stage: str, sentence: str, code: int = 1) -> None:
    print(f"{stage}: {sentence}", file=sys.stderr)
    sys.exit(code)


def _entry(study: Study, stage: str, sections: tuple[str, ...], arguments: list[str]) -> str:
    names = [name for section in sections for name in getattr(study, section)]
    section = " and ".join(sections)
    accepted = f"name one of {section} in {PARAMS}: {', '.join(names) or 'there is none'}"
    if len(arguments) != 1:
        raise UserError(f"stages.{stage} takes one entry; {accepted}.")
    if arguments[0] not in names:
        raise UserError(f"there is no {arguments[0]!r} in {section}; {accepted}.")
    return arguments[0]
