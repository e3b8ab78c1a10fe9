"""Measures speed and memory on this machine."""

import sys
import time
from collections.abc import Callable

import numpy as np

BATCH = 32
WARM_UP, LEAST_RUNS, SECONDS = 2, 7, 0.3


def milliseconds_per_image(run: Callable[[np.ndarray], object], images: np.ndarray) -> tuple[float, float]:
    """Milliseconds that a function takes per image: for one image at a time, and for batches of 32.

    images: (32, ...), what the function takes. Each figure is the median of at least `LEAST_RUNS` runs, and of as many
    as fit into `SECONDS`, after `WARM_UP` runs that do not count.
    """
    return _median_milliseconds(run, images[:1]), _median_milliseconds(run, images) / len(images)


def _median_milliseconds(run: Callable[[np.ndarray], object], images: np.ndarray) -> float:
    for _ in range(WARM_UP):
        run(images)
    seconds, start = [], time.perf_counter()
    while len(seconds) < LEAST_RUNS or time.perf_counter() - start < SECONDS:
        before = time.perf_counter()
        run(images)
        seconds.append(time.perf_counter() - before)
    return 1000 * float(np.median(seconds))


def process_peak_memory() -> float | None:
    """The largest memory that this process has used so far, in MB; None on Windows, which does not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
