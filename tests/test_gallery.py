"""The stages gallery and mistakes: small pictures of a task for the report."""

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
from stages.artifacts.images import IMAGE_COLUMNS, QUARANTINE_COLUMNS
from stages.artifacts.tasks import NEAR_COLUMNS, Task, read_task, write_task
from stages.artifacts.tiles import GALLERY_FOLDER, MISTAKES_FOLDER, SIGNATURES, Tile, read_tiles, write_tiles
from stages.config.augmentation import AugmentationConfig
from stages.core.errors import UserError
from stages.core.files import read_json, sha256_of, write_json
from stages.core.params import Params
from stages.core.wording import counted
from tests.pipeline import ROOT

MISTAKE_COLUMNS = ["model", "index", "actual", "predicted", "probability", "actual_probability"]
NASTY = '<b>"x"</b>, ../y\nz'
PER_CLASS = 16  # images: the first 8 for training, then 2 for validation, 4 for test, 2 excluded
SPLITS = np.repeat(["train", "validation", "test", "excluded"], [8, 2, 4, 2])


def make_params(networks=None, features=None, heads=None, fine_tunes=None, seed=3):
    """Params of dataset `d` and task `t`, whose models have the required keys; network `base` is of another task."""
    required = {"dataset": "d", "task": "t", "backbone": "net"}
    tune = {**required, "backbone": "base", "features": "f", "head": "h", "unfreeze": "all"}
    networks = {"base": {"task": "other"}, **(networks or {})}
    return Params(
        {
            "seed": seed,
            "tasks": {name: {"dataset": "d", "validation": 0.1, "test": 0.3} for name in ("t", "other")},
            "networks": {name: {**required, **keys} for name, keys in networks.items()},
            "features": {
                name: {"dataset": "d", "backbone": "base", "cut": "fc1", **keys}
                for name, keys in (features or {}).items()
            },
            "heads": {name: {"task": "t", **keys} for name, keys in (heads or {}).items()},
            "fine_tunes": {name: {**tune, **keys} for name, keys in (fine_tunes or {}).items()},
        }
    )


def write_images(size=16, classes=("cat", NASTY, "007")):
    """Images of noise, and a task whose `order` is the reverse of their rows; returns the pixels."""
    rows = len(classes) * PER_CLASS
    pixels = np.random.default_rng(0).integers(0, 256, (rows, size, size, 3), np.uint8)
    labels = np.arange(rows) % len(classes)
    folder = Path("data/images/d")
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", pixels)
    table = pd.DataFrame({"index": np.arange(rows), "label": labels, "class": [classes[label] for label in labels]})
    table.reindex(columns=IMAGE_COLUMNS, fill_value="").to_csv(folder / "table.csv", index=False)
    pd.DataFrame(columns=QUARANTINE_COLUMNS).to_csv(folder / "quarantine.csv", index=False)
    sha256 = sha256_of(folder / "images.npy")
    record = {"classes": list(classes), "images_sha256": sha256, "image_size": size, "resize": "crop"}
    write_json(folder / "record.json", record)
    number = np.arange(rows) // len(classes)  # of an image in its class
    split = table.assign(split=SPLITS[number], order=PER_CLASS - number, group_id=table["index"], sha256="0", name="x")
    split["fold"] = np.where(split["split"] == "validation", 0, -1)
    write_task(Task("t", "d", list(classes), sha256, split), pd.DataFrame(columns=NEAR_COLUMNS))
    return pixels


def write_mistakes(*rows):
    """rows: pairs of a model and a row of the dataset."""
    folder = Path("reports/mistakes")
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([[model, index, "cat", "007", 0.5, 0.1] for model, index in rows], columns=MISTAKE_COLUMNS)
    table.to_csv(folder / "t.csv", index=False)


@pytest.fixture
def pixels(tmp_path, monkeypatch):
    """The images of a task of three classes without mistakes."""
    monkeypatch.chdir(tmp_path)
    write_mistakes()
    return write_images()


def make_gallery(**sections):
    gallery.main(make_params(**sections), "t")
    return read_tiles(GALLERY_FOLDER / "t")


def make_mistakes():
    mistakes.main(make_params(), "t")
    return read_tiles(MISTAKES_FOLDER / "t")


def with_role(tiles, role):
    return [tile for tile in tiles if tile.role == role]


def decoded(tile):
    return np.asarray(Image.open(io.BytesIO(tile.content)))


