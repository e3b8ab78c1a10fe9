"""A tiny study with all kinds of models, run stage by stage in one process."""

import importlib
from pathlib import Path

import yaml

from stages.core.params import Params

STUDY = {
    "seed": 3,
    "datasets": {"digits": {"source": "digits", "image_size": 16}},
    "folders": {},
    "tasks": {
        "low": {"dataset": "digits", "include": [0, 1, 2], "validation": 0.1, "test": 0.3},
        "high": {"dataset": "digits", "exclude": [0, 1, 2, 3, 4, 5, 6], "validation": 0.1, "test": 0.3},
    },
    "backbones": {"new": {"architecture": "four_conv", "weights": "random"}},
    "networks": {
        "base": {"dataset": "digits", "task": "low", "backbone": "new", "repeats": 1},
        "top": {"dataset": "digits", "task": "high", "backbone": "base", "trainable": "fc1", "repeats": 1},
        "part": {
            "dataset": "digits",
            "task": "high",
            "backbone": "base",
            "cut": "pool2",
            "pooling": "none",
            "hidden": [16],
            "trainable": 2,
            "augmentation": {"rotation": 10, "noise": 0.02},
            "precision": "bfloat16",
            "repeats": 1,
            "train_fraction": 0.1,
            "max_train_per_class": None,
        },
        "frozen": {"dataset": "digits", "task": "high", "backbone": "base", "trainable": "head", "repeats": 1},
    },
    "features": {
        "exact": {"dataset": "digits", "classes": [7, 8, 9], "backbone": "base", "cut": "pool1", "storage": "float32"},
        "upper": {"dataset": "digits", "classes": [7, 8, 9], "backbone": "base", "cut": "flatten"},
        "some": {"dataset": "digits", "backbone": "base", "cut": "fc1"},
        "several": {
            "dataset": "digits",
            "classes": [7, 8, 9],
            "backbone": "base",
            "cut": ["fc1", "conv3"],
            "views": [{"flip": "horizontal"}, {"rotation": 15}],
            "storage": "float32",
        },
        "vectors": {
            "dataset": "digits",
            "classes": [7, 8, 9],
            "backbone": "base",
            "cut": ["fc1", "flatten"],
            "storage": "float32",
        },
        "rough": {"dataset": "digits", "backbone": "base", "cut": "top", "precision": "bfloat16"},
    },
    "heads": {
        "fresh": {"task": "high", "features": "upper", "hidden": [8], "dropout": 0.2},
        "above": {"task": "high", "features": "upper", "start_from": "backbone"},
        "short": {"task": "high", "features": "some"},
        "choice": {
            "task": "high",
            "features": "several",
            "cut": "fc1",
            "learning_rate": [0.00001, 0.01],
            "l2": [0.0, 0.001],
        },
    },
    "probes": {
        "probe": {"task": "high", "features": "several", "cut": "conv3", "views": 1},
        "joined": {"task": "high", "features": "vectors", "cut": ["fc1", "flatten"]},
    },
    "fine_tunes": {
        "cached": {
            "dataset": "digits",
            "task": "high",
            "backbone": "base",
            "head": "above",
            "features": "exact",
            "unfreeze": "conv3",
        },
        "uncached": {
            "dataset": "digits",
            "task": "high",
            "backbone": "base",
            "head": "above",
            "features": "upper",
            "unfreeze": "conv3",
        },
        "changed": {
            "dataset": "digits",
            "task": "high",
            "backbone": "base",
            "head": "choice",
            "features": "several",
            "unfreeze": "all",
            "augmentation": {"shift": 0.1},
            "layer_decay": 0.5,
        },
        "from-probe": {
            "dataset": "digits",
            "task": "high",
            "backbone": "base",
            "head": "probe",
            "features": "exact",
            "unfreeze": 1,
        },
    },
    "training": {
        "epochs": 2,
        "batch_size": 32,
        "optimizer": "adam",
        "learning_rate": 0.001,
        "early_stopping": None,
        "repeats": 2,
        "max_train_per_class": 40,
    },
}

ORDER = [
    *(("download", "digits"), ("prepare", "digits"), ("split", "low"), ("split", "high"), ("weights", "new")),
    *(("train", "base"), ("train", "top"), ("train", "part"), ("train", "frozen")),
    *(("features", "exact"), ("features", "upper"), ("features", "several"), ("features", "vectors")),
    *(("head", "fresh"), ("head", "above"), ("head", "choice"), ("probe", "probe"), ("probe", "joined")),
    *(("fine_tune", "cached"), ("fine_tune", "uncached"), ("fine_tune", "changed"), ("fine_tune", "from-probe")),
]


def run(stage: str, entry: str) -> str:
    """Run a stage in the working folder, which becomes that of the tiny study."""
    if not Path("params.yaml").exists():
        Path("params.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    return importlib.import_module(f"stages.{stage}").main(Params(STUDY), entry)
