"""The values that each key of an entry accepts, in words: from the constraints of its type, or from a table."""

from collections.abc import Iterable
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel

from stages.config.augmentation import AugmentationConfig
from stages.config.features import FeaturesConfig
from stages.config.fine_tunes import FineTuneConfig
from stages.config.probes import ProbeConfig

CLASSES = "a list of class numbers or names, such as [0, 1] or [cat, dog]"
HELD_OUT = (
    "a share of each class above 0 and below 1, a number of images per class from 2 up, published, or a text such as "
    "'published or 0.2'"
)
AUGMENTATION = f"keys and values ({', '.join(AugmentationConfig.model_fields)}), such as {{rotation: 15}}"
# Keys whose type does not tell what they mean.
BY_KEY = {
    **dict.fromkeys(("dataset", "task", "features", "backbone", "head"), "the name of an entry"),
    **dict.fromkeys(("include", "exclude", "classes"), CLASSES),
    **dict.fromkeys(("validation", "test"), HELD_OUT),
    "architecture": "the name of an architecture",
    "weights": "random, imagenet, preset, or a path or URL",
    "url": "a path or a URL",
    "sha256": "64 hexadecimal digits, 0 to 9 and a to f",
    "md5": "32 hexadecimal digits, 0 to 9 and a to f",
    "subfolder": "the path of a folder in the archive, such as photos/train",
    "handle": "owner/name, as in the URL of its page",
    "path": "the path of a folder",
    "table": "the file name of a .csv file in the folder",
    "rename": "class numbers or names with their new names, such as {cane: dog, gatto: cat}",
    "group": "a regular expression, such as 'patient\\d+'",
    "cut": "the name of a layer or block",
    "hidden": "a list of whole numbers from 1 to 65536, such as [64, 32], or []",
    "trainable": "all, head, the name of a layer or block, or a number of layers",
    "unfreeze": "all, the name of a layer or block, or a number of layers",
    "augmentation": AUGMENTATION,
}
BY_CLASS = {
    FeaturesConfig: {"cut": f"{BY_KEY['cut']}, or a list of them", "views": f"a list of augmentations: {AUGMENTATION}"},
    ProbeConfig: {"cut": f"{BY_KEY['cut']}, a list of them"},
    FineTuneConfig: {"head": "the name of a head or a probe"},
}


def accepted_values(model: type[BaseModel]) -> dict[str, str]:
    """The keys that an entry of this class accepts, each with its accepted values in words."""
    words = BY_KEY | BY_CLASS.get(model, {})
    return {key: _field(field, words.get(key)) for key, field in model.model_fields.items()}


def alternatives(names: Iterable[str]) -> str:
    """The names with commas and an `or`: `a, b or c`."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def _field(field: Any, words: str | None) -> str:
    """A field in words; words: from the tables, if they have the key."""
    if words is None:
        return _in_words(field.annotation, field.metadata)
    optional = NoneType in get_args(field.annotation)
    return f"{words}, or null" if optional else words


def _in_words(annotation: Any, constraints: Iterable[Any]) -> str:
    """A type in words. constraints: those of `annotated_types` that hold for it."""
    arguments = get_args(annotation)
    if hasattr(annotation, "__metadata__"):  # Annotated[type, Field(...)]
        return _in_words(
            arguments[0], [item for field in arguments[1:] for item in getattr(field, "metadata", [field])]
        )
    if get_origin(annotation) in (Union, UnionType):
        *options, last = [_in_words(option, constraints) for option in arguments if option is not NoneType]
        if NoneType in arguments:
            options, last = [*options, last], "null"
        if options == ["true or false"]:
            return "true, false or null"
        return f"{', '.join(options)}, or {last}"
    if get_origin(annotation) is list:
        return "a list of them"
    if get_origin(annotation) is Literal:
        return alternatives(arguments)
    if annotation is bool:
        return "true or false"
    return {int: "a whole number", float: "a number"}[annotation] + _range(constraints)


def _range(constraints: Iterable[Any]) -> str:
    """` from 1 to 100`, ` above 0 and below 1` and the like; numbers without a lower bound do not occur."""
    bounds = {
        kind: getattr(constraint, kind.__name__.lower())
        for constraint in constraints
        if (kind := type(constraint)) in (Ge, Gt, Le, Lt)
    }
    lower = f" from {bounds[Ge]}" if Ge in bounds else f" above {bounds[Gt]}"
    if Le in bounds:
        return f"{lower} to {bounds[Le]}" if Ge in bounds else f"{lower}, at most {bounds[Le]}"
    if Lt in bounds:
        return f"{lower} {'to' if Ge in bounds else 'and'} below {bounds[Lt]}"
    return f"{lower} up" if Ge in bounds else lower
