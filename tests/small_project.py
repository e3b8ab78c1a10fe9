"""A small study through the pipeline, from which tests of sharing and of experiments start."""

from pathlib import Path

from tests.pipeline import commit, copy_of_project, run_in_one_process, write_study

# Entries have the names of the default study, so that the commands of docs/experiments.md fit both.
STUDY = {
    "seed": 0,
    "datasets": {"digits": {"source": "digits", "image_size": 16}},
    "folders": {},
    "tasks": {"digits-b": {"dataset": "digits", "include": [5, 6, 7], "validation": 0.1, "test": 0.2}},
    "backbones": {"four-conv": {"architecture": "four_conv", "weights": "random"}},
    "networks": {"a-scratch": {"dataset": "digits", "task": "digits-b", "backbone": "four-conv"}},
    "features": {"b-fc1": {"dataset": "digits", "classes": [5, 6, 7], "backbone": "a-scratch", "cut": "fc1"}},
    # Enough steps for different learning rates to give different predictions.
    "heads": {"b-one-layer": {"task": "digits-b", "features": "b-fc1", "learning_rate": 0.001, "epochs": 30}},
    "probes": {"b-ridge": {"task": "digits-b", "features": "b-fc1", "kind": "ridge"}},
    "fine_tunes": {},
    "training": {
        "epochs": 1,
        "batch_size": 32,
        "optimizer": "adam",
        "learning_rate": 0.001,
        "early_stopping": None,
        "repeats": 1,
        "max_train_per_class": 10,
    },
}

DATA_STAGES = ["download@digits", "prepare@digits", "split@digits-b"]
STAGES = [
    *DATA_STAGES, "gallery@digits-b", "weights@four-conv", "train@a-scratch", "features@b-fc1", "head@b-one-layer",
    "probe@b-ridge", "evaluate", "compare", "mistakes@digits-b", "recommend@digits-b", "report",
]  # fmt: skip


def small_project(folder: Path, stages: list[str] = STAGES) -> Path:
    """A copy of the project with the small study, in which these stages have run; committed."""
    copy_of_project(folder)
    write_study(folder, STUDY)
    run_in_one_process(folder, stages, are_all=stages == STAGES)
    commit(folder)
    return folder
