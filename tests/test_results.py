"""The published studies as they are run on local files, and the page that shows what came out."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import yaml

from benchmarks import results
from stages.core.errors import UserError
from stages.core.yaml import read_yaml
from stages.validation.study import validate_study

ROOT = Path(__file__).parents[1]
SETTINGS = yaml.safe_load(results.RUNS.read_text(encoding="utf-8"))
RUNS = SETTINGS["runs"]


@pytest.fixture
def files(tmp_path):
    """A folder with a file of every name that the runs ask for."""
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("cifar-10-binary.tar.gz", "chest_xray_224.zip", "flowers.zip", "dogs_cats.zip"):
        (folder / name).write_bytes(name.encode())
    for name in ("vgg16", "mobilenet_v2"):
        (folder / f"{name}_imagenet_notop.weights.h5").write_bytes(name.encode())
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_a_sound_study_and_what_is_told_of_models_is_of_its_models(name, files):
    settings = RUNS[name]
    path = ROOT / "studies" / f"{settings.get('study', name)}.yaml"
    study, problems = validate_study(results.changed(read_yaml(path), settings["changes"], files))
    assert not problems
    for key in ("published", "extrapolated", "export", "first_epochs"):
        assert set(settings.get(key, ())) <= set(study.models), key
    assert settings["title"] and settings["differs"]


def test_every_study_is_run_or_is_told_why_not():
    run = {settings.get("study", name) for name, settings in RUNS.items()}
    assert {path.stem for path in (ROOT / "studies").glob("*.yaml")} == run | set(SETTINGS["elsewhere"])


def test_changes_are_merged_null_removes_and_an_entry_with_a_source_is_put_whole(files):
    study = {"datasets": {"a": {"source": "kaggle", "version": 1}, "b": {"x": 1}}, "heads": {"h": {"x": 1, "y": 2}}}
    before = copy.deepcopy(study)
    changes = {
        "datasets": {"a": {"source": "archive", "url": "flowers.zip"}, "b": None},
        "heads": {"h": {"y": 3}},
    }
    found = results.changed(study, changes, files)
    archive = {
        "source": "archive",
        "url": str(files / "flowers.zip"),
        "sha256": results.sha256_of(files / "flowers.zip"),
    }
    assert found == {"datasets": {"a": archive}, "heads": {"h": {"x": 1, "y": 3}}}
    assert study == before


def test_a_file_that_is_not_there_is_named(files):
    with pytest.raises(UserError, match=r"nowhere\.zip is not there; put it there"):
        results.changed({}, {"datasets": {"a": {"url": "nowhere.zip"}}}, files)


def test_an_unknown_run_is_answered_with_those_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["results", str(tmp_path), str(tmp_path), "flower"])
    with pytest.raises(SystemExit, match=r"there is no run flower; accepted: cifar10_cut_layers, "):
        results.main()


@pytest.fixture
def finished(tmp_path):
    """A folder as a run of the default study leaves it."""
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "reports", clone / "reports")
    shutil.copy(ROOT / "params.yaml", clone)
    (clone / "data/costs/features").mkdir(parents=True)
    for name in read_yaml(clone / "params.yaml")["features"]:
        cost = {"seconds": 2.0, "images_per_second": 450.0, "machine": "some"}
        (clone / f"data/costs/features/{name}.json").write_text(json.dumps(cost))
    (clone / results.DONE).write_text(json.dumps({"exports": ["export b-one-layer: all well"]}))
    return clone


def test_the_page_shows_published_and_measured_figures_side_by_side(finished, monkeypatch):
    published = {"b-scratch": {"test": 12.5, "seconds": 77, "epochs": 120, "precision": 1.5, "recall": 2.5, "f1": 3.5}}
    settings = {
        "runs": {
            "some_run": {
                "study": "digits_class_groups",
                "title": "Some title",
                "differs": "Nothing differs.",
                "published": published,
                "extrapolated": ["b-scratch"],
                "first_epochs": ["b-top-conv"],
            },
            "another": {"title": "Other", "differs": ""},
        },
        "elsewhere": {"my_images": "the images are yours"},
    }
    made = {"some_run": results.found_in(finished, settings["runs"]["some_run"])}
    page = results.page_of(settings, made, [{"claim": "It holds.", "tests": "tests/a.py", "said": "1 passed"}])
    metrics = json.loads((finished / "reports/metrics.json").read_text())["b-scratch"]
    row = next(line for line in page.splitlines() if line.startswith("| b-scratch |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:2] == ["b-scratch", "120"] and float(cells[2]) == pytest.approx(
        metrics["training"]["epochs"], abs=0.1
    )
    assert cells[3:5] == ["12.5", f"{100 * metrics['test']['accuracy']:.2f}"]
    assert cells[5:7] == ["77", f"{metrics['cost']['seconds']:.0f}"]
    header = page.splitlines()[
        page.splitlines().index(row) - 2 - list(made["some_run"]["tasks"]["digits-b"]["models"]).index("b-scratch")
    ]
    assert header.count("|") == row.count("|")
    assert f"precision {100 * metrics['test']['macro_precision']:.2f} % (published 1.5)" in page
    assert "At or above the published test accuracy: 1 of 1 models." in page
    an_epoch = metrics["cost"]["seconds"] / metrics["training"]["epochs"]
    assert f"b-scratch at 120 epochs would take {an_epoch * 120:.0f} seconds here" in page
    assert "Not run: another." in page
    assert "- It holds. `pytest tests/a.py`: 1 passed." in page
    assert "| [my_images](../studies/my_images.yaml) | 3 | the images are yours |" in page
    assert "export b-one-layer: all well" in page
    assert "Features: b-fc1 2 seconds, 450 images per second; " in page


def test_an_export_that_crashes_is_no_finding(tmp_path):
    with pytest.raises(UserError, match=r"stages\.export none failed in "):
        results.exported(tmp_path, "none")  # where there is no project


def test_a_check_that_fails_is_an_error():
    with pytest.raises(UserError, match=r"tests/test_results\.py::test_nothing failed: "):
        results.checks_of([{"claim": "It holds.", "tests": "tests/test_results.py::test_nothing"}])
