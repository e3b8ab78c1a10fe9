"""Writes the prepared images of a dataset, which stages.artifacts.images reads.

Pixels and rows are written one image at a time: memory does not grow with the number of images, and an interrupted run
can be resumed.
"""

import csv
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from stages.artifacts.images import IMAGE_COLUMNS, IMAGES_FOLDER, QUARANTINE_COLUMNS
from stages.core.errors import UserError
from stages.core.files import resumable_directory, sha256_of, write_json
from stages.core.progress import Progress
from stages.core.wording import counted
from stages.sources.source_image import SourceImage
from stages.sources.workers import NoImage, Outcome, decode_all

# At most this many images are decoded again after an interruption.
IMAGES_A_CHECKPOINT = 500
# A dataset of 16-bit images with values below this does not use the upper two bits.
NEARLY_BLACK = 2**14


def write_images(
    dataset: str,
    source: Iterable[SourceImage],
    image_size: int,
    max_unreadable: float,
    resize: str = "crop",
    fingerprint: str = "",
) -> str:
    """Decode every image of a source once, write data/images/<dataset>, and return a line with its counts.

    Unreadable images are excluded and listed in `quarantine.csv` with the reason. `UserError` if their share exceeds
    `max_unreadable`, or if classes have no readable image. Files that are not images of a class are listed in
    `ignored.csv`.
    fingerprint: identifies the source and its settings; only an interrupted run with the same one is resumed.
    """
    with resumable_directory(IMAGES_FOLDER / dataset, f"{fingerprint} {image_size} {resize}") as folder:
        _decode(dataset, folder, source, image_size, resize)
        counts = _Counts.of(folder)
        _check(dataset, counts, max_unreadable)
        classes = sorted(counts.readable)
        _write_tables(folder, classes)
        write_json(
            folder / "record.json",
            {
                "images": counts.images,
                "image_size": image_size,
                "resize": resize,
                "classes": classes,
                "images_sha256": sha256_of(folder / "images.npy"),
                **({"ignored": counts.ignored} if counts.ignored else {}),
                **({"bits": counts.bits} if counts.bits else {}),
            },
        )
    unreadable = f", {counts.unreadable} unreadable" if counts.unreadable else ""
    ignored = f", {counted(counts.ignored, 'other file')} ignored ({counts.first_ignored})" if counts.ignored else ""
    images = f"{counted(counts.images, 'image')} of {counted(len(classes), 'class')}"
    return f"{images}, {image_size}x{image_size}{unreadable}{ignored}"


def _decode(dataset: str, folder: Path, source: Iterable[SourceImage], image_size: int, resize: str) -> None:
    """Complete images.npy, (n, size, size, 3) uint8, and `rows`, which has one line of JSON per image."""
    for name in ("images.npy", "rows"):
        (folder / name).touch()
    with (folder / "images.npy").open("r+b") as pixels, (folder / "rows").open("r+b") as rows:
        done, readable = _resume(pixels, rows, image_size)
        if done:
            print(f"prepare {dataset}: resuming after {counted(done, 'image')}")
        outcomes = decode_all(itertools.islice(source, done, None), image_size, resize)
        for number, (image, outcome) in enumerate(_counted(outcomes, f"prepare {dataset}", done), start=1):
            row = {"name": image.name, "class": image.label}
            if isinstance(outcome, str):
                row["reason"] = outcome
                if image.is_optional and isinstance(outcome, NoImage):
                    row["ignored"] = True
            else:
                row |= {
                    "split": image.split,
                    "group": image.group,
                    "sha256": outcome.sha256,
                    "perceptual_hash": outcome.perceptual_hash,
                    "bits": image.bits,
                    "largest": outcome.largest,
                    "has_deep_color": outcome.has_deep_color,
                }
                pixels.write(outcome.pixels.tobytes())
                readable += 1
            rows.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            if number % IMAGES_A_CHECKPOINT == 0:
                _save(pixels, rows)
        _save(pixels, rows)
        pixels.seek(0)
        _write_header(pixels, readable, image_size)


def _counted(outcomes: Iterable[Outcome], description: str, done: int) -> Iterator[Outcome]:
    """The same, with the progress of the one who iterates. done: by an earlier run."""
    with Progress(description, "image", initial=done) as progress:
        for outcome in outcomes:
            yield outcome
            progress.update(1)


def _resume(pixels: BinaryIO, rows: BinaryIO, image_size: int) -> tuple[int, int]:
    """Truncate both files to the images that are complete in both; returns their number, and how many are readable."""
    _write_header(pixels, 0, image_size)
    header, size = pixels.tell(), image_size**2 * 3
    complete = max(0, os.fstat(pixels.fileno()).st_size - header) // size
    done = readable = end = 0
    for line in rows:
        if not line.endswith(b"\n"):
            break
        has_pixels = "sha256" in json.loads(line)
        if has_pixels and readable == complete:
            break
        done, readable, end = done + 1, readable + has_pixels, end + len(line)
    for file, length in ((rows, end), (pixels, header + readable * size)):
        file.truncate(length)
        file.seek(length)
    return done, readable


