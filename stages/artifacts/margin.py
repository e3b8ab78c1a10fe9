"""The margin of the recommendation in data/margin, which the stage `check` writes.

DVC has no defaults: a stage cannot depend on a key of params.yaml that a study may leave out, but on this file.
"""

from pathlib import Path

from stages.core.files import read_json, reading, write_json

MARGIN_FILE = Path("data/margin")


def write_margin(points: float) -> None:
    """Write how many points of accuracy the recommended model may be below the best one, 0 to 100."""
    write_json(MARGIN_FILE, points)


def read_margin() -> float:
    """The number that `write_margin` wrote; `UserError` if the file is missing or damaged."""
    with reading(MARGIN_FILE):
        return float(read_json(MARGIN_FILE))
