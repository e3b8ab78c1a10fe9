"""Trained models in use: finding one by its name, and what params.yaml now says that differs from its settings."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from stages.artifacts.features import FeaturesRecord
from stages.artifacts.models import MODELS_FOLDER, ModelRecord, read_model_record, read_predictions
from stages.artifacts.weights import WEIGHTS_FOLDER, read_weights_record
from stages.backbones.layer_names import find_layer
from stages.backbones.layer_table import layers_of
from stages.backbones.presets import PRESET
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
from stages.core.params import MODEL_SECTIONS, PARAMS, Params
from stages.core.wording import did_you_mean, listing

MODEL_KINDS = {
    "network": ("networks", NetworkConfig),
    "head": ("heads", HeadConfig),
    "probe": ("probes", ProbeConfig),
    "fine-tune": ("fine_tunes", FineTuneConfig),
}
MAX_DIFFERENCES = 3  # in one sentence


def find_model(command: str, name: str) -> ModelRecord:
    """The record of a trained model that a user names; prints to stderr if its settings are outdated.

    command: for the printed line. `UserError` if there is no such model; models that exist are suggested.
    """
    try:
        params = Params.read()
    except UserError:  # using a trained model does not need a valid study
        params = Params({})
    names = params.names(*MODEL_SECTIONS)
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


def check_ensemble(record: ModelRecord) -> None:
    """Raise a `UserError` if the repeats of a model cannot be averaged: there is only one, or one has diverged."""
    probabilities = read_predictions(record.name)["test"].probabilities
    diverged = [str(number) for number, part in enumerate(probabilities) if not np.isfinite(part).all()]
    if record.repeats == 1:
        raise UserError(f"--ensemble: {record.name} has one repeat. Leave --ensemble out.")
    if diverged:
        raise UserError(
            f"--ensemble: the training of {record.name} diverged in repeat {', '.join(diverged)} (counted from 0). "
            "Leave --ensemble out."
        )


def outdated_settings(record: ModelRecord, params: Params) -> str:
    """One or two sentences on what has changed since a model was trained; empty if nothing has.

    Compares params.yaml with the model and with all that it was built on, and the weights file of its backbone.
    """
    try:
        differences = list(dict.fromkeys(_differences(record, params)))
    except UserError:
        return (
            f"{record.name} cannot be compared with params.yaml, which is not valid or has lost an entry that the "
            "model was made from; its trained settings are used. Run `python -m stages.check`."
        )
    sentences = []
    if differences:
        trained, now = zip(*differences[:MAX_DIFFERENCES], strict=True)
        more = f" (and {len(differences) - MAX_DIFFERENCES} more)" if len(differences) > MAX_DIFFERENCES else ""
        sentences.append(
            f"{record.name} was trained with {', '.join(trained)}; params.yaml now says {', '.join(now)}{more}. The "
            "trained settings are used. Run `dvc repro` to train it again."
        )
    backbone = record.provenance.backbone
    if (WEIGHTS_FOLDER / backbone).exists():
        sha256 = read_weights_record(backbone).sha256
        if sha256 != record.provenance.backbone_sha256:
            sentences.append(
                f"{record.name} was made with other weights of {backbone} than {WEIGHTS_FOLDER / backbone} holds now."
            )
    return " ".join(sentences)


def _differences(record: ModelRecord, params: Params) -> Iterator[tuple[str, str]]:
    """Pairs of `key value`: as trained, and as params.yaml says now."""
    yield from _model_differences(record, params)
    task = parse_entry(params, "tasks", record.task, TaskConfig).model_dump()
    # As JSON, because that is how the split stores them: keys of a mapping are text there.
    yield from _compare(record.provenance.task_settings, json.loads(json.dumps({"seed": params.seed, **task})))
    section, kind = (
        ("folders", LocalDataset) if record.dataset in params.names("folders") else ("datasets", FetchedDataset)
    )
    dataset = parse_entry(params, section, record.dataset, kind)
    recorded = {key: getattr(record, key) for key in ("image_size", "resize", "bits")}
    yield from _compare(recorded, dataset.model_dump())
    yield from _lineage_differences(record, params)


def _model_differences(record: ModelRecord, params: Params) -> Iterator[tuple[str, str]]:
    """Differences in the entry of a model, and in what it takes from section `training`."""
    section, kind = MODEL_KINDS[record.kind]
    entry = parse_entry(params, section, record.name, kind)
    yield from _compare(record.settings, model_settings(entry))
    inherited = {key: value for key, value in record.training.items() if key not in record.settings}
    yield from _compare(inherited, dict(parse_training(params, entry)))
    if record.kind in ("head", "probe"):
        yield from _feature_differences(record.provenance.features, entry.cut, params)


def _lineage_differences(record: ModelRecord, params: Params) -> Iterator[tuple[str, str]]:
    """Differences in what a model was built on: its head, the features it started from, its backbone."""
    provenance = record.provenance
    if provenance.head:
        yield from _prefixed(provenance.head.name, params)
        if provenance.features:
            yield from _feature_differences(provenance.features, provenance.features.cut, params)
    if provenance.backbone in params.names("backbones"):
        backbone = parse_entry(params, "backbones", provenance.backbone, BackboneConfig)
        if backbone.architecture != PRESET:
            yield from _compare({"architecture": provenance.architecture}, backbone.model_dump())
    else:
        yield from _prefixed(provenance.backbone, params)
        yield from _lineage_differences(read_model_record(provenance.backbone), params)


def _prefixed(model: str, params: Params) -> Iterator[tuple[str, str]]:
    """Differences of another model that is there, with its name before each."""
    for trained, now in _model_differences(read_model_record(model), params):
        yield f"{model} {trained}", f"{model} {now}"


def _feature_differences(
    features: FeaturesRecord, cut: str | list[str] | None, params: Params
) -> Iterator[tuple[str, str]]:
    """Differences of features. cut: as params.yaml names it, or them; None for features with one cut layer."""
    entry = parse_entry(params, "features", features.name, FeaturesConfig)
    layers = layers_of(features.architecture, features.preset)
    available = [find_layer(layers, name, "highest") for name in entry.cuts]
    named = cut if isinstance(cut, list) else [cut or entry.cuts[0]]
    wanted = sorted((find_layer(layers, name, "highest") for name in named), key=[*layers, None].index)
    now = {**entry.model_dump(), "cut": " + ".join(wanted) if {*wanted} <= {*available} else listing(entry.cuts)}
    if entry.precision == "auto":
        now["precision"] = features.precision
    recorded = {key: getattr(features, key) for key in ("backbone", "pooling", "precision", "storage", "views")}
    recorded["cut"] = " + ".join(features.cuts)
    yield from _compare(recorded, now)


def _compare(recorded: dict[str, Any], now: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in recorded.items():
        if now.get(key) != value:
            yield f"{key} {_quoted(value)}", f"{key} {_quoted(now.get(key))}" if key in now else f"no {key}"


def _quoted(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
