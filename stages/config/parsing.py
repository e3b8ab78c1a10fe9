"""Parsing the entries that a stage uses.

The stage `check` has checked the whole study before any other stage runs, and words its errors. So an entry that does
not parse here was changed since, or the stage was started by hand.
"""

from typing import Any, TypeVar

import pydantic

from stages.config.training import ModelConfig, TrainingConfig
from stages.core.errors import UserError
from stages.core.params import Params

Config = TypeVar("Config")


def parse_entry(params: Params, section: str, name: str, kind: type[Config]) -> Config:
    """One entry of a section as its config class, or as one of a union of them; `UserError` if it is not valid."""
    return _parse(kind, params.entry(section, name), f"{section}.{name}")


def parse_training(params: Params, model: ModelConfig) -> TrainingConfig:
    """The training settings of a model: its own keys over those of section `training`."""
    defaults = _parse(TrainingConfig, params.content.get("training"), "training")
    return model.training(defaults)


def model_settings(model: ModelConfig) -> dict[str, Any]:
    """The settings of a model with their defaults, without the training keys that it leaves to section `training`."""
    inherited = set(TrainingConfig.model_fields) - model.model_fields_set
    return model.model_dump(exclude=inherited)


def _parse(kind: type[Config], content: Any, where: str) -> Config:
    try:
        return pydantic.TypeAdapter(kind).validate_python(content, strict=True)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join([where, *map(str, first["loc"])])
        raise UserError(f"{key} is not valid ({first['msg']}); run `python -m stages.check` and correct it.") from None
