"""Trained models in use: predicting images, and exporting files that need nothing of the project."""

import csv
import io
import json
import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from argparse import ArgumentParser, Namespace
from dataclasses import asdict, replace
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from PIL import Image

from stages import export, predict
from stages.artifacts.images import read_images
from stages.artifacts.models import read_model_record, read_result, weights_file
from stages.backbones.building import build_backbone, layer_names
from stages.backbones.cuts import up_to_cut
from stages.backbones.onnx_export import inference_model, write_onnx
from stages.backbones.preprocessing import Preprocessing, affine_preprocessing
from stages.backbones.registry import ARCHITECTURES
from stages.core.command import run_command
from stages.core.errors import UserError
from stages.core.files import sha256_of, write_json
from stages.reporting.predictions import Prediction, write_csv, write_text
from stages.reporting.predictions import write_json as write_json_predictions
from stages.sources.decoding import UNKNOWN_FORMAT
from stages.training import exporting
from stages.training.calibration import at_temperature
from stages.training.exported import exported_predictor, onnx_predictor
from stages.training.full_model import load_full_model
from stages.training.stored_models import find_model
from tests.conftest import encode, plain, png, write_tree
from tests.pipeline import ROOT, edit_study

MODELS = [
    "base",
    "top",
    "part",
    "frozen",
    "fresh",
    "above",
    "choice",
    "probe",
    "joined",
    "cached",
    "uncached",
    "changed",
    "from-probe",
]


def stored(name):
    """Rows of the test images, and the probabilities that the best repeat gave them."""
    result = read_result(name)
    test = result.predictions["test"]
    return test.index, test.probabilities[result.record.best_repeat]


def used_weights(name):
    return weights_file(name, read_model_record(name).best_repeat)


def calibrated(name):
    """The same at the temperature of the model: what it predicts in use."""
    index, probabilities = stored(name)
    return index, at_temperature(probabilities, read_model_record(name).temperature)


def tolerance_of(name):
    """`part` computes in bfloat16, and the cached features of these heads and fine-tunes are stored in float16."""
    return 1e-2 if name == "part" else 5e-3 if name in ("fresh", "above", "cached", "uncached") else 1e-5


def check_predictions(name):
    result, images = read_result(name), read_images("digits")
    model = load_full_model(result.record)
    for predictions in result.predictions.values():
        index, probabilities = predictions.of_repeat(result.record.best_repeat)
        predicted = model.predict(images.pixels[index], verbose=0)
        np.testing.assert_allclose(predicted, probabilities, atol=tolerance_of(name))


@pytest.fixture
def photos(here):
    """Test images of the task `high`, as files; their names and the calibrated probabilities of `above`."""
    index, probabilities = calibrated("above")
    folder = Path("photos")
    (folder / "more").mkdir(parents=True)
    for number, pixels in enumerate(read_images("digits").pixels[index[:70]]):
        Image.fromarray(pixels).save(folder / f"{'more/' if number % 2 else ''}{number:03}.png")
    return folder, probabilities


@pytest.mark.numeric
@pytest.mark.parametrize("name", MODELS)
def test_a_model_predicts_what_it_predicted_after_its_training(here, name):
    check_predictions(name)


@pytest.mark.parametrize("name", ["base", "above", "probe", "cached", "from-probe"])
def test_a_record_describes_the_model(here, name):
    record = read_model_record(name)
    assert record.classes == (["0", "1", "2"] if name == "base" else ["7", "8", "9"])
    assert (record.dataset, record.image_size, record.resize) == ("digits", 16, "crop")
    assert (record.provenance.architecture, record.folds) == ("four_conv", list(range(record.repeats)))


# A model is rebuilt from its record, whatever params.yaml says now.


def change(section, name, **values):
    edit_study(Path(), lambda study: (study[section][name] if name else study[section]).update(values))


