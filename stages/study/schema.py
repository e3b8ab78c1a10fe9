"""What may stand in `params.yaml`: one class per kind of entry, with the type and the range of every key.

The description of a type completes the sentence "it must be ..." that a wrong value is answered with.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from stages.study.architectures import ARCHITECTURES

# Dots in a name break DVC's parameter look-up and bare numbers silently drop the stage.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$")]
# The name of another entry: any text, so that a wrong one is answered with the names there are.
Reference = Annotated[str, Field(description="the name of an entry")]
Layer = Annotated[str, Field(description="the name of a layer")]
Location = Annotated[str, Field(min_length=1, description="a path or an address")]
Share = Annotated[float, Field(gt=0, lt=1, description="a number above 0 and below 1")]
ShareOrZero = Annotated[float, Field(ge=0, lt=1, description="a number from 0 to below 1")]
ImageSize = Annotated[int, Field(ge=8, le=1024, description="a whole number from 8 to 1024")]
Class = Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)]
Classes = Annotated[
    list[Class], Field(min_length=1, description="a list of classes by number or name, as in [0, 1] or [cat, dog]")
]
Positive = Annotated[int, Field(ge=1, description="a whole number from 1 up")]
PositiveOrNull = Annotated[Positive | None, Field(description="a whole number from 1 up, or null")]
Sha256 = Annotated[
    str, StringConstraints(pattern=r"^[0-9a-f]{64}$"), Field(description="64 hexadecimal digits, 0 to 9 and a to f")
]
ArchitectureName = Literal[tuple(ARCHITECTURES)]


class Entry(BaseModel):
    """Base of all entries: unknown keys and silent conversions (text for a number, true for 1) are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Digits(Entry):
    """scikit-learn's 1,797 handwritten digits, 8x8 pixels, classes 0 to 9."""

    source: Literal["digits"]
    image_size: ImageSize


class Archive(Entry):
    """A .zip or .tar (.gz, .bz2, .xz) of `<class>/<image>` files, from a path or an address."""

    source: Literal["archive"]
    image_size: ImageSize
    url: Location
    sha256: Sha256
    max_unreadable: ShareOrZero = 0.01


Dataset = Annotated[Digits | Archive, Field(discriminator="source")]


class Task(Entry):
    """A subset of a dataset's classes with train / validation / test."""

    dataset: Reference
    include: Classes | None = None
    exclude: Classes | None = None
    validation: Share
    test: Share

    @model_validator(mode="after")
    def _room_for_training(self) -> "Task":
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation {self.validation} and test {self.test} leave no images for training; their sum must be "
                "below 1"
            )
        if self.include is not None and len(set(self.include)) < 2:
            raise ValueError(f"include {self.include} is one class; a task needs at least two")
        if self.include is not None and self.exclude is not None:
            raise ValueError("include and exclude do not go together; give one of them")
        return self


class Backbone(Entry):
    """A convolutional network and where its weights come from: `random`, `imagenet`, or a path or address."""

    architecture: ArchitectureName
    weights: Annotated[str, Field(min_length=1, description="random, imagenet, or a path or address")]
    sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _file_has_checksum(self) -> "Backbone":
        if self.weights == "imagenet" and ARCHITECTURES[self.architecture].imagenet is None:
            raise ValueError(
                f"weights 'imagenet' do not exist for {self.architecture}; accepted: random, or a path or address "
                "with its sha256"
            )
        if self.weights == "random" and self.sha256 is not None:
            raise ValueError("sha256 goes with a file of weights; leave it out with weights: random")
        if self.weights not in ("random", "imagenet") and self.sha256 is None:
            raise ValueError(
                f"weights {self.weights!r} is taken for a file, which needs its sha256; accepted: random, imagenet, "
                "or a path or address with its sha256 (a network of the study is a backbone by its own name)"
            )
        return self


Epochs = Annotated[int, Field(ge=1, le=100_000, description="a whole number from 1 to 100000")]
Repeats = Annotated[int, Field(ge=1, le=100, description="a whole number from 1 to 100")]
Units = Annotated[int, Field(ge=1, le=65_536)]
Optimizer = Literal["adam", "adamw", "rmsprop", "sgd"]
LearningRate = Annotated[float, Field(gt=0, le=10, description="a number above 0, at most 10")]


class Training(Entry):
    """How a model is trained; section `training` holds the defaults.

    epochs: at most so many passes over the training images.
    early_stopping: stop after so many epochs without a lower validation loss and restore the weights of the lowest;
        null trains all epochs and keeps the last weights.
    repeats: so many trainings from different seeds.
    max_train_per_class: train on at most so many images of each class; null for all.
    """

    epochs: Epochs
    batch_size: Positive
    optimizer: Optimizer
    learning_rate: LearningRate
    early_stopping: PositiveOrNull
    repeats: Repeats
    max_train_per_class: PositiveOrNull


class Model(Entry):
    """The keys all models share; a training key given here goes before the default in section `training`."""

    task: Reference
    epochs: Epochs | None = None
    batch_size: Positive | None = None
    optimizer: Optimizer | None = None
    learning_rate: LearningRate | None = None
    early_stopping: PositiveOrNull = None
    repeats: Repeats | None = None
    max_train_per_class: PositiveOrNull = None

    @model_validator(mode="after")
    def _only_optional_keys_are_null(self) -> "Model":
        for key in ("epochs", "batch_size", "optimizer", "learning_rate", "repeats"):
            if key in self.model_fields_set and getattr(self, key) is None:
                raise ValueError(f"{key} is empty; give a value or leave the key out")
        return self

    def training(self, defaults: Training) -> Training:
        """The training settings of this model: its own keys over the defaults."""
        own = self.model_fields_set & set(Training.model_fields)
        return defaults.model_copy(update={key: getattr(self, key) for key in own})


class Network(Model):
    """A whole model trained end to end.

    trainable: `all`, or the lowest backbone layer that is trained; batch normalisation then keeps its statistics and
    weights everywhere, as in a fine-tune.
    """

    dataset: Reference
    backbone: Reference
    trainable: Annotated[str, Field(description="all, or the name of a layer")] = "all"


class Features(Entry):
    """The activations of a backbone at the cut layer for all images of a dataset, or of some of its classes."""

    dataset: Reference
    backbone: Reference
    cut: Layer
    classes: Classes | None = None
    pooling: Literal["none", "average", "max"] = "none"
    storage: Literal["float16", "float32"] = "float16"


class Head(Model):
    """The layers trained on features: dense layers of `hidden` units with dropout after each, and an output layer.

    With `start_from: backbone` they are the backbone's own layers above the cut instead, with its weights, and a new
    output layer.
    """

    features: Reference
    start_from: Literal["random", "backbone"] = "random"
    hidden: Annotated[
        list[Units], Field(description="a list of whole numbers from 1 to 65536, as in [64, 32], or []")
    ] = []
    dropout: ShareOrZero = 0.0

    @model_validator(mode="after")
    def _layers_come_from_one_place(self) -> "Head":
        if self.start_from == "backbone" and (self.hidden or self.dropout):
            raise ValueError(
                f"hidden {self.hidden} and dropout {self.dropout} do not go with start_from: backbone, which brings "
                "its own layers; leave them out, or use start_from: random"
            )
        return self


class FineTune(Model):
    """A trained head joined to its backbone again and trained on, from backbone layer `unfreeze` upward.

    `features` are the cached activations training may start from: where their cut lies below `unfreeze`, the frozen
    layers are not run again.
    """

    dataset: Reference
    backbone: Reference
    head: Reference
    features: Reference
    unfreeze: Layer
