"""How fast features are computed: by Keras as most people call it, and in the ways the stage `features` can take.

    python -m benchmarks.features [--files folder] [--rounds 3] [architecture@size ...]

files: a folder with flowers.zip, whose photographs are then the images, and with
<architecture>_imagenet_notop.weights.h5, which are then the weights; else both are random. Images come from memory,
decoding is not measured. The ways take turns, and what is printed is the median of the rounds: images a second, and the
speed as a multiple of the first way's. Beside it stand the smallest cosine of a feature vector, pooled over the image,
with that of the first way, and the arithmetic that is done a second, in multiples of what the machine reaches in a
large product of float32 matrices.
"""

import argparse
import io
import os
import platform
import statistics
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers
from PIL import Image, ImageOps

from stages.networks.backbones import build_backbone, layer_names
from stages.networks.cuts import below
from stages.networks.engines import has_bfloat16, run_on_keras, run_on_onnx_runtime
from stages.networks.pretrained import load_weights
from stages.networks.runtime import computing_in

BATCH = 64  # of the stage
USUAL = "keras.Model.predict"
DEFAULT = ["vgg16@224", "vgg16@32", "mobilenet_v2@224"]
SECONDS = 4  # that a round of the first way takes about


def images_of(files: Path | None, count: int, size: int) -> np.ndarray:
    """So many images (n, size, size, 3) uint8: photographs, evenly spread over flowers.zip, or noise."""
    archive = files / "flowers.zip" if files else None
    if archive is None or not archive.exists():
        return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    with zipfile.ZipFile(archive) as photographs:
        names = sorted(name for name in photographs.namelist() if name.endswith(".jpg"))
        chosen = [names[place] for place in np.linspace(0, len(names) - 1, min(count, len(names))).astype(int)]
        pictures = [Image.open(io.BytesIO(photographs.read(name))).convert("RGB") for name in chosen]
    found = np.stack([np.asarray(ImageOps.fit(picture, (size, size))) for picture in pictures])
    return found[np.arange(count) % len(found)]


def backbone_of(architecture: str, size: int, files: Path | None, precision: str = "float32") -> keras.Model:
    """The whole backbone, pooled over the image, with ImageNet weights where there are some."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    with computing_in(precision):
        backbone = build_backbone(architecture, size)
        weights = files / f"{architecture}_imagenet_notop.weights.h5" if files else None
        if weights is not None and weights.exists():
            load_weights(backbone, weights, "weights")
        return below(backbone, layer_names(backbone)[-1], "average")


def ways_of(architecture: str, size: int, files: Path | None) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Ways to run a backbone: from images to features (n, c) float32."""

    def in_batches(run: Callable[[np.ndarray], list[np.ndarray]]) -> Callable[[np.ndarray], np.ndarray]:
        return lambda images: np.concatenate(
            [run(images[start : start + BATCH])[0] for start in range(0, len(images), BATCH)]
        )

    model = backbone_of(architecture, size, files)
    ways = {
        USUAL: lambda images: model.predict(images, verbose=0),
        "Keras, as the stage calls it": in_batches(run_on_keras(model)),
        "ONNX Runtime": in_batches(run_on_onnx_runtime(model)),
    }
    coarse = backbone_of(architecture, size, files, "bfloat16")
    return {**ways, "Keras in bfloat16": in_batches(run_on_keras(coarse))}


def operations(model: keras.Model) -> float:
    """Multiplications and additions for one image, of convolutions and dense layers."""
    found = 0
    for layer in model.layers:
        if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D, layers.Dense)):
            places = np.prod(layer.output.shape[1:-1], dtype=float)
            found += 2 * places * sum(np.prod(weight.shape) for weight in layer.weights if len(weight.shape) > 1)
    return found


def peak() -> float:
    """Operations a second in a product of large float32 matrices, the best of five."""
    matrix = np.random.default_rng(0).random((3000, 3000), np.float32)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - start)
    return 2 * 3000**3 / min(seconds)


def compare(architecture: str, size: int, files: Path | None, rounds: int) -> None:
    ways = ways_of(architecture, size, files)
    sample = images_of(files, BATCH, size)
    seconds = {way: [] for way in ways}
    for run in ways.values():
        run(sample)  # compiles
    start = time.perf_counter()
    ways[USUAL](sample)
    count = max(BATCH, round(SECONDS / (time.perf_counter() - start)) * BATCH)
    images = images_of(files, count, size)
    found = {}
    for _ in range(rounds):
        for way, run in ways.items():
            start = time.perf_counter()
            found[way] = run(images)
            seconds[way].append(time.perf_counter() - start)
    weights = "ImageNet" if files and (files / f"{architecture}_imagenet_notop.weights.h5").exists() else "random"
    work, best = operations(backbone_of(architecture, size, None)), peak()
    print(f"\n### {architecture}, {count} images of {size}x{size}, {weights} weights\n")
    print("| way | images/s | of the first | smallest cosine | of the peak |\n|---|---:|---:|---:|---:|")
    for way, own in seconds.items():
        ratio = statistics.median(first / each for first, each in zip(seconds[USUAL], own, strict=True))
        speed = count / statistics.median(own)
        closeness = cosine(found[way], found[USUAL])
        print(f"| {way} | {speed:.0f} | {ratio:.2f} | {closeness:.6f} | {speed * work / best:.2f} |", flush=True)


def cosine(found: np.ndarray, expected: np.ndarray) -> float:
    """The smallest cosine of a row of one (n, c) with that of the other."""
    found, expected = found.astype(float), expected.astype(float)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((found * expected).sum(axis=1) / lengths).min())


def machine() -> str:
    """Processor, cores and versions."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    versions = ", ".join(f"{name} {__import__(name).__version__}" for name in ("keras", "tensorflow", "onnxruntime"))
    return (
        f"{model}, {os.cpu_count()} cores, {'with' if has_bfloat16() else 'without'} bfloat16; peak "
        f"{peak() / 1e9:.0f} GFLOP/s in float32; {versions}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbones", nargs="*", default=DEFAULT, metavar="architecture@size")
    parser.add_argument("--files", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(machine(), flush=True)
    for each in given.backbones:
        architecture, _, size = each.partition("@")
        compare(architecture, int(size), given.files, given.rounds)


if __name__ == "__main__":
    main()
