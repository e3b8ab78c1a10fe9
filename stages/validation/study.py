"""The study: `params.yaml`, read and checked as a whole before any stage works."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pydantic

from stages.config.backbones import BackboneConfig
from stages.config.datasets import DatasetConfig, FetchedDataset, LocalDataset
from stages.config.features import FeaturesConfig
from stages.config.fields import Name
from stages.config.fine_tunes import FineTuneConfig
from stages.config.heads import HeadConfig
from stages.config.networks import NetworkConfig
from stages.config.tasks import TaskConfig
from stages.config.training import TrainingConfig, check_training
from stages.core.errors import UserError
from stages.core.wording import did_you_mean, listing
from stages.core.yaml import read_yaml
from stages.validation.messages import accepted_values, alternatives, quote_value, sentences
from stages.validation.references import reference_problems

__all__ = ["Study", "load_study", "validate_study"]

SECTIONS = {
    "datasets": FetchedDataset,
    "folders": LocalDataset,
    "tasks": TaskConfig,
    "backbones": BackboneConfig,
    "networks": NetworkConfig,
    "features": FeaturesConfig,
    "heads": HeadConfig,
    "fine_tunes": FineTuneConfig,
}
ALL_SECTIONS = ("seed", *SECTIONS, "training")


@dataclass(frozen=True)
class Study:
    """A checked study; every section is a dict from entry name to entry."""

    seed: int
    training: TrainingConfig
    datasets: dict[str, Any]
    folders: dict[str, Any]
    tasks: dict[str, TaskConfig]
    backbones: dict[str, BackboneConfig]
    networks: dict[str, NetworkConfig]
    features: dict[str, FeaturesConfig]
    heads: dict[str, HeadConfig]
    fine_tunes: dict[str, FineTuneConfig]

    def dataset(self, name: str) -> DatasetConfig:
        """The dataset of this name, fetched or in a folder of this machine."""
        return {**self.datasets, **self.folders}[name]

    def architecture(self, backbone: str) -> str:
        """The architecture of a backbone, which may be a network of the study."""
        while backbone in self.networks:
            backbone = self.networks[backbone].backbone
        return self.backbones[backbone].architecture

    @property
    def models(self) -> dict[str, NetworkConfig | HeadConfig | FineTuneConfig]:
        """All models, in the order of the report: networks, heads, fine-tunes."""
        return {**self.networks, **self.heads, **self.fine_tunes}


def load_study(path: Path) -> Study:
    """Read and check a study; `UserError` with all problems, one a line."""
    study, problems = validate_study(read_yaml(path))
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise UserError("\n  ".join([f"{path} has {count}:", *problems]))
    return study


def validate_study(params: Any) -> tuple[Study | None, list[str]]:
    """Check a study read from YAML; returns it with no problems, or None with one sentence for each problem."""
    if not isinstance(params, dict):
        return None, [
            f"{quote_value(params)} is no study; it must be a mapping with the sections {listing(ALL_SECTIONS)}."
        ]
    problems = [
        f"{key}: there is no section of this name{did_you_mean(key, ALL_SECTIONS)}; accepted: {listing(ALL_SECTIONS)}."
        for key in params
        if key not in ALL_SECTIONS
    ]
    seed = params.get("seed")
    if type(seed) is not int or seed < 0:  # true is an int too
        problems.append(f"seed: {quote_value(seed)} is not accepted; it must be a whole number from 0 up.")
    training = _checked(TrainingConfig, params.get("training"), "training", problems)
    sections = {section: _entries(section, params, problems) for section in SECTIONS}
    named = {section: params[section] for section in SECTIONS if isinstance(params.get(section), dict)}
    if training:
        problems += _training_problems(sections, training)
    problems += reference_problems({**sections, "datasets": {**sections["datasets"], **sections["folders"]}}, named)
    if problems:
        return None, problems
    return Study(seed=seed, training=training, **sections), []


def _training_problems(sections: dict[str, dict], training: TrainingConfig) -> list[str]:
    """Settings of a model that do not go with the defaults it takes from section `training`."""
    problems = []
    for section in ("networks", "heads", "fine_tunes"):
        for name, entry in sections[section].items():
            try:
                check_training(entry.training(training))
            except ValueError as error:
                problems.append(f"{section}.{name}: {error}.")
    return problems


def _entries(section: str, params: dict, problems: list[str]) -> dict[str, Any]:
    """The well-formed entries of a section; the others are reported."""
    entries = params.get(section)
    if not isinstance(entries, dict):
        what = "this section is missing" if section not in params else f"{quote_value(entries)} is not accepted"
        problems.append(f"{section}: {what}; give entries by name, or write `{section}: {{}}` for none.")
        return {}
    found = {}
    for name, entry in entries.items():
        try:
            pydantic.TypeAdapter(Name).validate_python(name, strict=True)
        except pydantic.ValidationError:
            problems.append(
                f"{section}: the name {quote_value(name)} is not accepted; it must be a small letter, then small letters, "
                "digits and -."
            )
            continue
        checked = _checked(SECTIONS[section], entry, f"{section}.{name}", problems)
        if checked is not None:
            found[name] = checked
    return found


def _checked(kind: Any, value: Any, where: str, problems: list[str]) -> Any:
    try:
        return pydantic.TypeAdapter(kind).validate_python(value, strict=True)
    except pydantic.ValidationError as error:
        problems += sentences(error, where, _accepted(kind, value), value)
        return None


def _accepted(kind: Any, value: Any) -> dict[str, str]:
    """The keys an entry accepts and their values; for a dataset, those of its source."""
    if kind not in (FetchedDataset, LocalDataset):
        return accepted_values(kind)
    sources = _sources(kind)
    given = value.get("source") if isinstance(value, dict) else None
    if isinstance(given, str) and given in sources:
        return accepted_values(sources[given])
    other, section = (LocalDataset, "folders") if kind is FetchedDataset else (FetchedDataset, "datasets")
    return {"source": f"{alternatives(sources)} ({alternatives(_sources(other))} stands in section {section})"}


def _sources(kind: Any) -> dict[str, type]:
    """The classes of a union of datasets, by their source."""
    return {get_args(source.model_fields["source"].annotation)[0]: source for source in get_args(get_args(kind)[0])}
