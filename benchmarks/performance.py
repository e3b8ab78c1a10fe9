"""Writes what the benchmarks print into docs/performance.md, each behind the command that printed it.

    python -m benchmarks.performance --files <folder> [part of a command ...]

With parts of commands, only where the command has one of them. files and run: what stands for <files> and <run> in the
commands. Nothing else should run on the machine meanwhile.
"""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

from benchmarks.pages import commands, filled
from stages.core.files import write_text

PAGE = Path(__file__).parents[1] / "docs/performance.md"


def output_of(command: str, given: argparse.Namespace) -> str:
    """What a command prints, with the headings of its tables below those of the page."""
    words = shlex.split(command.replace("<files>", str(given.files)).replace("<run>", str(given.run)))
    print(f"+ {command}", file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, *words[1:]], stdout=subprocess.PIPE, text=True, check=True)
    return re.sub(r"^#+ ", "### ", done.stdout, flags=re.MULTILINE).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part")
    parser.add_argument("--files", type=Path, required=True)
    parser.add_argument("--run", type=Path)
    given = parser.parse_args()
    for command in commands(PAGE.read_text(encoding="utf-8")):
        if not given.parts or any(part in command for part in given.parts):
            if "<run>" in command and not given.run:
                parser.error(f"{command}: needs --run")
            outputs = {command: output_of(command, given)}
            # Read again: others may write on the page while a command takes its time.
            write_text(PAGE, filled(PAGE.read_text(encoding="utf-8"), outputs.get))


if __name__ == "__main__":
    main()
