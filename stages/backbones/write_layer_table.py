"""Writes the table of layers, `layers.json`: `python -m stages.backbones.write_layer_table [architecture ...]`.

Without arguments it builds every architecture; with names it updates only these entries. See `layer_table`.
"""

import json
import sys
import textwrap
from collections.abc import Iterable

from stages.backbones.building import build_backbone
from stages.backbones.layer_description import describe_layers
from stages.backbones.layer_table import LAYERS_FILE, LayerTraits, format_layers
from stages.backbones.registry import ARCHITECTURES
from stages.core.files import write_json
from stages.core.wording import counted, did_you_mean

WHOLE_WORDS = {"break_long_words": False, "break_on_hyphens": False}
LINE_WIDTH = 112  # with quotes, comma and indentation of the JSON: 119


def main(names: list[str]) -> str:
    """Write the table; returns a summary. names: the architectures to update, all if empty."""
    if unknown := [name for name in names if name not in ARCHITECTURES]:
        suggestion = did_you_mean(unknown[0], ARCHITECTURES)
        raise SystemExit(f"write_layer_table: architecture {unknown[0]!r} does not exist{suggestion}.")
    table = json.loads(LAYERS_FILE.read_text(encoding="utf-8")) if names else {}
    table |= {
        name: textwrap.wrap(format_layers(layers), LINE_WIDTH, **WHOLE_WORDS)
        for name, layers in build_layer_table(names or ARCHITECTURES).items()
    }
    write_json(LAYERS_FILE, {name: table[name] for name in ARCHITECTURES if name in table})
    return f"{LAYERS_FILE.name}: {counted(len(table), 'architecture')}"


def build_layer_table(architectures: Iterable[str] = ARCHITECTURES) -> dict[str, dict[str, LayerTraits]]:
    """Build architectures; return the layers of each by name, lowest first."""
    table = {}
    for architecture in architectures:
        backbone = build_backbone(architecture, max(64, ARCHITECTURES[architecture].smallest_image))
        table[architecture] = describe_layers(backbone)
    return table


if __name__ == "__main__":
    print(main(sys.argv[1:]))
