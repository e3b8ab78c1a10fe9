"""The split: who comes to train, validation and test."""

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
from stages.sources.source_image import SourceImage
from stages.sources.writing import write_images
from stages.split import main
from stages.splitting.assignment import EXCLUDED, assign_splits, hash_positions
from stages.splitting.classes import resolve_classes, select_classes
from stages.splitting.counts import check_counts
from stages.splitting.groups import group_ids
from stages.splitting.sentences import summary_sentences
from tests.conftest import png
from tests.test_near_duplicates import HASHES, brute_force_groups

CLASSES = ["cat", "dog", "horse"]


def images_of(numbers):
    """So many images of each class as (label, content, group), of which none belong together."""
    return [(label, f"{label} {place}", "") for label, number in enumerate(numbers) for place in range(number)]


def images_of_sets(sets):
    """The images of sets of (label, size): each is a group."""
    return [
        (label, f"{number}.{place}", f"{number}") for number, (label, size) in enumerate(sets) for place in range(size)
    ]


DISTINCT = st.lists(st.integers(1, 40), min_size=1, max_size=4).map(images_of)
# Many of them belong together, also across labels.
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
few_examples = settings(max_examples=30)


def as_table(images, seed=0):
    labels, contents, groups = zip(*images, strict=True)
    table = pd.DataFrame(
        {"label": labels, "sha256": contents, "group": groups, "published": "", "earlier_split": "", "name_group": ""}
    )
    table["position"] = hash_positions(table["sha256"], seed)
    table["group_id"] = group_ids(table, False)
    return table


def split(images, held_out, seed=0):
    return assign_splits(as_table(images, seed), *held_out)


def wanted(table, held_out):
    """(label, side) -> how many images of the class the setting asks for."""
    return {
        (label, side): setting if isinstance(setting, int) else round(size * setting)
        for label, size in table.groupby("label").size().items()
        for side, setting in zip(("validation", "test"), held_out, strict=True)
    }


def found(table, sides):
    """(label, side) -> how many images of the class came there."""
    return {
        (label, side): int(np.sum((table["label"] == label) & (sides == side)))
        for label in set(table["label"])
        for side in ("validation", "test")
    }


@few_examples
@given(st.one_of(REPEATED, DISTINCT), HELD_OUT, SEEDS)
def test_every_image_comes_to_exactly_one_side(images, held_out, seed):
    sides = split(images, held_out, seed)
    assert sides.shape == (len(images),)
    assert set(sides) <= set(SPLITS)  # and none is left out


@few_examples
@given(REPEATED, HELD_OUT, SEEDS)
def test_images_that_belong_together_come_to_one_side_whatever_their_class(images, held_out, seed):
    sides = {}
    for (_, content, group), side in zip(images, split(images, held_out, seed), strict=True):
        assert sides.setdefault(("content", content), side) == side
        assert not group or sides.setdefault(("group", group), side) == side


@few_examples
@given(DISTINCT, HELD_OUT, SEEDS)
def test_each_class_gives_its_share_or_number_to_the_image(images, held_out, seed):
    table = as_table(images, seed)
    counts, asked = found(table, assign_splits(table, *held_out)), wanted(table, held_out)
    for label, size in table.groupby("label").size().items():
        # The test images are taken first, then as many for validation as there are.
        test = min(asked[label, "test"], size)
        assert counts[label, "test"] == test
        assert counts[label, "validation"] == min(asked[label, "validation"], size - test)


@few_examples
@given(SETS, SHARES, SEEDS)
def test_shares_are_met_to_the_image_where_there_are_images_that_belong_to_no_other(sets, shares, seed):
    table = as_table([*images_of_sets(sets), *images_of([150, 150])], seed)
    asked = wanted(table, shares)
    assume(all(asked[label, "test"] + asked[label, "validation"] <= 150 for label in (0, 1)))
    assert found(table, assign_splits(table, *shares)) == asked


@few_examples
@given(SETS, SHARES, SEEDS)
def test_shares_are_missed_by_less_than_a_set_and_no_other_would_come_nearer(sets, shares, seed):
    table = as_table(images_of_sets(sets), seed)
    table["split"] = assign_splits(table, *shares)
    counts = found(table, table["split"])
    sets = table.groupby(["label", "group_id", "split"], as_index=False).size()
    for (label, side), asked in wanted(table, shares).items():
        missed = counts[label, side] - asked
        its = sets[sets["label"] == label]
        assert abs(missed) < its["size"].max()
        assert all(abs(missed + size) >= abs(missed) for size in its["size"][its["split"] == "train"])


def test_shares_are_missed_by_less_than_the_largest_set_also_where_sets_are_of_two_classes():
    """Two images of class 1 that stand alone fill its test share; the others are tied to those of class 0."""
    pairs = [(label, f"{label} {number}", str(number)) for number in range(8) for label in (0, 1)]
    table = as_table([(1, "alone", ""), (1, "alone too", ""), *pairs])
    table["position"] = np.arange(len(table)) / len(table)
    counts = found(table, assign_splits(table, 2, 0.25))
    assert wanted(table, (2, 0.25))[0, "test"] == 2
    assert counts[0, "test"] >= 1


@pytest.mark.parametrize("held_out", [(0.2, 0.2), (2, 2)])
def test_images_that_stand_alone_fill_what_pairs_of_two_classes_leave(held_out):
    pairs = [(label, f"{label} {number}", str(number)) for number in range(8) for label in (0, 1)]
    alone = [(1, f"alone {number}", "") for number in range(4)]
    for seed in range(20):
        table = as_table([*pairs, *alone], seed)
        assert set(found(table, assign_splits(table, *held_out)).values()) == {2}


