"""Classes of tasks and features, as far as they are known before the images are there."""

from collections.abc import Iterable, Iterator

from stages.config.datasets import CIFAR10_CLASSES, Cifar10Config, DigitsConfig
from stages.config.features import FeaturesConfig
from stages.config.tasks import TaskConfig
from stages.core.wording import listing
from stages.validation.sections import Entries

KNOWN_CLASSES = {DigitsConfig: [str(digit) for digit in range(10)], Cifar10Config: CIFAR10_CLASSES}
PUBLISHED_SPLITS = {DigitsConfig: [], Cifar10Config: ["train", "test"]}


def task_problems(entries: Entries, name: str) -> Iterator[str]:
    """Classes that the dataset of a task does not have, and splits that it does not publish."""
    task, where = entries["tasks"][name], f"tasks.{name}"
    for key, classes in (("include", task.include), ("exclude", task.exclude)):
        yield from unknown_classes(entries, f"{where}.{key}", task.dataset, classes, task.rename.values())
    yield from unknown_classes(entries, f"{where}.rename", task.dataset, list(task.rename))
    splits = PUBLISHED_SPLITS.get(type(entries["datasets"].get(task.dataset)))
    for key in ("validation", "test"):
        if getattr(task, key) == "published" and splits is not None and key not in splits:
            yield (
                f"{where}.{key}: dataset {task.dataset!r} does not publish {key} images (splits: {listing(splits)}). "
                "Give a share, or a number of images per class."
            )


def unknown_classes(
    entries: Entries, where: str, dataset: str, classes: list | None, new_names: Iterable[str] = ()
) -> Iterator[str]:
    """Classes that a dataset does not have, if its classes are known. new_names: names that are accepted too."""
    known = KNOWN_CLASSES.get(type(entries["datasets"].get(dataset)))
    if not classes or not known:
        return
    numbers = range(len(known))
    accepted = {*numbers, *known, *new_names}
    if unknown := [name for name in classes if name not in accepted]:
        names = "" if known == list(map(str, numbers)) else f", or {listing(known)}"
        yield f"{where}: {listing(unknown)} does not exist. Classes of {dataset!r}: 0 to {len(known) - 1}{names}."


def missing_classes(entries: Entries, where: str, features_name: str, task_name: str) -> Iterator[str]:
    """Classes of a task that the features do not have, as far as that is known."""
    features, task = entries["features"].get(features_name), entries["tasks"].get(task_name)
    if features is None or task is None or features.classes is None or features.dataset != task.dataset:
        return
    available, needed = _labels_of_features(entries, features), _labels_of_task(entries, task)
    if available is not None and needed is not None and needed - available:
        yield (
            f"{where}.features: features.{features_name}.classes lacks {listing(sorted(needed - available))} of "
            f"tasks.{task_name}. Add them there, or leave the key out for all classes."
        )


def _labels_of_features(entries: Entries, features: FeaturesConfig) -> set[int] | None:
    return _labels(entries, features.dataset, features.classes)


def _labels_of_task(entries: Entries, task: TaskConfig) -> set[int] | None:
    if task.include is not None:
        return _labels(entries, task.dataset, task.include)
    known = KNOWN_CLASSES.get(type(entries["datasets"].get(task.dataset)))
    excluded = _labels(entries, task.dataset, task.exclude or [])
    return None if known is None or excluded is None else set(range(len(known))) - excluded


def _labels(entries: Entries, dataset: str, classes: list) -> set[int] | None:
    """The labels of classes by number or name; None if a name is unknown before the images are there."""
    known = KNOWN_CLASSES.get(type(entries["datasets"].get(dataset)), [])
    if any(isinstance(name, str) and name not in known for name in classes):
        return None
    return {name if isinstance(name, int) else known.index(name) for name in classes}
