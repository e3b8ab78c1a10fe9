"""What the benchmarks of networks share: images, backbones, ways that take turns, and the machine they run on."""

import argparse
import importlib
import io
import os
import platform
import statistics
import time
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

from stages.backbones.building import build_backbone, layer_names
from stages.backbones.cuts import up_to_cut
from stages.backbones.inference import Inference, has_bfloat16
from stages.backbones.pretrained import load_weights
from stages.backbones.runtime import computing_in
from stages.features import BATCH


def images_of(files: Path | None, count: int, size: int) -> np.ndarray:
    """So many images (n, size, size, 3) uint8: photographs, evenly spread over flowers.zip, or noise."""
    archive = files / "flowers.zip" if files else None
    if archive is None or not archive.exists():
        return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    from PIL import Image, ImageOps  # noise needs no Pillow

    with zipfile.ZipFile(archive) as photographs:
        names = sorted(name for name in photographs.namelist() if name.endswith(".jpg"))
        chosen = [names[place] for place in np.linspace(0, len(names) - 1, min(count, len(names))).astype(int)]
        pictures = [Image.open(io.BytesIO(photographs.read(name))).convert("RGB") for name in chosen]
    found = np.stack([np.asarray(ImageOps.fit(picture, (size, size))) for picture in pictures])
    return found[np.arange(count) % len(found)]


def weights_of(architecture: str, files: Path | None) -> Path | None:
    """The file of its ImageNet weights, where there is one."""
    file = files / f"{architecture}_imagenet_notop.weights.h5" if files else None
    return file if file and file.exists() else None


def backbone_of(architecture: str, size: int, files: Path | None, precision: str = "float32") -> keras.Model:
    """The whole backbone, pooled over the image, with ImageNet weights where there are some."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    with computing_in(precision):
        backbone = build_backbone(architecture, size)
        if weights := weights_of(architecture, files):
            load_weights(backbone, weights, "weights")
        return up_to_cut(backbone, layer_names(backbone)[-1], "average")


def in_batches(run: Inference, images: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The features of images[index], in batches as the stage takes them."""
    return np.concatenate([run(images[index[start : start + BATCH]])[0] for start in range(0, len(index), BATCH)])


def batches_in(seconds: float, run: Callable[[Any], Any], batch: Any) -> int:
    """How many batches a way does in so many seconds, at least one."""
    run(batch)  # compiles
    return max(1, round(seconds / timed(run, batch)[0]))


def timed(run: Callable[[Any], Any], given: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    found = run(given)
    return time.perf_counter() - start, found


def in_turns(
    ways: dict[str, Callable[[Any], Any]], given: Any, rounds: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Let ways, which have run before, take turns; returns the seconds of every round, and what came of the last."""
    seconds, found = {way: [] for way in ways}, {}
    for _ in range(rounds):
        for way, run in ways.items():
            spent, found[way] = timed(run, given)
            seconds[way].append(spent)
    return seconds, found


def ratio(reference: list[float], own: list[float]) -> float:
    """How many times as fast as the reference: the median of the rounds, because a machine may slow down on the way."""
    return statistics.median(first / each for first, each in zip(reference, own, strict=True))


def operations(model: keras.Model) -> float:
    """Multiplications and additions for one image, of convolutions and dense layers."""
    found = 0
    for layer in model.layers:
        if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D, layers.Dense)):
            places = np.prod(layer.output.shape[1:-1], dtype=float)
            found += 2 * places * sum(np.prod(weight.shape) for weight in layer.weights if len(weight.shape) > 1)
    return found


def peak(times: int = 5) -> float:
    """Operations a second of the processor in float32: in a large product of matrices, or in a large convolution, where
    that does more; the best of so many times."""
    random = np.random.default_rng(0)
    matrix, images, kernel = (
        random.random(shape, np.float32) for shape in ((3000, 3000), (8, 56, 56, 256), (3, 3, 256, 256))
    )
    in_product = min(timed(matrix.__matmul__, matrix)[0] for _ in range(times))

    def convolved(given: np.ndarray) -> np.ndarray:
        return keras.ops.convert_to_numpy(keras.ops.conv(given, kernel, padding="same"))

    in_convolution = min(timed(convolved, images)[0] for _ in range(times))
    return max(2 * 3000**3 / in_product, 2 * images.size * kernel[..., 0].size / in_convolution)


def cosine(found: np.ndarray, expected: np.ndarray) -> float:
    """The smallest cosine of a row of one (n, c) with that of the other."""
    found, expected = found.astype(float), expected.astype(float)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((found * expected).sum(axis=1) / lengths).min())


def machine(packages: Iterable[str]) -> str:
    """Processor, cores, and the versions of those of the packages that are installed."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    versions = []
    for name in packages:
        try:
            versions.append(f"{name} {importlib.import_module(name).__version__}")
        except ModuleNotFoundError:
            continue
    return (
        f"{model}, {os.cpu_count()} cores, {'with' if has_bfloat16() else 'without'} bfloat16; peak "
        f"{peak() / 1e9:.0f} GFLOP/s in float32; {', '.join(versions)}"
    )


def arguments(description: str, backbones: list[str]) -> argparse.Namespace:
    """The command line: `backbones` as pairs of architecture and size, `files`, `rounds` and `seconds`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbones", nargs="*", default=backbones, metavar="architecture@size")
    parser.add_argument("--files", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="that a round of the first way takes about")
    given = parser.parse_args()
    pairs = [each.partition("@") for each in given.backbones]
    given.backbones = [(architecture, int(size)) for architecture, _, size in pairs]
    return given
