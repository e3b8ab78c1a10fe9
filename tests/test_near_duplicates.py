"""Groups of images and near duplicates, which must not be in different splits."""

import csv
import tracemalloc
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.artifacts.tasks import read_task
from stages.core.errors import UserError
from stages.core.params import Params
from stages.sources.source_image import SourceImage
from stages.sources.writing import write_images
from stages.split import main
from stages.splitting import near_duplicates
from stages.splitting.assignment import parts_of
from stages.splitting.groups import group_ids, groups_from_names
from stages.splitting.near_duplicates import (
    NEAR_BITS,
    hash_bits,
    near_duplicate_groups,
    near_duplicates_across_splits,
    near_pairs,
)
from tests.conftest import encode

SPLITS = ["train", "validation", "test"]

few_examples = settings(max_examples=30)


def random_hashes(random, number):
    return [f"{random.getrandbits(256):064x}" for _ in range(number)]


def changed(perceptual_hash, random, bits):
    """A hash that differs from the given one in `bits` bits."""
    for position in random.sample(range(256), bits):
        perceptual_hash = f"{int(perceptual_hash, 16) ^ 1 << position:064x}"
    return perceptual_hash


def distance(first, second):
    return (int(first, 16) ^ int(second, 16)).bit_count()


@st.composite
def families(draw):
    """Hashes with distances around the threshold of near duplicates."""
    random = draw(st.randoms(use_true_random=False))
    result = random_hashes(random, draw(st.integers(1, 4)))
    for bits in draw(st.lists(st.sampled_from([0, 1, 12, 23, 24, 25, 26, 40]), max_size=20)):
        result.append(changed(random.choice(result), random, bits))
    random.shuffle(result)
    return result


@few_examples
@given(families())
def test_hash_bits_reads_every_bit(family):
    bits = hash_bits(pd.Series(family))
    assert bits.shape == (len(family), 4)
    assert ["".join(f"{part:016x}" for part in row) for row in bits] == family


def test_hash_bits_of_no_hashes_is_empty():
    assert hash_bits(pd.Series([], dtype=str)).shape == (0, 4)


@few_examples
@given(families(), families(), st.integers(1, 100))
def test_near_pairs_equals_brute_force_for_any_block_size(some, others, block):
    others += some[:3]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_duplicates, "BLOCK", block)
        result = near_pairs(hash_bits(pd.Series(some)), hash_bits(pd.Series(others)))
        pairs = [tuple(map(int, pair)) for block in result for pair in zip(*block, strict=True)]
    everything = [(i, j, distance(first, second)) for i, first in enumerate(some) for j, second in enumerate(others)]
    assert sorted(pairs) == [pair for pair in everything if pair[2] <= 24]


@pytest.mark.parametrize("part", range(4))
def test_near_duplicates_differ_in_at_most_24_bits_at_any_position(part):
    zeros = "0" * 64
    near, far = (f"{(2**bits - 1) << (64 * part):064x}" for bits in (24, 25))
    assert NEAR_BITS == 24
    assert [
        pair[2].tolist() for pair in near_pairs(hash_bits(pd.Series([zeros])), hash_bits(pd.Series([near, far])))
    ] == [[24]]


def table_of_hashes(rows):
    table = pd.DataFrame(rows, columns=["perceptual_hash", "split"], index=range(5, 5 + len(rows)))
    return table.assign(name=[f"image {number}" for number in range(len(rows))])


