"""Where an increasing function crosses zero; scipy.optimize takes longer to import than a probe to solve."""

from collections.abc import Callable

HALVINGS = 30  # of an interval of length 10, they leave 1e-8


def crossing(function: Callable[[float], float], low: float, high: float) -> float:
    """The x between low and high at which an increasing function becomes positive; an end if it does not."""
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if function(middle) > 0 else (middle, high)
    return (low + high) / 2
