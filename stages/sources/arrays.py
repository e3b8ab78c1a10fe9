"""Datasets that are published as arrays of pixels: the handwritten digits and CIFAR-10."""

import gzip
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from stages.config.datasets import CIFAR10_CLASSES, Cifar10Config, DigitsConfig
from stages.core.errors import UserError
from stages.core.files import reading
from stages.sources.archives import DAMAGE, damaged
from stages.sources.source_image import LARGEST_FILE, SourceImage

# https://www.cs.toronto.edu/~kriz/cifar.html: one byte label, then 1,024 bytes each of red, green and blue, row by row.
CIFAR10_RECORD = 1 + 3 * 32 * 32
CIFAR10_FILES = {**{f"data_batch_{number}.bin": "train" for number in range(1, 6)}, "test_batch.bin": "test"}


def digits_images(dataset: DigitsConfig, path: Path) -> Iterator[SourceImage]:
    """The images of scikit-learn's digits.csv.gz, (8, 8) uint8 gray each."""
    with reading(path), gzip.open(path, "rt") as file:
        table = np.loadtxt(file, delimiter=",")  # (1797, 65): 64 gray values from 0 to 16, then the digit
    for number, row in enumerate(table):
        gray = np.rint(row[:64].reshape(8, 8) * (255 / 16)).astype(np.uint8)
        yield SourceImage(f"digit-{number:04d}", str(int(row[64])), lambda gray=gray: gray)


def cifar10_images(dataset: Cifar10Config, path: Path) -> Iterator[SourceImage]:
    """The images of CIFAR-10's binary archive, (32, 32, 3) uint8 each, in the order of the archive."""
    read_files = set()
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if member.isfile() and name in CIFAR10_FILES:
                    if member.size > LARGEST_FILE:
                        raise OSError(f"{name} unpacks to {member.size:,} bytes")
                    read_files.add(name)
                    yield from _cifar10_file(path, name, archive.extractfile(member).read())
    except DAMAGE as error:
        raise damaged(path, error) from None
    if missing := [name for name in CIFAR10_FILES if name not in read_files]:
        raise UserError(
            f"{str(path)!r} lacks {', '.join(missing)}. Give CIFAR-10's binary version, cifar-10-binary.tar.gz."
        )


def _cifar10_file(path: Path, name: str, content: bytes) -> Iterator[SourceImage]:
    if not content or len(content) % CIFAR10_RECORD:
        raise UserError(
            f"{str(path)!r}: {name} has {len(content):,} bytes, not a multiple of {CIFAR10_RECORD:,}. Give CIFAR-10's "
            "binary version, cifar-10-binary.tar.gz."
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, CIFAR10_RECORD)
    if (unknown := records[:, 0].max()) >= len(CIFAR10_CLASSES):
        raise UserError(f"{str(path)!r}: {name} has the label {unknown}, above 9. Give the published archive.")
    pixels = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # (n, 32, 32, 3)
    batch = name.removesuffix(".bin")
    for number, (label, image) in enumerate(zip(records[:, 0], pixels, strict=True)):
        label_name = CIFAR10_CLASSES[label]
        yield SourceImage(f"{batch}/{number:04d}", label_name, lambda image=image: image, CIFAR10_FILES[name])
