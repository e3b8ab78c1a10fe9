"""The classes of a task or of features: selects, renames and merges those of the dataset."""

import itertools
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

    Raises `UserError` for classes that do not exist, for fewer than two classes, and for two names that differ only in
    letter case, which usually are one class.
    """
    unknown = [
        f"{where}.rename: class {old!r} does not exist{did_you_mean(old, classes)}. "
        f"Classes: {listing(classes[:MAX_LISTED])}."
        for old in entry.rename
        if old not in classes and old not in range(len(classes))
    ]
    if unknown:
        raise UserError(*unknown)
    new_names = [entry.rename.get(name, entry.rename.get(label, name)) for label, name in enumerate(classes)]

    def with_new_names(selection: list | None) -> list | None:
        """A selection in which the labels of its classes replace new names."""
        return selection and [
            label
            for item in selection
            for label in [label for label, name in enumerate(new_names) if name == item] or [item]
        ]

    labels = select_classes(
        with_new_names(entry.include),
        with_new_names(entry.exclude),
        classes,
        f"{where}.include" if entry.include else where,
    )
    names = list(dict.fromkeys(new_names[label] for label in labels))
    if len(names) < 2:
        raise UserError(
            f"{where}: a task needs two classes. Classes after include, exclude and rename: {listing(names)}."
        )
    old_names = {new_names[label]: classes[label] for label in labels}
    for first, second in itertools.combinations(sorted(names), 2):
        if first.casefold() == second.casefold():
            raise UserError(
                f"{where}: classes {first!r} and {second!r} differ only in letter case. If they are one class, write "
                f"rename: {{{old_names[first]}: {second}}}; otherwise rename one of them."
            )
    return TaskClasses(names, {label: names.index(new_names[label]) for label in labels})


def select_classes(include: list | None, exclude: list | None, classes: list[str], where: str) -> list[int]:
    """The labels of the classes that `include` and `exclude` leave, ascending; None includes all or excludes none.

    classes: the names of the dataset's classes in the order of their labels. A class is selected by its label (a
    number) or its name (text). `UserError` for a class that does not exist.
    """
    problems = [
        problem
        for items, key in ((exclude or [], f"{where}.exclude"), (include or [], where))
        for item in items
        if (problem := _problem(item, classes, key))
    ]
    if problems:
        raise UserError(*problems)
    excluded, included = ({_label(item, classes) for item in items or []} for items in (exclude, include))
    return sorted((included if include else set(range(len(classes)))) - excluded)


def _label(item: int | str, classes: list[str]) -> int:
    return item if isinstance(item, int) else classes.index(item)


def _problem(item: int | str, classes: list[str], where: str) -> str | None:
    """Why an item does not select a class, or None if it does."""
    if isinstance(item, str):
        if item in classes:
            return None
        hint, quotes = did_you_mean(item, classes), ""
    else:
        same_name = str(item) in classes
        if 0 <= item < len(classes):
            if not same_name or classes[item] == str(item):
                return None
            return (
                f"{where}: {item} is ambiguous: the number of class {classes[item]!r}, or the class named '{item}'. "
                f"Write '{item}' in quotes for the name, or {classes[item]!r}."
            )
        hint, quotes = "", f" (quote names: '{item}')" if same_name else ""
    return (
        f"{where}: class {item!r} does not exist{hint}. Classes: 0 to {len(classes) - 1}, or "
        f"{listing(classes[:MAX_LISTED])}{quotes}."
    )
