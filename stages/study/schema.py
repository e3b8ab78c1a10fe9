"""What may stand in `params.yaml`: one class per kind of entry, with the type and the range of every key.

The description of a type completes the sentence "it must be ..." that a wrong value is answered with. The docstring of
a class says below its first paragraph what each key means, `key: meaning.`; docs/studies.md is made of both.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, create_model, model_validator

from stages.study.addresses import no_address, without_credentials
from stages.study.architectures import ARCHITECTURES

# Dots in a name break DVC's parameter look-up and bare numbers silently drop the stage.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$")]
# The name of another entry: any text, so that a wrong one is answered with the names there are.
Reference = Annotated[str, Field(description="the name of an entry")]
Layer = Annotated[str, Field(description="the name of a layer")]
LayerOrNull = Annotated[str | None, Field(description="the name of a layer or block, or null")]
Location = Annotated[str, Field(min_length=1, description="a path or an address"), AfterValidator(without_credentials)]
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
    resize: crop to the middle square, pad to a square with black, or stretch; then resize with antialiasing.
    """

    image_size: ImageSize
    resize: Literal["crop", "pad", "stretch"] = "crop"


class ImageFiles(Images):
    """Datasets of image files, of which some may be broken.

    max_unreadable: the share of the files that may be no readable image; those are left out and listed.
    """

    max_unreadable: ShareOrZero = 0.01


class Digits(Images):
    """scikit-learn's 1,797 handwritten digits, 8x8 pixels, classes 0 to 9."""

    source: Literal["digits"]


class Download(Entry):
    """A file from an address or a path, verified by one checksum.

    url: of the file; a path is relative to the project. sha256, md5: one checksum of the file.
    """

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

    url: of the official binary archive, or of a mirror or copy of it.
    sha256, md5: one checksum of the file; that of the official archive where neither is given.
    """

    source: Literal["cifar10"]
    url: Location = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"

    @property
    def checksum(self) -> str:
        """Of the official archive, unless the entry gives one."""
        return super().checksum or "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9dddda3db29a59bca1dd"


class Flowers(Download, ImageFiles):
    """TensorFlow's flower photos: 3,670 photographs of daisy, dandelion, roses, sunflowers and tulips.

    url: of the official archive, or of a mirror or copy of it.
    sha256, md5: one checksum of the file; that of the official archive where neither is given.
    subfolder: only what lies below this folder of the archive.
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
    """One version of a dataset on Kaggle, of the same shape as an archive.

    handle: as in the address of its page. version: its number. subfolder: only what lies below this folder of it.
    """

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

    path: Annotated[str, Field(min_length=1, description="the path of a folder"), AfterValidator(no_address)]

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
    """A folder of images in any order, and in it a table with the columns path and label, and maybe split and group.

    table: its file; paths in it are relative to the folder.
    """

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
    """A convolutional network and where its weights come from: `random`, `imagenet`, or a path or address.

    architecture: the network without its classification layers; its preprocessing belongs to it.
    weights: `random`, `imagenet`, or a weights file of Keras. sha256: checksum of that file.
    """

    architecture: ArchitectureName
    weights: Annotated[
        str,
        Field(min_length=1, description="random, imagenet, or a path or address"),
        AfterValidator(without_credentials),
    ]
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
Precision = Literal["float32", "bfloat16"]
Rate = Annotated[float, Field(gt=0, le=10)]
LearningRate = Annotated[Rate, Field(description="a number above 0, at most 10")]
Strength = Annotated[float, Field(ge=0)]
NotNegative = Annotated[float, Field(ge=0, description="a number from 0 up")]
NotNegativeOrNull = Annotated[NotNegative | None, Field(description="a number from 0 up, or null")]
Factor = Annotated[float, Field(gt=0, le=1, description="a number above 0, at most 1")]
Angle = Annotated[float, Field(ge=0, le=180, description="degrees from 0 to 180")]