@few_examples
@given(families(), st.data(), st.integers(1, 100))
def test_a_held_out_image_is_listed_with_the_most_similar_image_of_another_split(family, data, block):
    splits = data.draw(st.lists(st.sampled_from(SPLITS), min_size=len(family), max_size=len(family)))
    table = table_of_hashes(list(zip(family, splits, strict=True)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_duplicates, "BLOCK", block)
        result = near_duplicates_across_splits(table)
    assert list(result) == ["name", "split", "similar_to", "similar_split", "bits"]
    assert result["name"].is_unique
    listed = result.set_index("name").to_dict("index")
    by_name = table.set_index("name")
    for row in table.itertuples():
        others = {
            other.name: distance(row.perceptual_hash, other.perceptual_hash)
            for other in table.itertuples()
            if other.split != row.split
        }
        if row.split == "train" or min(others.values(), default=99) > 24:
            assert row.name not in listed
            continue
        line = listed[row.name]
        assert line["split"] == row.split
        assert line["bits"] == others[line["similar_to"]] == min(others.values())
        assert line["similar_split"] == by_name["split"][line["similar_to"]]


def test_near_duplicates_within_a_split_are_not_listed():
    perceptual_hash = "5" * 64
    for split in SPLITS:
        result = near_duplicates_across_splits(table_of_hashes([(perceptual_hash, split)] * 3))
        assert list(result) == ["name", "split", "similar_to", "similar_split", "bits"]
        assert len(result) == 0


def test_images_with_equal_hashes_are_all_listed():
    first, second = "5" * 64, "a" * 64
    rows = [(first, split) for split in ("test", "test", "train", "train")]
    rows += [(second, split) for split in ("validation", "train")]
    assert near_duplicates_across_splits(table_of_hashes(rows)).to_numpy().tolist() == [
        ["image 0", "test", "image 2", "train", 0],
        ["image 1", "test", "image 2", "train", 0],
        ["image 4", "validation", "image 5", "train", 0],
    ]


# Groups.

# Four chains of three hashes: neighbors are near duplicates, the first and the last are not.
HASHES = [
    f"{int(sha256(bytes([row])).hexdigest(), 16) ^ 2 ** (20 * position) - 1:064x}"
    for row in range(4)
    for position in range(3)
]


def brute_force_groups(images):
    """The group of each image (content, group, perceptual hash), by comparing all pairs."""
    sets = list(range(len(images)))
    for position, (content, group, perceptual_hash) in enumerate(images):
        for other, (its_content, its_group, its_look) in enumerate(images[:position]):
            if (
                content == its_content
                or (group and group == its_group)
                or (perceptual_hash and its_look and distance(perceptual_hash, its_look) <= 24)
            ):
                sets = [sets[other] if number == sets[position] else number for number in sets]
    return sets


def same_partition(first, second):
    return len(set(zip(first, second, strict=True))) == len(set(first)) == len(set(second))


@few_examples
@given(
    st.lists(
        st.tuples(
            st.integers(0, 30).map(str), st.sampled_from(["", "", "", *"abcdefghijk"]), st.integers(0, len(HASHES) - 1)
        ),
        min_size=1,
        max_size=25,
    )
)
def test_groups_are_connected_components_of_equal_content_groups_and_similar_images(images):
    rows = [(content, group, HASHES[perceptual_hash]) for content, group, perceptual_hash in images]
    table = pd.DataFrame(rows, columns=["sha256", "group", "perceptual_hash"], index=range(7, 7 + len(rows)))
    table["name_group"] = ""
    assert same_partition(group_ids(table, True), brute_force_groups(rows))
    assert same_partition(
        group_ids(table, False), brute_force_groups([(content, group, "") for content, group, _ in rows])
    )


def test_similarity_is_transitive_in_groups():
    first, second, third = HASHES[:3]
    assert distance(first, second) == distance(second, third) == 20
    assert distance(first, third) == 40
    table = pd.DataFrame(
        {"sha256": list("abcd"), "group": "", "name_group": "", "perceptual_hash": [first, HASHES[3], third, second]}
    )
    assert same_partition(group_ids(table, True), [0, 1, 0, 0])
    assert same_partition(group_ids(table, False), [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        (r"person\d+", ["=person1", "=person12", "=person1", ""]),
        (r"person(\d+)_(\w)\w+", ["=1|v", "=12|b", "=1|b", ""]),
        (r"_([a-z])[a-z]+(_\d)?\.", ["=v|None", "=b|_2", "=b|_3", ""]),
    ],
)
def test_a_pattern_matches_file_names_without_their_folders(pattern, groups):
    names = [
        "x/person1_virus.png",
        "person7/person12_bacteria_2.png",
        "y/person1_bacteria_3.png",
        "person5_virus/7.png",
    ]
    result = groups_from_names(pattern, pd.Series(names, [3, 1, 4, 5]), "tasks.t")
    assert result.to_dict() == dict(zip([3, 1, 4, 5], groups, strict=True))


def test_a_match_of_the_empty_text_is_a_group():
    result = groups_from_names(r"^(\d*)-", pd.Series(["-a.png", "b.png", "-c.png", "1-d.png"]), "tasks.t")
    table = pd.DataFrame({"sha256": list("abcd"), "group": "", "name_group": result, "perceptual_hash": ""})
    assert same_partition(group_ids(table, False), [0, 1, 0, 2])


def test_a_pattern_without_a_match_is_an_error_with_an_example_name():
    with pytest.raises(UserError) as error:
        groups_from_names("patient_[0-9]+", pd.Series(["patient_1/a.png", "patient_2/b.png"]), "tasks.t")
    assert str(error.value) == (
        "tasks.t.group: 'patient_[0-9]+' does not match any of 2 file names, such as 'a.png'. Correct it, or leave "
        "it out."
    )


# The stage, on photographs.


def photograph(random, side=128):
    """A random image with coarse and fine structures, as in photographs."""
    layers = [
        np.asarray(Image.fromarray(random.normal(size=(cells, cells))).resize((side, side), Image.Resampling.BICUBIC))
        for cells in (4, 8, 16, 32, 64)
    ]
    gray = sum(layer / 2**number for number, layer in enumerate(layers))
    gray = (gray - gray.min()) / np.ptp(gray) * 255
    return Image.fromarray(gray.astype(np.uint8)).convert("RGB")


def reencoded(picture):
    return encode(picture.resize((64, 64), Image.Resampling.LANCZOS), "JPEG", quality=50)


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """Twelve photographs per class, each with a smaller, compressed copy; name -> number of the photograph."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    source, picture_of = [], {}
    for number in range(24):
        picture, label = photograph(random), ("cat", "dog")[number % 2]
        for name, content in (("first", encode(picture)), ("again", reencoded(picture))):
            picture_of[f"{label}/{name} {number}"] = number
            source.append(SourceImage(f"{label}/{name} {number}", label, lambda content=content: content))
    write_images("d", source, 16, 0.0)
    return picture_of


def task_of_photographs(**entry):
    entry = {"dataset": "d", "validation": 0.25, "test": 0.25, **entry}
    main(Params({"seed": 0, "tasks": {"t": entry}}), "t")
    with Path("data/tasks/t/near_duplicates.csv").open(newline="") as file:
        near = list(csv.reader(file))
    return read_task("t"), near


def test_reencoded_copies_are_reported(photographs, capsys):
    task, (columns, *rows) = task_of_photographs()
    assert columns == ["name", "split", "similar_to", "similar_split", "bits"]
    assert task.folds > 1
    splits = dict(zip(task.table["name"], task.table["split"], strict=True))
    copy_of = {
        name: copy
        for name in photographs
        for copy in photographs
        if name != copy and photographs[name] == photographs[copy]
    }
    assert {row[0]: row[2] for row in rows} == {
        name: copy_of[name] for name in photographs if splits[name] != "train" and splits[copy_of[name]] != splits[name]
    }
    assert rows
    assert all(row[1] == splits[row[0]] and row[3] == splits[row[2]] for row in rows)
    assert all(int(bits) <= 24 for *_, bits in rows)
    assert task.summary.near_duplicates == len(rows)
    sentence = f"similar to an image of another split: {len(rows)}, see data/tasks/t/near_duplicates.csv"
    assert f"validation and test images {sentence}" in capsys.readouterr().out.splitlines()


def test_reencoded_copies_stay_in_one_split_with_near_duplicates_group(photographs, capsys):
    task, rows = task_of_photographs(near_duplicates="group")
    assert rows == [["name", "split", "similar_to", "similar_split", "bits"]]
    assert task.summary.near_duplicates == 0
    assert "near_duplicates.csv" not in capsys.readouterr().out
    parts = parts_of(task.table).groupby(task.table["name"].map(photographs))
    assert (parts.nunique() == 1).all()
    assert set(task.table.groupby(["label", "split"]).size()) == {6, 12}


def test_frames_of_a_film_are_one_group_and_their_pairs_are_not_stored():
    frames = np.zeros((4000, 4), np.uint64)
    frames[:, 0] = np.arange(4000)  # at most 12 bits apart
    frames[2000:, 1] = 2**64 - 1  # another scene
    tracemalloc.start()
    sets = near_duplicate_groups(frames)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert same_partition(sets, [0] * 2000 + [1] * 2000)
    assert peak < 4000 * 2000 * 8  # the size of a matrix of all pairs
