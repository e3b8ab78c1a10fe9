"""Labels of points in a figure that overlap neither each other nor the points."""

from typing import NamedTuple

import numpy as np

CHARACTER, LINE = 0.075, 0.15  # inches: mean width of a character and height of a line in 8 points
STEP = 0.05  # inches between the places that are tried
RADIUS = 0.09  # of a point with its circle


class Size(NamedTuple):
    """Of axes, in inches."""

    width: float
    height: float


def place_labels(points: list[tuple[float, float]], labels: list[str], size: Size) -> list[tuple[float, float]]:
    """The center of each label: the free place within the axes that is nearest to its point.

    points: in inches from the lower left corner. If no place is free, the one with the least overlap is used.
    """
    occupied = [(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in points]
    places = []
    for (x, y), label in zip(points, labels, strict=True):
        half = np.array([CHARACTER * len(label) / 2, LINE / 2])
        centers = _grid(half, size)
        boxes = np.array(occupied)
        low = np.maximum((centers - half)[:, None], boxes[:, :2])
        high = np.minimum((centers + half)[:, None], boxes[:, 2:])
        overlap = (high - low).clip(0).prod(axis=2).sum(axis=1)
        # From the edge of a label: a long one is as near as a short one.
        distance = np.hypot(*(np.abs(centers - (x, y)) - half).clip(0).T)
        best = np.lexsort((distance, overlap.round(6)))[0]
        places.append(tuple(centers[best].tolist()))
        occupied.append((*(centers[best] - half), *(centers[best] + half)))
    return places


def _grid(half: np.ndarray, size: Size) -> np.ndarray:
    """All centers, (n, 2), of labels of this half size that are within the axes; at least one."""
    axes = [np.arange(low, max(length - low, low) + 1e-9, STEP) for low, length in zip(half, size, strict=True)]
    return np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