@few_examples
@given(st.one_of(REPEATED, DISTINCT), HELD_OUT, SEEDS, st.randoms())
def test_the_order_of_the_images_does_not_matter(images, held_out, seed, random):
    order = random.sample(range(len(images)), len(images))
    shuffled = split([images[place] for place in order], held_out, seed)
    assert list(shuffled) == list(split(images, held_out, seed)[order])


def test_the_seed_decides():
    images = [(0, str(number), "") for number in range(100)]
    assert list(split(images, (0.2, 0.3), 1)) == list(split(images, (0.2, 0.3), 1))
    assert list(split(images, (0.2, 0.3), 1)) != list(split(images, (0.2, 0.3), 2))


def test_a_larger_test_share_keeps_the_test_images():
    images = [(number % 2, str(number), "") for number in range(100)]
    small, large = (split(images, (0.1, share)) == "test" for share in (0.2, 0.4))
    assert np.all(large[small])


def test_without_the_earlier_split_a_new_image_moves_at_most_one_other_a_side():
    images = [(0, str(number), "") for number in range(100)]
    before = split(images, (0.2, 0.3))
    after = split([*images, (0, "new", "")], (0.2, 0.3))[:-1]
    assert np.sum(before != after) <= 2


@pytest.mark.parametrize(
    ("contents", "held_out", "sides"),
    [
        # Pairs fit.
        ("aabbccddee", (0.2, 0.2), ["test"] * 2 + ["validation"] * 2 + ["train"] * 6),
        # A triple is one more than the two test images asked for, and two more than the one for validation.
        ("aaabbbccc", (0.1, 0.2), ["test"] * 3 + ["train"] * 6),
        # Nor is a triple put beside an image that stands alone.
        ("aaabbbcccd", (0.1, 0.2), ["train"] * 9 + ["test"]),
        ("aaaaaaaaab", (0.2, 0.2), ["train"] * 9 + ["test"]),
    ],
)
def test_a_set_of_images_is_held_out_where_that_comes_nearer_to_the_share(contents, held_out, sides):
    table = as_table([(0, content, "") for content in contents]).assign(position=0.0)
    assert list(assign_splits(table, *held_out)) == sides


def test_an_image_that_two_classes_share_counts_for_both():
    table = as_table([(label, content, "") for label, contents in enumerate(["abcd", "wxya"]) for content in contents])
    table["position"] = [0.01, 0.2, 0.3, 0.4, 0.05, 0.2, 0.3, 0.01]
    sides = assign_splits(table, 0.25, 0.25)
    assert list(sides) == ["test", "validation", "train", "train", "validation", "train", "train", "test"]


def test_a_set_of_two_classes_is_held_out_where_both_have_room():
    sets = [(label, f"{number}.{place}", f"{number}") for number in range(4) for place, label in enumerate([0, 1, 1])]
    table = as_table([*sets, (0, "alone", ""), (0, "alone too", "")])
    table["position"] = np.arange(len(table)) / len(table)
    sides = assign_splits(table, 2, 2)
    assert list(sides) == [*["test"] * 3, *["validation"] * 3, *["train"] * 6, "test", "validation"]


@few_examples
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


# Published and kept sides.

SIDED = st.fixed_dictionaries(
    {
        "label": st.integers(0, 2),
        "group_id": st.integers(0, 9),
        "position": st.floats(0, 1),
        "published": st.sampled_from(["", *SPLITS]),
        "earlier_split": st.sampled_from(["", "", *SPLITS]),
    }
)
SETTING = st.one_of(st.just("published"), st.sampled_from([0.1, 0.3, 0.45]), st.integers(2, 9))


@settings(max_examples=80)
@given(st.lists(SIDED, min_size=1, max_size=50), SETTING, SETTING)
def test_published_sides_are_as_published_and_kept_sides_stay(rows, validation, test):
    table = pd.DataFrame(rows)
    table["side"] = assign_splits(table, validation, test)
    asked = {"test": test, "validation": validation}
    drawn = ["train", *(side for side in asked if asked[side] != "published")]
    for _, images in table.groupby("group_id"):
        # A published test image comes before a published validation image that belongs to it.
        published = next((s for s in asked if asked[s] == "published" and s in set(images["published"])), None)
        kept = {side for side in images["earlier_split"] if side in drawn}
        if published:
            expected = [published if side == published else EXCLUDED for side in images["published"]]
        elif len(kept) == 2 or len(kept) == 3:
            expected = [side if side in drawn else EXCLUDED for side in images["earlier_split"]]
        else:
            [side] = kept or [images["side"].iloc[0]]
            assert side in drawn
            expected = [side] * len(images)
        assert list(images["side"]) == expected


@few_examples
@given(DISTINCT, st.data(), SHARE, SEEDS)
def test_beside_a_published_side_the_other_is_its_share_of_the_remaining_images(images, data, share, seed):
    published = st.lists(st.sampled_from(["", *SPLITS]), min_size=len(images), max_size=len(images))
    table = as_table(images, seed).assign(published=data.draw(published))
    for side, sides in (
        ("test", assign_splits(table, share, "published")),
        ("validation", assign_splits(table, "published", share)),
    ):
        assert np.array_equal(sides == side, table["published"] == side)
        rest, other = table[table["published"] != side], "validation" if side == "test" else "test"
        for label, size in rest.groupby("label").size().items():
            assert np.sum(sides[table["label"] == label] == other) == round(size * share)