def content(folder="data/gallery/t"):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def leftovers():
    return [path for folder in (GALLERY_FOLDER, MISTAKES_FOLDER) for path in folder.glob("*") if path.name != "t"]


# Samples and mistakes


def test_samples_are_the_first_training_images_of_each_class_unchanged(pixels):
    tiles = make_gallery()
    assert {tile.role for tile in tiles} == {"sample"}
    assert [tile.label for tile in tiles] == ["cat"] * 5 + [NASTY] * 5 + ["007"] * 5
    # `order` is the reverse of the rows, so the last five of the eight come first.
    assert [tile.index for tile in tiles] == [3 * number + label for label in range(3) for number in (7, 6, 5, 4, 3)]
    for tile in tiles:
        np.testing.assert_array_equal(decoded(tile), pixels[tile.index])
        assert (tile.media_type, tile.title) == ("image/png", "")


def test_the_folder_has_the_table_and_its_pictures_only(pixels):
    tiles = make_gallery()
    assert set(content()) == {"tiles.csv", *(tile.file for tile in tiles)}
    table = pd.read_csv("data/gallery/t/tiles.csv", keep_default_na=False, dtype=str)
    assert list(table.columns) == ["file", "role", "title", "index", "class"]
    assert table["class"].tolist() == [tile.label for tile in tiles]


@pytest.mark.parametrize("classes", [2, 19, 20, 21, 33, 200])
def test_of_many_classes_evenly_spaced_ones_have_samples(classes, pixels):
    names = [f"class {number * 7919 % classes:03}" for number in range(classes)]  # not in alphabetical order
    write_images(size=8, classes=names)
    labels = [names.index(name) for name in dict.fromkeys(tile.label for tile in make_gallery())]
    assert len(labels) == min(classes, 20)
    assert labels == sorted(labels)
    assert (labels[0], labels[-1]) == (0, classes - 1)
    assert np.ptp(np.diff(labels)) <= 1


def test_an_image_that_several_models_misclassify_has_one_tile(pixels):
    test = read_task("t").rows("test")
    chosen = test["index"].iloc[[7, 2, 5]].tolist()
    write_mistakes(("a", chosen[0]), ("a", chosen[1]), ("b", chosen[0]), ("b", chosen[2]))
    tiles = make_mistakes()
    assert {tile.role for tile in tiles} == {"mistake"}
    assert [tile.index for tile in tiles] == sorted(chosen)
    for tile in tiles:
        np.testing.assert_array_equal(decoded(tile), pixels[tile.index])
        assert tile.label == test.set_index("index")["class"][tile.index]
        assert tile.title == ""


# Augmentation

STRONG = {"rotation": 15, "noise": 0.1}


def rows_of(tiles):
    """Augmented tiles by augmentation and image: (title, index) -> tiles."""
    rows = {}
    for tile in with_role(tiles, "augmented"):
        rows.setdefault((tile.title, tile.index), []).append(tile)
    return rows


def test_augmented_images_follow_the_unchanged_image(pixels):
    tiles = make_gallery(networks={"a": {"augmentation": STRONG}})
    rows = rows_of(tiles)
    samples = with_role(tiles, "sample")
    assert list(rows) == [("rotation 15, noise 0.1 (a)", samples[0].index), (*rows,)[1]]
    assert [tile[0].label for tile in rows.values()] == ["cat", NASTY]
    for (_, index), row in rows.items():
        assert len(row) == 6
        np.testing.assert_array_equal(decoded(row[0]), pixels[index])
        assert len({tile.content for tile in row}) == 6  # all differ


