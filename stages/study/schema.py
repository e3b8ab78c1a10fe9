"""What may stand in `params.yaml`: one class per kind of entry, with the type and the range of every key.

The description of a type completes the sentence "it must be ..." that a wrong value is answered with.
"""

import re
from pathlib import Path
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
Md5 = Annotated[
    str, StringConstraints(pattern=r"^[0-9a-f]{32}$"), Field(description="32 hexadecimal digits, 0 to 9 and a to f")
]
Subfolder = Annotated[str | None, Field(description="a folder of the archive, as in photos/train")]
HeldOut = Annotated[
    Share | Annotated[int, Field(ge=2)] | Literal["published"],
    Field(
        description="a share of each class above 0 and below 1, a number of images per class from 2 up, or published"
    ),
]
Renames = Annotated[
    dict[Class, Annotated[str, Field(min_length=1)]],
    Field(description="classes by number or name with their new names, as in {cane: dog, gatto: cat}"),
]
Pattern = Annotated[str, Field(min_length=1, description="a regular expression, as in 'patient\\d+'")]
ArchitectureName = Literal[tuple(ARCHITECTURES)]


class Entry(BaseModel):
    """Base of all entries: unknown keys and silent conversions (text for a number, true for 1) are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Images(Entry):
    """The keys all datasets share.

    image_size: side of the prepared images in pixels.
    resize: crop the middle square, pad to a square with black, or stretch; then resize with antialiasing.
    """

    image_size: ImageSize
    resize: Literal["crop", "pad", "stretch"] = "crop"


class ImageFiles(Images):
    """Datasets of image files, of which some may be broken: at most the share max_unreadable."""

    max_unreadable: ShareOrZero = 0.01


class Digits(Images):
    """scikit-learn's 1,797 handwritten digits, 8x8 pixels, classes 0 to 9."""

    source: Literal["digits"]


class Download(Entry):
    """A file from an address or a path, verified by one checksum."""

    url: Location
    sha256: Sha256 | None = None
    md5: Md5 | None = None

    @model_validator(mode="after")
    def _one_checksum(self) -> "Download":
        if self.sha256 and self.md5:
            raise ValueError("sha256 and md5 are two checksums of one file; give one of them")
        return self

    @property
    def checksum(self) -> str | None:
        """`sha256:<digits>` or `md5:<digits>`."""
        return f"sha256:{self.sha256}" if self.sha256 else self.md5 and f"md5:{self.md5}"


# In the order of their labels, as in the archive's batches.meta.txt.
CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


class Cifar10(Download, Images):
    """CIFAR-10 (Krizhevsky 2009): 60,000 photographs, 32x32 pixels, 10 classes, test images as published.

    url: of the official binary archive, or of a mirror or copy of it. Another file needs its own checksum.
    """

    source: Literal["cifar10"]
    url: Location = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"

    @property
    def checksum(self) -> str:
        """Of the official archive, unless the entry gives one."""
        return super().checksum or "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9dddda3db29a59bca1dd"


class Flowers(Download, ImageFiles):
    """TensorFlow's flower photos: 3,670 photographs of daisy, dandelion, roses, sunflowers and tulips.

    url: of the official archive, or of a mirror or copy of it. Another file needs its own checksum.
    """

    source: Literal["flowers"]
    url: Location = "https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz"
    subfolder: Subfolder = "flower_photos"

    @property
    def checksum(self) -> str:
        """Of the official archive, unless the entry gives one."""
        return super().checksum or "sha256:4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c"


class Archive(Download, ImageFiles):
    """A .zip or .tar (.gz, .bz2, .xz) of `<class>/<image>` or `<split>/<class>/<image>` files.

    subfolder: only what lies below this folder of the archive.
    """

    source: Literal["archive"]
    subfolder: Subfolder = None

    @model_validator(mode="after")
    def _has_checksum(self) -> "Archive":
        if self.checksum is None:
            raise ValueError("the checksum is missing; give sha256 (or md5) of the file, as sha256sum prints it")
        return self


class Kaggle(ImageFiles):
    """One version of a dataset on Kaggle, of the same shape as an archive."""

    source: Literal["kaggle"]
    handle: Annotated[
        str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$"), Field(description="owner/name, as in the page's address")
    ]
    version: Positive
    subfolder: Subfolder = None


class OnThisMachine(ImageFiles):
    """Datasets in a folder of this machine.

    path: of the folder, also outside the project.
    """

    path: Annotated[str, Field(min_length=1, description="the path of a folder")]

    @model_validator(mode="after")
    def _folder_of_its_own(self) -> "OnThisMachine":
        folder, project = Path(self.path).resolve(), Path.cwd()
        if project.is_relative_to(folder):
            raise ValueError(
                f"path {self.path!r} holds the project itself; name a folder that holds the images and nothing else"
            )
        if any(folder.is_relative_to(project / own) for own in ("data", "models", "reports")):
            raise ValueError(
                f"path {self.path!r} lies where the stages write; move the images to a folder of their own"
            )
        return self


class Folder(OnThisMachine):
    """A folder of `<class>/<image>` or `<split>/<class>/<image>` files."""

    source: Literal["folder"]


class Csv(OnThisMachine):
    """A folder of images in any order, and in it a table with the columns path and label, and maybe split and group."""

    source: Literal["csv"]
    # DVC depends on the folder, so that it must hold the table.
    table: Annotated[
        str,
        StringConstraints(pattern=r"^[^/\\\\]+$"),
        Field(description="the name of a .csv file in the folder itself"),
    ] = "labels.csv"


# What is fetched stands in section `datasets`, what lies in a folder of this machine in `folders`: DVC depends on it.
Dataset = Annotated[Digits | Cifar10 | Flowers | Archive | Kaggle, Field(discriminator="source")]
LocalDataset = Annotated[Folder | Csv, Field(discriminator="source")]


class Task(Entry):
    """A subset of a dataset's classes with train / validation / test.

    rename: the dataset's class names -> those of the task; classes of one new name become one.
    max_per_class: at most so many images of each class, drawn by the seed.
    validation, test: a share of each class, a number of images of each class, or the images the dataset publishes.
    group: regular expression; images of which it finds the same text in the file name stay on one side.
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
    def _room_for_training(self) -> "Task":
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
    def _pattern_is_one(self) -> "Task":
        try:
            re.compile(self.group or "")
        except re.error as error:
            raise ValueError(
                f"group {self.group!r} is no regular expression ({error}); give one, as in 'patient\\d+'"
            ) from None
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
