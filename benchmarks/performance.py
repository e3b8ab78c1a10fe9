"""Writes what the benchmarks print into docs/performance.md, each behind the command that printed it.

    python -m benchmarks.performance --files <folder> [part of a command ...]

The page has a fence with a command and, behind it, a mark; what stands between the mark and its end is written anew.
With parts of commands, only where the command has one of them. files and run: what stands for <files> and <run> in the
commands. Nothing else should run on the machine meanwhile.
"""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

from stages.base.files import write_text

PAGE = Path(__file__).parents[1] / "docs/performance.md"
PLACE = re.compile(r"(```\n(python -m [^\n]+)\n```\n\n<!-- output -->\n).*?(<!-- end -->)", re.DOTALL)


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
    for before, command, end in PLACE.findall(PAGE.read_text(encoding="utf-8")):
        if not given.parts or any(part in command for part in given.parts):
            if "<run>" in command and not given.run:
                parser.error(f"{command}: needs --run")
            found = output_of(command, given)
            # Read again: others may write on the page while a command takes its time.
            old = PLACE.sub(
                lambda place, command=command, new=f"{before}\n{found}\n\n{end}": (
                    new if place[2] == command else place[0]
                ),
                PAGE.read_text(encoding="utf-8"),
            )
            write_text(PAGE, old)


if __name__ == "__main__":
    main()
