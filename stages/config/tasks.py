"""Section `tasks`: a choice of classes, and what is held out of their images."""

import re
from typing import Literal

from pydantic import model_validator

from stages.config.fields import (
    Classes,
    Entry,
    HeldOut,
    Pattern,
    PositiveOrNull,
    Reference,
    Renames,
)


class TaskConfig(Entry):
    """A subset of a dataset's classes with train / validation / test.

    dataset: whose images they are.
    include, exclude: the classes it has, or has not; null for all. At most one of them is given.
    rename: the dataset's class names -> those of the task; classes of one new name become one.
    max_per_class: at most so many images of each class, drawn by the seed.
    validation: the images on which choices are made: when to stop, which repeat to keep, which model to recommend.
    test: the images for the final word, predicted once. Both may be those that the dataset publishes.
    group: images of which it finds the same text in the file name stay on one side; with parentheses in it, what they
        hold counts.
    near_duplicates: images that look alike across sides are reported, or kept on one side.
    """

    dataset: Reference
    include: Classes | None = None
    exclude: Classes | None = None
    rename: Renames = {}
    max_per_class: PositiveOrNull = None
    validation: HeldOut
    test: HeldOut
    group: Pattern | None = None
    near_duplicates: Literal["report", "group"] = "report"

    @model_validator(mode="after")
    def _room_for_training(self) -> "TaskConfig":
        shares = isinstance(self.validation, float) and isinstance(self.test, float)
        if shares and self.validation + self.test >= 1:
            raise ValueError(
                f"validation {self.validation} and test {self.test} leave no images for training; their sum must be "
                "below 1"
            )
        if self.include is not None and len(set(self.include)) < 2:
            raise ValueError(f"include {self.include} is one class; a task needs at least two")
        if self.include is not None and self.exclude is not None:
            raise ValueError("include and exclude do not go together; give one of them")
        return self

    @model_validator(mode="after")
    def _pattern_is_one(self) -> "TaskConfig":
        try:
            re.compile(self.group or "")
        except re.error as error:
            raise ValueError(
                f"group {self.group!r} is no regular expression ({error}); give one, as in 'patient\\d+'"
            ) from None
        return self