@pytest.mark.parametrize(
    ("model", "section", "entry", "values", "sentence"),
    [
        ("part", "networks", "part", {"activation": "tanh"}, "activation relu; params.yaml now says activation tanh"),
        ("part", "networks", "part", {"hidden": [8, 8]}, "hidden [16]; params.yaml now says hidden [8, 8]"),
        ("part", "networks", "part", {"pooling": "max"}, "pooling none; params.yaml now says pooling max"),
        ("part", "networks", "part", {"cut": "pool1"}, "cut pool2; params.yaml now says cut pool1"),
        ("fresh", "heads", "fresh", {"hidden": [3]}, "hidden [8]; params.yaml now says hidden [3]"),
        ("fresh", "features", "upper", {"cut": "fc1"}, "cut flatten; params.yaml now says cut fc1"),
        ("fresh", "features", "upper", {"backbone": "new"}, "backbone base; params.yaml now says backbone new"),
        ("probe", "probes", "probe", {"cut": "fc1"}, "cut conv3; params.yaml now says cut fc1"),
        ("joined", "probes", "joined", {"cut": "fc1"}, "cut flatten + fc1; params.yaml now says cut fc1"),
        ("cached", "heads", "above", {"start_from": "random"}, "above start_from backbone; params.yaml now says above"),
        ("cached", "fine_tunes", "cached", {"unfreeze": 1}, "unfreeze conv3; params.yaml now says unfreeze 1"),
        ("above", "datasets", "digits", {"image_size": 32}, "image_size 16; params.yaml now says image_size 32"),
        ("above", "datasets", "digits", {"resize": "pad"}, "resize crop; params.yaml now says resize pad"),
        ("above", "tasks", "high", {"rename": {7: "seven"}}, 'rename {}; params.yaml now says rename {"7": "seven"}'),
        ("above", "training", None, {"epochs": 9}, "epochs 2; params.yaml now says epochs 9"),
        ("probe", "training", None, {"max_train_per_class": 9}, "max_train_per_class 40; params.yaml now says max_t"),
        ("probe", "probes", "probe", {"class_weights": "balanced"}, "class_weights none; params.yaml now says class"),
        ("fresh", "features", "upper", {"precision": "bfloat16"}, "precision float32; params.yaml now says precision"),
        # What the model was built on.
        ("cached", "heads", "above", {"epochs": 9}, "above epochs 2; params.yaml now says above epochs 9"),
        (
            "cached",
            "features",
            "exact",
            {"storage": "float16"},
            "storage float32; params.yaml now says storage float16",
        ),
        ("fresh", "networks", "base", {"epochs": 9}, "base epochs 2; params.yaml now says base epochs 9"),
        ("cached", "networks", "base", {"dropout": 0.5}, "base dropout 0.0; params.yaml now says base dropout 0.5"),
    ],
)
def test_an_edited_setting_is_reported_and_the_trained_one_is_used(
    here, capsys, model, section, entry, values, sentence
):
    change(section, entry, **values)
    find_model("predict", model)
    printed = capsys.readouterr().err
    assert printed.startswith(f"predict: {model} was trained with ") and sentence in printed
    assert printed.endswith("The trained settings are used. Run `dvc repro` to train it again.\n")
    check_predictions(model)


def test_other_weights_of_the_backbone_of_a_fine_tune_are_reported(here, capsys):
    shutil.rmtree("data/weights/base")
    shutil.copytree("data/weights/top", "data/weights/base")
    find_model("predict", "cached")
    sentence = "predict: cached was made with other weights of base than data/weights/base holds now.\n"
    assert capsys.readouterr().err == sentence
    check_predictions("cached")  # its own file holds all weights


def test_a_model_whose_settings_are_those_of_the_study_is_used_without_a_word(here, capsys):
    for name in MODELS:
        find_model("predict", name)
    assert capsys.readouterr().err == ""


def test_a_model_is_used_beside_a_study_that_is_invalid_or_missing(here, capsys):
    Path("params.yaml").write_text("seed: 0\n")
    find_model("export", "above")
    assert capsys.readouterr().err.startswith("export: above cannot be compared with params.yaml, which is not valid")
    Path("params.yaml").unlink()
    find_model("export", "above")
    assert capsys.readouterr().err == ""
    check_predictions("above")


# Files that do not belong together are refused.


