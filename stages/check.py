"""Checks params.yaml without running anything: `python -m stages.check [study]` lists all problems at once."""

import sys
from pathlib import Path

from stages.base.command import PARAMS
from stages.base.errors import UserError
from stages.study import load_study


def main(path: Path) -> str:
    study = load_study(path)
    return f"{path} is a sound study: {len(study.models)} models, {len(study.features)} feature caches"


if __name__ == "__main__":
    try:
        print(f"check: {main(Path(sys.argv[1]) if len(sys.argv) > 1 else PARAMS)}")
    except UserError as error:
        print(f"check: {error}", file=sys.stderr)
        sys.exit(1)
