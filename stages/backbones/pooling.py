"""How the activations of a layer can be pooled, by their shape."""

from typing import Any

from stages.backbones.layer_table import LayerTraits
from stages.core.errors import UserError

CLASS_TOKEN, BOTH = "class_token", "class_token_and_average"
BY_SHAPE = {
    "image": ("none", "average", "max"),
    "tokens": ("none", "average", "max", CLASS_TOKEN, BOTH),
    "vector": ("none",),
}


def possible_poolings(traits: LayerTraits, has_class_token: bool) -> list[str]:
    """The poolings of a layer. has_class_token: whether the tokens of the backbone start with that of the class."""
    return [name for name in BY_SHAPE[traits.shape] if has_class_token or name not in (CLASS_TOKEN, BOTH)]


def pooling_problem(where: str, pooling: str, cut: str, traits: LayerTraits, has_class_token: bool) -> str | None:
    """A sentence if the activations at a cut cannot be pooled in this way. where: the setting."""
    possible = possible_poolings(traits, has_class_token)
    if pooling in possible:
        return None
    what = {"image": "an image", "tokens": "tokens without one of the class", "vector": "a vector"}[traits.shape]
    return f"{where}: {pooling} is not possible at {cut}, whose activations are {what}. Give {', '.join(possible)}."


def check_pooling(where: str, pooling: str, cut: str, traits: LayerTraits, preset: dict[str, Any] | None) -> None:
    """Raise a `UserError` with the sentence of `pooling_problem`, if there is one. preset: see `WeightsRecord`."""
    if problem := pooling_problem(where, pooling, cut, traits, has_class_token(preset)):
        raise UserError(problem)


def has_class_token(preset: dict[str, Any] | None) -> bool:
    """Whether the tokens of a backbone start with that of the class. preset: see `WeightsRecord`."""
    return bool(preset and preset["class_token"])


def prefix_tokens(preset: dict[str, Any] | None) -> int:
    """How many tokens of a backbone come before those of the patches. preset: see `WeightsRecord`."""
    return preset["prefix_tokens"] if preset else 0
