"""Backbones with the weights of data/weights/<backbone>."""

from pathlib import Path

import keras

from stages.data.weights import FOLDER, BackboneWeights, read_weights_record
from stages.errors import UserError
from stages.networks.backbones import build_backbone


def load_backbone(name: str, image_size: int) -> tuple[keras.Model, BackboneWeights]:
    """Build the backbone of an entry for images of `image_size` pixels a side and give it its weights.

    Random weights are drawn from the current seed. `UserError` when the weights do not fit the architecture.
    """
    record = read_weights_record(name)
    backbone = build_backbone(record.architecture, image_size)
    if record.file:
        load_weights(backbone, FOLDER / name / record.file, f"backbones.{name}.weights")
    return backbone, record


def load_weights(model: keras.Model, file: Path, what: str) -> None:
    """Load a weights file that must fit the model in every layer; `UserError` that begins with `what` when not."""
    try:
        model.load_weights(file)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{what}: {file.name} does not fit {model.name} ({reason}); give weights of it.") from None
