"""Splitting images into train, validation and test."""

import contextlib
import io
import itertools
import json
import shutil
import tempfile
from collections import Counter
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from stages.artifacts.images import IMAGE_COLUMNS, IMAGES_FOLDER, QUARANTINE_COLUMNS, read_images
from stages.artifacts.tasks import SPLITS, SplitSummary, Task, read_task
from stages.config.tasks import TaskConfig
from stages.core.errors import UserError
from stages.core.params import Params
from stages.core.yaml import parse_yaml
from stages.sources.source_image import SourceImage
from stages.sources.writing import write_images
from stages.split import main
from stages.splitting.assignment import EXCLUDED, FOLDS, assign_parts, hash_positions, parts_of, splits_of
from stages.splitting.classes import resolve_classes, select_classes
from stages.splitting.counts import check_counts
from stages.splitting.groups import group_ids
from stages.splitting.summary import split_warnings, summary_sentences
from tests.conftest import png
from tests.test_near_duplicates import HASHES, brute_force_groups

CLASSES = ["cat", "dog", "horse"]


def ungrouped_images(numbers):
    """Unrelated images (label, content, group); numbers: images per class."""
    return [(label, f"{label} {index}", "") for label, number in enumerate(numbers) for index in range(number)]


def grouped_images(sets):
    """Images of groups; sets: (label, size) of each group."""
    return [
        (label, f"{number}.{index}", f"{number}") for number, (label, size) in enumerate(sets) for index in range(size)
    ]


DISTINCT = st.lists(st.integers(1, 40), min_size=1, max_size=4).map(ungrouped_images)
# Many are related, also across labels.
REPEATED = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 30).map(str), st.sampled_from(["", "", "", *"abcdefgh"])),
    min_size=1,
    max_size=80,
)
SETS = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 8)), min_size=1, max_size=25)
SHARE = st.floats(0.01, 0.99)
SHARES = st.tuples(SHARE, SHARE).filter(lambda shares: sum(shares) < 1)
HELD_OUT = st.one_of(SHARES, st.tuples(st.integers(2, 30), st.integers(2, 30)), st.tuples(SHARE, st.integers(2, 30)))
SEEDS = st.integers(0, 2**64)
few_examples = settings(max_examples=15)


def as_table(images, seed=0):
    labels, contents, groups = zip(*images, strict=True)
    table = pd.DataFrame(
        {"label": labels, "sha256": contents, "group": groups, "published": "", "earlier_part": "", "name_group": ""}
    )
    table["position"] = hash_positions(table["sha256"], seed)
    table["group_id"] = group_ids(table, False)
    return table


def assign_splits(table, validation, test):
    """The split of each image, (n,) text; those of folds from 1 are in train."""
    return np.array(splits_of(assign_parts(table, validation, test)))


def split(images, held_out, seed=0):
    return assign_splits(as_table(images, seed), *held_out)


def target_counts(table, held_out):
    """(label, split) -> the number of images that the setting requires."""
    return {
        (label, split_name): setting if isinstance(setting, int) else round(size * setting)
        for label, size in table.groupby("label").size().items()
        for split_name, setting in zip(("validation", "test"), held_out, strict=True)
    }


def split_counts(table, splits):
    """(label, split) -> the number of images in the split."""
    return {
        (label, split_name): int(np.sum((table["label"] == label) & (splits == split_name)))
        for label in set(table["label"])
        for split_name in ("validation", "test")
    }


@few_examples
@given(st.one_of(REPEATED, DISTINCT), HELD_OUT, SEEDS)
def test_every_image_has_exactly_one_split(images, held_out, seed):
    splits = split(images, held_out, seed)
    assert splits.shape == (len(images),)
    assert set(splits) <= set(SPLITS)  # no image is excluded


@few_examples
@given(REPEATED, HELD_OUT, SEEDS)
def test_related_images_are_in_one_split_across_classes(images, held_out, seed):
    splits = {}
    for (_, content, group), split_name in zip(images, split(images, held_out, seed), strict=True):
        assert splits.setdefault(("content", content), split_name) == split_name
        assert not group or splits.setdefault(("group", group), split_name) == split_name


@few_examples
@given(DISTINCT, HELD_OUT, SEEDS)
def test_shares_and_numbers_are_exact_per_class(images, held_out, seed):
    table = as_table(images, seed)
    counts, targets = split_counts(table, assign_splits(table, *held_out)), target_counts(table, held_out)
    for label, size in table.groupby("label").size().items():
        # Test images are taken first, then validation images from the rest.
        test = min(targets[label, "test"], size)
        assert counts[label, "test"] == test
        assert counts[label, "validation"] == min(targets[label, "validation"], size - test)


@few_examples
@given(SETS, SHARES, SEEDS)
def test_shares_are_exact_with_enough_ungrouped_images(sets, shares, seed):
    table = as_table([*grouped_images(sets), *ungrouped_images([150, 150])], seed)
    targets = target_counts(table, shares)
    assume(all(targets[label, "test"] + targets[label, "validation"] <= 150 for label in (0, 1)))
    assert split_counts(table, assign_splits(table, *shares)) == targets


@few_examples
@given(SETS, SHARES, SEEDS)
def test_shares_are_as_close_as_group_sizes_allow(sets, shares, seed):
    table = as_table(grouped_images(sets), seed)
    table["split"] = assign_splits(table, *shares)
    counts = split_counts(table, table["split"])
    sets = table.groupby(["label", "group_id", "split"], as_index=False).size()
    for (label, split_name), targets in target_counts(table, shares).items():
        missed = counts[label, split_name] - targets
        label_groups = sets[sets["label"] == label]
        assert abs(missed) < label_groups["size"].max()
        assert all(abs(missed + size) >= abs(missed) for size in label_groups["size"][label_groups["split"] == "train"])


def test_shares_are_close_with_groups_of_two_classes():
    """Two ungrouped images of class 1 fill its test share; its other images are in groups with class 0."""
    pairs = [(label, f"{label} {number}", str(number)) for number in range(8) for label in (0, 1)]
    table = as_table([(1, "alone", ""), (1, "alone too", ""), *pairs])
    table["position"] = np.arange(len(table)) / len(table)
    counts = split_counts(table, assign_splits(table, 2, 0.25))
    assert target_counts(table, (2, 0.25))[0, "test"] == 2
    assert counts[0, "test"] >= 1


@pytest.mark.parametrize("held_out", [(0.2, 0.2), (2, 2)])
def test_ungrouped_images_fill_the_gaps_of_groups(held_out):
    pairs = [(label, f"{label} {number}", str(number)) for number in range(8) for label in (0, 1)]
    alone = [(1, f"alone {number}", "") for number in range(4)]
    for seed in range(20):
        table = as_table([*pairs, *alone], seed)
        assert set(split_counts(table, assign_splits(table, *held_out)).values()) == {2}


@few_examples
@given(st.one_of(REPEATED, DISTINCT), HELD_OUT, SEEDS, st.randoms())
def test_the_split_does_not_depend_on_row_order(images, held_out, seed, random):
    order = random.sample(range(len(images)), len(images))
    shuffled = split([images[index] for index in order], held_out, seed)
    assert list(shuffled) == list(split(images, held_out, seed)[order])


def test_a_larger_test_share_keeps_the_test_images():
    images = [(number % 2, str(number), "") for number in range(100)]
    small, large = (split(images, (0.1, share)) == "test" for share in (0.2, 0.4))
    assert np.all(large[small])


def test_a_new_split_moves_few_images():
    images = [(0, str(number), "") for number in range(100)]
    before = split(images, (0.2, 0.3))
    after = split([*images, (0, "new", "")], (0.2, 0.3))[:-1]
    assert np.sum(before != after) <= 2


@pytest.mark.parametrize(
    ("contents", "held_out", "splits"),
    [
        # Pairs fit.
        ("aabbccddee", (0.2, 0.2), ["test"] * 2 + ["validation"] * 2 + ["train"] * 6),
        # A triple is one more than two test images, and two more than one validation image.
        ("aaabbbccc", (0.1, 0.2), ["test"] * 3 + ["train"] * 6),
        # An ungrouped image and a triple would exceed the share.
        ("aaabbbcccd", (0.1, 0.2), ["train"] * 9 + ["test"]),
        ("aaaaaaaaab", (0.2, 0.2), ["train"] * 9 + ["test"]),
    ],
)
def test_a_group_is_held_out_only_if_it_reduces_the_deviation(contents, held_out, splits):
    table = as_table([(0, content, "") for content in contents]).assign(position=0.0)
    assert list(assign_splits(table, *held_out)) == splits


