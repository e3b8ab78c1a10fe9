"""Markdown pages that show commands with their output.

A command is a fenced block, followed by the comment `<!-- output -->`. The text from this comment to `<!-- end -->` is
the output, and is replaced.
"""

import re
from collections.abc import Callable

OUTPUT = re.compile(r"(```\n([^`]+)\n```\n\n<!-- output -->\n).*?(<!-- end -->)", re.DOTALL)


def fill_outputs(page: str, run: Callable[[str], str | None]) -> str:
    """Return the page with the outputs that `run` returns for the commands, in order; None keeps the old output."""

    def replace(match: re.Match) -> str:
        output = run(match[2])
        return match[0] if output is None else f"{match[1]}\n{output}\n\n{match[3]}"

    return OUTPUT.sub(replace, page)


def commands(page: str) -> list[str]:
    """Return the commands of a page that show their output."""
    return [command for _, command, _ in OUTPUT.findall(page)]
