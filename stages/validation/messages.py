"""Turns pydantic's errors into one sentence each that names the entry, the key, the value and what is accepted."""

from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from stages.core.wording import did_you_mean, listing


def sentences(error: ValidationError, where: str, accepted: dict[str, str], entry: Any) -> list[str]:
    """One sentence for each problem of the entry `where` (such as `heads.my-head`); accepted: see `accepted_values`."""
    return list(dict.fromkeys(_sentence(problem, where, accepted, entry) for problem in error.errors()))


def accepted_values(model: type[BaseModel]) -> dict[str, str]:
    """The keys an entry of this class accepts, each with the values it accepts, in words."""
    return {key: field.description or _in_words(field.annotation) for key, field in model.model_fields.items()}


def alternatives(names: Iterable[str]) -> str:
    """The names with commas and an `or` between."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def quote_value(value: Any) -> str:
    """A value as a sentence can quote it: on one line, cut where it is long, true and false as in YAML."""
    if value is None:
        return "an empty value"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return _cut(f"[{', '.join(quote_value(item) for item in value)}]")
    return _cut(repr(value) if isinstance(value, str | int | float | dict) else f"'{value}'")


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:60]}...{text[-10:]}"


def _sentence(problem: dict, where: str, accepted: dict[str, str], entry: Any) -> str:
    kind, location = problem["type"], problem["loc"]
    if kind == "value_error":
        return f"{where}: {problem['ctx']['error']}."
    nested = len(location) > 1 and location[0] in accepted
    if kind in ("extra_forbidden", "invalid_key") and not nested:
        name = problem["input"] if kind == "invalid_key" else location[-1]
        return f"{where}: there is no key {name!r}{did_you_mean(name, accepted)}; accepted: {listing(accepted)}."
    if not isinstance(entry, dict):
        return f"{where}: {quote_value(entry)} is not accepted; give keys and values: {listing(accepted)}."
    # The discriminator of a dataset is the only key whose errors do not stand at its own place.
    key = next((part for part in location if part in accepted), "source")
    if key not in entry:
        return f"{where}: the key {key!r} is missing; give {accepted[key]}."
    return f"{where}.{key}: {quote_value(entry[key])} is not accepted; it must be {accepted[key]}."


def _in_words(annotation: Any) -> str:
    """What a type accepts: its description, wherever in the type it stands, or the choices of a `Literal`."""
    for part in getattr(annotation, "__metadata__", ()):
        if getattr(part, "description", None):
            return part.description
    if annotation is bool:
        return "true or false"
    if get_origin(annotation) is Literal:
        return alternatives(get_args(annotation))
    return next(filter(None, map(_in_words, get_args(annotation))), "")
