"""Writes the tables of all keys into docs/studies.md: `python -m docs.make`.

They are made of what checks a study - the classes of stages/config/schema.py and the words of its messages - so that the
page says what is accepted. A test fails when it is not what this prints.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from stages.backbones.layer_table import layers_of
from stages.backbones.published_weights import PUBLISHED_WEIGHTS
from stages.backbones.registry import ARCHITECTURES
from stages.config.augmentation import AugmentationConfig
from stages.config.training import ModelConfig, TrainingConfig
from stages.core.files import write_text
from stages.validation.messages import accepted_values
from stages.validation.references import REFERENCES
from stages.validation.study import SECTIONS

PAGE = Path(__file__).with_name("studies.md")
MARK = "<!-- What follows is written by `python -m docs.make`. -->\n"


def page(text: str) -> str:
    """The page with what follows its mark made anew."""
    return text.partition(MARK)[0] + MARK + "\n".join(reference())


def reference() -> Iterator[str]:
    """The lines of the tables, section by section, then the augmentation and the architectures."""
    for section, kind in SECTIONS.items():
        yield from ["", f"### `{section}`"]
        members = [] if isinstance(kind, type) else get_args(get_args(kind)[0])
        if not members:
            also = " It may also give any key of [`training`](#training)." if issubclass(kind, ModelConfig) else ""
            yield from ["", about(kind) + also]
            yield from table(kind, own_keys(kind), REFERENCES.get(section, {}))
            continue
        shared = [key for key in members[0].model_fields if all(key in each.model_fields for each in members)]
        yield from table(members[0], [key for key in shared if key != "source"], {})
        for member in members:
            yield from ["", f"`source: {get_args(member.model_fields['source'].annotation)[0]}`: {about(member)}"]
            yield from table(member, [key for key in member.model_fields if key not in shared], {})
    yield from [
        "",
        "### `training`",
        "",
        about(TrainingConfig),
        *table(TrainingConfig, TrainingConfig.model_fields, {}),
    ]
    yield from ["", "### `augmentation`, and the items of `views`", "", about(AugmentationConfig)]
    yield from table(AugmentationConfig, AugmentationConfig.model_fields, {})
    yield from ["", "### Architectures", "", *architectures(), ""]


def own_keys(kind: type[BaseModel]) -> list[str]:
    """The keys of an entry; of a model without those that are as in section `training`."""
    same = TrainingConfig.model_fields if issubclass(kind, ModelConfig) else {}
    return [
        key for key, field in kind.model_fields.items() if key not in same or field.annotation != same[key].annotation
    ]


def table(kind: type[BaseModel], keys: Iterable[str], references: dict[str, list[str]]) -> Iterator[str]:
    """The lines of a table of keys, the required ones first; references: key -> the sections whose names it accepts."""
    accepted = accepted_values(kind) | {
        key: f"the name of an entry of {' or '.join(f'`{section}`' for section in sections)}"
        for key, sections in references.items()
    }
    accepted["architecture"] = "one of the [architectures](#architectures)"
    fields = {key: kind.model_fields[key] for key in keys}
    if fields:
        yield from ["", "| key | accepted | default | meaning |", "|---|---|---|---|"]
    for key, field in sorted(fields.items(), key=lambda item: not item[1].is_required()):
        yield f"| `{key}` | {accepted[key]} | {default(kind, key, field)} | {meaning(kind, key)} |"


def default(kind: type[BaseModel], key: str, field: FieldInfo) -> str:
    """What holds where a study does not give a key."""
    if issubclass(kind, ModelConfig) and key in TrainingConfig.model_fields:
        return "as in `training`"
    return "required" if field.is_required() else f"`{json.dumps(field.default)}`".replace('"', "")


def about(kind: type[BaseModel]) -> str:
    """The first paragraph of the docstring of a class."""
    return " ".join(kind.__doc__.split("\n\n")[0].split())


def meaning(kind: type[BaseModel], key: str) -> str:
    """What the docstring of a class, or of one it inherits from, says of a key; `LookupError` where none does."""
    named = "|".join(kind.model_fields)
    for each in (*kind.__mro__, TrainingConfig):
        text = " ".join((each.__doc__ or "").partition("\n\n")[2].split())
        parts = re.split(rf"(?:^|(?<=\. ))((?:{named})(?:, (?:{named}))*): ", text)
        for keys, said in zip(parts[1::2], parts[2::2], strict=True):
            if key in keys.split(", "):
                return said.strip()
    raise LookupError(f"the docstring of {kind.__name__} does not say what {key} means")


def architectures() -> Iterator[str]:
    """The lines of a table of architectures."""
    yield "| architecture | smallest image | layers | the last, `top` | ImageNet weights |"
    yield "|---|---|---|---|---|"
    for name, each in ARCHITECTURES.items():
        layers, published = list(layers_of(name)), "yes" if name in PUBLISHED_WEIGHTS else "no"
        yield f"| `{name}` | {each.smallest_image} | {len(layers)} | `{layers[-1]}` | {published} |"


if __name__ == "__main__":
    write_text(PAGE, page(PAGE.read_text(encoding="utf-8")))
    print(f"{PAGE.name}: {len(SECTIONS)} sections")
