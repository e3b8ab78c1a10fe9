"""What is known of the presets of KerasHub by their class, without building them."""

from typing import Any

# As the architecture: that of the preset at the place that `weights` gives. As the weights: those of the architecture.
PRESET = "preset"
PLACES = ("kaggle://", "hf://")  # of presets, but folders
POSITIONS = "positions"  # the layer by which DINOv3 computes the positions of patches; a study cannot name it

TRANSFORMERS = frozenset(
    {
        "ViTBackbone",
        "DeiTBackbone",
        "DINOV2Backbone",
        "DINOV3Backbone",
        "SwinTransformerBackbone",
        "CLIPVisionEncoder",
        "SigLIPVisionEncoder",
    }
)
CONVOLUTIONAL = frozenset({"ResNetBackbone", "CSPNetBackbone", "EfficientNetBackbone", "MobileNetBackbone"})
# How many tokens of the class come before those of the patches; of DINOv2 and DINOv3, registers follow.
CLASS_TOKENS = {
    "ViTBackbone": 1,
    "DeiTBackbone": 2,  # that of the class, and that of distillation
    "DINOV2Backbone": 1,
    "DINOV3Backbone": 1,
    "CLIPVisionEncoder": 1,
}
# Transformers with an embedding of each position, which belongs to one image size.
LEARNED_POSITIONS = frozenset(
    {"ViTBackbone", "DeiTBackbone", "DINOV2Backbone", "CLIPVisionEncoder", "SigLIPVisionEncoder"}
)


def patch_size(config: dict[str, Any]) -> int:
    """The side in pixels of the patches of a transformer; 1 for other backbones. config: of its class."""
    patch = config.get("patch_size", 1)
    return patch if isinstance(patch, int) else patch[0]


def image_size_problem(preset: dict[str, Any], image_size: int) -> str | None:
    """Why the backbone of a preset does not take images of this size, and which it takes; None if it does.

    preset: see `WeightsRecord`.
    """
    config, patch = preset["config"], patch_size(preset["config"])
    if image_size % patch and image_size != preset["image_size"]:
        sizes = possible_sizes(patch, preset["image_size"])
        return f"its patches have {patch} pixels a side. Give the dataset as image_size {sizes}."
    if preset["class_name"] == "SwinTransformerBackbone":
        smallest = patch * config["window_size"] * 2 ** (len(config["depths"]) - 1)
        if image_size < smallest:
            return f"its windows need images of at least {smallest} pixels. Increase image_size of the dataset."
    return None


def possible_sizes(patch: int, published: int) -> str:
    """The image sizes that a transformer takes, in words. published: that on which it was trained, which need not be a
    multiple of the patch: the rest of such an image is cut off."""
    if published % patch:
        return f"{published}, on which it was trained, or a multiple of {patch}"
    return f"a multiple of {patch}; it was trained on {published}"
