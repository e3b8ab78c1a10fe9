"""Backbones that have seen images which a model built on them holds out."""

import copy
import shutil
from pathlib import Path

import pandas as pd
import pytest

from stages.artifacts.seen_images import (
    SEEN_COLUMNS,
    TRAINED,
    VALIDATED,
    no_seen_images,
    read_seen_images,
    write_seen_images,
)
from stages.artifacts.tasks import read_task
from stages.core.errors import UserError
from stages.core.params import Params
from stages.core.yaml import read_yaml
from stages.split import main
from stages.splitting.leaks import clean_folds, images_seen
from stages.validation.study import validate_study
from tests.test_near_duplicates import HASHES
from tests.test_split import Image, numbered, text_sha256, write_prepared

ROOT = Path(__file__).parents[1]
IMAGES = [image for label in ("ant", "bee", "cat", "dog") for image in numbered(label, 40)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_task(name, images=IMAGES, **entry):
    """Split the images as a task of this name; each dataset is called d."""
    write_prepared(images)
    entry = {"dataset": "d", "validation": 0.2, "test": 0.2, **entry}
    main(Params({"seed": 0, "tasks": {name: entry}}), name)
    return read_task(name)


def seen_by(task, fold=0, limit=None, below=None, other_folds=()):
    """What a network of the task has seen whose exported repeat holds out this fold; its other repeats others."""
    trained = task.rows("train", limit, fold=fold)["index"]
    return images_seen(
        task, f"{task.name}-net", [fold, *other_folds], trained, no_seen_images() if below is None else below
    )


def leaked(task, seen):
    """The error about a model of the task on a backbone that has seen these images."""
    with pytest.raises(UserError) as error:
        clean_folds(task, seen, "heads.h")
    return str(error.value)


def test_a_backbone_that_is_no_network_of_the_study_has_seen_no_image(folder):
    task = make_task("a")
    assert clean_folds(task, no_seen_images(), "heads.h") == list(range(task.folds)) == [0, 1, 2, 3]


@pytest.mark.parametrize("fold", range(4))
def test_a_model_validates_on_the_fold_that_its_backbone_held_out(fold, folder):
    task = make_task("a")
    seen = seen_by(task, fold)
    assert clean_folds(task, seen, "heads.h") == [fold]
    validation = task.rows("validation", fold=fold)
    assert set(seen["sha256"][seen["use"] == VALIDATED]) == set(validation["sha256"])
    assert set(seen["sha256"][seen["use"] == TRAINED]) == set(task.rows("train", fold=fold)["sha256"])


@pytest.mark.parametrize(
    "entry",
    [
        {"rename": {"ant": "insect", "bee": "insect"}},
        {"max_per_class": 25},
        {"include": ["ant", "cat"]},
        {"rename": {"cat": "pet", "dog": "pet"}, "exclude": ["ant"], "max_per_class": 30},
    ],
)
@pytest.mark.parametrize("fold", [0, 2])
def test_tasks_with_equal_shares_have_a_clean_fold(entry, fold, folder):
    first, second = make_task("a"), make_task("b", **entry)
    assert fold in clean_folds(second, seen_by(first, fold), "heads.h")
    assert fold in clean_folds(first, seen_by(second, fold), "heads.h")


def test_a_test_image_that_the_backbone_has_seen_is_an_error(folder):
    first, second = make_task("a", test=0.2), make_task("b", test=0.4)
    assert leaked(second, seen_by(first)) == (
        "heads.h: the backbone has seen 32 of 64 test images of task 'b'. Network 'a-net' was trained or validated on "
        "them, or on images of their groups, for task 'a'. Give both tasks the same test, validation, group and "
        "near_duplicates (if they are the same, delete data/tasks/a and data/tasks/b for new splits), or use a "
        "backbone that has not seen these images."
    )
    # The test images of a are test images of b, and so are those of its first fold; its second fold is the first of b.
    assert clean_folds(first, seen_by(second), "heads.h") == [0, 1]


def test_a_network_of_a_fold_that_another_task_lacks_is_an_error_with_a_remedy(folder):
    """The network failed on fold 0, so it is the repeat of fold 3. The task of all classes has two folds."""
    images = [image for label, size in (("ant", 60), ("bee", 60), ("owl", 30)) for image in numbered(label, size)]
    entry = {"validation": 10, "test": 10}
    network, model = make_task("a", images, **entry, exclude=["owl"]), make_task("b", images, **entry)
    assert "(if they are the same, give a-net repeats: 1, so that it holds out fold 0, or delete" in leaked(
        model, seen_by(network, 3)
    )
    assert clean_folds(model, seen_by(network, 0), "heads.h") == [0]


def test_an_image_that_only_validated_the_backbone_is_no_test_image(folder):
    first, second = make_task("a", test=0.2, validation=0.2), make_task("b", test=0.4)
    seen = seen_by(first)
    assert "32 of 64 test images" in leaked(second, seen[seen["use"] == VALIDATED])


def test_the_validation_images_of_all_repeats_have_decided_which_becomes_the_backbone(folder):
    """The exported repeat was trained on one image of each class. Those of fold 1 decided that it is exported."""
    first, second = make_task("a", test=0.2), make_task("b", test=0.6, validation=0.2)
    seen = seen_by(first, limit=1, other_folds=[1, 1])
    validated = set(seen["sha256"][seen["use"] == VALIDATED])
    assert validated == {*first.rows("validation")["sha256"], *first.rows("validation", fold=1)["sha256"]}
    assert "has seen 64 of 96 test images" in leaked(second, seen[seen["use"] == VALIDATED])
    # A validation image of a model may be one of the network.
    assert clean_folds(first, seen[seen["use"] == VALIDATED], "heads.h") == [0, 1, 2, 3]


def test_a_backbone_that_was_trained_on_every_fold_is_an_error(folder):
    first, second = make_task("a", validation=0.1), make_task("b", validation=0.4)
    assert leaked(second, seen_by(first)).startswith(
        "heads.h: the backbone has seen 48 of 64 validation images of task 'b'. Network 'a-net' was trained on them, "
        "or on images of their groups, for task 'a'. Give both"
    )
    assert clean_folds(first, seen_by(second), "heads.h") == [0, 1, 2, 3]


def test_a_small_training_set_leaves_more_folds_clean(folder):
    task = make_task("a")
    seen = seen_by(task, limit=1)
    assert len(seen[seen["use"] == TRAINED]) == 4
    folds = set(task.table["fold"][task.table["sha256"].isin(seen["sha256"][seen["use"] == TRAINED])])
    assert folds - {-1}
    assert clean_folds(task, seen, "heads.h") == sorted(set(range(task.folds)) - folds)


def test_a_chain_of_networks_has_seen_what_all_of_them_have(folder):
    """The lower network was trained on test images of the model, the upper one was not."""
    first, second = make_task("a", test=0.1), make_task("b", include=["ant", "bee"], test=0.4)
    lower = seen_by(first)
    upper = images_seen(second, "b-net", [0], second.rows("train")["index"], lower)
    assert set(upper["network"]) == {"a-net", "b-net"}
    assert "Network 'a-net' was trained or validated on them" in leaked(second, upper)
    assert clean_folds(second, upper[upper["network"] == "b-net"], "heads.h") == [0]


def test_near_duplicates_of_another_class_count_where_they_are_grouped(folder):
    """The first task has an image of class dog that resembles an image of class ant, which only the second task has."""
    similar = [Image("ant", "one", perceptual_hash=HASHES[0]), Image("dog", "two", perceptual_hash=HASHES[0])]
    images = [*IMAGES, *similar]
    first = make_task("a", images, include=["cat", "dog"])
    grouped = {"include": ["ant", "bee"], "near_duplicates": "group"}
    for seed_image in range(30):  # until the image of class ant is a test image
        similar[0] = similar[0]._replace(content=f"one {seed_image}")
        images = [*IMAGES, *similar]
        shutil.rmtree("data/tasks/b", ignore_errors=True)
        second = make_task("b", images, **grouped)
        test = set(second.rows("test")["sha256"])
        if text_sha256(similar[0].content) in test:
            break
    rows = first.table["index"][first.table["sha256"] == text_sha256("two")]
    seen = images_seen(first, "a-net", [0], rows, no_seen_images())
    assert text_sha256("two") not in set(second.table["sha256"])
    assert "the backbone has seen 1 of " in leaked(second, seen[seen["use"] == TRAINED])
    ungrouped = make_task("c", images, include=["ant", "bee"])
    assert clean_folds(ungrouped, seen, "heads.h") == list(range(ungrouped.folds))


def test_all_images_of_a_group_count_as_seen(folder):
    """A network trains on one image per class, but of a group of four."""
    images = [image._replace(group=f"{index // 4}") for index, image in enumerate(IMAGES)]
    task, ungrouped = make_task("a", images), make_task("b", IMAGES)
    seen = seen_by(task, limit=1)
    assert len(seen[seen["use"] == TRAINED]) == 16
    trained = ungrouped.table["sha256"].isin(seen["sha256"][seen["use"] == TRAINED])
    assert (ungrouped.table["split"][trained] == "test").any()
    assert "test images of task 'b'" in leaked(ungrouped, seen)


@pytest.mark.parametrize(("smaller", "larger"), [(0.1, 0.2), (0.11, 0.12), (3, 10)])
def test_fold_0_of_a_smaller_value_is_inside_fold_0_of_a_larger_one(smaller, larger, folder):
    """As the check of the study assumes; classes of 20, 25, 31 and 40 images are rounded differently."""
    sizes = {"ant": 20, "bee": 25, "cat": 31, "dog": 40}
    images = [image for label, size in sizes.items() for image in numbered(label, size)]
    network = make_task("a", images, validation=larger)
    for entry in ({}, {"max_per_class": 24}, {"rename": {"ant": "bee"}}):
        model = make_task("b", images, validation=smaller, **entry)
        assert 0 in clean_folds(model, seen_by(network), "heads.h")


def test_rounding_takes_fold_0_out_of_a_larger_test_split(folder):
    """Shares of 0.1 and 0.1 of 15 images are four images, a share of 0.2 is three: the check must refuse them."""
    images = [image for label in ("ant", "bee", "cat") for image in numbered(label, 15)]
    network, model = make_task("a", images, test=0.2), make_task("b", images, test=0.1, validation=0.1)
    trained = set(network.rows("train")["sha256"]) | set(network.rows("validation")["sha256"])
    assert set(model.rows("validation")["sha256"]) & trained
    assert problems({"test": 0.2}, {"test": 0.1, "validation": 0.1}, {"source": "digits", "image_size": 8})


def test_two_datasets_that_share_pictures(folder):
    first = make_task("a", IMAGES)
    others = [*numbered("owl", 40), *numbered("fox", 40)]
    assert clean_folds(make_task("b", others), seen_by(first), "heads.h") == [0, 1, 2, 3]
    shared = [Image("owl", image.content) for image in IMAGES[:20]]
    assert "test images of task 'c'" in leaked(make_task("c", [*others, *shared], test=0.3), seen_by(first))


def test_a_published_split_is_clean_in_every_task(folder):
    images = [image._replace(split=("train", "train", "validation", "test")[i % 4]) for i, image in enumerate(IMAGES)]
    published = {"validation": "published", "test": "published"}
    first, second = make_task("a", images, **published), make_task("b", images, include=["ant", "bee"], **published)
    assert clean_folds(second, seen_by(first), "heads.h") == [0]
    drawn = make_task("c", images)
    assert "of task 'c'" in leaked(drawn, seen_by(first))
    folds = make_task("e", images, test="published")
    assert clean_folds(folds, seen_by(folds, 1), "heads.h") == [1]


def test_an_image_of_a_group_in_two_splits_asks_for_a_new_split(folder):
    """A copy that was added later connects a training image to a test image of the same task."""
    images = [image._replace(group=f"{index}") for index, image in enumerate(IMAGES)]
    task = make_task("a", images)
    one, other = (int(task.rows(split)["index"].iloc[0]) for split in ("train", "test"))
    task = make_task("a", [*images, images[one]._replace(group=f"{other}")])
    assert leaked(task, seen_by(task)).endswith(
        "for task 'a'. Delete data/tasks/a for a new split. Then all models of the task, and all that are built on "
        "them, train again, and new test images may be ones that models of earlier reports were trained on."
    )


def test_seen_images_are_written_and_read(folder):
    seen = seen_by(make_task("a"))
    write_seen_images(folder, seen)
    pd.testing.assert_frame_equal(read_seen_images(folder), seen, check_dtype=False)
    write_seen_images(folder, no_seen_images())
    assert list(read_seen_images(folder)) == SEEN_COLUMNS and read_seen_images(folder).empty
    (folder / "seen.csv").unlink()
    with pytest.raises(UserError, match=r"seen\.csv is missing"):
        read_seen_images(folder)


# The check of the study.

GOOD = read_yaml(ROOT / "params.yaml")
CHAIN = {"dataset": "digits", "task": "digits-b", "backbone": "a-scratch", "trainable": "all"}


def problems(first, second, dataset=None, **networks):
    """The problems of the default study with other settings of its two tasks."""
    study = copy.deepcopy(GOOD)
    study["tasks"]["digits-a"] = {"dataset": "digits", "validation": 0.1, "test": 0.3, **first}
    study["tasks"]["digits-b"] = {"dataset": "digits", "validation": 0.1, "test": 0.3, **second}
    for name in ("b-fc1", "b-flatten", "b-pool1"):
        study["features"][name].pop("classes")
    study["networks"].update(networks)
    if dataset:
        study["datasets"]["digits"] = dataset
    return validate_study(study)[1]


def test_a_backbone_that_is_trained_on_test_images_is_refused_before_anything_runs():
    found = problems({}, {"test": 0.5})
    settings = (
        "network 'a-scratch' is trained on test images of task 'digits-b': tasks.digits-b has test 0.5, and "
        "tasks.digits-a has 0.3. Give both the same value, or use a backbone from other images."
    )
    models = [
        *("networks.b-all-layers.backbone", "heads.b-one-layer.features", "heads.b-two-layers.features"),
        *("probes.b-ridge.features", "fine_tunes.b-top-conv.backbone"),
    ]
    assert found == [f"{model}: {settings}" for model in models]


@pytest.mark.parametrize(
    ("first", "second", "sees", "key"),
    [
        ({}, {"test": 50}, "may be trained on test images", "test 50, and tasks.digits-a has 0.3"),
        ({"test": 40}, {"test": 50}, "is trained on test images", "test 50"),
        ({}, {"test": 0.25}, "may be trained on validation images", "test 0.25"),
        ({}, {"validation": 0.2}, "is trained on validation images", "validation 0.2"),
        ({"test": 0.5}, {}, "may be trained on validation images", "test 0.3"),
        ({"test": 50, "validation": 0.1}, {"test": 20, "validation": 30}, "may be trained on validation", "test 20"),
        ({"group": "a"}, {"group": "a", "validation": 0.05}, "may be trained on validation", "validation 0.05"),
        ({}, {"validation": 20}, "may be trained on validation images", "validation 20"),
        ({}, {"group": "a"}, "may be trained on images related to validation or test images", "group a"),
        ({"near_duplicates": "group"}, {}, "may be trained on images related to", "near_duplicates report"),
        ({"include": [0, 1]}, {"include": [1, 2], "test": 0.4}, "is trained on test images", "test 0.4"),
    ],
)
def test_other_differences_of_two_tasks_are_refused(first, second, sees, key):
    found = problems(first, second)
    assert len(found) == 5
    assert all(f"network 'a-scratch' {sees}" in problem and f"tasks.digits-b has {key}" in problem for problem in found)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {}),
        ({"max_per_class": 50}, {"rename": {3: "odd", 5: "odd"}, "exclude": [1]}),
        ({"include": [0, 1, 2]}, {"exclude": [0, 1, 2], "test": 0.5, "validation": 30, "group": "a"}),
        ({}, {"validation": 0.05}),  # fold 0 of digits-b is a part of fold 0 of digits-a
        ({"validation": 20}, {"validation": 10}),
    ],
)
def test_tasks_without_a_leak_are_accepted(first, second):
    assert problems(first, second) == []


