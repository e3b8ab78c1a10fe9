"""How fast a GPU, or what Keras runs on here, computes features and fine-tunes a network, beside plain PyTorch.

    python -m benchmarks.accelerator [--files folder] [--rounds 3] [--seconds 4] [architecture@size ...]

With `KERAS_BACKEND=jax` it needs no TensorFlow; PyTorch it needs, see `benchmarks.peer`. files: as in
`benchmarks.features`. Images and features lie in memory. The ways take turns, and what is printed is the median of the
rounds: images a second, and the speed as a multiple of PyTorch's in float32.

Extraction: the loop of the stage, and the smallest cosine of a feature vector with that of Keras in true float32; for
on a GPU "float32" means TF32 in both libraries, as they come. Fine-tuning: epochs of `stages.training.fitting.fit`,
with one validation image, of VGG16 from block5 up and of all of any other network. Ends with an error where PyTorch
computes anything else than Keras, or bfloat16 is not as good as `stages.backbones.inference` says.
"""

import os
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

# Else either takes most of the memory of a GPU, and leaves PyTorch too little.
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
from benchmarks.peer import PRECISIONS, peer_of, run_on_torch, train_on_torch
from stages.backbones.building import layer_names
from stages.backbones.inference import TOLERATES_BFLOAT16, Inference, keras_inference
from stages.backbones.runtime import computing_in
from stages.config.networks import NetworkConfig
from stages.config.training import TrainingConfig
from stages.features import extract
from stages.training.batches import Examples
from stages.training.fitting import TrainingRun as Fitted
from stages.training.fitting import fit_runs
from stages.training.full_model import freeze
from stages.training.heads import add_head
from stages.training.optimizers import compile_model

DEFAULT = ["vgg16@224", "mobilenet_v2@224"]
KERAS = {"float32": "Keras", "bfloat16": "Keras in bfloat16"}
REFERENCE = PRECISIONS["float32"]
POOL = 1024  # images in memory; a round that needs more takes them again
SAME, CLOSE = 0.9999, 0.999  # cosines: of PyTorch in float32, and of what `precision: auto` may compute in bfloat16

LOWEST_TRAINED = {"vgg16": "block5_conv1"}
CLASSES = 5
# So slow that nothing becomes infinite, however many rounds there are.
TRAINING = {"epochs": 1, "batch_size": 32, "optimizer": "adam", "learning_rate": 1e-6, "repeats": 1}
TRAINING |= {"early_stopping": None, "max_train_per_class": None}


@contextmanager
def true_float32() -> Iterator[None]:
    """GPUs multiply float32 with the ten bits of TF32 unless they are told not to: too few to compare networks by."""
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
    """Print the table of extraction; returns what is wrong with the features."""
    models = {precision: backbone_of(architecture, size, files, precision) for precision in KERAS}
    peer = peer_of(models["float32"])
    plain = {way: run_on_torch(peer, precision) for precision, way in PRECISIONS.items()}
    sample = images_of(files, BATCH, size)
    count = BATCH * batches_in(seconds, plain[REFERENCE], sample)
    images = images_of(files, min(count, POOL), size)
    index = np.arange(count) % len(images)
    with true_float32():
        once = np.arange(len(images))
        expected = in_batches(keras_inference(models["float32"]), images, once)
        same = cosine(in_batches(plain[REFERENCE], images, once), expected)

    ways = {way: partial(as_the_stage, keras_inference(models[precision]), images) for precision, way in KERAS.items()}
    ways |= {way: partial(in_batches, run, images) for way, run in plain.items()}
    for run in ways.values():
        run(index[:BATCH])  # compiles
    spent, found = in_turns(ways, index, rounds)
    closeness = {way: cosine(features, expected[index]) for way, features in found.items()}
    work = operations(models["float32"])
    weights = "ImageNet" if weights_of(architecture, files) else "random"
    print(f"\n### Features of {architecture}, {count} images of {size}x{size}, {weights} weights\n")
    print("| way | images/s | of PyTorch | smallest cosine | TFLOP/s |\n|---|---:|---:|---:|---:|")
    for way, own in spent.items():
        faster, speed = ratio(spent[REFERENCE], own), count / statistics.median(own)
        print(f"| {way} | {speed:.0f} | {faster:.2f} | {closeness[way]:.6f} | {speed * work / 1e12:.2f} |", flush=True)
    return wrong(architecture, same, closeness[KERAS["bfloat16"]])


