"""Trained models in use: predicting images of one's own, and export to files that need nothing of the project."""

import csv
import io
import json
import os
import runpy
import subprocess
import sys
import zipfile
from argparse import ArgumentParser, Namespace
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
import yaml
from PIL import Image

from stages import export, predict
from stages.artifacts.images import read_images
from stages.artifacts.models import read_result
from stages.backbones.building import build_backbone, layer_names
from stages.backbones.cuts import up_to_cut
from stages.backbones.onnx_export import inference_model, write_onnx
from stages.backbones.preprocessing import Preprocessing, affine_preprocessing
from stages.backbones.registry import ARCHITECTURES
from stages.core.command import run_command
from stages.core.errors import UserError
from stages.core.files import read_json, write_json
from stages.training.trained_model import load_trained_model
from tests.pipeline import ROOT
from tests.tiny_study import STUDY, study

MODELS = ["base", "part", "frozen", "fresh", "above", "choice", "probe", "cached", "uncached", "changed", "from-probe"]


def stored(name):
    """Rows of the test images, and what the kept repeat said to them."""
    result = read_result(name)
    test = result.predictions["test"]
    return test.index, test.probabilities[result.record.best_repeat]


@pytest.fixture
def photos(here):
    """Test images of the task `high`, as files; their names and what `above` said to them."""
    index, probabilities = stored("above")
    folder = Path("photos")
    (folder / "more").mkdir(parents=True)
    for number, pixels in enumerate(read_images("digits").pixels[index[:70]]):
        Image.fromarray(pixels).save(folder / f"{'more/' if number % 2 else ''}{number:03}.png")
    return folder, probabilities


@pytest.mark.parametrize("name", MODELS)
def test_a_model_predicts_what_it_predicted_after_its_training(here, name):
    index, probabilities = stored(name)
    trained = load_trained_model(study(), name)
    found = trained.model.predict(read_images("digits").pixels[index], verbose=0)
    # A fine-tune and a head may have seen features stored in float16.
    coarse = 5e-3 if name in ("fresh", "above", "cached", "uncached") else 1e-5
    np.testing.assert_allclose(found, probabilities, atol=0.01 if name == "part" else coarse)
    assert trained.classes == (["0", "1", "2"] if name == "base" else ["7", "8", "9"])
    assert (trained.dataset, trained.image_size, trained.resize) == ("digits", 16, "crop")


@pytest.mark.parametrize("name", ["above", "cached"])
def test_a_model_is_not_joined_to_other_weights_than_it_was_trained_with(here, name):
    record = Path("models") / name / "record.json"
    write_json(record, {**read_json(record), "weights_sha256": "0" * 64})
    with pytest.raises(
        UserError, match=rf"models/{name} was made with other weights of 'base' than there are now; run"
    ):
        load_trained_model(study(), name)


def test_an_unknown_model_is_answered_with_those_there_are(here):
    with pytest.raises(
        UserError, match=r"no model 'abov' in the study \(did you mean 'above'\?\); accepted: base, top"
    ):
        load_trained_model(study(), "abov")


def test_a_model_that_is_not_there_is_named(here):
    Path("models/above.weights.h5").unlink()
    for model in ("above", "cached"):  # which is made of it
        with pytest.raises(UserError, match=r"^models/above\.weights\.h5 is missing; `dvc repro` makes it\.$"):
            load_trained_model(study(), model)
    Path("models/above/record.json").unlink()
    with pytest.raises(UserError, match=r"models/above/record\.json is missing; `dvc repro` makes it"):
        load_trained_model(study(), "above")


# Predicting.


def predicted(capsys, *images, model="above", **options) -> tuple[int, str, str]:
    given = {"top": 5, "format": "text", **options, "model": model, "images": [Path(image) for image in images]}
    code = predict.main(study(), Namespace(**given))
    said = capsys.readouterr()
    return code, said.out, said.err


def test_files_and_folders_are_predicted_in_order_with_the_probabilities_of_the_test(photos, capsys):
    folder, probabilities = photos
    code, out, _ = predicted(capsys, folder / "004.png", folder, format="json")
    answers = json.loads(out)
    names = [f"{folder}/{number:03}.png" for number in range(0, 70, 2)]
    names += [f"{folder}/more/{number:03}.png" for number in range(1, 70, 2)]
    assert code == 0 and [answer["image"] for answer in answers] == [f"{folder}/004.png", *names]
    for answer in answers:
        told = {each["class"]: each["probability"] for each in answer["classes"]}
        number = int(Path(answer["image"]).stem)
        np.testing.assert_allclose([told[name] for name in "789"], probabilities[number], atol=5e-3)
        assert list(told.values()) == sorted(told.values(), reverse=True)


