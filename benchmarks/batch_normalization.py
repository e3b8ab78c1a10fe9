"""Test accuracy of short trainings with the statistics that Keras stores, and with estimates on training images.

    python -m benchmarks.batch_normalization <birds_cub30_160.zip> <mobilenet_v2_imagenet_notop.weights.h5>

Six bird species at 96 pixels: 40 training images and 20 test images of each. MobileNetV2 is trained for 8 epochs: from
random weights, and from ImageNet weights in its upper layers (`trainable: 14`) or in all. The weights are the same in
all columns; only the statistics of batch normalization differ:

    Keras       running averages with the momentum 0.999 of MobileNetV2
    momentum    the same averages with a momentum of 0.9
    32, 64      estimated on the training images in batches of this size; the project takes 64, see `StatisticsSample`
    one batch   estimated in one batch of all training images
    batches     of each batch of 32 training images, as in training; accuracy on training images, not on test images
    inference   accuracy on training images with the estimates in batches of 64
"""

import io
import os
import sys
import zipfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from PIL import Image, ImageOps

from stages.backbones.building import build_backbone, layer_names
from stages.backbones.cuts import up_to_cut
from stages.backbones.layer_names import lowest_trained_layer
from stages.backbones.layer_table import layers_of
from stages.backbones.pretrained import load_weights
from stages.backbones.runtime import make_deterministic
from stages.config.networks import NetworkConfig
from stages.config.training import TrainingConfig
from stages.training.batch_normalization import (
    StatisticsEstimator,
    StatisticsSample,
    moving_statistics,
    trained_normalization,
)
from stages.training.batches import Examples, TrainingBatches, steps_per_epoch
from stages.training.fitting import predict_probabilities
from stages.training.full_model import build_network, freeze
from stages.training.optimizers import compile_model

SPECIES, TRAIN, TEST, SIZE = 6, 40, 20, 96
ARCHITECTURE = "mobilenet_v2"
SETTINGS = {"epochs": 8, "batch_size": 32, "optimizer": "adam", "repeats": 1}
SETTINGS |= {"early_stopping": None, "max_train_per_class": None}
TRAININGS = {
    "from scratch": ("random", "all", 0.001),
    "upper layers from ImageNet": ("imagenet", 14, 0.001),
    "all layers from ImageNet": ("imagenet", "all", 0.0001),
}
COLUMNS = ["Keras", "momentum", "32", "64", "one batch", "batches", "inference"]


def birds(archive: Path) -> tuple[Examples, Examples]:
    """Training and test images."""
    pixels, labels = [], []
    with zipfile.ZipFile(archive) as file:
        names = sorted(name for name in file.namelist() if name.endswith(".jpg"))
        species = sorted({name.split("/")[-2] for name in names})[:SPECIES]
        for label, folder in enumerate(species):
            for name in [name for name in names if name.split("/")[-2] == folder][: TRAIN + TEST]:
                image = Image.open(io.BytesIO(file.read(name))).convert("RGB")
                pixels.append(np.asarray(ImageOps.fit(image, (SIZE, SIZE))))
                labels.append(label)
    labels, rows = np.array(labels, np.int32), np.arange(len(labels))
    order = np.argsort(labels, kind="stable")
    rank = np.concatenate([np.arange((labels == label).sum()) for label in range(SPECIES)])
    parts = [rows[order][rank < TRAIN], rows[order][rank >= TRAIN]]
    return tuple(Examples(np.stack(pixels), part, labels[part], part, SPECIES) for part in parts)


def accuracy(model: keras.Model, examples: Examples) -> float:
    """In inference mode."""
    return float((predict_probabilities(model, examples).argmax(axis=1) == examples.labels).mean())


def compare(kind: tuple[str, str | int, float], weights: Path, train: Examples, test: Examples) -> list[float]:
    """The accuracies of `COLUMNS` of one training."""
    start, trainable, rate = kind
    settings = TrainingConfig(**SETTINGS, learning_rate=rate)
    entry = NetworkConfig(
        dataset="birds", task="six", backbone="b", pooling="max", trainable=trainable, train_batch_normalization=True
    )
    make_deterministic(1)
    backbone = build_backbone(ARCHITECTURE, SIZE)
    if start == "imagenet":
        load_weights(backbone, weights, "weights")
    top = layer_names(backbone)[-1]
    freeze(backbone, entry, lowest_trained_layer(layers_of(ARCHITECTURE), trainable, top))
    model = build_network("birds", entry, up_to_cut(backbone, top), SPECIES)
    compile_model(model, settings, steps_per_epoch(train, settings))
    faster = [keras.ops.convert_to_numpy(value) for value in moving_statistics(model)]  # averages with another momentum
    batches = TrainingBatches(train, settings, seed=1)
    momentum = trained_normalization(model)[0].momentum
    for step in range(settings.epochs * batches.steps_per_epoch):
        before = [keras.ops.convert_to_numpy(value) for value in moving_statistics(model)]
        inputs, targets, _ = batches[step]
        model.train_on_batch(inputs, targets)
        for number, (old, value) in enumerate(zip(before, moving_statistics(model), strict=True)):
            moment = (keras.ops.convert_to_numpy(value) - momentum * old) / (1 - momentum)
            faster[number] = 0.9 * faster[number] + 0.1 * moment
    accuracies = [accuracy(model, test)]
    for variable, value in zip(moving_statistics(model), faster, strict=True):
        variable.assign(np.maximum(value, 0) if variable.path.endswith("variance") else value)
    accuracies.append(accuracy(model, test))
    estimator = StatisticsEstimator(model)
    for size in (32, 64, len(train.rows)):
        estimator.estimate(StatisticsSample.draw(train, size, seed=1))
        accuracies.append(accuracy(model, test))
    estimator.estimate(StatisticsSample.of(batches))
    sample = StatisticsSample.draw(train, 32, seed=1)
    return [*accuracies, sample.accuracy(estimator.predict(sample)), accuracy(model, train)]


def main(archive: str, weights: str) -> None:
    train, test = birds(Path(archive))
    print("|", " | ".join(["training", *COLUMNS]), "|")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for name, kind in TRAININGS.items():
        accuracies = compare(kind, Path(weights), train, test)
        print("|", " | ".join([name, *(f"{100 * value:.1f}" for value in accuracies)]), "|", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