def replace_weights(source, target):
    shutil.copy(used_weights(source), used_weights(target))


@pytest.mark.parametrize(("source", "target"), [("above", "fresh"), ("changed", "uncached"), ("top", "part")])
def test_weights_of_another_commit_are_refused(here, source, target):
    replace_weights(source, target)
    with pytest.raises(
        UserError,
        match=rf"^models/{target}/weights/repeat-\d\.weights\.h5 does not belong to models/{target}/record\.json:",
    ):
        load_full_model(read_model_record(target))


@pytest.mark.parametrize("name", ["above", "probe"])
def test_a_head_is_not_joined_to_other_weights_of_its_backbone(here, name):
    shutil.rmtree("data/weights/base")
    shutil.copytree("data/weights/top", "data/weights/base")
    with pytest.raises(UserError, match=rf"^models/{name} does not belong to data/weights/base: it was trained with"):
        load_full_model(read_model_record(name))


def test_a_fine_tune_and_a_network_need_no_other_weights_than_their_own(here):
    shutil.rmtree("data/weights")
    shutil.rmtree("models/above")
    for name in ("cached", "part"):
        check_predictions(name)


def test_an_unknown_model_is_answered_with_the_trained_ones(here):
    with pytest.raises(
        UserError,
        match=r"^model 'abov' does not exist \(did you mean 'above'\?\)\. Trained models: above, base, cached",
    ):
        find_model("predict", "abov")


def test_a_model_that_is_not_trained_is_named(here):
    used_weights("above").unlink()
    with pytest.raises(
        UserError, match=r"^models/above/weights/repeat-\d\.weights\.h5 is missing\. Run `dvc checkout`, or"
    ):
        load_full_model(read_model_record("above"))
    shutil.rmtree("models/above")
    with pytest.raises(UserError, match=r"^above is not trained yet: models/above is missing\. Run `dvc repro`\.$"):
        find_model("predict", "above")


# Predicting.


def predicted(capsys, *images, model="above", **options) -> tuple[int, str, str]:
    given = {
        "top": 5,
        "format": "text",
        "ensemble": False,
        **options,
        "model": model,
        "images": [Path(image) for image in images],
    }
    code = predict.main(Namespace(**given))
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.numeric
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


@pytest.mark.numeric
def test_images_are_cropped_as_the_training_images_were(here, capsys):
    pixels = read_images("digits").pixels[stored("above")[0][0]]
    wide = np.concatenate([np.zeros_like(pixels), pixels, np.zeros_like(pixels)], axis=1)
    Image.fromarray(pixels).save("square.png")
    Image.fromarray(wide).save("wide.png")  # the middle square is kept
    _, out, _ = predicted(capsys, "square.png", "wide.png", format="json")
    square, cropped = (
        [(entry["class"], entry["probability"]) for entry in image["classes"]] for image in json.loads(out)
    )
    assert [name for name, _ in square] == [name for name, _ in cropped]
    # Rows of one batch may be summed in another order: float32 keeps seven digits.
    np.testing.assert_allclose([p for _, p in square], [p for _, p in cropped], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jfif", encode(plain((9, 9, 9)), "JPEG")),
        ("a.JPG_large", encode(plain((9, 9, 9)), "JPEG")),
        ("photo", encode(plain((9, 9, 9)), "WEBP")),
        ("a.avif", encode(plain((9, 9, 9)), "AVIF")),
        ("scan.txt", png(plain((9, 9, 9)))),
        ("deep/er/a.ppm", encode(plain((9, 9, 9)), "PPM")),
    ],
)
def test_what_is_an_image_is_decided_by_content(here, capsys, name, content):
    write_tree("new", {name: content})
    code, out, err = predicted(capsys, "new")
    assert (code, err) == (0, "") and out.startswith(f"new/{name}: ")
    assert predicted(capsys, f"new/{name}") == (code, out, err)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jpg", b"no image", f"{UNKNOWN_FORMAT}."),
        ("notes.txt", b"two cats", f"{UNKNOWN_FORMAT}."),
        ("a.png", b"", "the file is empty."),
        ("b.jpg", encode(plain((9, 9, 9)), "JPEG")[:-50], "Truncated File Read."),
        (".hidden.png", png(plain((9, 9, 9))), "it is hidden. Rename it."),
        ("link.png", Path("/etc/passwd"), "it leads out of the folder."),
        ("gone.png", Path("nothing.png"), "it cannot be read (No such file or directory)."),
    ],
)
def test_what_is_left_out_is_listed_with_the_reason(here, capsys, name, content, reason):
    write_tree("new", {"000.png": png(plain((9, 9, 9))), ".DS_Store": b"of macOS", "._a.jpg": b"of macOS too"})
    if isinstance(content, Path):
        Path("new", name).symlink_to(content)
    else:
        Path("new", name).write_bytes(content)
    code, out, err = predicted(capsys, "new")
    assert code == 1 and out.startswith("new/000.png: ") and out.count("\n") == 1
    assert err == f"predict: 'new/{name}' was skipped: {reason}\n"


