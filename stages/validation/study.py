"""The check of a whole study, which reports all problems at once."""

from collections.abc import Iterator
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
from stages.config.probes import ProbeConfig
from stages.config.tasks import TaskConfig
from stages.config.training import TrainingConfig
from stages.core.errors import UserError
from stages.core.params import MARGIN, MODEL_SECTIONS, is_margin
from stages.core.wording import counted, did_you_mean, listing
from stages.core.yaml import read_yaml
from stages.validation.accepted_values import accepted_values, alternatives
from stages.validation.classes import task_problems
from stages.validation.credentials import redact
from stages.validation.entry_rules import entry_problems, training_problems
from stages.validation.fine_tunes import fine_tune_problems
from stages.validation.layers import features_problems, head_problems, network_problems
from stages.validation.leaks import leak_problems
from stages.validation.messages import describe_errors, not_valid, quote_value
from stages.validation.references import reference_problems
from stages.validation.sections import ALL_SECTIONS, SECTIONS, Entries


@dataclass(frozen=True)
class Study:
    """A valid study; every section is a dict from name to entry."""

    seed: int
    margin: float
    training: TrainingConfig
    datasets: dict[str, Any]
    folders: dict[str, Any]
    tasks: dict[str, TaskConfig]
    backbones: dict[str, BackboneConfig]
    networks: dict[str, NetworkConfig]
    features: dict[str, FeaturesConfig]
    heads: dict[str, HeadConfig]
    probes: dict[str, ProbeConfig]
    fine_tunes: dict[str, FineTuneConfig]

    def dataset(self, name: str) -> DatasetConfig:
        """The dataset of this name, from section `datasets` or `folders`."""
        return {**self.datasets, **self.folders}[name]

    def architecture(self, backbone: str) -> str:
        """The architecture of a backbone, which may be a network of the study."""
        while backbone in self.networks:
            backbone = self.networks[backbone].backbone
        return self.backbones[backbone].architecture

    @property
    def models(self) -> dict[str, NetworkConfig | HeadConfig | ProbeConfig | FineTuneConfig]:
        """All models, in the order of the report: networks, heads, probes, fine-tunes."""
        return {**self.networks, **self.heads, **self.probes, **self.fine_tunes}


def load_study(path: Path) -> Study:
    """Read and check a study; `UserError` with all problems, one a line."""
    return check_study(read_yaml(path), path)


def check_study(params: Any, path: Path) -> Study:
    """Check a study that was read from a file; `UserError` with all problems, one a line."""
    study, problems = validate_study(params)
    if problems:
        raise UserError(f"{path} has {counted(len(problems), 'problem')}:", *problems)
    return study


def validate_study(params: Any) -> tuple[Study | None, list[str]]:
    """Check a study that was read from YAML: the study and no problems, or None and one sentence per problem."""
    if not isinstance(params, dict):
        return None, [f"{quote_value(params)} is not a study. Give the sections {listing(ALL_SECTIONS)}."]
    problems = [
        f"{key}: this section does not exist{did_you_mean(key, ALL_SECTIONS)}. Sections: {listing(ALL_SECTIONS)}."
        for key in params
        if key not in ALL_SECTIONS
    ]
    seed = params.get("seed")
    if type(seed) is not int or seed < 0:  # true is an int too
        problems.append(not_valid("seed", seed, "a whole number from 0 up"))
    margin = params.get("margin", MARGIN)
    if not is_margin(margin):
        problems.append(not_valid("margin", margin, "a number of points from 0 to 100"))
    training = _parse(TrainingConfig, params.get("training"), "training", problems)
    sections = {section: _parse_section(section, params, problems) for section in SECTIONS}
    written = {section: params[section] for section in SECTIONS if isinstance(params.get(section), dict)}
    if training:
        for section in ("networks", "heads", "fine_tunes"):
            for name, entry in sections[section].items():
                problems += training_problems(f"{section}.{name}", entry.training(training))
    entries = sections | {"datasets": {**sections["datasets"], **sections["folders"]}}
    reference = reference_problems(entries, written)
    problems += reference
    if not reference:  # else the same names would be reported twice
        problems += _problems_between_entries(entries)
    if problems:
        return None, [redact(problem) for problem in problems]
    return Study(seed=seed, margin=margin, training=training, **sections), []


def _problems_between_entries(entries: Entries) -> Iterator[str]:
    for name in entries["tasks"]:
        yield from task_problems(entries, name)
    for name in entries["networks"]:
        yield from network_problems(entries, name)
    for name in entries["features"]:
        yield from features_problems(entries, name)
    for section in ("heads", "probes"):
        for name in entries[section]:
            yield from head_problems(entries, section, name)
    for name in entries["fine_tunes"]:
        yield from fine_tune_problems(entries, name)
    for section in MODEL_SECTIONS:
        for name in entries[section]:
            yield from leak_problems(entries, section, name)


def _parse_section(section: str, params: dict, problems: list[str]) -> dict[str, Any]:
    """The entries of a section that are valid by themselves; problems of the others are added to the list."""
    content = params.get(section)
    if not isinstance(content, dict):
        what = "this section is missing" if section not in params else f"{quote_value(content)} is not valid"
        problems.append(f"{section}: {what}. Give entries by name, or write `{section}: {{}}`.")
        return {}
    entries = {}
    for name, value in content.items():
        try:
            pydantic.TypeAdapter(Name).validate_python(name, strict=True)
        except pydantic.ValidationError:
            problems.append(
                f"{section}: name {quote_value(name)} is not valid. Use a to z, 0 to 9 and -, and start with a letter."
            )
            continue
        entry = _parse(SECTIONS[section], value, f"{section}.{name}", problems)
        if entry is not None:
            entries[name] = entry
    return entries


def _parse(kind: Any, value: Any, where: str, problems: list[str]) -> Any:
    """An entry as its config class; None if it is not valid, and its problems are added to the list."""
    try:
        entry = pydantic.TypeAdapter(kind).validate_python(value, strict=True)
    except pydantic.ValidationError as error:
        problems += describe_errors(error, where, _accepted(kind, value), value)
        return None
    broken_rules = list(entry_problems(where, entry))
    problems += broken_rules
    return None if broken_rules else entry


def _accepted(kind: Any, value: Any) -> dict[str, str]:
    """The keys of an entry and their values in words; of a dataset, those of its source."""
    if kind not in (FetchedDataset, LocalDataset):
        return accepted_values(kind)
    sources = _sources(kind)
    given = value.get("source") if isinstance(value, dict) else None
    if isinstance(given, str) and given in sources:
        return accepted_values(sources[given])
    other, section = (LocalDataset, "folders") if kind is FetchedDataset else (FetchedDataset, "datasets")
    return {"source": f"{alternatives(sources)} ({alternatives(_sources(other))} belongs in section {section})"}


def _sources(kind: Any) -> dict[str, type]:
    """The classes of a union of datasets, by source."""
    return {get_args(source.model_fields["source"].annotation)[0]: source for source in get_args(get_args(kind)[0])}
