"""The presets of KerasHub that a study can name, and what is known of them before they are fetched.

`python -m stages.backbones.write_preset_table` writes the table, `presets.json`.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from stages.backbones.layer_table import LayerTraits
from stages.backbones.presets import PRESET, patch_size

PRESETS_FILE = Path(__file__).with_name("presets.json")
# Class of KerasHub -> name of the family, and the license under which its authors publish the weights.
FAMILIES = {
    "ViTBackbone": ("ViT", "Apache 2.0"),
    "DeiTBackbone": ("DeiT", "Apache 2.0"),
    "DINOV2Backbone": ("DINOv2", "Apache 2.0"),
    "DINOV3Backbone": ("DINOv3", "DINOv3 License"),
    "SwinTransformerBackbone": ("Swin Transformer", "MIT"),
    "CLIPVisionEncoder": ("CLIP, image tower", "MIT"),
    "SigLIPVisionEncoder": ("SigLIP, image tower", "Apache 2.0"),
    "ResNetBackbone": ("ResNet", "Apache 2.0"),
    "CSPNetBackbone": ("CSPNet", "Apache 2.0"),
    "EfficientNetBackbone": ("EfficientNet", "Apache 2.0"),
    "MobileNetBackbone": ("MobileNet", "Apache 2.0"),
}


# Of the numbers of weights: that of KerasHub includes the classification layer of some, and is rounded for others.
SIMILAR = 0.3


@dataclass(frozen=True)
class KnownPreset:
    """A preset of KerasHub.

    handle: its address on Kaggle. class_name: of its image backbone in KerasHub. parameters: its weights. image_size:
    side in pixels of the images that it was trained on. smallest_image, multiple: limits of other sizes, in pixels.
    blocks: of a transformer, the number in each stage.
    """

    handle: str
    class_name: str
    parameters: int
    image_size: int
    smallest_image: int = 32
    multiple: int = 1
    blocks: tuple[int, ...] = ()

    def describes(self, preset: dict[str, Any], layers: dict[str, LayerTraits], parameters: int) -> bool:
        """Whether a converted preset can be this one. preset: see `WeightsRecord`. parameters: its weights."""
        expected = transformer_layers(self.class_name, self.blocks) if self.blocks else layers
        return (
            preset["class_name"] == self.class_name
            and list(layers) == list(expected)
            and patch_size(preset["config"]) == self.multiple
            and abs(parameters / self.parameters - 1) < SIMILAR
        )


@cache
def known_presets() -> dict[str, KnownPreset]:
    """All presets by name, as the architecture of a backbone."""
    table = json.loads(PRESETS_FILE.read_text(encoding="utf-8"))
    return {name: KnownPreset(*row[:6], *map(tuple, row[6:])) for name, row in table.items()}


def is_preset(architecture: str) -> bool:
    """Whether the architecture of a backbone is that of a preset of KerasHub."""
    return architecture == PRESET or architecture in known_presets()


def transformer_layers(class_name: str, blocks: tuple[int, ...]) -> dict[str, LayerTraits]:
    """The layers of a transformer, lowest first. blocks: the number in each stage."""
    names = ["embedding"]
    if class_name == "CLIPVisionEncoder":
        names.append("pre_normalization")
    if class_name == "SwinTransformerBackbone":
        names = ["embedding_projection", "embedding_tokens", "embedding_normalization", "embedding_dropout"]
    for stage, count in enumerate(blocks, start=1):
        prefix = f"stage{stage}_" if len(blocks) > 1 else ""
        names += [f"{prefix}block{number}" for number in range(1, count + 1)]
        names += [f"{prefix}merging"] if stage < len(blocks) else []
    # DINOv3 gives every block the positions of the patches, on a path of their own.
    separating = names[-1:] if class_name == "DINOV3Backbone" else names
    layers = {
        name: LayerTraits(name in separating, "image" if name == "embedding_projection" else "tokens") for name in names
    }
    layers["normalization"] = LayerTraits(True, "tokens")
    if class_name == "SigLIPVisionEncoder":
        layers["attention_pooling"] = LayerTraits(True, "vector")
    return layers