class Augmentation(Entry):
    """Random changes of an image, each drawn anew for every image and every epoch from 0 up to the given strength.

    rotation: degrees to either side. shift: share of the side, in both directions. zoom: share in or out. shear:
    degrees, in both directions. flip: with probability 1/2; in a view, always. noise: standard deviation of Gaussian
    noise, as a share of the range 0..255. brightness: share of that range, up or down. contrast: share, up or down.
    fill: what is put where the image was moved away.
    """

    rotation: Angle = 0.0
    shift: ShareOrZero = 0.0
    zoom: ShareOrZero = 0.0
    shear: Annotated[float, Field(ge=0, lt=90, description="degrees from 0 to below 90")] = 0.0
    flip: Literal["none", "horizontal", "vertical", "both"] = "none"
    noise: ShareOrZero = 0.0
    brightness: ShareOrZero = 0.0
    contrast: ShareOrZero = 0.0
    fill: Literal["nearest", "reflect", "wrap", "constant"] = "nearest"

    @model_validator(mode="after")
    def _changes_something(self) -> "Augmentation":
        if not self.model_fields_set - {"fill"}:
            raise ValueError(
                "this augmentation changes nothing; give rotation, shift, zoom or another, or leave it out"
            )
        return self


AUGMENTATION = f"keys and values: {', '.join(Augmentation.model_fields)}, as in {{rotation: 15, flip: horizontal}}"


class Training(Entry):
    """How a model is trained; section `training` holds the defaults.

    epochs: at most so many passes over the training images. batch_size: images in one step.
    optimizer: with the settings that Keras gives it. learning_rate: size of a step.
    momentum: of sgd and rmsprop. weight_decay: decoupled from the gradient (Loshchilov & Hutter 2019);
        null for the optimizer's own, 0.004 for adamw and none for the others.
    schedule: of the learning rate: constant; exponential: times `decay` every `decay_steps` steps, without jumps;
        cosine: down to zero at the last epoch. decay, decay_steps: of the exponential schedule.
        warm_up: so many epochs from zero up to the learning rate.
    reduce_on_plateau: after so many epochs without a lower validation loss the learning rate is a fifth of itself.
    early_stopping: stop after so many epochs without a lower validation loss and restore the weights of the lowest;
        null trains all epochs and keeps the last weights.
    generalisation_loss: stop when validation loss / lowest validation loss - 1 exceeds it (Prechelt 1998) and restore
        the weights of the lowest.
    repeats: so many trainings from different seeds.
    max_train_per_class, train_fraction: train on at most so many images, or on this share, of each class; null for all.
        A smaller choice is a part of a larger one.
    class_weights: balanced: every class counts as much as the others, however many images it has.
    label_smoothing: share of the target that is spread over all classes (Szegedy et al. 2016).
    mixup: alpha of the Beta distribution by which pairs of images are mixed (Zhang et al. 2018); 0 for none.
    precision: of the computation; weights stay float32.
    """

    epochs: Epochs
    batch_size: Positive
    optimizer: Optimizer
    learning_rate: LearningRate
    early_stopping: PositiveOrNull
    repeats: Repeats
    max_train_per_class: PositiveOrNull
    momentum: ShareOrZero = 0.0
    weight_decay: NotNegativeOrNull = None
    schedule: Literal["constant", "exponential", "cosine"] = "constant"
    decay: Factor = 0.98
    decay_steps: Positive = 1000
    warm_up: Annotated[int, Field(ge=0, description="a whole number from 0 up")] = 0
    reduce_on_plateau: PositiveOrNull = None
    generalisation_loss: NotNegativeOrNull = None
    train_fraction: Annotated[
        Annotated[float, Field(gt=0, le=1)] | None, Field(description="a number above 0, at most 1, or null")
    ] = None
    class_weights: Literal["none", "balanced"] = "none"
    label_smoothing: ShareOrZero = 0.0
    mixup: NotNegative = 0.0
    precision: Precision = "float32"

    @model_validator(mode="after")
    def _settings_agree(self) -> "Training":
        check_training(self)
        return self


def check_training(settings: Training) -> None:
    """Refuse settings that each are accepted but not with each other; `ValueError` with the sentence."""
    if settings.momentum and settings.optimizer not in ("sgd", "rmsprop"):
        raise ValueError(
            f"momentum {settings.momentum} does not go with optimizer {settings.optimizer}, only sgd and rmsprop"
        )
    if settings.warm_up >= settings.epochs:
        raise ValueError(f"warm_up {settings.warm_up} leaves none of {settings.epochs} epochs; give fewer")