def test_a_link_to_a_folder_is_an_error_as_in_a_dataset(photos, capsys):
    write_tree("new", {"000.png": png(plain((9, 9, 9)))})
    Path("new/more").symlink_to(Path("photos").resolve())
    with pytest.raises(UserError, match=r"^'new/more' is a link to a folder, which is not followed\. Replace it with"):
        predicted(capsys, "new")
    code, out, _ = predicted(capsys, "new/more")  # named by the user
    assert code == 0 and out.count("\n") == 70


def test_a_path_without_images_is_an_error(here, capsys):
    Path("empty").mkdir()
    with pytest.raises(UserError, match=r"^'empty' holds no files\. Put images there, or correct the path\.$"):
        predicted(capsys, "empty")
    with pytest.raises(UserError) as error:
        predicted(capsys, "nowhere.jpg", "empty", "nowhere")
    assert error.value.sentences == tuple(
        f"{name!r} does not exist. Correct the path." for name in ("nowhere.jpg", "nowhere")
    )


def test_odd_class_names_and_file_names_do_not_break_the_output():
    predictions = [Prediction("a,\n'b'.jpg", [('<b>"x"\n', 0.75), ("ü", 0.25)])]
    text, table, listed = io.StringIO(), io.StringIO(), io.StringIO()
    write_text(predictions, text)
    write_csv(predictions, table)
    write_json_predictions(predictions, listed)
    assert text.getvalue().count("\n") == 1
    assert [row["class"] for row in csv.DictReader(io.StringIO(table.getvalue()))] == ['<b>"x"\n', "ü"]
    assert json.loads(listed.getvalue())[0]["classes"][0] == {"class": '<b>"x"\n', "probability": 0.75}


# Exporting.


def exported(name: str, **options) -> int:
    return export.main(Namespace(model=name, folder=Path("out"), **options))


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


@pytest.mark.numeric
def test_an_exported_model_needs_nothing_of_the_project_and_predicts_the_same(here, capsys):
    names = ["part", "above", "probe", "changed"]
    pixels = read_images("digits").pixels[stored("part")[0]]
    np.save("pixels.npy", pixels)
    for name in names:
        assert exported(name) == 0
        printed = capsys.readouterr().out
        assert f"export {name}: out/{name}.keras (" in printed and "160 test images differ" in printed
    # In one process: most of its time it imports Keras.
    run = [sys.executable, "-I", "-c", LOADED_ELSEWHERE, *names]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    metadata = {"classes": ["7", "8", "9"], "image_size": 16, "resize": "crop"}
    assert [json.loads(line) for line in done.stdout.splitlines()] == [metadata] * len(names)
    for name in names:
        index, probabilities = calibrated(name)
        np.testing.assert_array_equal(index, stored("part")[0])
        tolerance = 0.01 if name == "part" else 5e-3
        np.testing.assert_allclose(np.load(f"{name}.npy"), probabilities, atol=tolerance)
        np.testing.assert_allclose(
            onnx_predictor(Path(f"out/{name}.onnx"))(pixels[:7]), probabilities[:7], atol=tolerance
        )
        properties = {entry.key: json.loads(entry.value) for entry in onnx.load(f"out/{name}.onnx").metadata_props}
        assert properties == metadata | {"record_sha256": sha256_of(Path(f"models/{name}/record.json"))}
        with zipfile.ZipFile(f"out/{name}.keras") as archive:
            assert b"stages" not in archive.read("config.json")
    assert {path.name for path in Path("out").iterdir()} == {
        f"{name}.{end}" for name in names for end in ("keras", "onnx")
    }


