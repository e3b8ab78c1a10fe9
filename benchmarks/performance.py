"""Runs the commands in docs/performance.md and writes their output below them.

    python -m benchmarks.performance --files <folder> [--run <folder>] [part of a command ...]

With parts of commands, it runs only the commands that contain one of them. `--files` and `--run` replace <files> and
<run> in the commands. Run nothing else on the machine at the same time.
"""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

from benchmarks.pages import commands, fill_outputs
from stages.core.files import write_text

PAGE = Path(__file__).parents[1] / "docs/performance.md"


def run_command(command: str, options: argparse.Namespace) -> str:
    """Return what a command prints, with headings one level below those of the page."""
    words = shlex.split(command.replace("<files>", str(options.files)).replace("<run>", str(options.run)))
    print(f"+ {command}", file=sys.stderr, flush=True)
    result = subprocess.run([sys.executable, *words[1:]], stdout=subprocess.PIPE, text=True, check=True)
    return re.sub(r"^#+ ", "### ", result.stdout, flags=re.MULTILINE).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part")
    parser.add_argument("--files", type=Path, required=True)
    parser.add_argument("--run", type=Path)
    options = parser.parse_args()
    for command in commands(PAGE.read_text(encoding="utf-8")):
        if not options.parts or any(part in command for part in options.parts):
            if "<run>" in command and not options.run:
                parser.error(f"{command}: needs --run")
            outputs = {command: run_command(command, options)}
            # Read the page again: it may have been edited while the command ran.
            write_text(PAGE, fill_outputs(PAGE.read_text(encoding="utf-8"), outputs.get))


if __name__ == "__main__":
    main()
