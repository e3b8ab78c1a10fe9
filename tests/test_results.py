"""The published studies as benchmarks/results.yaml runs them on local files."""

from pathlib import Path

import pytest
import yaml

from benchmarks import results
from stages.core.yaml import read_yaml
from stages.validation.study import validate_study

ROOT = Path(__file__).parents[1]
SETTINGS = yaml.safe_load(results.RUNS.read_text(encoding="utf-8"))
RUNS = SETTINGS["runs"]


@pytest.fixture
def files(tmp_path):
    """A folder with a file of every name that the runs use."""
    for name in ("cifar-10-binary.tar.gz", "chest_xray_published_224.zip", "flowers_160.zip", "dogs_cats_160.zip"):
        (tmp_path / name).write_bytes(name.encode())
    for name in ("vgg16", "mobilenet_v2"):
        (tmp_path / f"{name}_imagenet_notop.weights.h5").write_bytes(name.encode())
    return tmp_path


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_a_valid_study_and_its_settings_name_its_models(name, files):
    settings = RUNS[name]
    path = ROOT / "studies" / f"{settings.get('study', name)}.yaml"
    study, problems = validate_study(results.changed(read_yaml(path), settings["changes"], files))
    assert not problems
    for key in ("published", "extrapolated", "export", "first_epochs"):
        assert set(settings.get(key, ())) <= set(study.models), key
    assert settings["title"] and settings["differs"]


def test_every_study_has_a_run_or_a_reason_for_having_none():
    run = {settings.get("study", name) for name, settings in RUNS.items()}
    assert {path.stem for path in (ROOT / "studies").glob("*.yaml")} == run | set(SETTINGS["elsewhere"])


@pytest.mark.parametrize("test", [test for check in SETTINGS["checks"] for test in check["tests"].split()])
def test_the_tests_of_a_claim_exist(test):
    file, name = test.split("::")
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")
