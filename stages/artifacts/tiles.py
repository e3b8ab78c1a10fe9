"""Tiles: small pictures of a task for the report, in a folder with their table, `tiles.csv`.

data/gallery/<task> has training images and augmented copies of them, data/mistakes/<task> misclassified test images.
Reading tiles needs neither the image arrays nor Keras.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from stages.artifacts.tables import read_csv
from stages.core.files import atomic_directory, reading

GALLERY_FOLDER, MISTAKES_FOLDER = Path("data/gallery"), Path("data/mistakes")
LARGEST_SIDE = 112  # pixels
LARGEST_PNG = 64  # pixels; JPEG would blur images that small
TILE_COLUMNS = ["file", "role", "title", "index", "class"]
MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg"}
SIGNATURES = {".png": b"\x89PNG\r\n", ".jpg": b"\xff\xd8\xff"}  # the first bytes of a file


@dataclass(frozen=True)
class Tile:
    """A small picture.

    file: its name, unique in the task. role: `sample` (a training image), `mistake` (a test image), `augmented` (a
    training image, followed by changed copies of it). title: the augmentation and the entries that use it; else empty.
    index: row of the dataset's images. label: name of the class. content: the bytes of the file, PNG or JPEG.
    """

    file: str
    role: str
    title: str
    index: int
    label: str
    content: bytes

    @property
    def media_type(self) -> str:
        """The media type of the file."""
        return MEDIA_TYPES[Path(self.file).suffix]


def make_tile(pixels: np.ndarray, name: str, role: str, title: str, index: int, label: str) -> Tile:
    """A tile of an image, (size, size, 3) uint8; large images are reduced, small ones are not enlarged."""
    image = Image.fromarray(pixels)
    if max(image.size) > LARGEST_SIDE:
        image = image.resize((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    if max(image.size) <= LARGEST_PNG:
        image.save(file, "PNG", optimize=True)
        return Tile(f"{name}.png", role, title, index, label, file.getvalue())
    image.save(file, "JPEG", quality=85, optimize=True)
    return Tile(f"{name}.jpg", role, title, index, label, file.getvalue())


def make_tiles(rows: pd.DataFrame, role: str, pixels: np.ndarray) -> Iterator[Tile]:
    """A tile of each row of a task's table; pixels: (n, size, size, 3) uint8 of the dataset."""
    for index, label in zip(rows["index"], rows["class"], strict=True):
        yield make_tile(pixels[index], f"{role}-{index}", role, "", index, label)


def write_tiles(folder: Path, tiles: list[Tile]) -> None:
    """Write tiles and their table in the given order; other files of the folder are removed."""
    with atomic_directory(folder) as partial:
        for tile in tiles:
            (partial / tile.file).write_bytes(tile.content)
        rows = [(tile.file, tile.role, tile.title, tile.index, tile.label) for tile in tiles]
        table = pd.DataFrame(rows, columns=TILE_COLUMNS)
        table.to_csv(partial / "tiles.csv", index=False, lineterminator="\n")


def read_tiles(folder: Path) -> list[Tile]:
    """The tiles of a folder, in the order they were written; `UserError` if one is missing or damaged."""
    with reading(folder):
        table = read_csv(folder / "tiles.csv", TILE_COLUMNS)[TILE_COLUMNS]
        return [
            Tile(file, role, title, int(index), label, _picture(folder / file))
            for file, role, title, index, label in table.itertuples(index=False, name=None)
        ]


def _picture(path: Path) -> bytes:
    content = path.read_bytes()
    if not content.startswith(SIGNATURES[path.suffix]):
        raise ValueError(f"{path.name} is not a {path.suffix[1:]} file")
    return content