@few_examples
@given(DISTINCT, st.lists(st.lists(st.integers(0, 20), min_size=2, max_size=4), min_size=1, max_size=3), SHARES, SEEDS)
def test_shares_stay_within_one_image_when_images_are_added(images, additions, shares, seed):
    kept = dict(zip((image[1] for image in images), split(images, shares, seed), strict=True))
    for number, added in enumerate(additions):
        images = images + [(label, f"new {number} {content}", "") for label, content, _ in images_of(added)]
        table = as_table(images, seed)
        table["earlier_split"] = [kept.get(content, "") for content in table["sha256"]]
        sides = assign_splits(table, *shares)
        assert all(side == kept.get(content, side) for content, side in zip(table["sha256"], sides, strict=True))
        kept = dict(zip(table["sha256"], sides, strict=True))
        counts = found(table, sides)
        assert all(abs(counts[key] - asked) <= 1 for key, asked in wanted(table, shares).items())


def test_a_share_is_one_of_the_images_that_are_not_left_out():
    kept = [*["train"] * 6, *["validation"] * 2, *["test"] * 2]
    table = as_table(images_of([35]))
    table["earlier_split"] = [*kept, *[""] * 25]
    table["group_id"] = [*range(9), 0, *[0] * 20, *range(30, 35)]  # twenty between train and test, five alone
    sides = assign_splits(table, 0.2, 0.2)
    assert list(sides[:30]) == [*kept, *[EXCLUDED] * 20]
    assert sorted(sides[30:]) == ["test", "train", "train", "train", "validation"]


# The classes of a task.


def entry_of(**entry):
    return TaskConfig(**{"dataset": "d", "validation": 0.25, "test": 0.25, **entry})


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
    assert select_classes(include, exclude, CLASSES, "tasks.t") == chosen


@pytest.mark.parametrize(
    ("include", "exclude", "sentence"),
    [
        (
            ["hores"],
            None,
            "tasks.t: class 'hores' does not exist (did you mean 'horse'?). Classes: 0 to 2, or cat, dog, horse.",
        ),
        ([3], None, "tasks.t: class 3 does not exist. Classes: 0 to 2, or cat, dog, horse."),
        (["0"], None, "tasks.t: class '0' does not exist. Classes: 0 to 2, or cat, dog, horse."),
        (None, ["zebra"], "tasks.t.exclude: class 'zebra' does not exist. Classes: 0 to 2, or cat, dog, horse."),
    ],
)
def test_a_class_there_is_not_is_answered_with_those_there_are(include, exclude, sentence):
    with pytest.raises(UserError) as error:
        select_classes(include, exclude, CLASSES, "tasks.t")
    assert str(error.value) == sentence


def test_a_class_number_is_answered_without_a_guess():
    with pytest.raises(UserError, match=r"class 12 does not exist\. Classes: 0 to 9"):
        select_classes([12], None, list("0123456789"), "tasks.t")


@pytest.mark.parametrize(
    ("entry", "names", "label_of"),
    [
        ({}, ["cane", "gatto", "lupo"], {0: 0, 1: 1, 2: 2}),
        ({"exclude": ["cane"]}, ["gatto", "lupo"], {1: 0, 2: 1}),
        ({"rename": {"cane": "dog", "lupo": "wolf"}}, ["dog", "gatto", "wolf"], {0: 0, 1: 1, 2: 2}),
        # Two classes become one.
        ({"rename": {"cane": "dog", "lupo": "dog"}}, ["dog", "gatto"], {0: 0, 1: 1, 2: 0}),
        ({"rename": {"lupo": "cane"}}, ["cane", "gatto"], {0: 0, 1: 1, 2: 0}),
        # Old and new names and numbers are known; a new name means all that bear it.
        ({"rename": {"cane": "dog"}, "include": ["dog", "lupo"]}, ["dog", "lupo"], {0: 0, 2: 1}),
        ({"rename": {"cane": "dog"}, "include": ["cane", 2]}, ["dog", "lupo"], {0: 0, 2: 1}),
        ({"rename": {"gatto": "dog", "lupo": "dog"}, "include": ["dog", 0]}, ["cane", "dog"], {0: 0, 1: 1, 2: 1}),
        ({"rename": {"gatto": "cat", "lupo": "cat"}, "exclude": ["lupo"]}, ["cane", "cat"], {0: 0, 1: 1}),
        ({"rename": {"gatto": "cat"}, "exclude": ["cat"]}, ["cane", "lupo"], {0: 0, 2: 1}),
    ],
)
def test_classes_are_renamed_merged_and_chosen_by_old_and_new_names(entry, names, label_of):
    assert resolve_classes(entry_of(**entry), ["cane", "gatto", "lupo"], "tasks.t") == (names, label_of)


def test_excluding_the_name_of_a_merged_class_leaves_no_class_of_that_name():
    entry = entry_of(rename={"Cat": "cat"}, exclude=["cat"])
    assert resolve_classes(entry, ["Cat", "cat", "dog", "horse"], "tasks.t").names == ["dog", "horse"]


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (
            {"rename": {"hores": "pony"}},
            "tasks.t.rename: class 'hores' does not exist (did you mean 'horse'?). Classes: cat, dog, horse.",
        ),
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
def test_classes_that_make_no_task_are_answered(entry, sentence):
    with pytest.raises(UserError) as error:
        resolve_classes(entry_of(**entry), CLASSES, "tasks.t")
    assert str(error.value).startswith(sentence)


