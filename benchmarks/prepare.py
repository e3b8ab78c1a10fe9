"""Compares the decoding speed of the prepare stage, a plain Pillow loop and tf.data.

    python -m benchmarks.prepare [archive ...] [--image-size 160] [--images N] [--rounds 5]

The files of an archive of <class>/<image> are read into memory first, so only decoding is measured. Without archives,
two synthetic datasets are used: photographs of 640x480 and small images of 32x32. The methods run in turns. Printed are
medians over the rounds: images per second, and the speed relative to the Pillow loop. The pixels of the prepare stage
must equal those of the loop.
"""

import argparse
import hashlib
import io
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import imagehash
import numpy as np
from PIL import Image, ImageOps

from stages.sources import workers
from stages.sources.archives import archive_images
from stages.sources.decoding import HASH_SIDE, decode
from stages.sources.source_image import SourceImage

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
LOOP, PREPARE, TF_DATA = "Pillow loop", "prepare, processes from the start", "tf.data"
Pixels = Iterator[np.ndarray]  # one (size, size, 3) uint8 array per image, in the order of the contents


def pillow_loop(contents: list[bytes], size: int) -> Pixels:
    for content in contents:
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
        yield np.asarray(ImageOps.fit(upright.convert("RGB"), (size, size), Image.Resampling.BICUBIC))


def one_process(contents: list[bytes], size: int) -> Pixels:
    for content in contents:
        yield decode(content, size).pixels


def threads(contents: list[bytes], size: int) -> Pixels:
    with ThreadPoolExecutor(CORES) as pool:
        for decoded in pool.map(partial(decode, image_size=size), contents):
            yield decoded.pixels


def prepare(contents: list[bytes], size: int, seconds_in_process: float = workers.SECONDS_IN_PROCESS) -> Pixels:
    source = (SourceImage(str(number), "", lambda content=content: content) for number, content in enumerate(contents))
    with patch.object(workers, "SECONDS_IN_PROCESS", seconds_in_process):
        for image, outcome in workers.decode_all(source, size, "crop"):
            if isinstance(outcome, str):
                sys.exit(f"image {image.name} cannot be read: {outcome}")
            yield outcome.pixels


def tf_data(contents: list[bytes], size: int) -> Callable[[], Pixels]:
    """Build the dataset, and return a function that iterates over it. (TensorFlow takes seconds to import.)"""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    def decoded(content: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(content, channels=3, expand_animations=False)
        height, width = tf.unstack(tf.shape(image)[:2])
        side = tf.minimum(height, width)
        square = tf.image.crop_to_bounding_box(image, (height - side) // 2, (width - side) // 2, side, side)
        resized = tf.image.resize(square, (size, size), "bicubic", antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)

    images = tf.data.Dataset.from_tensor_slices(contents).map(decoded, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    return images.as_numpy_iterator


def methods_of(contents: list[bytes], size: int) -> dict[str, Callable[[], Pixels]]:
    return {
        LOOP: partial(pillow_loop, contents, size),
        "prepare, one process": partial(one_process, contents, size),
        f"prepare, {CORES} threads": partial(threads, contents, size),
        PREPARE: partial(prepare, contents, size, seconds_in_process=0),
        "prepare, as the stage runs it": partial(prepare, contents, size),
        TF_DATA: tf_data(contents, size),
    }


def compare(name: str, contents: list[bytes], size: int, rounds: int) -> None:
    megapixels = statistics.median(np.prod(Image.open(io.BytesIO(content)).size) for content in contents) / 1e6
    print(f"\n{name}: {len(contents)} images of {megapixels:.3f} megapixels to {size}x{size}, {CORES} cores")
    methods = methods_of(contents, size)
    seconds = {method: [] for method in methods}
    for _ in range(rounds):
        for method, run in methods.items():
            start = time.perf_counter()
            deque(run(), maxlen=0)
            seconds[method].append(time.perf_counter() - start)
    print(f"{'':36}{'images/s':>10}{'relative':>13}{'min':>8}{'max':>8}")
    for method, own in seconds.items():
        ratios = sorted(loop / method_seconds for loop, method_seconds in zip(seconds[LOOP], own, strict=True))
        speed = len(contents) / statistics.median(own)
        print(f"{method:36}{speed:10.0f}{statistics.median(ratios):13.2f}{ratios[0]:8.2f}{ratios[-1]:8.2f}")
    print_hashes(contents, size)
    for method in (PREPARE, TF_DATA):
        mean, maximum = difference(methods[LOOP](), methods[method]())
        print(f"pixels of {method} and the loop: mean difference {mean:.3f}, maximum {maximum}")
        assert method != PREPARE or maximum == 0


def print_hashes(contents: list[bytes], size: int) -> None:
    """Print the time of the two hashes of an image, and its share of the total decoding time in one process."""
    spent = {"sha256": 0.0, "perceptual hash": 0.0, "total": 0.0}
    for content in contents:
        rgb = Image.open(io.BytesIO(content)).convert("RGB")
        for part, work in {
            "sha256": lambda rgb=rgb: hashlib.sha256(rgb.tobytes()).hexdigest(),
            "perceptual hash": lambda rgb=rgb: str(imagehash.phash(rgb, hash_size=HASH_SIDE)),
            "total": lambda content=content: decode(content, size),
        }.items():
            start = time.perf_counter()
            work()
            spent[part] += time.perf_counter() - start
    for part in ("sha256", "perceptual hash"):
        print(
            f"{part}: {spent[part] / len(contents) * 1e6:.0f} us per image, "
            f"{spent[part] / spent['total']:.0%} of the total"
        )


def difference(first: Pixels, second: Pixels) -> tuple[float, int]:
    """The mean and the largest absolute difference of two streams of pixels."""
    means, maximum = [], 0
    for first_pixels, second_pixels in zip(first, second, strict=True):
        differences = np.abs(first_pixels.astype(int) - second_pixels)
        means.append(differences.mean())
        maximum = max(maximum, int(differences.max()))
    return statistics.mean(means), maximum


def contents_of(archive: Path, images: int | None) -> list[bytes]:
    """The image files of an archive; with `images`, an evenly spaced sample of this size."""
    contents = [image.content() for image in archive_images(SimpleNamespace(subfolder=None), archive)]
    return contents if images is None else contents[:: max(1, len(contents) // images)][:images]


def photographs(images: int, width: int, height: int) -> list[bytes]:
    """Synthetic JPEG files with smooth areas and noise like photographs; the same on every call."""
    random = np.random.default_rng(0)
    files = []
    for _ in range(images):
        pixels = random.normal(128, 6, (height, width, 3))
        for cells in (2, 4, 8, 16, 32):
            field = Image.fromarray(random.integers(0, 256, (cells, cells, 3), np.uint8))
            pixels += (np.asarray(field.resize((width, height), Image.Resampling.BICUBIC)) - 128.0) / cells
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archives", nargs="*", type=Path, metavar="archive")
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--images", type=int, help="maximum number of images per archive")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    for archive in arguments.archives:
        compare(archive.name, contents_of(archive, arguments.images), arguments.image_size, arguments.rounds)
    if not arguments.archives:
        compare("synthetic photographs", photographs(300, 640, 480), arguments.image_size, arguments.rounds)
        compare("synthetic small images", photographs(5000, 32, 32), 32, arguments.rounds)


if __name__ == "__main__":
    main()
