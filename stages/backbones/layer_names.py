"""Resolves the names and numbers by which a study selects layers, without building a network."""

import re
from collections.abc import Iterable
from typing import Literal

from stages.backbones.layer_table import LayerTraits
from stages.core.errors import UserError
from stages.core.wording import counted, did_you_mean, listing

MAX_LISTED_LAYERS = 40  # an architecture with this many layers or more lists its blocks instead
# pool4 is block4_pool and conv4_2 is block4_conv2 in VGG: the names of Simonyan & Zisserman 2015 and Long et al. 2015.
NAMES_IN_LITERATURE = [(r"pool(\d)", r"block\1_pool"), (r"conv(\d)_(\d)", r"block\1_conv\2")]


Layers = dict[str, LayerTraits]  # of a backbone, see `layers_of`


def missing_layer(where: str, layer: str | int, architecture: str, names: list[str], note: str = "") -> str:
    """The message about a layer that does not exist, or a number of layers that is too large.

    names: the layers that exist. note: what limits them, such as ` up to the cut 'flatten'`.
    """
    what = f"has no layer {layer!r}" if isinstance(layer, str) else f"has fewer than {counted(layer, 'layer')}"
    return f"{where}: {architecture} {what}{note}{did_you_mean(layer, names)}. Layers: {listing(names)}."


def same_layer(where: str, first: str, second: str, layer: str) -> str:
    """The message about two names of one layer."""
    return f"{where}: {first!r} and {second!r} are the same layer, {layer}. Leave one of them out."


def bypassed_cut(where: str, features: str, cut: str, layers: Layers, architecture: str) -> str | None:
    """The message about a cut above which the backbone's own layers cannot run, None if they can. where: the head."""
    if layers[cut].separates:
        return None
    separating = [layer for layer, traits in layers.items() if traits.separates]
    return (
        f"{where}.start_from: backbone is not valid, because other paths bypass the cut {cut!r} of "
        f"features.{features}. Use start_from: random, or one of these cuts of {architecture}: {listing(separating)}."
    )


def unusable_features(where: str, lowest: str, features: str, found: str, possible: Iterable[str] = ()) -> str:
    """The message about features from which training cannot start: their cost would be for nothing.

    where: the setting. lowest: the lowest layer that is trained. found: cuts and pooling of the features. possible:
    cuts from which training can start.
    """
    possible = list(possible)
    alternative = f"features with pooling: none and one of the cuts {listing(possible)}, or " if possible else ""
    return (
        f"{where}: training from {lowest!r} upward cannot start from {features!r} ({found}). Give {alternative}the "
        "features of the head, to start from the images."
    )


def cut_layer(layers: Layers, name: str, where: str, architecture: str) -> str:
    """The cut layer of this name, `UserError` if it does not exist.

    The check of the study knows the layers of most backbones, but not of presets that are not fetched yet.
    """
    layer = find_layer(layers, name, "highest")
    if layer is None:
        raise UserError(missing_layer(where, name, architecture, selectable_layers(layers)))
    return layer


def find_layer(layers: Layers, name: str, end: Literal["lowest", "highest"]) -> str | None:
    """Return the layer that a study calls `name`, or None if the backbone does not have it.

    name: a layer, `top` for the last layer, a short name of the literature, or a block. A block is a prefix that layer
    names share before an underscore: block4, block_14, conv5_block1.
    end: which layer of a block is meant.
    """
    names = list(layers)
    if name in names:
        return name
    if name == "top":
        return names[-1]
    for pattern, template in NAMES_IN_LITERATURE:
        if (layer := re.sub(f"^{pattern}$", template, name)) in names:
            return layer
    block = [layer for layer in names if layer.startswith(f"{name}_")]
    return (block[0] if end == "lowest" else block[-1]) if block else None


def selectable_layers(layers: Layers) -> list[str]:
    """The names to suggest after a wrong one: all layers, or the blocks and `top` of a deep architecture."""
    names = list(layers)
    if len(names) < MAX_LISTED_LAYERS:
        return names
    matches = (re.match(r"(.*?block_?\d+[a-z]?|stage\d*|[a-z]+\d*)_", layer) for layer in names)
    return [*dict.fromkeys(match[1] for match in matches if match), names[-1], "top"]


def lowest_trained_layer(layers: Layers, trainable: str | int, cut: str | None = None) -> str | None:
    """Return the lowest layer that a study trains, or None if it does not exist.

    trainable: `all`, a layer or block from which training reaches upward, or a number of upper layers.
    cut: the highest layer that the model uses; None for the last layer of the backbone.
    """
    names = list(layers)
    names = names[: names.index(cut) + 1] if cut else names
    if trainable == "all":
        return names[0]
    if isinstance(trainable, int):
        return names[-trainable] if trainable <= len(names) else None
    layer = find_layer(layers, trainable, "lowest")
    return layer if layer in names else None


def untrainable(
    where: str, trainable: str | int, layers: Layers, cut: str, architecture: str, others: Iterable[str] = ()
) -> str:
    """The message about layers to train that a model does not have. cut: its highest. others: values beside layers."""
    names, note = selectable_layers(layers), ""
    if cut != list(layers)[-1]:
        names, note = list(layers)[: list(layers).index(cut) + 1], f" up to the cut {cut!r}"
    return missing_layer(where, trainable, architecture, [*others, *names], note)


def first_trained_layer(layers: Layers, trainable: str | int, cut: str, where: str, architecture: str) -> str:
    """As `lowest_trained_layer`, but `UserError` if it does not exist; see `cut_layer`."""
    layer = lowest_trained_layer(layers, trainable, cut)
    if layer is None:
        raise UserError(untrainable(where, trainable, layers, cut, architecture))
    return layer


def starting_cuts(layers: Layers, lowest: str) -> list[str]:
    """The cuts from whose features training of a layer and those above it can start."""
    names = list(layers)
    return [name for name in names[: names.index(lowest)] if layers[name].separates]


def starting_cut(layers: Layers, cuts: Iterable[str], pooling: str, lowest: str) -> str | None:
    """Return the highest cut from whose cached features a fine-tune can start, or None if it must start from images.

    Training can start at a cut below the trained layers through which all paths pass, if the features are not pooled.

    cuts, pooling: of the features. lowest: the lowest trained layer.
    """
    names = list(layers)
    usable = [cut for cut in cuts if layers[cut].separates and names.index(cut) < names.index(lowest)]
    return max(usable, key=names.index, default=None) if pooling == "none" else None
