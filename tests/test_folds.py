"""Folds, the validation parts of a task, and the common split of the tasks of a dataset."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.artifacts.tasks import Task, read_task
from stages.core.errors import UserError
from stages.core.params import Params
from stages.split import main
from stages.splitting.assignment import FOLDS, MAX_FOLDS, assign_parts, folds_of, parts_of, splits_of
from stages.splitting.limits import keep_full_folds
from stages.splitting.summary import summary_sentences
from tests.test_near_duplicates import HASHES
from tests.test_split import (
    DISTINCT,
    HELD_OUT,
    REPEATED,
    SEEDS,
    Image,
    as_table,
    grouped_images,
    numbered,
    split_task,
    split_task_from_scratch,
    ungrouped_images,
    write_prepared,
)

few_examples = settings(max_examples=15)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def task_of(images, held_out, seed=0, **columns):
    """A task of all images, with the folds that are large enough."""
    table = as_table(images, seed).assign(**columns)
    table["part"] = assign_parts(table, *held_out)
    parts = keep_full_folds(table, set())
    table = table.assign(split=splits_of(parts), fold=folds_of(parts))
    table["order"] = table.groupby("label")["position"].rank(method="first").astype(int)
    return Task("t", "d", [], "", table)


@few_examples
@given(st.one_of(REPEATED, DISTINCT), HELD_OUT, SEEDS)
def test_every_fold_holds_out_other_images_and_whole_groups(images, held_out, seed):
    task = task_of(images, held_out, seed)
    test = set(task.rows("test").index)
    validation = [task.rows("validation", fold=fold) for fold in range(task.folds)]
    for first, second in itertools.combinations(validation, 2):
        assert not set(first["group_id"]) & set(second["group_id"])
    for fold, rows in enumerate(validation):
        train = task.rows("train", fold=fold)
        assert not set(rows.index) & test
        assert not set(train["group_id"]) & set(rows["group_id"])
        assert set(train.index) | set(rows.index) | test == set(task.table.index)
    assert (
        set(validation[0].index) == set(task.table.index[task.table["split"] == "validation"]) if validation else True
    )


@few_examples
@given(DISTINCT, HELD_OUT, SEEDS)
def test_folds_of_ungrouped_images_have_equal_numbers_of_each_class_up_to_rounding(images, held_out, seed):
    task = task_of(images, held_out, seed)
    first = task.rows("validation")["label"].value_counts().sort_index()
    for fold in range(1, task.folds):
        counts = task.rows("validation", fold=fold)["label"].value_counts().sort_index()
        assert counts.index.equals(first.index)
        assert (counts - first).abs().max() <= (0 if isinstance(held_out[0], int) else 1)
        assert counts.min() >= 2
        assert task.rows("train", fold=fold)["label"].value_counts().sort_index().index.equals(counts.index)
    # No more folds would fit.
    left = task.table[(task.table["fold"] == -1) & (task.table["split"] == "train")]["label"].value_counts()
    if 1 <= task.folds < MAX_FOLDS and first.min() >= 2 and len(first) == task.table["label"].nunique():
        assert (left.reindex(first.index, fill_value=0) < first).any()


@pytest.mark.parametrize(
    ("held_out", "folds"),
    [((0.2, 0.2), 4), ((0.1, 0.3), 7), ((0.5, 0.3), 1), ((0.04, 0.2), MAX_FOLDS), ((15, 0.2), 5), ((40, 40), 1)],
)
def test_the_images_outside_test_make_as_many_folds_as_they_allow(held_out, folds):
    task = task_of(ungrouped_images([100, 200]), held_out)
    assert task.folds == folds
    for fold in range(folds):
        assert len(task.rows("validation", fold=fold)) + len(task.rows("train", fold=fold)) == 300 - len(
            task.rows("test")
        )


@pytest.mark.parametrize("size", [10, 11, 13, 14, 17, 18, 23, *range(41, 49)])
def test_rounding_removes_no_fold(size):
    """The test split and four folds, a fifth of each class each."""
    task = task_of(ungrouped_images([100, size, 57]), (0.2, 0.2))
    assert task.folds == 4
    sizes = task.table[task.table["label"] == 1]["fold"].value_counts()
    assert all(abs(sizes[fold] - sizes[0]) <= 1 for fold in range(4))


def test_a_fold_that_is_too_small_for_a_class_is_not_a_fold():
    # Ten groups of class 0; class 1 has two large groups after those of test and validation.
    sets = [*((0, 4) for _ in range(10)), (1, 4), (1, 4), (1, 16), (1, 16)]
    for seed in range(10):
        task = task_of(grouped_images(sets), (0.1, 0.1), seed)
        for fold in range(task.folds):
            counts = task.rows("validation", fold=fold)["label"].value_counts()
            assert counts.get(1, 0) >= 2
            assert task.rows("train", fold=fold)["label"].value_counts().get(1, 0) >= 2
        assert task.folds <= 3


def test_a_published_validation_part_is_the_only_fold():
    published = np.tile(["train", "train", "train", "validation"], 20)
    task = task_of(ungrouped_images([40, 40]), ("published", 0.2), published=published)
    assert task.folds == 1
    assert set(task.rows("validation").index) == set(np.flatnonzero(published == "validation"))


@few_examples
@given(st.one_of(REPEATED, DISTINCT), HELD_OUT, SEEDS, st.integers(1, 6), st.integers(1, 6))
def test_a_smaller_training_set_is_a_subset_in_every_fold(images, held_out, seed, few, more):
    task = task_of(images, held_out, seed)
    for fold in range(task.folds):
        train = set(task.rows("train", fold=fold).index)
        small, large = (set(task.rows("train", limit, fold=fold).index) for limit in (few, few + more))
        assert small <= large <= train


@pytest.mark.parametrize("entry", [{}, {"validation": 4}, {"max_per_class": 40}, {"near_duplicates": "group"}])
def test_added_images_change_no_fold(entry, folder):
    images = [*numbered("cat", 40), *numbered("dog", 60), *numbered("cat", 4, 100, group="x")]
    before = split_task(images, **entry)
    added = [*numbered("cat", 31, 200), *numbered("dog", 9, 200), *numbered("dog", 2, 300, group="x")]
    after = split_task([*images, *added], **entry)
    parts = dict(zip(after.table["sha256"], parts_of(after.table), strict=True))
    assert before.folds >= 2
    for content, part in zip(before.table["sha256"], parts_of(before.table), strict=True):
        assert parts[content] == part
    assert (parts_of(after.table).groupby(after.table["group_id"]).nunique() == 1).all()
    again = split_task([*images, *added], **entry)
    pd.testing.assert_frame_equal(again.table, after.table)


def test_a_fold_stays_when_the_first_fold_grows(folder):
    """Ten images of the group of an image in fold 0 are added, which makes fold 0 more than twice as large."""
    images = [Image(label, f"{label} {index}", f"{label} {index}") for label in ("cat", "dog") for index in range(16)]
    before = split_task(images, validation=0.2)
    first = images[int(before.rows("validation")["index"].iloc[0])]
    after = split_task([*images, *(Image("cat", f"new {index}", first.group) for index in range(10))], validation=0.2)
    assert len(after.rows("validation")) > 2 * len(before.rows("validation"))
    assert before.folds == after.folds == 4
    assert list(parts_of(after.table))[: len(images)] == list(parts_of(before.table))


# The tasks of a dataset.

IMAGES = [
    *(image for label in ("ant", "bee", "cat", "dog") for image in numbered(label, 37)),
    *numbered("ant", 3, 50, group="x"),
    *numbered("dog", 4, 50, group="x"),
    *numbered("bee", 5, 70, group="y"),
    *[Image(label, f"similar {label}", perceptual_hash=HASHES[0]) for label in ("ant", "dog")],
    Image("cat", "ant 3"),
]
ENTRIES = [
    {},
    {"include": ["ant", "bee"]},
    {"exclude": ["ant"]},
    {"rename": {"ant": "insect", "bee": "insect"}},
    {"rename": {"cat": "pet", "dog": "pet"}, "exclude": ["bee"], "max_per_class": 21},
    {"max_per_class": 20},
    {"max_per_class": 30, "include": ["cat", "dog"]},
]


def parts_by_row(task):
    return dict(zip(task.table["index"], parts_of(task.table), strict=True))


@pytest.mark.parametrize("settings", [{}, {"near_duplicates": "group"}, {"group": r"(\d\d)\.png"}, {"test": 4}])
def test_an_image_has_the_same_split_and_fold_in_every_task_of_the_dataset(settings, folder):
    settings = {"validation": 0.15, **settings}
    whole = parts_by_row(split_task_from_scratch(IMAGES, **settings))
    assert {"test", "validation", "fold 1", "fold 2"} <= set(whole.values())
    for entry in ENTRIES:
        parts = parts_by_row(split_task_from_scratch(IMAGES, **settings, **entry))
        # A fold that is too small in one of the tasks only trains there.
        assert {
            part for row, part in parts.items() if part != whole[row] and "train" not in (part, whole[row])
        } == set()
        held_out = [row for row in parts if whole[row] in ("test", "validation")]
        assert {row: parts[row] for row in held_out} == {row: whole[row] for row in held_out}


def test_a_class_that_is_too_small_for_a_fold_changes_no_number_of_the_other_folds(folder):
    """The task of all classes has two folds, the large classes alone have five."""
    images = [image for label, size in (("ant", 60), ("bee", 60), ("owl", 30)) for image in numbered(label, size)]
    entry = {"validation": 10, "test": 10}
    whole = split_task_from_scratch(images, **entry)
    large = split_task_from_scratch(images, **entry, exclude=["owl"])
    assert (whole.folds, large.folds) == (2, 5)
    fold = parts_by_row(large)
    for row, part in parts_by_row(whole).items():
        if row in fold:
            assert part == ("train" if fold[row] in FOLDS[2:] else fold[row])


def test_the_folds_after_one_that_is_too_small_only_train():
    """Class 1 has one image in fold 1. Fold 2 is large enough, but must not become fold 1."""
    counts = {"test": (4, 4), "validation": (4, 4), "fold 1": (4, 1), "fold 2": (4, 4), "train": (4, 4)}
    rows = [(label, part) for part, numbers in counts.items() for label in (0, 1) for _ in range(numbers[label])]
    table = pd.DataFrame(rows, columns=["label", "part"])
    expected = table["part"].replace({"fold 1": "train", "fold 2": "train"})
    assert list(keep_full_folds(table, set())) == list(expected)


@pytest.mark.parametrize("kind", ["shares", "numbers"])
def test_test_images_of_a_smaller_share_are_test_images_of_a_larger_one(kind, folder):
    small, large = {"shares": (0.1, 0.3), "numbers": (4, 12)}[kind]
    few, many = (
        {row for row, part in parts_by_row(split_task_from_scratch(IMAGES, test=test)).items() if part == "test"}
        for test in (small, large)
    )
    assert few < many


@few_examples
@given(st.one_of(REPEATED, DISTINCT), SEEDS, st.floats(0.05, 0.4), st.floats(0.05, 0.4), st.floats(0.05, 0.4))
def test_test_images_do_not_depend_on_validation(images, seed, test, validation, other):
    table = as_table(images, seed)
    first, second = (assign_parts(table, share, test) == "test" for share in (validation, other))
    assert np.array_equal(first, second)


def test_a_number_of_held_out_images_is_kept_whole_under_a_limit(folder):
    task = split_task([*numbered("cat", 90), *numbered("dog", 90)], test=10, validation=8, max_per_class=40)
    assert len(task.table) == 80
    assert task.rows("test")["label"].value_counts().to_dict() == {0: 10, 1: 10}
    # The last fold gets what the limit leaves, which is more than half the number.
    assert task.folds == 4
    for fold, images in enumerate((8, 8, 8, 6)):
        assert task.rows("validation", fold=fold)["label"].value_counts().to_dict() == {0: images, 1: images}
        assert task.rows("train", fold=fold)["label"].value_counts().to_dict() == {0: 30 - images, 1: 30 - images}


def test_a_pattern_has_to_match_a_name_of_the_task(folder):
    write_prepared([*numbered("cat", 12), *numbered("dog", 12), *numbered("bee", 12, name="bee/hive.png")])
    entry = {"dataset": "d", "validation": 0.25, "test": 0.25, "include": ["cat", "dog"], "group": "hive"}
    with pytest.raises(UserError, match="does not match any of 24 file names"):
        main(Params({"seed": 0, "tasks": {"t": entry}}), "t")


def test_the_stage_prints_and_stores_the_number_of_folds(folder, capsys):
    write_prepared([*numbered("cat", 12), *numbered("dog", 12)])
    for validation, folds in ((0.25, "3 folds"), (6, "1 fold")):
        entry = {"dataset": "d", "validation": validation, "test": 0.25}
        assert main(Params({"seed": 0, "tasks": {"t": entry}}), "t").endswith(f" test, {folds}")
        assert (f"form {folds}. Each repeat" in capsys.readouterr().out) == (folds == "3 folds")
        assert read_task("t").summary.folds == read_task("t").folds == int(folds[0])


@pytest.mark.parametrize(
    ("sizes", "entry", "sentence"),
    [
        ({"ant": 60, "bee": 60, "owl": 30}, {}, "Only 2 folds: class owl has too few images for more."),
        ({"ant": 60, "owl": 29}, {}, "Only 1 fold: class owl has too few images for more."),
        ({"ant": 90, "bee": 34, "owl": 30}, {}, "Only 2 folds: classes bee, owl have too few images for more."),
        ({"ant": 60, "bee": 60}, {}, None),
        ({"ant": 90, "owl": 31}, {"validation": 0.2, "test": 0.3}, None),  # the shares limit the folds
        ({"ant": 200, "owl": 120}, {}, None),  # 10 folds are the most
        ({"ant": 90, "owl": 30}, {"validation": "published"}, None),
    ],
)
def test_the_summary_names_the_classes_that_limit_the_folds(sizes, entry, sentence, folder):
    splits = ("train", "train", "train", "train", "validation")
    images = [
        image._replace(split=splits[row % 5])
        for label, size in sizes.items()
        for row, image in enumerate(numbered(label, size))
    ]
    entry = {"validation": 10, "test": 10, **entry}
    for _ in range(2):  # a split that is kept has the same summary
        task = split_task(images, **entry)
        assert [line for line in summary_sentences(task.summary, "t", "d") if "Only" in line] == [sentence] * (
            sentence is not None
        )


def test_parts_are_splits_and_folds():
    parts = ["test", "train", "excluded", *FOLDS]
    assert splits_of(parts) == ["test", "train", "excluded", "validation", *["train"] * (MAX_FOLDS - 1)]
    assert folds_of(parts) == [-1, -1, -1, *range(MAX_FOLDS)]
    assert list(parts_of(pd.DataFrame({"split": splits_of(parts), "fold": folds_of(parts)}))) == parts