def test_classes_that_differ_in_letter_case_only_become_one_as_the_answer_says():
    classes = ["Straße", "cat", "dog", "strasse"]
    with pytest.raises(UserError) as error:
        resolve_classes(entry_of(), classes, "tasks.t")
    assert str(error.value) == (
        "tasks.t: classes 'Straße' and 'strasse' differ only in letter case. If they are one class, write "
        "rename: {Straße: strasse}; otherwise rename one of them."
    )
    merged = resolve_classes(entry_of(rename={"Straße": "strasse"}), classes, "tasks.t")
    assert merged == (["strasse", "cat", "dog"], {0: 0, 1: 1, 2: 2, 3: 0})


# The stage.


class Image(NamedTuple):
    """An image of a dataset without its pixels, at which the split does not look."""

    label: str
    content: str
    group: str = ""
    split: str = ""
    look: str = ""
    name: str = ""


def digits_of(text):
    return sha256(text.encode()).hexdigest()


def several(label, number, first=0, **also):
    return [Image(label, f"{label} {place}", **also) for place in range(first, first + number)]


TWO_CLASSES = [*several("cat", 12), *several("dog", 12)]


def lay_down(images, unreadable=()):
    """Write data/images/d as `prepare` does; names that are not given are the places in the list."""
    folder = IMAGES_FOLDER / "d"
    folder.mkdir(parents=True, exist_ok=True)
    classes = sorted({image.label for image in images})
    table = pd.DataFrame(
        {
            "index": place,
            "label": classes.index(image.label),
            "class": image.label,
            "split": image.split,
            "group": image.group,
            "sha256": digits_of(image.content),
            "perceptual_hash": image.look or digits_of(f"look of {image.content}"),
            "name": image.name or f"{image.label}/{place}.png",
        }
        for place, image in enumerate(images)
    )
    table[IMAGE_COLUMNS].to_csv(folder / "table.csv", index=False)
    pd.DataFrame(unreadable, columns=QUARANTINE_COLUMNS).to_csv(folder / "quarantine.csv", index=False)
    np.save(folder / "images.npy", np.zeros((len(images), 1, 1, 3), np.uint8))
    (folder / "record.json").write_text(
        json.dumps({"image_size": 1, "resize": "crop", "classes": classes, "images_sha256": "0" * 64})
    )


def study_of_task(seed=0, **entry):
    return Params({"seed": seed, "tasks": {"t": {"dataset": "d", "validation": 0.25, "test": 0.25, **entry}}})


def task_of(images, seed=0, **entry):
    """The task that the stage makes of images, beside what is kept of an earlier one."""
    lay_down(images)
    main(study_of_task(seed, **entry), "t")
    return read_task("t")


def fresh_task_of(*arguments, **entry):
    shutil.rmtree("data/tasks", ignore_errors=True)
    return task_of(*arguments, **entry)


def sides_by(task, column="name"):
    return dict(zip(task.table[column], task.table["split"], strict=True))


def files_of_task():
    return {path.name: path.read_bytes() for path in Path("data/tasks/t").iterdir()}