def test_an_image_of_two_classes_counts_for_both():
    table = as_table([(label, content, "") for label, contents in enumerate(["abcd", "wxya"]) for content in contents])
    table["position"] = [0.01, 0.2, 0.3, 0.4, 0.05, 0.2, 0.3, 0.01]
    splits = assign_splits(table, 0.25, 0.25)
    assert list(splits) == ["test", "validation", "train", "train", "validation", "train", "train", "test"]


def test_a_group_of_two_classes_is_held_out_if_both_have_room():
    sets = [(label, f"{number}.{index}", f"{number}") for number in range(4) for index, label in enumerate([0, 1, 1])]
    table = as_table([*sets, (0, "alone", ""), (0, "alone too", "")])
    table["position"] = np.arange(len(table)) / len(table)
    splits = assign_splits(table, 2, 2)
    assert list(splits) == [*["test"] * 3, *["validation"] * 3, *["train"] * 6, "test", "validation"]


@few_examples
@given(st.lists(st.text(max_size=5), max_size=20), SEEDS)
def test_positions_depend_only_on_content_and_seed(contents, seed):
    positions = hash_positions(pd.Series(contents, dtype=object), seed)
    assert np.all((positions >= 0) & (positions < 1))
    for content, position in zip(contents, positions, strict=True):
        assert hash_positions(pd.Series([content]), seed)[0] == position


def test_positions_are_uniform():
    positions = hash_positions(pd.Series(map(str, range(10_000))), 0)
    counts, _ = np.histogram(positions, 10, (0, 1))
    assert counts.min() > 850  # five standard deviations below 1,000
    assert counts.max() < 1150


def test_positions_do_not_change_between_versions():
    """A different hash would move every image of every study."""
    assert hash_positions(pd.Series(["a", "b"]), 0) == pytest.approx([0.6170009, 0.8755123], abs=1e-7)


# Published and earlier splits.

ROWS = st.fixed_dictionaries(
    {
        "label": st.integers(0, 2),
        "group_id": st.integers(0, 9),
        "position": st.floats(0, 1),
        "published": st.sampled_from(["", *SPLITS]),
        "earlier_part": st.sampled_from(["", "", *SPLITS, "fold 1"]),
    }
)
SETTING = st.one_of(st.just("published"), st.sampled_from([0.1, 0.3, 0.45]), st.integers(2, 9))


@settings(max_examples=40)
@given(st.lists(ROWS, min_size=1, max_size=50), SETTING, SETTING)
def test_published_and_earlier_splits_are_kept(rows, validation, test):
    table = pd.DataFrame(rows)
    table["part"] = assign_parts(table, validation, test)
    targets = {"test": test, "validation": validation}
    published_splits = [split_name for split_name in targets if targets[split_name] == "published"]
    drawn = ["train", *(["test"] if test != "published" else []), *(FOLDS if validation != "published" else [])]
    for _, images in table.groupby("group_id"):
        # A published test image takes precedence over a related published validation image.
        published = next((split for split in published_splits if split in set(images["published"])), None)
        kept = {part for part in images["earlier_part"] if part in drawn}
        if published:
            expected = [published if split_name == published else EXCLUDED for split_name in images["published"]]
        elif len(kept) > 1:
            expected = [part if part in drawn else EXCLUDED for part in images["earlier_part"]]
        else:
            [part] = kept or [images["part"].iloc[0]]
            assert part in drawn
            expected = [part] * len(images)
        assert list(images["part"]) == expected


@few_examples
@given(DISTINCT, st.data(), SHARE, SEEDS)
def test_shares_apply_to_images_outside_a_published_split(images, data, share, seed):
    published = st.lists(st.sampled_from(["", *SPLITS]), min_size=len(images), max_size=len(images))
    table = as_table(images, seed).assign(published=data.draw(published))
    for split_name, splits in (
        ("test", assign_splits(table, share, "published")),
        ("validation", assign_splits(table, "published", share)),
    ):
        assert np.array_equal(splits == split_name, table["published"] == split_name)
        rest, other = table[table["published"] != split_name], "validation" if split_name == "test" else "test"
        for label, size in rest.groupby("label").size().items():
            assert np.sum(splits[table["label"] == label] == other) == round(size * share)


@few_examples
@given(DISTINCT, st.lists(st.lists(st.integers(0, 20), min_size=2, max_size=4), min_size=1, max_size=3), SHARES, SEEDS)
def test_shares_stay_within_one_image_when_images_are_added(images, additions, shares, seed):
    kept = dict(zip((image[1] for image in images), assign_parts(as_table(images, seed), *shares), strict=True))
    for number, added in enumerate(additions):
        images = images + [(label, f"new {number} {content}", "") for label, content, _ in ungrouped_images(added)]
        table = as_table(images, seed)
        table["earlier_part"] = [kept.get(content, "") for content in table["sha256"]]
        parts = dict(zip(table["sha256"], assign_parts(table, *shares), strict=True))
        assert kept.items() <= parts.items()
        kept = parts
        counts = split_counts(table, np.array(splits_of(parts[content] for content in table["sha256"])))
        assert all(abs(counts[key] - targets) <= 1 for key, targets in target_counts(table, shares).items())


def test_shares_do_not_count_excluded_images():
    kept = [*["train"] * 6, *["validation"] * 2, *["test"] * 2]
    table = as_table(ungrouped_images([35]))
    table["earlier_part"] = [*kept, *[""] * 25]
    table["group_id"] = [*range(9), 0, *[0] * 20, *range(30, 35)]  # twenty between train and test, five alone
    splits = assign_splits(table, 0.2, 0.2)
    assert list(splits[:30]) == [*kept, *[EXCLUDED] * 20]
    assert sorted(splits[30:]) == ["test", "train", "train", "train", "validation"]


# The classes of a task.


def task_config(**entry):
    return TaskConfig(**{"dataset": "d", "validation": 0.25, "test": 0.25, **entry})


@pytest.mark.parametrize(
    ("selection", "chosen"),
    [(None, [0, 1, 2]), ([2, 0], [0, 2]), (["horse", 0, "cat"], [0, 2]), ([0, 1, 2], [0, 1, 2])],
)
def test_classes_are_selected_by_number_or_name(selection, chosen):
    assert select_classes(selection, CLASSES, "features.f.classes") == chosen


@pytest.mark.parametrize(
    ("selection", "sentence"),
    [
        (["hores"], "class 'hores' does not exist (did you mean 'horse'?). Classes: 0 to 2, or cat, dog, horse."),
        ([3], "class 3 does not exist. Classes: 0 to 2, or cat, dog, horse."),
        (["0"], "class '0' does not exist. Classes: 0 to 2, or cat, dog, horse."),
    ],
)
def test_a_missing_class_is_an_error_that_lists_the_classes(selection, sentence):
    with pytest.raises(UserError) as error:
        select_classes(selection, CLASSES, "features.f.classes")
    assert str(error.value) == f"features.f.classes: {sentence}"


DIGITS = [str(digit) for digit in range(10)]
# Classes of a dataset, in the order of their labels, numbers without quotes, and the names that they could mean.
MISTAKABLE = {
    "from one": (["1", "2", "3"], [1, 2], ["'1'", "'2'"]),
    "gaps": (["3", "5", "8"], [3, 5], ["'3'", "'5'"]),
    "order of text": (["0", "1", "10", "11", "2", "3"], [0, 2], ["'2'"]),
    "padded": (["001", "002", "003"], [1, 2], ["'001'", "'002'"]),
    "padded, too large": (["07", "08"], [7, 8], ["'07'", "'08'"]),
    "padded from zero": (["00", "01", "010"], [0, 10], ["'010'"]),
    "two spellings": (["01", "1", "2"], [1, 0], ["'01' or '1'"]),
    "among other names": (["1", "cat", "dog"], [1, 2], ["'1'"]),
    "decimal": (["1.0", "2.0"], [1, 0], ["'1.0'"]),
    "hexadecimal": (["0x10", "0x11"], [16, 0], ["'0x10'"]),
}


