"""Measures speed and memory on this machine."""

import sys
import time
from collections.abc import Callable

import numpy as np

BATCH = 32
WARM_UP, LEAST_RUNS = 2, 7
SHORTEST, LONGEST = 0.3, 1.0  # seconds
STABLE = 0.05  # difference between the medians of the first and the second half of the runs, as a share


def milliseconds_per_image(
    run: Callable[[np.ndarray], object], images: np.ndarray, share: float = 1.0
) -> tuple[float, float]:
    """Milliseconds that a function takes per image: for one image at a time, and for batches of 32.

    images: (32, ...), what the function takes. Each figure is the median of at least `LEAST_RUNS` runs, after `WARM_UP`
    runs or more that do not count. Both go on for at least `SHORTEST` seconds, because a process gets faster at first;
    then the runs go on until they are `STABLE`, or `LONGEST` ends. share: of these seconds, for what is fast at once.
    """
    return _median_milliseconds(run, images[:1], share), _median_milliseconds(run, images, share) / len(images)


def _median_milliseconds(run: Callable[[np.ndarray], object], images: np.ndarray, share: float) -> float:
    shortest, longest = share * SHORTEST, share * LONGEST
    begin, warm_up = time.perf_counter(), 0
    while warm_up < WARM_UP or time.perf_counter() - begin < shortest:
        run(images)
        warm_up += 1
    seconds, total = [], 0.0
    while len(seconds) < LEAST_RUNS or total < shortest or (total < longest and not _stable(seconds)):
        start = time.perf_counter()
        run(images)
        seconds.append(time.perf_counter() - start)
        total += seconds[-1]
    return 1000 * float(np.median(seconds))


def _stable(seconds: list[float]) -> bool:
    first, second = (np.median(half) for half in np.array_split(seconds, 2))
    return abs(first - second) <= STABLE * second


def process_peak_memory() -> float | None:
    """The largest memory that this process has used so far, in MB; None on Windows, which does not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
