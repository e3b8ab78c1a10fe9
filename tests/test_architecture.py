"""The exercises of docs/architecture.md work exactly as the page describes them."""

import json
import re
import shutil
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from tests import dependencies
from tests.conftest import plain, png, write_tree
from tests.pipeline import read_yaml, run

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
EXERCISES = dict(re.findall(r"^### (A \w+)\n(.*?)(?=^##)", PAGE, re.DOTALL | re.MULTILINE))
ADDITION = re.compile(
    r"In (?:the new file )?`([^`]+)`(?:, (above|below|instead of) the line with `([^`]+)`)?:\n\n```python\n(.*?)```",
    re.DOTALL,
)
RUNS_AGAIN = re.compile(r"^Runs again: ([^.]+)\.", re.MULTILINE)

# With sgd the size of a step depends on the penalty; Adam normalizes it.
SGD = {"optimizer": "sgd", "learning_rate": 0.05, "repeats": 1}
FINE_TUNE = {"dataset": "digits", "task": "low", "backbone": "base", "head": "top", "features": "upper", "unfreeze": 3}
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
    "heads": {"top": {"task": "low", "features": "upper", "repeats": 1}},
    "probes": {},
    "fine_tunes": {"tuned-free": {**FINE_TUNE, **SGD}, "tuned-held": {**FINE_TUNE, **SGD, "l2_sp": 5.0}},
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
    *(("prepare", "photos"), ("download", "digits"), ("prepare", "digits"), ("split", "low"), ("weights", "new")),
    *(("train", "base"), ("train", "free"), ("train", "held"), ("features", "upper"), ("head", "top")),
    *(("fine_tune", "tuned-free"), ("fine_tune", "tuned-held"), ("gallery", "low"), ("evaluate",), ("compare",)),
    *(("mistakes", "low"), ("report",)),
]
IN_ONE_PROCESS = """
import importlib, json
import numpy as np
from stages.backbones.write_layer_table import main
main(["small_resnet"])
from stages.validation.study import load_study
from stages.core.params import PARAMS, Params
from stages.artifacts.margin import write_margin
write_margin(load_study(PARAMS).margin)
for stage, *entry in {stages}:
    importlib.import_module("stages." + stage).main(Params.read(), *entry)

from stages.artifacts.models import read_model_record
from stages.backbones.pretrained import load_backbone
from stages.training.full_model import load_full_model
start, _ = load_backbone("base", 16)
moved = {{}}
for name in ("free", "held", "tuned-free", "tuned-held"):
    layers = {{layer.name: layer.get_weights() for layer in load_full_model(read_model_record(name)).layers}}
    pairs = [(layer.get_weights(), layers[layer.name]) for layer in start.layers if layer.name in layers]
    moved[name] = float(np.mean([np.abs(a - b).mean() for pair in pairs for a, b in zip(*pair)]))
print(json.dumps(moved))
"""


def additions(exercise: str) -> list[tuple[str, str, str, str]]:
    """File, position and part of a line (empty for a new file), and the lines that an exercise adds."""
    return ADDITION.findall(EXERCISES[exercise])


