"""Where images come from. A source downloads itself into one folder and then yields its images one by one.

A source is a pair of functions: `download(dataset, folder)` brings the source as it is into a folder and returns its
file, and `images(dataset, folder)` reads it, as an iterator over `SourceImage`.
"""

import gzip
import importlib.resources
import io
import lzma
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image

from stages.base.errors import UserError
from stages.base.files import reading
from stages.sources.fetch import fetch, is_address
from stages.study.schema import Archive, Digits

# A file in an archive larger than this is no photograph: it is not read.
LARGEST_FILE = 200 * 2**20
# Of the file in scikit-learn: another version of it must not pass for the same data.
DIGITS_CHECKSUM = "sha256:09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"


class SourceImage(NamedTuple):
    """One image of a source.

    name: unique in its dataset. label: the class as the source calls it. content: returns the bytes of an image file;
    called only once, in the order of the iterator.
    """

    name: str
    label: str
    content: Callable[[], bytes]


class Source(NamedTuple):
    """The two functions of a source; see the head of this module."""

    download: Callable
    images: Callable


def _download_digits(dataset: Digits, folder: Path) -> Path:
    file = folder / "digits.csv.gz"
    with importlib.resources.as_file(importlib.resources.files("sklearn.datasets.data") / file.name) as source:
        fetch(str(source), file, DIGITS_CHECKSUM)
    return file


def _digits(dataset: Digits, folder: Path) -> Iterator[SourceImage]:
    path = folder / "digits.csv.gz"
    with reading(path), gzip.open(path, "rt") as file:
        table = np.loadtxt(file, delimiter=",")  # (1797, 65): 64 grey values from 0 to 16, then the digit
    for number, row in enumerate(table):
        grey = np.rint(row[:64].reshape(8, 8) * (255 / 16)).astype(np.uint8)
        yield SourceImage(f"digit-{number:04d}", str(int(row[64])), lambda grey=grey: _as_png(grey))


def _as_png(grey: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    return file.getvalue()


def _archive_name(dataset: Archive) -> str:
    path = PurePosixPath(dataset.url.split("?")[0]) if is_address(dataset.url) else Path(dataset.url)
    return path.name or "archive"


def _download_archive(dataset: Archive, folder: Path) -> Path:
    file = folder / _archive_name(dataset)
    fetch(dataset.url, file, f"sha256:{dataset.sha256}")
    return file


def _archive(dataset: Archive, folder: Path) -> Iterator[SourceImage]:
    """The `<class>/<image>` files of an archive; nothing is unpacked to disk.

    A zip is read in the order of its names, a tar in its own order: to go back in a compressed tar is to start again.
    """
    path = folder / _archive_name(dataset)
    if not path.exists():
        raise UserError(f"{path} is missing; `dvc repro` makes it.")
    try:
        yield from _open_archive(dataset, path)
    except (zipfile.BadZipFile, tarfile.TarError, OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise UserError(f"{dataset.url!r} is damaged ({error}); give a whole archive.") from None


def _open_archive(dataset: Archive, path: Path) -> Iterator[SourceImage]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            files = {info.filename: info for info in archive.infolist() if not info.is_dir()}
            sizes = {name: files[name].file_size for name in sorted(files)}
            yield from _members(dataset, sizes, archive.read)
    elif tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            files = {info.name: info for info in archive if info.isfile()}
            sizes = {name: info.size for name, info in sorted(files.items(), key=lambda item: item[1].offset)}
            yield from _members(dataset, sizes, lambda name: archive.extractfile(files[name]).read())
    else:
        raise UserError(f"{dataset.url!r} is neither a zip nor a tar archive; give one that is.")


def _members(dataset: Archive, sizes: dict[str, int], read: Callable[[str], bytes]) -> Iterator[SourceImage]:
    found = 0
    for name in sizes:
        parts = PurePosixPath(name).parts
        if len(parts) < 2 or any(part.startswith((".", "__MACOSX")) for part in parts):
            continue  # files beside the class folders, and what operating systems leave behind
        found += 1
        # macOS writes an accented letter as two characters, which a study would have to write so too.
        label = unicodedata.normalize("NFC", _printable(parts[-2]))
        yield SourceImage(_printable(name), label, lambda name=name: _read_member(name, sizes[name], read))
    if not found:
        raise UserError(f"{dataset.url!r} holds no <class>/<image> files; put the images of each class in a folder.")


def _printable(name: str) -> str:
    """A name whose bytes were no UTF-8 (old tar archives) as text that can be written."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _read_member(name: str, size: int, read: Callable[[str], bytes]) -> bytes:
    if size > LARGEST_FILE:
        raise OSError(f"unpacks to {size:,} bytes, more than {LARGEST_FILE:,}")
    return read(name)


SOURCES = {
    "digits": Source(_download_digits, _digits),
    "archive": Source(_download_archive, _archive),
}
