"""What every `python -m stages.<stage> [entry]` does before and after its own work."""

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from stages.core.errors import UserError, describe_os_error
from stages.core.yaml import parse_yaml, read_yaml
from stages.validation.study import Study, load_study

PARAMS = Path("params.yaml")
PIPELINE = Path("dvc.yaml")


def run_stage(work: Callable[..., str], *sections: str) -> None:
    """Check the whole study, do `work`, and print the line it returns; end with exit code 1 on a `UserError`.

    `work` is called with the study, and with the entry named on the command line where `sections` says in which
    sections of `params.yaml` it stands. A disk that is full, or a file that may not be read or written, is
    answered in one sentence too.
    """
    stage = Path(sys.argv[0]).stem
    arguments = sys.argv[1:]
    entry = None
    try:
        before = b""
        with suppress(OSError):  # load_study says it better
            before = PARAMS.read_bytes()
        study = load_study(PARAMS)
        if not sections:
            if arguments:
                raise UserError(f"stages.{stage} takes no argument, but was given {' '.join(arguments)!r}.")
            done = f"{stage}: {work(study)}"
        else:
            entry = _entry(study, stage, sections, arguments)
            done = f"{stage} {entry}: {work(study, entry)}"
        _check_unchanged(stage, entry, before)
        print(done)
    except UserError as error:
        _end(stage, str(error))
    except KeyboardInterrupt:
        _end(stage, "interrupted; run again to go on.", code=130)
    except OSError as error:
        _end(stage, f"{describe_os_error(error)}, and run again.")


def _check_unchanged(stage: str, entry: str | None, before: bytes) -> None:
    """Refuse a result whose settings have changed meanwhile: DVC would record it as that of the new ones.

    Somebody has edited them, or an experiment was queued: DVC then sets `params.yaml` back for a moment.
    """
    if PARAMS.read_bytes() == before or not PIPELINE.exists():
        return
    old, new = parse_yaml(before.decode()), read_yaml(PARAMS) or {}
    if changed := [path for path in _recorded(stage, entry, old) if _value(old, path) != _value(new, path)]:
        raise UserError(
            f"{', '.join(changed)} changed in {PARAMS} while this ran, so that the result would stand under the wrong "
            "settings; run `dvc repro` again."
        )


def _recorded(stage: str, entry: str | None, params: dict) -> list[str]:
    """The parts of `params.yaml` that DVC records of this run, as `dvc.yaml` lists them."""
    for described in read_yaml(PIPELINE)["stages"].values():
        each = described.get("do", described)
        entries = params[described["foreach"][2:-1]] if "foreach" in described else {None: {}}
        if each["cmd"].split()[2] == f"stages.{stage}" and entry in entries:
            paths = "\n".join(each.get("params", []))
            names = {"key": entry, **{f"item.{key}": value for key, value in entries[entry].items()}}
            for name, value in names.items():
                paths = paths.replace(f"${{{name}}}", str(value))
            return paths.splitlines()
    return []


def _value(params: dict, path: str) -> object:
    """What stands at a section, or at `section.entry`."""
    section, _, name = path.partition(".")
    part = params.get(section)
    return part.get(name) if name and part else part


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
