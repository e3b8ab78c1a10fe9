"""Predicts the classes of images with a trained model: `python -m stages.predict <model> <images or folders>`."""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from stages.artifacts.models import ModelRecord
from stages.core.command import run_command
from stages.core.errors import UserError
from stages.reporting.predictions import WRITERS, Prediction
from stages.sources.folders import unlabeled_images
from stages.sources.source_image import SourceImage
from stages.sources.workers import decode_all
from stages.training.stored_models import check_ensemble, find_model

BATCH = 64


def main(arguments: argparse.Namespace) -> int:
    images = find_images(arguments.images)
    record = find_model("predict", arguments.model)
    # Not above: the processes that decode images import this module too.
    from stages.training.exported import exported_predictor

    predict = (None if arguments.ensemble else exported_predictor(record)) or keras_predictor(
        record, len(images), arguments.ensemble
    )
    unreadable = []

    def readable() -> Iterator[Prediction]:
        for prediction in predict_images(record, predict, images, arguments.top):
            if prediction.reason:
                unreadable.append(prediction)
            else:
                yield prediction

    if hasattr(sys.stdout, "reconfigure"):  # any name must be printable, whatever the locale
        sys.stdout.reconfigure(encoding="utf-8")
    WRITERS[arguments.format](readable(), sys.stdout)
    for prediction in unreadable:
        print(f"predict: {prediction.image!r} was skipped: {prediction.reason}.", file=sys.stderr)
    return 1 if unreadable else 0


def keras_predictor(record: ModelRecord, images: int, ensemble: bool) -> Callable[[np.ndarray], np.ndarray]:
    """The predictions of the model in Keras. images: how many it will predict. ensemble: the mean of all repeats."""
    # It imports TensorFlow, which takes seconds.
    from stages.training.full_model import load_calibrated_model, load_ensemble

    if ensemble:
        check_ensemble(record)
    model = load_ensemble(record) if ensemble else load_calibrated_model(record)
    if images > BATCH:
        return model.predict_on_batch
    return lambda pixels: np.asarray(model(pixels, training=False))  # to compile a function would not pay


def find_images(paths: Iterable[Path]) -> list[SourceImage]:
    """All files that are named and all files in the folders that are named, whatever their suffix.

    `UserError` if a path does not exist, a folder has no files, or a folder cannot be read as that of a dataset.
    """
    if missing := [path for path in paths if not path.exists()]:
        raise UserError(*(f"{str(path)!r} does not exist. Correct the path." for path in missing))
    images_of = {path: list(unlabeled_images(path)) for path in paths}
    if empty := [path for path, images in images_of.items() if not images]:
        raise UserError(*(f"{str(path)!r} holds no files. Put images there, or correct the path." for path in empty))
    return [image for path in paths for image in images_of[path]]


def predict_images(
    record: ModelRecord, predict: Callable[[np.ndarray], np.ndarray], images: Iterable[SourceImage], top: int
) -> Iterator[Prediction]:
    """The `top` most probable classes of images, in their order, decoded as the training images were.

    predict: from uint8 images (n, image_size, image_size, 3) to probabilities (n, classes). At most some thousand
    images are in memory at a time.
    """
    outcomes = decode_all((image._replace(bits=record.bits) for image in images), record.image_size, record.resize)
    while batch := list(islice(outcomes, BATCH)):
        pixels = [outcome.pixels for _, outcome in batch if not isinstance(outcome, str)]
        probabilities = iter(predict(np.stack(pixels)) if pixels else [])
        for image, outcome in batch:
            if isinstance(outcome, str):
                yield Prediction(image.name, [], outcome)
                continue
            scores = next(probabilities)
            order = np.argsort(-scores, kind="stable")[:top]
            yield Prediction(image.name, [(record.classes[label], float(scores[label])) for label in order])


def at_least_one(text: str) -> int:
    """A number of classes, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser("predict", description=__doc__)
    parser.add_argument("model", help="a network, head, probe or fine-tune of the study")
    parser.add_argument("images", type=Path, nargs="+", help="image files, or folders of them")
    parser.add_argument("--ensemble", action="store_true", help="average the probabilities of all repeats of the model")
    parser.add_argument("--top", type=at_least_one, default=5, help="number of classes per image (default: 5)")
    parser.add_argument("--format", choices=WRITERS, default="text", help="text (default), csv or json")
    run_command(parser, main)
