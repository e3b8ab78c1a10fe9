"""Converts a preset of KerasHub, text and other towers left out, to a backbone with weights of its own."""

import json
from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np

from stages.backbones.building import build_backbone
from stages.backbones.known_presets import FAMILIES
from stages.backbones.layer_description import describe_layers
from stages.backbones.layer_table import format_layers
from stages.backbones.preset_models import flat_model, prefix_tokens
from stages.backbones.presets import CLASS_TOKENS
from stages.backbones.pretrained import load_weights, save_weights
from stages.core.errors import UserError
from stages.core.wording import counted

DEFAULT_SIZE = 224  # pixels; for architectures that take any, if the preset does not say
NOT_KEPT = ("name", "trainable", "dtype", "data_format")  # of a configuration; the study decides them


def convert_preset(folder: Path, file: Path, architecture: str, where: str) -> tuple[dict[str, Any], int]:
    """Write the weights of the image backbone of a preset to `file`.

    Returns its description as in `WeightsRecord`, and its number of weights. where: the setting, for messages.
    `UserError` if the folder has no preset of an image backbone that this project can cut, or no rule for its pixels.
    """
    keras.utils.clear_session(free_memory=False)  # Keras writes the numbers of layers into the file
    backbone = _image_backbone(folder, where)
    class_name = type(backbone).__name__
    config = {key: value for key, value in backbone.get_config().items() if key not in NOT_KEPT}
    config = json.loads(json.dumps(config))
    height, width, channels = config.get("image_shape") or (None, None, 3)
    if height != width or channels != 3:
        raise UserError(
            f"{where}: the preset is for images of {height} x {width} pixels with {counted(channels, 'channel')}. Give "
            "one for square color images."
        )
    preset = {"class_name": class_name, "config": config, **_pixels(folder, where)}
    preset |= {
        "image_size": height or preset["image_size"] or DEFAULT_SIZE,
        "class_token": class_name in CLASS_TOKENS and config.get("use_class_token", True),
        "prefix_tokens": prefix_tokens(class_name, config),
    }
    model = flat_model(backbone, preset, preset["image_size"], architecture)
    preset["layers"] = format_layers(describe_layers(model))
    save_weights(model, file)
    _check_rebuilt(model, preset, file, where)
    return preset, model.count_params()


def _image_backbone(folder: Path, where: str) -> keras.Model:
    """The backbone of a preset; of one for images and text, the tower for images."""
    try:
        backbone = keras_hub.models.Backbone.from_preset(str(folder), dtype="float32")
    except Exception as error:  # KerasHub reads several formats, and raises many types of errors
        raise UserError(
            f"{where}: KerasHub cannot read the preset ({_first_line(error)}). Give a preset of an image backbone."
        ) from None
    backbone = getattr(backbone, "vision_encoder", backbone)
    if type(backbone).__name__ not in FAMILIES:
        raise UserError(
            f"{where}: the preset has a {type(backbone).__name__}, which cannot be a backbone here. Possible: "
            f"{', '.join(family for family, _ in FAMILIES.values())}."
        )
    return backbone


def _pixels(folder: Path, where: str) -> dict[str, Any]:
    """How the preset scales pixels, and the size of its images in pixels, None if it does not say."""
    try:
        converter = keras_hub.layers.ImageConverter.from_preset(str(folder))
        if converter is None:  # of most models in the format of Hugging Face's transformers
            raise ValueError("KerasHub has no image converter for its format")
    except Exception as error:  # as above
        raise UserError(
            f"{where}: the preset does not say how pixels are scaled ({_first_line(error)}). Save its image converter "
            "too: converter.save_to_preset(folder)."
        ) from None
    scale = np.broadcast_to(1.0 if converter.scale is None else converter.scale, 3)
    offset = np.broadcast_to(0.0 if converter.offset is None else converter.offset, 3)
    size = converter.image_size
    return {"scale": scale.tolist(), "offset": offset.tolist(), "image_size": size[0] if size else None}


def _check_rebuilt(model: keras.Model, preset: dict[str, Any], file: Path, where: str) -> None:
    """Refuse a preset whose description does not lead to the same network."""
    rebuilt = build_backbone(model.name, preset["image_size"], preset)
    load_weights(rebuilt, file, where)
    pixels = np.random.default_rng(0).integers(0, 256, (1, *model.input.shape[1:])).astype(np.uint8)
    outputs = [network.predict_on_batch(pixels) for network in (model, rebuilt)]
    if not np.allclose(*outputs, rtol=1e-4, atol=1e-4 * np.abs(outputs[0]).max()):
        raise UserError(f"{where}: the network built from its description computes other values. Give another preset.")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
