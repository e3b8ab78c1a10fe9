"""Tells which classes a trained model sees in images: `python -m stages.predict <model> <images or folders>`."""

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

import numpy as np

from stages.core.command import run_command
from stages.core.errors import UserError
from stages.sources.layout import SUFFIXES, is_system_file, printable
from stages.sources.source_image import SourceImage
from stages.sources.workers import decode_all
from stages.validation.study import Study

if TYPE_CHECKING:
    from stages.training.trained_model import TrainedModel

BATCH = 64


class Answer(NamedTuple):
    """The most probable classes of an image, each with its probability, the first first; none where it is unreadable.

    reason: why it is unreadable.
    """

    image: str
    classes: list[tuple[str, float]]
    reason: str = ""


def main(study: Study, given: argparse.Namespace) -> int:
    # Not above: the processes that decode images import this module too, and need no TensorFlow.
    from stages.training.trained_model import load_trained_model

    files = [file for path in given.images for file in images_in(path)]
    trained = load_trained_model(study, given.model)
    unreadable = []

    def readable() -> Iterator[Answer]:
        for answer in predict_files(trained, files, given.top):
            if answer.reason:
                unreadable.append(answer)
            else:
                yield answer

    if hasattr(sys.stdout, "reconfigure"):  # any name must be printable, whatever the locale
        sys.stdout.reconfigure(encoding="utf-8")
    WRITERS[given.format](readable(), sys.stdout)
    for answer in unreadable:
        print(f"predict: {answer.image!r} is left out: {answer.reason}.", file=sys.stderr)
    return 1 if unreadable else 0


def images_in(path: Path) -> list[Path]:
    """The file itself, or the images in a folder and in the folders below it, in the order of their names.

    Hidden files, and those whose names do not end as those of images, are passed over. `UserError` where there is
    nothing of this name, or no image in the folder.
    """
    if not path.is_dir():
        if not path.exists():
            raise UserError(f"there is no image or folder {str(path)!r}; correct the path.")
        return [path]
    found = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.casefold() in SUFFIXES and not any(map(is_system_file, file.relative_to(path).parts))
    )
    if not found:
        raise UserError(
            f"there is no image in the folder {str(path)!r}; their names end with {', '.join(sorted(SUFFIXES))}."
        )
    return found


def predict_files(trained: "TrainedModel", files: Iterable[Path], top: int) -> Iterator[Answer]:
    """The answers to image files, the `top` classes of each, in their order; decoded as the dataset of the model was.

    At most some thousand images are in memory at a time, however many there are.
    """
    source = (SourceImage(printable(str(file)), "", file.read_bytes) for file in files)
    outcomes = decode_all(source, trained.image_size, trained.resize)
    while batch := list(islice(outcomes, BATCH)):
        pixels = [outcome.pixels for _, outcome in batch if not isinstance(outcome, str)]
        found = iter(trained.model.predict_on_batch(np.stack(pixels)) if pixels else [])
        for image, outcome in batch:
            if isinstance(outcome, str):
                yield Answer(image.name, [], outcome)
                continue
            probabilities = next(found)
            order = np.argsort(-probabilities, kind="stable")[:top]
            yield Answer(image.name, [(trained.classes[label], float(probabilities[label])) for label in order])


def write_text(answers: Iterable[Answer], out: TextIO) -> None:
    """A line an image: its name, and the classes in percent."""
    for image, classes, _ in answers:
        named = ", ".join(f"{printable(name)} {100 * probability:.1f} %" for name, probability in classes)
        print(f"{printable(image)}: {named}", file=out)


def write_csv(answers: Iterable[Answer], out: TextIO) -> None:
    """A row for each class of each image: image, rank from 1, class, probability."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["image", "rank", "class", "probability"])
    for image, classes, _ in answers:
        for rank, (name, probability) in enumerate(classes, start=1):
            writer.writerow([image, rank, name, f"{probability:.6g}"])


def write_json(answers: Iterable[Answer], out: TextIO) -> None:
    """A list of images, each with its classes and their probabilities."""
    content = [
        {"image": image, "classes": [{"class": name, "probability": probability} for name, probability in classes]}
        for image, classes, _ in answers
    ]
    json.dump(content, out, indent=2, ensure_ascii=False)
    print(file=out)


WRITERS = {"text": write_text, "csv": write_csv, "json": write_json}


def at_least_one(text: str) -> int:
    """A number of classes, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not accepted; give a whole number from 1 up")
    return int(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser("predict", description=__doc__)
    parser.add_argument("model", help="a network, a head or a fine-tune of the study")
    parser.add_argument("images", type=Path, nargs="+", help="image files, or folders of them")
    parser.add_argument("--top", type=at_least_one, default=5, help="so many classes of each image (5)")
    parser.add_argument("--format", choices=WRITERS, default="text", help="text (a line an image), csv or json")
    run_command(parser, main)
