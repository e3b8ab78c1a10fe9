"""The pictures that the report shows of a task, in data/gallery/<task>: small files and `tiles.csv`, their table.

Reading them needs neither the images nor Keras.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from stages.base.files import atomic_directory, reading
from stages.data.images import read_csv

FOLDER = Path("data/gallery")
TABLE_COLUMNS = ["file", "role", "title", "index", "class"]
MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg"}
SIGNATURES = {".png": b"\x89PNG\r\n", ".jpg": b"\xff\xd8\xff"}  # the first bytes of a file


@dataclass(frozen=True)
class Tile:
    """A small picture.

    file: its name, unique in the task. role: `sample` (a training image), `mistake` (a test image), `augmented` (a
    training image, and after it changed copies of it). title: which augmentation, and the models that train with it;
    else empty. index: row of the dataset's images. label: name of its class. content: the bytes of the file, PNG or
    JPEG.
    """

    file: str
    role: str
    title: str
    index: int
    label: str
    content: bytes

    @property
    def media_type(self) -> str:
        """What a browser calls the format of the file."""
        return MEDIA_TYPES[Path(self.file).suffix]


def write_gallery(task: str, tiles: list[Tile]) -> None:
    """Write the pictures of a task, and their table in the order given."""
    with atomic_directory(FOLDER / task) as folder:
        for tile in tiles:
            (folder / tile.file).write_bytes(tile.content)
        rows = [(tile.file, tile.role, tile.title, tile.index, tile.label) for tile in tiles]
        table = pd.DataFrame(rows, columns=TABLE_COLUMNS)
        table.to_csv(folder / "tiles.csv", index=False, lineterminator="\n")


def read_gallery(task: str) -> list[Tile]:
    """The pictures of a task, in the order they were written; `UserError` when one is missing or damaged."""
    folder = FOLDER / task
    with reading(folder):
        table = read_csv(folder / "tiles.csv", TABLE_COLUMNS)[TABLE_COLUMNS]
        return [
            Tile(file, role, title, int(index), label, _picture(folder / file))
            for file, role, title, index, label in table.itertuples(index=False, name=None)
        ]


def _picture(path: Path) -> bytes:
    content = path.read_bytes()
    if not content.startswith(SIGNATURES[path.suffix]):
        raise ValueError(f"{path.name} is no {path.suffix[1:]} picture")
    return content
