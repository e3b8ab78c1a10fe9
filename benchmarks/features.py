"""How fast features are computed: by Keras as most people call it, and in the ways the stage `features` can take.

    python -m benchmarks.features [--files folder] [--rounds 3] [--seconds 4] [architecture@size ...]

files: a folder with flowers.zip, whose photographs are then the images, and with
<architecture>_imagenet_notop.weights.h5, which are then the weights; else both are random. Images come from memory,
decoding is not measured. The ways take turns, and what is printed is the median of the rounds: images a second, and the
speed as a multiple of the first way's. Beside it stand the smallest cosine of a feature vector, pooled over the image,
with that of the first way, and the arithmetic that is done a second, in multiples of what the machine reaches
in float32, see `measuring.peak`. Where PyTorch is installed, which is no requirement (see `benchmarks.peer`), it runs
the same network beside them, if that has only layers it knows.
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


def ways_of(architecture: str, size: int, files: Path | None) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Ways to run a backbone: from images to features (n, c) float32."""
    model = backbone_of(architecture, size, files)
    runs = {"Keras, as the stage calls it": keras_inference(model), "ONNX Runtime": onnx_inference(model)}
    try:
        from benchmarks.peer import PRECISIONS, peer_of, run_on_torch

        peer = peer_of(model)
        peers = {way: run_on_torch(peer, precision) for precision, way in PRECISIONS.items()}
    except (ModuleNotFoundError, NotImplementedError) as error:
        print(f"\nwithout PyTorch: {error}")
        peers = {}
    runs = {**runs, "Keras in bfloat16": keras_inference(backbone_of(architecture, size, files, "bfloat16")), **peers}
    return {
        USUAL: lambda images: model.predict(images, verbose=0),
        **{way: lambda images, run=run: in_batches(run, images, np.arange(len(images))) for way, run in runs.items()},
    }


def compare(architecture: str, size: int, files: Path | None, rounds: int, seconds: float) -> None:
    ways = ways_of(architecture, size, files)
    sample = images_of(files, BATCH, size)
    for run in ways.values():
        run(sample)  # compiles
    count = BATCH * batches_in(seconds, ways[USUAL], sample)
    peaks = []  # taken in turns too: where others use the processor, it changes while this runs
    turns = {**ways, "peak": lambda _: peaks.append(peak(2))}
    spent, found = in_turns(turns, images_of(files, count, size), rounds)
    weights = "ImageNet" if weights_of(architecture, files) else "random"
    work = count * operations(backbone_of(architecture, size, None))
    print(f"\n### {architecture}, {count} images of {size}x{size}, {weights} weights\n")
    print("| way | images/s | of the first | smallest cosine | of the peak |\n|---|---:|---:|---:|---:|")
    for way in ways:
        own = spent[way]
        faster, closeness = ratio(spent[USUAL], own), cosine(found[way], found[USUAL])
        of_peak = statistics.median(work / each / best for each, best in zip(own, peaks, strict=True))
        speed = count / statistics.median(own)
        print(f"| {way} | {speed:.0f} | {faster:.2f} | {closeness:.6f} | {of_peak:.2f} |", flush=True)


def main() -> None:
    given = arguments(__doc__, DEFAULT)
    print(machine(("keras", "tensorflow", "onnxruntime", "torch")), flush=True)
    for architecture, size in given.backbones:
        compare(architecture, size, given.files, given.rounds, given.seconds)


if __name__ == "__main__":
    main()
