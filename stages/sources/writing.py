"""Writing the prepared images of a dataset: the other side of stages.artifacts.images.

Pixels and rows go to disk as they come, so that memory does not grow with the number of images, and a run that was
killed is taken up where it ended.
"""

import csv
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from stages.artifacts.images import IMAGE_COLUMNS, IMAGES_FOLDER, QUARANTINE_COLUMNS
from stages.core.errors import UserError
from stages.core.files import resumable_directory, sha256_of, write_json
from stages.sources.source_image import SourceImage
from stages.sources.workers import decode_all

# So many images are decoded again at most when a run was killed.
IMAGES_A_CHECKPOINT = 500


def write_images(
    dataset: str,
    source: Iterable[SourceImage],
    image_size: int,
    max_unreadable: float,
    resize: str = "crop",
    fingerprint: str = "",
) -> str:
    """Decode every image of a source once and write data/images/<dataset>; returns a line that says what was made.

    Files that are no readable image are left out and listed in `quarantine.csv` with the reason; more than the share
    `max_unreadable` of them is a `UserError`, and so is a class of which nothing can be read.
    fingerprint: tells this source and its settings from others; what a killed run left is taken up where it is the same.
    """
    with resumable_directory(IMAGES_FOLDER / dataset, f"{fingerprint} {image_size} {resize}") as folder:
        _decode(dataset, folder, source, image_size, resize)
        found = _Found.of(folder)
        _check(dataset, found, max_unreadable)
        classes = sorted(found.readable)
        _write_tables(folder, classes)
        write_json(
            folder / "record.json",
            {
                "images": found.images,
                "image_size": image_size,
                "resize": resize,
                "classes": classes,
                "images_sha256": sha256_of(folder / "images.npy"),
            },
        )
    unreadable = f", {found.unreadable} unreadable left out" if found.unreadable else ""
    return f"{found.images} images of {len(classes)} classes, {image_size}x{image_size}{unreadable}"


def _decode(dataset: str, folder: Path, source: Iterable[SourceImage], image_size: int, resize: str) -> None:
    """Bring images.npy, (n, size, size, 3) uint8, and `rows` to their end; an image is one line of JSON in `rows`."""
    for name in ("images.npy", "rows"):
        (folder / name).touch()
    with (folder / "images.npy").open("r+b") as pixels, (folder / "rows").open("r+b") as rows:
        done, readable = _take_up(pixels, rows, image_size)
        if done:
            print(f"prepare {dataset}: {done} images are done, by a run that was ended; going on from there")
        outcomes = decode_all(itertools.islice(source, done, None), image_size, resize)
        shown = tqdm(outcomes, f"prepare {dataset}", initial=done, unit=" images", disable=None)
        for number, (image, outcome) in enumerate(shown, start=1):
            row = {"name": image.name, "class": image.label}
            if isinstance(outcome, str):
                row["reason"] = outcome
            else:
                row |= {
                    "split": image.split,
                    "group": image.group,
                    "sha256": outcome.sha256,
                    "perceptual_hash": outcome.perceptual_hash,
                }
                pixels.write(outcome.pixels.tobytes())
                readable += 1
            rows.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            if number % IMAGES_A_CHECKPOINT == 0:
                _save(pixels, rows)
        _save(pixels, rows)
        pixels.seek(0)
        _write_header(pixels, readable, image_size)


def _take_up(pixels: BinaryIO, rows: BinaryIO, image_size: int) -> tuple[int, int]:
    """Cut both files to the images that are whole in both; returns how many there are, and how many are readable."""
    _write_header(pixels, 0, image_size)
    header, size = pixels.tell(), image_size**2 * 3
    whole = max(0, os.fstat(pixels.fileno()).st_size - header) // size
    done = readable = end = 0
    for line in rows:
        if not line.endswith(b"\n"):
            break
        has_pixels = "sha256" in json.loads(line)
        if has_pixels and readable == whole:
            break
        done, readable, end = done + 1, readable + has_pixels, end + len(line)
    for file, length in ((rows, end), (pixels, header + readable * size)):
        file.truncate(length)
        file.seek(length)
    return done, readable


def _write_header(pixels: BinaryIO, images: int, image_size: int) -> None:
    """The header of an .npy file, which has the same length for any number of images."""
    described = {"descr": "|u1", "fortran_order": False, "shape": (images, image_size, image_size, 3)}
    np.lib.format.write_array_header_1_0(pixels, described)


def _save(pixels: BinaryIO, rows: BinaryIO) -> None:
    """Pixels first: a row promises that its pixels are there."""
    for file in (pixels, rows):
        file.flush()
        os.fsync(file.fileno())


@dataclass
class _Found:
    """What `rows` says. readable, seen: the classes of readable and of all images; first: the first reasons."""

    images: int = 0
    unreadable: int = 0
    readable: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    first: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, folder: Path) -> "_Found":
        found = cls()
        for row in _rows(folder):
            found.seen.add(row["class"])
            if "reason" in row:
                found.unreadable += 1
                if len(found.first) < 10:
                    found.first.append(f"{row['name']}: {row['reason']}")
            else:
                found.images += 1
                found.readable.add(row["class"])
        return found


def _rows(folder: Path) -> Iterator[dict[str, str]]:
    with (folder / "rows").open("rb") as rows:
        yield from map(json.loads, rows)


def _check(dataset: str, found: _Found, max_unreadable: float) -> None:
    total = found.images + found.unreadable
    if not found.images or found.unreadable > max_unreadable * total:
        raise UserError(
            f"{dataset}: {found.unreadable} of {total} files are no readable image, more than max_unreadable "
            f"{max_unreadable:.1%} ({'; '.join(found.first)}); mend or remove them, or raise max_unreadable."
        )
    if lost := sorted(found.seen - found.readable - {""}):
        raise UserError(f"{dataset}: no image of class {lost[0]!r} can be read; mend its files, or remove the class.")


def _write_tables(folder: Path, classes: list[str]) -> None:
    """Turn `rows` into table.csv and quarantine.csv, a row at a time."""
    labels = {name: label for label, name in enumerate(classes)}
    with (
        (folder / "table.csv").open("w", encoding="utf-8", newline="") as table,
        (folder / "quarantine.csv").open("w", encoding="utf-8", newline="") as quarantine,
    ):
        images = csv.DictWriter(table, IMAGE_COLUMNS, lineterminator="\n")
        left_out = csv.DictWriter(quarantine, QUARANTINE_COLUMNS, lineterminator="\n")
        images.writeheader()
        left_out.writeheader()
        index = itertools.count()
        for row in _rows(folder):
            if "reason" in row:
                left_out.writerow(row)
            else:
                images.writerow({"index": next(index), "label": labels[row["class"]], **row})
    (folder / "rows").unlink()
