"""Builds the image backbones of KerasHub's presets as flat models, layer by layer, so that a study can cut them.

A transformer of KerasHub is a few large layers. Here its embedding, its blocks and its final normalization are called
one after the other, which computes exactly what KerasHub's model computes.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras
import keras_hub
import numpy as np
from keras import layers

from stages.backbones.building import inner_layers, renumbered
from stages.backbones.presets import CLASS_TOKENS, POSITIONS, TRANSFORMERS

Step = tuple[str, Callable[[keras.KerasTensor], keras.KerasTensor]]  # the name of a layer, and its call


def build_preset(preset: dict[str, Any], image_size: int, name: str) -> keras.Model:
    """Build the backbone of a preset with random weights; see `build_backbone`.

    preset: as in `WeightsRecord`. The architecture must take images of this size, see `image_size_problem`.
    """
    return flat_model(new_backbone(preset["class_name"], preset["config"], image_size), preset, image_size, name)


def new_backbone(class_name: str, config: dict[str, Any], image_size: int) -> keras.Model:
    """A backbone of KerasHub with random weights, for images (image_size, image_size, 3)."""
    if "position_embedding_shape" in config and config["image_shape"][0] != image_size:
        # Of DINOv2. `copy_interpolated` then fills them, and they stay as they are when the model is saved.
        config = {**config, "position_embedding_shape": (image_size, image_size)}
    if "image_shape" in config:
        config = {**config, "image_shape": (image_size, image_size, 3)}
    return getattr(keras_hub.models, class_name)(**config)


def flat_model(backbone: keras.Model, preset: dict[str, Any], image_size: int, name: str) -> keras.Model:
    """The flat model of a backbone of KerasHub, whose layers and weights it shares and renames."""
    for layer in backbone.layers:
        layer._inbound_nodes.clear()  # so that its output is that in the flat model
    images = keras.Input((image_size, image_size, 3), dtype="uint8", name="images")
    # As KerasHub's image converter: multiplied, then added.
    pixels = layers.Rescaling(preset["scale"], preset["offset"], dtype="float32", name="preprocessing")(images)
    if preset["class_name"] not in TRANSFORMERS:
        x = backbone.call(pixels)  # of its layers, where backbone(pixels) would be one layer
    else:
        x = pixels
        for layer_name, call in _steps(backbone, preset, pixels):
            x = call(x)
            x._keras_history.operation.name = layer_name
    model = keras.Model(images, x, name=name)
    names = renumbered(model)
    for layer in model.layers:
        layer.name = names.get(layer.name, layer.name)
        _make_serializable(layer)
        for part in inner_layers(layer):
            # That of DINOv2 and DINOv3 in KerasHub fails in training. All published presets have rate 0.
            if type(part).__name__ in ("DINOV2DropPath", "DINOV3DropPath"):
                part.rate = 0.0
    return model


def prefix_tokens(class_name: str, config: dict[str, Any]) -> int:
    """The tokens of a transformer before those of its patches: of the class, and registers."""
    if not config.get("use_class_token", True):
        return 0
    return CLASS_TOKENS.get(class_name, 0) + config.get("num_register_tokens", 0)


def _steps(backbone: keras.Model, preset: dict[str, Any], pixels: keras.KerasTensor) -> Iterator[Step]:
    """The layers of a transformer in the order of their calls."""
    class_name = preset["class_name"]
    if class_name == "SwinTransformerBackbone":
        yield from _swin_steps(backbone)
    elif class_name in ("ViTBackbone", "DeiTBackbone"):
        family = class_name.removesuffix("Backbone").lower()
        embedding, encoder = (
            backbone.get_layer(f"{family}_patching_and_embedding"),
            backbone.get_layer(f"{family}_encoder"),
        )
        if class_name == "ViTBackbone":
            # As an array, because the converter to ONNX would take a tensor for a second input of the model.
            embedding.position_ids = np.asarray(embedding.position_ids)
        else:
            for block in encoder.encoder_layers:
                block.call = _first_output(block.call)
        yield "embedding", embedding
        yield from _blocks(encoder.encoder_layers)
        yield "normalization", encoder.layer_norm
    elif class_name == "DINOV2Backbone":
        yield "embedding", backbone.embeddings
        yield from _blocks(backbone.encoder.layers)
        yield "normalization", backbone.layernorm
    elif class_name == "DINOV3Backbone":
        rotation = backbone.rope_embedding
        rotation.inv_freq = np.asarray(rotation.inv_freq)  # as for ViT
        positions = rotation(pixels)
        rotation.name = POSITIONS
        options = {"position_embeddings": positions, "num_prefix_tokens": 1 + backbone.num_register_tokens}
        yield "embedding", backbone.embeddings
        for name, block in _blocks(backbone.encoder.layers):
            yield name, lambda x, block=block: block(x, **options)
        yield "normalization", backbone.layernorm
    else:  # CLIP and SigLIP
        if class_name == "SigLIPVisionEncoder":  # KerasHub says one token more than there are
            _give_shape(backbone.embedding, (backbone.embedding.num_positions, backbone.hidden_dim))
        yield "embedding", backbone.embedding
        if class_name == "CLIPVisionEncoder":
            yield "pre_normalization", backbone.pre_layer_norm
        yield from _blocks(backbone.encoder_layers)
        yield "normalization", backbone.layer_norm if class_name == "CLIPVisionEncoder" else backbone.post_layer_norm
        if class_name == "SigLIPVisionEncoder":
            yield "attention_pooling", backbone.head


def _blocks(blocks: list[layers.Layer], prefix: str = "") -> Iterator[Step]:
    for number, block in enumerate(blocks, start=1):
        yield f"{prefix}block{number}", block


def _swin_steps(backbone: keras.Model) -> Iterator[Step]:
    embedding = backbone.patch_embedding
    yield "embedding_projection", embedding.proj
    yield "embedding_tokens", layers.Reshape((-1, embedding.embed_dim))
    if embedding.norm:
        yield "embedding_normalization", embedding.norm
    yield "embedding_dropout", backbone.get_layer("pos_drop")
    for number, stage in enumerate(backbone.stages, start=1):
        for block in stage.blocks:
            block.attn.relative_position_index = np.asarray(block.attn.relative_position_index)  # as for ViT
        yield from _blocks(stage.blocks, f"stage{number}_")
        if stage.downsample:
            height, width = stage.input_resolution
            # KerasHub leaves the number of tokens open.
            _give_shape(stage.downsample, (-(-height // 2) * -(-width // 2), 2 * stage.dim))
            yield f"stage{number}_merging", lambda x, stage=stage, h=height, w=width: stage.downsample(x, H=h, W=w)
    yield "normalization", backbone.norm


def _first_output(call: Callable[..., Any]) -> Callable[..., Any]:
    """The call of a block of DeiT without its second output, None: Keras has no graph with it."""

    def call_block(*args: Any, **kwargs: Any) -> Any:
        output, scores = call(*args, **kwargs)
        return output if scores is None else (output, scores)

    return call_block


def _give_shape(layer: layers.Layer, shape: tuple[int, ...]) -> None:
    """Let the output of a layer have a known shape per image."""
    layer.compute_output_shape = lambda *args, **kwargs: (None, *shape)


def _make_serializable(layer: layers.Layer) -> None:
    """Let the configuration of a layer have exactly the arguments of its class.

    Some layers of KerasHub, which are not meant to be saved by themselves, have more or fewer.
    """
    if not type(layer).__module__.startswith("keras_hub"):
        return
    arguments = inspect.signature(type(layer).__init__).parameters.keys() - {"self", "kwargs"}
    config = {**layers.Layer.get_config(layer), **layer.get_config()}
    known = {key: value for key, value in config.items() if key in arguments | layers.Layer.get_config(layer).keys()}
    missing = {key: getattr(layer, key, None) for key in arguments - known.keys()}
    missing = {
        key: value for key, value in missing.items() if isinstance(value, bool | int | float | str | tuple | list)
    }
    layer.get_config = lambda: {**known, **missing}