def test_a_table_has_a_row_for_each_of_the_most_probable_classes(photos, capsys):
    folder, _ = photos
    code, out, _ = predicted(capsys, folder / "000.png", folder / "002.png", format="csv", top=2)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and [row["rank"] for row in rows] == ["1", "2", "1", "2"]
    assert [row["image"] for row in rows] == [f"{folder}/000.png"] * 2 + [f"{folder}/002.png"] * 2
    assert all(0 <= float(row["probability"]) <= 1 for row in rows)


def test_text_has_a_line_for_each_image(photos, capsys):
    folder, probabilities = photos
    _, out, _ = predicted(capsys, folder / "000.png", top=1)
    best = "789"[probabilities[0].argmax()]
    assert out.startswith(f"{folder}/000.png: {best} ") and out.endswith(" %\n") and out.count("\n") == 1


def test_images_are_made_square_as_those_of_the_dataset_were(here, capsys):
    pixels = read_images("digits").pixels[stored("above")[0][0]]
    wide = np.concatenate([np.zeros_like(pixels), pixels, np.zeros_like(pixels)], axis=1)
    Image.fromarray(pixels).save("square.png")
    Image.fromarray(wide).save("wide.png")  # of which the middle square is taken
    _, out, _ = predicted(capsys, "square.png", "wide.png", format="json")
    square, cropped = json.loads(out)
    assert square["classes"] == cropped["classes"]


