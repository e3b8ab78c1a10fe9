"""How fast images are decoded: by the prepare stage, by a plain Pillow loop and by tf.data, side by side.

    python -m benchmarks.prepare [archive ...] [--image-size 160] [--images N] [--rounds 5]

The files of an archive of <class>/<image> are read into memory first, so that decoding alone is compared; without
archives two sets are made up, photographs of 640x480 and small images of 32x32. The ways take turns, and what is
printed is the median of the rounds: images a second, and the speed as a multiple of the Pillow loop's. The pixels of
the prepare stage must equal the loop's.
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
Pixels = Iterator[np.ndarray]  # of one image each, (size, size, 3) uint8, in the order of the contents


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


def prepare(contents: list[bytes], size: int, seconds_alone: float = workers.SECONDS_IN_PROCESS) -> Pixels:
    source = (SourceImage(str(number), "", lambda content=content: content) for number, content in enumerate(contents))
    with patch.object(workers, "SECONDS_IN_PROCESS", seconds_alone):
        for image, outcome in workers.decoded(source, size, "crop"):
            if isinstance(outcome, str):
                sys.exit(f"image {image.name} cannot be read: {outcome}")
            yield outcome.pixels


def tf_data(contents: list[bytes], size: int) -> Callable[[], Pixels]:
    """Builds the dataset; what it returns runs it. (TensorFlow takes seconds to import.)"""
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


def ways_of(contents: list[bytes], size: int) -> dict[str, Callable[[], Pixels]]:
    return {
        LOOP: partial(pillow_loop, contents, size),
        "prepare, one process": partial(one_process, contents, size),
        f"prepare, {CORES} threads": partial(threads, contents, size),
        PREPARE: partial(prepare, contents, size, seconds_alone=0),
        "prepare, as the stage runs it": partial(prepare, contents, size),
        TF_DATA: tf_data(contents, size),
    }


def compare(name: str, contents: list[bytes], size: int, rounds: int) -> None:
    megapixels = statistics.median(np.prod(Image.open(io.BytesIO(content)).size) for content in contents) / 1e6
    print(f"\n{name}: {len(contents)} images of {megapixels:.3f} megapixels to {size}x{size}, {CORES} cores")
    ways = ways_of(contents, size)
    seconds = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            start = time.perf_counter()
            deque(run(), maxlen=0)
            seconds[way].append(time.perf_counter() - start)
    print(f"{'':36}{'images/s':>10}{'of the loop':>13}{'least':>8}{'most':>8}")
    for way, own in seconds.items():
        ratios = sorted(loop / each for loop, each in zip(seconds[LOOP], own, strict=True))
        speed = len(contents) / statistics.median(own)
        print(f"{way:36}{speed:10.0f}{statistics.median(ratios):13.2f}{ratios[0]:8.2f}{ratios[-1]:8.2f}")
    print_hashes(contents, size)
    for way in (PREPARE, TF_DATA):
        mean, most = difference(ways[LOOP](), ways[way]())
        print(f"pixels of {way} against the loop's: mean difference {mean:.3f}, most {most}")
        assert way != PREPARE or most == 0


def print_hashes(contents: list[bytes], size: int) -> None:
    """What the two hashes of an image cost, as shares of its whole time in one process."""
    spent = {"sha256": 0.0, "perceptual hash": 0.0, "all": 0.0}
    for content in contents:
        rgb = Image.open(io.BytesIO(content)).convert("RGB")
        for part, work in {
            "sha256": lambda rgb=rgb: hashlib.sha256(rgb.tobytes()).hexdigest(),
            "perceptual hash": lambda rgb=rgb: str(imagehash.phash(rgb, hash_size=HASH_SIDE)),
            "all": lambda content=content: decode(content, size),
        }.items():
            start = time.perf_counter()
            work()
            spent[part] += time.perf_counter() - start
    for part in ("sha256", "perceptual hash"):
        print(f"{part}: {spent[part] / len(contents) * 1e6:.0f} us an image, {spent[part] / spent['all']:.0%} of all")


def difference(some: Pixels, others: Pixels) -> tuple[float, int]:
    """The mean and the largest absolute difference of two streams of pixels."""
    means, most = [], 0
    for one, other in zip(some, others, strict=True):
        differences = np.abs(one.astype(int) - other)
        means.append(differences.mean())
        most = max(most, int(differences.max()))
    return statistics.mean(means), most


def contents_of(archive: Path, images: int | None) -> list[bytes]:
    """The contents of at most `images` image files of an archive, evenly spaced; None for all."""
    contents = [image.content() for image in archive_images(SimpleNamespace(subfolder=None), archive)]
    return contents if images is None else contents[:: max(1, len(contents) // images)][:images]


def photographs(images: int, width: int, height: int) -> list[bytes]:
    """JPEG files with the smooth fields and the noise of photographs, the same on every call."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(images):
        pixels = random.normal(128, 6, (height, width, 3))
        for cells in (2, 4, 8, 16, 32):
            field = Image.fromarray(random.integers(0, 256, (cells, cells, 3), np.uint8))
            pixels += (np.asarray(field.resize((width, height), Image.Resampling.BICUBIC)) - 128.0) / cells
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        made.append(file.getvalue())
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archives", nargs="*", type=Path, metavar="archive")
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--images", type=int, help="the largest number of images of each archive")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    for archive in given.archives:
        compare(archive.name, contents_of(archive, given.images), given.image_size, given.rounds)
    if not given.archives:
        compare("made up photographs", photographs(300, 640, 480), given.image_size, given.rounds)
        compare("made up small images", photographs(5000, 32, 32), 32, given.rounds)


if __name__ == "__main__":
    main()
