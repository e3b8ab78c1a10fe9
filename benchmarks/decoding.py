"""Measures feature extraction from pixels in memory, from the file of `prepare`, and from JPEG files.

    python -m benchmarks.decoding --files <folder with flowers_160.zip> [--rounds 3] [architecture@size ...]

Features are computed as in the stage. The file is removed from the page cache before it is read.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from zipfile import ZipFile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.measuring import arguments, backbone_of, batches_in, in_turns, machine, ratio
from benchmarks.tables import table
from stages.backbones.extraction import BATCH, FeaturesWriter, extract
from stages.backbones.inference import MIN_IMAGES_TO_CONVERT, fastest_inference, resolve_precision
from stages.sources.source_image import SourceImage
from stages.sources.workers import decode_all


def from_file(file: Path, rows: np.ndarray) -> np.ndarray:
    return np.load(file, mmap_mode="r")[rows]


def drop_from_cache(file: Path) -> None:
    """Remove a file from the page cache of the system."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def prepare(contents: list[bytes], size: int, file: Path) -> None:
    """Decode images into a file as the stage does."""
    source = (SourceImage(str(number), "", lambda content=content: content) for number, content in enumerate(contents))
    pixels = np.lib.format.open_memmap(file, "w+", np.uint8, (len(contents), size, size, 3))
    for row, (_, outcome) in enumerate(decode_all(source, size, "crop")):
        pixels[row] = outcome.pixels
    pixels.flush()


def compare(architecture: str, size: int, options: argparse.Namespace, work: Path) -> list[tuple]:
    precision = resolve_precision("auto", architecture)
    model = backbone_of(architecture, size, options.files, precision)
    file, out_file = work / "images.npy", work / "features.npy"
    with ZipFile(options.files / "flowers_160.zip") as archive:
        contents = [archive.read(name) for name in sorted(archive.namelist()) if name.endswith(".jpg")]
    prepare(contents[:BATCH], size, file)
    run = fastest_inference(model, architecture, precision, MIN_IMAGES_TO_CONVERT, np.load(file))
    count = BATCH * batches_in(options.seconds, run, np.load(file))
    contents = [contents[index] for index in np.linspace(0, len(contents) - 1, min(count, len(contents))).astype(int)]
    prepare(contents, size, file)
    pixels = np.load(file)

    def features(read: Callable[[np.ndarray], np.ndarray]) -> None:
        np.lib.format.open_memmap(out_file, "w+", np.float16, (len(pixels), *model.output.shape[1:]))
        extract(run, None, read, np.arange(len(pixels)), [FeaturesWriter(out_file)], "")

    methods = {
        "pixels in memory": lambda _: features(pixels.__getitem__),
        "pixels on disk, from `prepare`": lambda _: (drop_from_cache(file), features(partial(from_file, file))),
        "JPEG: `prepare`, then `features`": lambda _: (
            prepare(contents, size, file),
            features(partial(from_file, file)),
        ),
    }
    seconds, _ = in_turns(methods, None, options.rounds)
    first = next(iter(seconds.values()))
    what = f"{architecture}, {len(pixels)} photographs to {size}x{size}"
    return [
        (f"{what}, {method}", len(pixels) / statistics.median(own), ratio(first, own))
        for method, own in seconds.items()
    ]


def main() -> None:
    options = arguments(__doc__, ["vgg16@224", "mobilenet_v2@224"])
    if options.files is None:
        sys.exit("--files: name a folder with flowers_160.zip")
    print(machine(["keras", "tensorflow", "onnxruntime", "PIL"]))
    rows = [("from photographs to features", "images/s", "relative to memory")]
    for architecture, size in options.backbones:
        with tempfile.TemporaryDirectory() as work:
            rows += compare(architecture, size, options, Path(work))
    table("Decoding", *rows)


if __name__ == "__main__":
    main()
