"""Checks params.yaml without running anything: `python -m stages.check [study]` lists all problems at once."""

import sys
from pathlib import Path

from stages.core.errors import UserError
from stages.core.stage import PARAMS
from stages.validation.study import load_study


def main(arguments: list[str]) -> str:
    if len(arguments) > 1 or arguments[:1] == ["--help"]:
        raise UserError(f"give the path of one study, or nothing for {PARAMS}.")
    path = Path(arguments[0]) if arguments else PARAMS
    study = load_study(path)
    for name, entry in study.folders.items():
        if not Path(entry.path).is_dir():
            raise UserError(
                f"folders.{name}.path: there is no folder {entry.path!r}; correct it, or put the images there."
            )
    return f"{path} is a sound study: {len(study.models)} models, {len(study.features)} feature caches"


if __name__ == "__main__":
    try:
        print(f"check: {main(sys.argv[1:])}")
    except UserError as error:
        print(f"check: {error}", file=sys.stderr)
        sys.exit(1)
