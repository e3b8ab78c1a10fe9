"""Sections `datasets` and `folders`: labeled images from one source."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from stages.config.fields import Entry, ImageSize, Location, Md5, Positive, Sha256, ShareOrZero, Subfolder
from stages.config.urls import refuse_url


class DatasetConfig(Entry):
    """The keys all datasets share.

    image_size: side of the prepared images in pixels.
    resize: crop to the middle square, pad to a square with black, or stretch; then resize with antialiasing.
    """

    image_size: ImageSize
    resize: Literal["crop", "pad", "stretch"] = "crop"


class FilesConfig(DatasetConfig):
    """Datasets of image files, of which some may be broken.

    max_unreadable: the share of the files that may be no readable image; those are left out and listed.
    """

    max_unreadable: ShareOrZero = 0.01


class DigitsConfig(DatasetConfig):
    """scikit-learn's 1,797 handwritten digits, 8x8 pixels, classes 0 to 9."""

    source: Literal["digits"]


class DownloadConfig(Entry):
    """A file from an address or a path, verified by one checksum.

    url: of the file; a path is relative to the project. sha256, md5: one checksum of the file.
    """

    url: Location
    sha256: Sha256 | None = None
    md5: Md5 | None = None

    @model_validator(mode="after")
    def _one_checksum(self) -> "DownloadConfig":
        if self.sha256 and self.md5:
            raise ValueError("sha256 and md5 are two checksums of one file; give one of them")
        return self

    @property
    def checksum(self) -> str | None:
        """`sha256:<digits>` or `md5:<digits>`."""
        return f"sha256:{self.sha256}" if self.sha256 else self.md5 and f"md5:{self.md5}"


# In the order of their labels, as in the archive's batches.meta.txt.
CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


class Cifar10Config(DownloadConfig, DatasetConfig):
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


class FlowersConfig(DownloadConfig, FilesConfig):
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


class ArchiveConfig(DownloadConfig, FilesConfig):
    """A .zip or .tar (.gz, .bz2, .xz) of `<class>/<image>` or `<split>/<class>/<image>` files.

    subfolder: only what lies below this folder of the archive.
    """

    source: Literal["archive"]
    subfolder: Subfolder = None

    @model_validator(mode="after")
    def _has_checksum(self) -> "ArchiveConfig":
        if self.checksum is None:
            raise ValueError("the checksum is missing; give sha256 (or md5) of the file, as sha256sum prints it")
        return self


class KaggleConfig(FilesConfig):
    """One version of a dataset on Kaggle, of the same shape as an archive.

    handle: as in the address of its page. version: its number. subfolder: only what lies below this folder of it.
    """

    source: Literal["kaggle"]
    handle: Annotated[
        str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$"), Field(description="owner/name, as in the page's address")
    ]
    version: Positive
    subfolder: Subfolder = None


class LocalConfig(FilesConfig):
    """Datasets in a folder of this machine.

    path: of the folder, also outside the project.
    """

    path: Annotated[str, Field(min_length=1, description="the path of a folder"), AfterValidator(refuse_url)]

    @model_validator(mode="after")
    def _folder_of_its_own(self) -> "LocalConfig":
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


class FolderConfig(LocalConfig):
    """A folder of `<class>/<image>` or `<split>/<class>/<image>` files."""

    source: Literal["folder"]


class CsvConfig(LocalConfig):
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
FetchedDataset = Annotated[
    DigitsConfig | Cifar10Config | FlowersConfig | ArchiveConfig | KaggleConfig, Field(discriminator="source")
]
LocalDataset = Annotated[FolderConfig | CsvConfig, Field(discriminator="source")]
