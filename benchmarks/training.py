"""How fast models train on cached features, and what that saves.

    python -m benchmarks.training [--files folder] [--rounds 3] [--run folder] [part ...]

Parts: heads - an epoch over 45,000 x 2,048 float16 features beside a loop written by hand for TensorFlow; candidates -
ten learning rates at once beside three one after another; fine-tuning - from a cached cut beside running the frozen
layers; cache - the CIFAR-10 study's heads on its shared features, beside the same heads on a frozen base that runs in
every epoch. Of the last, the epochs are those of a finished run of the study, `--run`, and those it allows; all seconds
are extrapolated from two epochs on part of the images.

files: as in benchmarks.features. Ways take turns; ratios are medians of the rounds.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from benchmarks.measuring import backbone_of, images_of, machine, peak, ratio
from benchmarks.tables import table
from stages.backbones.cuts import above_cut, freeze_below, up_to_cut
from stages.backbones.extraction import BATCH
from stages.backbones.inference import MIN_IMAGES_TO_CONVERT, fastest_inference, resolve_precision
from stages.backbones.layer_names import find_layer
from stages.backbones.runtime import make_deterministic
from stages.config.heads import HeadConfig
from stages.config.training import TrainingConfig
from stages.core.files import read_json
from stages.core.yaml import read_yaml
from stages.training.batches import Examples
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


def made(file: Path, rows: int, width: int) -> np.ndarray:
    """Random features (rows, width) float16 in a file, memory-mapped as a stage reads them."""
    random = np.random.default_rng(0)
    array = np.lib.format.open_memmap(file, "w+", np.float16, (rows, width))
    for start in range(0, rows, 1000):
        array[start : start + 1000] = random.random((min(1000, rows - start), width), np.float32)
    array.flush()
    return np.load(file, mmap_mode="r")


def head_of(hidden: list[int], width: int = WIDTH) -> keras.Model:
    entry = HeadConfig(task="t", features="f", hidden=hidden)
    return build_head(entry, CLASSES, [width], "vgg16", 32, "block5_pool")


def seconds_of_epochs(train: Callable[[int], None], epochs: int = 2) -> float:
    """The seconds of an epoch, without the first one, which includes the compilation."""
    seconds = []
    for count in (1, 1 + epochs):
        start = time.perf_counter()
        train(count)
        seconds.append(time.perf_counter() - start)
    return (seconds[1] - seconds[0]) / epochs


def fitted(build: Callable[[], keras.Model], examples: Examples, epochs: int, **changes) -> None:
    make_deterministic(0)
    settings, model = training(epochs=epochs, **changes), build()
    compile_model(model, settings)
    fit_runs([TrainingRun(model, settings)], examples, few(examples), 0, "")


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
            2 * up_to_cut * above_cut * (3 if place else 2)
            for place, (up_to_cut, above_cut) in enumerate(pairwise(widths))
        )
        for way, seconds, times in compared(ways, given.rounds):
            speed = ROWS / seconds
            rows.append((way, seconds, times, speed * 2 * WIDTH / 1e6, speed * work_of_row / best))
    table(f"Heads on {ROWS:,} x {WIDTH:,} float16 features, batches of 128", *rows)


def candidates(given: argparse.Namespace, work: Path) -> None:
    examples = examples_of(made(work / "features.npy", ROWS, WIDTH))

    def seconds(rates: list[float], hidden: list[int], epochs: int) -> float:
        make_deterministic(0)
        runs = []
        for rate in rates:
            settings, model = training(epochs=epochs, learning_rate=rate), head_of(hidden)
            compile_model(model, settings)
            runs.append(TrainingRun(model, settings))
        start = time.perf_counter()
        fit_runs(runs, examples, few(examples), 0, "")
        return time.perf_counter() - start

    rates = [10 ** (-power / 3) for power in range(6, 16)]
    rows = [("compiling included", "seconds", "of three")]
    # Wide ones take minutes, and their ratios differ less.
    for hidden, epochs, rounds in (([], 5, given.rounds), ([64], 5, 1), ([1024], 2, 1)):
        layers = f"{epochs} epochs of {f'{hidden[0]} units and ' if hidden else ''}an output layer"
        ways = {
            f"{layers}, three rates one after another": lambda hidden=hidden, epochs=epochs: sum(
                seconds([rate], hidden, epochs) for rate in rates[:3]
            ),
            f"{layers}, ten rates together": lambda hidden=hidden, epochs=epochs: seconds(rates, hidden, epochs),
        }
        rows += compared(ways, rounds)
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
    cuts = {cut: find_layer(architecture, cut, "highest") for cut in entry.cuts}
    precision = resolve_precision("auto", architecture)
    whole = backbone_of(architecture, size, given.files, precision)
    lower = keras.Model(whole.input, [whole.get_layer(name).output for name in cuts.values()])
    run = fastest_inference(lower, architecture, precision, MIN_IMAGES_TO_CONVERT, images[:BATCH])
    run(images[:BATCH])  # compiles
    start = time.perf_counter()
    found = [run(images[place : place + BATCH]) for place in range(0, count, BATCH)]
    of_features = (time.perf_counter() - start) / count * CIFAR10_IMAGES * views
    # Features of few images, many times: an epoch on them should take long enough to be measured.
    arrays = {
        cut: np.tile(np.concatenate([each[place] for each in found]).astype(np.float16), (16, 1, 1, 1))
        for place, cut in enumerate(cuts)
    }
    rows = [("row", "epochs", "at most", "images an epoch", "images/s, cached", "images/s, not cached", "times")]
    sums = np.zeros((2, 2))
    for name, head in study.heads.items():
        if not name.startswith("data"):  # the nine rows of the published study; two of them cannot be cached
            continue
        record = read_json(given.run / "models" / name / "record.json")
        epochs, shown = sum(record["epochs"]), record["train_images"] * (head.views or views)
        most = head.candidates(study.training)[0][0].epochs
        array, cut = arrays[head.cut], cuts[head.cut]

        def cached(head: HeadConfig = head, shape: tuple[int, ...] = array.shape[1:], cut: str = cut) -> keras.Model:
            return build_head(head, CLASSES, list(shape), architecture, size, cut)

        def uncached(head: HeadConfig = head, cut: str = cut) -> keras.Model:
            frozen = up_to_cut(backbone_of(architecture, size, given.files), cut)
            frozen.trainable = False
            return add_head(frozen, head, CLASSES, 0.0, "whole")

        spent = [
            seconds_of_epochs(partial(fitted, build, examples_of(inputs))) / len(inputs)
            for build, inputs in ((cached, array), (uncached, images))
        ]
        sums += np.outer((epochs, most), spent) * shown
        rows.append((name, epochs, most, shown, 1 / spent[0], 1 / spent[1], spent[1] / spent[0]))
    table("The CIFAR-10 study: heads on cached features, and on a frozen base that runs in every epoch", *rows)
    table(
        "All rows together, extrapolated, in seconds",
        ("", "epochs until each stopped by itself", "all epochs, as published"),
        (f"features in {precision}, once", of_features, of_features),
        ("heads on them", *sums[:, 0].tolist()),
        ("the same heads on a frozen base in every epoch", *sums[:, 1].tolist()),
        ("times as long", *(sums[:, 1] / (sums[:, 0] + of_features)).tolist()),
    )


PARTS = {"heads": heads, "candidates": candidates, "fine-tuning": fine_tuning, "cache": cache}


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
