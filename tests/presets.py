"""Small presets of KerasHub with random weights, one of each family, as KerasHub saves them."""

from pathlib import Path

import keras
import keras_hub

models, converters = keras_hub.models, keras_hub.layers
SIZE, PATCH, BLOCKS = 32, 8, 3
TOKENS = {"num_layers": BLOCKS, "num_heads": 2, "hidden_dim": 16}
SHAPE = {"image_shape": (SIZE, SIZE, 3), "patch_size": PATCH}
TEXT = {
    "vocabulary_size": 20,
    "embedding_dim": 16,
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 32,
    "max_sequence_length": 8,
}
SCALE, OFFSET = [1 / 58.4, 1 / 57.1, 1 / 57.4], [-2.1, -2.0, -1.8]


def _clip():
    tower = models.CLIPVisionEncoder(**TOKENS, **SHAPE, intermediate_dim=32, name="tower")
    # Zeros are its initial numbers of the positions.
    tower.embedding.position_ids.assign([list(range((SIZE // PATCH) ** 2 + 1))])
    return models.CLIPBackbone(tower, models.CLIPTextEncoder(**TEXT, name="text"), projection_dim=8)


def _siglip():
    tower = models.SigLIPVisionEncoder(**TOKENS, **SHAPE, intermediate_dim=32, name="tower")
    return models.SigLIPBackbone(tower, models.SigLIPTextEncoder(**TEXT, name="text"))


TRANSFORMERS = {
    "vit": lambda: models.ViTBackbone(**TOKENS, **SHAPE, mlp_dim=32),
    "vit_without_class_token": lambda: models.ViTBackbone(**TOKENS, **SHAPE, mlp_dim=32, use_class_token=False),
    "deit": lambda: models.DeiTBackbone(**TOKENS, **SHAPE, intermediate_dim=32),
    "dinov2": lambda: models.DINOV2Backbone(
        **TOKENS, **SHAPE, intermediate_dim=32, position_embedding_shape=(48, 48, 3), drop_path_rate=0.1
    ),
    "dinov2_with_registers": lambda: models.DINOV2Backbone(
        **TOKENS, **SHAPE, intermediate_dim=32, position_embedding_shape=(48, 48, 3), num_register_tokens=2
    ),
    "dinov3": lambda: models.DINOV3Backbone(**TOKENS, **SHAPE, intermediate_dim=32, num_register_tokens=2),
    "swin": lambda: models.SwinTransformerBackbone(
        image_shape=(SIZE, SIZE, 3), embed_dim=8, depths=(2, 2), num_heads=(2, 2), window_size=4, patch_size=2
    ),
    "clip": _clip,
    "siglip": _siglip,
}
CONVOLUTIONAL = {
    "resnet": lambda: models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 16],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        use_pre_activation=False,
    ),
    "cspnet": lambda: models.CSPNetBackbone(
        stem_filters=8,
        stem_kernel_size=3,
        stem_strides=1,
        stackwise_depth=[1, 1],
        stackwise_strides=[2, 2],
        stackwise_num_filters=[8, 16],
        block_type="bottleneck_block",
        stage_type="csp",
        groups=2,
        bottle_ratio=[0.5],
        block_ratio=[1.0],
        expand_ratio=[2.0],
    ),
    "mobilenet": lambda: models.MobileNetBackbone(
        stackwise_expansion=[[8, 8], [16, 16]],
        stackwise_num_blocks=[2, 2],
        stackwise_num_filters=[[8, 8], [16, 16]],
        stackwise_kernel_size=[[3, 3], [3, 3]],
        stackwise_num_strides=[[2, 1], [2, 1]],
        stackwise_se_ratio=[[None, None], [0.25, 0.25]],
        stackwise_activation=[["relu", "relu"], ["hard_swish", "hard_swish"]],
        stackwise_padding=[[1, 1], [1, 1]],
        output_num_filters=32,
        input_num_filters=8,
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        squeeze_and_excite=0.25,
        last_layer_filter=32,
    ),
    "efficientnet": lambda: models.EfficientNetBackbone(
        stackwise_kernel_sizes=[3, 3],
        stackwise_num_repeats=[1, 2],
        stackwise_input_filters=[8, 8],
        stackwise_output_filters=[8, 16],
        stackwise_expansion_ratios=[1, 4],
        stackwise_squeeze_and_excite_ratios=[0.0, 0.25],
        stackwise_strides=[1, 2],
        stackwise_block_types=["fused", "unfused"],
        width_coefficient=1.0,
        depth_coefficient=1.0,
    ),
}
CONVERTERS = {
    "vit": converters.ViTImageConverter,
    "vit_without_class_token": converters.ViTImageConverter,
    "deit": converters.DeiTImageConverter,
    "dinov2": converters.DINOV2ImageConverter,
    "dinov2_with_registers": converters.DINOV2ImageConverter,
    "dinov3": converters.DINOV3ImageConverter,
    "swin": converters.SwinTransformerImageConverter,
    "clip": converters.CLIPImageConverter,
    "siglip": converters.SigLIPImageConverter,
    "resnet": converters.ResNetImageConverter,
    "cspnet": converters.CSPNetImageConverter,
    "mobilenet": converters.MobileNetImageConverter,
    "efficientnet": converters.EfficientNetImageConverter,
}


def save_preset(family: str, folder: Path) -> keras.Model:
    """Write a preset to a folder; returns its backbone, of CLIP and SigLIP the image tower."""
    keras.utils.set_random_seed(1)
    backbone = (TRANSFORMERS | CONVOLUTIONAL)[family]()
    backbone.save_to_preset(str(folder))
    converter = CONVERTERS[family](image_size=(SIZE, SIZE), scale=SCALE, offset=OFFSET)
    converter.save_to_preset(str(folder))
    return getattr(backbone, "vision_encoder", backbone)
