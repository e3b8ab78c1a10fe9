"""How fast models train on cached features, and the seconds that a cache saves.

    python -m benchmarks.training [--files folder] [--rounds 3] [--run folder] [part ...]

Parts: heads - an epoch over 45,000 x 2,048 float16 features, beside a loop written by hand for TensorFlow; fit - the
steps that Keras takes in one call, and the fused Adam; candidates - learning rates in one stacked model, beside one
after another; fine-tuning - from a cached cut layer, beside running the frozen layers; cache - the heads of the
CIFAR-10 study on their shared features, beside the same heads on a frozen backbone that runs in every epoch. The epochs
of `cache` are those of a finished run of the study, `--run`, and those that the study allows; its seconds are
extrapolated from two epochs on part of the images.

files: as in benchmarks.features. The ways take turns; ratios are medians of the rounds.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from benchmarks.measuring import backbone_of, images_of, machine, peak, ratio
from benchmarks.tables import table
from stages.artifacts.features import FeaturesRecord
from stages.backbones.cuts import above_cut, freeze_below, up_to_cut
from stages.backbones.extraction import BATCH
from stages.backbones.inference import MIN_IMAGES_TO_CONVERT, fastest_inference, resolve_precision
from stages.backbones.layer_names import find_layer
from stages.backbones.layer_table import layers_of
from stages.backbones.runtime import make_deterministic
from stages.config.heads import HeadConfig
from stages.config.training import TrainingConfig
from stages.core.files import read_json
from stages.core.yaml import read_yaml
from stages.training import fitting, optimizers
from stages.training.batches import Examples, steps_per_epoch
from stages.training.fitting import TrainingRun, fit_runs
from stages.training.heads import add_head, build_head
from stages.training.optimizers import compile_model
from stages.validation.study import validate_study

ROOT = Path(__file__).parents[1]
ROWS, WIDTH, CLASSES = 45_000, 2_048, 10
CIFAR10_IMAGES = 60_000


def training(**changes) -> TrainingConfig:
    usual = {"epochs": 1, "batch_size": 128, "optimizer": "adam", "learning_rate": 1e-3, "early_stopping": None}
    return TrainingConfig(**{**usual, "repeats": 1, "max_train_per_class": None, **changes})


def examples_of(array: np.ndarray, classes: int = CLASSES) -> Examples:
    """Every row of an array with a label drawn at random."""
    labels = np.random.default_rng(0).integers(0, classes, len(array)).astype(np.int32)
    return Examples(array, np.arange(len(array)), labels, np.arange(len(array)), classes)


def few(examples: Examples) -> Examples:
    """Validation that costs nothing beside the training."""
    return Examples(examples.array, examples.rows[:1], examples.labels[:1], examples.index[:1], examples.classes)


def features_of(count: int, width: int) -> Examples:
    """Random features (count, width) float16 in memory."""
    return examples_of(np.random.default_rng(0).random((count, width), np.float32).astype(np.float16))


def made(file: Path, rows: int, width: int) -> np.ndarray:
    """Random features (rows, width) float16 in a file, memory-mapped as a stage reads them."""
    random = np.random.default_rng(0)
    array = np.lib.format.open_memmap(file, "w+", np.float16, (rows, width))
    for start in range(0, rows, 1000):
        array[start : start + 1000] = random.random((min(1000, rows - start), width), np.float32)
    array.flush()
    return np.load(file, mmap_mode="r")


def head_of(hidden: list[int], width: int = WIDTH) -> keras.Model:
    """A head of dense layers on standardized features (n, width)."""
    entry = HeadConfig(task="t", features="f", hidden=hidden)
    return build_head(entry, features_record("vgg16", 32, "block5_pool", [width]), CLASSES)


def features_record(architecture: str, image_size: int, cut: str, shape: list[int]) -> FeaturesRecord:
    """The record of features that no stage wrote."""
    return FeaturesRecord(
        name="f",
        dataset="d",
        images_sha256="",
        images=0,
        image_size=image_size,
        resize="crop",
        backbone="b",
        weights_sha256="",
        architecture=architecture,
        cut=cut,
        pooling="none",
        precision="float32",
        storage="float16",
        views=[],
        shape=shape,
        parameters=0,
        multiply_adds=0,
    )


def seconds_of_epochs(train: Callable[[int], None], epochs: int = 2) -> float:
    """The seconds of an epoch, without the first one, which includes the compilation."""
    seconds = []
    for count in (1, 1 + epochs):
        start = time.perf_counter()
        train(count)
        seconds.append(time.perf_counter() - start)
    return (seconds[1] - seconds[0]) / epochs


def compiled(build: Callable[[], keras.Model], examples: Examples, settings: TrainingConfig) -> TrainingRun:
    """A model that is ready to train."""
    make_deterministic(0)
    model = build()
    compile_model(model, settings, steps_per_epoch(examples, settings))
    return TrainingRun(model, settings)


def fitted(build: Callable[[], keras.Model], examples: Examples, epochs: int, **changes) -> None:
    """Train a model as a stage does."""
    fit_runs([compiled(build, examples, training(epochs=epochs, **changes))], examples, few(examples), 0)


def by_hand(hidden: list[int], examples: Examples, epochs: int) -> None:
    """The training loop of TensorFlow's guide, "Writing a training loop from scratch", on batches from the file."""
    import tensorflow as tf

    make_deterministic(0)
    model, optimizer, loss_of = head_of(hidden), keras.optimizers.Adam(1e-3), keras.losses.CategoricalCrossentropy()
    optimizer.build(model.trainable_variables)
    targets = examples.targets()

    @tf.function(reduce_retracing=True)
    def step(inputs: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = loss_of(wanted, model(inputs, training=True))
        gradients = tape.gradient(loss, model.trainable_weights)
        optimizer.apply(gradients, model.trainable_weights)
        return loss

    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(len(targets))
        for start in range(0, len(order), 128):
            rows = order[start : start + 128]
            step(tf.constant(examples.array[rows].astype(np.float32)), tf.constant(targets[rows]))


def compared(ways: dict[str, Callable[[], float]], rounds: int) -> list[tuple[str, float, float]]:
    """For each way the median of the seconds it returns, and how many times it takes those of the first."""
    seconds = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            seconds[way].append(run())
    first = next(iter(seconds.values()))
    return [(way, statistics.median(own), ratio(own, first)) for way, own in seconds.items()]


def heads(given: argparse.Namespace, work: Path) -> None:
    examples = examples_of(made(work / "features.npy", ROWS, WIDTH))
    rows, best = [("an epoch", "seconds", "of the loop's", "MB/s of features", "of the peak")], peak()
    for hidden in ([], [1024]):
        layers = f"{hidden[0]} units and an output layer" if hidden else "an output layer"
        ways = {
            f"{layers}, loop by hand": lambda hidden=hidden: seconds_of_epochs(
                lambda epochs: by_hand(hidden, examples, epochs)
            ),
            f"{layers}, the stage `head`": lambda hidden=hidden: seconds_of_epochs(
                lambda epochs: fitted(lambda: head_of(hidden), examples, epochs)
            ),
        }
        # Forwards, and backwards to the weights; above the first layer also to the inputs.
        widths = [WIDTH, *hidden, CLASSES]
        work_of_row = sum(
            2 * inputs * units * (3 if layer else 2) for layer, (inputs, units) in enumerate(pairwise(widths))
        )
        for way, seconds, times in compared(ways, given.rounds):
            speed = ROWS / seconds
            rows.append((way, seconds, times, speed * 2 * WIDTH / 1e6, speed * work_of_row / best))
    table(f"Heads on {ROWS:,} x {WIDTH:,} float16 features, batches of 128", *rows)


def fit(given: argparse.Namespace, work: Path) -> None:
    """Epochs of single heads with `keras.Model.fit`."""
    rows = [("an epoch", "seconds", "of the first")]
    cases = (([], 5_000, 1_280, 32, 8), ([1024], 5_000, 1_280, 32, 2), ([], 50, 512, 10, 200))
    for hidden, count, width, batch_size, epochs in cases:
        examples = features_of(count, width)

        def seconds(
            steps: int | None = None,
            fused: bool = True,
            case: tuple[list[int], Examples, int, int] = (hidden, examples, batch_size, epochs),
        ) -> float:
            hidden, examples, batch_size, epochs = case
            width = examples.array.shape[1]
            with (
                replaced(fitting, "_steps_per_call", (lambda batches: steps) if steps else None),
                replaced(optimizers, "_fused", None if fused else (lambda kind: kind)),
            ):
                return seconds_of_epochs(
                    lambda epochs: fitted(lambda: head_of(hidden, width), examples, epochs, batch_size=batch_size),
                    epochs,
                )

        layers = f"{hidden[0]} units and an output layer" if hidden else "an output layer"
        what = f"{layers} on {count:,} x {width:,} features in batches of {batch_size}"
        ways = {
            f"{what}, one step in a call": partial(seconds, steps=1),
            f"{what}, an epoch in a call": seconds,
            f"{what}, an epoch in a call, Keras's Adam": partial(seconds, fused=False),
        }
        rows += compared(ways, given.rounds)
    table("Steps in one call of Keras", *rows)


@contextmanager
def replaced(module: ModuleType, name: str, value: Any) -> Iterator[None]:
    """A function of a module replaced by another one, unless that is None."""
    original = getattr(module, name)
    setattr(module, name, value or original)
    try:
        yield
    finally:
        setattr(module, name, original)


def candidates(given: argparse.Namespace, work: Path) -> None:
    """Several learning rates, which small heads train as one stacked model."""

    def seconds(rates: list[float], case: tuple[list[int], Examples, int, int], stack: bool) -> float:
        hidden, examples, batch_size, epochs = case
        runs = [
            compiled(
                lambda: head_of(hidden, examples.array.shape[1]),
                examples,
                training(epochs=epochs, learning_rate=rate, batch_size=batch_size),
            )
            for rate in rates
        ]
        start = time.perf_counter()
        with replaced(fitting, "can_stack", lambda models: stack):
            fit_runs(runs, examples, few(examples), 0)
        return time.perf_counter() - start

    rates = [10 ** (-power / 3) for power in range(6, 16)]
    rows = [("compiling included", "seconds", "of one after another")]
    cases = (
        ([], features_of(5_000, 1_280), 32, 10),
        ([64], features_of(5_000, 1_280), 32, 10),
        ([1024], features_of(5_000, 1_280), 32, 2),
        ([], features_of(50, 512), 10, 60),
    )
    for case in cases:
        hidden, examples, batch_size, epochs = case
        layers = f"{hidden[0]} units and an output layer" if hidden else "an output layer"
        shape = " x ".join(f"{size:,}" for size in examples.array.shape)
        for count in (1, 3, 10):
            what = f"{epochs} epochs of {layers} on {shape} features in batches of {batch_size}, {count} rates"
            ways = {
                f"{what}, one after another": partial(seconds, rates[:count], case, stack=False),
                f"{what}, stacked": partial(seconds, rates[:count], case, stack=True),
            }
            rows += compared(ways, 1 if hidden == [1024] else given.rounds)  # wide heads take minutes
    table("Learning rates together", *rows)


def whole_and_upper(
    size: int, files: Path | None, cut: str, unfreeze: str
) -> tuple[keras.Model, keras.Model, keras.Model]:
    """VGG16 with a head, frozen below `unfreeze`; its part below a cut and that above it, which share their layers."""
    backbone = backbone_of("vgg16", size, files)
    whole = add_head(backbone, HeadConfig(task="t", features="f"), CLASSES, 0.0, "whole")
    freeze_below(whole, unfreeze)
    return whole, keras.Model(whole.input, whole.get_layer(cut).output), above_cut(whole, cut)


def fine_tuning(given: argparse.Namespace, work: Path) -> None:
    rows = [("VGG16, trained from block5 up", "images/s", "of running the frozen layers")]
    for size, count, batch_size in ((224, 48, 16), (32, 1920, 128)):
        images = images_of(given.files, count, size)
        _, lower, _ = whole_and_upper(size, given.files, "block4_pool", "block5_conv1")
        features = lower.predict(images, verbose=0, batch_size=16).astype(np.float16)

        def seconds(part: int, array: np.ndarray, size: int = size, batch_size: int = batch_size) -> float:
            def build() -> keras.Model:
                return whole_and_upper(size, given.files, "block4_pool", "block5_conv1")[part]

            return seconds_of_epochs(lambda epochs: fitted(build, examples_of(array), epochs, batch_size=batch_size))

        what = f"{size}x{size}, batches of {batch_size}"
        ways = {
            f"{what}, from the images": partial(seconds, 0, images),
            f"{what}, from cached block4_pool": partial(seconds, 2, features),
        }
        rows += [(way, count / spent, 1 / slower) for way, spent, slower in compared(ways, given.rounds)]
    table("Fine-tuning", *rows)


def cache(given: argparse.Namespace, work: Path) -> None:
    if not given.run:
        print("\ncache: needs --run, the folder of a finished run of studies/cifar10_cut_layers.yaml")
        return
    study, _ = validate_study(read_yaml(ROOT / "studies/cifar10_cut_layers.yaml"))
    entry, count, size, architecture = study.features["vgg16-pools"], 960, 32, "vgg16"
    images, views = images_of(given.files, count, size), 1 + len(entry.views)
    cuts = {cut: find_layer(layers_of(architecture), cut, "highest") for cut in entry.cuts}
    precision = resolve_precision("auto", architecture)
    whole = backbone_of(architecture, size, given.files, precision)
    lower = keras.Model(whole.input, [whole.get_layer(name).output for name in cuts.values()])
    run = fastest_inference(lower, architecture, precision, MIN_IMAGES_TO_CONVERT, images[:BATCH])
    run(images[:BATCH])  # compiles
    start = time.perf_counter()
    activations = [run(images[start : start + BATCH]) for start in range(0, count, BATCH)]
    features_seconds = (time.perf_counter() - start) / count * CIFAR10_IMAGES * views
    # Features of few images, many times: an epoch on them should take long enough to be measured.
    arrays = {
        cut: np.tile(np.concatenate([batch[number] for batch in activations]).astype(np.float16), (16, 1, 1, 1))
        for number, cut in enumerate(cuts)
    }
    rows = [("row", "epochs", "at most", "images an epoch", "images/s, cached", "images/s, not cached", "times")]
    sums = np.zeros((2, 2))
    for name, head in study.heads.items():
        if not name.startswith("data"):  # the nine rows of the published study; two of them cannot be cached
            continue
        record = read_json(given.run / "models" / name / "record.json")
        epochs, trained_images = sum(record["epochs"]), record["train_images"] * (head.views or views)
        most = head.candidates(study.training)[0][0].epochs
        array, cut = arrays[head.cut], cuts[head.cut]

        def cached(head: HeadConfig = head, shape: tuple[int, ...] = array.shape[1:], cut: str = cut) -> keras.Model:
            return build_head(head, features_record(architecture, size, cut, list(shape)), CLASSES)

        def uncached(head: HeadConfig = head, cut: str = cut) -> keras.Model:
            frozen = up_to_cut(backbone_of(architecture, size, given.files), cut)
            frozen.trainable = False
            return add_head(frozen, head, CLASSES, 0.0, "whole")

        spent = [
            seconds_of_epochs(partial(fitted, build, examples_of(inputs))) / len(inputs)
            for build, inputs in ((cached, array), (uncached, images))
        ]
        sums += np.outer((epochs, most), spent) * trained_images
        rows.append((name, epochs, most, trained_images, 1 / spent[0], 1 / spent[1], spent[1] / spent[0]))
    table("The CIFAR-10 study: heads on cached features, and on a frozen base that runs in every epoch", *rows)
    table(
        "All rows together, extrapolated, in seconds",
        ("", "epochs until each stopped by itself", "all epochs, as published"),
        (f"features in {precision}, once", features_seconds, features_seconds),
        ("heads on them", *sums[:, 0].tolist()),
        ("the same heads on a frozen base in every epoch", *sums[:, 1].tolist()),
        ("times as long", *(sums[:, 1] / (sums[:, 0] + features_seconds)).tolist()),
    )


PARTS = {"heads": heads, "fit": fit, "candidates": candidates, "fine-tuning": fine_tuning, "cache": cache}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    parser.add_argument("--files", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(machine(["keras", "tensorflow", "onnxruntime"]))
    for part in given.parts or PARTS:
        with tempfile.TemporaryDirectory() as work:
            PARTS[part](given, Path(work))


if __name__ == "__main__":
    main()
