"""The study: `params.yaml`, read and checked as a whole before any stage works."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pydantic
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.base.errors import UserError
from stages.study.messages import accepted_of, choice, listing, nearest, sentences, shown
from stages.study.references import reference_problems
from stages.study.schema import (
    Backbone,
    Dataset,
    Features,
    FineTune,
    Head,
    Images,
    LocalDataset,
    Name,
    Network,
    Task,
    Training,
    check_training,
)

__all__ = ["Study", "load_study", "parse_params", "read_params", "study_of"]

SECTIONS = {
    "datasets": Dataset,
    "folders": LocalDataset,
    "tasks": Task,
    "backbones": Backbone,
    "networks": Network,
    "features": Features,
    "heads": Head,
    "fine_tunes": FineTune,
}
ALL_SECTIONS = ("seed", *SECTIONS, "training")


@dataclass(frozen=True)
class Study:
    """A checked study; every section is a dict from entry name to entry."""

    seed: int
    training: Training
    datasets: dict[str, Any]
    folders: dict[str, Any]
    tasks: dict[str, Task]
    backbones: dict[str, Backbone]
    networks: dict[str, Network]
    features: dict[str, Features]
    heads: dict[str, Head]
    fine_tunes: dict[str, FineTune]

    def dataset(self, name: str) -> Images:
        """The dataset of this name, fetched or in a folder of this machine."""
        return {**self.datasets, **self.folders}[name]

    def architecture(self, backbone: str) -> str:
        """The architecture of a backbone, which may be a network of the study."""
        while backbone in self.networks:
            backbone = self.networks[backbone].backbone
        return self.backbones[backbone].architecture

    @property
    def models(self) -> dict[str, Network | Head | FineTune]:
        """All models, in the order of the report: networks, heads, fine-tunes."""
        return {**self.networks, **self.heads, **self.fine_tunes}


def load_study(path: Path) -> Study:
    """Read and check a study; `UserError` with all problems, one a line."""
    study, problems = study_of(read_params(path))
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise UserError("\n  ".join([f"{path} has {count}:", *problems]))
    return study


def parse_params(text: str) -> Any:
    """Parse YAML as DVC does: YAML 1.2 by ruamel.yaml, where 1e-05 is a number and `no` is text.

    DVC's `dvc exp run -S` writes such numbers, and PyYAML would take them for text.
    """
    return YAML(typ="safe", pure=True).load(text)


def read_params(path: Path) -> Any:
    """Read YAML from a file as DVC does; `UserError` where that cannot be."""
    try:
        return parse_params(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; give the path of a study, or copy one of studies/ to {path}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give the path of a study.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; save it as UTF-8.") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = " ".join(str(getattr(error, "problem", error)).split())
        raise UserError(f"{path}{place}: this cannot be read as YAML ({reason}).") from None
    except ValueError as error:  # of a value that looks like a date and is none
        raise UserError(f"{path} cannot be read as YAML ({error}); put the value in quotes.") from None


def study_of(params: Any) -> tuple[Study | None, list[str]]:
    """Check a study read from YAML; returns it with no problems, or None with one sentence for each problem."""
    if not isinstance(params, dict):
        return None, [f"{shown(params)} is no study; it must be a mapping with the sections {listing(ALL_SECTIONS)}."]
    problems = [
        f"{key}: there is no section of this name{nearest(key, ALL_SECTIONS)}; accepted: {listing(ALL_SECTIONS)}."
        for key in params
        if key not in ALL_SECTIONS
    ]
    seed = params.get("seed")
    if type(seed) is not int or seed < 0:  # true is an int too
        problems.append(f"seed: {shown(seed)} is not accepted; it must be a whole number from 0 up.")
    training = _checked(Training, params.get("training"), "training", problems)
    sections = {section: _entries(section, params, problems) for section in SECTIONS}
    named = {section: params[section] for section in SECTIONS if isinstance(params.get(section), dict)}
    if training:
        problems += _training_problems(sections, training)
    problems += reference_problems({**sections, "datasets": {**sections["datasets"], **sections["folders"]}}, named)
    if problems:
        return None, problems
    return Study(seed=seed, training=training, **sections), []


def _training_problems(sections: dict[str, dict], training: Training) -> list[str]:
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
        what = "this section is missing" if section not in params else f"{shown(entries)} is not accepted"
        problems.append(f"{section}: {what}; give entries by name, or write `{section}: {{}}` for none.")
        return {}
    found = {}
    for name, entry in entries.items():
        try:
            pydantic.TypeAdapter(Name).validate_python(name, strict=True)
        except pydantic.ValidationError:
            problems.append(
                f"{section}: the name {shown(name)} is not accepted; it must be a small letter, then small letters, "
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
    if kind not in (Dataset, LocalDataset):
        return accepted_of(kind)
    sources = _sources(kind)
    given = value.get("source") if isinstance(value, dict) else None
    if isinstance(given, str) and given in sources:
        return accepted_of(sources[given])
    other, section = (LocalDataset, "folders") if kind is Dataset else (Dataset, "datasets")
    return {"source": f"{choice(sources)} ({choice(_sources(other))} stands in section {section})"}


def _sources(kind: Any) -> dict[str, type]:
    """The classes of a union of datasets, by their source."""
    return {get_args(source.model_fields["source"].annotation)[0]: source for source in get_args(get_args(kind)[0])}
