"""Speed of features and fine-tuning on a GPU, or on the device that Keras uses here, compared with plain PyTorch.

    python -m benchmarks.accelerator [--files folder] [--rounds 3] [--seconds 4] [architecture@size ...]

It needs PyTorch (see `benchmarks.peer`), and no TensorFlow with `KERAS_BACKEND=jax`. files: see `benchmarks.features`.
Images and features are in memory. The methods run in turns, and the tables have medians over the rounds: images a
second, and the speed as a multiple of PyTorch in float32.

Features: the loop of the stage, and the smallest cosine of a feature vector with that of Keras in true float32. On a
GPU, both libraries compute float32 in TF32 by default. Fine-tuning: epochs of the training of the stages, with one
validation image; VGG16 is trained from block5 up, every other network completely. The benchmark ends with an error if
PyTorch computes other features than Keras, or if bfloat16 is worse than `stages.backbones.inference` assumes.
"""

import os
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

# By default each takes most of the memory of a GPU and leaves too little for PyTorch.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

import keras
import numpy as np
import torch

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
    ratio,
    weights_of,
)
from benchmarks.peer import PRECISIONS, Batches, peer_of, run_on_torch, train_on_torch
from stages.backbones.extraction import extract
from stages.backbones.inference import TOLERATES_BFLOAT16, Inference, keras_inference
from stages.backbones.runtime import computing_in
from stages.config.networks import NetworkConfig
from stages.config.training import TrainingConfig
from stages.training.batches import Examples
from stages.training.fitting import TrainingRun as Fitted
from stages.training.fitting import fit_runs
from stages.training.full_model import freeze
from stages.training.heads import add_head
from stages.training.optimizers import compile_model

DEFAULT = ["vgg16@224", "mobilenet_v2@224"]
KERAS = {"float32": "Keras", "bfloat16": "Keras in bfloat16"}
REFERENCE = PRECISIONS["float32"]
POOL = 1024  # images in memory; a longer round repeats them
SAME, CLOSE = 0.9999, 0.999  # cosines: of PyTorch in float32, and of bfloat16 where `precision: auto` uses it

LOWEST_TRAINED = {"vgg16": "block5_conv1"}
CLASSES = 5
# A small learning rate: the loss stays finite in any number of rounds.
TRAINING = {"epochs": 1, "batch_size": 32, "optimizer": "adam", "learning_rate": 1e-6, "repeats": 1}
TRAINING |= {"early_stopping": None, "max_train_per_class": None}


@contextmanager
def true_float32() -> Iterator[None]:
    """Switch off TF32 on GPUs: its ten bits of fraction are too few to compare networks."""
    torch.backends.cudnn.allow_tf32 = False
    with ExitStack() as stack:
        stack.callback(setattr, torch.backends.cudnn, "allow_tf32", True)
        if keras.backend.backend() == "jax":
            import jax

            stack.enter_context(jax.default_matmul_precision("highest"))
        elif keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.experimental.enable_tensor_float_32_execution(False)
            stack.callback(tf.config.experimental.enable_tensor_float_32_execution, True)
        yield


def extraction(architecture: str, size: int, files: Path | None, rounds: int, seconds: float) -> list[str]:
    """Print the table of features; return the problems of the features."""
    models = {precision: backbone_of(architecture, size, files, precision) for precision in KERAS}
    peer = peer_of(models["float32"])
    torch_runs = {method: run_on_torch(peer, precision) for precision, method in PRECISIONS.items()}
    sample = images_of(files, BATCH, size)
    count = BATCH * batches_in(seconds, torch_runs[REFERENCE], sample)
    images = images_of(files, min(count, POOL), size)
    index = np.arange(count) % len(images)
    with true_float32():
        once = np.arange(len(images))
        expected = in_batches(keras_inference(models["float32"]), images, once)
        same = cosine(in_batches(torch_runs[REFERENCE], images, once), expected)

    methods = {
        method: partial(extract_like_stage, keras_inference(models[precision]), images)
        for precision, method in KERAS.items()
    }
    methods |= {method: partial(in_batches, run, images) for method, run in torch_runs.items()}
    for run in methods.values():
        run(index[:BATCH])  # compiles
    spent, results = in_turns(methods, index, rounds)
    closeness = {method: cosine(features, expected[index]) for method, features in results.items()}
    work = operations(models["float32"])
    weights = "ImageNet" if weights_of(architecture, files) else "random"
    print(f"\n### Features of {architecture}, {count} images of {size}x{size}, {weights} weights\n")
    print("| way | images/s | of PyTorch | smallest cosine | TFLOP/s |\n|---|---:|---:|---:|---:|")
    for method, own in spent.items():
        speedup, speed = ratio(spent[REFERENCE], own), count / statistics.median(own)
        teraflops = speed * work / 1e12
        print(f"| {method} | {speed:.0f} | {speedup:.2f} | {closeness[method]:.6f} | {teraflops:.2f} |", flush=True)
    return feature_problems(architecture, same, closeness[KERAS["bfloat16"]])


class ArrayWriter:
    """Writes features into an array in memory; see `stages.backbones.extraction.FeaturesWriter`."""

    def __init__(self, array: np.ndarray):
        self.array, self.written = array, 0

    def write(self, activations: np.ndarray) -> np.ndarray:
        self.array[self.written : self.written + len(activations)] = activations
        self.written += len(activations)
        return activations


