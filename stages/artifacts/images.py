"""Prepared images in data/images/<dataset>: one uint8 array of all images of a dataset, and a table of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from stages.artifacts.tables import read_csv
from stages.core.files import read_json, reading
from stages.core.wording import counted

IMAGES_FOLDER = Path("data/images")
IMAGE_COLUMNS = ["index", "label", "class", "split", "group", "sha256", "perceptual_hash", "name"]
QUARANTINE_COLUMNS = ["name", "class", "reason"]


@dataclass(frozen=True)
class PreparedImages:
    """The images of a dataset.

    pixels: (n, image_size, image_size, 3) uint8, memory-mapped: rows are read from disk when they are used.
    table: one row per image - index, label (0..classes-1), class, split (train, validation, test, or empty if the
    source does not publish one), group (or empty), sha256 of the image in its original size, perceptual_hash (256
    bits as 64 hexadecimal digits), name in the source.
    quarantine: the unreadable files - name, class, reason.
    classes: the class names in the order of their labels.
    sha256: checksum of the file of pixels; features of these images record it.
    image_size: side of the images in pixels. resize: how they became square (crop, pad or stretch).
    bits: how many bits the values of 16-bit gray images use; None for all.
    ignored: the number of files that are not images of a class, which ignored.csv lists.
    """

    pixels: np.ndarray
    table: pd.DataFrame
    quarantine: pd.DataFrame
    classes: list[str]
    sha256: str
    image_size: int
    resize: str
    bits: int | None = None
    ignored: int = 0

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The pixels of some images, (m, size, size, 3) uint8, without keeping parts of the file in memory."""
        return np.load(self.pixels.filename, mmap_mode="r", allow_pickle=False)[rows]


def read_images(dataset: str) -> PreparedImages:
    """Read the prepared images of a dataset; `UserError` if they are missing or damaged."""
    folder = IMAGES_FOLDER / dataset
    with reading(folder):
        record = read_json(folder / "record.json")
        pixels = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        table = read_csv(folder / "table.csv", IMAGE_COLUMNS)
        quarantine = read_csv(folder / "quarantine.csv", QUARANTINE_COLUMNS)
        if len(pixels) != len(table):
            raise ValueError(f"{counted(len(pixels), 'image')}, {counted(len(table), 'row')}")
        return PreparedImages(
            pixels,
            table,
            quarantine,
            classes=record["classes"],
            sha256=record["images_sha256"],
            image_size=record["image_size"],
            resize=record["resize"],
            bits=record.get("bits"),
            ignored=record.get("ignored", 0),
        )
