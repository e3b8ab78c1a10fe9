"""Speed of computing features: Keras as most people call it, the methods of the stage `features`, and PyTorch.

    python -m benchmarks.features [--files folder] [--rounds 3] [--seconds 4] [architecture@size ...]

architecture: as in docs/backbones.md, or a transformer of `measuring.TRANSFORMERS`. files: a folder with photographs
(flowers_160.zip) and ImageNet weights (<architecture>_imagenet_notop.weights.h5). Without a file, images or weights are
random. Images are in memory; decoding is not measured. The methods run in turns, and the table has medians over the
rounds: images a second, and the speed as a multiple of the first method. It also has the smallest cosine of a pooled
feature vector with that of the first method, and the arithmetic a second relative to the peak of the machine in float32
(`measuring.peak`). PyTorch is optional (see `benchmarks.peer`).
"""

import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.measuring import (
    BATCH,
    arguments,
    backbone_of,
    batches_in,
    cosine,
    images_of,
    in_batches,
    in_turns,
    machine,
    operations,
    peak,
    ratio,
    weights_of,
)
from stages.backbones.inference import keras_inference, onnx_inference

USUAL = "keras.Model.predict"
DEFAULT = ["vgg16@224", "vgg16@32", "mobilenet_v2@224"]


def methods_for(architecture: str, size: int, files: Path | None) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Return methods that run a backbone, by name: from images to features (n, c) float32."""
    model = backbone_of(architecture, size, files)
    runs = {"Keras, as the stage calls it": keras_inference(model), "ONNX Runtime": onnx_inference(model)}
    try:
        from benchmarks.peer import PRECISIONS, peer_of, run_on_torch

        peer = peer_of(model)
        peers = {method: run_on_torch(peer, precision) for precision, method in PRECISIONS.items()}
    except (ModuleNotFoundError, NotImplementedError) as error:
        print(f"\nwithout PyTorch: {error}")
        peers = {}
    runs = {**runs, "Keras in bfloat16": keras_inference(backbone_of(architecture, size, files, "bfloat16")), **peers}
    return {
        USUAL: lambda images: model.predict(images, verbose=0),
        **{name: lambda images, run=run: in_batches(run, images, np.arange(len(images))) for name, run in runs.items()},
    }


def compare(architecture: str, size: int, files: Path | None, rounds: int, seconds: float) -> None:
    methods = methods_for(architecture, size, files)
    sample = images_of(files, BATCH, size)
    for run in methods.values():
        run(sample)  # compiles
    count = BATCH * batches_in(seconds, methods[USUAL], sample)
    peaks = []  # measured in turns too: other work on the processor changes it while the benchmark runs
    turns = {**methods, "peak": lambda _: peaks.append(peak(2))}
    spent, features = in_turns(turns, images_of(files, count, size), rounds)
    weights = "ImageNet" if weights_of(architecture, files) else "random"
    work = count * operations(backbone_of(architecture, size, None))
    print(f"\n### {architecture}, {count} images of {size}x{size}, {weights} weights\n")
    print("| way | images/s | of the first | smallest cosine | of the peak |\n|---|---:|---:|---:|---:|")
    for method in methods:
        rounds_seconds = spent[method]
        speedup, closeness = ratio(spent[USUAL], rounds_seconds), cosine(features[method], features[USUAL])
        peak_share = statistics.median(work / own / best for own, best in zip(rounds_seconds, peaks, strict=True))
        speed = count / statistics.median(rounds_seconds)
        print(f"| {method} | {speed:.0f} | {speedup:.2f} | {closeness:.6f} | {peak_share:.2f} |", flush=True)


def main() -> None:
    options = arguments(__doc__, DEFAULT)
    print(machine(("keras", "tensorflow", "onnxruntime", "torch")), flush=True)
    for architecture, size in options.backbones:
        compare(architecture, size, options.files, options.rounds, options.seconds)


if __name__ == "__main__":
    main()
