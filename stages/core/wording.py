"""Lists of names, and suggestions, in sentences."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: object, names: Iterable[object]) -> str:
    """` (did you mean ...?)` for the closest of the names, or nothing where none is close."""
    match = get_close_matches(str(name), [str(other) for other in names], n=1)
    return f" (did you mean {match[0]!r}?)" if match else ""


def listing(names: Iterable[object]) -> str:
    """The names with commas between; `none` for none."""
    return ", ".join(str(name) for name in names) or "none"
