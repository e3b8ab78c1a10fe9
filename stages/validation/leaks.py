"""Backbones of the study that are trained on images which a model built on them holds out.

What depends on the images themselves, such as copies in two datasets, is an error of the stages that train the models:
see `stages.splitting.leaks`.
"""

from collections.abc import Iterator

from stages.config.tasks import TaskConfig
from stages.validation.classes import share_classes
from stages.validation.sections import Entries


def leak_problems(entries: Entries, section: str, name: str) -> Iterator[str]:
    """One sentence per network below a model that sees, or may see, images which the model's task holds out.

    Tasks that share no classes, or that are not known to share any, are not a problem, nor are those of other datasets.
    """
    model, on_images = entries[section][name], section in ("networks", "fine_tunes")
    task, features = entries["tasks"].get(model.task), entries["features"].get("" if on_images else model.features)
    backbone = model.backbone if on_images else features and features.backbone
    checked = {model.task}
    while task and (network := entries["networks"].get(backbone)):
        below = entries["tasks"].get(network.task)
        if network.task not in checked and below and below.dataset == task.dataset:
            checked.add(network.task)
            if share_classes(entries, task, below) and (difference := _difference(task, below)):
                key, sees = difference
                yield (
                    f"{section}.{name}.{'backbone' if on_images else 'features'}: network {backbone!r} {sees} of task "
                    f"{model.task!r}: tasks.{model.task} has {key} {getattr(task, key)}, and tasks.{network.task} has "
                    f"{getattr(below, key)}. Give both the same value, or use a backbone from other images."
                )
        backbone = network.backbone


def _difference(task: TaskConfig, below: TaskConfig) -> tuple[str, str] | None:
    """The key in which a task differs from that of a network below it so that images leak, and what the network sees.

    None if the network, which holds out its fold 0, is trained on no image of the task's test split and fold 0.
    """
    is_published = task.test == task.validation == below.test == below.validation == "published"
    if is_published and task.group is None and task.near_duplicates == "report":
        return None
    for key in ("group", "near_duplicates"):
        if getattr(task, key) != getattr(below, key):
            return key, "may be trained on images related to validation or test images"
    if task.test != below.test:
        if _is_smaller(task.test, below.test):
            return "test", "may be trained on validation images"
        larger = _is_smaller(below.test, task.test)
        return "test", "is trained on test images" if larger else "may be trained on test images"
    # Both tasks fill fold 0 in the same order of images. So without groups a smaller fold 0 is inside a larger one.
    ungrouped = task.group is None and task.near_duplicates == "report"
    if task.validation == below.validation or (ungrouped and _is_smaller(task.validation, below.validation)):
        return None
    larger = _is_smaller(below.validation, task.validation)
    return "validation", "is trained on validation images" if larger else "may be trained on validation images"


def _is_smaller(setting: float | int | str, other: float | int | str) -> bool:
    """Whether a share is smaller than another share, or a number of images than another number."""
    return type(setting) is type(other) is not str and setting < other
