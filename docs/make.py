"""Writes the tables of docs/studies.md (all keys) and of docs/backbones.md (all backbones): `python -m docs.make`.

The tables come from the classes that parse a study (stages/config), the words of the check and the tables of
architectures, so the pages say what is accepted. A test fails if a page is not what this command writes.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from docs.published_sizes import LICENSES, SIZES
from stages.backbones.known_presets import FAMILIES, known_presets
from stages.backbones.layer_table import layers_of
from stages.backbones.published_weights import PUBLISHED_WEIGHTS
from stages.backbones.registry import ARCHITECTURES
from stages.config.augmentation import AugmentationConfig
from stages.config.training import ModelConfig, TrainedModelConfig, TrainingConfig
from stages.core.files import write_text
from stages.validation.accepted_values import accepted_values
from stages.validation.references import REFERENCES
from stages.validation.sections import SECTIONS

MARK = "<!-- What follows is written by `python -m docs.make`. -->\n"


def page(name: str, text: str) -> str:
    """A page with new tables after its mark."""
    return text.partition(MARK)[0] + MARK + "\n".join(CONTENTS[name]())


def reference() -> Iterator[str]:
    """The lines of the tables of keys: all sections, then the augmentation."""
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
    yield from [*table(AugmentationConfig, AugmentationConfig.model_fields, {}), ""]


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
    accepted["architecture"] = "one of the [backbones](backbones.md), or `preset`"
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


def backbones() -> Iterator[str]:
    """The lines of the tables of backbones: architectures, then the presets of each family."""
    yield from ["", "## Keras Applications, and the networks of the published studies", ""]
    yield "| architecture | weights, millions | published images | smallest image | layers | last (`top`) | license |"
    yield "|---|---|---|---|---|---|---|"
    for name, architecture in ARCHITECTURES.items():
        layers, (parameters, image_size) = list(layers_of(name)), SIZES.get(name, (None, None))
        license = next((text for start, text in LICENSES.items() if name.startswith(start)), "none published")
        license = license if name in PUBLISHED_WEIGHTS else "none published"
        sizes = f"{millions(parameters)} | {image_size or '-'} | {architecture.smallest_image}"
        yield f"| `{name}` | {sizes} | {len(layers)} | `{layers[-1]}` | {license} |"
    for class_name, (family, license) in FAMILIES.items():
        yield from ["", f"## {family}", "", f"KerasHub's `{class_name}`. License of the weights: {license}.", ""]
        yield "| architecture | weights, millions | published images | image sizes | blocks | address |"
        yield "|---|---|---|---|---|---|"
        for name, preset in known_presets().items():
            if preset.class_name == class_name:
                blocks = " + ".join(map(str, preset.blocks)) or "-"
                limits = f"from {preset.smallest_image}"
                limits = f"multiples of {preset.multiple}, {limits}" if preset.multiple > 1 else limits
                if preset.image_size % preset.multiple:
                    limits = f"{preset.image_size}, and {limits}"
                sizes = f"{millions(preset.parameters)} | {preset.image_size} | {limits}"
                yield f"| `{name}` | {sizes} | {blocks} | {preset.handle} |"
    yield ""


def millions(parameters: int | None) -> str:
    """A number of weights in millions."""
    return f"{parameters / 1e6:,.1f}" if parameters else "-"


CONTENTS = {"studies.md": reference, "backbones.md": backbones}

if __name__ == "__main__":
    for name in CONTENTS:
        path = Path(__file__).with_name(name)
        write_text(path, page(name, path.read_text(encoding="utf-8")))
        print(name)
