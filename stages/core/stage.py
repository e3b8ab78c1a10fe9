"""The start of a stage: `python -m stages.<stage> [entry]`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages.core.errors import UserError, describe_os_error
from stages.core.params import PARAMS, Params
from stages.core.yaml import read_yaml

PIPELINE = Path("dvc.yaml")


def run_stage(work: Callable[..., str], *sections: str) -> None:
    """Read params.yaml, do `work`, and print the line that it returns; exit with code 1 after a `UserError`.

    work: is called with the `Params`, and with the name of an entry if `sections` says in which sections of
    params.yaml that entry may be. A full disk, a missing permission and an interruption are reported in one sentence
    too.
    """
    stage, arguments = Path(sys.argv[0]).stem, sys.argv[1:]
    try:
        params = Params.read()
        entry = _entry(params, stage, sections, arguments)
        line = work(params, *entry)
        _check_unchanged(stage, entry, params)
        print(f"{' '.join([stage, *entry])}: {line}")
    except UserError as error:
        _exit(stage, str(error))
    except KeyboardInterrupt:
        _exit(stage, "interrupted. Run `dvc repro` to continue.", code=130)
    except OSError as error:
        _exit(stage, describe_os_error(error))


def _entry(params: Params, stage: str, sections: tuple[str, ...], arguments: list[str]) -> list[str]:
    """The arguments of a stage: the name of one entry of `sections`, or nothing for a stage without entries."""
    if not sections:
        if arguments:
            raise UserError(f"python -m stages.{stage} takes no argument, but got {' '.join(arguments)!r}.")
        return []
    names = params.names(*sections)
    if len(arguments) != 1 or arguments[0] not in names:
        given = f", but got {' '.join(arguments)!r}" if arguments else ""
        raise UserError(
            f"python -m stages.{stage} takes the name of one entry of {' or '.join(sections)}{given}. "
            f"Entries in {PARAMS}: {', '.join(map(str, names)) or 'none'}."
        )
    return arguments


def _check_unchanged(stage: str, entry: list[str], before: Params) -> None:
    """Refuse a result if its settings changed during the run: DVC would record it as the result of the new settings.

    They change if somebody edits the file, or queues an experiment: DVC then restores params.yaml for a moment.
    """
    if not PIPELINE.exists():
        return
    after = Params.read()
    if after == before:
        return
    paths = _tracked_params(stage, entry, before)
    if changed := [path for path in paths if _value(before, path) != _value(after, path)]:
        raise UserError(
            f"{', '.join(changed)} changed in {PARAMS} while the stage ran, so its result belongs to the old settings. "
            "Run `dvc repro` again."
        )


def _tracked_params(stage: str, entry: list[str], params: Params) -> list[str]:
    """The parts of params.yaml that DVC records for this run, as dvc.yaml lists them."""
    for definition in read_yaml(PIPELINE)["stages"].values():
        run = definition.get("do", definition)
        if run["cmd"].split()[2] != f"stages.{stage}":
            continue
        paths = "\n".join(run.get("params", []))
        if "foreach" not in definition:
            return paths.splitlines()
        section = definition["foreach"][2:-1]
        if entry[0] in params.names(section):
            fields = {f"item.{key}": value for key, value in params.entry(section, entry[0]).items()}
            for field, value in {"key": entry[0], **fields}.items():
                paths = paths.replace(f"${{{field}}}", str(value))
            return paths.splitlines()
    return []


def _value(params: Params, path: str) -> Any:
    """The value at a section, or at `section.entry`."""
    section, _, name = path.partition(".")
    content = params.content.get(section)
    return content.get(name) if name and content else content


def _exit(stage: str, sentence: str, code: int = 1) -> None:
    print(f"{stage}: {sentence}", file=sys.stderr)
    sys.exit(code)
