"""Turns pydantic's errors into one sentence each: the entry, the key, the value, and what to give instead."""

import reprlib
from datetime import date
from typing import Any

from pydantic import ValidationError

from stages.core.wording import did_you_mean, listing
from stages.validation.credentials import redact

LONGEST = 80  # characters of a quoted value
SHORTENED = reprlib.Repr()  # bounded, also for a list that contains itself
SHORTENED.maxlevel, SHORTENED.maxlist, SHORTENED.maxdict = 4, 10, 10
SHORTENED.maxstring = SHORTENED.maxlong = 1000
# Keys that hold names of classes, and what YAML may read in a name without quotes; the first that matches counts.
CLASS_KEYS = ("include", "exclude", "classes", "rename")
YAML_TYPES = {bool: "a boolean", int: "a number", float: "a number", date: "a date", type(None): "an empty value"}


def describe_errors(error: ValidationError, where: str, accepted: dict[str, str], entry: Any) -> list[str]:
    """One message per error of an entry.

    where: the entry, such as `heads.b-one-layer`. accepted: its keys and their values in words, see `accepted_values`.
    """
    return list(
        dict.fromkeys(line for problem in error.errors() for line in _describe(problem, where, accepted, entry))
    )


def not_valid(where: str, value: Any, remedy: str) -> str:
    """The message about a value that is not valid; remedy: what to give instead."""
    return f"{where}: {quote_value(value)} is not valid. Give {remedy}."


def quote_value(value: Any) -> str:
    """A value as a message quotes it: on one line, shortened, written as in YAML, and without credentials."""
    if value is None:
        return "an empty value"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list) and all(isinstance(item, bool | int | float | str) for item in value):
        text = f"[{', '.join(quote_value(item) for item in value[:LONGEST])}]"
    else:
        text = SHORTENED.repr(value) if isinstance(value, str | int | float | dict | list) else f"'{value}'"
    text = redact(text)
    return text if len(text) <= LONGEST else f"{text[:60]}...{text[-10:]}"


def _describe(problem: dict, where: str, accepted: dict[str, str], entry: Any) -> list[str]:
    kind, location = problem["type"], problem["loc"]
    if not isinstance(entry, dict):
        return [f"{where}: {quote_value(entry)} is not valid. Give keys and values: {listing(accepted)}."]
    nested = len(location) > 1 and location[0] in accepted
    if kind in ("extra_forbidden", "invalid_key") and not nested:
        name = problem["input"] if kind == "invalid_key" else location[-1]
        return [f"{where}: key {name!r} does not exist{did_you_mean(name, accepted)}. Keys: {listing(accepted)}."]
    # An error of the discriminator of a dataset, `source`, is the only one whose location does not name the key.
    key = next((part for part in location if part in accepted), "source")
    if key not in entry:
        return [f"{where}: key {key!r} is missing. Give {accepted[key]}."]
    unquoted = _unquoted_names(entry[key]) if key in CLASS_KEYS else []
    return [_unquoted(f"{where}.{key}", name) for name in unquoted] or [
        not_valid(f"{where}.{key}", entry[key], accepted[key])
    ]


def _unquoted_names(value: Any) -> list[Any]:
    """The names of classes in a list, or in a mapping to new names, that YAML does not read as text."""
    if isinstance(value, dict):  # a new name is never a number
        return [*_unquoted_names([*value]), *(new for new in value.values() if isinstance(new, tuple(YAML_TYPES)))]
    names = value if isinstance(value, list) else []
    return [name for name in names if isinstance(name, tuple(YAML_TYPES)) and not (type(name) is int and name >= 0)]


def _unquoted(where: str, name: Any) -> str:
    """The message about a name of a class that YAML reads as something else."""
    kind = next(kind for types, kind in YAML_TYPES.items() if isinstance(name, types))
    text = "null" if name is None else quote_value(name).strip("'")
    # Only a date is read from a single spelling: 1.10 is 1.1, and `~` is null.
    how = f", such as '{text}'" if type(name) is date else " exactly as the folder is spelled"
    return f"{where}: YAML reads {text} as {kind}. If it is the name of a class, write it in quotes{how}."