@contextlib.contextmanager
def empty_folder():
    """As the fixture `folder`, for each example of hypothesis; how many images are on a side does not matter in it."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr("stages.split.check_counts", lambda *counts: None)
        yield


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Images that belong together in every way, beside enough others that every class has its two images on every side.
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
ENOUGH = [*TWO_CLASSES, *several("cat", 3, 20, split="test"), *several("dog", 3, 20, split="test")]


def check_sides(task, images, entry, kept):
    """Hold a task against the rules for each set of images that belong together; kept: content -> earlier side."""
    group = entry["near_duplicates"] == "group"
    numbers = brute_force_groups([(image.content, image.group, image.look if group else "") for image in images])
    rows = pd.DataFrame(images).assign(side=list(task.table["split"]), number=numbers)
    rows["kept"] = [kept.get(digits_of(content), "") for content in rows["content"]]
    for _, together in rows.groupby("number"):
        before = set(together["kept"]) - {""}
        if entry["test"] == "published" and "test" in set(together["split"]):
            expected = ["test" if split == "test" else EXCLUDED for split in together["split"]]
        elif len(before) > 1:
            expected = [side or EXCLUDED for side in together["kept"]]
        else:
            [side] = before or [together["side"].iloc[0]]
            assert side in SPLITS
            expected = [side] * len(together)
        assert list(together["side"]) == expected


def kept_by(task):
    return {content: side for content, side in sides_by(task, "sha256").items() if side != EXCLUDED}


def check_added(images, entry, earlier):
    """Add images to an earlier task and hold the new one against the rules; returns it.

    Where added images take too many from a side (those that belong to a published test image are left out), the split
    is drawn afresh and keeps nothing, which it says; another test shows when.
    """
    with contextlib.redirect_stdout(io.StringIO()) as said:
        task = task_of(images, **entry)
    afresh = "new split: the earlier split leaves too few images" in said.getvalue()
    check_sides(task, images, entry, {} if afresh else kept_by(earlier))
    return task


RELATED_TO_TEST = [
    Image("cat", f"related {number}", "", split, HASHES[number]) for number, split in ((0, "test"), (2, ""))
]


@settings(max_examples=15)
@given(RELATED, RELATED, RELATED, ENTRIES)
@example(  # the last image joins the others to one that is published for the test: too few are left for validation
    [*RELATED_TO_TEST, RELATED_TO_TEST[1]],
    [],
    [Image("cat", "related 1", "", "", HASHES[1])],
    {"validation": 0.2, "test": "published", "near_duplicates": "group"},
)
def test_images_that_are_added_move_no_other_in_one_step_or_two(some, more, still_more, entry):
    few, many, most = [*ENOUGH, *some], [*ENOUGH, *some, *more], [*ENOUGH, *some, *more, *still_more]
    with empty_folder():
        first = fresh_task_of(few, **entry)
        check_sides(first, few, entry, {})
        check_added(most, entry, check_added(many, entry, first))
        check_added(most, entry, fresh_task_of(few, **entry))


@settings(max_examples=15)
@given(RELATED, st.sets(st.integers(0, 29), max_size=4), st.sets(st.integers(60, 71)), st.sampled_from([0.2, 6]))
def test_images_that_are_removed_move_no_other(some, gone, related_gone, held_out):
    entry = {"validation": held_out, "test": held_out, "near_duplicates": "group"}
    images = [*several("cat", 30), *several("dog", 30), *some]
    images = [image._replace(name=str(place)) for place, image in enumerate(images)]
    left = [image for place, image in enumerate(images) if place not in gone | related_gone]
    with empty_folder():
        before = sides_by(task_of(images, **entry))
        kept = {image.name: before[image.name] for image in left}
        there_are = Counter((image.label, kept[image.name]) for image in left)
        # A set of images may have filled a side alone; without it the split is drawn afresh, which another test shows.
        assume(all(there_are[label, side] >= 2 for label in ("cat", "dog") for side in SPLITS))
        after = sides_by(task_of(left, **entry))
    assert after == kept


def test_a_new_image_comes_to_the_side_of_those_it_belongs_to_and_is_left_out_between_two_sides(folder):
    images = [Image(label, f"{place}", f"group {place}") for place, label in enumerate(["cat", "dog"] * 12)]
    before = task_of(images, near_duplicates="group")
    places = {side: int(np.flatnonzero(before.table["split"] == side)[0]) for side in SPLITS}
    look_of = {side: digits_of(f"look of {place}") for side, place in places.items()}
    new = [Image("dog", f"new {side}", f"group {place}") for side, place in places.items()]
    between = [
        Image("cat", "between", f"group {places['train']}", look=look_of["test"]),
        Image("cat", "alike", look=look_of["test"]),  # it hangs together with them over the one between
        Image("dog", "also between", f"group {places['validation']}", look=look_of["test"]),
    ]
    after = task_of([*images, *new], near_duplicates="group")
    assert list(after.table["split"]) == [*before.table["split"], *SPLITS]
    after = task_of([*images, *between], near_duplicates="group")
    assert list(after.table["split"]) == [*before.table["split"], *[EXCLUDED] * 3]
    assert after.summary.excluded == 3


def test_names_places_and_the_order_of_the_images_decide_nothing(folder):
    images = [*TWO_CLASSES, *several("cat", 4, group="x"), *several("dog", 3, 50, group="y", split="train")]
    before = sides_by(task_of(images), "sha256")
    renamed = [image._replace(name=f"elsewhere/{digits_of(str(place))}") for place, image in enumerate(images)][::-1]
    assert sides_by(task_of(renamed), "sha256") == before
    assert sides_by(fresh_task_of(renamed), "sha256") == before


@pytest.mark.parametrize("entry", [{}, {"near_duplicates": "group"}, {"max_per_class": 10}, {"test": "published"}])
def test_the_same_images_and_settings_give_the_same_bytes(entry, folder):
    images = [*ENOUGH, *several("cat", 3, 50, group="x"), *several("dog", 2, 20, split="train")]
    task_of(images, **entry)
    before = files_of_task()
    assert sorted(before) == ["near_duplicates.csv", "split.csv", "task.json"]
    task_of(images, **entry)
    assert files_of_task() == before
    fresh_task_of(images, **entry)
    assert files_of_task() == before


def test_at_most_so_many_images_also_with_copies_and_left_out_ones_give_the_same_bytes(folder):
    """The last image that finds room has a copy, and one of them belongs to a published test image."""
    cats = sorted(several("cat", 8), key=lambda image: hash_positions([digits_of(image.content)], 0)[0])
    cats = [image._replace(split="test", group="x") for image in cats[:2]] + [cats[2]._replace(group="x")] + cats[3:]
    images = [*cats, cats[-1], *several("dog", 6), *several("dog", 2, 20, split="test")]
    entry = {"max_per_class": 8, "test": "published", "validation": 2}
    task_of(images, **entry)
    before = files_of_task()
    task_of(images, **entry)
    assert files_of_task() == before


@pytest.mark.parametrize("change", [{"seed": 1}, {"test": 0.4}, {"validation": 3}, {"max_per_class": 17}])
def test_other_settings_draw_afresh(change, folder):
    images, more = [*several("cat", 20), *several("dog", 20)], several("dog", 10, 20)
    fresh = sides_by(fresh_task_of([*images, *more], **change))
    fresh_task_of(images)
    kept = sides_by(task_of([*images, *more]))
    assert sides_by(task_of([*images, *more], **change)) == fresh
    assert kept != fresh


def test_a_damaged_split_is_drawn_afresh(folder):
    fresh_task_of(TWO_CLASSES)
    before = files_of_task()
    for name in ("split.csv", "task.json"):
        (folder / "data/tasks/t" / name).write_text("nothing\n")
        task_of(TWO_CLASSES)
        assert files_of_task() == before


def test_published_sides_have_the_published_images_and_nothing_that_belongs_to_them(folder):
    images = [
        *several("cat", 8),
        *several("dog", 8),
        *(image for label in ("cat", "dog") for image in several(label, 4, 20, split="validation")),
        *(image for label in ("cat", "dog") for image in several(label, 5, 40, split="test")),
        Image("cat", "cat 41", split="train"),  # content of a test image
        Image("dog", "dog 41", split="validation"),
        Image("dog", "dog 21", split="train"),
        Image("dog", "of a patient", "x", split="test"),
        Image("dog", "of him too", "x", split="train"),
    ]
    task = task_of(images, validation="published", test="published")
    assert list(task.table["split"]) == [
        *["train"] * 16, *["validation"] * 8, *["test"] * 10, EXCLUDED, EXCLUDED, EXCLUDED, "test", EXCLUDED
    ]  # fmt: skip
    assert task.summary.excluded == 4
    assert task.summary.near_duplicates == 0  # what is left out cannot leak
    mixed = fresh_task_of(images, validation=0.25, test="published").table
    rest = ~mixed["split"].isin(["test", EXCLUDED])
    assert list(mixed["index"][mixed["split"] == "test"]) == [*range(24, 34), 37]
    assert list(mixed["index"][mixed["split"] == EXCLUDED]) == [34, 35, 38]
    assert mixed[rest].groupby(["label", "split"]).size().to_dict() == {
        (label, side): number
        for label, counts in enumerate([{"train": 9, "validation": 3}, {"train": 10, "validation": 3}])
        for side, number in counts.items()
    }


@pytest.mark.parametrize(("side", "splits"), [("test", "train"), ("validation", "train, test")])
def test_a_side_that_the_dataset_does_not_publish_is_answered(side, splits, folder):
    lay_down([image for split in splits.split(", ") for image in several("cat", 9, split=split)] + TWO_CLASSES)
    with pytest.raises(UserError) as error:
        main(study_of_task(**{side: "published"}), "t")
    assert str(error.value) == (
        f"tasks.t.{side}: dataset 'd' does not publish {side} images (splits: {splits}). Give a share, or a number of "
        "images per class."
    )
    assert not (folder / "data/tasks").exists()


def test_a_patient_of_two_classes_stays_on_one_side_by_names_or_by_the_table(folder):
    persons = [("cat", "dog")[place % 2] for place in range(120)]
    named = [
        Image(label, f"{place}", name=f"{label}/person{place // 6}_{label}_{place}.png")
        for place, label in enumerate(persons)
    ]
    tabled = [Image(label, f"{place}", group=f"{place // 6}") for place, label in enumerate(persons)]
    both = [image._replace(group=f"room {place // 12}") for place, image in enumerate(named)]
    by_names = task_of(named, group=r"person(\d+)")
    for task in (by_names, task_of(tabled), fresh_task_of(both, group=r"person(\d+)_")):
        if task.summary.groups == 10:  # groups of the table and of the names hold together
            rooms_on = task.table["split"].groupby(task.table["index"] // 12)
            assert (rooms_on.nunique() == 1).all()
            continue
        persons_on = task.table["split"].groupby(task.table["index"] // 6)
        assert (persons_on.nunique() == 1).all()
        assert list(task.table["split"]) == list(by_names.table["split"])
        assert task.table["split"].value_counts().to_dict() == {"train": 60, "validation": 30, "test": 30}
        assert (task.summary.grouped, task.summary.groups) == (120, 20)


def test_at_most_so_many_images_a_class_are_a_part_of_those_of_a_larger_number(folder):
    images = [*several("cat", 40), *several("dog", 25), *several("horse", 12)]
    chosen = [fresh_task_of(images, max_per_class=number).table for number in (10, 20, 30)]
    assert [table["class"].value_counts().to_dict() for table in chosen] == [
        {"cat": 10, "dog": 10, "horse": 10},
        {"cat": 20, "dog": 20, "horse": 12},
        {"cat": 30, "dog": 25, "horse": 12},
    ]
    for few, many in itertools.pairwise(chosen):
        assert set(few["sha256"]) < set(many["sha256"])
    other = fresh_task_of(images, 1, max_per_class=10).table
    assert set(other["sha256"]) != set(chosen[0]["sha256"])
    # They are the first in the order of all.
    order = fresh_task_of(images).table.set_index("sha256")["order"]
    assert order[chosen[0]["sha256"]].max() == 10


def test_at_most_so_many_images_stay_the_same_when_others_are_added(folder):
    before = sides_by(task_of([*several("cat", 14), *several("dog", 9)], max_per_class=10), "sha256")
    after = task_of([*several("cat", 60), *several("dog", 60)], max_per_class=10)
    assert after.table["class"].value_counts().to_dict() == {"cat": 10, "dog": 10}
    kept = sides_by(after, "sha256")
    assert before.items() < kept.items()  # and one dog has come
    assert len(kept) == len(before) + 1


def test_an_image_of_two_classes_keeps_its_place_among_at_most_so_many_of_one(folder):
    """It comes late among the cats, but is one of the ten dogs; then come dogs that would be before it."""
    contents = sorted(map(str, range(30)), key=lambda content: hash_positions([digits_of(content)], 0)[0])
    shared = contents[20]
    cats = [Image("cat", content) for content in [*contents[:12], shared]]
    dogs = [Image("dog", content) for content in [*contents[21:], shared]]
    before = task_of([*cats, *dogs], max_per_class=10).table
    after = task_of([*cats, *dogs, *(Image("dog", content) for content in contents[12:20])], max_per_class=10).table
    assert list(before["class"][before["sha256"] == digits_of(shared)]) == ["dog"]
    assert list(after["sha256"]) == list(before["sha256"])


def test_at_most_so_many_images_stay_the_same_when_copies_of_them_are_added(folder):
    images = [*several("cat", 14), *several("dog", 14)]
    before = task_of(images, max_per_class=10)
    chosen = [images[place] for place in before.table["index"]]
    after = task_of([*images, *chosen[:3]], max_per_class=10)
    assert set(before.table["sha256"]) <= set(after.table["sha256"])


@pytest.mark.parametrize("entry", [{}, {"max_per_class": 15}])
def test_a_class_that_two_make_is_split_as_one(entry, folder):
    images = [*several("cat", 10), *several("kitten", 10), *several("dog", 20)]
    task = task_of(images, rename={"kitten": "cat"}, **entry)
    size = entry.get("max_per_class", 20)
    assert task.classes == ["cat", "dog"]
    assert task.table.groupby(["label", "class"]).size().to_dict() == {(0, "cat"): size, (1, "dog"): size}
    held_out = task.table[task.table["split"] == "test"]
    assert held_out["label"].value_counts().to_dict() == {0: round(size / 4), 1: round(size / 4)}
    assert all(sorted(order) == list(range(1, size + 1)) for _, order in task.table.groupby("label")["order"])
    assert {Path(name).parts[0] for name in task.table["name"]} == {"cat", "kitten", "dog"}


@few_examples
@given(REPEATED, SEEDS, st.integers(1, 10), st.integers(0, 10))
def test_a_smaller_training_set_is_a_part_of_a_larger_one(images, seed, small, more):
    table = as_table(images, seed)
    table["split"] = assign_splits(table, 0.1, 0.2)
    table["order"] = table.groupby("label")["position"].rank(method="first").astype(int)
    task = Task("t", "d", [], "", table)
    few, many = task.rows("train", small), task.rows("train", small + more)
    available = task.rows("train")["label"].value_counts()
    assert set(few.index) <= set(many.index)
    assert few["label"].value_counts().to_dict() == available.clip(upper=small).to_dict()
    assert set(few["split"]) <= {"train"}


def test_every_class_needs_two_images_on_every_side():
    table = pd.DataFrame({"label": [0] * 3 + [1] * 14 + [2] * 18, "group_id": [0, 1, 2, *[3] * 9, *range(4, 27)]})
    check_counts(pd.DataFrame([[2, 2, 2], [9, 5, 7]], columns=SPLITS), CLASSES, table, "tasks.t")
    counts = pd.DataFrame([[9, 9, 9], [9, 1, 4], [0, 9, 9]], columns=SPLITS)
    with pytest.raises(UserError) as error:
        check_counts(counts, CLASSES, table, "tasks.t")
    assert str(error.value) == (
        "tasks.t: class 'dog' has 9 train, 1 validation and 4 test images (its largest group has 9 images). Every "
        "split needs at least 2: change the shares or add images."
    )
    with pytest.raises(UserError) as error:
        check_counts(counts.drop(1), CLASSES, table, "tasks.t")
    assert str(error.value) == (
        "tasks.t: class 'horse' has 0 train, 9 validation and 9 test images. Every split needs at least 2: change the "
        "shares or add images."
    )


def test_the_stage_counts_what_it_came_upon_and_says_so(folder, capsys):
    images = [
        *several("cat", 12),
        *several("dog", 12),
        Image("cat", "cat 0"),
        Image("dog", "cat 0"),
        Image("dog", "dog 1"),
        *several("cat", 4, 50, group="x"),
        Image("dog", "alone", "y"),
        Image("horse", "horse 1", "z"),
    ]
    unreadable = [(f"cat/{number}.png", "cat", f"reason {number}") for number in range(12)]
    lay_down(images, unreadable)
    said = main(study_of_task(exclude=["horse"], near_duplicates="group"), "t")
    task = read_task("t")
    assert task.summary == SplitSummary(
        grouped=5,
        groups=2,
        equal_content=5,
        unreadable=12,
        first_unreadable=[{"name": f"cat/{number}.png", "reason": f"reason {number}"} for number in range(10)],
    )
    table, *lines = capsys.readouterr().out.rsplit("\n", 4)
    assert lines == [
        "images of groups, each group in one split: 5 images, 2 groups",
        "images with the same content as another image, kept in one split: 5",
        "unreadable files of the dataset: 12, see quarantine.csv",
        "",
    ]
    counts = {side: (task.table["split"] == side).sum() for side in SPLITS}
    assert said == f"2 classes, {counts['train']} train, {counts['validation']} validation, {counts['test']} test"
    for label in ("cat", "dog"):
        own = task.table[task.table["class"] == label]
        shown = [str((own["split"] == side).sum()) for side in SPLITS]
        assert [label, *shown] in [line.split() for line in table.splitlines()]


def test_nothing_is_said_of_what_there_is_none():
    assert summary_sentences(SplitSummary()) == []
    assert summary_sentences(SplitSummary(near_duplicates=3, excluded=4)) == [
        "validation and test images similar to an image of another split: 3, see near_duplicates.csv",
        "images excluded because of related images in other splits: 4",
    ]


def prepared(names):
    """Prepared images of one gray value each, `names` -> how many; written to data/images/d."""
    source = [
        SourceImage(f"{name}/{number}", name, partial(png, np.full((8, 8), 20 * number + len(name), np.uint8)))
        for name, many in names.items()
        for number in range(many)
    ]
    write_images("d", source, 8, 0.0)
    return read_images("d")


def test_the_stage_writes_a_readable_table_of_the_classes_it_keeps(folder):
    images = prepared({"a": 8, "bb": 8, "ccc": 8})
    said = main(study_of_task(exclude=["a"]), "t")
    assert said == "2 classes, 8 train, 4 validation, 4 test"

    task = read_task("t")
    assert (task.dataset, task.classes, task.images_sha256) == ("d", ["bb", "ccc"], images.sha256)
    assert list(task.table) == ["index", "label", "class", "split", "order", "group_id", "sha256", "name"]
    assert list(task.table["index"]) == list(range(8, 24))
    assert list(task.table["label"]) == [0] * 8 + [1] * 8
    assert list(task.table["sha256"]) == list(images.table["sha256"][8:])
    assert task.table.groupby(["label", "split"]).size().tolist() == [2, 4, 2, 2, 4, 2]
    assert all(sorted(order) == list(range(1, 9)) for _, order in task.table.groupby("label")["order"])
    pd.testing.assert_frame_equal(task.rows("train", 99), task.rows("train"))


def test_a_task_refuses_other_images_than_its_own(folder):
    images = prepared({"a": 8, "bb": 8})
    main(study_of_task(), "t")
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
        ({"max_per_class": 5}, "tasks.t: class 'cat' has 3 train, 1 validation and 1 test images. Every split needs"),
        ({"group": "cat"}, "tasks.t.group: 'cat' does not match any of 24 file names, such as '0.png'. Correct it"),
        ({"include": ["horse", "cat"]}, "tasks.t.include: class 'horse' does not exist"),
        ({"rename": {"dog": "CAT"}}, "tasks.t: classes 'CAT' and 'cat' differ only in letter case"),
    ],
)
def test_a_task_that_cannot_be_split_is_answered_and_writes_nothing(entry, sentence, folder):
    lay_down(TWO_CLASSES)
    with pytest.raises(UserError) as error:
        main(study_of_task(**entry), "t")
    assert str(error.value).startswith(sentence)
    assert not (folder / "data/tasks").exists()


def test_a_class_whose_images_belong_together_is_answered_with_how_many_do(folder):
    lay_down([*several("cat", 10, group="x"), *several("cat", 2, 10), *several("dog", 12)])
    with pytest.raises(UserError) as error:
        main(study_of_task(), "t")
    assert str(error.value) == (
        "tasks.t: class 'cat' has 10 train, 0 validation and 2 test images (its largest group has 10 images). Every "
        "split needs at least 2: change the shares or add images."
    )


def test_a_missing_or_damaged_task_is_answered_with_the_way_out(folder):
    with pytest.raises(UserError, match=r"data/tasks/t/task\.json is missing. Run `dvc repro` to create it\.$"):
        read_task("t")
    task_of(TWO_CLASSES)
    (folder / "data/tasks/t/split.csv").write_text("index,split\n0,train\n")
    with pytest.raises(UserError, match=r"data/tasks/t is damaged .*. Delete it and run `dvc repro`\.$"):
        read_task("t")


def test_groups_that_are_told_later_draw_the_split_afresh(folder, capsys):
    images = [*several("cat", 30), *several("dog", 30)]
    grouped = [image._replace(group=f"{place // 3}") for place, image in enumerate(images)]
    fresh = sides_by(fresh_task_of(grouped))
    assert "new split: no earlier split" in capsys.readouterr().out
    fresh_task_of(images)
    capsys.readouterr()
    task = task_of(grouped)
    assert "new split: the earlier split has images of one group in several splits\n" in capsys.readouterr().out
    assert sides_by(task) == fresh
    assert task.summary.straddling == 0
    task_of(grouped)
    assert "new split" not in capsys.readouterr().out


def test_a_side_that_has_become_too_small_draws_the_split_afresh(folder, capsys):
    images = [*several("cat", 30), *several("dog", 30)]
    before = task_of(images, test=2)
    gone = before.table.loc[before.table["split"] == "test", "index"].iloc[0]
    after = task_of([image for place, image in enumerate(images) if place != gone], test=2)
    assert "new split: the earlier split leaves too few images in a split" in capsys.readouterr().out
    assert after.table.groupby(["class", "split"]).size().unstack()["test"].tolist() == [2, 2]


def test_a_copy_that_binds_two_sides_together_is_told_of(folder):
    images = [*several("cat", 30), *several("dog", 30)]
    images = [image._replace(group=f"{place}") for place, image in enumerate(images)]
    before = task_of(images)
    one, other = (
        int(before.table.index[(before.table["split"] == side) & (before.table["class"] == "cat")][0])
        for side in ("train", "test")
    )
    task = task_of([*images, images[one]._replace(group=f"{other}")])
    assert task.summary.straddling == 1
    assert "groups in several splits, kept from an earlier split: 1; delete" in "".join(summary_sentences(task.summary))