def apply(folder: Path, file: str, position: str, part: str, added: str) -> None:
    if not position:
        (folder / file).write_text(added, encoding="utf-8")
        return
    lines = (folder / file).read_text(encoding="utf-8").splitlines(keepends=True)
    (number,) = [number for number, line in enumerate(lines) if part in line]
    indent = re.match(" *", lines[number])[0]
    if added.startswith(("def ", "class ")):
        added += "\n" if indent else "\n\n"
    added = textwrap.indent(added, indent)
    lines[number] = {"above": added + lines[number], "below": lines[number] + added, "instead of": added}[position]
    (folder / file).write_text("".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the project with all exercises."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("stages", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "examples"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for exercise in EXERCISES:
        for addition in additions(exercise):
            apply(folder, *addition)
    return folder


@pytest.fixture(scope="module")
def project(copy):
    """That copy, in which a study has used all additions; `moved.json` has how far weights moved in training."""
    (in_page,) = re.findall(r"```yaml\n(.*?)```", EXERCISES["A source"], re.DOTALL)
    pictures = {f"{name}_{number}.png": png(plain(number)) for name in ("cat", "dog") for number in range(3)}
    write_tree(copy / "pictures", {**pictures, ".DS_Store": b"", "nameless.png": png(plain(9))})
    folders = read_yaml(in_page)["folders"]
    folders["photos"]["max_unreadable"] = 0.2
    (copy / "params.yaml").write_text(json.dumps(STUDY | {"folders": folders}))
    done = run(copy, "python", "-c", IN_ONE_PROCESS.format(stages=STAGES))
    (copy / "moved.json").write_text(done.stdout.splitlines()[-1])
    return copy


@pytest.mark.parametrize("exercise", ["A source", "A backbone", "A strategy", "A metric"])
def test_an_exercise_takes_fewer_than_thirty_lines(exercise):
    lines = [line for *_, block in additions(exercise) for line in block.splitlines() if line]
    assert EXERCISES[exercise].count("```python") == len(additions(exercise))
    assert 0 < len(lines) < 30


@pytest.mark.parametrize("exercise", EXERCISES)
def test_an_exercise_lists_the_stages_that_depend_on_its_changes(exercise, copy, monkeypatch):
    monkeypatch.setattr(dependencies, "ROOT", copy)
    dependencies.imported_names.cache_clear()
    changed = {file for file, *_ in additions(exercise)}
    if "write_layer_table" in EXERCISES[exercise]:
        changed.add("stages/backbones/layers.json")
    depending = [name for name, stage in dependencies.stages().items() if changed & dependencies.files_of(stage)]
    (listed,) = RUNS_AGAIN.findall(EXERCISES[exercise])
    assert sorted(re.findall(r"`(\w+)`", listed)) == sorted(depending)
    dependencies.imported_names.cache_clear()


def test_the_code_of_the_exercises_is_in_the_style_of_the_project(copy):
    for command in (["check"], ["format", "--diff"]):
        run(copy, sys.executable, "-m", "ruff", *command, "stages")


def test_an_added_source_gives_images_through_prepare_and_is_in_the_page_of_keys(project):
    images = project / "data/images/photos"
    assert np.load(images / "images.npy").shape == (6, 16, 16, 3)
    table = (images / "table.csv").read_text().splitlines()
    assert [line.split(",")[2] for line in table[1:]] == ["cat"] * 3 + ["dog"] * 3
    quarantine = (images / "quarantine.csv").read_text().splitlines()
    assert quarantine[1:] == ["nameless.png,,the file name has no _ after the class"]
    run(project, "python", "-m", "docs.make")
    assert "`source: names`: A folder of images" in (project / "docs/studies.md").read_text()


def test_an_added_backbone_trains_and_gives_features(project):
    (cut,) = (project / "data/features/upper").glob("*/")
    features = np.load(cut / "features.npy")
    assert cut.name == "block2_out" and features.shape == (1797, 4, 4, 32) and features.any()
    assert metrics(project)["base"]["test"]["accuracy"] > 0.6


@pytest.mark.parametrize(("held", "free"), [("held", "free"), ("tuned-held", "tuned-free")])
def test_an_added_strategy_holds_the_weights_of_networks_and_fine_tunes(project, held, free):
    moved = json.loads((project / "moved.json").read_text())
    assert 0 < moved[held] < moved[free] / 5


def test_an_added_metric_is_in_the_metrics_and_the_table_of_the_report(project):
    labels, probabilities = predictions_on_test_images(project, "base")
    expected = np.mean([cohen_kappa_score(labels, repeat.argmax(axis=1)) for repeat in probabilities])
    # Not perfect, so that the interval of kappa is known.
    values = metrics(project)["base"]["test"]
    assert values["kappa"] == pytest.approx(expected, abs=1e-5)
    assert values["kappa_low"] <= values["kappa"] <= values["kappa_high"]
    assert "Cohen's kappa" in (project / "reports/report.md").read_text()


def metrics(project):
    return json.loads((project / "reports/metrics.json").read_text())


def predictions_on_test_images(project, model):
    """The labels (n,) of the test images, and the probabilities of every repeat of a model, (repeats, n, classes)."""
    with np.load(project / f"models/{model}/predictions.npz") as arrays:
        index, probabilities = arrays["test_index"], arrays["test_probabilities"]
    rows = [line.split(",") for line in (project / "data/tasks/low/split.csv").read_text().splitlines()]
    labels = {int(row[0]): int(row[1]) for row in rows[1:]}
    return [labels[row] for row in index], probabilities
