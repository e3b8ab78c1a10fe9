"""Compares the models of every task in pairs and recommends one: reports/comparisons.json, reports/recommended/<task>.

Reads the predictions of the models and the metrics that evaluate wrote. Needs neither Keras nor a GPU.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from stages.artifacts.margin import read_margin
from stages.artifacts.models import MODELS_FOLDER, read_model_record, weights_file
from stages.artifacts.reports import REPORTS_FOLDER
from stages.core.files import atomic_directory, read_json, reading, sha256_of, write_json
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.evaluation.compared_folds import left_out_sentences, limiting_sentences
from stages.evaluation.comparisons import compare_models
from stages.evaluation.cost_sentences import multiply_adds
from stages.evaluation.costs import base_networks
from stages.evaluation.crossovers import find_crossovers
from stages.evaluation.cut_curves import cut_curves, layer_list
from stages.evaluation.folds import Outcomes, common_outcomes
from stages.evaluation.formatting import rounded
from stages.evaluation.learning_curves import learning_curves
from stages.evaluation.sanity import model_warnings
from stages.evaluation.screen import screen
from stages.evaluation.shortfall import choose
from stages.evaluation.study_results import StudyResults, read_study
from stages.evaluation.verdict import Evidence, contradictions, sentences_on_test, verdict
from stages.splitting.summary import split_warnings


def main(params: Params) -> str:
    return compare(params, REPORTS_FOLDER)


def compare(params: Params, reports: Path) -> str:
    """Compare the models of the study; reads and writes in the folder `reports`."""
    study = read_study(params)
    path = reports / "metrics.json"
    metrics = read_json(path)
    with reading(path):
        metrics = {model: metrics[model] for model in study.results}
    comparisons = {task: compare_task(study, task, metrics, params) for task in study.tasks}

    write_json(reports / "comparisons.json", comparisons)
    recommended = {task: content["recommended"] for task, content in comparisons.items()}
    with atomic_directory(reports / "recommended") as folder:
        for task in params.names("tasks"):
            write_json(folder / f"{task}.json", identify(recommended.get(task)))
    for task, content in comparisons.items():
        for warning in content["warnings"]:
            print(f"Warning, {task}: {warning}")
        if not content["screen"]:
            for sentence in content["screen_sentences"]:
                print(f"{task}: {sentence}")
    return "recommended " + (", ".join(f"{model} for {task}" for task, model in recommended.items()) or "nothing")


def compare_task(study: StudyResults, task: str, metrics: dict[str, Any], params: Params) -> dict[str, Any]:
    """The part of comparisons.json for one task; metrics: model -> its part of metrics.json."""
    models, compared, margin = study.models(task), study.compared(task), read_margin()
    records = {model: study.records[model] for model in models}
    outcomes = task_outcomes(study, compared.models, "validation")
    all_outcomes = (outcomes, task_outcomes(study, models, "test"))
    validation, test = (compare_models(part, params.seed) for part in all_outcomes)
    choice = choose(outcomes, multiply_adds(metrics), margin / 100, params.seed)
    left_out, folds = left_out_sentences(compared, records), (study.tasks[task].folds, len(compared.folds))
    warnings = [*split_warnings(task, study.tasks[task].summary), *left_out, *contradictions(choice, test, *folds)]
    for model in models:
        warnings += model_warnings(study.results[model], study.predictions[model], metrics[model], params.seed)
    own = {model: metrics[model] for model in compared.models}
    bases = {model: base_networks(model, study.records, metrics) for model in own}
    evidence = Evidence(own, outcomes, validation, margin, folds, compared.left_out, bases)
    curves = learning_curves(records)
    layers = {record.provenance.architecture: layer_list(record.provenance) for record in records.values()}
    return {
        "margin": margin,
        "best_on_validation": choice.best,
        "candidates": choice.candidates,
        "recommended": choice.recommended,
        "probability": rounded(choice.probability),
        "expected_shortfalls": {model: rounded(shortfall) for model, shortfall in choice.shortfalls.items()},
        "verdict": [*verdict(choice, evidence), *left_out, *limiting_sentences(compared, records)],
        "verdict_on_test": sentences_on_test(choice, test),
        "warnings": warnings,
        "validation": [asdict(pair) for pair in validation],
        "test": [asdict(pair) for pair in test],
        **screen({model: records[model] for model in own}, outcomes, metrics, params.seed),
        "learning_curves": [asdict(curve) for curve in curves],
        "crossovers": [asdict(crossover) for crossover in find_crossovers(curves, metrics, test)],
        "cut_curves": {
            architecture: {"layers": layers[architecture], "curves": [asdict(curve) for curve in group]}
            for architecture, group in cut_curves(records).items()
        },
    }


def task_outcomes(study: StudyResults, models: list[str], split: str) -> dict[str, Outcomes]:
    """Which images of a split these models of a task predict correctly, on the images that all of them predict."""
    return common_outcomes(
        {model: study.predictions[model][split] for model in models},
        {model: np.sort(study.results[model].predictions[split].index) for model in models},
        {model: study.records[model].best_repeat for model in models},
    )


def identify(model: str | None) -> dict[str, Any]:
    """A model and the SHA-256 of its weights, and of its record, which has the checksums of what it was made from."""
    if model is None:
        return {"model": None, "sha256": {}}
    with reading(MODELS_FOLDER / model):
        files = [MODELS_FOLDER / model / "record.json", weights_file(model, read_model_record(model).best_repeat)]
        return {"model": model, "sha256": {file.as_posix(): sha256_of(file) for file in files}}


if __name__ == "__main__":
    run_stage(main)