def test_a_model_that_does_not_predict_what_is_stored_is_not_exported(here):
    record = read_model_record("base")
    network = load_full_model(record)
    network.get_layer("predictions").kernel.assign(-network.get_layer("predictions").kernel)
    network.save_weights(used_weights("base"))
    sha256 = sha256_of(used_weights("base"))
    write_json(Path("models/base/record.json"), asdict(replace(record, weights_sha256=[sha256] * record.repeats)))
    with pytest.raises(
        UserError,
        match=r"^base was not exported: the predictions of the exported model differ from the stored ones by up",
    ):
        exported("base")
    assert list(Path("out").iterdir()) == []


def test_a_model_whose_onnx_file_gives_no_numbers_is_not_exported(here, monkeypatch):
    monkeypatch.setattr(export, "onnx_predictor", lambda file: lambda pixels: np.full((len(pixels), 3), np.nan))
    with pytest.raises(
        UserError,
        match=r"^base was not exported: the predictions of the exported model differ from the stored ones by up to nan",
    ):
        exported("base")
    assert list(Path("out").iterdir()) == []


def test_a_network_that_cannot_be_converted_is_an_error_in_one_sentence(here, monkeypatch):
    def fails(*arguments):
        raise RuntimeError("no such\noperation")

    monkeypatch.setattr("stages.backbones.onnx_export.write_onnx", fails)
    with pytest.raises(UserError, match=r"^base cannot be converted to ONNX \(no such operation\)\. Use another"):
        exported("base")
    assert list(Path("out").iterdir()) == []


def test_without_its_images_a_model_is_not_exported(here):
    Path("data/images/digits/images.npy").unlink()
    with pytest.raises(UserError, match=r"data/images/digits/images\.npy is missing. Run `dvc repro` to create it"):
        exported("base")


@pytest.mark.numeric
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


@pytest.mark.numeric
def test_every_preprocessing_is_an_affine_map_of_the_channels():
    pixels = np.random.default_rng(1).integers(0, 256, (50, 3), dtype=np.uint8)
    for architecture in ARCHITECTURES:
        layer = Preprocessing(architecture, dtype="float32")
        kernel, bias = affine_preprocessing(layer)
        expected = keras.ops.convert_to_numpy(layer(pixels.reshape(50, 1, 1, 3))).reshape(50, 3)
        np.testing.assert_allclose(pixels @ kernel + bias, expected, rtol=1e-6, atol=3e-5, err_msg=architecture)


