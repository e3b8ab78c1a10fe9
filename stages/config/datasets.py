"""Sections `datasets` and `folders`: labeled images from one source."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from stages.config.fields import Entry, ImageSize, Location, Md5, Positive, Sha256, ShareOrZero


class DatasetConfig(Entry):
    """The keys that all datasets share."""

    image_size: ImageSize
    """The side of the prepared images in pixels."""
    resize: Literal["crop", "pad", "stretch"] = "crop"
    """How images become square before they are resized with antialiasing: `crop` takes the middle, `pad` adds black."""


class FilesConfig(DatasetConfig):
    """Datasets of image files, some of which may be unreadable."""

    max_unreadable: ShareOrZero = 0.01
    """The largest share of files that may be unreadable. Unreadable files are listed and excluded."""
    bits: Annotated[int, Field(ge=8, le=16)] | None = None
    """How many bits the values of 16-bit gray images use, such as 12: the largest of them is white. Null for all 16."""


class DigitsConfig(DatasetConfig):
    """scikit-learn's 1,797 handwritten digits, 8x8 pixels, classes 0 to 9."""

    source: Literal["digits"]


class DownloadConfig(Entry):
    """A file from a URL or a path, verified by its checksum."""

    url: Location
    """The URL or the path of the file. A path is relative to the project."""
    sha256: Sha256 | None = None
    """The SHA-256 checksum of the file."""
    md5: Md5 | None = None
    """The MD5 checksum of the file, if its SHA-256 checksum is not known."""

    @property
    def checksum(self) -> str | None:
        """`sha256:<digits>` or `md5:<digits>`."""
        return f"sha256:{self.sha256}" if self.sha256 else self.md5 and f"md5:{self.md5}"


# In the order of their labels, as in the archive's batches.meta.txt.
CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


class Cifar10Config(DownloadConfig, DatasetConfig):
    """CIFAR-10 (Krizhevsky 2009): 60,000 photographs, 32x32 pixels, 10 classes, with its published test images."""

    source: Literal["cifar10"]
    url: Location = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    """The official binary archive, or a mirror or copy of it."""
    sha256: Sha256 | None = None
    """The SHA-256 checksum of the file; null for that of the official archive, unless `md5` is given."""

    @property
    def checksum(self) -> str:
        """The checksum of the entry, or else of the official archive."""
        return super().checksum or "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9dddda3db29a59bca1dd"


class FlowersConfig(DownloadConfig, FilesConfig):
    """TensorFlow's flower photos: 3,670 photographs of daisy, dandelion, roses, sunflowers and tulips."""

    source: Literal["flowers"]
    url: Location = "https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz"
    """The official archive, or a mirror or copy of it."""
    sha256: Sha256 | None = None
    """The SHA-256 checksum of the file; null for that of the official archive, unless `md5` is given."""
    subfolder: str | None = "flower_photos"
    """The folder of the archive that holds the images."""

    @property
    def checksum(self) -> str:
        """The checksum of the entry, or else of the official archive."""
        return super().checksum or "sha256:4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c"


class ArchiveConfig(DownloadConfig, FilesConfig):
    """A .zip or .tar (.gz, .bz2, .xz) of `<class>/<image>` or `<split>/<class>/<image>` files."""

    source: Literal["archive"]
    subfolder: str | None = None
    """The folder of the archive that holds the images; null for the whole archive."""


class KaggleConfig(FilesConfig):
    """One version of a dataset on Kaggle, with the folders of an archive."""

    source: Literal["kaggle"]
    handle: Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$")]
    """The owner and the name of the dataset, as in the URL of its page."""
    version: Positive
    """The number of the version."""
    subfolder: str | None = None
    """The folder of the dataset that holds the images; null for the whole dataset."""


class LocalConfig(FilesConfig):
    """Datasets in a folder on this machine."""

    path: Annotated[str, Field(min_length=1)]
    """The path of the folder, inside or outside the project."""


class FolderConfig(LocalConfig):
    """A folder of `<class>/<image>` or `<split>/<class>/<image>` files."""

    source: Literal["folder"]


class CsvConfig(LocalConfig):
    """A folder of images with a table: columns `path` and `label`, optionally `split` and `group`."""

    source: Literal["csv"]
    # The stage depends on the folder, so the table must be in it.
    table: Annotated[str, StringConstraints(pattern=r"^[^/\\\\]+$")] = "labels.csv"
    """The file name of the table. Paths in the table are relative to the folder."""


# DVC depends on the folders of section `folders`; it fetches the files of section `datasets`.
FetchedDataset = Annotated[
    DigitsConfig | Cifar10Config | FlowersConfig | ArchiveConfig | KaggleConfig, Field(discriminator="source")
]
LocalDataset = Annotated[FolderConfig | CsvConfig, Field(discriminator="source")]
