"""Assigns the images of a dataset to parts: test, the folds of validation, and the rest, which only trains.

A part is a text: `test`, `validation` (fold 0), `fold 1`, `fold 2`, ..., `train`, or `excluded`.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
import pandas as pd

HELD_OUT = ("test", "validation")  # in the order in which they take their images
TRAIN = "train"
EXCLUDED = "excluded"
MAX_FOLDS = 10
MIN_IMAGES = 2  # of each class in each split and in each fold
FOLDS = ("validation", *(f"fold {number}" for number in range(1, MAX_FOLDS)))


def hash_positions(contents: pd.Series, seed: int) -> np.ndarray:
    """A pseudo-random position of each image, (n,) float64 in [0, 1), from a hash of its content and the seed.

    It does not depend on names, folders or the other images.
    """
    digests = (hashlib.sha256(f"{seed}:{content}".encode()).digest() for content in contents)
    return np.array([int.from_bytes(digest[:6], "big") / 2**48 for digest in digests])


def assign_parts(images: pd.DataFrame, validation: float | int | str, test: float | int | str) -> np.ndarray:
    """The part of each image, (n,) text.

    images: all images of a dataset, so that every task with the same settings gets the same parts. Columns label (of
    the dataset), group_id (images of one group have the same number), position (see `hash_positions`), published
    (train, validation, test or empty) and earlier_part (that of an earlier split, or empty).
    validation, test: a share of the images of each class, their number, or `published`.

    All images of a group come to one part. A published split has exactly the images that the dataset publishes for
    it; other images of their groups are excluded. An image with an earlier part keeps it; a new image whose group is
    in two earlier parts is excluded. The other images are taken by ascending position: first those of test, then those
    of each fold, so that each class has its share, rounded, as far as the sizes of the groups allow. So the test images
    do not depend on `validation`, and those of a smaller share are among those of a larger one, unless groups are too
    large for it. Folds of a share differ by at most one image of a class, because of rounding. A class that has
    too few images left for a fold has none in it.
    """
    settings = {"test": test, "validation": validation}
    parts = pd.Series("", images.index)
    for split in HELD_OUT:
        if settings[split] == "published":
            is_free = (parts == "") & ~_in_held_out_group(images, parts)
            parts[(images["published"] == split) & is_free] = split
            parts[(parts == "") & _in_held_out_group(images, parts)] = EXCLUDED
    drawn = [] if test == "published" else ["test"]
    drawn += [] if validation == "published" else FOLDS
    pool = images[parts == ""]
    parts[pool.index] = _earlier_parts(pool, {TRAIN, *drawn})
    pool = pool[parts[pool.index] != EXCLUDED]

    sizes = pool.groupby("label").size()
    kept = pool.groupby(["label", parts[pool.index]]).size()
    groups = _Groups(pool[parts[pool.index] == ""])
    for part in drawn:
        setting = settings["test" if part == "test" else "validation"]
        room = {}
        for label, size in sizes.items():
            target, has = _target(setting, size, part), int(kept.get((label, part), 0))
            enough = target if isinstance(setting, int) else target - 1
            if part in HELD_OUT or has or groups.images(label) >= enough:
                room[label] = target - has
        groups.fill(part, room)
    parts[groups.table.index] = groups.parts()
    return parts.to_numpy(str)


def splits_of(parts: Iterable[str]) -> list[str]:
    """The split of images of these parts: those of folds from 1 train, unless a repeat holds out their fold."""
    return [TRAIN if part in FOLDS[1:] else part for part in parts]


def folds_of(parts: Iterable[str]) -> list[int]:
    """The number of the fold of images of these parts, -1 for those in no fold."""
    return [FOLDS.index(part) if part in FOLDS else -1 for part in parts]


def parts_of(table: pd.DataFrame) -> pd.Series:
    """The parts of images; table: columns split and fold."""
    return table["split"].where(table["fold"] < 1, "fold " + table["fold"].astype(str))


def _target(setting: float | int, size: int, part: str) -> int:
    """How many of the `size` images of a class a part is to have.

    The sum over the folds is rounded, not each fold: else five folds of 43 images at 0.2 would need 45 images.
    """
    if isinstance(setting, int):
        return setting
    folds_below = FOLDS.index(part) if part in FOLDS else 0
    images = round(size * setting * (folds_below + 1)) - round(size * setting * folds_below)
    return max(images, min(MIN_IMAGES, round(size * setting)))


def _in_held_out_group(images: pd.DataFrame, parts: pd.Series) -> pd.Series:
    """Whether an image of the same group is already in validation or test."""
    return images["group_id"].isin(images.loc[parts.isin(HELD_OUT), "group_id"])


def _earlier_parts(pool: pd.DataFrame, accepted: set[str]) -> pd.Series:
    """The earlier parts of images, also for new images of their groups; empty for all others."""
    part_by_group: dict[int, str] = {}
    for group_id, part in zip(pool["group_id"], pool["earlier_part"], strict=True):
        if part in accepted:
            part_by_group[group_id] = part if part_by_group.get(group_id, part) == part else EXCLUDED
    group_parts = [part_by_group.get(group_id, "") for group_id in pool["group_id"]]
    return pool["earlier_part"].where(pool["earlier_part"].isin(accepted), pd.Series(group_parts, pool.index, str))


class _Groups:
    """The groups of images without a part, in the order in which parts take them.

    table: columns label, group_id, position.
    """

    def __init__(self, table: pd.DataFrame):
        self.table = table
        groups = table.groupby("group_id").agg(classes=("label", "nunique"), position=("position", "min"))
        # Groups of several classes first: those of one class fill the gaps.
        order = groups.sort_values(["classes", "position"], ascending=[False, True], kind="stable").index
        self._sizes: dict[int, dict[int, int]] = {group_id: {} for group_id in order}  # of groups without a part
        for (group_id, label), size in table.groupby(["group_id", "label"]).size().items():
            self._sizes[group_id][label] = size
        self._images = table.groupby("label").size().to_dict()
        self._part_of: dict[int, str] = {}

    def images(self, label: int) -> int:
        """The number of images of a class without a part."""
        return self._images.get(label, 0)

    def fill(self, part: str, room: dict[int, int]) -> None:
        """Move groups to a part. room: label -> number of images that it still needs."""
        for group_id, sizes in list(self._sizes.items()):
            if all(room.get(label, 0) >= size for label, size in sizes.items()):
                self._take(group_id, part, room)
        # The remaining room is smaller than any group left. The group that comes nearest may exceed it.
        for label in list(room):
            if room[label] <= 0:
                continue
            candidates = [group_id for group_id, sizes in self._sizes.items() if label in sizes]
            while candidates and room[label] > 0:
                gains = {group_id: _gain(self._sizes[group_id], room) for group_id in candidates}
                best = max(gains, key=gains.get)
                if gains[best] <= 0:
                    break
                self._take(best, part, room)
                candidates.remove(best)

    def parts(self) -> pd.Series:
        """The part of each image, train for those that no part has taken."""
        parts = [self._part_of.get(group_id, TRAIN) for group_id in self.table["group_id"]]
        return pd.Series(parts, self.table.index, dtype=str)

    def _take(self, group_id: int, part: str, room: dict[int, int]) -> None:
        self._part_of[group_id] = part
        for label, size in self._sizes.pop(group_id).items():
            room[label] = room.get(label, 0) - size
            self._images[label] -= size


def _gain(sizes: dict[int, int], room: dict[int, int]) -> int:
    """How much nearer a group of these sizes brings a part to its numbers, which lack `room`.

    Squares, because a gain for a class that lacks two images outweighs the loss of a class that gets one too many.
    """
    return sum(room.get(label, 0) ** 2 - (room.get(label, 0) - size) ** 2 for label, size in sizes.items())
