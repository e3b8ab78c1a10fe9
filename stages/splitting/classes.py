"""The classes of a task or of features: selects, renames and merges those of the dataset."""

import itertools
import unicodedata
from collections.abc import Collection, Iterable
from functools import cache
from typing import NamedTuple

from stages.config.tasks import TaskConfig
from stages.core.errors import UserError
from stages.core.wording import did_you_mean, listing

MAX_LISTED = 30  # classes in a message


class TaskClasses(NamedTuple):
    """names: the class names in the order of the labels. label_of: label in the dataset -> label in the task."""

    names: list[str]
    label_of: dict[int, int]


def resolve_classes(entry: TaskConfig, classes: list[str], where: str) -> TaskClasses:
    """The classes after `include`, `exclude` and `rename`, in the order of the dataset.

    classes: the names of the dataset's classes in the order of their labels. `include` and `exclude` accept the number
    of a class, its new name or its old name. The new name of a merged class means all of its classes.

    Raises `UserError` for classes that do not exist, for a number that is also the name of another class, for a class
    with two new names, for fewer than two classes, and for two names that differ only in letter case, which usually are
    one class.
    """
    problems = []
    new_names = _renamed(entry.rename, classes, f"{where}.rename", problems)
    # The classes that a wrong line of rename should have named are not missing, too.
    unknown = set(entry.rename.values()) if problems else set()
    excluded, included = (
        _labels([item for item in items or [] if item not in unknown], classes, f"{where}.{key}", new_names, problems)
        for key, items in (("exclude", entry.exclude), ("include", entry.include))
    )
    if problems:
        raise UserError(*problems)
    labels = sorted((included or set(range(len(classes)))) - excluded)
    names = list(dict.fromkeys(new_names[label] for label in labels))
    if len(names) < 2:
        raise UserError(
            f"{where}: a task needs two classes. Classes after include, exclude and rename: {listing(names)}."
        )
    old_names = {new_names[label]: classes[label] for label in labels}
    problems = [
        f"{where}: classes {first!r} and {second!r} differ only in letter case. If they are one class, write rename: "
        f"{{{old_names[first]}: {second}}}; otherwise rename one of them."
        for first, second in itertools.combinations(sorted(names), 2)
        if first.casefold() == second.casefold()
    ]
    if problems:
        raise UserError(*problems)
    return TaskClasses(names, {label: names.index(new_names[label]) for label in labels})


def select_classes(selection: list[int | str] | None, classes: list[str], where: str) -> list[int]:
    """The labels of selected classes, ascending; None selects all.

    classes: the names of the dataset's classes in the order of their labels. A class is selected by its label (a
    number) or its name (text). `UserError` as in `resolve_classes`.
    """
    if selection is None:
        return list(range(len(classes)))
    problems = []
    labels = _labels(selection, classes, where, classes, problems)
    if problems:
        raise UserError(*problems)
    return sorted(labels)


def included_items(entry: TaskConfig, classes: list[str], names: Collection[str]) -> list[int | str]:
    """The items of `include`, as they are written, that select classes with these new names."""
    new_names = _renamed(entry.rename, classes, "", [])
    return [item for item in entry.include if new_names[min(_find(item, classes, "", new_names))] in names]


def _renamed(rename: dict[int | str, str], classes: list[str], where: str, problems: list[str]) -> list[str]:
    """The new names of all classes; those that `rename` does not mention keep theirs. problems: see `_labels`."""
    new_names = {}
    for old, new in rename.items():
        for label in _labels([old], classes, where, classes, problems):
            if label in new_names:
                problems.append(f"{where}: class {classes[label]!r} is given twice. Give it once.")
            new_names[label] = unicodedata.normalize("NFC", new)
    return [new_names.get(label, name) for label, name in enumerate(classes)]


def _labels(
    items: Iterable[int | str], classes: list[str], where: str, new_names: list[str], problems: list[str]
) -> set[int]:
    """The labels of the classes that items select. problems: gets one sentence per item that selects none."""
    labels = set()
    for item in items:
        try:
            labels |= _find(item, classes, where, new_names)
        except UserError as error:
            problems += error.sentences
    return labels


def _find(item: int | str, classes: list[str], where: str, new_names: list[str]) -> set[int]:
    """The labels of the classes that an item selects. Text is a name; a number is a label, unless it may be a name."""
    numbers = range(len(classes))
    if isinstance(item, str):
        item = unicodedata.normalize("NFC", item)  # as the classes are
        labels = {label for label in numbers if new_names[label] == item}
        if not labels and item not in classes:
            raise UserError(_missing(where, item, classes, did_you_mean(item, classes)))
        return labels or {classes.index(item)}
    named = [
        (label, name)
        for label in numbers
        for name in dict.fromkeys((classes[label], new_names[label]))
        if _number(name) == item
    ]
    if item in numbers and all(label == item for label, _ in named):
        return {item}
    if not named:
        raise UserError(_missing(where, item, classes))
    quoted = " or ".join(sorted({f"'{name}'" for _, name in named}))
    if item not in numbers:
        raise UserError(
            f"{where}: class number {item} does not exist (numbers: 0 to {len(classes) - 1}). Write {quoted} in quotes "
            "for the class of this name."
        )
    raise UserError(
        f"{where}: {item} is ambiguous: the number of class {classes[item]!r}, or the class named {quoted}. Write "
        f"{quoted} in quotes for the name, or {classes[item]!r}."
    )


@cache
def _number(name: str) -> float | None:
    """The number that YAML reads in a name without quotes, such as 7 in 007; None for other names."""
    for read in (int, float, lambda text: int(text, 0)):
        try:
            return read(name)
        except ValueError:
            continue
    return None


def _missing(where: str, item: int | str, classes: list[str], hint: str = "") -> str:
    return (
        f"{where}: class {item!r} does not exist{hint}. Classes: 0 to {len(classes) - 1}, or "
        f"{listing(classes[:MAX_LISTED])}."
    )