def test_a_published_split_is_accepted():
    cifar10 = {"source": "cifar10", "image_size": 32}
    shares = {"test": "published", "validation": 500}
    assert problems(shares, shares, cifar10) == []
    assert len(problems(shares, {**shares, "test": 1000}, cifar10)) == 5
    images = {"source": "archive", "image_size": 32, "url": "images.zip", "sha256": "0" * 64}
    published = {"test": "published", "validation": "published"}
    assert problems({**published, "group": "p"}, published, images) == []
    assert len(problems(published, {**published, "group": "p"}, images)) == 5


def test_classes_that_are_not_known_to_be_shared_are_accepted():
    images = {"source": "archive", "image_size": 32, "url": "images.zip", "sha256": "0" * 64}
    assert problems({"include": ["cat", "dog"]}, {"include": ["cow", "pig"], "test": 0.5}, images) == []
    assert problems({"exclude": ["cat", "dog"]}, {"include": ["cat", "dog"], "test": 0.5}, images) == []
    assert len(problems({"include": ["cat", "dog"]}, {"include": ["cow", "dog"], "test": 0.5}, images)) == 5
    assert len(problems({"include": ["cat", "dog"]}, {"test": 0.5}, images)) == 5


def test_the_networks_below_the_backbone_are_checked_too():
    study = copy.deepcopy(GOOD)
    study["tasks"]["digits-c"] = {"dataset": "digits", "include": [0, 5], "validation": 0.1, "test": 0.4}
    study["networks"]["c-net"] = {**CHAIN, "task": "digits-c", "backbone": "b-all-layers"}
    same_value = "Give both the same value, or use a backbone from other images."
    assert validate_study(study)[1] == [
        "networks.c-net.backbone: network 'b-all-layers' may be trained on validation images of task 'digits-c': "
        f"tasks.digits-c has test 0.4, and tasks.digits-b has 0.5. {same_value}",
        "networks.c-net.backbone: network 'a-scratch' is trained on test images of task 'digits-c': tasks.digits-c has "
        f"test 0.4, and tasks.digits-a has 0.3. {same_value}",
    ]
