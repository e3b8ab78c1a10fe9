"""Trained models in use: finding one by its name, and what params.yaml now says that differs from its settings."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import pydantic

from stages.artifacts.features import FeaturesRecord
from stages.artifacts.models import MODELS_FOLDER, ModelRecord, read_model_record
from stages.backbones.layer_names import find_layer
from stages.config.backbones import BackboneConfig
from stages.config.datasets import FetchedDataset, LocalDataset
from stages.config.features import FeaturesConfig
from stages.config.fine_tunes import FineTuneConfig
from stages.config.heads import HeadConfig
from stages.config.networks import NetworkConfig
from stages.config.parsing import model_settings, parse_entry, parse_training
from stages.config.probes import ProbeConfig
from stages.config.tasks import TaskConfig
from stages.core.errors import UserError
from stages.core.params import PARAMS, Params
from stages.core.wording import did_you_mean, listing

SECTIONS = {
    "network": ("networks", NetworkConfig),
    "head": ("heads", HeadConfig),
    "probe": ("probes", ProbeConfig),
    "fine-tune": ("fine_tunes", FineTuneConfig),
}
SHOWN = 3  # differences in one sentence


def find_model(command: str, name: str) -> ModelRecord:
    """The record of a trained model that a user names; prints to stderr if its settings are outdated.

    command: for the printed line. `UserError` if there is no such model; models that exist are suggested.
    """
    try:
        params = Params.read()
    except UserError:  # using a trained model does not need a valid study
        params = Params({})
    names = params.names(*(section for section, _ in SECTIONS.values()))
    trained = sorted(path.parent.name for path in MODELS_FOLDER.glob("*/record.json"))
    if name not in trained:
        if name in names:
            raise UserError(f"{name} is not trained yet: {MODELS_FOLDER / name} is missing. Run `dvc repro`.")
        raise UserError(
            f"model {name!r} does not exist{did_you_mean(name, trained)}. Trained models: {listing(trained)}."
        )
    record = read_model_record(name)
    if PARAMS.exists() and (sentence := outdated_settings(record, params)):
        print(f"{command}: {sentence}", file=sys.stderr)
    return record


def outdated_settings(record: ModelRecord, params: Params) -> str:
    """A sentence that says how params.yaml differs from what a model was trained with; empty if it does not."""
    try:
        differences = list(_differences(record, params))
    except (UserError, pydantic.ValidationError):
        return (
            f"{record.name} cannot be compared with params.yaml, which is not valid or has lost an entry that the "
            "model was made from; its trained settings are used. Run `python -m stages.check`."
        )
    if not differences:
        return ""
    trained, now = zip(*differences[:SHOWN], strict=True)
    more = f" (and {len(differences) - SHOWN} more)" if len(differences) > SHOWN else ""
    return (
        f"{record.name} was trained with {', '.join(trained)}; params.yaml now says {', '.join(now)}{more}. The "
        "trained settings are used. Run `dvc repro` to train it again."
    )


def _differences(record: ModelRecord, params: Params) -> Iterator[tuple[str, str]]:
    """Pairs of `key value`: as trained, and as params.yaml says now."""
    section, kind = SECTIONS[record.kind]
    entry = parse_entry(params, section, record.name, kind)
    yield from _compare(record.settings, model_settings(entry))
    if record.training:
        training = dict(parse_training(params, entry))
        if record.candidates:  # the chosen learning rate is one of the entry's, which are compared above
            training["learning_rate"] = record.training["learning_rate"]
        inherited = {key: value for key, value in record.training.items() if key not in record.settings}
        yield from _compare(inherited, training)
    task = parse_entry(params, "tasks", record.task, TaskConfig).model_dump()
    # As JSON, because that is how the split stores them: keys of a mapping are text there.
    yield from _compare(record.provenance.task_settings, json.loads(json.dumps({"seed": params.seed, **task})))
    datasets = "folders" if record.dataset in params.names("folders") else "datasets"
    union = LocalDataset if datasets == "folders" else FetchedDataset
    dataset = parse_entry(params, datasets, record.dataset, union)
    yield from _compare({"image_size": record.image_size, "resize": record.resize}, dataset.model_dump())
    head = record.provenance.head
    if head:
        head_entry = parse_entry(params, SECTIONS[head.kind][0], head.name, SECTIONS[head.kind][1])
        for trained, now in _compare(head.settings, model_settings(head_entry)):
            yield f"{head.name} {trained}", f"{head.name} {now}"
    features = head.features if head else record.provenance.features
    if features:
        yield from _feature_differences(features, (head_entry if head else entry).cut, params)
    if record.provenance.backbone in params.names("backbones"):
        backbone = parse_entry(params, "backbones", record.provenance.backbone, BackboneConfig)
        yield from _compare({"architecture": record.provenance.architecture}, backbone.model_dump())


def _feature_differences(features: FeaturesRecord, head_cut: str | None, params: Params) -> Iterator[tuple[str, str]]:
    """Differences of features that a head was trained on. head_cut: the key `cut` of the head."""
    entry = parse_entry(params, "features", features.name, FeaturesConfig)
    cuts = [find_layer(features.architecture, cut, "highest") for cut in ([head_cut] if head_cut else entry.cuts)]
    cut = features.cut if features.cut in cuts else ", ".join(map(str, cuts))
    recorded = {key: getattr(features, key) for key in ("backbone", "cut", "pooling", "storage", "views")}
    yield from _compare(recorded, {**entry.model_dump(), "cut": cut})


def _compare(recorded: dict[str, Any], now: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in recorded.items():
        if now.get(key) != value:
            yield f"{key} {_quoted(value)}", f"{key} {_quoted(now.get(key))}" if key in now else f"no {key}"


def _quoted(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
