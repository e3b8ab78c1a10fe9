"""Turns pydantic's errors into one sentence each that names the entry, the key, the value and what is accepted."""

from collections.abc import Iterable
from difflib import get_close_matches

from pydantic import BaseModel, ValidationError

KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "list_type": "a list, as in [0, 1]",
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
}


def sentences(error: ValidationError, where: str, keys: Iterable[str]) -> list[str]:
    """One sentence for each problem of the entry `where` (such as `heads.my-head`), whose keys are `keys`."""
    return list(dict.fromkeys(_sentence(problem, where, list(keys)) for problem in error.errors()))


def nearest(name: object, names: Iterable[str]) -> str:
    """`; did you mean ...?` for the closest of the names, or nothing where none is close."""
    match = get_close_matches(str(name), list(names), n=1)
    return f"; did you mean {match[0]!r}?" if match else ""


def listing(names: Iterable[str]) -> str:
    """The names with commas between; `none` for none."""
    return ", ".join(str(name) for name in names) or "none"


def _sentence(problem: dict, where: str, keys: list[str]) -> str:
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    key = next((part for part in problem["loc"] if part in keys), None)
    place = f"{where}.{key}" if key else where
    if kind == "missing":
        return f"{where}: the key {problem['loc'][-1]!r} is missing."
    if kind == "extra_forbidden":
        name = problem["loc"][-1]
        return f"{where}: there is no key {name!r}{nearest(name, keys)}; accepted: {listing(keys)}."
    if kind in KINDS:
        return f"{place}: {value!r} is not accepted; it must be {KINDS[kind]}."
    if kind in ("literal_error", "union_tag_invalid"):
        accepted = context.get("expected") or context["expected_tags"]
        given = context.get("tag", value)
        return f"{place}: {given!r} is not accepted; it must be {accepted}."
    if kind == "union_tag_not_found":
        return f"{where}: the key {context['discriminator']} is missing."
    if kind == "value_error":
        return f"{place}: {context['error']}."
    return f"{place}: {value!r} is not accepted; {problem['msg'][0].lower()}{problem['msg'][1:]}."


def keys_of(model: type[BaseModel]) -> list[str]:
    """The keys an entry of this class accepts."""
    return list(model.model_fields)
