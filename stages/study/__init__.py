"""The study: `params.yaml`, read and checked as a whole before any stage works."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pydantic
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.errors import UserError
from stages.study.messages import keys_of, listing, nearest, sentences
from stages.study.references import reference_problems
from stages.study.schema import (
    Backbone,
    Dataset,
    Features,
    FineTune,
    Head,
    Name,
    Network,
    Task,
    Training,
)

__all__ = ["Study", "load_study", "read_params", "study_of"]

SECTIONS = {
    "datasets": Dataset,
    "tasks": Task,
    "backbones": Backbone,
    "networks": Network,
    "features": Features,
    "heads": Head,
    "fine_tunes": FineTune,
}
SETTINGS = ("seed", "training")


@dataclass(frozen=True)
class Study:
    """A checked study; every section is a dict from entry name to entry."""

    seed: int
    training: Training
    datasets: dict[str, Any]
    tasks: dict[str, Task]
    backbones: dict[str, Backbone]
    networks: dict[str, Network]
    features: dict[str, Features]
    heads: dict[str, Head]
    fine_tunes: dict[str, FineTune]

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


def read_params(path: Path) -> Any:
    """Read YAML as DVC reads it: YAML 1.2 by ruamel.yaml, where 1e-05 is a number and `no` is text.

    DVC's `dvc exp run -S` writes such numbers, and PyYAML would take them for text.
    """
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; copy a study there: cp studies/digits_class_groups.yaml {path}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; save it as UTF-8.") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{path}{place}: this is not YAML ({getattr(error, 'problem', error)}).") from None


def study_of(params: Any) -> tuple[Study | None, list[str]]:
    """Check a study read from YAML; returns it with no problems, or None with one sentence for each problem."""
    if not isinstance(params, dict):
        return None, [f"a study is a mapping with the sections {listing([*SETTINGS, *SECTIONS])}."]
    problems = [
        f"{key}: there is no section of this name{nearest(key, [*SETTINGS, *SECTIONS])}; accepted: "
        f"{listing([*SETTINGS, *SECTIONS])}."
        for key in params
        if key not in (*SETTINGS, *SECTIONS)
    ]
    seed = _checked(int, params.get("seed"), "seed", problems)
    if isinstance(seed, int) and seed < 0:
        problems.append(f"seed: {seed} is not accepted; it must be a whole number from 0 up.")
    training = _checked(Training, params.get("training"), "training", problems)
    sections = {section: _entries(section, params, problems) for section in SECTIONS}
    named = {section: params[section] if isinstance(params.get(section), dict) else {} for section in SECTIONS}
    problems += reference_problems(sections, named)
    if problems:
        return None, problems
    return Study(seed=seed, training=training, **sections), []


def _entries(section: str, params: dict, problems: list[str]) -> dict[str, Any]:
    """The well-formed entries of a section; the others are reported."""
    entries = params.get(section)
    if not isinstance(entries, dict):
        what = "is missing" if section not in params else "is empty" if entries is None else "holds no entries"
        problems.append(f"{section}: this section {what}; write `{section}: {{}}` where the study has none.")
        return {}
    found = {}
    for name, entry in entries.items():
        try:
            pydantic.TypeAdapter(Name).validate_python(name, strict=True)
        except pydantic.ValidationError:
            problems.append(
                f"{section}: the name {name!r} is not accepted; use a small letter, then small letters, digits and -."
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
        problems += sentences(error, where, _keys(kind, value))
        return None


def _keys(kind: Any, value: Any) -> list[str]:
    """The keys an entry accepts; for a dataset, those of its source."""
    if kind is int:
        return []
    if kind is not Dataset:
        return keys_of(kind)
    sources = {get_args(source.model_fields["source"].annotation)[0]: source for source in get_args(get_args(kind)[0])}
    source = sources.get(value.get("source")) if isinstance(value, dict) else None
    return keys_of(source) if source else ["source"]