@pytest.mark.numeric
@pytest.mark.parametrize("architecture", ["convnext_tiny", "efficientnet_v2_b0"])
def test_a_published_network_is_exported_as_it_is(architecture, tmp_path):
    """Its lower quarter, which has all kinds of its layers: the whole of it takes a minute to convert."""
    backbone = build_backbone(architecture, 32)
    names = layer_names(backbone)
    model = up_to_cut(backbone, names[len(names) // 4])
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    expected = model.predict_on_batch(pixels)
    written = inference_model(model, "net")
    exporting.write_keras(written, {"classes": []}, tmp_path / "net.keras")
    write_onnx(written, tmp_path / "net.onnx")
    for ask in (exporting.keras_predictor(tmp_path / "net.keras"), onnx_predictor(tmp_path / "net.onnx")):
        np.testing.assert_allclose(ask(pixels), expected, rtol=1e-3, atol=1e-4)


# Predicting with the exported file.


@pytest.fixture
def with_exports(here):
    """The model `above`, exported to exports/."""
    assert export.main(Namespace(model="above", folder=Path("exports"))) == 0


@pytest.mark.numeric
def test_predict_uses_the_exported_file_without_the_framework(with_exports, photos):
    folder, probabilities = photos
    code = "import sys, runpy; sys.argv = ['predict', *sys.argv[1:]]\n"
    code += "try: runpy.run_module('stages.predict', run_name='__main__')\n"
    code += "finally: assert not {'keras', 'tensorflow', 'onnx'} & {*sys.modules}"
    arguments = ["above", str(folder / "000.png"), "--format", "json"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    run = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(run, capture_output=True, text=True, check=True, env=environment)
    [answer] = json.loads(done.stdout)
    told = {each["class"]: each["probability"] for each in answer["classes"]}
    np.testing.assert_allclose([told[name] for name in "789"], probabilities[0], atol=5e-3)


def another_record():
    path = Path("models/above/record.json")
    path.write_text(path.read_text() + "\n")


def damaged_file():
    Path("exports/above.onnx").write_bytes(b"damaged")


def file_of_another_model():
    export.main(Namespace(model="fresh", folder=Path("exports")))
    Path("exports/fresh.onnx").replace("exports/above.onnx")


@pytest.mark.parametrize("change", [another_record, damaged_file, file_of_another_model])
def test_an_exported_file_that_is_not_of_the_model_is_reported_and_not_used(with_exports, change, capsys):
    change()
    capsys.readouterr()
    assert exported_predictor(read_model_record("above")) is None
    assert capsys.readouterr().err == (
        "predict: exports/above.onnx is damaged or of an earlier training, and is not used. Run `python -m "
        "stages.export above` to write it again.\n"
    )


def test_without_an_exported_file_or_in_bfloat16_the_model_itself_predicts(here, capsys):
    assert exported_predictor(read_model_record("above")) is None
    Path("exports").mkdir()
    Path("exports/part.onnx").touch()  # it would compute in float32
    assert exported_predictor(read_model_record("part")) is None
    assert capsys.readouterr().err == ""


# The commands themselves.


def command(*arguments: str) -> subprocess.CompletedProcess:
    """Run a command where the tiny study has run."""
    run = [sys.executable, "-m", *arguments]
    return subprocess.run(run, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT), "PATH": ""})


def test_predict_is_a_command(photos):
    folder, _ = photos
    done = command("stages.predict", "above", str(folder), "--top", "2", "--format", "csv")
    assert done.returncode == 0 and done.stdout.count("\n") == 1 + 2 * 70


def test_a_closed_pipe_ends_the_output_without_an_error(photos):
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
        (
            OSError("odd"),
            1,
            "predict: a file cannot be read or written (odd). Free some space, or correct the permissions.\n",
        ),
    ],
)
def test_a_command_that_ends_early_says_why_in_one_sentence(here, capsys, monkeypatch, error, code, sentence):
    def work(arguments):
        raise error

    monkeypatch.setattr("sys.argv", ["predict"])
    with pytest.raises(SystemExit) as ended:
        run_command(ArgumentParser("predict"), work)
    assert ended.value.code == code and sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("stages.predict", "abov", "photos"),
            "predict: model 'abov' does not exist (did you mean 'above'?)",
        ),
        (
            ("stages.predict", "above", "elsewhere"),
            "predict: 'elsewhere' does not exist. Correct the path.",
        ),
        (("stages.predict", "above", "photos", "--top", "0"), "'0' is not a whole number from 1 up"),
        (("stages.predict", "above", "photos", "--format", "xml"), "invalid choice: 'xml'"),
        (("stages.export", "abov"), "export: model 'abov' does not exist (did you mean 'above'?)"),
    ],
)
def test_a_wrong_argument_is_an_error_in_one_sentence(photos, capsys, monkeypatch, arguments, sentence):
    monkeypatch.setattr("sys.argv", [*arguments])
    monkeypatch.delitem(sys.modules, arguments[0])  # to be run it is read again
    # As `python -m` would, but for the import of TensorFlow each time; another error than this is a traceback.
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    out, err = capsys.readouterr()
    assert ended.value.code and sentence in err and not out and not Path("exports").exists()
