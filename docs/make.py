"""Writes the tables of all keys into docs/studies.md: `python -m docs.make`.

The tables come from the classes that parse a study (stages/config) and the words of the check, so the page says what is
accepted. A test fails if the page is not what this command writes.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from stages.backbones.layer_table import layers_of
from stages.backbones.published_weights import PUBLISHED_WEIGHTS
from stages.backbones.registry import ARCHITECTURES
from stages.config.augmentation import AugmentationConfig
from stages.config.training import ModelConfig, TrainedModelConfig, TrainingConfig
from stages.core.files import write_text
from stages.validation.accepted_values import accepted_values
from stages.validation.references import REFERENCES
from stages.validation.sections import SECTIONS

PAGE = Path(__file__).with_name("studies.md")
MARK = "<!-- What follows is written by `python -m docs.make`. -->\n"


def page(text: str) -> str:
    """The page with new tables after its mark."""
    return text.partition(MARK)[0] + MARK + "\n".join(reference())


def reference() -> Iterator[str]:
    """The lines of the tables: all sections, then the augmentation and the architectures."""
    for section, kind in SECTIONS.items():
        yield from ["", f"### `{section}`"]
        sources = [] if isinstance(kind, type) else get_args(get_args(kind)[0])
        if sources:
            yield from dataset_tables(sources)
        else:
            training = " It also accepts all keys of [`training`](#training)."
            yield from ["", about(kind) + (training if issubclass(kind, TrainedModelConfig) else "")]
            yield from table(kind, own_keys(kind), REFERENCES.get(section, {}))
    yield from ["", "### `training`", "", about(TrainingConfig)]
    yield from table(TrainingConfig, TrainingConfig.model_fields, {})
    yield from ["", "### `augmentation`, and the items of `views`", "", about(AugmentationConfig)]
    yield from table(AugmentationConfig, AugmentationConfig.model_fields, {})
    yield from ["", "### Architectures", "", *architectures(), ""]


def dataset_tables(sources: tuple[type[BaseModel], ...]) -> Iterator[str]:
    """The lines about a section of datasets: the keys that all sources share, then those of each source."""
    first, *others = sources
    shared = [key for key in first.model_fields if all(key in source.model_fields for source in others)]
    yield from table(first, [key for key in shared if key != "source"], {})
    for source in sources:
        yield from ["", f"`source: {get_args(source.model_fields['source'].annotation)[0]}`: {about(source)}"]
        yield from table(source, [key for key in source.model_fields if key not in shared], {})


def own_keys(kind: type[BaseModel]) -> list[str]:
    """The keys of an entry, without those that are as in section `training`."""
    training = TrainingConfig.model_fields if issubclass(kind, TrainedModelConfig) else {}
    return [
        key
        for key, field in kind.model_fields.items()
        if key not in training or field.annotation != training[key].annotation
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
    """The value of a key that a study does not give."""
    if issubclass(kind, ModelConfig) and key in TrainingConfig.model_fields:
        return "as in `training`"
    return "required" if field.is_required() else f"`{json.dumps(field.default)}`".replace('"', "")


def about(kind: type[BaseModel]) -> str:
    """The docstring of a class, in one line."""
    return " ".join(kind.__doc__.split())


def meaning(kind: type[BaseModel], key: str) -> str:
    """The docstring of a key, in one line; `LookupError` if it has none."""
    description = kind.model_fields[key].description
    if not description:
        raise LookupError(f"{kind.__name__}.{key} has no docstring that says what it means")
    return " ".join(description.split())


def architectures() -> Iterator[str]:
    """The lines of a table of architectures."""
    yield "| architecture | smallest image | layers | last layer (`top`) | ImageNet weights |"
    yield "|---|---|---|---|---|"
    for name, architecture in ARCHITECTURES.items():
        layers, imagenet = list(layers_of(name)), "yes" if name in PUBLISHED_WEIGHTS else "no"
        yield f"| `{name}` | {architecture.smallest_image} | {len(layers)} | `{layers[-1]}` | {imagenet} |"


if __name__ == "__main__":
    write_text(PAGE, page(PAGE.read_text(encoding="utf-8")))
    print(f"{PAGE.name}: {len(SECTIONS)} sections")
