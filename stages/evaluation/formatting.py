"""The format of numbers in files, sentences and tables."""

DECIMALS = 6  # in JSON files: finer than what images can resolve, coarser than the noise of summation order


def rounded(number: float) -> float:
    """A plain float with `DECIMALS` decimals."""
    return round(float(number), DECIMALS)


def percent(share: float) -> str:
    """0.9312 -> `93.1 %`."""
    return f"{points(share)} %"


def points(share: float) -> str:
    """0.9312 -> `93.1`; never `-0.0`."""
    return f"{round(100 * share, 1) + 0:.1f}"


def interval(low: float, high: float) -> str:
    """0.917, 0.961 -> `91.7 to 96.1`."""
    return f"{points(low)} to {points(high)}"


def p_value(p: float) -> str:
    """A p value with its sign: `= 0.013`, `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


def duration(seconds: float) -> str:
    """Seconds in readable units: `4.2 s`, `3.5 min`, `2.1 h`."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def quantity(number: float) -> str:
    """A large number with three significant digits and a prefix: 15_470_000_000 -> `15.5 G`; 512 -> `512`."""
    for limit, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{float(f'{number / limit:.3g}'):g} {prefix}"
    return f"{number:.3g}"