@pytest.mark.parametrize("key", ["include", "exclude", "rename", "classes"])
@pytest.mark.parametrize(("classes", "numbers", "quoted"), MISTAKABLE.values(), ids=MISTAKABLE)
def test_a_number_that_could_be_the_name_of_another_class_is_an_error(classes, numbers, quoted, key):
    with pytest.raises(UserError) as error:
        if key == "classes":
            select_classes(numbers, classes, "tasks.t.classes")
        else:
            value = {number: f"new {number}" for number in numbers} if key == "rename" else numbers
            resolve_classes(task_config(**{key: value}), classes, "tasks.t")
    assert len(error.value.sentences) == len(quoted)
    for sentence, names in zip(error.value.sentences, quoted, strict=True):
        assert sentence.startswith(f"tasks.t.{key}: ")
        assert f"Write {names} in quotes" in sentence


def test_the_error_of_a_mistakable_number_says_what_it_could_mean():
    with pytest.raises(UserError) as error:
        select_classes([1, 3], ["1", "2", "3"], "features.f.classes")
    assert error.value.sentences == (
        "features.f.classes: 1 is ambiguous: the number of class '2', or the class named '1'. Write '1' in quotes for "
        "the name, or '2'.",
        "features.f.classes: class number 3 does not exist (numbers: 0 to 2). Write '3' in quotes for the class of "
        "this name.",
    )


@pytest.mark.parametrize(
    ("entry", "classes", "names"),
    [
        # Text is a name, whatever number it looks like.
        ({"include": ["1", "2"]}, ["1", "10", "11", "2", "3"], ["1", "2"]),
        ({"include": ["3", "5"]}, ["3", "5", "8"], ["3", "5"]),
        ({"exclude": ["001"]}, ["001", "002", "003"], ["002", "003"]),
        ({"rename": {"1": "one", "2": "two"}}, ["1", "2", "3"], ["one", "two", "3"]),
        ({"rename": {"a": "1", "b": "0"}, "include": ["1", "c"]}, ["a", "b", "c"], ["1", "c"]),
        # These numbers can mean only one class.
        ({"include": [0, 1, 2]}, DIGITS, ["0", "1", "2"]),
        ({"rename": {0: "zero", "1": "one"}, "include": [0, 1]}, DIGITS, ["zero", "one"]),
        ({"exclude": [0, 1]}, ["00", "01", "02", "03"], ["02", "03"]),
        ({"include": [0, 2]}, ["a1", "b2", "c0"], ["a1", "c0"]),
        # As macOS may write them.
        ({"include": ["a\u0308", "b"]}, ["b", "c", "ä"], ["b", "ä"]),
        ({"rename": {"a\u0308": "e\u0301"}, "exclude": ["c"]}, ["b", "c", "ä"], ["b", "é"]),
    ],
)
def test_names_that_are_numbers_select_their_classes(entry, classes, names):
    assert resolve_classes(task_config(**entry), classes, "tasks.t").names == names


@pytest.mark.parametrize(
    ("entry", "names", "label_of"),
    [
        ({}, ["cane", "gatto", "lupo"], {0: 0, 1: 1, 2: 2}),
        ({"exclude": ["cane"]}, ["gatto", "lupo"], {1: 0, 2: 1}),
        ({"rename": {"cane": "dog", "lupo": "wolf"}}, ["dog", "gatto", "wolf"], {0: 0, 1: 1, 2: 2}),
        # Two classes are merged.
        ({"rename": {"cane": "dog", "lupo": "dog"}}, ["dog", "gatto"], {0: 0, 1: 1, 2: 0}),
        ({"rename": {"lupo": "cane"}}, ["cane", "gatto"], {0: 0, 1: 1, 2: 0}),
        # Old names, new names and numbers are accepted; a new name means all of its classes.
        ({"rename": {"cane": "dog"}, "include": ["dog", "lupo"]}, ["dog", "lupo"], {0: 0, 2: 1}),
        ({"rename": {"cane": "dog"}, "include": ["cane", 2]}, ["dog", "lupo"], {0: 0, 2: 1}),
        ({"rename": {"gatto": "dog", "lupo": "dog"}, "include": ["dog", 0]}, ["cane", "dog"], {0: 0, 1: 1, 2: 1}),
        ({"rename": {"gatto": "cat", "lupo": "cat"}, "exclude": ["lupo"]}, ["cane", "cat"], {0: 0, 1: 1}),
        ({"rename": {"gatto": "cat"}, "exclude": ["cat"]}, ["cane", "lupo"], {0: 0, 2: 1}),
    ],
)
def test_classes_are_renamed_merged_and_selected(entry, names, label_of):
    assert resolve_classes(task_config(**entry), ["cane", "gatto", "lupo"], "tasks.t") == (names, label_of)


def test_excluding_a_merged_class_excludes_all_its_parts():
    entry = task_config(rename={"Cat": "cat"}, exclude=["cat"])
    assert resolve_classes(entry, ["Cat", "cat", "dog", "horse"], "tasks.t").names == ["dog", "horse"]


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (
            {"rename": {"hores": "pony"}},
            "tasks.t.rename: class 'hores' does not exist (did you mean 'horse'?). Classes: 0 to 2, or cat, dog, ",
        ),
        (
            {"rename": {"cat": "lion", 0: "tiger"}},
            "tasks.t.rename: class 'cat' is given twice. Give it once.",
        ),
        ({"rename": {"a": "x", "b": "y"}}, "tasks.t.rename: class 'a' does not exist. Classes: 0 to 2, or cat, dog, "),
        # A new name that is the number of another class.
        ({"rename": {"cat": "1", "dog": "0"}, "include": [1, 2]}, "tasks.t.include: 1 is ambiguous: the number of "),
        ({"include": ["cat", "hores"]}, "tasks.t.include: class 'hores' does not exist (did you mean 'horse'?)"),
        ({"exclude": ["hores"]}, "tasks.t.exclude: class 'hores' does not exist (did you mean 'horse'?)"),
        (
            {"exclude": ["cat", 1]},
            "tasks.t: a task needs two classes. Classes after include, exclude and rename: horse.",
        ),
        ({"exclude": [0, 1, 2]}, "tasks.t: a task needs two classes. Classes after include, exclude and rename: none."),
        (
            {"rename": {"cat": "animal", "dog": "animal"}, "exclude": ["horse"]},
            "tasks.t: a task needs two classes. Classes after include, exclude and rename: animal.",
        ),
        (
            {"rename": {"dog": "Cat"}},
            "tasks.t: classes 'Cat' and 'cat' differ only in letter case. If they are one class, write rename: {",
        ),
    ],
)
def test_invalid_class_selections_are_errors(entry, sentence):
    with pytest.raises(UserError) as error:
        resolve_classes(task_config(**entry), CLASSES, "tasks.t")
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize(
    ("entry", "where"),
    [
        ({"rename": {"cats": "x"}, "include": ["dogs", "horse"]}, ["rename", "include"]),
        ({"rename": {"a": "x", "b": "y"}, "include": ["dog", 7, 8]}, ["rename", "rename", "include", "include"]),
        ({"rename": {"cat": "x", 0: "y", "b": "z"}, "exclude": ["c"]}, ["rename", "rename", "exclude"]),
        ({"rename": {"hores": "pony"}, "include": ["pony", "dog"]}, ["rename"]),
        ({"rename": {"hores": "pony"}, "exclude": ["pony", "gdo"]}, ["rename", "exclude"]),
    ],
)
def test_all_problems_of_a_selection_of_classes_are_reported(entry, where):
    with pytest.raises(UserError) as error:
        resolve_classes(task_config(**entry), CLASSES, "tasks.t")
    assert [sentence.split(":")[0] for sentence in error.value.sentences] == [f"tasks.t.{key}" for key in where]


def test_all_classes_that_differ_in_letter_case_are_reported():
    with pytest.raises(UserError) as error:
        resolve_classes(task_config(), ["Cat", "Dog", "cat", "dog"], "tasks.t")
    assert [sentence.split("'")[1:4:2] for sentence in error.value.sentences] == [["Cat", "cat"], ["Dog", "dog"]]


