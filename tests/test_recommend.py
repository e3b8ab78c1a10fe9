"""The recommended model of every task, as a file for others."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from stages import recommend
from stages.artifacts.images import read_images
from stages.artifacts.models import read_model_record, read_result, weights_file
from stages.core.errors import UserError
from stages.core.files import read_json, write_json
from stages.core.params import Params
from stages.training.calibration import at_temperature
from stages.training.exporting import TOLERANCES
from tests.pipeline import ROOT
from tests.tiny_study import STUDY

FOLDER = Path("exports/recommended/high")
PARAMS = Params(STUDY)


def choose(model, task="high"):
    write_json(Path(f"reports/recommended/{task}.json"), {"model": model})


@pytest.mark.numeric
@pytest.mark.parametrize("model", ["part", "above", "changed"])  # a network in bfloat16, a head, a fine-tune
def test_the_file_predicts_what_the_model_predicted_after_its_training(here, model):
    choose(model)
    recommend.main(PARAMS, "high")
    result = read_result(model)
    test = result.predictions["test"]
    exported = keras.saving.load_model(FOLDER / "model.keras")
    predictions = exported.predict(read_images("digits").pixels[test.index], verbose=0)
    expected = at_temperature(test.probabilities[result.record.best_repeat], result.record.temperature)
    # A temperature below 1 makes differences larger.
    np.testing.assert_allclose(predictions, expected, atol=TOLERANCES["float16"] / min(1, result.record.temperature))
    summary = read_json(FOLDER / "model.json")
    assert (summary["task"], summary["model"], summary["classes"]) == ("high", model, ["7", "8", "9"])
    assert sorted(path.name for path in FOLDER.iterdir()) == ["model.json", "model.keras"]


def test_the_file_does_not_depend_on_what_the_study_says_now(here):
    choose("part")
    recommend.main(PARAMS, "high")
    first = (FOLDER / "model.keras").read_bytes()
    edited = json.loads(json.dumps(STUDY))
    edited["networks"]["part"] |= {"activation": "tanh", "hidden": [3]}
    recommend.main(Params(edited), "high")
    assert (FOLDER / "model.keras").read_bytes() == first


AGAIN = "from tests.test_recommend import PARAMS, recommend; recommend.main(PARAMS, 'high')"


def test_another_process_writes_the_same_bytes(here):
    choose("changed")
    recommend.main(PARAMS, "high")
    first = (FOLDER / "model.keras").read_bytes()
    (FOLDER / "model.keras").unlink()
    subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {AGAIN}"], check=True)
    assert (FOLDER / "model.keras").read_bytes() == first


def test_a_model_that_does_not_predict_what_is_stored_is_not_written(here, capsys):
    choose("above")
    recommend.main(PARAMS, "high")
    shutil.copy("models/fresh/predictions.npz", "models/above/predictions.npz")
    recommend.main(PARAMS, "high")
    problem = "the predictions of the exported model differ from the stored ones by up to"
    assert f"Warning, high: above was not exported: {problem}" in capsys.readouterr().out
    assert [path.name for path in FOLDER.iterdir()] == ["model.json"]
    summary = read_json(FOLDER / "model.json")
    assert summary["model"] == "above" and summary["not_exported"].startswith(problem)


def test_a_task_without_models_has_no_file_and_the_old_one_is_removed(here):
    choose("above")
    recommend.main(PARAMS, "high")
    choose(None)
    assert recommend.main(PARAMS, "high") == "the study has no model of this task"
    assert [path.name for path in FOLDER.iterdir()] == ["model.json"]
    assert read_json(FOLDER / "model.json") == {"task": "high", "model": None}


def test_missing_weights_are_named(here):
    choose("above")
    weights_file("above", read_model_record("above").best_repeat).unlink()
    with pytest.raises(
        UserError, match=r"^models/above/weights/repeat-\d\.weights\.h5 is missing\. Run `dvc checkout`, or `dvc repro`"
    ):
        recommend.main(PARAMS, "high")
