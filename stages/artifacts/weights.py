"""Weights of backbones in data/weights/<backbone>: `backbone.json`, and a weights file unless they are random."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stages.core.files import read_json, reading, sha256_of, write_json

WEIGHTS_FOLDER = Path("data/weights")


@dataclass(frozen=True)
class WeightsRecord:
    """The description of a backbone's weights. It omits their URL, so that a mirror of the same file retrains nothing.

    image_size: side in pixels of the images that a network of the study was trained on, else None.
    file: name of the weights file in the backbone's folder; None for random weights. Keras recognizes the format by
    the suffix: .weights.h5 for its own format, .keras for whole models, .h5 for its older published files.
    sha256: checksum of the file. preset: how KerasHub builds the backbone, None if it does not: `class_name` and
    `config`, of its class; `image_size` of the images that it was trained on; `scale` and `offset` of each channel of
    the pixels, which are multiplied, then added; `class_token` and `prefix_tokens`, whether the tokens of a transformer
    start with that of the class, and how many come before those of the patches; `layers`, see `parse_layers`; `sha256`,
    of the files that the weights were converted from, see `preset_checksum`.
    """

    architecture: str
    image_size: int | None = None
    file: str | None = None
    sha256: str | None = None
    preset: dict[str, Any] | None = None

    @property
    def trained_size(self) -> int | None:
        """The side in pixels of the images that the weights belong to; None if they fit any."""
        return self.image_size or (self.preset or {}).get("image_size")


def write_weights_record(folder: Path, record: WeightsRecord, file: Path | None = None) -> WeightsRecord:
    """Write `backbone.json` into the (unfinished) folder of a backbone, next to its weights file, if there is one.

    Returns the record with the name and the checksum of the file.
    """
    name, sha256 = (file.name, sha256_of(file)) if file else (None, None)
    record = replace(record, file=name, sha256=sha256)
    write_json(folder / "backbone.json", asdict(record))
    return record


def read_weights_record(backbone: str) -> WeightsRecord:
    """Read the record of a backbone and check its file; `UserError` if one of them is missing or damaged."""
    folder = WEIGHTS_FOLDER / backbone
    with reading(folder):
        record = WeightsRecord(**read_json(folder / "backbone.json"))
        if record.file and sha256_of(folder / record.file) != record.sha256:
            raise ValueError("checksum mismatch of the weights file")
        return record
