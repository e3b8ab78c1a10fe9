"""A study of convolutional networks and transformers together, through DVC: from their files to predictions."""

import csv
import io
import json

import numpy as np
import pytest
import yaml
from PIL import Image

from stages.backbones.building import build_backbone
from stages.core.files import sha256_of
from stages.sources.preset_files import preset_checksum
from tests.pipeline import copy_of_project, dvc, run, run_in_one_process, stages_run
from tests.presets import save_preset

ARCHITECTURES, PRESETS = ["vgg16", "mobilenet_v2"], ["vit", "dinov2"]
POOLING = {"vit": "class_token", "dinov2": "class_token_and_average"}
TASK = {"dataset": "digits", "include": [0, 1, 2], "validation": 0.2, "test": 0.3, "max_per_class": 40}


def write_study(project):
    """Weights of all backbones in the folder `files`, and a study that uses each through probes and a head."""
    files, backbones = project / "files", {}
    files.mkdir()
    for name in ARCHITECTURES:
        file = files / f"{name}.weights.h5"
        build_backbone(name, 32).save_weights(file)
        backbones[name.replace("_", "-")] = {
            "architecture": name,
            "weights": f"files/{file.name}",
            "sha256": sha256_of(file),
        }
    for name in PRESETS:
        save_preset(name, files / name)
        sha256 = preset_checksum(files / name)
        backbones[name] = {"architecture": "preset", "weights": f"files/{name}", "sha256": sha256}
    fine_tunes = {
        "top-blocks": {"backbone": "dinov2", "unfreeze": 2, "layer_decay": 0.5},
        "updates": {"backbone": "vit", "tuning": "lora", "rank": 2},
        "convolutions": {"backbone": "vgg16", "unfreeze": "block5_conv3"},
    }
    study = {
        "seed": 0,
        "margin": 1,
        "datasets": {"digits": {"source": "digits", "image_size": 32}},
        "folders": {},
        "tasks": {"three": TASK},
        "backbones": backbones,
        "networks": {"whole": {"task": "three", "dataset": "digits", "backbone": "vit", "pooling": "class_token"}},
        "features": {
            name: {
                "dataset": "digits",
                "backbone": name,
                "classes": TASK["include"],
                "cut": "top",
                "pooling": POOLING.get(name, "average"),
            }
            for name in backbones
        }
        | {
            "dinov2-blocks": {
                "dataset": "digits",
                "backbone": "dinov2",
                "classes": TASK["include"],
                "cut": ["block1", "block2", "top"],
                "pooling": "class_token",
            }
        },
        "heads": {f"{name}-head": {"task": "three", "features": name} for name in backbones},
        "probes": {
            f"{name}-{ending}": {"task": "three", "features": name, "kind": kind}
            for name in backbones
            for ending, kind in (("knn", "nearest_neighbors"), ("linear", "logistic"))
        }
        | {"joined": {"task": "three", "features": "dinov2-blocks", "cut": ["top", "block1"], "kind": "ridge"}},
        "fine_tunes": {
            name: {
                "task": "three",
                "dataset": "digits",
                "head": f"{entry['backbone']}-head",
                "features": entry["backbone"],
                **entry,
            }
            for name, entry in fine_tunes.items()
        },
        "training": {
            "epochs": 1,
            "batch_size": 16,
            "optimizer": "adam",
            "learning_rate": 0.001,
            "early_stopping": None,
            "repeats": 1,
            "max_train_per_class": 10,
        },
    }
    (project / "params.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return study


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The project after all stages have run, its study, and the output of `dvc repro` after that."""
    project = copy_of_project(tmp_path_factory.mktemp("mixed"))
    study = write_study(project)
    entries = [
        f"{stage}@{name}"
        for stage, section in {
            "download": "datasets",
            "prepare": "datasets",
            "split": "tasks",
            "gallery": "tasks",
            "weights": "backbones",
            "features": "features",
            "probe": "probes",
            "head": "heads",
            "fine_tune": "fine_tunes",
            "train": "networks",
        }.items()
        for name in study[section]
    ]
    run_in_one_process(project, [*entries, "evaluate", "compare", "mistakes@three", "recommend@three", "report"])
    return project, study, dvc(project, "repro")


def test_nothing_runs_twice(finished):
    assert stages_run(finished[2]) == set()


def test_every_model_is_in_the_report(finished):
    project, study, _ = finished
    metrics = json.loads((project / "reports/metrics.json").read_text())
    models = [name for section in ("networks", "heads", "probes", "fine_tunes") for name in study[section]]
    assert sorted(metrics) == sorted(models)
    page = (project / "reports/report.html").read_text()
    assert all(f'id="model-{model}"' in page for model in models)


def test_the_report_ranks_the_backbones(finished):
    project, study, _ = finished
    comparison = json.loads((project / "reports/comparisons.json").read_text())["three"]
    assert {entry["backbone"] for entry in comparison["screen"]} == set(study["backbones"])
    assert all(len(entry["accuracies"]) == 2 for entry in comparison["screen"])
    assert comparison["screen_sentences"][0].startswith("Of 4 backbones, fine-tune ")
    assert "Which backbone first" in (project / "reports/report.html").read_text()


def test_low_rank_updates_train_and_store_few_weights(finished):
    project, _, _ = finished
    cost = {name: values["cost"] for name, values in json.loads((project / "reports/metrics.json").read_text()).items()}
    # Of rank 2, in three blocks of width 16 with two heads of 8: queries, keys, values, then the output; and the head.
    updates = 3 * (16 * 2 * 2 + 2 * 8) + 2 * 8 * 2 + 2 * 16
    assert cost["updates"]["trained_parameters"] == 3 * updates + 3 * 16 + 3
    standardization = 2 * 16
    assert cost["updates"]["total_parameters"] == cost["whole"]["total_parameters"] + standardization
    assert cost["updates"]["stored_megabytes"] < cost["whole"]["stored_megabytes"]


PREDICT_AND_EXPORT = """
import argparse, contextlib, io, json
from pathlib import Path
from stages import export, predict

printed = {}
for model in ["vit-knn", "joined", "updates", "top-blocks"]:
    images = argparse.Namespace(model=model, images=[Path("photo.png")], top=3, format="csv", ensemble=False)
    texts = [io.StringIO() for _ in range(3)]
    for text, (command, arguments) in zip(
        texts, [(predict, images), (export, argparse.Namespace(model=model, folder=Path("exports"))), (predict, images)]
    ):
        with contextlib.redirect_stdout(text):
            assert command.main(arguments) == 0
    printed[model] = [text.getvalue() for text in texts]
Path("printed.json").write_text(json.dumps(printed))
"""


def test_models_predict_and_are_exported(finished):
    project, _, _ = finished
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(project / "photo.png")
    run(project, "python", "-c", PREDICT_AND_EXPORT)
    for model, (before, exported, after) in json.loads((project / "printed.json").read_text()).items():
        assert f"exports/{model}.keras" in exported and f"exports/{model}.onnx" in exported
        rows = [list(csv.DictReader(io.StringIO(text))) for text in (before, after)]
        assert [row["class"] for row in rows[0]] == [row["class"] for row in rows[1]], model
        for first, second in zip(*rows, strict=True):  # in Keras, then by the exported ONNX file
            assert float(first["probability"]) == pytest.approx(float(second["probability"]), abs=2e-3), model