def _write_header(pixels: BinaryIO, images: int, image_size: int) -> None:
    """The header of an .npy file, which has the same length for any number of images."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (images, image_size, image_size, 3)}
    np.lib.format.write_array_header_1_0(pixels, header)


def _save(pixels: BinaryIO, rows: BinaryIO) -> None:
    """Pixels first, because a row implies that its pixels are saved."""
    for file in (pixels, rows):
        file.flush()
        os.fsync(file.fileno())


@dataclass
class _Counts:
    """Counts of `rows`.

    readable, classes: the classes of readable and of all images. reasons: of the first ten unreadable ones.
    first_ignored: an ignored file with its reason. others: folder of ignored files -> one of them. bits: those of the
    dataset. largest: value of all 16-bit images. has_deep_color: whether some have colors.
    """

    images: int = 0
    unreadable: int = 0
    ignored: int = 0
    readable: set[str] = field(default_factory=set)
    classes: set[str] = field(default_factory=set)
    others: dict[str, str] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    first_ignored: str = ""
    bits: int | None = None
    largest: int | None = None
    has_deep_color: bool = False

    @classmethod
    def of(cls, folder: Path) -> "_Counts":
        counts = cls()
        for row in _rows(folder):
            reason = f"{row['name']}: {row.get('reason')}"
            if "ignored" in row:
                counts.ignored += 1
                counts.first_ignored = counts.first_ignored or reason
                counts.others.setdefault(row["class"], row["name"])
                continue
            counts.classes.add(row["class"])
            if "reason" in row:
                counts.unreadable += 1
                counts.reasons += [reason] if len(counts.reasons) < 10 else []
            else:
                counts.images += 1
                counts.bits = row["bits"]
                if row["largest"] is not None:
                    counts.largest = max(counts.largest or 0, row["largest"])
                    counts.has_deep_color |= row["has_deep_color"]
                counts.readable.add(row["class"])
        return counts


def _rows(folder: Path) -> Iterator[dict[str, str]]:
    with (folder / "rows").open("rb") as rows:
        yield from map(json.loads, rows)


def _check(dataset: str, counts: _Counts, max_unreadable: float) -> None:
    total = counts.images + counts.unreadable
    if not total:
        raise UserError(
            f"{dataset}: none of {counted(counts.ignored, 'file')} is an image of a class ({counts.first_ignored}). "
            "Give a folder or archive of images."
        )
    problems = []
    if not counts.images or counts.unreadable > max_unreadable * total:
        verb = "is" if counts.unreadable == 1 else "are"
        problems.append(
            f"{dataset}: {counts.unreadable} of {counted(total, 'file')} {verb} unreadable, more than max_unreadable "
            f"{max_unreadable:.1%} ({'; '.join(counts.reasons)}). Fix, convert or remove them, or raise max_unreadable."
        )
    if counts.images:  # else it holds for all of them
        problems += [
            f"{dataset}: class {name!r} has no readable image. Fix its files, or remove the class."
            for name in sorted(counts.classes - counts.readable - {""})
        ]
    problems += [
        f"{dataset}: folder {name!r} has no images, only files such as {counts.others[name]!r}. Move it to another "
        "place, or add images."
        for name in sorted(counts.others.keys() - counts.classes - {""})
    ]
    if counts.bits is None and counts.largest is not None and counts.largest < NEARLY_BLACK:
        bits = max(8, counts.largest.bit_length() + counts.largest.bit_length() % 2)
        if counts.has_deep_color:
            remedy = "Some of them are in color: convert them to 8 bits, or write `bits: 16`"
        else:
            remedy = f"Write `bits: {bits}` if {2**bits - 1:,} is white, or `bits: 16`"
        problems.append(
            f"{dataset}: the values of the 16-bit images reach only {counts.largest:,} of 65,535, so the images would "
            f"be nearly black. {remedy} if they are that dark."
        )
    if problems:
        raise UserError(*problems)


def _write_tables(folder: Path, classes: list[str]) -> None:
    """Convert `rows` to table.csv, quarantine.csv and, if files were ignored, ignored.csv, one row at a time."""
    columns = {"table.csv": IMAGE_COLUMNS, "quarantine.csv": QUARANTINE_COLUMNS, "ignored.csv": QUARANTINE_COLUMNS}
    labels, index, ignored = {name: label for label, name in enumerate(classes)}, itertools.count(), False
    with ExitStack() as files:
        tables = {}
        for name in columns:
            file = files.enter_context((folder / name).open("w", encoding="utf-8", newline=""))
            tables[name] = csv.DictWriter(file, columns[name], extrasaction="ignore", lineterminator="\n")
            tables[name].writeheader()
        for row in _rows(folder):
            if "ignored" in row:
                ignored = True
                tables["ignored.csv"].writerow(row)
            elif "reason" in row:
                tables["quarantine.csv"].writerow(row)
            else:
                tables["table.csv"].writerow({"index": next(index), "label": labels[row["class"]], **row})
    (folder / "rows").unlink()
    if not ignored:
        (folder / "ignored.csv").unlink()
