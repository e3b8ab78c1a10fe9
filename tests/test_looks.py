"""Which images belong together or look alike, so that they must not come to two sides."""

import csv
import tracemalloc
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.artifacts.tasks import SPLITS, read_task
from stages.config.tasks import TaskConfig as Entry
from stages.core.errors import UserError
from stages.sources.source_image import SourceImage
from stages.sources.writing import write_images
from stages.split import main
from stages.splitting import near_duplicates
from stages.splitting.groups import group_ids, groups_from_names
from stages.splitting.near_duplicates import (
    NEAR_BITS,
    hash_bits,
    near_duplicate_sets,
    near_duplicates_across_splits,
    near_pairs,
)
from tests.conftest import encode

few_examples = settings(max_examples=30)


def random_looks(random, number):
    return [f"{random.getrandbits(256):064x}" for _ in range(number)]


def changed(look, random, bits):
    """A look that differs from another in so many bits."""
    for place in random.sample(range(256), bits):
        look = f"{int(look, 16) ^ 1 << place:064x}"
    return look


def distance(one, other):
    return (int(one, 16) ^ int(other, 16)).bit_count()


@st.composite
def families(draw):
    """Looks of which many are a few bits apart, about the number up to which two images look alike."""
    random = draw(st.randoms(use_true_random=False))
    found = random_looks(random, draw(st.integers(1, 4)))
    for bits in draw(st.lists(st.sampled_from([0, 1, 12, 23, 24, 25, 26, 40]), max_size=20)):
        found.append(changed(random.choice(found), random, bits))
    random.shuffle(found)
    return found


@few_examples
@given(families())
def test_a_look_is_read_bit_by_bit(family):
    bits = hash_bits(pd.Series(family))
    assert bits.shape == (len(family), 4)
    assert ["".join(f"{part:016x}" for part in row) for row in bits] == family


def test_of_no_looks_there_are_no_bits():
    assert hash_bits(pd.Series([], dtype=str)).shape == (0, 4)


@few_examples
@given(families(), families(), st.integers(1, 100))
def test_pairs_are_those_that_a_comparison_of_all_finds_whatever_is_computed_at_once(some, others, block):
    others += some[:3]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_duplicates, "BLOCK", block)
        found = near_pairs(hash_bits(pd.Series(some)), hash_bits(pd.Series(others)))
        pairs = [tuple(map(int, pair)) for block in found for pair in zip(*block, strict=True)]
    everything = [(i, j, distance(one, other)) for i, one in enumerate(some) for j, other in enumerate(others)]
    assert sorted(pairs) == [pair for pair in everything if pair[2] <= 24]


@pytest.mark.parametrize("part", range(4))
def test_looks_are_alike_up_to_24_bits_wherever_they_lie(part):
    look = "0" * 64
    near, far = (f"{(2**bits - 1) << (64 * part):064x}" for bits in (24, 25))
    assert NEAR_BITS == 24
    assert [
        pair[2].tolist() for pair in near_pairs(hash_bits(pd.Series([look])), hash_bits(pd.Series([near, far])))
    ] == [[24]]


def table_of_looks(rows):
    table = pd.DataFrame(rows, columns=["look", "split"], index=range(5, 5 + len(rows)))
    return table.assign(name=[f"image {number}" for number in range(len(rows))])


