"""Assigns images to the splits train, validation and test."""

import hashlib

import numpy as np
import pandas as pd

HELD_OUT = ("test", "validation")  # in the order in which they take their images
EXCLUDED = "excluded"


def hash_positions(contents: pd.Series, seed: int) -> np.ndarray:
    """A pseudo-random position of each image, (n,) float64 in [0, 1), from a hash of its content and the seed.

    It does not depend on names, folders or the other images.
    """
    digests = (hashlib.sha256(f"{seed}:{content}".encode()).digest() for content in contents)
    return np.array([int.from_bytes(digest[:6], "big") / 2**48 for digest in digests])


def assign_splits(images: pd.DataFrame, validation: float | int | str, test: float | int | str) -> np.ndarray:
    """The split of each image, (n,) text: train, validation, test or excluded.

    images: columns label, group_id (images of one group have the same number), position (see `hash_positions`),
    published (train, validation, test or empty) and earlier_split (as `published`).
    validation, test: a share of the images of each class, their number, or `published`.

    All images of a group come to one split. A published split has exactly the images that the dataset publishes for
    it; other images of their groups are excluded. An image with an earlier split keeps it; a new image whose group is
    in two earlier splits is excluded. The other images are taken by ascending position, so that each class has its
    share, rounded, as far as the sizes of the groups allow.
    """
    settings = {"test": test, "validation": validation}
    splits = pd.Series("", images.index)
    for split in HELD_OUT:
        if settings[split] == "published":
            is_free = (splits == "") & ~_in_held_out_group(images, splits)
            splits[(images["published"] == split) & is_free] = split
            splits[(splits == "") & _in_held_out_group(images, splits)] = EXCLUDED
    sampled = [split for split in HELD_OUT if settings[split] != "published"]
    pool = images[splits == ""]
    splits[pool.index] = _earlier_splits(pool, {"train", *sampled})
    pool = pool[splits[pool.index] != EXCLUDED]

    class_sizes = pool.groupby("label").size()
    room = {
        split: {
            label: (settings[split] if isinstance(settings[split], int) else round(size * settings[split]))
            - int(((pool["label"] == label) & (splits[pool.index] == split)).sum())
            for label, size in class_sizes.items()
        }
        for split in sampled
    }
    free = pool[splits[pool.index] == ""]
    splits[free.index] = _sample(free, room)
    return splits.to_numpy(str)


def _in_held_out_group(images: pd.DataFrame, splits: pd.Series) -> pd.Series:
    """Whether an image of the same group is already in validation or test."""
    return images["group_id"].isin(images.loc[splits.isin(HELD_OUT), "group_id"])


def _earlier_splits(pool: pd.DataFrame, accepted: set[str]) -> pd.Series:
    """The earlier splits of images, also for new images of their groups; empty for all others."""
    split_by_group: dict[int, str] = {}
    for group_id, split in zip(pool["group_id"], pool["earlier_split"], strict=True):
        if split in accepted:
            split_by_group[group_id] = split if split_by_group.get(group_id, split) == split else EXCLUDED
    group_splits = [split_by_group.get(group_id, "") for group_id in pool["group_id"]]
    return pool["earlier_split"].where(pool["earlier_split"].isin(accepted), pd.Series(group_splits, pool.index, str))


def _sample(free: pd.DataFrame, room: dict[str, dict[int, int]]) -> pd.Series:
    """The splits of images without one; room: split -> label -> number of images that it still needs."""
    groups = free.groupby("group_id").agg(classes=("label", "nunique"), position=("position", "min"))
    # Groups of several classes first: those of one class fill the gaps.
    order = groups.sort_values(["classes", "position"], ascending=[False, True], kind="stable").index
    sizes: dict[int, dict[int, int]] = {group_id: {} for group_id in order}
    for (group_id, label), size in free.groupby(["group_id", "label"]).size().items():
        sizes[group_id][label] = size
    split_of = {}
    for group_id in order:
        fitting = (
            split for split in room if all(room[split][label] >= size for label, size in sizes[group_id].items())
        )
        split_of[group_id] = next(fitting, "train")
        _reduce_room(room, split_of[group_id], sizes[group_id])
    for split in room:
        # The remaining room is smaller than any group in train. The group that comes nearest may exceed it. Squares,
        # because a gain for a class that lacks two images outweighs the loss of a class that gets one too many.
        while any(missing > 0 for missing in room[split].values()):
            gains = {
                group_id: sum(
                    room[split][label] ** 2 - (room[split][label] - size) ** 2
                    for label, size in sizes[group_id].items()
                )
                for group_id in order
                if split_of[group_id] == "train"
            }
            best = max(gains, key=gains.get, default=None)
            if best is None or gains[best] <= 0:
                break
            split_of[best] = split
            _reduce_room(room, split, sizes[best])
    return free["group_id"].map(split_of)


def _reduce_room(room: dict[str, dict[int, int]], split: str, sizes: dict[int, int]) -> None:
    if split in room:
        for label, size in sizes.items():
            room[split][label] -= size