def as_the_stage(run: Inference, images: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The features of images[index], by the loop of the stage, into memory instead of a file."""
    out = np.empty((len(index), *run(images[:1])[0].shape[1:]), np.float32)
    extract(run, lambda pixels: pixels, images, index, [out], "features")
    return out


def wrong(architecture: str, same: float, coarse: float) -> list[str]:
    """What cosines show to be wrong: of PyTorch's features, and of Keras's in bfloat16, both with Keras in float32."""
    problems = []
    if not same > SAME:
        problems.append(f"{architecture}: PyTorch computes other features, their smallest cosine is {same:.6f}")
    if architecture in TOLERATES_BFLOAT16 and not coarse >= CLOSE:
        problems.append(f"{architecture}: in bfloat16 the smallest cosine is {coarse:.6f}, below {CLOSE}")
    return problems


def fine_tuning(architecture: str, size: int, files: Path | None, rounds: int, seconds: float) -> None:
    """Print the table of fine-tuning."""
    lowest = LOWEST_TRAINED.get(architecture, "all")
    ways = {way: epoch_of_keras(architecture, size, files, lowest, precision) for precision, way in KERAS.items()}
    ways |= {way: epoch_of_torch(architecture, size, files, lowest, precision) for precision, way in PRECISIONS.items()}
    batch = TRAINING["batch_size"]
    images = images_of(files, POOL, size)
    count = batch * batches_in(seconds, ways[REFERENCE], examples_of(images, batch))
    examples = examples_of(images, count)
    for run in ways.values():
        run(examples)  # compiles
    spent, losses = in_turns(ways, examples, rounds)
    what = "all layers" if lowest == "all" else f"from {lowest} up"
    print(f"\n### Fine-tuning {architecture}, {what}, {count} images of {size}x{size} in batches of {batch}\n")
    print("| way | images/s | of PyTorch | loss |\n|---|---:|---:|---:|")
    for way, own in spent.items():
        faster, speed = ratio(spent[REFERENCE], own), count / statistics.median(own)
        print(f"| {way} | {speed:.0f} | {faster:.2f} | {losses[way]:.3f} |", flush=True)


def examples_of(images: np.ndarray, count: int) -> Examples:
    """So many examples, of images that are taken again where there are fewer, with drawn labels."""
    rows = np.arange(count) % len(images)
    labels = np.random.default_rng(0).integers(0, CLASSES, len(images)).astype(np.int32)
    return Examples(images, rows, labels[rows], rows, CLASSES)


def network_of(
    architecture: str, size: int, files: Path | None, lowest: str, precision: str
) -> tuple[keras.Model, keras.Model]:
    """A network as `stages.training.full_model.build_network` makes it, and the backbone in it, frozen below `lowest`."""
    entry = NetworkConfig(dataset="flowers", task="flowers", backbone="published", trainable=lowest)
    lower = backbone_of(architecture, size, files, precision)
    freeze(lower, entry, architecture, layer_names(lower)[-2])  # the last is the pooling
    with computing_in(precision):
        return add_head(lower, entry, CLASSES, 0.0, architecture), lower


def epoch_of_keras(
    architecture: str, size: int, files: Path | None, lowest: str, precision: str
) -> Callable[[Examples], float]:
    """A function that trains for an epoch as the stages do, and returns the loss."""
    settings = TrainingConfig(**TRAINING, precision=precision)
    model, _ = network_of(architecture, size, files, lowest, precision)
    compile_model(model, settings)

    def epoch(shown: Examples) -> float:
        ((history,), _) = fit_runs([Fitted(model, settings)], shown, examples_of(shown.array, 1), 0, architecture)
        return history["train_loss"].iloc[-1]

    return epoch


def epoch_of_torch(
    architecture: str, size: int, files: Path | None, lowest: str, precision: str
) -> Callable[[Examples], float]:
    """A function that trains the same layers for an epoch as PyTorch's tutorials do, and returns the loss."""
    model, lower = network_of(architecture, size, files, lowest, "float32")
    peer = peer_of(lower)
    device = next(peer.parameters()).device
    network = torch.nn.Sequential(peer, torch.nn.Linear(lower.output.shape[-1], CLASSES, device=device))
    trained = [each for each in network.parameters() if each.requires_grad]
    wanted = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    if sum(each.numel() for each in trained) != wanted:
        raise ValueError(f"PyTorch trains {sum(each.numel() for each in trained)} parameters, Keras {wanted}")
    optimizer = torch.optim.Adam(trained, TRAINING["learning_rate"], eps=1e-7)  # the epsilon of Keras

    def epoch(shown: Examples) -> float:
        order = np.random.default_rng(0).permutation(len(shown.rows))
        targets = shown.labels[order].astype(np.int64)
        size = TRAINING["batch_size"]
        return train_on_torch(network, optimizer, precision, shown.array, shown.rows[order], targets, size)

    return epoch


def main() -> None:
    given = arguments(__doc__, DEFAULT)
    torch.backends.cudnn.benchmark = True  # tries out convolutions, as XLA does
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "the processor"
    print(machine(("keras", keras.backend.backend(), "torch")))
    print(f"Keras on {', '.join(keras.distribution.list_devices())}, PyTorch on {gpu}", flush=True)
    problems = []
    for architecture, size in given.backbones:
        problems += extraction(architecture, size, given.files, given.rounds, given.seconds)
        fine_tuning(architecture, size, given.files, given.rounds, given.seconds)
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
