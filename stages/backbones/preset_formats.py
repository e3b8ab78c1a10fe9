"""The formats of presets: KerasHub's own, that of Hugging Face's transformers, and that of timm.

KerasHub converts some models of the other two. It ignores parts of their config.json, and would build a network that
computes something else: what it ignores is checked here, before weights are read.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stages.backbones.image_processors import square_side
from stages.core.errors import UserError

KERAS, TRANSFORMERS, TIMM = "keras", "transformers", "timm"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")  # of the last two, in one file or in several
# For each model_type of transformers, what config.json means where it leaves a key out.
_VIT = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 224, "patch_size": 16}
_VIT |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "hidden_act": "gelu", "qkv_bias": True}
_VIT |= {"intermediate_size": 3072, "layer_norm_eps": 1e-12}
_DINOV2 = {**_VIT, "patch_size": 14, "layer_norm_eps": 1e-6, "mlp_ratio": 4, "layerscale_value": 1.0}
_DINOV2 |= {"drop_path_rate": 0.0, "use_swiglu_ffn": False}
_DINOV3 = {**_VIT, "hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6, "layer_norm_eps": 1e-5}
_DINOV3 |= {"rope_theta": 100.0, "num_register_tokens": 0, "layerscale_value": 1.0, "use_gated_mlp": False}
_DINOV3 |= {"query_bias": True, "key_bias": False, "value_bias": True, "proj_bias": True, "mlp_bias": True}
_DINOV3 |= {"attention_dropout": 0.0, "drop_path_rate": 0.0}
_SWIN = {**_VIT, "patch_size": 4, "embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24]}
_SWIN |= {"window_size": 7, "mlp_ratio": 4.0, "drop_path_rate": 0.1, "use_absolute_embeddings": False}
_SWIN |= {"layer_norm_eps": 1e-5}
MODEL_TYPES = {
    "vit": _VIT,
    "deit": _VIT,
    "dinov2": _DINOV2,
    "dinov2_with_registers": {**_DINOV2, "patch_size": 16, "num_register_tokens": 4},
    "dinov3_vit": _DINOV3,
    "swin": _SWIN,
}
# What KerasHub computes whatever config.json says.
_FIXED = ("hidden_act", "qkv_bias")
FIXED = {
    "vit": _FIXED,
    "deit": _FIXED,
    "dinov2": (*_FIXED, "layer_norm_eps"),
    "dinov2_with_registers": (*_FIXED, "layer_norm_eps"),
    "dinov3_vit": (),
    "swin": ("hidden_act", "layer_norm_eps", "use_absolute_embeddings"),
}
# The architectures of timm whose features were equal to timm's after the conversion. KerasHub converts others too: of
# these, efficientnetv2_rw_t computes other values, and efficientnet_es is a network that it cannot build again.
ARCHITECTURES = (
    *("resnet18", "resnet26", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnetv2_50", "resnetv2_101", "resnetv2_152"),
    *("cspdarknet53", "cspresnet50", "cspresnext50", "darknet53"),
    *("efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4", "efficientnet_b5"),
    *("efficientnet_lite0", "mobilenetv3_small_050", "mobilenetv3_small_100", "mobilenetv3_large_100"),
)
OF_HEAD = ("num_classes", "global_pool")  # arguments of timm's models


def preset_format(folder: Path) -> tuple[str, dict[str, Any]]:
    """The format of a preset, and the content of its config.json. One that is unreadable is left to KerasHub."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError:
        return KERAS, {}
    if not isinstance(config, dict) or "registered_name" in config:
        return KERAS, {}
    if "model_type" in config:
        return TRANSFORMERS, config
    return (TIMM, config) if "architecture" in config else (KERAS, {})


def transformers_config(folder: Path, config: dict[str, Any], where: str) -> dict[str, Any]:
    """The complete configuration of a model of transformers that KerasHub converts to what it computes.

    config: the content of config.json. `UserError` if KerasHub converts no such model, or to another network.
    """
    kind = str(config["model_type"])
    if kind not in MODEL_TYPES:
        raise _not_convertible(where, "model_type", kind, MODEL_TYPES)
    config = {**MODEL_TYPES[kind], **{key: value for key, value in config.items() if value is not None}}
    problems = [
        f"{key} is {json.dumps(config[key])}, and KerasHub computes {json.dumps(MODEL_TYPES[kind][key])}"
        for key in FIXED[kind]
        if config[key] != MODEL_TYPES[kind][key]
    ]
    if config.get("num_channels", 3) != 3:
        problems.append(f"num_channels is {json.dumps(config['num_channels'])}, and images have 3")
    for key in ("image_size", "patch_size"):
        side = square_side(config[key])
        if side is None:
            problems.append(f"{key} {json.dumps(config[key])} is not the side of a square")
        config[key] = side
    _check(folder, problems, where)
    return config


def check_timm(folder: Path, config: dict[str, Any], where: str) -> None:
    """Refuse a model of timm that KerasHub does not convert to what it computes. config: that of config.json."""
    architecture = str(config["architecture"])
    if architecture not in ARCHITECTURES:
        raise _not_convertible(where, "architecture", architecture, ARCHITECTURES)
    arguments = config.get("model_args") or {}
    arguments = {
        key: value for key, value in arguments.items() if (key, value) != ("in_chans", 3) and key not in OF_HEAD
    }
    _check(folder, [f"KerasHub ignores model_args {json.dumps(arguments)}"] if arguments else [], where)


def _check(folder: Path, problems: list[str], where: str) -> None:
    if problems:
        raise UserError(f"{where}: config.json cannot be used ({'; '.join(problems)}). Give another preset.")
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise UserError(
            f"{where}: the preset has no {WEIGHTS[0]}, and weights of other formats, such as pytorch_model.bin, cannot "
            "be read. Save the model again with save_pretrained, or give another preset."
        )


def _not_convertible(where: str, key: str, value: str, possible: Iterable[str]) -> UserError:
    return UserError(
        f"{where}: config.json has {key} {value!r}, which cannot be converted here. "
        f"Give a preset that KerasHub saved, or a model with one of {key}: {', '.join(possible)}."
    )