@few_examples
@given(families(), st.data(), st.integers(1, 100))
def test_each_held_out_image_is_listed_with_the_most_similar_of_another_side(family, data, block):
    sides = data.draw(st.lists(st.sampled_from(SPLITS), min_size=len(family), max_size=len(family)))
    table = table_of_looks(list(zip(family, sides, strict=True)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_duplicates, "BLOCK", block)
        found = near_duplicates_across_splits(table)
    assert list(found) == ["name", "split", "like", "like_split", "bits"]
    assert found["name"].is_unique
    listed = found.set_index("name").to_dict("index")
    by_name = table.set_index("name")
    for row in table.itertuples():
        others = {
            other.name: distance(row.look, other.look) for other in table.itertuples() if other.split != row.split
        }
        if row.split == "train" or min(others.values(), default=99) > 24:
            assert row.name not in listed
            continue
        line = listed[row.name]
        assert line["split"] == row.split
        assert line["bits"] == others[line["like"]] == min(others.values())
        assert line["like_split"] == by_name["split"][line["like"]]


def test_images_of_one_side_are_not_listed():
    look = "5" * 64
    for side in SPLITS:
        found = near_duplicates_across_splits(table_of_looks([(look, side)] * 3))
        assert list(found) == ["name", "split", "like", "like_split", "bits"]
        assert len(found) == 0


def test_images_that_look_the_same_are_each_listed_with_one_of_another_side():
    look, other = "5" * 64, "a" * 64
    rows = [(look, "test"), (look, "test"), (look, "train"), (look, "train"), (other, "validation"), (other, "train")]
    assert near_duplicates_across_splits(table_of_looks(rows)).to_numpy().tolist() == [
        ["image 0", "test", "image 2", "train", 0],
        ["image 1", "test", "image 2", "train", 0],
        ["image 4", "validation", "image 5", "train", 0],
    ]


# Which images belong together.

# Four times three looks in a row: the first and the last are no more alike, but hang together.
LOOKS = [
    f"{int(sha256(bytes([row])).hexdigest(), 16) ^ 2 ** (20 * place) - 1:064x}"
    for row in range(4)
    for place in range(3)
]


def sets_by_hand(images):
    """The set of each image of (content, group, look), by going from image to image."""
    sets = list(range(len(images)))
    for place, (content, group, look) in enumerate(images):
        for other, (its_content, its_group, its_look) in enumerate(images[:place]):
            if (
                content == its_content
                or (group and group == its_group)
                or (look and its_look and distance(look, its_look) <= 24)
            ):
                sets = [sets[other] if number == sets[place] else number for number in sets]
    return sets


def same_partition(one, other):
    return len(set(zip(one, other, strict=True))) == len(set(one)) == len(set(other))


@few_examples
@given(
    st.lists(
        st.tuples(
            st.integers(0, 30).map(str), st.sampled_from(["", "", "", *"abcdefghijk"]), st.integers(0, len(LOOKS) - 1)
        ),
        min_size=1,
        max_size=25,
    )
)
def test_images_of_equal_content_of_a_group_or_alike_hang_together_over_others(images):
    rows = [(content, group, LOOKS[look]) for content, group, look in images]
    table = pd.DataFrame(rows, columns=["sha256", "group", "look"], index=range(7, 7 + len(rows)))
    table["named"] = ""
    assert same_partition(group_ids(table, True), sets_by_hand(rows))
    assert same_partition(group_ids(table, False), sets_by_hand([(content, group, "") for content, group, _ in rows]))


def test_images_that_look_alike_hang_together_over_others():
    first, second, third = LOOKS[:3]
    assert distance(first, second) == distance(second, third) == 20
    assert distance(first, third) == 40
    table = pd.DataFrame({"sha256": list("abcd"), "group": "", "named": "", "look": [first, LOOKS[3], third, second]})
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
def test_a_pattern_finds_groups_in_file_names_and_not_in_folders(pattern, groups):
    names = [
        "x/person1_virus.png",
        "person7/person12_bacteria_2.png",
        "y/person1_bacteria_3.png",
        "person5_virus/7.png",
    ]
    found = groups_from_names(pattern, pd.Series(names, [3, 1, 4, 5]), "tasks.t")
    assert found.to_dict() == dict(zip([3, 1, 4, 5], groups, strict=True))


def test_images_of_a_group_with_an_empty_name_belong_together():
    found = groups_from_names(r"^(\d*)-", pd.Series(["-a.png", "b.png", "-c.png", "1-d.png"]), "tasks.t")
    table = pd.DataFrame({"sha256": list("abcd"), "group": "", "named": found, "look": ""})
    assert same_partition(group_ids(table, False), [0, 1, 0, 2])


def test_a_pattern_that_finds_nothing_is_answered_with_a_file_name():
    with pytest.raises(UserError) as error:
        groups_from_names("patient_[0-9]+", pd.Series(["patient_1/a.png", "patient_2/b.png"]), "tasks.t")
    assert str(error.value) == (
        "tasks.t.group: 'patient_[0-9]+' is found in none of 2 file names, such as 'a.png'; correct it, or leave it "
        "out."
    )


# The stage, on photographs.


def photograph(random, side=128):
    """A picture with coarse and fine parts, as photographs have them; every two are different."""
    layers = [
        np.asarray(Image.fromarray(random.normal(size=(cells, cells))).resize((side, side), Image.Resampling.BICUBIC))
        for cells in (4, 8, 16, 32, 64)
    ]
    gray = sum(layer / 2**number for number, layer in enumerate(layers))
    gray = (gray - gray.min()) / np.ptp(gray) * 255
    return Image.fromarray(gray.astype(np.uint8)).convert("RGB")


def saved_again(picture):
    return encode(picture.resize((64, 64), Image.Resampling.LANCZOS), "JPEG", quality=50)


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """Twelve photographs of each class, and of each a copy saved again in half the size; names -> which it shows."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    source, shows = [], {}
    for number in range(24):
        picture, label = photograph(random), ("cat", "dog")[number % 2]
        for name, content in (("first", encode(picture)), ("again", saved_again(picture))):
            shows[f"{label}/{name} {number}"] = number
            source.append(SourceImage(f"{label}/{name} {number}", label, lambda content=content: content))
    write_images("d", source, 16, 0.0)
    return shows


def task_of_photographs(**entry):
    main(SimpleNamespace(seed=0, tasks={"t": Entry(dataset="d", validation=0.25, test=0.25, **entry)}), "t")
    with Path("data/tasks/t/near_duplicates.csv").open(newline="") as file:
        near = list(csv.reader(file))
    return read_task("t"), near


def test_copies_that_were_saved_again_are_reported(photographs, capsys):
    task, (columns, *rows) = task_of_photographs()
    assert columns == ["name", "split", "like", "like_split", "bits"]
    side = dict(zip(task.table["name"], task.table["split"], strict=True))
    other = {
        one: another
        for one in photographs
        for another in photographs
        if one != another and photographs[one] == photographs[another]
    }
    assert {row[0]: row[2] for row in rows} == {
        name: other[name] for name in photographs if side[name] != "train" and side[other[name]] != side[name]
    }
    assert rows
    assert all(split == side[name] and like_split == side[like] for name, split, like, like_split, _ in rows)
    assert all(int(bits) <= 24 for *_, bits in rows)
    assert task.findings.near_duplicates == len(rows)
    sentence = (
        f"validation and test images that look like an image of another side: {len(rows)}, see near_duplicates.csv"
    )
    assert sentence in capsys.readouterr().out.splitlines()


def test_copies_that_were_saved_again_are_kept_on_one_side_where_asked_for(photographs, capsys):
    task, rows = task_of_photographs(near_duplicates="group")
    assert rows == [["name", "split", "like", "like_split", "bits"]]
    assert task.findings.near_duplicates == 0
    assert "near_duplicates.csv" not in capsys.readouterr().out
    sides = task.table.groupby(task.table["name"].map(photographs))["split"]
    assert (sides.nunique() == 1).all()
    assert set(task.table.groupby(["label", "split"]).size()) == {6, 12}


def test_the_frames_of_a_film_are_one_set_and_their_pairs_are_not_kept():
    frames = np.zeros((4000, 4), np.uint64)
    frames[:, 0] = np.arange(4000)  # at most 12 bits apart
    frames[2000:, 1] = 2**64 - 1  # another scene
    tracemalloc.start()
    sets = near_duplicate_sets(frames)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert same_partition(sets, [0] * 2000 + [1] * 2000)
    assert peak < 4000 * 2000 * 8  # a number for each of their pairs
