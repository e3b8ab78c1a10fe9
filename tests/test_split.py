"""The split: who comes to train, validation and test."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stages.base.errors import UserError
from stages.data.images import read_images
from stages.data.tasks import SPLITS, Task, read_task, select_classes
from stages.sources.decoding import write_images
from stages.sources.readers import SourceImage
from stages.split import check_counts, hash_positions, main, split_rows
from tests.conftest import png

# Images as (label, content) pairs; few contents, so that many are equal, also across labels.
REPEATED = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12).map(str)), min_size=1, max_size=80)
# Every image has its own content.
DISTINCT = st.lists(st.integers(0, 3), min_size=1, max_size=200).map(
    lambda labels: [(label, f"image {number}") for number, label in enumerate(labels)]
)
SHARES = st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)).filter(lambda shares: sum(shares) < 1)
SEEDS = st.integers(0, 2**64)

CLASSES = ["cat", "dog", "horse"]
IMAGES = SimpleNamespace(classes=CLASSES)


def split(images, shares, seed):
    labels, contents = (pd.Series(column) for column in zip(*images, strict=True))
    return split_rows(labels, contents, hash_positions(contents, seed), *shares)


@given(st.one_of(REPEATED, DISTINCT), SHARES, SEEDS)
def test_every_image_comes_to_exactly_one_side(images, shares, seed):
    sides = split(images, shares, seed)
    assert sides.shape == (len(images),)
    assert set(sides) <= set(SPLITS)


@given(REPEATED, SHARES, SEEDS)
def test_equal_images_come_to_the_same_side_whatever_their_class(images, shares, seed):
    sides = {}
    for (_, content), side in zip(images, split(images, shares, seed), strict=True):
        assert sides.setdefault(content, side) == side


@given(DISTINCT, SHARES, SEEDS)
def test_each_class_gives_its_shares_to_the_image(images, shares, seed):
    sides = split(images, shares, seed)
    labels = np.array([label for label, _ in images])
    for label in set(labels):
        own = sides[labels == label]
        for side, share in zip(("validation", "test"), shares, strict=True):
            assert abs(np.sum(own == side) - round(len(own) * share)) <= 1


@given(DISTINCT, SHARES, SEEDS)
def test_held_out_shares_are_met_exactly_where_they_fit(images, shares, seed):
    labels = [label for label, _ in images]
    assume(
        all(round(labels.count(x) * shares[0]) + round(labels.count(x) * shares[1]) <= labels.count(x) for x in labels)
    )
    sides = split(images, shares, seed)
    for label in set(labels):
        own = sides[np.array(labels) == label]
        assert np.sum(own == "test") == round(len(own) * shares[1])
        assert np.sum(own == "validation") == round(len(own) * shares[0])


@given(st.one_of(REPEATED, DISTINCT), SHARES, SEEDS, st.randoms())
def test_the_order_of_the_images_does_not_matter(images, shares, seed, random):
    order = random.sample(range(len(images)), len(images))
    shuffled = split([images[place] for place in order], shares, seed)
    assert list(shuffled) == list(split(images, shares, seed)[order])


def test_the_seed_decides():
    images = [(0, str(number)) for number in range(100)]
    assert list(split(images, (0.2, 0.3), 1)) == list(split(images, (0.2, 0.3), 1))
    assert list(split(images, (0.2, 0.3), 1)) != list(split(images, (0.2, 0.3), 2))


def test_a_larger_test_share_keeps_the_test_images():
    images = [(number % 2, str(number)) for number in range(100)]
    small, large = (split(images, (0.1, share), 0) == "test" for share in (0.2, 0.4))
    assert np.all(large[small])


def test_a_new_image_moves_at_most_one_other_a_side():
    images = [(0, str(number)) for number in range(100)]
    before = split(images, (0.2, 0.3), 0)
    after = split([*images, (0, "new")], (0.2, 0.3), 0)[:-1]
    assert np.sum(before != after) <= 2


def test_a_group_of_equal_images_is_held_out_where_half_of_it_finds_room():
    labels, positions = pd.Series([0] * 10), np.zeros(10)
    pairs = split_rows(labels, pd.Series(list("aabbccddee")), positions, 0.2, 0.2)
    assert sorted(pairs) == ["test"] * 2 + ["train"] * 6 + ["validation"] * 2
    triples = split_rows(labels, pd.Series(list("aaabbbcccd")), positions, 0.1, 0.2)
    assert list(triples) == ["test"] * 3 + ["train"] * 6 + ["validation"]
    nearly_all = split_rows(labels, pd.Series(["a"] * 9 + ["b"]), positions, 0.2, 0.2)
    assert list(nearly_all) == ["train"] * 9 + ["test"]


def test_an_image_that_two_classes_share_counts_for_both():
    labels, contents = pd.Series([0] * 4 + [1] * 4), pd.Series(list("abcd") + list("wxya"))
    positions = np.array([0.1, 0.2, 0.3, 0.4, 0.05, 0.2, 0.3, 0.1])
    sides = split_rows(labels, contents, positions, 0.25, 0.25)
    assert list(sides) == ["test", "validation", "train", "train", "validation", "train", "train", "test"]


@given(st.lists(st.text(max_size=5), max_size=20), SEEDS)
def test_a_position_depends_on_the_content_and_the_seed_only(contents, seed):
    positions = hash_positions(pd.Series(contents, dtype=object), seed)
    assert np.all((positions >= 0) & (positions < 1))
    for content, position in zip(contents, positions, strict=True):
        assert hash_positions(pd.Series([content]), seed)[0] == position


def test_positions_are_spread_evenly():
    positions = hash_positions(pd.Series(map(str, range(10_000))), 0)
    counts, _ = np.histogram(positions, 10, (0, 1))
    assert counts.min() > 850  # five standard deviations below 1,000
    assert counts.max() < 1150


def test_positions_stay_the_same_between_versions():
    """Another hash would move every image of every study."""
    assert hash_positions(pd.Series(["a", "b"]), 0) == pytest.approx([0.6170009, 0.8755123], abs=1e-7)


@settings(max_examples=30)
@given(REPEATED, SEEDS, st.integers(1, 10), st.integers(0, 10))
def test_a_smaller_training_set_is_a_part_of_a_larger_one(images, seed, small, more):
    labels, contents = (pd.Series(column) for column in zip(*images, strict=True))
    positions = hash_positions(contents, seed)
    table = pd.DataFrame({"label": labels, "split": split_rows(labels, contents, positions, 0.1, 0.2)})
    table["order"] = pd.Series(positions).groupby(labels).rank(method="first").astype(int)
    task = Task("t", "d", [], "", table)
    few, many = task.rows("train", small), task.rows("train", small + more)
    available = task.rows("train")["label"].value_counts()
    assert set(few.index) <= set(many.index)
    assert few["label"].value_counts().to_dict() == available.clip(upper=small).to_dict()
    assert set(few["split"]) <= {"train"}


@pytest.mark.parametrize(
    ("include", "exclude", "chosen"),
    [
        (None, None, [0, 1, 2]),
        ([2, 0], None, [0, 2]),
        (["horse", 0, "cat"], None, [0, 2]),
        (None, ["dog"], [0, 2]),
        (None, [0, 1, 2], []),
    ],
)
def test_classes_are_chosen_by_number_or_name(include, exclude, chosen):
    assert select_classes(include, exclude, IMAGES.classes, "tasks.t") == chosen


@pytest.mark.parametrize(
    ("include", "exclude", "sentence"),
    [
        (
            ["hores"],
            None,
            "tasks.t: there is no class 'hores' (did you mean 'horse'?); accepted: 0 to 2, or cat, dog, horse.",
        ),
        ([3], None, "tasks.t: there is no class 3; accepted: 0 to 2, or cat, dog, horse."),
        (["0"], None, "tasks.t: there is no class '0'; accepted: 0 to 2, or cat, dog, horse."),
        (None, ["zebra"], "tasks.t.exclude: there is no class 'zebra'; accepted: 0 to 2, or cat, dog, horse."),
    ],
)
def test_a_class_there_is_not_is_answered_with_those_there_are(include, exclude, sentence):
    with pytest.raises(UserError) as error:
        select_classes(include, exclude, IMAGES.classes, "tasks.t")
    assert str(error.value) == sentence


def test_a_class_number_is_answered_without_a_guess():
    with pytest.raises(UserError, match="there is no class 12; accepted: 0 to 9"):
        select_classes([12], None, list("0123456789"), "tasks.t")


def test_every_class_needs_two_images_on_every_side():
    check_counts(pd.DataFrame([[2, 2, 2], [9, 5, 7]], columns=SPLITS), CLASSES, "t")
    counts = pd.DataFrame([[9, 9, 9], [9, 1, 4], [0, 9, 9]], columns=SPLITS)
    with pytest.raises(UserError) as error:
        check_counts(counts, CLASSES, "t")
    assert str(error.value) == (
        "tasks.t: class 'dog' has 9 train, 1 validation and 4 test images; each needs at least 2: give a larger "
        "share or more images."
    )


def prepared(names):
    """Prepared images of 1 to 4 grey values each, `names` -> how many; written to data/images/d."""
    source = [
        SourceImage(f"{name}/{number}", name, partial(png, np.full((8, 8), 20 * number + len(name), np.uint8)))
        for name, many in names.items()
        for number in range(many)
    ]
    write_images("d", source, 8, 0.0)
    return read_images("d")


def study_of_task(**entry):
    task = {"dataset": "d", "include": None, "exclude": None, "validation": 0.25, "test": 0.25, **entry}
    return SimpleNamespace(seed=0, tasks={"t": SimpleNamespace(**task)})


def test_the_stage_writes_a_readable_table_of_the_classes_it_keeps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = prepared({"a": 8, "bb": 8, "ccc": 8})
    said = main(study_of_task(exclude=["a"]), "t")
    assert said == "2 classes, 8 train, 4 validation, 4 test"

    task = read_task("t")
    assert (task.dataset, task.classes, task.images_sha256) == ("d", ["bb", "ccc"], images.sha256)
    assert list(task.table) == ["index", "label", "class", "split", "order", "name"]
    assert list(task.table["index"]) == list(range(8, 24))
    assert list(task.table["label"]) == [0] * 8 + [1] * 8
    assert task.table.groupby(["label", "split"]).size().tolist() == [2, 4, 2, 2, 4, 2]
    assert all(sorted(order) == list(range(1, 9)) for _, order in task.table.groupby("label")["order"])
    pd.testing.assert_frame_equal(task.rows("train", 99), task.rows("train"))


def test_a_task_refuses_other_images_than_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = prepared({"a": 8, "bb": 8})
    main(study_of_task(), "t")
    read_task("t").check_images(images.sha256, "data/images/d")
    with pytest.raises(UserError, match="data/images/d was made of other images than task 't' was split from"):
        read_task("t").check_images("0" * 64, "data/images/d")


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"include": ["a"]}, "tasks.t: the choice of classes leaves a; a task needs at least two."),
        ({"test": 0.01}, "tasks.t: class 'a' has 6 train, 2 validation and 0 test images; each needs at least 2"),
        ({"include": ["c", "a"]}, "tasks.t.include: there is no class 'c'"),
    ],
)
def test_a_task_that_cannot_be_split_is_answered_and_writes_nothing(entry, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepared({"a": 8, "bb": 8})
    with pytest.raises(UserError) as error:
        main(study_of_task(**entry), "t")
    assert str(error.value).startswith(sentence)
    assert not (tmp_path / "data/tasks").exists()


def test_a_missing_or_damaged_task_is_answered_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"data/tasks/t/task\.json is missing; `dvc repro` makes it\.$"):
        read_task("t")
    prepared({"a": 8, "bb": 8})
    main(study_of_task(), "t")
    (tmp_path / "data/tasks/t/split.csv").write_text("index,split\n0,train\n")
    with pytest.raises(UserError, match=r"data/tasks/t is damaged .*; delete it and run `dvc repro`\.$"):
        read_task("t")
