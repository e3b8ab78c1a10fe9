"""Weights of backbones in data/weights/<backbone>: a weights file unless they are random, and `backbone.json`."""

from dataclasses import asdict, dataclass
from pathlib import Path

from stages.core.files import read_json, reading, sha256_of, write_json

WEIGHTS_FOLDER = Path("data/weights")


@dataclass(frozen=True)
class WeightsRecord:
    """What the weights of a backbone are.

    source: `random`, `imagenet`, a path or address, or the network of the study that was trained.
    image_size: side in pixels of the images a network of the study was trained on, else None.
    file: name of the weights file in the backbone's folder, None for random weights. Keras tells its own format from
    the older one of its published files by the end of the name: .weights.h5 or .h5.
    sha256: of the file.
    """

    architecture: str
    source: str
    image_size: int | None = None
    file: str | None = None
    sha256: str | None = None


def write_weights_record(
    folder: Path, architecture: str, source: str, image_size: int | None = None, file: Path | None = None
) -> WeightsRecord:
    """Write `backbone.json` into the (unfinished) folder of a backbone, beside its weights file."""
    name, sha256 = (file.name, sha256_of(file)) if file else (None, None)
    record = WeightsRecord(architecture, source, image_size, name, sha256)
    write_json(folder / "backbone.json", asdict(record))
    return record


def read_weights_record(backbone: str) -> WeightsRecord:
    """The record of a backbone, its file checked; `UserError` when one of them is missing or damaged."""
    folder = WEIGHTS_FOLDER / backbone
    with reading(folder):
        record = WeightsRecord(**read_json(folder / "backbone.json"))
        if record.file and sha256_of(folder / record.file) != record.sha256:
            raise ValueError("the weights file is not the one recorded")
        return record
