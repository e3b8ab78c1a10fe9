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
from stages.sources.layout import SUFFIXES, is_system_file, printable
from stages.sources.source_image import SourceImage
from stages.sources.workers import decode_all
from stages.training.stored_models import find_model

BATCH = 64


def main(arguments: argparse.Namespace) -> int:
    files = [file for path in arguments.images for file in image_files(path)]
    record = find_model("predict", arguments.model)
    # Not above: the processes that decode images import this module too, and do not need TensorFlow.
    from stages.training.full_model import load_calibrated_model

    predict = load_calibrated_model(record).predict_on_batch
    unreadable = []

    def readable() -> Iterator[Prediction]:
        for prediction in predict_files(record, predict, files, arguments.top):
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


def image_files(path: Path) -> list[Path]:
    """The file itself, or the images in a folder and its subfolders, sorted by name.

    Skips hidden files and files without the suffix of an image. `UserError` if the path does not exist, or if the
    folder holds no image.
    """
    if not path.is_dir():
        if not path.exists():
            raise UserError(f"{str(path)!r} does not exist. Correct the path.")
        return [path]
    files = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.casefold() in SUFFIXES and not any(map(is_system_file, file.relative_to(path).parts))
    )
    if not files:
        raise UserError(f"{str(path)!r} holds no images. Their names must end with {', '.join(sorted(SUFFIXES))}.")
    return files


def predict_files(
    record: ModelRecord, predict: Callable[[np.ndarray], np.ndarray], files: Iterable[Path], top: int
) -> Iterator[Prediction]:
    """The `top` most probable classes of image files, in their order, decoded as the training images were.

    predict: from uint8 images (n, image_size, image_size, 3) to probabilities (n, classes). At most some thousand
    images are in memory at a time.
    """
    source = (SourceImage(printable(str(file)), "", file.read_bytes, bits=record.bits) for file in files)
    outcomes = decode_all(source, record.image_size, record.resize)
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
    parser.add_argument("--top", type=at_least_one, default=5, help="number of classes per image (default: 5)")
    parser.add_argument("--format", choices=WRITERS, default="text", help="text (default), csv or json")
    run_command(parser, main)
