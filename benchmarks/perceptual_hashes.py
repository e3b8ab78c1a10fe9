"""Measures the distances of perceptual hashes, from which NEAR_BITS of stages.splitting.near_duplicates was chosen.

    python -m benchmarks.perceptual_hashes archive [...] [--images 10000] [--changed 300]

For archives of <class>/<image>, it prints the Hamming distances between an image and its changed copies, and between
all pairs of different images. A good threshold is above the first and below the second. Hashes of 64 and of 256 bits
are measured.
"""

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import imagehash
import numpy as np
import pandas as pd
from PIL import Image, ImageEnhance

from stages.sources.archives import archive_images
from stages.sources.decoding import HASH_SIDE
from stages.splitting.near_duplicates import NEAR_BITS, hash_bits, near_pairs

SIDES = (8, HASH_SIDE)  # of 64 and of 256 bits
BLOCK = 2**20  # distances computed at once


def as_jpeg(rgb: Image.Image) -> Image.Image:
    file = io.BytesIO()
    rgb.save(file, "JPEG", quality=50)
    return Image.open(file)


def cropped(rgb: Image.Image) -> Image.Image:
    """Remove 1 % at every border."""
    left, top = max(1, rgb.width // 100), max(1, rgb.height // 100)
    return rgb.crop((left, top, rgb.width - left, rgb.height - top))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG of quality 50": as_jpeg,
    "half the size": lambda rgb: rgb.resize((rgb.width // 2, rgb.height // 2), Image.Resampling.BICUBIC),
    "20 % brighter": lambda rgb: ImageEnhance.Brightness(rgb).enhance(1.2),
    "20 % less contrast": lambda rgb: ImageEnhance.Contrast(rgb).enhance(0.8),
    "gray": lambda rgb: rgb.convert("L"),
    "2 % cropped": cropped,
}


def perceptual_hash(rgb: Image.Image, side: int) -> np.ndarray:
    """The perceptual hash of an image, (side * side / 64,) uint64."""
    return np.packbits(imagehash.phash(rgb, hash_size=side).hash).view(np.uint64)


def compare(archive: Path, images: int, changed: int) -> None:
    names, contents = contents_of(archive, images)
    hashes = {side: [] for side in SIDES}
    distances = {(change, side): [] for change in CHANGES for side in SIDES}
    every = max(1, len(names) // changed)
    for number, content in enumerate(contents):
        rgb = Image.open(io.BytesIO(content)).convert("RGB")
        for side in SIDES:
            hashes[side].append(perceptual_hash(rgb, side))
            if number % every == 0:
                for change, apply in CHANGES.items():
                    distances[change, side].append(
                        np.bitwise_count(perceptual_hash(apply(rgb), side) ^ hashes[side][-1]).sum()
                    )
    for side in SIDES:
        limit = NEAR_BITS * side**2 // HASH_SIDE**2
        print(f"\n{archive.name}, {len(names)} images, hashes of {side**2} bits, threshold {limit}")
        print(f"{'bits after a change':24}{'50 %':>8}{'90 %':>8}{'99 %':>8}{'above threshold':>18}")
        for change in CHANGES:
            bits = np.array(distances[change, side])
            quantiles = "".join(f"{bits_at:8.0f}" for bits_at in np.percentile(bits, (50, 90, 99)))
            print(f"{change:24}{quantiles}{np.mean(bits > limit):18.1%}")
        print_pairs(names, np.array(hashes[side]), limit)
    hash_texts = pd.Series([hash_bytes.tobytes().hex() for hash_bytes in hashes[HASH_SIDE]])
    start = time.perf_counter()
    pairs = sum(len(first) for first, _, _ in near_pairs(hash_bits(hash_texts), hash_bits(hash_texts)))
    print(
        f"near_pairs: {pairs} rows in {time.perf_counter() - start:.2f} s, including each pair twice "
        "and each image with itself"
    )


def print_pairs(names: list[str], hashes: np.ndarray, limit: int) -> None:
    """Print a histogram of the distances between different images, and the nearest pairs."""
    counts, rows = np.zeros(hashes.shape[1] * 64 + 1, int), max(1, BLOCK // len(hashes))
    nearest = []
    for start in range(0, len(hashes), rows):
        bits = np.bitwise_count(hashes[start : start + rows, None] ^ hashes[None]).sum(axis=2, dtype=np.uint16)
        first, second = np.nonzero(np.arange(start, start + len(bits))[:, None] < np.arange(len(hashes)))
        own = bits[first, second]
        counts += np.bincount(own, minlength=len(counts))
        nearest += [
            (own[at], names[first[at] + start], names[second[at]]) for at in np.argsort(own, kind="stable")[:20]
        ]
    median = np.searchsorted(np.cumsum(counts), counts.sum() / 2)
    print(f"of {counts.sum():,} pairs {counts[: limit + 1].sum():,} at or below the threshold; half are above {median}")
    steps = range(0, len(counts) // 4, max(2, len(counts) // 64))  # the distances are even: half of all bits are set
    print("pairs at or below bits: " + ", ".join(f"{bits}: {counts[: bits + 1].sum():,}" for bits in steps))
    for bits, first_name, second_name in sorted(nearest)[:5]:
        print(f"  {bits} bits: {first_name} and {second_name}")


def contents_of(archive: Path, images: int) -> tuple[list[str], list[bytes]]:
    """The names and contents of an evenly spaced sample of an archive's files."""
    files = [(image.name, image.content()) for image in archive_images(SimpleNamespace(subfolder=None), archive)]
    names, contents = zip(*files[:: max(1, len(files) // images)][:images], strict=True)
    return list(names), list(contents)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archives", nargs="+", type=Path, metavar="archive")
    parser.add_argument("--images", type=int, default=10_000, help="maximum number of images per archive")
    parser.add_argument("--changed", type=int, default=300, help="number of images that are changed")
    arguments = parser.parse_args()
    for archive in arguments.archives:
        compare(archive, arguments.images, arguments.changed)
