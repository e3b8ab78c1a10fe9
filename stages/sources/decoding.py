"""Decoding every image of a source once: the writing side of stages.data.images."""

import hashlib
import io
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from stages.base.errors import UserError
from stages.base.files import atomic_directory, sha256_of, write_json
from stages.data.images import FOLDER
from stages.sources.readers import SourceImage


def write_images(dataset: str, source: Iterable[SourceImage], image_size: int, max_unreadable: float) -> str:
    """Decode every image of a source once and write data/images/<dataset>; returns a line that says what was made.

    Files that are no readable image are left out and listed in `quarantine.csv` with the reason; more than the share
    `max_unreadable` of them is a `UserError`.
    """
    rows, quarantine = [], []
    with atomic_directory(FOLDER / dataset) as folder:
        with (folder / "pixels").open("wb") as file:
            for image in tqdm(source, desc=f"prepare {dataset}", unit=" images", disable=None):
                try:
                    pixels, sha256 = decode(image.content(), image_size)
                except MemoryError:
                    raise
                except Exception as error:  # on broken files Pillow and zipfile raise nearly anything
                    reason = str(error) or type(error).__name__
                    quarantine.append({"name": image.name, "class": image.label, "reason": reason})
                    continue
                rows.append({"class": image.label, "sha256": sha256, "name": image.name})
                file.write(pixels.tobytes())
        _check_quarantine(dataset, len(rows), quarantine, max_unreadable)
        _as_npy(folder / "pixels", folder / "images.npy", (len(rows), image_size, image_size, 3))
        classes = sorted({row["class"] for row in rows})
        table = pd.DataFrame(rows)
        table.insert(0, "index", range(len(rows)))
        table.insert(1, "label", table["class"].map(classes.index))
        table.to_csv(folder / "table.csv", index=False, lineterminator="\n")
        pd.DataFrame(quarantine, columns=["name", "class", "reason"]).to_csv(
            folder / "quarantine.csv", index=False, lineterminator="\n"
        )
        write_json(
            folder / "record.json",
            {
                "images": len(rows),
                "image_size": image_size,
                "classes": classes,
                "images_sha256": sha256_of(folder / "images.npy"),
            },
        )
    left_out = f", {len(quarantine)} unreadable left out" if quarantine else ""
    return f"{len(rows)} images of {len(classes)} classes, {image_size}x{image_size}{left_out}"


class Decoded(NamedTuple):
    """pixels: (size, size, 3) uint8. sha256: of the image in its full size, whatever size it is brought to."""

    pixels: np.ndarray
    sha256: str


def decode(content: bytes, image_size: int) -> Decoded:
    """Decode an image file: turned upright by its EXIF orientation, RGB, cropped to the middle square and resized.

    Raises what Pillow raises on files it cannot read.
    """
    if not content:
        raise ValueError("the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            opened = Image.open(io.BytesIO(content))
        except UnidentifiedImageError:  # its own message holds a memory address, which differs on every run
            raise ValueError("the file is no image of a known format") from None
        with opened as image:
            rgb = _as_rgb(ImageOps.exif_transpose(image))
            sha256 = hashlib.sha256(f"{rgb.width}x{rgb.height}".encode() + rgb.tobytes()).hexdigest()
            fitted = ImageOps.fit(rgb, (image_size, image_size), method=Image.Resampling.BICUBIC)
            return Decoded(np.asarray(fitted), sha256)


def _as_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB; transparent parts become white, 16-bit grey keeps its upper eight bits."""
    if image.mode.startswith("I;16") or image.mode == "I":
        return Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65_535) >> 8).astype(np.uint8)).convert(
            "RGB"
        )
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _check_quarantine(dataset: str, readable: int, quarantine: list[dict], max_unreadable: float) -> None:
    total = readable + len(quarantine)
    if readable and len(quarantine) <= max_unreadable * total:
        return
    first = "; ".join(f"{row['name']}: {row['reason']}" for row in quarantine[:10])
    raise UserError(
        f"datasets.{dataset}: {len(quarantine)} of {total} files are no readable image, more than max_unreadable "
        f"{max_unreadable:.1%} ({first}); mend or remove them, or raise max_unreadable."
    )


def _as_npy(raw: Path, target: Path, shape: tuple[int, ...]) -> None:
    """Give raw uint8 pixels the header of an .npy file, a part at a time, and remove the raw file."""
    array = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=shape)
    flat = array.reshape(-1)
    with raw.open("rb") as file:
        start = 0
        while part := file.read(2**24):
            flat[start : start + len(part)] = np.frombuffer(part, np.uint8)
            start += len(part)
    array.flush()
    raw.unlink()