def test_classes_that_differ_in_letter_case_can_be_merged():
    classes = ["Straße", "cat", "dog", "strasse"]
    with pytest.raises(UserError) as error:
        resolve_classes(task_config(), classes, "tasks.t")
    assert str(error.value) == (
        "tasks.t: classes 'Straße' and 'strasse' differ only in letter case. If they are one class, write "
        "rename: {Straße: strasse}; otherwise rename one of them."
    )
    merged = resolve_classes(task_config(rename={"Straße": "strasse"}), classes, "tasks.t")
    assert merged == (["strasse", "cat", "dog"], {0: 0, 1: 1, 2: 2, 3: 0})


# The stage.


class Image(NamedTuple):
    """An image of a dataset without its pixels, which the split does not read."""

    label: str
    content: str
    group: str = ""
    split: str = ""
    perceptual_hash: str = ""
    name: str = ""


def text_sha256(text):
    return sha256(text.encode()).hexdigest()


def numbered(label, number, first=0, **also):
    return [Image(label, f"{label} {index}", **also) for index in range(first, first + number)]


TWO_CLASSES = [*numbered("cat", 12), *numbered("dog", 12)]


def write_prepared(images, unreadable=()):
    """Write data/images/d as `prepare` does; default names are the indices of the images."""
    folder = IMAGES_FOLDER / "d"
    folder.mkdir(parents=True, exist_ok=True)
    classes = sorted({image.label for image in images})
    table = pd.DataFrame(
        {
            "index": index,
            "label": classes.index(image.label),
            "class": image.label,
            "split": image.split,
            "group": image.group,
            "sha256": text_sha256(image.content),
            "perceptual_hash": image.perceptual_hash or text_sha256(f"hash of {image.content}"),
            "name": image.name or f"{image.label}/{index}.png",
        }
        for index, image in enumerate(images)
    )
    table[IMAGE_COLUMNS].to_csv(folder / "table.csv", index=False)
    pd.DataFrame(unreadable, columns=QUARANTINE_COLUMNS).to_csv(folder / "quarantine.csv", index=False)
    np.save(folder / "images.npy", np.zeros((len(images), 1, 1, 3), np.uint8))
    (folder / "record.json").write_text(
        json.dumps({"image_size": 1, "resize": "crop", "classes": classes, "images_sha256": "0" * 64})
    )


def task_params(seed=0, **entry):
    return Params({"seed": seed, "tasks": {"t": {"dataset": "d", "validation": 0.25, "test": 0.25, **entry}}})


def split_task(images, seed=0, **entry):
    """Run the stage on images; an earlier split of the task is kept."""
    write_prepared(images)
    main(task_params(seed, **entry), "t")
    return read_task("t")


def split_task_from_scratch(*arguments, **entry):
    shutil.rmtree("data/tasks", ignore_errors=True)
    return split_task(*arguments, **entry)


def splits_by(task, column="name"):
    return dict(zip(task.table[column], task.table["split"], strict=True))


def task_files():
    return {path.name: path.read_bytes() for path in Path("data/tasks/t").iterdir()}