Hidden = Annotated[list[Units], Field(description="a list of whole numbers from 1 to 65536, as in [64, 32], or []")]


class Layers(Entry):
    """The layers between a backbone and the output: dense layers, each followed by its activation.

    hidden: units of each dense layer below the output layer. activation: after each of them.
    batch_normalization: between each dense layer and its activation. dropout: share of the units dropped after each
    dense layer, in training only; without dense layers, of the inputs of the output layer. l2: strength of the penalty
    on the squared weights of the dense layers and the output layer.
    """

    hidden: Hidden = []
    activation: Literal["relu", "gelu", "silu", "tanh", "elu"] = "relu"
    batch_normalization: bool = False
    dropout: ShareOrZero = 0.0
    l2: NotNegative = 0.0


# Training keys that a model gives itself; null is accepted only where the default may be null.
_OwnTraining = create_model(
    "_OwnTraining", __base__=Entry, **{key: (kind, None) for key, kind in Training.__annotations__.items()}
)


class Model(_OwnTraining):
    """The keys all models share; a training key given here goes before the default in section `training`.

    task: whose images it is trained on, and whose classes it tells apart.
    """

    task: Reference

    def training(self, defaults: Training) -> Training:
        """The training settings of this model: its own keys over the defaults."""
        own = self.model_fields_set & set(Training.model_fields)
        return defaults.model_copy(update={key: getattr(self, key) for key in own})


class OnImages(Model):
    """The keys of models that are trained on images.

    dataset: that of the task. backbone: what its lower layers are, and the weights they start from.
    augmentation: random changes of the training images.
    layer_decay: the learning rate of each backbone layer is that of the layer above times this (discriminative
        learning rates, Howard & Ruder 2018); the head has the full learning rate.
    train_batch_normalization: whether batch normalisation of the trained layers learns and follows the new images;
        null: only where the whole network is trained.
    """

    dataset: Reference
    backbone: Reference
    augmentation: Annotated[Augmentation | None, Field(description=AUGMENTATION)] = None
    layer_decay: Factor = 1.0
    train_batch_normalization: Annotated[bool | None, Field(description="true, false or null")] = None


class Network(OnImages, Layers):
    """A whole model trained end to end.

    cut: the layer or block the head stands on; null for the last. pooling: of its activations over the image, or none:
        they are flattened.
    trainable: `all`, the lowest backbone layer (or block) that is trained, the number of upper layers that are, or
        `head`: the backbone is frozen and runs in every epoch, as in studies without cached features.
    """

    cut: LayerOrNull = None
    pooling: Literal["average", "max", "none"] = "average"
    trainable: Annotated[
        Annotated[int, Field(ge=1)] | str,
        Field(description="all, head, the name of a layer or block, or a number of layers"),
    ] = "all"


class Features(Entry):
    """The activations of a backbone at the cut for all images of a dataset, or of some of its classes.

    dataset: whose images. backbone: whose activations; one with trained weights.
    cut: the layer or block whose activations are kept, or several of them, computed in one pass over the images.
    classes: of which images; null for all. Heads on these features have tasks of no other classes.
    pooling: of the activations over the image, which are a vector then. storage: float16 holds numbers up to 65,504.
    views: changed copies of every image that are cached beside it and used for training only, one for each item.
    precision: of the computation; auto: bfloat16 where the processor computes in it and the features stand it.
    """

    dataset: Reference
    backbone: Reference
    cut: Annotated[
        Layer | Annotated[list[Layer], Field(min_length=1)],
        Field(description="the name of a layer or block, or a list of them"),
    ]
    classes: Classes | None = None
    pooling: Literal["none", "average", "max"] = "none"
    storage: Literal["float16", "float32"] = "float16"
    views: Annotated[list[Augmentation], Field(description=f"a list, each item {AUGMENTATION}")] = []
    precision: Literal["auto", "float32", "bfloat16"] = "float32"

    @property
    def cuts(self) -> list[str]:
        """The cuts, also where there is one."""
        return [self.cut] if isinstance(self.cut, str) else self.cut