def test_equal_augmentations_appear_once_with_all_their_models(pixels):
    tiles = make_gallery(
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
    assert titles == ["rotation 15, noise 0.1 (a, e)", "shift 0.2 (b)"]


def test_augmentations_of_another_task_are_ignored(pixels):
    assert not rows_of(make_gallery(networks={"a": {"task": "other", "augmentation": STRONG}}))


VIEWS = [{"rotation": 15}, {"flip": "horizontal"}, {"flip": "both", "shear": 10}]


def test_views_of_the_features_of_the_dataset_are_augmentations(pixels):
    tiles = make_gallery(
        networks={"a": {"augmentation": {"rotation": 15}}},
        features={
            "f": {"views": [*VIEWS, VIEWS[0]]},
            "g": {"views": [VIEWS[1]]},
            "of-another": {"dataset": "other", "views": [{"noise": 0.5}]},
        },
    )
    assert list(dict.fromkeys(title for title, _ in rows_of(tiles))) == [
        "rotation 15 (a, f)", "flip horizontal always (f, g)", "shear 10, flip both always (f)",
    ]  # fmt: skip


def test_an_additional_head_changes_no_picture(pixels):
    views = {"f": {"views": VIEWS}}
    make_gallery(features=views, heads={"h": {"features": "f"}})
    before = content()
    make_gallery(features=views, heads={"h": {"features": "f", "views": 1}, "i": {"features": "f"}})
    assert content() == before


def test_a_view_that_only_flips_has_one_example(pixels):
    tiles = make_gallery(features={"f": {"views": [{"flip": "horizontal"}]}})
    for (_, index), row in rows_of(tiles).items():
        assert len(row) == 2
        np.testing.assert_array_equal(decoded(row[1]), pixels[index][:, ::-1])


def test_a_flip_in_training_is_random_for_every_example(pixels):
    rows = rows_of(make_gallery(networks={"a": {"augmentation": {"flip": "horizontal"}}}))
    for (title, index), row in rows.items():
        assert title == "flip horizontal (a)"
        assert len(row) == 6
        for tile in row:
            assert any(np.array_equal(decoded(tile), flip) for flip in (pixels[index], pixels[index][:, ::-1]))
    assert any(len({tile.content for tile in row[1:]}) == 2 for row in rows.values())


def test_an_augmentation_that_changes_nothing_says_so(pixels):
    rows = rows_of(make_gallery(networks={"a": {"augmentation": {"rotation": 0}}}))
    assert {title for title, _ in rows} == {"no change (a)"}
    assert all(len({tile.content for tile in row}) == 1 for row in rows.values())


@given(st.builds(dict, rotation=st.floats(0, 180), shift=st.floats(0, 0.9), fill=st.sampled_from(["nearest", "wrap"])))
def test_the_title_names_exactly_the_settings_that_are_not_the_default(keys):
    title = gallery.UsedAugmentation(AugmentationConfig(**keys), certain_flip=False, entries=["a"]).title
    for key, value in keys.items():
        assert (key in title) == (value not in (0, "nearest"))
    assert title.endswith(" (a)")


# Files


def test_the_seed_determines_the_bytes(pixels):
    models = {"networks": {"a": {"augmentation": {**STRONG, "flip": "both", "zoom": 0.2}}}}
    make_gallery(**models)
    first = content()
    make_gallery(**models)
    assert content() == first
    tiles = make_gallery(**models, seed=4)
    changed = {name for name, file in content().items() if file != first[name]}
    assert changed == {tile.file for row in rows_of(tiles).values() for tile in row[1:]}
    make_gallery(**models, seed=2**40)  # larger than Keras accepts


def test_an_additional_augmentation_does_not_change_the_pictures_of_the_rest(pixels):
    strong = {"augmentation": STRONG}
    before = rows_of(make_gallery(networks={"a": strong}))
    after = rows_of(make_gallery(networks={"b": {"augmentation": {"noise": 0.2}}, "a": strong}))
    for key, row in before.items():
        assert [tile.content for tile in row] == [tile.content for tile in after[key]]


@pytest.mark.parametrize(
    ("size", "tile_size", "form"),
    [(8, 8, "png"), (64, 64, "png"), (65, 65, "jpeg"), (112, 112, "jpeg"), (150, 112, "jpeg")],
)
def test_tiles_are_never_enlarged_and_at_most_112_pixels_wide(size, tile_size, form, pixels):
    write_images(size=size, classes=("a", "b"))
    write_mistakes(("a", read_task("t").rows("test")["index"].iloc[0]))
    tiles = [*make_gallery(networks={"a": {"augmentation": STRONG}}), *make_mistakes()]
    assert {tile.role for tile in tiles} == {"sample", "augmented", "mistake"}
    assert {decoded(tile).shape for tile in tiles} == {(tile_size, tile_size, 3)}
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
        content=st.binary(max_size=9).map(SIGNATURES[".png"].__add__),
    ),
    unique_by=lambda tile: tile.file,
    max_size=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TILES)
