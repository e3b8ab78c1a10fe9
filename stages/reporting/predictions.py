"""Predictions for images of a user, as text, CSV or JSON."""

import csv
import json
from collections.abc import Iterable
from typing import NamedTuple, TextIO

from stages.sources.layout import printable


class Prediction(NamedTuple):
    """The most probable classes of an image with their probabilities, the highest first.

    reason: why the image cannot be read, in which case there are no classes.
    """

    image: str
    classes: list[tuple[str, float]]
    reason: str = ""


def write_text(predictions: Iterable[Prediction], out: TextIO) -> None:
    """One line for every image: its name, and its classes in percent."""
    for image, classes, _ in predictions:
        named = ", ".join(f"{printable(name)} {100 * probability:.1f} %" for name, probability in classes)
        print(f"{printable(image)}: {named}", file=out)


def write_csv(predictions: Iterable[Prediction], out: TextIO) -> None:
    """One row for every class of each image: image, rank from 1, class, probability."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["image", "rank", "class", "probability"])
    for image, classes, _ in predictions:
        for rank, (name, probability) in enumerate(classes, start=1):
            writer.writerow([image, rank, name, f"{probability:.6g}"])


def write_json(predictions: Iterable[Prediction], out: TextIO) -> None:
    """A list of images, each with its classes and their probabilities."""
    content = [
        {"image": image, "classes": [{"class": name, "probability": probability} for name, probability in classes]}
        for image, classes, _ in predictions
    ]
    json.dump(content, out, indent=2, ensure_ascii=False)
    print(file=out)


WRITERS = {"text": write_text, "csv": write_csv, "json": write_json}
