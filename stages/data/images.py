"""Prepared images: one uint8 array of all images of a dataset and a table beside it, in data/images/<dataset>."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from stages.base.files import read_json, reading

FOLDER = Path("data/images")
TABLE_COLUMNS = ["index", "label", "class", "sha256", "name"]


@dataclass(frozen=True)
class PreparedImages:
    """The images of a dataset.

    pixels: (n, size, size, 3) uint8, memory-mapped: rows are read from disk when they are used.
    table: one row an image - index, label (0..classes-1), class, sha256 of the image in its full size,
    name in the source.
    classes: the class names in the order of their labels.
    sha256: of the file of pixels; features made of these images record it.
    """

    pixels: np.ndarray
    table: pd.DataFrame
    classes: list[str]
    sha256: str


def read_images(dataset: str) -> PreparedImages:
    """Read the prepared images of a dataset; `UserError` when they are missing or damaged."""
    folder = FOLDER / dataset
    with reading(folder):
        record = read_json(folder / "record.json")
        pixels = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        text = {"class": str, "sha256": str, "name": str}
        table = pd.read_csv(folder / "table.csv", usecols=TABLE_COLUMNS, dtype=text, keep_default_na=False)
        if len(pixels) != len(table):
            raise ValueError(f"{len(pixels)} images, {len(table)} rows")
        return PreparedImages(pixels, table, record["classes"], record["images_sha256"])
