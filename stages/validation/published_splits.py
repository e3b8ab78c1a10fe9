"""Published splits that tasks do not use, as far as they are known.

These are notes: the stage `check` does not depend on the local folders and the prepared images that it looks at.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.artifacts.images import read_images
from stages.config.datasets import LocalConfig
from stages.config.tasks import TaskConfig
from stages.core.errors import UserError
from stages.sources.folders import published_splits
from stages.validation.classes import PUBLISHED_SPLITS


def unused_splits(tasks: dict[str, TaskConfig], datasets: dict[str, Any]) -> Iterator[str]:
    """One sentence per published split that a task does not use. datasets: also those of section `folders`."""
    published = {}
    for name, task in tasks.items():
        settings = {"test": task.test, "validation": task.validation}
        shares = {split: value for split, value in settings.items() if not str(value).startswith("published")}
        if shares and task.dataset not in published:
            published[task.dataset] = _published(task.dataset, datasets[task.dataset])
        for split, value in shares.items():
            if split in published[task.dataset]:
                yield (
                    f"tasks.{name}: dataset {task.dataset!r} publishes a {split} split, but `{split}: {value}` draws "
                    f"another one. To use it, write `{split}: published`."
                )


def _published(name: str, dataset: Any) -> set[str]:
    """The splits that a dataset publishes; none if it is not known, or cannot be read, which `prepare` reports."""
    if type(dataset) in PUBLISHED_SPLITS:
        return {*PUBLISHED_SPLITS[type(dataset)]}
    try:
        if isinstance(dataset, LocalConfig):
            return published_splits(dataset, Path(dataset.path))
        return {*read_images(name).table["split"]}
    except (UserError, OSError):
        return set()
