"""Pages whose outputs are filled in by running the commands that stand above them.

A page has a fence with a command of one or more lines and, behind it, a mark; what stands between the mark and its end
is written anew.
"""

import re
from collections.abc import Callable

PLACE = re.compile(r"(```\n([^`]+)\n```\n\n<!-- output -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(page: str, output_of: Callable[[str], str | None]) -> str:
    """The page with what `output_of` returns for each command, asked in their order; None leaves what is there."""

    def place(found: re.Match) -> str:
        output = output_of(found[2])
        return found[0] if output is None else f"{found[1]}\n{output}\n\n{found[3]}"

    return PLACE.sub(place, page)


def commands(page: str) -> list[str]:
    """The commands of a page that have a place for their output."""
    return [command for _, command, _ in PLACE.findall(page)]
