"""Converts a preset, text and other towers left out, to a backbone with weights of its own."""

import json
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np
from keras_hub.src.utils.transformers.preset_loader import TransformersPresetLoader
from keras_hub.src.utils.transformers.safetensor_utils import SafetensorLoader

from stages.backbones.building import build_backbone
from stages.backbones.image_processors import timm_pixels, transformers_pixels
from stages.backbones.known_presets import FAMILIES
from stages.backbones.layer_description import describe_layers
from stages.backbones.layer_table import format_layers
from stages.backbones.preset_formats import TIMM, TRANSFORMERS, check_timm, preset_format, transformers_config
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
    backbone, pixels = _read(folder, where)
    class_name = type(backbone).__name__
    config = {key: value for key, value in backbone.get_config().items() if key not in NOT_KEPT}
    config = json.loads(json.dumps(config))
    height, width, channels = config.get("image_shape") or (None, None, 3)
    if height != width or channels != 3:
        raise UserError(
            f"{where}: the preset is for images of {height} x {width} pixels with {counted(channels, 'channel')}. Give "
            "one for square color images."
        )
    preset = {"class_name": class_name, "config": config, **(pixels or _keras_pixels(folder, where))}
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


class _Tensors(SafetensorLoader):
    """Reads the weights of a model of transformers: also those of one without a head, whose names lack its prefix."""

    def get_prefixed_key(self, hf_weight_key: str, dict_like: Any) -> str:
        """The name in the file of a weight that KerasHub names as in a model with a head, such as `vit.layernorm`."""
        bare, names = hf_weight_key.partition(".")[2], set(dict_like.keys())
        if bare in names and hf_weight_key not in names:
            return bare
        return super().get_prefixed_key(hf_weight_key, dict_like)


def _read(folder: Path, where: str) -> tuple[keras.Model, dict[str, Any] | None]:
    """The backbone of a preset, and how it scales pixels as in `_keras_pixels`; None if KerasHub saved it."""
    file_format, config = preset_format(folder)
    if file_format == TRANSFORMERS:
        config = transformers_config(folder, config, where)
        pixels = transformers_pixels(folder, where)
        return _image_backbone(lambda: _from_transformers(folder, config), where), pixels
    pixels = None
    if file_format == TIMM:
        check_timm(folder, config, where)
        pixels = timm_pixels(config, where)
    return _image_backbone(lambda: keras_hub.models.Backbone.from_preset(str(folder), dtype="float32"), where), pixels


def _from_transformers(folder: Path, config: dict[str, Any]) -> keras.Model:
    """As `Backbone.from_preset`. config: see `transformers_config`."""
    loader = TransformersPresetLoader(str(folder), config)
    # That of ViT is not taken from the configuration.
    options = {"layer_norm_epsilon": config["layer_norm_eps"]} if config["model_type"] == "vit" else {}
    backbone = loader.load_backbone(loader.check_backbone_class(), load_weights=False, dtype="float32", **options)
    with _Tensors(str(folder)) as tensors:
        loader.converter.convert_weights(backbone, tensors, config)
    return backbone


def _image_backbone(load: Callable[[], keras.Model], where: str) -> keras.Model:
    """The backbone that `load` reads; of one for images and text, the tower for images."""
    try:
        with redirect_stdout(None):  # the converter of MobileNet prints each weight
            backbone = load()
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


def _keras_pixels(folder: Path, where: str) -> dict[str, Any]:
    """How the preset scales pixels, and the size of its images in pixels, None if it does not say."""
    try:
        converter = keras_hub.layers.ImageConverter.from_preset(str(folder))
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
    pixels = np.random.default_rng(0).integers(0, 256, (1, *model.input.shape[1:])).astype(np.uint8)
    expected = model.predict_on_batch(pixels)
    try:
        rebuilt = build_backbone(model.name, preset["image_size"], preset)
        load_weights(rebuilt, file, where)
        output = rebuilt.predict_on_batch(pixels)
    except (TypeError, ValueError, UserError):  # KerasHub leaves parts out of some descriptions
        output = np.nan
    if not np.allclose(output, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()):
        raise UserError(f"{where}: the network built from its description computes other values. Give another preset.")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
