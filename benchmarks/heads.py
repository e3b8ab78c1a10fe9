"""How accurate heads and probes are, beside scikit-learn's logistic regression on the same features and split.

    python -m benchmarks.heads <files> [--work folder]

files: a folder with the archives of ARCHIVES and the ImageNet weights of MobileNetV2, also in subfolders. work: where
the study is run, by default a temporary folder; images and features that are there are not computed again.

Each data set is run with 5, 20 and all training images of a class. Logistic regression has the strength of the highest
validation accuracy. `default head`: a head without any setting of its own, with the section `training` of
studies/my_images.yaml. `my_images`: the head of that study. The last two columns are the project's own probes, which
choose their strength by the validation loss. The last row has the mean differences from logistic regression, in points.
"""

import argparse
import contextlib
import importlib
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import yaml
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from benchmarks.tables import table
from stages.artifacts.models import read_predictions
from stages.artifacts.tasks import SPLITS, read_task, row_labels
from stages.backbones.cached_features import read_features
from stages.core.files import sha256_of
from stages.core.params import Params
from stages.core.yaml import read_yaml
from stages.probes.standardization import StandardizedFeatures, channel_statistics
from stages.validation.study import validate_study

STUDY = Path(__file__).parents[1] / "studies/my_images.yaml"
ARCHIVES = {
    "flowers": "flowers_160.zip",
    "birds": "birds_cub30_160.zip",
    "dogs": "dogs_cats_160.zip",
    "xrays": "chest_xray_published_224.zip",
}
WEIGHTS = "mobilenet_v2_imagenet_notop.weights.h5"
SIZES = (5, 20, None)  # training images of a class; None for all
INVERSE_STRENGTHS = [10.0**power for power in range(-4, 2)]
HEADS = ("default head", "my_images")
PROBES = ("ridge", "logistic")


def file_in(files: Path, name: str) -> Path:
    """The file of this name in a folder or its subfolders."""
    path = next(files.resolve().rglob(name), None)
    if path is None:
        raise SystemExit(f"{files} has no {name}.")
    return path


def study_of(files: Path) -> dict[str, Any]:
    """A study with all data sets, and for each size two heads and two probes, each trained once."""

    def archive(name: str) -> dict[str, Any]:
        path = file_in(files, name)
        return {"source": "archive", "url": str(path), "sha256": sha256_of(path), "image_size": 160}

    own = read_yaml(STUDY)
    datasets = {name: archive(path) for name, path in ARCHIVES.items()}
    datasets["digits"] = {"source": "digits", "image_size": 96}
    tasks = {name: {"dataset": name, "validation": 0.2, "test": 0.2} for name in datasets}
    tasks["xrays"] |= {"test": "published", "group": r"(person\d+|IM-\d+)"}
    study = {
        **own,
        "datasets": datasets,
        "folders": {},
        "tasks": tasks,
        "backbones": {"imagenet": {"architecture": "mobilenet_v2"}},
        "features": {
            name: {"dataset": name, "backbone": "imagenet", "cut": "out_relu", "pooling": "average"}
            for name in datasets
        },
        **{"heads": {}, "probes": {}, "fine_tunes": {}},
        "training": {**own["training"], "repeats": 1},
    }
    weights = file_in(files, WEIGHTS)
    study["backbones"]["imagenet"] |= {"weights": str(weights), "sha256": sha256_of(weights)}
    recipe = {key: value for key, value in own["heads"]["frozen"].items() if key != "cut"}
    for name in datasets:
        for size in SIZES:
            basis = {"task": name, "features": name, "max_train_per_class": size}
            study["heads"][model_name(name, size, "default head")] = basis
            study["heads"][model_name(name, size, "my_images")] = {**recipe, **basis}
            for kind in PROBES:
                study["probes"][model_name(name, size, kind)] = {**basis, "kind": kind}
    validate_study(study)
    return study


def model_name(dataset: str, size: int | None, kind: str) -> str:
    """The name of the entry of a model."""
    return f"{dataset}-{size or 'all'}-{kind.replace(' ', '-').replace('_', '-')}"


def run(params: Params, stage: str, name: str, output: str | None = None) -> None:
    """Run a stage for an entry, unless its output exists."""
    if output is None or not Path(output).exists():
        with contextlib.redirect_stdout(sys.stderr):
            print(f"{stage} {name}: {importlib.import_module(f'stages.{stage}').main(params, name)}")


def test_accuracy(model: str, task: str) -> float:
    """The test accuracy of a model in percent."""
    predictions = read_predictions(model)["test"]
    labels = row_labels(read_task(task).rows("test").set_index("index").loc[predictions.index])
    return 100 * float((predictions.probabilities[0].argmax(axis=1) == labels).mean())


def logistic_regression(dataset: str, size: int | None) -> tuple[int, float]:
    """The number of training images, and the test accuracy in percent of the best strength on validation."""
    task, features = read_task(dataset), read_features(dataset)
    rows = {split: task.rows(split, *([size] if split == "train" else [])) for split in SPLITS}
    positions = {split: features.positions(part["index"].to_numpy(np.int64)) for split, part in rows.items()}
    standardized = StandardizedFeatures(features.array, *channel_statistics(features.array, positions["train"]))
    inputs = {split: np.concatenate([*standardized.blocks(part)]) for split, part in positions.items()}
    labels = {split: row_labels(part) for split, part in rows.items()}
    scores = []
    for strength in INVERSE_STRENGTHS:
        classifier = LogisticRegression(C=strength, max_iter=500).fit(inputs["train"], labels["train"])
        scores.append([classifier.score(inputs[split], labels[split]) for split in ("validation", "test")])
    best = int(np.argmax([validation for validation, _ in scores]))
    return len(labels["train"]), 100 * scores[best][1]


def compare(study: dict[str, Any]) -> None:
    """Run the study in the working folder and print the table."""
    params = Params(study)
    run(params, "weights", "imagenet", "data/weights/imagenet")
    rows, differences = [], []
    for name in study["tasks"]:
        run(params, "download", name, f"data/raw/{name}")
        run(params, "prepare", name, f"data/images/{name}")
        run(params, "split", name, f"data/tasks/{name}")
        run(params, "features", name, f"data/features/{name}")
        for size in SIZES:
            models = [model_name(name, size, kind) for kind in (*HEADS, *PROBES)]
            for stage, model in zip(("head", "head", "probe", "probe"), models, strict=True):
                run(params, stage, model)
            images, expected = logistic_regression(name, size)
            accuracies = [test_accuracy(model, name) for model in models]
            rows.append((name, size or "all", images, expected, *accuracies))
            differences.append(np.subtract(accuracies, expected))
    table(
        "Test accuracy in percent",
        (
            "data set",
            "images per class",
            "images",
            "logistic regression",
            *HEADS,
            *(f"probe ({kind})" for kind in PROBES),
        ),
        *rows,
        ("mean difference", "", "", "", *np.mean(differences, axis=0).tolist()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path)
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    study = study_of(given.files)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        Path("params.yaml").write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
        compare(study)


if __name__ == "__main__":
    main()
