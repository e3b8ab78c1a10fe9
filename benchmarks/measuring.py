"""Shared by the benchmarks of networks: images, backbones, timing in turns, and the description of the machine."""

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

from stages.backbones.building import build_backbone, layer_names
from stages.backbones.cuts import up_to_cut
from stages.backbones.extraction import BATCH
from stages.backbones.inference import Inference, has_bfloat16
from stages.backbones.multiply_adds import multiply_adds
from stages.backbones.preset_models import prefix_tokens
from stages.backbones.pretrained import load_weights
from stages.backbones.runtime import computing_in

PHOTOGRAPHS = "flowers_160.zip"
SMALL = {"num_layers": 12, "num_heads": 6, "hidden_dim": 384}
# Transformers of size S, or T of Swin, as published: the class of KerasHub and its configuration.
TRANSFORMERS = {
    "vit_small": ("ViTBackbone", {**SMALL, "mlp_dim": 1536, "patch_size": 16}),
    "deit_small": ("DeiTBackbone", {**SMALL, "intermediate_dim": 1536, "patch_size": 16}),
    "dinov2_small": (
        "DINOV2Backbone",
        {**SMALL, "intermediate_dim": 1536, "patch_size": 14, "position_embedding_shape": (518, 518, 3)},
    ),
    "dinov3_small": (
        "DINOV3Backbone",
        {**SMALL, "intermediate_dim": 1536, "patch_size": 16, "num_register_tokens": 4},
    ),
    "swin_tiny": (
        "SwinTransformerBackbone",
        {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "window_size": 7, "patch_size": 4},
    ),
}


def images_of(files: Path | None, count: int, size: int) -> np.ndarray:
    """Return images (count, size, size, 3) uint8: photographs evenly spread over PHOTOGRAPHS, or noise without it."""
    archive = files / PHOTOGRAPHS if files else None
    if archive is None or not archive.exists():
        return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    from PIL import Image, ImageOps  # noise needs no Pillow

    with zipfile.ZipFile(archive) as photographs:
        names = sorted(name for name in photographs.namelist() if name.endswith(".jpg"))
        rows = np.linspace(0, len(names) - 1, min(count, len(names))).astype(int)
        pictures = [Image.open(io.BytesIO(photographs.read(names[row]))).convert("RGB") for row in rows]
    images = np.stack([np.asarray(ImageOps.fit(picture, (size, size))) for picture in pictures])
    return images[np.arange(count) % len(images)]


def weights_of(architecture: str, files: Path | None) -> Path | None:
    """Return the file of ImageNet weights of an architecture, or None if the folder does not have it."""
    file = files / f"{architecture}_imagenet_notop.weights.h5" if files else None
    return file if file and file.exists() else None


def transformer(architecture: str, size: int) -> dict[str, Any]:
    """Return what `build_preset` needs of a transformer; scale and offset are those of most."""
    class_name, config = TRANSFORMERS[architecture]
    scale, offset = 1 / 127.5, -1.0
    return {
        **{"class_name": class_name, "scale": scale, "offset": offset, "class_token": True, "image_size": size},
        **{"config": {"image_shape": (size, size, 3), **config}, "prefix_tokens": prefix_tokens(class_name, config)},
    }


def backbone_of(architecture: str, size: int, files: Path | None, precision: str = "float32") -> keras.Model:
    """Return a backbone with pooled output and with ImageNet weights if the folder has them, otherwise random ones."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    with computing_in(precision):
        preset = transformer(architecture, size) if architecture in TRANSFORMERS else None
        backbone = build_backbone(architecture, size, preset)
        if weights := weights_of(architecture, files):
            load_weights(backbone, weights, "weights")
        prefix = preset["prefix_tokens"] if preset else 0
        return up_to_cut(backbone, layer_names(backbone)[-1], "average", prefix)


def in_batches(run: Inference, images: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return the features of images[index], computed in batches of the same size as in the stage."""
    return np.concatenate([run(images[index[start : start + BATCH]])[0] for start in range(0, len(index), BATCH)])


def batches_in(seconds: float, run: Callable[[Any], Any], batch: Any) -> int:
    """Return how many batches a method processes in this time, at least one."""
    run(batch)  # compiles
    return max(1, round(seconds / timed(run, batch)[0]))


def timed(run: Callable[[Any], Any], inputs: Any) -> tuple[float, Any]:
    """Return the seconds of a call and its result."""
    start = time.perf_counter()
    result = run(inputs)
    return time.perf_counter() - start, result


def in_turns(
    methods: dict[str, Callable[[Any], Any]], inputs: Any, rounds: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Run methods in turns; return the seconds of every round and the results of the last round.

    The methods must have run before, so that no compilation is measured.
    """
    seconds, results = {method: [] for method in methods}, {}
    for _ in range(rounds):
        for method, run in methods.items():
            spent, results[method] = timed(run, inputs)
            seconds[method].append(spent)
    return seconds, results


def ratio(reference: list[float], seconds: list[float]) -> float:
    """Return the speed as a multiple of the reference: the median over rounds, since a machine may slow down."""
    return statistics.median(slower / own for slower, own in zip(reference, seconds, strict=True))


def operations(model: keras.Model) -> int:
    """Return the multiplications and additions for an image in convolutions, dense layers and attention."""
    return 2 * multiply_adds(model)


def peak(repeats: int = 5) -> float:
    """Return the float32 operations a second that the processor reaches.

    It is the best repeat of a large matrix product or of a large convolution, whichever is faster.
    """
    random = np.random.default_rng(0)
    matrix, images, kernel = (
        random.random(shape, np.float32) for shape in ((3000, 3000), (8, 56, 56, 256), (3, 3, 256, 256))
    )
    product_seconds = min(timed(matrix.__matmul__, matrix)[0] for _ in range(repeats))

    def convolve(inputs: np.ndarray) -> np.ndarray:
        return keras.ops.convert_to_numpy(keras.ops.conv(inputs, kernel, padding="same"))

    convolution_seconds = min(timed(convolve, images)[0] for _ in range(repeats))
    return max(2 * 3000**3 / product_seconds, 2 * images.size * kernel[..., 0].size / convolution_seconds)


def cosine(features: np.ndarray, expected: np.ndarray) -> float:
    """Return the smallest cosine of a row of `features` (n, c) with the same row of `expected`."""
    features, expected = features.astype(float), expected.astype(float)
    lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((features * expected).sum(axis=1) / lengths).min())


def machine(packages: Iterable[str]) -> str:
    """Describe the processor and the versions of those packages that are installed."""
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
    """Parse the command line: `backbones` as pairs of architecture and size, `files`, `rounds` and `seconds`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbones", nargs="*", default=backbones, metavar="architecture@size")
    parser.add_argument("--files", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="approximate length of a round of the first method")
    options = parser.parse_args()
    pairs = [backbone.partition("@") for backbone in options.backbones]
    options.backbones = [(architecture, int(size)) for architecture, _, size in pairs]
    return options
