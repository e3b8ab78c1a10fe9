"""Which side each image comes to: train, validation or test."""

import hashlib

import numpy as np
import pandas as pd

HELD_OUT = ("test", "validation")  # in the order in which they take their images
EXCLUDED = "left out"


def hash_positions(contents: pd.Series, seed: int) -> np.ndarray:
    """A place in the order of each image, (n,) float64 in 0..1, from a hash of its content and the seed.

    It depends on nothing else: neither on names and folders nor on which other images there are.
    """
    digests = (hashlib.sha256(f"{seed}:{content}".encode()).digest() for content in contents)
    return np.array([int.from_bytes(digest[:6], "big") / 2**48 for digest in digests])


def assign_splits(images: pd.DataFrame, validation: float | int | str, test: float | int | str) -> np.ndarray:
    """The side of each image, (n,) text: train, validation, test or `left out`.

    images: columns label, linked (number of the set of images that belong together), position (see `hash_positions`),
    published (train, validation, test or empty) and kept (the side an earlier split gave, or empty).
    validation, test: a share of the images of each class, their number, or `published`.

    Images that belong together come to one side. A published side has the images the dataset publishes for it and no
    others: what belongs to them is left out. An image that has a side keeps it; a new one that belongs to images of two
    sides is left out. The others are drawn in the order of their positions, so that each class has its share, rounded,
    where the sets of images allow it.
    """
    settings = {"test": test, "validation": validation}
    sides = pd.Series("", images.index)
    for side in HELD_OUT:
        if settings[side] == "published":
            sides[(images["published"] == side) & (sides == "") & ~_touched(images, sides)] = side
            sides[(sides == "") & _touched(images, sides)] = EXCLUDED
    drawn = [side for side in HELD_OUT if settings[side] != "published"]
    pool = images[sides == ""]
    sides[pool.index] = _keep(pool, {"train", *drawn})
    pool = pool[sides[pool.index] != EXCLUDED]

    sizes = pool.groupby("label").size()
    room = {
        side: {
            label: (settings[side] if isinstance(settings[side], int) else round(size * settings[side]))
            - int(((pool["label"] == label) & (sides[pool.index] == side)).sum())
            for label, size in sizes.items()
        }
        for side in drawn
    }
    free = pool[sides[pool.index] == ""]
    sides[free.index] = _draw(free, room)
    return sides.to_numpy(str)


def _touched(images: pd.DataFrame, sides: pd.Series) -> pd.Series:
    """Whether an image belongs to one that has a side."""
    return images["linked"].isin(images.loc[sides.isin(HELD_OUT), "linked"])


def _keep(pool: pd.DataFrame, accepted: set[str]) -> pd.Series:
    """The sides that an earlier split gave, also for the images that have come to those since."""
    of_set: dict[int, str] = {}
    for number, side in zip(pool["linked"], pool["kept"], strict=True):
        if side in accepted:
            of_set[number] = side if of_set.get(number, side) == side else EXCLUDED
    own = pool["kept"].isin(accepted)
    return pool["kept"].where(own, pd.Series([of_set.get(number, "") for number in pool["linked"]], pool.index, str))


def _draw(free: pd.DataFrame, room: dict[str, dict[int, int]]) -> pd.Series:
    """Sides of images that are free to come to any; room: side -> label -> how many more images it wants."""
    of_sets = free.groupby("linked").agg(classes=("label", "nunique"), position=("position", "min"))
    # Sets of several classes come first: those of one class fill what these leave.
    order = of_sets.sort_values(["classes", "position"], ascending=[False, True], kind="stable").index
    counts = free.groupby(["linked", "label"]).size()
    sizes: dict[int, dict[int, int]] = {number: {} for number in order}
    for (number, label), size in counts.items():
        sizes[number][label] = size
    side_of = {}
    for number in order:
        side_of[number] = next(
            (side for side in room if all(room[side][label] >= size for label, size in sizes[number].items())), "train"
        )
        _take(room, side_of[number], sizes[number])
    for side in room:
        # What is left is smaller than any set in train; the set that comes nearest may exceed it. Squares, so that a
        # class that lacks two images gains more than another loses that gets one too many.
        while any(left > 0 for left in room[side].values()):
            gains = {
                number: sum(
                    room[side][label] ** 2 - (room[side][label] - size) ** 2 for label, size in sizes[number].items()
                )
                for number in order
                if side_of[number] == "train"
            }
            best = max(gains, key=gains.get, default=None)
            if best is None or gains[best] <= 0:
                break
            side_of[best] = side
            _take(room, side, sizes[best])
    return free["linked"].map(side_of)


def _take(room: dict[str, dict[int, int]], side: str, sizes: dict[int, int]) -> None:
    if side in room:
        for label, size in sizes.items():
            room[side][label] -= size
