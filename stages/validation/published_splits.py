"""Published splits that tasks do not use, as far as they are known.

These are notes: the stage `check` does not depend on the local folders and the prepared images that it looks at.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.artifacts.images import read_images
from stages.config.tasks import TaskConfig
from stages.core.errors import UserError
from stages.sources.folders import csv_images, folder_images
from stages.validation.classes import PUBLISHED_SPLITS

LOCAL_SOURCES = {"folder": folder_images, "csv": csv_images}


def unused_splits(tasks: dict[str, TaskConfig], datasets: dict[str, Any]) -> Iterator[str]:
    """One sentence for each published split that a task does not use. datasets: also those of section `folders`."""
    for name, task in tasks.items():
        settings = {"test": task.test, "validation": task.validation}
        shares = {split: value for split, value in settings.items() if not str(value).startswith("published")}
        published = _published(task.dataset, datasets[task.dataset]) if shares else set()
        for split, value in shares.items():
            if split in published:
                yield (
                    f"tasks.{name}: dataset {task.dataset!r} publishes a {split} split, but `{split}: {value}` draws "
                    f"another one. To use it, write `{split}: published`."
                )


def _published(name: str, dataset: Any) -> set[str]:
    """The splits that a dataset publishes; none if it is not known, or cannot be read, which `prepare` reports."""
    if type(dataset) in PUBLISHED_SPLITS:
        return {*PUBLISHED_SPLITS[type(dataset)]}
    try:
        if dataset.source in LOCAL_SOURCES:
            return {image.split for image in LOCAL_SOURCES[dataset.source](dataset, Path(dataset.path))}
        return {*read_images(name).table["split"]}
    except (UserError, OSError):
        return set()
