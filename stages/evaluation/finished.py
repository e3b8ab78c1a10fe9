"""Which models of a study are finished: their results exist and belong to the current settings of the study."""

import json

from stages.artifacts.features import FeaturesRecord, joined_record, read_all_features
from stages.artifacts.models import (
    MODELS_FOLDER,
    HeadProvenance,
    ModelRecord,
    ModelResult,
    read_model_record,
    read_result,
)
from stages.artifacts.tasks import SPLITS, read_task
from stages.artifacts.weights import read_weights_record
from stages.config.fine_tunes import FineTuneConfig
from stages.config.heads import HeadConfig
from stages.config.networks import NetworkConfig
from stages.config.parsing import model_settings, parse_entry, parse_training
from stages.config.probes import ProbeConfig
from stages.config.training import ModelConfig
from stages.core.errors import UserError
from stages.core.params import MODEL_SECTIONS, Params
from stages.evaluation.predictions import join_predictions

CONFIGS = dict(zip(MODEL_SECTIONS, (NetworkConfig, HeadConfig, ProbeConfig, FineTuneConfig), strict=True))
NOT_TRAINED, OUTDATED = "not trained yet", "not trained yet with the current settings or images"


def unfinished_models(params: Params) -> dict[str, str]:
    """The models of a study that are not finished -> the reason.

    A finished model was trained with its current settings, on the current split, features and weights, and so was
    every model that it is built on. The code is not compared: `dvc repro` may train a finished model again.
    """
    records, unfinished = {}, {}
    for section, config in CONFIGS.items():
        for model in params.names(section):
            if not (MODELS_FOLDER / model / "record.json").exists():
                unfinished[model] = NOT_TRAINED
                continue
            entry = parse_entry(params, section, model, config)
            try:
                result = read_result(model)
                current = _has_settings(result.record, entry, params) and _has_inputs(result)
            except UserError:  # a file is missing: DVC has removed an output to write it again
                current = False
            if current:
                records[model] = result.record
            else:
                unfinished[model] = OUTDATED
    names = {*records, *unfinished}
    while outdated := [name for name, record in records.items() if _built_on(record) & names & unfinished.keys()]:
        for name in outdated:
            unfinished[name] = OUTDATED
            del records[name]
    return unfinished


def without_models(params: Params, models: dict[str, str]) -> Params:
    """The study without some models."""
    entries = {section: params.content.get(section) or {} for section in MODEL_SECTIONS}
    kept = {
        section: {name: entry for name, entry in content.items() if name not in models}
        for section, content in entries.items()
    }
    return Params({**params.content, **kept})


def _built_on(record: ModelRecord) -> set[str]:
    """Names of the backbone and the head that a model was made from."""
    head = record.provenance.head
    return {record.provenance.backbone, *([head.name] if head else [])}


def _has_settings(record: ModelRecord, entry: ModelConfig, params: Params) -> bool:
    """Whether a model was trained with the settings that it has in the study; of lists, one value was chosen."""
    settings = parse_training(params, entry)
    training = {key: getattr(settings, key) for key in record.training}
    chosen = {key: record.training[key] for key, value in training.items() if isinstance(value, list)}
    current = [model_settings(entry), {**training, **chosen}, params.seed]
    return json.loads(json.dumps(current)) == [record.settings, record.training, record.seed]


def _has_inputs(result: ModelResult) -> bool:
    """Whether a model was trained on the current images, split, weights and features, and a fine-tune on its head."""
    record, made_from = result.record, result.record.provenance
    task = read_task(record.task)
    for split in SPLITS:
        join_predictions(record, split, task, result.predictions[split])
    weights, features, head = made_from.backbone_sha256, made_from.features, made_from.head
    return (
        (task.images_sha256, task.settings) == (made_from.images_sha256, made_from.task_settings)
        and (weights is None or read_weights_record(made_from.backbone).sha256 == weights)
        and (features is None or features == _current(features))
        and (head is None or head == HeadProvenance.of(read_model_record(head.name)))
    )


def _current(features: FeaturesRecord) -> FeaturesRecord | None:
    """The record of the cached features at the same cuts; None if they do not have them all."""
    records = {cached.record.cut: cached.record for cached in read_all_features(features.name)}
    return joined_record([records[cut] for cut in features.cuts]) if {*features.cuts} <= {*records} else None
