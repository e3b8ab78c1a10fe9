"""The classes of a task: which of the dataset's it keeps, and what it calls them."""

import itertools
from typing import NamedTuple

from stages.base.errors import UserError
from stages.data.tasks import select_classes
from stages.study.messages import listing, nearest
from stages.study.schema import Task


class Classes(NamedTuple):
    """names: of the task's classes in the order of their labels. label_of: label in the dataset -> in the task."""

    names: list[str]
    label_of: dict[int, int]


def classes_of(entry: Task, classes: list[str], where: str) -> Classes:
    """The classes that `include`, `exclude` and `rename` leave, in the dataset's order.

    classes: the dataset's, in the order of their labels. `include` and `exclude` know a class by its number, its new
    name or its old one; the new name of several means all of them.

    `UserError` for classes that do not exist, for fewer than two, and for two that differ in letter case only, which
    are mostly one.
    """
    for old in entry.rename:
        if old not in classes and old not in range(len(classes)):
            raise UserError(
                f"{where}.rename: there is no class {old!r}{nearest(old, classes)}; accepted: {listing(classes[:30])}."
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
    return Classes(names, {label: names.index(renamed[label]) for label in chosen})
