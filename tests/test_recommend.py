"""The recommended model of every task, as a file for others."""

import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from stages import evaluate, recommend
from stages.artifacts.images import read_images
from stages.core.errors import UserError
from stages.core.files import read_json, write_json
from stages.export import TOLERANCES, stored_answers
from tests.pipeline import ROOT
from tests.tiny_study import study

FOLDER = Path("exports/recommended/high")
SEVERAL = ["part", "above", "changed"]  # a network trained in bfloat16, a head, a fine-tune


def choose(model, task="high"):
    write_json(Path(f"reports/recommended/{task}.json"), evaluate.fingerprint(study(), model))


@pytest.mark.parametrize("model", SEVERAL)
def test_the_file_says_what_the_model_said_after_its_training(here, model):
    choose(model)
    recommend.main(study(), "high")
    index, stored = stored_answers(model)
    found = keras.saving.load_model(FOLDER / "model.keras").predict(read_images("digits").pixels[index], verbose=0)
    np.testing.assert_allclose(found, stored, atol=TOLERANCES["float16"])
    about = read_json(FOLDER / "model.json")
    assert (about["task"], about["model"], about["classes"]) == ("high", model, ["7", "8", "9"])
    assert sorted(path.name for path in FOLDER.iterdir()) == ["model.json", "model.keras"]


AGAIN = "from tests.tiny_study import study; from stages import recommend; recommend.main(study(), 'high')"


def test_another_process_writes_the_same_bytes(here):
    choose("changed")
    recommend.main(study(), "high")
    first = (FOLDER / "model.keras").read_bytes()
    (FOLDER / "model.keras").unlink()
    subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {AGAIN}"], check=True)
    assert (FOLDER / "model.keras").read_bytes() == first


def test_a_model_that_does_not_say_what_is_stored_is_not_written(here, capsys):
    choose("above")
    recommend.main(study(), "high")
    shutil.copy("models/fresh/predictions.npz", "models/above/predictions.npz")
    recommend.main(study(), "high")
    said = "the exported model differs from the stored predictions by up to"
    assert f"Warning, high: above is not exported: {said}" in capsys.readouterr().out
    assert [path.name for path in FOLDER.iterdir()] == ["model.json"]
    about = read_json(FOLDER / "model.json")
    assert about["model"] == "above" and about["not_exported"].startswith(said)


def test_of_a_task_without_models_there_is_no_file_and_what_was_there_goes(here):
    choose("above")
    recommend.main(study(), "high")
    choose(None)
    assert recommend.main(study(), "high") == "the study has no model of this task"
    assert [path.name for path in FOLDER.iterdir()] == ["model.json"]
    assert read_json(FOLDER / "model.json") == {"task": "high", "model": None}


def test_missing_weights_are_named(here):
    Path("models/above.weights.h5").unlink()
    for model in ("above", "cached"):  # which is made of it
        with pytest.raises(UserError, match=r"^models/above\.weights\.h5 is missing; `dvc repro` makes it\.$"):
            choose(model)


@pytest.mark.parametrize("model", ["base", "above", "cached"])
def test_other_weights_are_another_recommendation(here, model):
    parts = {"cached": ["cached", "above"]}.get(model, [model])
    before = evaluate.fingerprint(study(), model)
    assert before == evaluate.fingerprint(study(), model)
    for part in parts:
        with Path(f"models/{part}.weights.h5").open("ab") as file:
            file.write(b"more")
        after = evaluate.fingerprint(study(), model)
        assert after != before
        before = after
