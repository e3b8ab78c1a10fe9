"""A user's own folder of photographs, from nothing to a report, in the way and with the study that the README gives."""

import hashlib
import json
import re
import shutil
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tests.pipeline import commit, copy_of_project, dvc, edit_study, run, stages_run

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
PHOTOS = SHARED / "data" / "flowers.zip"
WEIGHTS = SHARED / "weights" / "mobilenet_v2_imagenet_notop.weights.h5"
pytestmark = [
    pytest.mark.skipif(not PHOTOS.exists(), reason="the photographs flowers.zip are not here"),
    pytest.mark.skipif(not WEIGHTS.exists(), reason="the ImageNet weights of MobileNetV2 are not here"),
]


def without_network(study: dict) -> None:
    """The weights from here, and little training: from scratch the steps of an epoch, on a third of the images."""
    sha256 = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    study["backbones"]["imagenet"] |= {"weights": str(WEIGHTS), "sha256": sha256}
    study["networks"]["scratch"] |= {"epochs": 1, "repeats": 1, "max_train_per_class": 20, "batch_size": 10}
    study["fine_tunes"]["top"] |= {"epochs": 2, "repeats": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A copy of the project after the README's commands, the environment being there; the output of the last."""
    photos = tmp_path_factory.mktemp("photos")
    with zipfile.ZipFile(PHOTOS) as archive:
        archive.extractall(photos)
    project = copy_of_project(tmp_path_factory.mktemp("project"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.search(r"<!-- commands: my_images -->\n```\n(.*?)```", readme, re.DOTALL)[1].splitlines()
    assert len(commands) == 3 and commands[2] == "dvc repro"
    run(project, "bash", "-euc", commands[1].replace("~/photos", str(photos)))
    edit_study(project, without_network)
    return project, dvc(project, "repro")


@pytest.fixture
def project(finished):
    return finished[0]


def sides(project: Path) -> dict[str, str]:
    split = pd.read_csv(project / "data/tasks/kinds/split.csv")
    return dict(zip(split["name"], split["split"], strict=True))


def test_a_head_on_frozen_features_recognises_flowers(finished):
    project, done = finished
    assert "prepare photos: 500 images of 5 classes, 160x160\n" in done.stdout
    metrics = json.loads((project / "reports/metrics.json").read_text())
    assert metrics["frozen"]["test"]["accuracy"] >= 0.8
    # An epoch from random weights teaches little: the pretrained features are what made the difference.
    assert metrics["scratch"]["test"]["accuracy"] < metrics["frozen"]["test"]["accuracy"] - 0.2
    assert metrics["frozen"]["cost"]["trained_parameters"] == 1280 * 5 + 5
    standardisation = 2 * 1280  # the means and variances of the frozen head's inputs, measured, not trained
    frozen_parameters = metrics["frozen"]["cost"]["total_parameters"]
    assert metrics["scratch"]["cost"]["total_parameters"] == frozen_parameters - standardisation
    assert "from features 'block-14'" in done.stdout
    assert metrics["top"]["test"]["accuracy"] >= 0.8  # a few careful steps do not spoil the head they start from
    assert metrics["top"]["cost"]["trained_parameters"] > metrics["frozen"]["cost"]["trained_parameters"]
    assert metrics["top"]["cost"]["total_parameters"] == frozen_parameters
    assert (project / "reports/report.html").exists()


def test_the_pictures_do_not_go_to_git(project):
    assert not run(project, "git", "status", "--porcelain", "my_images").stdout


def test_a_colleague_without_the_pictures_runs_nothing(project, tmp_path):
    dvc(project, "remote", "add", "-f", "-d", "team", str(tmp_path / "remote"))
    dvc(project, "push")
    commit(project)
    run(tmp_path, "git", "clone", "-q", str(project), "clone")
    assert not (tmp_path / "clone/my_images").exists()
    dvc(tmp_path / "clone", "pull")
    assert not stages_run(dvc(tmp_path / "clone", "repro", "--allow-missing"))
    assert sides(tmp_path / "clone") == sides(project)


def test_a_picture_more_reruns_what_depends_on_it_and_moves_no_other(project):
    before = sides(project)
    written = (project / "data/tasks/kinds/split.csv").read_bytes()
    mirrored = Image.open(next((project / "my_images/roses").iterdir())).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    mirrored.save(project / "my_images/roses/new.jpg")
    done = dvc(project, "repro", "split@kinds")
    assert stages_run(done) == {"prepare_folder@photos", "split@kinds"}
    after = sides(project)
    assert after.pop("roses/new.jpg") in ("train", "validation", "test")
    assert after == before
    (project / "my_images/roses/new.jpg").unlink()
    assert stages_run(dvc(project, "repro", "split@kinds")) == {"split@kinds"}  # the images are taken from the cache
    assert (project / "data/tasks/kinds/split.csv").read_bytes() == written


def test_a_moved_folder_gives_the_same_images_and_split(project, tmp_path):
    before = [(project / path).read_bytes() for path in ("data/images/photos/table.csv", "data/tasks/kinds/split.csv")]
    shutil.move(project / "my_images", tmp_path / "elsewhere")
    edit_study(project, lambda study: study["folders"]["photos"].update(path=str(tmp_path / "elsewhere")))
    assert stages_run(dvc(project, "repro", "split@kinds")) == {"prepare_folder@photos"}
    after = [(project / path).read_bytes() for path in ("data/images/photos/table.csv", "data/tasks/kinds/split.csv")]
    assert after == before
