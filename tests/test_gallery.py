"""The small pictures that the report shows of a task."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from stages import gallery, mistakes
from stages.artifacts import tiles as data
from stages.artifacts.images import IMAGE_COLUMNS, QUARANTINE_COLUMNS
from stages.artifacts.tasks import NEAR_COLUMNS, Task, read_task, write_task
from stages.artifacts.tiles import GALLERY_FOLDER, MISTAKES_FOLDER, Tile, read_tiles, write_tiles
from stages.config.augmentation import AugmentationConfig
from stages.core.errors import UserError
from stages.core.files import sha256_of, write_json
from stages.validation.study import validate_study
from tests.pipeline import ROOT

MISTAKE_COLUMNS = ["model", "index", "actual", "predicted", "probability", "actual_probability"]
NASTY = '<b>"x"</b>, ../y\nz'
OF_CLASS = 16  # images: the first 8 for training, then 2 for validation, 4 for test, 2 excluded
SPLITS = np.repeat(["train", "validation", "test", "excluded"], [8, 2, 4, 2])


def study_with(networks=None, features=None, heads=None, fine_tunes=None, seed=3):
    """A study of the dataset `d` and its task `t`, with models that are given the keys that all need.

    A network of another task is always there, `base`, so that others can build on it.
    """
    on_images = {"dataset": "d", "task": "t", "backbone": "net"}
    networks = {"base": {"task": "other"}, **(networks or {})}
    tune = {**on_images, "backbone": "base", "features": "f", "head": "h", "unfreeze": "all"}
    params = {
        "seed": seed,
        "datasets": {name: {"source": "digits", "image_size": 16} for name in ("d", "other")},
        "folders": {},
        "tasks": {name: {"dataset": "d", "validation": 0.1, "test": 0.3} for name in ("t", "other")},
        "backbones": {"net": {"architecture": "four_conv", "weights": "random"}},
        "networks": {name: {**on_images, **keys} for name, keys in networks.items()},
        "features": {
            name: {"dataset": "d", "backbone": "base", "cut": "fc1", **keys} for name, keys in (features or {}).items()
        },
        "heads": {name: {"task": "t", **keys} for name, keys in (heads or {}).items()},
        "fine_tunes": {name: {**tune, **keys} for name, keys in (fine_tunes or {}).items()},
        "training": {
            "epochs": 1, "batch_size": 8, "optimizer": "adam", "learning_rate": 0.001, "early_stopping": None,
            "repeats": 1, "max_train_per_class": None,
        },
    }  # fmt: skip
    study, problems = validate_study(params)
    assert problems == []
    return study, params


def write_images(size=16, classes=("cat", NASTY, "007")):
    """Images of noise, and a task of them in which `order` runs against their rows; returns the pixels."""
    rows = len(classes) * OF_CLASS
    pixels = np.random.default_rng(0).integers(0, 256, (rows, size, size, 3), np.uint8)
    labels = np.arange(rows) % len(classes)
    folder = Path("data/images/d")
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", pixels)
    table = pd.DataFrame({"index": np.arange(rows), "label": labels, "class": [classes[label] for label in labels]})
    table.reindex(columns=IMAGE_COLUMNS, fill_value="").to_csv(folder / "table.csv", index=False)
    pd.DataFrame(columns=QUARANTINE_COLUMNS).to_csv(folder / "quarantine.csv", index=False)
    sha256 = sha256_of(folder / "images.npy")
    write_json(folder / "record.json", {"classes": list(classes), "images_sha256": sha256})
    number = np.arange(rows) // len(classes)  # of an image in its class
    split = table.assign(split=SPLITS[number], order=OF_CLASS - number, linked=table["index"], sha256="0", name="x")
    write_task(Task("t", "d", list(classes), sha256, split), pd.DataFrame(columns=NEAR_COLUMNS))
    return pixels


def write_mistakes(*rows):
    """rows: pairs of a model and a row of the images."""
    mistakes.TABLES.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([[model, index, "cat", "007", 0.5, 0.1] for model, index in rows], columns=MISTAKE_COLUMNS)
    table.to_csv(mistakes.TABLES / "t.csv", index=False)


@pytest.fixture
def pixels(tmp_path, monkeypatch):
    """The images of a task of three classes without mistakes."""
    monkeypatch.chdir(tmp_path)
    write_mistakes()
    return write_images()


def made(**sections):
    gallery.main(study_with(**sections)[0], "t")
    return read_tiles(GALLERY_FOLDER / "t")


def made_of_mistakes():
    mistakes.main(study_with()[0], "t")
    return read_tiles(MISTAKES_FOLDER / "t")


def of_role(tiles, role):
    return [tile for tile in tiles if tile.role == role]


def decoded(tile):
    return np.asarray(Image.open(io.BytesIO(tile.content)))


def content(folder="data/gallery/t"):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def leftovers():
    return [path for folder in (GALLERY_FOLDER, MISTAKES_FOLDER) for path in folder.glob("*") if path.name != "t"]


# What is shown


def test_samples_are_the_first_training_images_of_each_class_as_they_are(pixels):
    tiles = made()
    assert {tile.role for tile in tiles} == {"sample"}
    assert [tile.label for tile in tiles] == ["cat"] * 5 + [NASTY] * 5 + ["007"] * 5
    # `order` runs against the order of the images, so that the last five of the eight come first.
    assert [tile.index for tile in tiles] == [3 * number + label for label in range(3) for number in (7, 6, 5, 4, 3)]
    for tile in tiles:
        np.testing.assert_array_equal(decoded(tile), pixels[tile.index])
        assert (tile.media_type, tile.title) == ("image/png", "")


def test_the_folder_holds_the_table_and_its_pictures_and_nothing_else(pixels):
    tiles = made()
    assert set(content()) == {"tiles.csv", *(tile.file for tile in tiles)}
    table = pd.read_csv("data/gallery/t/tiles.csv", keep_default_na=False, dtype=str)
    assert list(table.columns) == ["file", "role", "title", "index", "class"]
    assert table["class"].tolist() == [tile.label for tile in tiles]


@pytest.mark.parametrize("classes", [2, 19, 20, 21, 33, 200])
def test_of_many_classes_evenly_chosen_ones_are_shown_in_their_order(classes, pixels):
    names = [f"class {number * 7919 % classes:03}" for number in range(classes)]  # their names are in another order
    write_images(size=8, classes=names)
    shown = list(dict.fromkeys(tile.label for tile in made()))
    labels = [names.index(label) for label in shown]
    assert len(shown) == min(classes, 20)
    assert labels == sorted(labels)
    assert (labels[0], labels[-1]) == (0, classes - 1)
    assert np.ptp(np.diff(labels)) <= 1


def test_a_mistaken_image_is_shown_once_however_many_models_mistake_it(pixels):
    test = read_task("t").rows("test")
    chosen = test["index"].iloc[[7, 2, 5]].tolist()
    write_mistakes(("a", chosen[0]), ("a", chosen[1]), ("b", chosen[0]), ("b", chosen[2]))
    tiles = made_of_mistakes()
    assert {tile.role for tile in tiles} == {"mistake"}
    assert [tile.index for tile in tiles] == sorted(chosen)
    for tile in tiles:
        np.testing.assert_array_equal(decoded(tile), pixels[tile.index])
        assert tile.label == test.set_index("index")["class"][tile.index]
        assert tile.title == ""


# Augmentation

STRONG = {"rotation": 15, "noise": 0.1}


def rows_of(tiles):
    """The tiles of each augmentation and image: (title, index) -> tiles."""
    rows = {}
    for tile in of_role(tiles, "augmented"):
        rows.setdefault((tile.title, tile.index), []).append(tile)
    return rows


def test_augmented_images_are_shown_after_the_image_as_it_is(pixels):
    tiles = made(networks={"a": {"augmentation": STRONG}})
    rows = rows_of(tiles)
    samples = of_role(tiles, "sample")
    assert list(rows) == [("rotation 15, noise 0.1 (of a)", samples[0].index), (*rows,)[1]]
    assert [tile[0].label for tile in rows.values()] == ["cat", NASTY]
    for (_, index), row in rows.items():
        assert len(row) == 6
        np.testing.assert_array_equal(decoded(row[0]), pixels[index])
        assert len({tile.content for tile in row}) == 6  # all differ


def test_equal_augmentations_are_shown_once_with_all_their_models(pixels):
    tiles = made(
        networks={
            "a": {"augmentation": STRONG},
            "b": {"augmentation": {"shift": 0.2}},
            "c": {},
            "d": {"task": "other"},
        },
        features={"f": {}},
        heads={"h": {"features": "f"}},
        fine_tunes={"e": {"augmentation": {**STRONG, "rotation": 15.0, "zoom": 0.0, "fill": "nearest"}}},
    )
    titles = list(dict.fromkeys(title for title, _ in rows_of(tiles)))
    assert titles == ["rotation 15, noise 0.1 (of a, e)", "shift 0.2 (of b)"]


def test_models_of_another_task_do_not_count(pixels):
    assert not rows_of(made(networks={"a": {"task": "other", "augmentation": STRONG}}))


VIEWS = [{"rotation": 15}, {"flip": "horizontal"}, {"flip": "both", "shear": 10}]


def test_views_of_the_features_of_the_dataset_are_augmentations(pixels):
    tiles = made(
        networks={"a": {"augmentation": {"rotation": 15}}},
        features={
            "f": {"views": [*VIEWS, VIEWS[0]]},
            "g": {"views": [VIEWS[1]]},
            "of-another": {"dataset": "other", "views": [{"noise": 0.5}]},
        },
    )
    assert list(dict.fromkeys(title for title, _ in rows_of(tiles))) == [
        "rotation 15 (of a, f)", "flip horizontal always (of f, g)", "shear 10, flip both always (of f)",
    ]  # fmt: skip


def test_another_head_changes_no_picture(pixels):
    views = {"f": {"views": VIEWS}}
    made(features=views, heads={"h": {"features": "f"}})
    before = content()
    made(features=views, heads={"h": {"features": "f", "views": 1}, "i": {"features": "f"}})
    assert content() == before


def test_a_view_that_only_flips_has_one_outcome_which_is_shown_once(pixels):
    tiles = made(features={"f": {"views": [{"flip": "horizontal"}]}})
    for (_, index), row in rows_of(tiles).items():
        assert len(row) == 2
        np.testing.assert_array_equal(decoded(row[1]), pixels[index][:, ::-1])


def test_a_flip_in_training_is_drawn_for_every_variant(pixels):
    rows = rows_of(made(networks={"a": {"augmentation": {"flip": "horizontal"}}}))
    for (title, index), row in rows.items():
        assert title == "flip horizontal (of a)"
        assert len(row) == 6
        for tile in row:
            assert any(np.array_equal(decoded(tile), each) for each in (pixels[index], pixels[index][:, ::-1]))
    assert any(len({tile.content for tile in row[1:]}) == 2 for row in rows.values())


def test_an_augmentation_that_changes_nothing_is_shown_as_such(pixels):
    rows = rows_of(made(networks={"a": {"augmentation": {"rotation": 0}}}))
    assert {title for title, _ in rows} == {"no change (of a)"}
    assert all(len({tile.content for tile in row}) == 1 for row in rows.values())


@given(st.builds(dict, rotation=st.floats(0, 180), shift=st.floats(0, 0.9), fill=st.sampled_from(["nearest", "wrap"])))
def test_the_words_name_exactly_what_is_not_the_default(keys):
    words = gallery.in_words(AugmentationConfig(**keys), certain_flip=False)
    for key, value in keys.items():
        assert (key in words) == (value not in (0, "nearest"))
    assert words


# The files


def test_the_bytes_come_from_the_seed(pixels):
    models = {"networks": {"a": {"augmentation": {**STRONG, "flip": "both", "zoom": 0.2}}}}
    made(**models)
    first = content()
    made(**models)
    assert content() == first
    tiles = made(**models, seed=4)
    changed = {name for name, each in content().items() if each != first[name]}
    assert changed == {tile.file for row in rows_of(tiles).values() for tile in row[1:]}
    made(**models, seed=2**40)  # more than Keras takes


def test_one_more_augmentation_leaves_the_pictures_of_the_others_as_they_are(pixels):
    of_a = {"augmentation": STRONG}
    before = rows_of(made(networks={"a": of_a}))
    after = rows_of(made(networks={"b": {"augmentation": {"noise": 0.2}}, "a": of_a}))
    for key, row in before.items():
        assert [tile.content for tile in row] == [tile.content for tile in after[key]]


@pytest.mark.parametrize(
    ("size", "shown", "form"),
    [(8, 8, "png"), (64, 64, "png"), (65, 65, "jpeg"), (112, 112, "jpeg"), (150, 112, "jpeg")],
)
def test_tiles_are_never_enlarged_and_at_most_112_pixels_wide(size, shown, form, pixels):
    write_images(size=size, classes=("a", "b"))
    write_mistakes(("a", read_task("t").rows("test")["index"].iloc[0]))
    tiles = [*made(networks={"a": {"augmentation": STRONG}}), *made_of_mistakes()]
    assert {tile.role for tile in tiles} == {"sample", "augmented", "mistake"}
    assert {decoded(tile).shape for tile in tiles} == {(shown, shown, 3)}
    assert {tile.media_type for tile in tiles} == {f"image/{form}"}
    assert {Path(tile.file).suffix for tile in tiles} == {".png" if form == "png" else ".jpg"}
    assert {Image.open(io.BytesIO(tile.content)).format for tile in tiles} == {form.upper()}


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=8)
TILES = st.lists(
    st.builds(
        Tile,
        file=st.from_regex(r"[a-z0-9-]{1,9}\.png", fullmatch=True),
        role=st.sampled_from(["sample", "mistake", "augmented"]),
        title=TEXT,
        index=st.integers(0, 2**40),
        label=TEXT | st.sampled_from(["nan", "007", "1e5", "True", ""]),
        content=st.binary(max_size=9).map(data.SIGNATURES[".png"].__add__),
    ),
    unique_by=lambda tile: tile.file,
    max_size=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TILES)
def test_what_is_written_is_read_again(pixels, tiles):
    write_tiles(GALLERY_FOLDER / "t", tiles)
    assert read_tiles(GALLERY_FOLDER / "t") == tiles


# Imports

RUN = """
import runpy, sys
sys.argv = ["gallery", "t"]
runpy.run_module("stages.gallery", run_name="__main__")
print(sorted({"keras", "tensorflow"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("networks", "imported"),
    [
        ({"a": {}, "b": {"task": "other", "augmentation": STRONG}}, "[]"),
        ({"a": {"augmentation": STRONG}}, "['keras', 'tensorflow']"),
    ],
)
def test_keras_is_imported_only_for_an_augmentation(networks, imported, pixels):
    Path("params.yaml").write_text(yaml.safe_dump(study_with(networks=networks)[1]), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", RUN], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = f"gallery t: 15 training images, {int(imported != '[]')} augmentations"
    assert done.stdout.splitlines() == [said, imported]
    assert len(read_tiles(GALLERY_FOLDER / "t")) == (15 if imported == "[]" else 15 + 12)


# Errors


def refused(make=made):
    """The sentence that a stage ends with; it leaves the pictures as they were and nothing beside them."""

    def pictures():
        return {
            str(folder): content(folder / "t")
            for folder in (GALLERY_FOLDER, MISTAKES_FOLDER)
            if (folder / "t").exists()
        }

    before = pictures()
    with pytest.raises(UserError) as error:
        make()
    assert leftovers() == []
    assert pictures() == before
    return str(error.value)


OF_IMAGES = ["data/tasks/t/split.csv", "data/tasks/t/task.json", "data/images/d/images.npy"]
INPUTS = [*((made, path) for path in OF_IMAGES), *((made_of_mistakes, path) for path in OF_IMAGES)]
INPUTS.append((made_of_mistakes, "reports/mistakes/t.csv"))


@pytest.mark.parametrize(("make", "path"), INPUTS)
def test_missing_inputs_are_named(make, path, pixels):
    make()
    Path(path).unlink()
    assert refused(make) == f"{path} is missing. Run `dvc repro` to create it."


@pytest.mark.parametrize(("make", "path"), INPUTS)
@pytest.mark.parametrize("damage", [b"", b"\xff\0\xfe", b"model,other\na,1\n"])
def test_damaged_inputs_are_named(make, path, damage, pixels):
    Path(path).write_bytes(damage)
    sentence = refused(make)
    assert str(Path(path) if "reports" in path else Path(path).parent) in sentence
    assert "damaged" in sentence
    assert "run `dvc repro`" in sentence


@pytest.mark.parametrize("split", ["train", "validation", "excluded", None])
def test_mistakes_that_are_no_test_images_are_refused(split, pixels):
    task = read_task("t")
    row = len(task.table) if split is None else int(task.rows(split)["index"].iloc[0])
    write_mistakes(("a", row), ("b", row), ("a", task.rows("test")["index"].iloc[0]))
    assert refused(made_of_mistakes) == (
        f"reports/mistakes/t.csv: 1 of 2 images are not test images of task 't', such as row {row}; run `dvc repro`, "
        "which writes it anew."
    )


@pytest.mark.parametrize("index", ["x", ""])
def test_mistakes_without_whole_numbers_are_refused(index, pixels):
    write_mistakes(("a", index))
    assert "reports/mistakes/t.csv" in refused(made_of_mistakes)


@pytest.mark.parametrize("make", [made, made_of_mistakes])
def test_other_images_than_the_task_was_split_from_are_refused(make, pixels):
    record = Path("data/images/d/record.json")
    write_json(record, {"classes": ["cat", NASTY, "007"], "images_sha256": "1" * 64})
    assert "data/images/d does not match the images of task 't'" in refused(make)


def test_an_error_in_the_middle_leaves_the_gallery_as_it_was(pixels):
    made()
    before = content()
    good = Tile("a.png", "sample", "", 0, "cat", data.SIGNATURES[".png"])
    with pytest.raises(FileNotFoundError):
        write_tiles(GALLERY_FOLDER / "t", [good, Tile("no/such.png", "sample", "", 0, "cat", b"")])
    assert content() == before
    assert leftovers() == []


def test_a_gallery_that_is_not_there_is_an_error(pixels):
    with pytest.raises(UserError, match=r"tiles\.csv is missing. Run `dvc repro` to create it"):
        read_tiles(GALLERY_FOLDER / "t")


@pytest.mark.parametrize("damage", [b"", b"file,role\na,b\n", b"\xff\xfe\0"])
def test_a_damaged_table_of_tiles_is_an_error(damage, pixels):
    made()
    Path("data/gallery/t/tiles.csv").write_bytes(damage)
    with pytest.raises(UserError, match="is damaged"):
        read_tiles(GALLERY_FOLDER / "t")


def test_a_missing_or_damaged_picture_is_an_error(pixels):
    path = Path("data/gallery/t", made()[3].file)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=f"is damaged \\({path.name} is no png picture\\)"):
        read_tiles(GALLERY_FOLDER / "t")
    path.unlink()
    with pytest.raises(UserError, match=f"{path.name} is missing"):
        read_tiles(GALLERY_FOLDER / "t")


@pytest.mark.parametrize("file", ["../../../secret", "../../../secret.png", "secret.txt"])
def test_no_other_file_is_read_than_a_picture(file, pixels):
    Path("secret").write_text("secret")
    Path("secret.png").write_text("secret")
    Path("data/gallery/t").mkdir(parents=True)
    Path("data/gallery/t/secret.txt").write_text("secret")
    Path("data/gallery/t/tiles.csv").write_text(f"file,role,title,index,class\n{file},sample,,0,cat\n")
    with pytest.raises(UserError, match="is damaged"):
        read_tiles(GALLERY_FOLDER / "t")