class Head(Model, Layers):
    """The layers trained on features: dense layers and an output layer.

    features: what it is trained on.
    kind: dense is trained by gradient descent; ridge is a linear layer solved in closed form.
    start_from: random, or backbone: its dense layers are the backbone's own above the cut, with its weights.
    cut: which cut of the features, where they have several. views: use so many views of each training image, 1 for
        the image alone; null for all there are.
    standardise: scale every channel of the features to mean 0 and variance 1 over the training images; null: unless it
        starts from the backbone.
    learning_rate: size of a step. Of a list every value is trained side by side; the one of the lowest validation loss
        is kept.
    l2: strength of the penalty on squared weights. Of a list as of learning_rate, of two lists every pair. Of ridge, it
        is chosen from powers of ten where none is given.
    """

    features: Reference
    cut: LayerOrNull = None
    kind: Literal["dense", "ridge"] = "dense"
    start_from: Literal["random", "backbone"] = "random"
    standardise: Annotated[bool | None, Field(description="true, false or null")] = None
    views: PositiveOrNull = None
    learning_rate: Annotated[
        Rate | Annotated[list[Rate], Field(min_length=1)],
        Field(description="a number above 0, at most 10, or a list of them"),
    ] = None
    l2: Annotated[
        Strength | Annotated[list[Strength], Field(min_length=1)],
        Field(description="a number from 0 up, or a list of them"),
    ] = 0.0

    @model_validator(mode="after")
    def _layers_come_from_one_place(self) -> "Head":
        of_backbone = self.model_fields_set & {"hidden", "activation", "batch_normalization", "dropout"}
        if self.start_from == "backbone" and of_backbone:
            raise ValueError(
                f"{self._given(of_backbone)} not go with start_from: backbone, which brings its own layers; leave them "
                "out, or use start_from: random"
            )
        of_ridge = {
            "task",
            "features",
            "cut",
            "kind",
            "views",
            "l2",
            "class_weights",
            "train_fraction",
            "max_train_per_class",
        }
        if self.kind == "ridge" and (unfit := self.model_fields_set - of_ridge - {"start_from"}):
            raise ValueError(
                f"{self._given(unfit)} not go with kind: ridge, one linear layer on standardised features that is "
                "solved; leave them out, or use kind: dense"
            )
        if self.kind == "ridge" and self.start_from == "backbone":
            raise ValueError("start_from: backbone does not go with kind: ridge; leave one of them out")
        if self.kind == "ridge" and "l2" in self.model_fields_set and 0 in self.strengths:
            raise ValueError("l2 0 does not go with kind: ridge; give strengths above 0")
        return self

    def _given(self, keys: set[str]) -> str:
        """Keys with their values and a `do`, in the order of the class."""
        given = [f"{key} {getattr(self, key)}" for key in type(self).model_fields if key in keys]
        return f"{' and '.join(given)} {'does' if len(given) == 1 else 'do'}"

    @property
    def standardised(self) -> bool:
        """Whether the features are standardised: yes, unless the entry says no or the backbone's layers take them."""
        return self.start_from == "random" if self.standardise is None else self.standardise

    @property
    def strengths(self) -> list[float]:
        """The L2 strengths to choose from; for ridge, where none is given, powers of ten."""
        if self.kind == "ridge" and "l2" not in self.model_fields_set:
            return [10.0**power for power in range(-6, 3)]
        return self.l2 if isinstance(self.l2, list) else [self.l2]

    def candidates(self, defaults: Training) -> list[tuple[Training, float]]:
        """The settings to choose from, each with its L2 strength: learning rates times strengths."""
        settings = self.training(defaults)
        rates = settings.learning_rate if isinstance(settings.learning_rate, list) else [settings.learning_rate]
        return [(settings.model_copy(update={"learning_rate": rate}), l2) for rate in rates for l2 in self.strengths]


class FineTune(OnImages):
    """A trained head joined to its backbone again and trained on, from backbone layer `unfreeze` upward.

    head: the trained head, of the same task and backbone.
    unfreeze: the lowest layer (or block) that is trained, the number of layers below the head that are, or all.
    features: cached activations that training may start from: where one of their cuts lies below `unfreeze` and no
        augmentation is asked for, the frozen layers are not run again. Those of the head, to start from the images.
    """

    head: Reference
    features: Reference
    unfreeze: Annotated[
        Annotated[int, Field(ge=1)] | str,
        Field(description="the name of a layer or block, a number of layers, or all"),
    ]
