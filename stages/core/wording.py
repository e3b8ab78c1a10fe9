"""Lists of names, suggestions and counts for messages."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: object, names: Iterable[object]) -> str:
    """` (did you mean ...?)` with the name that is closest, or nothing if none is close."""
    matches = get_close_matches(str(name), [str(candidate) for candidate in names], n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def listing(names: Iterable[object]) -> str:
    """The names separated by commas, or `none`."""
    return ", ".join(str(name) for name in names) or "none"


def counted(number: float, noun: str) -> str:
    """The number with its noun, in the plural unless it is 1: `1 class`, `1,200 images`."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number:,.0f} {noun if round(number) == 1 else plural}"