def test_what_cannot_be_read_is_told_with_the_reason_and_the_others_are_answered(photos, capsys):
    folder, _ = photos
    (folder / "a.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("passed over")
    (folder / ".hidden.png").write_bytes(b"passed over")
    code, out, err = predicted(capsys, folder)
    assert code == 1 and out.count("\n") == 70
    assert err == f"predict: '{folder}/a.jpg' is left out: the file is no image of a known format.\n"


def test_where_there_is_no_image_nothing_is_predicted(here, capsys):
    Path("empty").mkdir()
    with pytest.raises(
        UserError, match=r"there is no image in the folder 'empty'; their names end with \.bmp, \.gif, \.jpeg, "
    ):
        predicted(capsys, "empty")
    with pytest.raises(UserError, match=r"there is no image or folder 'nowhere\.jpg'; correct the path"):
        predicted(capsys, "nowhere.jpg")


def test_class_names_and_file_names_of_any_kind_leave_the_output_whole():
    answers = [predict.Answer("a,\n'b'.jpg", [('<b>"x"\n', 0.75), ("ü", 0.25)])]
    text, table, listed = io.StringIO(), io.StringIO(), io.StringIO()
    predict.write_text(answers, text)
    predict.write_csv(answers, table)
    predict.write_json(answers, listed)
    assert text.getvalue().count("\n") == 1
    assert [row["class"] for row in csv.DictReader(io.StringIO(table.getvalue()))] == ['<b>"x"\n', "ü"]
    assert json.loads(listed.getvalue())[0]["classes"][0] == {"class": '<b>"x"\n', "probability": 0.75}


# Exporting.


def exported(name: str, **options) -> int:
    return export.main(study(), Namespace(model=name, folder=Path("out"), **options))


LOADED_ELSEWHERE = """
import sys, zipfile
import keras, numpy as np
assert not any(name.startswith("stages") for name in sys.modules)
for name in sys.argv[1:]:
    model = keras.saving.load_model(f"out/{name}.keras")
    with zipfile.ZipFile(f"out/{name}.keras") as archive:
        print(archive.read("classes.json").decode())
    np.save(f"{name}.npy", model.predict(np.load("pixels.npy"), verbose=0))
"""


def test_an_exported_model_needs_nothing_of_the_project_and_predicts_the_same(here, capsys):
    names = ["part", "above", "probe", "changed"]
    pixels = read_images("digits").pixels[stored("part")[0]]
    np.save("pixels.npy", pixels)
    for name in names:
        assert exported(name) == 0
        said = capsys.readouterr().out
        assert f"export {name}: out/{name}.keras (" in said and "160 test images differ" in said
    # In one process: most of its time it imports Keras.
    run = [sys.executable, "-I", "-c", LOADED_ELSEWHERE, *names]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    told = {"classes": ["7", "8", "9"], "image_size": 16, "resize": "crop"}
    assert [json.loads(line) for line in done.stdout.splitlines()] == [told] * len(names)
    for name in names:
        index, probabilities = stored(name)
        np.testing.assert_array_equal(index, stored("part")[0])
        tolerance = 0.01 if name == "part" else 5e-3
        np.testing.assert_allclose(np.load(f"{name}.npy"), probabilities, atol=tolerance)
        np.testing.assert_allclose(
            export.onnx_model(Path(f"out/{name}.onnx"))(pixels[:7]), probabilities[:7], atol=tolerance
        )
        properties = {each.key: json.loads(each.value) for each in onnx.load(f"out/{name}.onnx").metadata_props}
        assert properties == told
        with zipfile.ZipFile(f"out/{name}.keras") as archive:
            assert b"stages" not in archive.read("config.json")
    assert {path.name for path in Path("out").iterdir()} == {
        f"{name}.{end}" for name in names for end in ("keras", "onnx")
    }


def test_a_model_that_does_not_predict_what_is_stored_is_not_exported(here):
    network = load_trained_model(study(), "base").model
    network.get_layer("predictions").kernel.assign(-network.get_layer("predictions").kernel)
    network.save_weights("models/base.weights.h5")
    with pytest.raises(
        UserError, match=r"base: the exported model differs from the stored predictions by up to \S+, more"
    ):
        exported("base")
    assert list(Path("out").iterdir()) == []


def test_a_model_whose_onnx_file_gives_no_numbers_is_not_exported(here, monkeypatch):
    monkeypatch.setattr(export, "onnx_model", lambda file: lambda pixels: np.full((len(pixels), 3), np.nan))
    with pytest.raises(UserError, match=r"base: the exported model differs from the stored predictions by up to nan"):
        exported("base")
    assert list(Path("out").iterdir()) == []


def test_a_network_that_the_converter_does_not_know_is_told_in_a_sentence(here, monkeypatch):
    def fails(*arguments):
        raise RuntimeError("no such\noperation")

    monkeypatch.setattr(export, "write_onnx", fails)
    with pytest.raises(UserError, match=r"^base: its network cannot be written as ONNX \(no such operation\); use"):
        exported("base")
    assert list(Path("out").iterdir()) == []


def test_a_study_that_wants_its_images_otherwise_than_they_were_prepared_is_refused(here):
    record = Path("data/images/digits/record.json")
    write_json(record, {**read_json(record), "resize": "pad"})
    with pytest.raises(UserError, match=r"images of 'digits' were prepared with image_size 16, resize pad, which"):
        load_trained_model(study(), "base")


def test_without_its_images_a_model_is_not_exported(here):
    Path("data/images/digits/images.npy").unlink()
    with pytest.raises(UserError, match=r"data/images/digits/images\.npy is missing; `dvc repro` makes it"):
        exported("base")


@pytest.mark.parametrize(
    "architecture",
    ["four_conv", "vgg16", "mobilenet_v2", "densenet121", "efficientnet_b0", "convnext_tiny", "mobilenet_v3_small"],
)
def test_the_exported_preprocessing_is_that_of_the_architecture(architecture):
    layer = Preprocessing(architecture, dtype="float32")
    kernel, bias = affine_preprocessing(layer)
    pixels = np.random.default_rng(0).integers(0, 256, (200, 3), dtype=np.uint8)
    expected = keras.ops.convert_to_numpy(layer(pixels.reshape(200, 1, 1, 3))).reshape(200, 3)
    np.testing.assert_allclose(pixels @ kernel + bias, expected, rtol=1e-6, atol=3e-5)


def test_every_preprocessing_is_an_affine_map_of_the_channels():
    pixels = np.random.default_rng(1).integers(0, 256, (50, 3), dtype=np.uint8)
    for architecture in ARCHITECTURES:
        layer = Preprocessing(architecture, dtype="float32")
        kernel, bias = affine_preprocessing(layer)
        expected = keras.ops.convert_to_numpy(layer(pixels.reshape(50, 1, 1, 3))).reshape(50, 3)
        np.testing.assert_allclose(pixels @ kernel + bias, expected, rtol=1e-6, atol=3e-5, err_msg=architecture)


@pytest.mark.parametrize("architecture", ["convnext_tiny", "efficientnet_v2_b0"])
def test_a_published_network_is_exported_as_it_is(architecture, tmp_path):
    """Its lower quarter, which has all kinds of its layers: the whole of it takes a minute to convert."""
    backbone = build_backbone(architecture, 32)
    names = layer_names(backbone)
    model = up_to_cut(backbone, names[len(names) // 4])
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    expected = model.predict_on_batch(pixels)
    written = inference_model(model, "net")
    export.write_keras(written, {"classes": []}, tmp_path / "net.keras")
    write_onnx(written, tmp_path / "net.onnx")
    for ask in (export.keras_model(tmp_path / "net.keras"), export.onnx_model(tmp_path / "net.onnx")):
        np.testing.assert_allclose(ask(pixels), expected, rtol=1e-3, atol=1e-4)


# The commands themselves.


def command(*arguments: str) -> subprocess.CompletedProcess:
    """Run a command where the tiny study has run."""
    Path("params.yaml").write_text(yaml.safe_dump(STUDY))
    run = [sys.executable, "-m", *arguments]
    return subprocess.run(run, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT), "PATH": ""})


def test_predict_is_a_command(photos):
    folder, _ = photos
    done = command("stages.predict", "above", str(folder), "--top", "2", "--format", "csv")
    assert done.returncode == 0 and done.stdout.count("\n") == 1 + 2 * 70


def test_a_reader_that_has_seen_enough_ends_the_output_without_a_word(photos):
    Path("params.yaml").write_text(yaml.safe_dump(STUDY))
    predicting = f"{sys.executable} -m stages.predict above photos photos photos photos --format csv"
    shell = ["bash", "-c", f"{predicting} | head -1; exit ${{PIPESTATUS[0]}}"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    done = subprocess.run(shell, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout) == (0, "image,rank,class,probability\n")
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (KeyboardInterrupt(), 130, "predict: interrupted.\n"),
        (
            OSError(28, "No space left on device", "exports/a.keras"),
            1,
            "'exports/a.keras' cannot be used (No space left",
        ),
        (OSError("odd"), 1, "predict: a file cannot be read or written (odd); make room or mend the permission.\n"),
    ],
)
def test_whatever_ends_a_command_is_told_in_a_sentence(here, capsys, monkeypatch, error, code, sentence):
    def work(study, given):
        raise error

    Path("params.yaml").write_text(yaml.safe_dump(STUDY))
    monkeypatch.setattr("sys.argv", ["predict"])
    with pytest.raises(SystemExit) as ended:
        run_command(ArgumentParser("predict"), work)
    assert ended.value.code == code and sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("stages.predict", "abov", "photos"),
            "predict: there is no model 'abov' in the study (did you mean 'above'?)",
        ),
        (
            ("stages.predict", "above", "elsewhere"),
            "predict: there is no image or folder 'elsewhere'; correct the path.",
        ),
        (("stages.predict", "above", "photos", "--top", "0"), "'0' is not accepted; give a whole number from 1 up"),
        (("stages.predict", "above", "photos", "--format", "xml"), "invalid choice: 'xml'"),
        (("stages.export", "abov"), "export: there is no model 'abov' in the study (did you mean 'above'?)"),
    ],
)
def test_a_wrong_command_is_answered_in_a_sentence(photos, capsys, monkeypatch, arguments, sentence):
    Path("params.yaml").write_text(yaml.safe_dump(STUDY))
    monkeypatch.setattr("sys.argv", [*arguments])
    monkeypatch.delitem(sys.modules, arguments[0])  # to be run it is read again
    # As `python -m` would, but for the import of TensorFlow each time; another error than this is a traceback.
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    out, err = capsys.readouterr()
    assert ended.value.code and sentence in err and not out and not Path("exports").exists()


def test_a_study_with_a_problem_is_answered_with_it(here):
    Path("params.yaml").write_text("seed: 0\n")
    run = [sys.executable, "-m", "stages.predict", "above", "."]
    done = subprocess.run(run, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT), "PATH": ""})
    assert (
        done.returncode == 1 and done.stderr.startswith("predict: params.yaml has ") and "Traceback" not in done.stderr
    )
