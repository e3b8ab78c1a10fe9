"""Classes and published splits of datasets that are known before their images are prepared."""

from collections.abc import Iterator

from stages.config.datasets import CIFAR10_CLASSES, Cifar10Config, DigitsConfig
from stages.config.features import FeaturesConfig
from stages.config.tasks import TaskConfig
from stages.core.errors import UserError
from stages.core.wording import listing
from stages.splitting.classes import resolve_classes, select_classes
from stages.validation.sections import Entries

KNOWN_CLASSES = {DigitsConfig: [str(digit) for digit in range(10)], Cifar10Config: CIFAR10_CLASSES}
PUBLISHED_SPLITS = {DigitsConfig: [], Cifar10Config: ["train", "test"]}


def task_problems(entries: Entries, name: str) -> Iterator[str]:
    """Problems of a task with the classes of its dataset, and splits that the dataset does not publish."""
    task, where = entries["tasks"][name], f"tasks.{name}"
    if known := _known_classes(entries, task.dataset):
        try:
            resolve_classes(task, known, where)
        except UserError as error:
            yield from error.sentences
    splits = PUBLISHED_SPLITS.get(type(entries["datasets"].get(task.dataset)))
    for key in ("validation", "test"):
        if getattr(task, key) == "published" and splits is not None and key not in splits:
            yield (
                f"{where}.{key}: dataset {task.dataset!r} does not publish {key} images (splits: {listing(splits)}). "
                "Give a share, or a number of images per class."
            )


def unknown_classes(entries: Entries, where: str, dataset: str, classes: list | None) -> Iterator[str]:
    """The classes that a dataset does not have, if its classes are known."""
    if known := _known_classes(entries, dataset):
        try:
            select_classes(classes, known, where)
        except UserError as error:
            yield from error.sentences


def missing_classes(entries: Entries, where: str, features_name: str, task_name: str) -> Iterator[str]:
    """Classes of a task that the features do not have, if both are known."""
    features, task = entries["features"].get(features_name), entries["tasks"].get(task_name)
    if features is None or task is None or features.classes is None or features.dataset != task.dataset:
        return
    available, needed = _labels_of_features(entries, features), _labels_of_task(entries, task)
    if available is not None and needed is not None and needed - available:
        yield (
            f"{where}.features: features.{features_name}.classes lacks {listing(sorted(needed - available))} of "
            f"tasks.{task_name}. Add them there, or leave the key out for all classes."
        )


def share_classes(entries: Entries, first: TaskConfig, second: TaskConfig) -> bool:
    """Whether two tasks of a dataset certainly have a class in common; False if that is not known."""
    labels = [_labels_of_task(entries, task) for task in (first, second)]
    if None not in labels:
        return bool(labels[0] & labels[1])
    if any(task.include is None and task.exclude is None for task in (first, second)):
        return True
    return bool(set(first.include or []) & set(second.include or []))


def _known_classes(entries: Entries, dataset: str) -> list[str] | None:
    return KNOWN_CLASSES.get(type(entries["datasets"].get(dataset)))


def _labels_of_features(entries: Entries, features: FeaturesConfig) -> set[int] | None:
    known = _known_classes(entries, features.dataset)
    if known is None:
        return _numbers(features.classes)
    try:
        return set(select_classes(features.classes, known, ""))
    except UserError:  # `unknown_classes` reports it
        return None


def _labels_of_task(entries: Entries, task: TaskConfig) -> set[int] | None:
    known = _known_classes(entries, task.dataset)
    if known is None:
        return _numbers(task.include)
    try:
        return set(resolve_classes(task, known, "").label_of)
    except UserError:  # `task_problems` reports it
        return None


def _numbers(classes: list | None) -> set[int] | None:
    """Classes as labels; None if a name is unknown before the images are prepared."""
    return set(classes) if classes and all(isinstance(item, int) for item in classes) else None
