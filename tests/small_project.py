"""A small study through the real pipeline: what tests of sharing and of experiments start from."""

from pathlib import Path

from tests.pipeline import commit, copy_of_project, run_in_one_process, write_study

# The names are those of the default study, of which this is a part: the commands of docs/experiments.md fit both.
STUDY = {
    "seed": 0,
    "datasets": {"digits": {"source": "digits", "image_size": 16}},
    "folders": {},
    "tasks": {"digits-b": {"dataset": "digits", "include": [5, 6, 7], "validation": 0.1, "test": 0.2}},
    "backbones": {"four-conv": {"architecture": "four_conv", "weights": "random"}},
    "networks": {"a-scratch": {"dataset": "digits", "task": "digits-b", "backbone": "four-conv"}},
    "features": {"b-fc1": {"dataset": "digits", "classes": [5, 6, 7], "backbone": "a-scratch", "cut": "fc1"}},
    "heads": {
        "b-one-layer": {"task": "digits-b", "features": "b-fc1", "learning_rate": 0.001, "epochs": 1},
        "b-two-layers": {"task": "digits-b", "features": "b-fc1", "kind": "ridge"},
    },
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

ORDER = [
    "sound", "download@digits", "prepare@digits", "split@digits-b", "gallery@digits-b", "weights@four-conv",
    "train@a-scratch", "features@b-fc1", "head@b-one-layer", "head@b-two-layers", "evaluate", "mistakes@digits-b",
    "recommend@digits-b", "report",
]  # fmt: skip


def small_project(folder: Path) -> Path:
    """A copy of the project in which the small study has run, committed."""
    copy_of_project(folder)
    write_study(folder, STUDY)
    run_in_one_process(folder, ORDER)
    commit(folder)
    return folder
