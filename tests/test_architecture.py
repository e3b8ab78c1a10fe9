"""docs/architecture.md: it names what there is, and its exercises work as they stand there."""

import json
import re
import shutil
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from tests.conftest import plain, png, write_tree
from tests.pipeline import read_yaml, run

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
EXERCISES = dict(re.findall(r"^### (A \w+)\n(.*?)(?=^##)", PAGE, re.DOTALL | re.MULTILINE))
ADDITION = re.compile(
    r"In `([^`]+)`, (above|below|instead of) the line with `([^`]+)`:\n\n```python\n(.*?)```", re.DOTALL
)

# By Adam every step has the same size, whatever holds a weight back.
SGD = {"optimizer": "sgd", "learning_rate": 0.05, "repeats": 1}
STUDY = {
    "seed": 0,
    "datasets": {"digits": {"source": "digits", "image_size": 16}},
    "tasks": {"low": {"dataset": "digits", "include": [0, 1, 2], "validation": 0.2, "test": 0.3}},
    "backbones": {"new": {"architecture": "small_resnet", "weights": "random"}},
    "networks": {
        "base": {"dataset": "digits", "task": "low", "backbone": "new"},
        "free": {"dataset": "digits", "task": "low", "backbone": "base", **SGD},
        "held": {"dataset": "digits", "task": "low", "backbone": "base", **SGD, "l2_sp": 5.0},
    },
    "features": {"upper": {"dataset": "digits", "backbone": "base", "cut": "block2"}},
    "heads": {},
    "fine_tunes": {},
    "training": {
        "epochs": 4,
        "batch_size": 16,
        "optimizer": "adam",
        "learning_rate": 0.003,
        "early_stopping": None,
        "repeats": 2,
        "max_train_per_class": 40,
    },
}
STAGES = [
    *(("download", "digits"), ("prepare", "digits"), ("split", "low"), ("weights", "new")),
    *(("train", "base"), ("train", "free"), ("train", "held"), ("features", "upper")),
    *(("evaluate",), ("gallery", "low"), ("mistakes", "low"), ("report",)),
]
IN_ONE_PROCESS = """
import importlib
from stages.backbones.write_layer_table import main
print(main(["small_resnet"]))
from stages.core.stage import PARAMS
from stages.validation.study import load_study
study = load_study(PARAMS)
for stage, *entry in {stages}:
    print(stage, *entry, importlib.import_module("stages." + stage).main(study, *entry))
"""


def additions(exercise: str) -> list[tuple[str, str, str, str]]:
    """File, place, part of a line, and lines: what an exercise adds."""
    return ADDITION.findall(EXERCISES[exercise])


def apply(folder: Path, file: str, place: str, part: str, added: str) -> None:
    lines = (folder / file).read_text(encoding="utf-8").splitlines(keepends=True)
    (number,) = [number for number, line in enumerate(lines) if part in line]
    indent = re.match(" *", lines[number])[0]
    if added.startswith(("def ", "class ")):
        added += "\n" if indent else "\n\n"
    added = textwrap.indent(added, indent)
    lines[number] = {"above": added + lines[number], "below": lines[number] + added, "instead of": added}[place]
    (folder / file).write_text("".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with all exercises, in which what they add was used."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("stages", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "examples"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for exercise in EXERCISES:
        for addition in additions(exercise):
            apply(folder, *addition)
    (in_page,) = re.findall(r"```yaml\n(.*?)```", EXERCISES["A source"], re.DOTALL)
    pictures = {f"{name}_{number}.png": png(plain(number)) for name in ("cat", "dog") for number in range(3)}
    write_tree(folder / "pictures", {**pictures, ".DS_Store": b"", "nameless.png": png(plain(9))})
    folders = read_yaml(in_page)["folders"]
    folders["photos"]["max_unreadable"] = 0.2
    (folder / "params.yaml").write_text(json.dumps(STUDY | {"folders": folders}))
    run(folder, sys.executable, "-c", IN_ONE_PROCESS.format(stages=[("prepare", "photos"), *STAGES]))
    return folder


@pytest.mark.parametrize("exercise", ["A source", "A backbone", "A strategy", "A metric"])
def test_an_exercise_takes_fewer_than_thirty_lines(exercise):
    added = [line for *_, lines in additions(exercise) for line in lines.splitlines()]
    assert EXERCISES[exercise].count("```python") == len(additions(exercise))
    assert 0 < len(added) < 30


def test_the_code_of_the_exercises_is_in_the_style_of_the_project(project):
    for command in (["check"], ["format", "--diff"]):
        run(project, sys.executable, "-m", "ruff", *command, "stages")


def test_an_added_source_gives_images_through_prepare_and_stands_in_the_page_of_keys(project):
    images = project / "data/images/photos"
    assert np.load(images / "images.npy").shape == (6, 16, 16, 3)
    table = (images / "table.csv").read_text().splitlines()
    assert [line.split(",")[2] for line in table[1:]] == ["cat"] * 3 + ["dog"] * 3
    assert (images / "quarantine.csv").read_text().splitlines()[1:] == [
        "nameless.png,,its name has no _ behind the class"
    ]
    run(project, sys.executable, "-m", "docs.make")
    assert "`source: names`: A folder of images" in (project / "docs/studies.md").read_text()


def test_an_added_backbone_trains_and_gives_features(project):
    (cut,) = (project / "data/features/upper").glob("*/")
    found = np.load(cut / "features.npy")
    assert cut.name == "block2_out" and found.shape == (1797, 4, 4, 32) and found.any()
    assert metrics(project)["base"]["test"]["accuracy"] > 0.6


def test_an_added_strategy_changes_what_is_learned(project):
    def kernels(name):
        with h5py.File(project / f"data/weights/{name}/backbone.weights.h5") as file:
            found = []
            file.visititems(lambda _, item: found.append(item[:].ravel()) if isinstance(item, h5py.Dataset) else None)
        return np.concatenate(found)

    moved = {name: np.abs(kernels(name) - kernels("base")).mean() for name in ("free", "held")}
    assert 0 < moved["held"] < moved["free"] / 5


def test_an_added_metric_arrives_in_the_metrics_and_the_table_of_the_report(project):
    labels, probabilities = of_test_images(project, "free")
    expected = np.mean([cohen_kappa_score(labels, each.argmax(axis=1)) for each in probabilities])
    found = metrics(project)["free"]["test"]
    assert found["kappa"] == pytest.approx(expected, abs=1e-5)
    assert found["kappa_low"] <= found["kappa"] <= found["kappa_high"]
    assert "Cohen's kappa" in (project / "reports/report.md").read_text()


def metrics(project):
    return json.loads((project / "reports/metrics.json").read_text())


def of_test_images(project, model):
    """The labels (n,) of the test images, and what every repeat of a model says to them, (repeats, n, classes)."""
    with np.load(project / f"models/{model}/predictions.npz") as arrays:
        index, probabilities = arrays["test_index"], arrays["test_probabilities"]
    rows = [line.split(",") for line in (project / "data/tasks/low/split.csv").read_text().splitlines()]
    label_of = {int(row[0]): int(row[1]) for row in rows[1:]}
    return [label_of[each] for each in index], probabilities