@contextlib.contextmanager
def empty_folder():
    """Like the fixture `folder`, for each example of hypothesis; without the check of the counts."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr("stages.split.check_counts", lambda *counts: None)
        yield


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Images related in every way; ENOUGH adds unrelated images, so every class has two images in every split.
RELATED = st.lists(
    st.builds(
        lambda label, number, group, split: Image(label, f"related {number}", group, split, HASHES[number]),
        st.sampled_from(["cat", "dog"]),
        st.integers(0, len(HASHES) - 1),
        st.sampled_from(["", "", *"pqrstuv"]),
        st.sampled_from(["", "train", "test"]),
    ),
    max_size=12,
)
ENTRIES = st.fixed_dictionaries(
    {
        "validation": st.sampled_from([0.2, 3]),
        "test": st.sampled_from([0.25, 2, "published"]),
        "near_duplicates": st.sampled_from(["report", "group"]),
    }
)
ENOUGH = [*TWO_CLASSES, *numbered("cat", 3, 20, split="test"), *numbered("dog", 3, 20, split="test")]


def check_splits(task, images, entry, kept):
    """Check the rules for each group of related images; kept: content -> earlier part."""
    if {*kept.values()} & {*FOLDS[task.folds :]}:
        return  # so many images of a fold are excluded that it is too small
    group = entry["near_duplicates"] == "group"
    numbers = brute_force_groups(
        [(image.content, image.group, image.perceptual_hash if group else "") for image in images]
    )
    rows = pd.DataFrame(images).assign(part=list(parts_of(task.table)), number=numbers)
    rows["kept"] = [kept.get(text_sha256(content), "") for content in rows["content"]]
    for _, together in rows.groupby("number"):
        before = set(together["kept"]) - {""}
        if entry["test"] == "published" and "test" in set(together["split"]):
            expected = ["test" if split == "test" else EXCLUDED for split in together["split"]]
        elif len(before) > 1:
            expected = [part or EXCLUDED for part in together["kept"]]
        else:
            [part] = before or [together["part"].iloc[0]]
            assert part in {*SPLITS, *FOLDS}
            expected = [part] * len(together)
        assert list(together["part"]) == expected


def earlier_parts(task):
    parts = dict(zip(task.table["sha256"], parts_of(task.table), strict=True))
    return {content: part for content, part in parts.items() if part != EXCLUDED}


def check_added(images, entry, earlier):
    """Run an earlier task with added images, check the rules, and return the task.

    A new split is accepted if too few images remain in a split; another test checks when that happens.
    """
    with contextlib.redirect_stdout(io.StringIO()) as message:
        task = split_task(images, **entry)
    is_new = "new split: the earlier split leaves too few images" in message.getvalue()
    check_splits(task, images, entry, {} if is_new else earlier_parts(earlier))
    return task


RELATED_TO_TEST = [
    Image("cat", f"related {number}", "", split, HASHES[number]) for number, split in ((0, "test"), (2, ""))
]


@settings(max_examples=8)
@given(RELATED, RELATED, RELATED, ENTRIES)
@example(  # the last image connects the others to a published test image: too few remain for validation
    [*RELATED_TO_TEST, RELATED_TO_TEST[1]],
    [],
    [Image("cat", "related 1", "", "", HASHES[1])],
    {"validation": 0.2, "test": "published", "near_duplicates": "group"},
)
def test_added_images_move_no_earlier_image(some, more, still_more, entry):
    few, many, most = [*ENOUGH, *some], [*ENOUGH, *some, *more], [*ENOUGH, *some, *more, *still_more]
    with empty_folder():
        first = split_task_from_scratch(few, **entry)
        check_splits(first, few, entry, {})
        check_added(most, entry, check_added(many, entry, first))
        check_added(most, entry, split_task_from_scratch(few, **entry))


@settings(max_examples=8)
@given(RELATED, st.sets(st.integers(0, 29), max_size=4), st.sets(st.integers(60, 71)), st.sampled_from([0.2, 6]))
def test_removed_images_move_no_remaining_image(some, gone, related_gone, held_out):
    entry = {"validation": held_out, "test": held_out, "near_duplicates": "group"}
    images = [*numbered("cat", 30), *numbered("dog", 30), *some]
    images = [image._replace(name=str(index)) for index, image in enumerate(images)]
    left = [image for index, image in enumerate(images) if index not in gone | related_gone]
    with empty_folder():
        before = splits_by(split_task(images, **entry))
        kept = {image.name: before[image.name] for image in left}
        counts = Counter((image.label, kept[image.name]) for image in left)
        # Without a large group, a split may be too small; another test covers the new split.
        assume(all(counts[label, split_name] >= 2 for label in ("cat", "dog") for split_name in SPLITS))
        after = splits_by(split_task(left, **entry))
    assert after == kept


def test_a_new_image_joins_its_group_or_is_excluded(folder):
    images = [Image(label, f"{index}", f"group {index}") for index, label in enumerate(["cat", "dog"] * 12)]
    before = split_task(images, near_duplicates="group")
    indices = {split_name: int(np.flatnonzero(before.table["split"] == split_name)[0]) for split_name in SPLITS}
    hash_by_split = {split_name: text_sha256(f"hash of {index}") for split_name, index in indices.items()}
    new = [Image("dog", f"new {split_name}", f"group {index}") for split_name, index in indices.items()]
    between = [
        Image("cat", "between", f"group {indices['train']}", perceptual_hash=hash_by_split["test"]),
        Image("cat", "alike", perceptual_hash=hash_by_split["test"]),  # related through the first image
        Image("dog", "also between", f"group {indices['validation']}", perceptual_hash=hash_by_split["test"]),
    ]
    after = split_task([*images, *new], near_duplicates="group")
    assert list(after.table["split"]) == [*before.table["split"], *SPLITS]
    after = split_task([*images, *between], near_duplicates="group")
    assert list(after.table["split"]) == [*before.table["split"], *[EXCLUDED] * 3]
    assert after.summary.excluded == 3


def test_names_folders_and_order_do_not_affect_the_split(folder):
    images = [*TWO_CLASSES, *numbered("cat", 4, group="x"), *numbered("dog", 3, 50, group="y", split="train")]
    before = splits_by(split_task(images), "sha256")
    renamed = [image._replace(name=f"elsewhere/{text_sha256(str(index))}") for index, image in enumerate(images)][::-1]
    assert splits_by(split_task(renamed), "sha256") == before
    assert splits_by(split_task_from_scratch(renamed), "sha256") == before


@pytest.mark.parametrize("entry", [{}, {"near_duplicates": "group"}, {"max_per_class": 10}, {"test": "published"}])
def test_equal_images_and_settings_give_equal_bytes(entry, folder):
    images = [*ENOUGH, *numbered("cat", 3, 50, group="x"), *numbered("dog", 2, 20, split="train")]
    split_task(images, **entry)
    before = task_files()
    assert sorted(before) == ["near_duplicates.csv", "related.csv", "split.csv", "task.json"]
    split_task(images, **entry)
    assert task_files() == before
    split_task_from_scratch(images, **entry)
    assert task_files() == before


def test_max_per_class_with_copies_and_excluded_images_is_stable(folder):
    """The last selected image has a copy, and another image is related to a published test image."""
    cats = sorted(numbered("cat", 8), key=lambda image: hash_positions([text_sha256(image.content)], 0)[0])
    cats = [image._replace(split="test", group="x") for image in cats[:2]] + [cats[2]._replace(group="x")] + cats[3:]
    images = [*cats, cats[-1], *numbered("dog", 6), *numbered("dog", 2, 20, split="test")]
    entry = {"max_per_class": 8, "test": "published", "validation": 2}
    split_task(images, **entry)
    before = task_files()
    split_task(images, **entry)
    assert task_files() == before


@pytest.mark.parametrize("change", [{"seed": 1}, {"test": 0.4}, {"validation": 3}, {"max_per_class": 17}])
def test_changed_settings_make_a_new_split(change, folder):
    images, more = [*numbered("cat", 20), *numbered("dog", 20)], numbered("dog", 10, 20)
    fresh = splits_by(split_task_from_scratch([*images, *more], **change))
    split_task_from_scratch(images)
    kept = splits_by(split_task([*images, *more]))
    assert splits_by(split_task([*images, *more], **change)) == fresh
    assert kept != fresh


def test_a_damaged_split_is_made_again(folder):
    split_task_from_scratch(TWO_CLASSES)
    before = task_files()
    for name in ("split.csv", "task.json"):
        (folder / "data/tasks/t" / name).write_text("nothing\n")
        split_task(TWO_CLASSES)
        assert task_files() == before


def test_images_related_to_a_published_split_are_excluded(folder):
    images = [
        *numbered("cat", 8),
        *numbered("dog", 8),
        *(image for label in ("cat", "dog") for image in numbered(label, 4, 20, split="validation")),
        *(image for label in ("cat", "dog") for image in numbered(label, 5, 40, split="test")),
        Image("cat", "cat 41", split="train"),  # content of a test image
        Image("dog", "dog 41", split="validation"),
        Image("dog", "dog 21", split="train"),
        Image("dog", "of a patient", "x", split="test"),
        Image("dog", "of him too", "x", split="train"),
    ]
    task = split_task(images, validation="published", test="published")
    assert list(task.table["split"]) == [
        *["train"] * 16, *["validation"] * 8, *["test"] * 10, EXCLUDED, EXCLUDED, EXCLUDED, "test", EXCLUDED
    ]  # fmt: skip
    assert task.summary.excluded == 4
    assert task.summary.near_duplicates == 0  # excluded images cannot leak
    mixed = split_task_from_scratch(images, validation=0.25, test="published").table
    rest = ~mixed["split"].isin(["test", EXCLUDED])
    assert list(mixed["index"][mixed["split"] == "test"]) == [*range(24, 34), 37]
    assert list(mixed["index"][mixed["split"] == EXCLUDED]) == [34, 35, 38]
    assert mixed[rest].groupby(["label", "split"]).size().to_dict() == {
        (label, split_name): number
        for label, counts in enumerate([{"train": 9, "validation": 3}, {"train": 10, "validation": 3}])
        for split_name, number in counts.items()
    }


@pytest.mark.parametrize(("split_name", "splits"), [("test", "train"), ("validation", "train, test")])
def test_a_split_that_is_not_published_is_an_error(split_name, splits, folder):
    write_prepared([image for split in splits.split(", ") for image in numbered("cat", 9, split=split)] + TWO_CLASSES)
    with pytest.raises(UserError) as error:
        main(task_params(**{split_name: "published"}), "t")
    assert str(error.value) == (
        f"tasks.t.{split_name}: dataset 'd' does not publish {split_name} images (splits: {splits}). Give a share, "
        "or a number of images per class."
    )
    assert not (folder / "data/tasks").exists()


def test_all_splits_that_are_not_published_are_reported(folder):
    write_prepared(TWO_CLASSES)
    with pytest.raises(UserError) as error:
        main(task_params(validation="published", test="published"), "t")
    assert [sentence.split(":")[0] for sentence in error.value.sentences] == ["tasks.t.test", "tasks.t.validation"]


def test_groups_come_from_file_names_and_from_the_table(folder):
    persons = [("cat", "dog")[index % 2] for index in range(120)]
    named = [
        Image(label, f"{index}", name=f"{label}/person{index // 6}_{label}_{index}.png")
        for index, label in enumerate(persons)
    ]
    tabled = [Image(label, f"{index}", group=f"{index // 6}") for index, label in enumerate(persons)]
    both = [image._replace(group=f"room {index // 12}") for index, image in enumerate(named)]
    by_names = split_task(named, group=r"person(\d+)")
    for task in (by_names, split_task(tabled), split_task_from_scratch(both, group=r"person(\d+)_")):
        if task.summary.groups == 10:  # groups of the table and of the names are combined
            room_splits = task.table["split"].groupby(task.table["index"] // 12)
            assert (room_splits.nunique() == 1).all()
            continue
        person_splits = task.table["split"].groupby(task.table["index"] // 6)
        assert (person_splits.nunique() == 1).all()
        assert list(task.table["split"]) == list(by_names.table["split"])
        assert task.table["split"].value_counts().to_dict() == {"train": 60, "validation": 30, "test": 30}
        assert (task.summary.grouped, task.summary.groups) == (120, 20)


SHARES_OF_SPLITS = {"train": 0.5, "validation": 0.25, "test": 0.25}


def test_a_smaller_max_per_class_selects_a_subset(folder):
    images = [*numbered("cat", 40), *numbered("dog", 25), *numbered("horse", 12)]
    chosen = [split_task_from_scratch(images, max_per_class=number).table for number in (10, 20, 30)]
    assert [table["class"].value_counts().to_dict() for table in chosen] == [
        {"cat": 10, "dog": 10, "horse": 10},
        {"cat": 20, "dog": 20, "horse": 12},
        {"cat": 30, "dog": 25, "horse": 12},
    ]
    for few, many in itertools.pairwise(chosen):
        assert set(few["sha256"]) < set(many["sha256"])
    other = split_task_from_scratch(images, 1, max_per_class=10).table
    assert set(other["sha256"]) != set(chosen[0]["sha256"])
    # Every split of all images gives its share, and no image has another split than there.
    whole = split_task_from_scratch(images).table.set_index("sha256")["split"]
    for table in chosen:
        assert list(table["split"]) == list(whole[table["sha256"]])
        counts = table[table["class"] == "cat"].groupby("split").size()
        assert all(
            abs(counts[split_name] - share * counts.sum()) <= 1 for split_name, share in SHARES_OF_SPLITS.items()
        )


def test_max_per_class_keeps_earlier_images(folder):
    before = splits_by(split_task([*numbered("cat", 14), *numbered("dog", 9)], max_per_class=10), "sha256")
    after = split_task([*numbered("cat", 60), *numbered("dog", 60)], max_per_class=10)
    assert after.table["class"].value_counts().to_dict() == {"cat": 10, "dog": 10}
    kept = splits_by(after, "sha256")
    assert before.items() < kept.items()  # one dog was added
    assert len(kept) == len(before) + 1


def test_max_per_class_keeps_an_image_of_two_classes(folder):
    """It is late among the cats, but among the ten dogs; then dogs with earlier positions are added."""
    contents = sorted(map(str, range(30)), key=lambda content: hash_positions([text_sha256(content)], 0)[0])
    shared = contents[20]
    cats = [Image("cat", content) for content in [*contents[:12], shared]]
    dogs = [Image("dog", content) for content in [*contents[21:], shared]]
    before = split_task([*cats, *dogs], max_per_class=10).table
    after = split_task([*cats, *dogs, *(Image("dog", content) for content in contents[12:20])], max_per_class=10).table
    assert list(before["class"][before["sha256"] == text_sha256(shared)]) == ["dog"]
    assert list(after["sha256"]) == list(before["sha256"])


def test_max_per_class_keeps_images_when_copies_are_added(folder):
    images = [*numbered("cat", 14), *numbered("dog", 14)]
    before = split_task(images, max_per_class=10)
    chosen = [images[index] for index in before.table["index"]]
    after = split_task([*images, *chosen[:3]], max_per_class=10)
    assert set(before.table["sha256"]) <= set(after.table["sha256"])


@pytest.mark.parametrize("entry", [{}, {"max_per_class": 15}])
def test_a_merged_class_is_split_as_one(entry, folder):
    images = [*numbered("cat", 12), *numbered("kitten", 8), *numbered("dog", 20)]
    task = split_task(images, rename={"kitten": "cat"}, **entry)
    size = entry.get("max_per_class", 20)
    assert task.classes == ["cat", "dog"]
    assert task.table.groupby(["label", "class"]).size().to_dict() == {(0, "cat"): size, (1, "dog"): size}
    held_out = task.table[task.table["split"] == "test"]
    assert held_out["label"].value_counts().to_dict() == {0: round(size / 4), 1: round(size / 4)}
    assert all(sorted(order) == list(range(1, size + 1)) for _, order in task.table.groupby("label")["order"])
    assert {Path(name).parts[0] for name in task.table["name"]} == {"cat", "kitten", "dog"}


@few_examples
@given(REPEATED, SEEDS, st.integers(1, 10), st.integers(0, 10))
def test_a_smaller_training_set_is_a_subset(images, seed, small, more):
    table = as_table(images, seed)
    table["split"] = assign_splits(table, 0.1, 0.2)
    table["order"] = table.groupby("label")["position"].rank(method="first").astype(int)
    table["fold"] = np.where(table["split"] == "validation", 0, -1)
    task = Task("t", "d", [], "", table)
    few, many = task.rows("train", small), task.rows("train", small + more)
    available = task.rows("train")["label"].value_counts()
    assert set(few.index) <= set(many.index)
    assert few["label"].value_counts().to_dict() == available.clip(upper=small).to_dict()
    assert set(few["split"]) <= {"train"}


def test_every_split_needs_two_images_per_class():
    table = pd.DataFrame({"label": [0] * 3 + [1] * 14 + [2] * 18, "group_id": [0, 1, 2, *[3] * 9, *range(4, 27)]})
    check_counts(
        pd.DataFrame([[2, 2, 2], [9, 5, 7]], columns=SPLITS), task_config(), CLASSES, table, CLASSES, "tasks.t"
    )
    counts = pd.DataFrame([[9, 9, 9], [9, 1, 4], [0, 9, 9]], columns=SPLITS)
    with pytest.raises(UserError) as error:
        check_counts(counts, task_config(), CLASSES, table, CLASSES, "tasks.t")
    assert error.value.sentences == (
        "tasks.t: class 'dog' has 9 train, 1 validation and 4 test images (its largest group has 9 images). Every "
        "split needs at least 2: change the shares or add images.",
        "tasks.t: class 'horse' has 0 train, 9 validation and 9 test images. Every split needs at least 2: change the "
        "shares or add images.",
    )


@pytest.mark.parametrize(
    ("names", "small", "entry", "line"),
    [
        (["ant", "bee", "cat", "dog"], ["ant", "dog"], {}, "exclude: ['ant', 'dog']"),
        (["1", "2", "no", "it's", "1e3", "a: #b"], ["1", "no", "it's", "a: #b"], {}, None),
        (["ant", "bee", "cat", "dog", "eel"], ["bee"], {"exclude": ["eel", 2]}, "exclude: ['eel', 2, 'bee']"),
        (["ant", "bee", "cat", "dog"], ["bee"], {"include": ["ant", 1, "cat"]}, "include: ['ant', 'cat']"),
        (["ant", "bee", "cat"], ["old"], {"rename": {"bee": "old"}}, "exclude: ['old']"),
        (["ant", "bee", "cat"], ["ant", "cat"], {}, ""),
        ([f"{number:02}" for number in range(20)], [f"{number:02}" for number in range(13)], {}, None),
    ],
)
def test_the_error_of_small_classes_has_a_line_that_leaves_them_out(names, small, entry, line, folder):
    renamed = {new: old for old, new in entry.get("rename", {}).items()}
    few = {renamed.get(name, name) for name in small}
    images = [image for name in names for image in numbered(name, 3 if name in few else 12)]
    write_prepared(images)
    with pytest.raises(UserError) as error:
        main(task_params(**entry), "t")
    assert not (folder / "data/tasks").exists()
    *sentences, last = error.value.sentences
    if line == "":  # too few would remain
        assert len(error.value.sentences) == len(small) and "leave" not in last
        return
    assert len(sentences) == min(len(small), 11)
    assert all(repr(name) in sentence for name, sentence in zip(sorted(small)[:10], sentences, strict=False))
    suggestion = last.removeprefix("tasks.t: To leave these classes out, write `").removesuffix("`.")
    assert line in (None, suggestion)
    task = split_task(images, **{**entry, **parse_yaml(suggestion)})
    chosen = {
        name for name in names if name not in {*few, *entry.get("exclude", []), "cat" * (2 in entry.get("exclude", []))}
    }
    assert set(task.classes) == chosen & {*entry.get("include", names), *("bee" * (1 in entry.get("include", [])),)}


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ({"include": ["ant", "bee", "cow"], "rename": {"ant": "insect", "dog": "insect"}}, "['ant', 'bee']"),
        ({"include": ["insect", "cow", 1], "rename": {"ant": "insect", "dog": "insect"}}, "['insect', 1]"),
        ({"include": [3, "ant", "x"], "rename": {"cow": "x", "dog": "pet"}}, "[3, 'ant']"),
    ],
)
def test_the_line_without_small_classes_has_the_names_as_they_are_written(entry, line, folder):
    images = [image for name in ("ant", "bee", "cow", "dog") for image in numbered(name, 3 if name == "cow" else 12)]
    with pytest.raises(UserError) as error:
        split_task(images, **entry)
    assert error.value.sentences[-1] == f"tasks.t: To leave these classes out, write `include: {line}`."
    names = ["ant", "bee", "cow", "dog"]
    chosen = {names[label] for label in resolve_classes(task_config(**entry), names, "tasks.t").label_of}
    task = split_task(images, **entry | {"include": parse_yaml(line)})
    assert set(task.table["name"].str.split("/").str[0]) == chosen - {"cow"}


# Contradicting labels, and published splits that a task does not use.


@pytest.mark.parametrize(
    ("pairs", "entry", "counted"),
    [
        ([("cat", "dog")], {}, 2),
        ([("cat", "dog"), ("cat", "dog"), ("cat", "cat")], {}, 4),
        ([("cat", "dog", "horse", "cat")], {}, 4),
        ([("cat", "dog")], {"max_per_class": 10}, 2),
        ([("cat", "dog")], {"near_duplicates": "group", "group": r"(\d+)\.png"}, 2),
        ([("cat", "cat")], {}, 0),
        ([("cat", "dog")], {"rename": {"dog": "cat"}}, 0),
        ([("cat", "horse")], {"exclude": ["horse"]}, 0),
    ],
)
def test_equal_images_of_two_classes_are_counted_and_listed(pairs, entry, counted, folder, capsys):
    own = [image for name in ("cat", "dog", "horse") for image in numbered(name, 20)]
    copies = [Image(name, f"copy {number}") for number, names in enumerate(pairs) for name in names]
    task = split_task([*own, *copies], **entry)
    assert task.summary.contradictions == counted
    listed = folder / "data/tasks/t/contradictions.csv"
    assert listed.exists() == (counted > 0)
    output = capsys.readouterr().out
    if not counted:
        assert "another class" not in output and split_warnings("t", task.summary) == []
        return
    rows = pd.read_csv(listed, keep_default_na=False)
    assert len(rows) == counted
    assert (rows.groupby("sha256")["class"].nunique() > 1).all()
    assert set(rows["split"]) <= {*SPLITS, EXCLUDED}
    [warning] = split_warnings("t", task.summary)
    assert warning in output
    first = rows[rows["sha256"] == rows["sha256"][0]].drop_duplicates("class")
    examples = ", ".join(f"{name!r} ({label})" for name, label in zip(first["name"], first["class"], strict=True))
    assert warning == (
        f"t: {counted} images have the same content as an image of another class, such as "
        f"{examples}. Correct the labels, or remove the images. data/tasks/t/contradictions.csv lists them."
    )


PUBLISHED = [
    image
    for name in ("cat", "dog")
    for split in SPLITS
    for image in numbered(
        name, {"train": 20, "validation": 6, "test": 10}[split], 100 * SPLITS.index(split), split=split
    )
]


@pytest.mark.parametrize(
    ("entry", "unused"),
    [
        ({"validation": 0.2, "test": 0.2}, {"test": 20, "validation": 12}),
        ({"validation": 0.2, "test": "published"}, {"validation": 12}),
        ({"validation": "published", "test": 4}, {"test": 20}),
        ({"validation": 3, "test": 3, "include": ["cat", "dog"]}, {"test": 20, "validation": 12}),
        ({"validation": "published", "test": "published"}, {}),
        ({"validation": "published or 0.2", "test": "published or 4"}, {}),
        ({"validation": 0.2, "test": "published or 0.2"}, {"validation": 12}),
    ],
)
def test_published_splits_that_a_task_does_not_use_are_reported(entry, unused, folder, capsys):
    task = split_task(PUBLISHED, **entry)
    splits = {image.content: image.split for image in PUBLISHED}
    published = task.table["sha256"].map({text_sha256(content): split for content, split in splits.items()})
    assert {split: images for split, (images, _) in task.summary.unused.items()} == unused
    warnings = split_warnings("t", task.summary)
    assert len(warnings) == len(unused)
    output = capsys.readouterr().out
    for warning, (split, number) in zip(warnings, unused.items(), strict=True):
        elsewhere = int(((published == split) & (task.table["split"] != split)).sum())
        assert elsewhere > 0
        assert warning in output
        assert warning == (
            f"t: the dataset publishes a {split} split, which the task does not use: {elsewhere} of its {number} "
            f"images are in other splits. To use it, write `{split}: published` in tasks.t."
        )


@pytest.mark.parametrize(
    ("images", "settled"),
    [
        (PUBLISHED, ("published", "published")),
        ([image for image in PUBLISHED if image.split != "validation"], (0.25, "published")),
        ([image for image in PUBLISHED if image.split != "test"], ("published", 4)),
        ([image._replace(split="") for image in PUBLISHED], (0.25, 4)),
    ],
)
def test_published_or_a_share_is_the_published_split_where_there_is_one(images, settled, folder):
    entry = {"validation": "published or 0.25", "test": "published or 4"}
    task = split_task_from_scratch(images, **entry)
    plain = split_task_from_scratch(images, validation=settled[0], test=settled[1])
    assert splits_by(task) == splits_by(plain)
    assert task.summary == plain.summary


def partly_published():
    """Images of which only those of a and b have a published test split."""
    return [
        image._replace(split=split)
        for label, splits in {"a": ("train", "test"), "b": ("train", "test"), "c": ("train",), "d": ("train",)}.items()
        for split in splits
        for image in numbered(label, 12, 100 * (split == "test"))
    ]


@pytest.mark.parametrize(
    ("entry", "tested"),
    [
        ({"include": ["c", "d"]}, {"c": 3, "d": 3}),
        ({"exclude": [0, "b"]}, {"c": 3, "d": 3}),
        ({"include": ["a", "b"]}, {"a": 12, "b": 12}),
        ({"include": ["c", "d"], "rename": {"c": "a", "a": "x"}}, {"a": 3, "d": 3}),
    ],
)
def test_published_or_a_share_depends_on_the_classes_of_the_task(entry, tested, folder):
    task = split_task(partly_published(), test="published or 0.25", **entry)
    assert task.rows("test")["class"].value_counts().to_dict() == tested


@pytest.mark.parametrize("test", ["published", "published or 0.25"])
def test_a_class_without_published_images_of_a_split_is_an_error(test, folder):
    with pytest.raises(UserError) as error:
        split_task(partly_published(), test=test)
    assert error.value.sentences == (
        *(
            f"tasks.t: dataset 'd' publishes no images of class '{name}' for test. Give a share, or leave the "
            "class out."
            for name in "cd"
        ),
        "tasks.t: To leave these classes out, write `exclude: ['c', 'd']`.",
    )


def test_the_study_of_own_images_uses_published_splits(folder):
    study = parse_yaml((Path(__file__).parents[1] / "studies/my_images.yaml").read_text())
    entry = study["tasks"]["my-classes"] | {"dataset": "d"}
    task = split_task(PUBLISHED, **entry)
    assert task.table["split"].tolist() == [image.split for image in PUBLISHED]
    drawn = split_task([image._replace(split="") for image in PUBLISHED], **entry)
    assert drawn.table["split"].value_counts().to_dict() == {"train": 44, "validation": 14, "test": 14}
    assert split_warnings("t", task.summary) == split_warnings("t", drawn.summary) == []


def test_a_split_that_the_dataset_publishes_later_makes_a_new_split(folder, capsys):
    entry = {"validation": "published or 0.25", "test": "published or 0.25"}
    split_task([image._replace(split="") for image in PUBLISHED], **entry)
    capsys.readouterr()
    task = split_task(PUBLISHED, **entry)
    assert "new split: the dataset publishes other splits\n" in capsys.readouterr().out
    assert splits_by(task) == splits_by(split_task_from_scratch(PUBLISHED, validation="published", test="published"))


def test_the_stage_logs_and_stores_its_summary(folder, capsys):
    images = [
        *numbered("cat", 12),
        *numbered("dog", 12),
        Image("cat", "cat 0"),
        Image("dog", "cat 0"),
        Image("dog", "dog 1"),
        *numbered("cat", 4, 50, group="x"),
        Image("dog", "alone", "y"),
        Image("horse", "horse 1", "z"),
    ]
    unreadable = [(f"cat/{number}.png", "cat", f"reason {number}") for number in range(12)]
    write_prepared(images, unreadable)
    message = main(task_params(exclude=["horse"], near_duplicates="group"), "t")
    task = read_task("t")
    assert task.summary == SplitSummary(
        grouped=5,
        groups=2,
        equal_content=5,
        folds=3,
        unreadable=12,
        first_unreadable=[{"name": f"cat/{number}.png", "reason": f"reason {number}"} for number in range(10)],
        contradictions=3,
        first_contradictions=[{"name": "cat/0.png", "class": "cat"}, {"name": "dog/25.png", "class": "dog"}],
    )
    table, *lines = capsys.readouterr().out.rsplit("\n", 6)
    assert lines == [
        "The images outside the test split form 3 folds. Each repeat holds out another fold for validation.",
        "images of groups, each group in one split: 5 images, 2 groups",
        "images with the same content as another image, kept in one split: 5",
        "unreadable files of the dataset: 12, see data/images/d/quarantine.csv",
        "t: 3 images have the same content as an image of another class, such as 'cat/0.png' (cat), 'dog/25.png' "
        "(dog). Correct the labels, or remove the images. data/tasks/t/contradictions.csv lists them.",
        "",
    ]
    counts = {split_name: (task.table["split"] == split_name).sum() for split_name in SPLITS}
    assert (
        message
        == f"2 classes, {counts['train']} train, {counts['validation']} validation, {counts['test']} test, 3 folds"
    )
    for label in ("cat", "dog"):
        own = task.table[task.table["class"] == label]
        printed_counts = [str((own["split"] == split_name).sum()) for split_name in SPLITS]
        assert [label, *printed_counts] in [line.split() for line in table.splitlines()]


@pytest.mark.parametrize(
    ("kept", "entry", "stops"),
    [
        (slice(0, 1), {}, True),
        (slice(0, 39), {}, True),
        (slice(0, 40), {}, False),  # half of them
        (slice(0, 39), {"seed": 1}, True),  # a new split would be made anyway
        (slice(0, 39), {"test": 0.2}, True),
        (slice(0, 38), {"max_vanished": 1.0}, False),
        (slice(0, 70), {"max_vanished": 0.1}, True),
    ],
)
def test_a_split_of_which_most_images_have_vanished_stops_and_asks(folder, kept, entry, stops):
    images = [image for pair in zip(numbered("cat", 40), numbered("dog", 40), strict=True) for image in pair]
    split_task(images)
    files = task_files()
    if stops:
        with pytest.raises(UserError, match=r"^tasks\.t: \d+ of 80 images of the earlier split, such as '.*', are not"):
            split_task(images[kept], **entry)
        assert task_files() == files
    else:
        assert len(split_task(images[kept], **entry).table) == len(images[kept])


def test_images_that_were_renamed_or_edited_or_are_of_another_dataset_have_not_vanished(folder):
    images = [*numbered("cat", 20), *numbered("dog", 20)]
    split_task(images)
    (folder / "data/images/d").rename(folder / "data/images/other")
    main(task_params(dataset="other"), "t")
    write_prepared([image._replace(content=f"edited {image.content}") for image in images])
    table = pd.read_csv("data/images/d/table.csv")
    main(task_params(), "t")  # of dataset `d` again
    main(task_params(), "t")
    table.assign(name="renamed/" + table["name"]).to_csv("data/images/d/table.csv", index=False)
    main(task_params(), "t")
    table.assign(sha256=table["sha256"].str[::-1], name="renamed/" + table["name"]).to_csv(
        "data/images/d/table.csv", index=False
    )
    main(task_params(), "t")  # edited, with the same names


def test_the_summary_omits_zero_counts():
    assert summary_sentences(SplitSummary(), "t", "d") == []
    assert summary_sentences(SplitSummary(near_duplicates=3, excluded=4), "t", "d") == [
        "validation and test images similar to an image of another split: 3, see data/tasks/t/near_duplicates.csv",
        "images excluded because of related images in other splits: 4",
    ]


def prepared(names):
    """Write images of one gray value each to data/images/d; names: class -> number of images."""
    source = [
        SourceImage(f"{name}/{number}", name, partial(png, np.full((8, 8), 20 * number + len(name), np.uint8)))
        for name, many in names.items()
        for number in range(many)
    ]
    write_images("d", source, 8, 0.0)
    return read_images("d")


def test_the_stage_writes_a_table_of_the_selected_classes(folder):
    images = prepared({"a": 8, "bb": 8, "ccc": 8})
    message = main(task_params(exclude=["a"]), "t")
    assert message == "2 classes, 8 train, 4 validation, 4 test, 3 folds"

    task = read_task("t")
    assert (task.dataset, task.classes, task.images_sha256) == ("d", ["bb", "ccc"], images.sha256)
    assert list(task.table) == ["index", "label", "class", "split", "fold", "order", "group_id", "sha256", "name"]
    assert list(task.table["index"]) == list(range(8, 24))
    assert list(task.table["label"]) == [0] * 8 + [1] * 8
    assert list(task.table["sha256"]) == list(images.table["sha256"][8:])
    assert task.table.groupby(["label", "split"]).size().tolist() == [2, 4, 2, 2, 4, 2]
    assert all(sorted(order) == list(range(1, 9)) for _, order in task.table.groupby("label")["order"])
    pd.testing.assert_frame_equal(task.rows("train", 99), task.rows("train"))


def test_a_task_rejects_different_images(folder):
    images = prepared({"a": 8, "bb": 8})
    main(task_params(), "t")
    read_task("t").check_images(images.sha256, "data/images/d")
    with pytest.raises(UserError, match="data/images/d does not match the images of task 't'"):
        read_task("t").check_images("0" * 64, "data/images/d")


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"include": ["cat", 0]}, "tasks.t: a task needs two classes. Classes after include, exclude and rename: cat."),
        (
            {"test": 0.01},
            "tasks.t: class 'cat' has 9 train, 3 validation and 0 test images. Every split needs at least 2: change "
            "the shares or add images.",
        ),
        (
            {"test": 12},
            "tasks.t: class 'cat' has 0 train, 0 validation and 12 test images. Every split needs at least 2: ",
        ),
        ({"max_per_class": 5}, "tasks.t: class 'cat' has 3 train, 1 validation and 1 test image. Every split needs"),
        ({"group": "cat"}, "tasks.t.group: 'cat' does not match any of 24 file names, such as '0.png'. Correct it"),
        ({"include": ["horse", "cat"]}, "tasks.t.include: class 'horse' does not exist"),
        ({"rename": {"dog": "CAT"}}, "tasks.t: classes 'CAT' and 'cat' differ only in letter case"),
    ],
)
def test_an_invalid_task_is_an_error_and_writes_nothing(entry, sentence, folder):
    write_prepared(TWO_CLASSES)
    with pytest.raises(UserError) as error:
        main(task_params(**entry), "t")
    assert str(error.value).startswith(sentence)
    assert not (folder / "data/tasks").exists()


def test_the_error_of_a_small_class_names_its_largest_group(folder):
    write_prepared([*numbered("cat", 10, group="x"), *numbered("cat", 2, 10), *numbered("dog", 12)])
    with pytest.raises(UserError) as error:
        main(task_params(), "t")
    assert str(error.value) == (
        "tasks.t: class 'cat' has 10 train, 0 validation and 2 test images (its largest group has 10 images). Every "
        "split needs at least 2: change the shares or add images."
    )


def test_a_missing_or_damaged_task_is_an_error(folder):
    with pytest.raises(UserError, match=r"data/tasks/t/task\.json is missing. Run `dvc repro` to create it\.$"):
        read_task("t")
    split_task(TWO_CLASSES)
    (folder / "data/tasks/t/split.csv").write_text("index,split\n0,train\n")
    with pytest.raises(UserError, match=r"data/tasks/t is damaged .*. Delete it and run `dvc repro`\.$"):
        read_task("t")


def test_groups_added_later_make_a_new_split(folder, capsys):
    images = [*numbered("cat", 30), *numbered("dog", 30)]
    grouped = [image._replace(group=f"{index // 3}") for index, image in enumerate(images)]
    fresh = splits_by(split_task_from_scratch(grouped))
    assert "new split: no earlier split" in capsys.readouterr().out
    split_task_from_scratch(images)
    capsys.readouterr()
    task = split_task(grouped)
    assert "new split: the earlier split has images of one group in several splits\n" in capsys.readouterr().out
    assert splits_by(task) == fresh
    assert task.summary.straddling == 0
    split_task(grouped)
    assert "new split" not in capsys.readouterr().out


def test_a_split_that_became_too_small_is_made_again(folder, capsys):
    images = [*numbered("cat", 30), *numbered("dog", 30)]
    before = split_task(images, test=2)
    gone = before.table.loc[before.table["split"] == "test", "index"].iloc[0]
    after = split_task([image for index, image in enumerate(images) if index != gone], test=2)
    assert "new split: the earlier split leaves too few images in a split" in capsys.readouterr().out
    assert after.table.groupby(["class", "split"]).size().unstack()["test"].tolist() == [2, 2]


def test_a_copy_that_connects_two_splits_is_reported(folder):
    images = [*numbered("cat", 30), *numbered("dog", 30)]
    images = [image._replace(group=f"{index}") for index, image in enumerate(images)]
    before = split_task(images)
    one, other = (
        int(before.table.index[(before.table["split"] == split_name) & (before.table["class"] == "cat")][0])
        for split_name in ("train", "test")
    )
    task = split_task([*images, images[one]._replace(group=f"{other}")])
    assert task.summary.straddling == 1
    assert "groups in several splits or folds, kept from an earlier split: 1; delete" in "".join(
        summary_sentences(task.summary, "t", "d")
    )
