"""Section `tasks`: a choice of classes, and how their images are split."""

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from stages.config.fields import Class, Classes, Entry, Factor, PositiveOrNull, Reference, Share

# The published images if there are any, else a share or a number.
PublishedOr = Annotated[str, StringConstraints(pattern=r"^published or (0?\.\d*[1-9]\d*|[2-9]|[1-9]\d+)$")]
HeldOut = Share | Annotated[int, Field(ge=2)] | Literal["published"] | PublishedOr


class TaskConfig(Entry):
    """A choice of a dataset's classes, and the split of their images into train, validation and test."""

    dataset: Reference
    """The dataset of the images."""
    include: Classes | None = None
    """The classes of the task; null for all. Give `include` or `exclude`, not both."""
    exclude: Classes | None = None
    """The classes that are excluded from the task."""
    rename: dict[Class, Annotated[str, Field(min_length=1)]] = Field({})
    """New names of the dataset's classes. Classes with the same new name become one class."""
    max_per_class: PositiveOrNull = None
    """The largest number of images of each class, chosen by the seed from every split; null for all."""
    validation: HeldOut
    """The images for all choices, such as when to stop. Each repeat of a model holds out another fold."""
    test: HeldOut
    """The images for the final evaluation. They are never used to make a choice. `published` takes those of the
    dataset, `published or 0.2` takes them if it has them, else the share."""
    group: Annotated[str, Field(min_length=1)] | None = None
    """A regular expression. Images whose file names share a match, or a match of its parentheses, stay in one split."""
    near_duplicates: Literal["report", "group"] = "report"
    """`report` lists similar images of different splits, `group` keeps them in one split."""
    max_vanished: Factor = 0.5
    """The largest share of the images of the earlier split that may be missing from the dataset; 1 accepts any."""

    def settled(self, published: Collection[str]) -> "TaskConfig":
        """The task for classes with these published splits, with one of the two values of `published or 0.2`."""
        return self.model_copy(
            update={split: _settle(getattr(self, split), split in published) for split in ("validation", "test")}
        )


def _settle(setting: float | int | str, is_published: bool) -> float | int | str:
    if not isinstance(setting, str) or " or " not in setting:
        return setting
    number = setting.removeprefix("published or ")
    return "published" if is_published else float(number) if "." in number else int(number)
