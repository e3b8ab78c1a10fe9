"""Prepared images: one uint8 array of all images of a dataset and a table beside it, in data/images/<dataset>."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from stages.base.errors import UserError
from stages.base.files import read_json

FOLDER = Path("data/images")


@dataclass(frozen=True)
class PreparedImages:
    """The images of a dataset.

    pixels: (n, size, size, 3) uint8, memory-mapped: rows are read from disk when they are used.
    table: one row an image - index, label (0..classes-1), class, sha256 of the pixels, name in the source.
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
    record = read_json(folder / "record.json")
    try:
        pixels = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        table = pd.read_csv(folder / "table.csv", dtype={"class": str, "name": str}, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is damaged ({error}); delete it and run `dvc repro`.") from None
    if len(pixels) != len(table):
        raise UserError(
            f"{folder} is damaged ({len(pixels)} images, {len(table)} rows); delete it and run `dvc repro`."
        )
    return PreparedImages(pixels, table, record["classes"], record["images_sha256"])