def extract_like_stage(run: Inference, images: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return the features of images[index]: the loop of the stage, with an array in memory instead of a file."""
    out = np.empty((len(index), *run(images[:1])[0].shape[1:]), np.float32)
    extract(run, None, images.__getitem__, index, [ArrayWriter(out)], "features")
    return out


def feature_problems(architecture: str, same: float, coarse: float) -> list[str]:
    """Return sentences about cosines that are too small.

    same, coarse: of the features of PyTorch, and of Keras in bfloat16, with those of Keras in float32.
    """
    problems = []
    if not same > SAME:
        problems.append(f"{architecture}: PyTorch computes other features, their smallest cosine is {same:.6f}")
    if architecture in TOLERATES_BFLOAT16 and not coarse >= CLOSE:
        problems.append(f"{architecture}: in bfloat16 the smallest cosine is {coarse:.6f}, below {CLOSE}")
    return problems


def fine_tuning(architecture: str, size: int, files: Path | None, rounds: int, seconds: float) -> None:
    """Print the table of fine-tuning."""
    lowest = LOWEST_TRAINED.get(architecture, "all")
    network = NetworkSource(architecture, size, files, lowest)
    methods = {method: keras_epoch(network, precision) for precision, method in KERAS.items()}
    methods |= {method: torch_epoch(network, precision) for precision, method in PRECISIONS.items()}
    batch = TRAINING["batch_size"]
    images = images_of(files, POOL, size)
    count = batch * batches_in(seconds, methods[REFERENCE], examples_of(images, batch))
    examples = examples_of(images, count)
    for run in methods.values():
        run(examples)  # compiles
    spent, losses = in_turns(methods, examples, rounds)
    what = "all layers" if lowest == "all" else f"from {lowest} up"
    print(f"\n### Fine-tuning {architecture}, {what}, {count} images of {size}x{size} in batches of {batch}\n")
    print("| way | images/s | of PyTorch | loss |\n|---|---:|---:|---:|")
    for method, own in spent.items():
        speedup, speed = ratio(spent[REFERENCE], own), count / statistics.median(own)
        print(f"| {method} | {speed:.0f} | {speedup:.2f} | {losses[method]:.3f} |", flush=True)


def examples_of(images: np.ndarray, count: int) -> Examples:
    """Return this many examples with random labels; fewer images are repeated."""
    rows = np.arange(count) % len(images)
    labels = np.random.default_rng(0).integers(0, CLASSES, len(images)).astype(np.int32)
    return Examples(images, rows, labels[rows], rows, CLASSES)


@dataclass(frozen=True)
class NetworkSource:
    """What a network is built from; lowest: its lowest trained layer, or `all`."""

    architecture: str
    size: int
    files: Path | None
    lowest: str

    def build(self, precision: str) -> tuple[keras.Model, keras.Model]:
        """Return a network like `stages.training.full_model.build_network`, and the backbone in it."""
        entry = NetworkConfig(dataset="flowers", task="flowers", backbone="published", trainable=self.lowest)
        lower = backbone_of(self.architecture, self.size, self.files, precision)
        freeze(lower, entry, self.lowest)
        with computing_in(precision):
            return add_head(lower, entry, CLASSES, 0.0, self.architecture), lower


def keras_epoch(source: NetworkSource, precision: str) -> Callable[[Examples], float]:
    """Return a function that trains for an epoch as the stages do, and returns the loss."""
    settings = TrainingConfig(**TRAINING, precision=precision)
    model, _ = source.build(precision)
    compile_model(model, settings, steps_per_epoch=1)  # the rate is constant

    def epoch(examples: Examples) -> float:
        validation = examples_of(examples.array, 1)
        ((history,), _) = fit_runs([Fitted(model, settings)], examples, validation, 0, source.architecture)
        return history["train_loss"].iloc[-1]

    return epoch


def torch_epoch(source: NetworkSource, precision: str) -> Callable[[Examples], float]:
    """Return a function that trains the same layers for an epoch as PyTorch's tutorials do, and returns the loss."""
    model, lower = source.build("float32")
    peer = peer_of(lower)
    device = next(peer.parameters()).device
    network = torch.nn.Sequential(peer, torch.nn.Linear(lower.output.shape[-1], CLASSES, device=device))
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    torch_count = sum(parameter.numel() for parameter in trained)
    keras_count = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    if torch_count != keras_count:
        raise ValueError(f"PyTorch trains {torch_count} parameters, Keras {keras_count}")
    optimizer = torch.optim.Adam(trained, TRAINING["learning_rate"], eps=1e-7)  # the epsilon of Keras

    def epoch(examples: Examples) -> float:
        order = np.random.default_rng(0).permutation(len(examples.rows))
        labels = examples.labels[order].astype(np.int64)
        batches = Batches(examples.array, examples.rows[order], labels, TRAINING["batch_size"])
        return train_on_torch(network, optimizer, precision, batches)

    return epoch


def main() -> None:
    options = arguments(__doc__, DEFAULT)
    torch.backends.cudnn.benchmark = True  # tries several algorithms for convolutions, as XLA does
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "the processor"
    print(machine(("keras", keras.backend.backend(), "torch")))
    print(f"Keras on {', '.join(keras.distribution.list_devices())}, PyTorch on {gpu}", flush=True)
    problems = []
    for architecture, size in options.backbones:
        problems += extraction(architecture, size, options.files, options.rounds, options.seconds)
        fine_tuning(architecture, size, options.files, options.rounds, options.seconds)
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
