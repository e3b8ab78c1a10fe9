"""The same pipeline on real photographs with a published network: only the study is another."""

import hashlib
import json
from pathlib import Path

import pytest

from tests.pipeline import copy_of_project, dvc, write_study

SHARED = Path(__file__).parents[1].parent / "shared"
PHOTOS = SHARED / "data" / "flowers.zip"
WEIGHTS = SHARED / "weights" / "mobilenet_v2_imagenet_notop.weights.h5"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def flowers_study() -> dict:
    """MobileNetV2 on 500 photos of flowers: a head on frozen features, a fine-tune, and a network from scratch."""
    return {
        "seed": 0,
        "datasets": {
            "flowers": {"source": "archive", "url": str(PHOTOS), "sha256": sha256(PHOTOS), "image_size": 160},
        },
        "tasks": {"kinds": {"dataset": "flowers", "validation": 0.15, "test": 0.3}},
        "backbones": {
            "imagenet": {"architecture": "mobilenet_v2", "weights": str(WEIGHTS), "sha256": sha256(WEIGHTS)},
            "untrained": {"architecture": "mobilenet_v2", "weights": "random"},
        },
        "networks": {
            "scratch": {"dataset": "flowers", "task": "kinds", "backbone": "untrained", "epochs": 2, "repeats": 1},
        },
        "features": {
            "frozen": {"dataset": "flowers", "backbone": "imagenet", "cut": "out_relu", "pooling": "average"},
            "block-14": {"dataset": "flowers", "backbone": "imagenet", "cut": "block_14_add"},
        },
        "heads": {"linear": {"task": "kinds", "features": "frozen"}},
        "fine_tunes": {
            "top": {
                "dataset": "flowers",
                "task": "kinds",
                "backbone": "imagenet",
                "head": "linear",
                "features": "block-14",
                "unfreeze": "block_15_expand",
                "learning_rate": 0.0001,
                "epochs": 4,
                "repeats": 1,
            },
        },
        "training": {
            "epochs": 100,
            "batch_size": 32,
            "optimizer": "adam",
            "learning_rate": 0.001,
            "early_stopping": 10,
            "repeats": 3,
            "max_train_per_class": None,
        },
    }


@pytest.mark.skipif(not PHOTOS.exists(), reason="the photographs flowers.zip are not here")
@pytest.mark.skipif(not WEIGHTS.exists(), reason="the ImageNet weights of MobileNetV2 are not here")
def test_a_head_on_frozen_features_recognises_flowers(tmp_path):
    project = copy_of_project(tmp_path)
    write_study(project, flowers_study())
    done = dvc(project, "repro")
    assert "prepare flowers: 500 images of 5 classes, 160x160\n" in done.stdout
    metrics = json.loads((project / "reports/metrics.json").read_text())
    assert metrics["linear"]["test"]["accuracy"] >= 0.82
    # Two epochs from random weights teach little: the pretrained features are what made the difference.
    assert metrics["scratch"]["test"]["accuracy"] < metrics["linear"]["test"]["accuracy"] - 0.2
    assert metrics["linear"]["cost"]["trained_parameters"] == 1280 * 5 + 5
    assert metrics["scratch"]["cost"]["total_parameters"] == metrics["linear"]["cost"]["total_parameters"]
    assert "from features 'block-14'" in done.stdout
    assert metrics["top"]["test"]["accuracy"] >= 0.82  # a few careful steps do not spoil the head they start from
    assert metrics["top"]["cost"]["trained_parameters"] > metrics["linear"]["cost"]["trained_parameters"]
    assert metrics["top"]["cost"]["total_parameters"] == metrics["linear"]["cost"]["total_parameters"]
    assert (project / "reports/report.html").exists()
