"""Checks a study without running it, and reports all problems at once: `python -m stages.check [study]`.

As the stage `check` it runs with `--clean`. Then it also removes what removed entries have left behind, and writes
data/check, on which all other stages depend: nothing runs until the study is valid. It also writes data/margin.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from stages.artifacts.leftovers import remove_leftovers
from stages.artifacts.margin import write_margin
from stages.config.datasets import LocalConfig
from stages.core.command import git_problem, run_command
from stages.core.errors import UserError
from stages.core.files import write_text
from stages.core.params import PARAMS, Params
from stages.core.yaml import read_yaml
from stages.validation.preset_folders import preset_folder_problems
from stages.validation.published_splits import unused_splits
from stages.validation.study import check_study

OUTPUT = Path("data/check")


def main(arguments: argparse.Namespace) -> int:
    content = read_yaml(arguments.study)
    study = check_study(content, arguments.study)
    if problems := [*missing_folders(study.folders), *preset_folder_problems(study.backbones)]:
        raise UserError(*problems)
    print(f"check: {arguments.study} is valid (models: {len(study.models)}, features: {len(study.features)})")
    for sentence in unused_splits(study.tasks, {**study.datasets, **study.folders}):
        print(f"check: {sentence}")
    if problem := git_problem():
        print(f"check: {problem}", file=sys.stderr)
    if arguments.clean:
        # The names of a valid study only: they become parts of paths.
        for path in remove_leftovers(Params(content)):
            print(f"check: removed {path}, whose entry is no longer in {PARAMS}")
        if read_yaml(PARAMS) != content:  # DVC would record the new content as checked
            raise UserError(f"{PARAMS} changed while it was checked. Run `dvc repro` again.")
        write_text(OUTPUT, f"{PARAMS} is valid\n")
        write_margin(study.margin)
    return 0


def missing_folders(folders: dict[str, LocalConfig]) -> Iterator[str]:
    """One sentence per folder of images that is not there."""
    for name, entry in folders.items():
        if not Path(entry.path).is_dir():
            tracked = Path(f"{entry.path.rstrip('/')}.dvc")
            fetch, correct = f"Run `dvc pull {tracked}` to fetch it.", "Correct the path, or put the images there."
            remedy = fetch if tracked.is_file() else correct
            yield f"folders.{name}.path: folder {entry.path!r} does not exist. {remedy}"


def arguments_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="check",
        usage="python -m stages.check [study | --clean]",
        description="Check a study, and report all problems at once.",
    )
    study = parser.add_mutually_exclusive_group()
    study.add_argument("study", type=Path, nargs="?", default=PARAMS, help=f"the file to check (default: {PARAMS})")
    study.add_argument("--clean", action="store_true", help="remove outputs of removed entries, as `dvc repro` does")
    return parser


if __name__ == "__main__":
    run_command(arguments_parser(), main)