def test_written_tiles_are_read_unchanged(pixels, tiles):
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
    Path("params.yaml").write_text(yaml.safe_dump(make_params(networks=networks).content), encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-c", RUN], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    line = f"gallery t: 15 training images, {counted(int(imported != '[]'), 'augmentation')}"
    assert run.stdout.splitlines() == [line, imported]
    assert len(read_tiles(GALLERY_FOLDER / "t")) == (15 if imported == "[]" else 15 + 12)


# Errors


def error_of(make=make_gallery):
    """The error message of a stage, which leaves the tiles unchanged and no temporary files."""

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


IMAGE_INPUTS = ["data/tasks/t/split.csv", "data/tasks/t/task.json", "data/images/d/images.npy"]
INPUTS = [*((make_gallery, path) for path in IMAGE_INPUTS), *((make_mistakes, path) for path in IMAGE_INPUTS)]
INPUTS.append((make_mistakes, "reports/mistakes/t.csv"))


@pytest.mark.parametrize(("make", "path"), INPUTS)
def test_missing_inputs_are_named(make, path, pixels):
    make()
    Path(path).unlink()
    assert error_of(make) == f"{path} is missing. Run `dvc repro` to create it."


@pytest.mark.parametrize(("make", "path"), INPUTS)
@pytest.mark.parametrize("damage", [b"", b"\xff\0\xfe", b"model,other\na,1\n"])
def test_damaged_inputs_are_named(make, path, damage, pixels):
    Path(path).write_bytes(damage)
    sentence = error_of(make)
    assert str(Path(path) if "reports" in path else Path(path).parent) in sentence
    assert "damaged" in sentence
    assert "run `dvc repro`" in sentence


@pytest.mark.parametrize("split", ["train", "validation", "excluded", None])
def test_mistakes_that_are_not_test_images_are_refused(split, pixels):
    task = read_task("t")
    row = len(task.table) if split is None else int(task.rows(split)["index"].iloc[0])
    write_mistakes(("a", row), ("b", row), ("a", task.rows("test")["index"].iloc[0]))
    assert error_of(make_mistakes) == (
        f"reports/mistakes/t.csv lists 1 image outside the test images of task 't', such as row {row}. Run `dvc "
        "repro` to write it again."
    )


@pytest.mark.parametrize("index", ["x", ""])
def test_mistakes_without_whole_numbers_are_refused(index, pixels):
    write_mistakes(("a", index))
    assert "reports/mistakes/t.csv" in error_of(make_mistakes)


@pytest.mark.parametrize("make", [make_gallery, make_mistakes])
def test_images_that_the_task_was_not_split_from_are_refused(make, pixels):
    record = Path("data/images/d/record.json")
    write_json(record, {**read_json(record), "images_sha256": "1" * 64})
    assert "data/images/d does not match the images of task 't'" in error_of(make)


def test_an_error_while_writing_leaves_the_gallery_unchanged(pixels):
    make_gallery()
    before = content()
    good = Tile("a.png", "sample", "", 0, "cat", SIGNATURES[".png"])
    with pytest.raises(FileNotFoundError):
        write_tiles(GALLERY_FOLDER / "t", [good, Tile("no/such.png", "sample", "", 0, "cat", b"")])
    assert content() == before
    assert leftovers() == []


def test_a_missing_gallery_is_an_error(pixels):
    with pytest.raises(UserError, match=r"tiles\.csv is missing. Run `dvc repro` to create it"):
        read_tiles(GALLERY_FOLDER / "t")


@pytest.mark.parametrize("damage", [b"", b"file,role\na,b\n", b"\xff\xfe\0"])
def test_a_damaged_table_of_tiles_is_an_error(damage, pixels):
    make_gallery()
    Path("data/gallery/t/tiles.csv").write_bytes(damage)
    with pytest.raises(UserError, match="is damaged"):
        read_tiles(GALLERY_FOLDER / "t")


def test_a_missing_or_damaged_picture_is_an_error(pixels):
    path = Path("data/gallery/t", make_gallery()[3].file)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=f"is damaged \\({path.name} is not a png file\\)"):
        read_tiles(GALLERY_FOLDER / "t")
    path.unlink()
    with pytest.raises(UserError, match=f"{path.name} is missing"):
        read_tiles(GALLERY_FOLDER / "t")


@pytest.mark.parametrize("file", ["../../../secret", "../../../secret.png", "secret.txt"])
def test_only_pictures_are_read(file, pixels):
    Path("secret").write_text("secret")
    Path("secret.png").write_text("secret")
    Path("data/gallery/t").mkdir(parents=True)
    Path("data/gallery/t/secret.txt").write_text("secret")
    Path("data/gallery/t/tiles.csv").write_text(f"file,role,title,index,class\n{file},sample,,0,cat\n")
    with pytest.raises(UserError, match="is damaged"):
        read_tiles(GALLERY_FOLDER / "t")
