"""Writes the table of KerasHub's presets, `presets.json`: `python -m stages.backbones.write_preset_table`.

KerasHub knows where its presets are and how many weights they have, but not their layers, which are in the presets
themselves. `SIZES` has what the papers say about them. See `known_presets`.
"""

import json
import re
from dataclasses import dataclass

from keras_hub.src.utils.preset_utils import BUILTIN_PRESETS_FOR_BACKBONE

from stages.backbones.known_presets import PRESETS_FILE
from stages.backbones.presets import CONVOLUTIONAL, TRANSFORMERS
from stages.core.files import atomic_file

# Presets whose address in KerasHub 0.32 is that of another preset, and one whose license is not that of its family.
LEFT_OUT = {
    *("efficientnet_el_ra_imagenet", "efficientnet_em_ra2_imagenet", "efficientnet_es_ra_imagenet"),
    "medsiglip_900m_448",
}
TOWERS = {"CLIPBackbone": "CLIPVisionEncoder", "SigLIPBackbone": "SigLIPVisionEncoder"}


@dataclass(frozen=True)
class TransformerSize:
    """A size of transformers. blocks: of each stage. width, hidden: units of a token and of its dense layers."""

    blocks: list[int]
    width: int
    hidden: int


BASE, LARGE, HUGE = (
    TransformerSize([12], 768, 3072),
    TransformerSize([24], 1024, 4096),
    TransformerSize([32], 1280, 5120),
)
# The first pattern that a name matches. Of transformers with several stages only the blocks are needed.
SIZES = {
    r"swin_tiny": TransformerSize([2, 2, 6, 2], 96, 0),
    r"swin_(small|base|large)": TransformerSize([2, 2, 18, 2], 96, 0),
    r"deit_tiny": TransformerSize([12], 192, 768),
    r"(deit|dinov2.*|dinov3_vit)_small": TransformerSize([12], 384, 1536),
    r"dinov2.*_giant": TransformerSize([40], 1536, 4096),
    r"dinov3_vit_7b": TransformerSize([40], 4096, 8192),
    r"clip_vit_g_14": TransformerSize([40], 1408, 6144),
    r"clip_vit_bigg_14": TransformerSize([48], 1664, 8192),
    r"siglip2?_so400m": TransformerSize([27], 1152, 4304),
    r"siglip2_giant": TransformerSize([40], 1536, 6144),
    r".*(_base|_b_)": BASE,
    r".*_large": LARGE,
    r".*(_huge|_h_)": HUGE,
}
# The side of the published images in pixels, where the name does not tell it; all others have 224.
IMAGE_SIDES = r"(224|240|256|336|384|448|512)"
IMAGE_SIZES = {
    r"dinov2": 518,
    r"csp|darknet": 256,
    r"efficientnet_b1": 240,
    r"efficientnet_b2": 256,
    r"efficientnet_b3": 288,
    r"efficientnet_b4": 320,
    r"efficientnet_b5_sw_ft": 448,
    r"efficientnet_b5": 416,
    r"efficientnet2_rw_m": 320,
    r"efficientnet2_rw_s": 288,
}


def main() -> str:
    """Write the table; returns a summary."""
    rows = {}
    for backbone, presets in BUILTIN_PRESETS_FOR_BACKBONE.items():
        class_name = TOWERS.get(backbone.__name__, backbone.__name__)
        if class_name not in TRANSFORMERS | CONVOLUTIONAL:
            continue
        for name, preset in presets.items():
            if name in LEFT_OUT:
                continue
            image_size = _image_size(name)
            patch = int(match[1]) if (match := re.search(r"(?:patch|vit_\w+?_)(\d\d?)(?:_|$)", name)) else 14
            size = next((size for pattern, size in SIZES.items() if re.match(pattern, name)), None)
            if class_name in CONVOLUTIONAL:
                shape = []
            elif class_name == "SwinTransformerBackbone":
                shape = [4 * 8 * int(re.search(r"window(\d+)", name)[1]), 4, size.blocks]
            else:
                patch = 16 if class_name == "DINOV3Backbone" else patch
                shape = [patch, patch, size.blocks]
            is_tower = class_name in TOWERS.values()
            parameters = _tower_parameters(class_name, size, image_size, patch) if is_tower else _parameters(preset)
            rows[name] = [preset["kaggle_handle"], class_name, parameters, image_size, *shape]
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    with atomic_file(PRESETS_FILE) as file:
        file.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    return f"{PRESETS_FILE.name}: {len(rows)} presets"


def _image_size(name: str) -> int:
    if match := re.search(rf"_r?{IMAGE_SIDES}(_|$)", name):
        return int(match[1])
    return next((size for pattern, size in IMAGE_SIZES.items() if re.match(pattern, name)), 224)


def _parameters(preset: dict) -> int:
    return preset["metadata"]["params"]


def _tower_parameters(class_name: str, size: TransformerSize, image_size: int, patch: int) -> int:
    """The weights of an image tower alone; KerasHub gives those of both towers."""
    width, hidden = size.width, size.hidden
    attention, dense, norm = 4 * width * (width + 1), 2 * width * hidden + width + hidden, 2 * width
    block = attention + dense + 2 * norm
    is_clip = class_name == "CLIPVisionEncoder"
    positions = (image_size // patch) ** 2 + is_clip
    embedding = 3 * patch**2 * width + width + positions * width  # a class token, or a bias
    head = norm if is_clip else width + attention + norm + dense  # a second normalization, or attention pooling
    return embedding + sum(size.blocks) * block + norm + head


if __name__ == "__main__":
    print(main())
