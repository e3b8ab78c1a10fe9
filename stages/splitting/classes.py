"""The classes of a task: which of the dataset's it keeps, and what it calls them."""

import itertools
from typing import NamedTuple

from stages.config.tasks import TaskConfig
from stages.core.errors import UserError
from stages.core.wording import did_you_mean, listing


class TaskClasses(NamedTuple):
    """names: of the task's classes in the order of their labels. label_of: label in the dataset -> in the task."""

    names: list[str]
    label_of: dict[int, int]


def resolve_classes(entry: TaskConfig, classes: list[str], where: str) -> TaskClasses:
    """The classes that `include`, `exclude` and `rename` leave, in the dataset's order.

    classes: the dataset's, in the order of their labels. `include` and `exclude` know a class by its number, its new
    name or its old one; the new name of several means all of them.

    `UserError` for classes that do not exist, for fewer than two, and for two that differ in letter case only, which
    are mostly one.
    """
    for old in entry.rename:
        if old not in classes and old not in range(len(classes)):
            raise UserError(
                f"{where}.rename: there is no class {old!r}{did_you_mean(old, classes)}; accepted: {listing(classes[:30])}."
            )
    renamed = [entry.rename.get(name, entry.rename.get(label, name)) for label, name in enumerate(classes)]

    def known(listed: list | None) -> list | None:
        return listed and [
            label
            for each in listed
            for label in [label for label, name in enumerate(renamed) if name == each] or [each]
        ]

    chosen = select_classes(
        known(entry.include), known(entry.exclude), classes, f"{where}.include" if entry.include else where
    )
    names = list(dict.fromkeys(renamed[label] for label in chosen))
    if len(names) < 2:
        raise UserError(f"{where}: the choice of classes leaves {listing(names)}; a task needs at least two.")
    old_name = {renamed[label]: classes[label] for label in chosen}
    for one, other in itertools.combinations(sorted(names), 2):
        if one.casefold() == other.casefold():
            raise UserError(
                f"{where}: classes {one!r} and {other!r} differ in letter case only; if they are one class, write "
                f"rename: {{{old_name[one]}: {other}}}, else rename one of them."
            )
    return TaskClasses(names, {label: names.index(renamed[label]) for label in chosen})


def select_classes(include: list | None, exclude: list | None, classes: list[str], where: str) -> list[int]:
    """The labels a study's `include` and `exclude` leave, ascending; None stands for all and for none.

    classes: the names of the dataset's classes in the order of their labels. A study names a class by its label (a
    number) or its name (text). `UserError` for one that does not exist.
    """
    left_out = {_label(entry, classes, f"{where}.exclude") for entry in exclude or []}
    chosen = {_label(entry, classes, where) for entry in include} if include else set(range(len(classes)))
    return sorted(chosen - left_out)


def _label(entry: int | str, classes: list[str], where: str) -> int:
    if isinstance(entry, str) and entry in classes:
        return classes.index(entry)
    if isinstance(entry, int) and 0 <= entry < len(classes):
        if str(entry) in classes and classes[entry] != str(entry):
            raise UserError(
                f"{where}: {entry} may be class number {entry}, which is {classes[entry]!r}, or the class of that "
                f"name; write '{entry}' in quotes for the name, or the name of the other."
            )
        return entry
    hint = did_you_mean(entry, classes) if isinstance(entry, str) else ""
    raise UserError(
        f"{where}: there is no class {entry!r}{hint}; accepted: 0 to {len(classes) - 1}, or {listing(classes[:30])}."
    )
