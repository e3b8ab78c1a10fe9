"""The reader of each source. A reader yields the images of a dataset one by one as `SourceImage`s."""

from collections.abc import Iterator
from pathlib import Path

from stages.config.datasets import DatasetConfig, LocalConfig
from stages.core.errors import UserError
from stages.sources.archives import archive_images
from stages.sources.arrays import cifar10_images, digits_images
from stages.sources.folders import csv_images, folder_images
from stages.sources.source_image import SourceImage

READERS = {
    "digits": digits_images,
    "cifar10": cifar10_images,
    "flowers": archive_images,
    "archive": archive_images,
    "kaggle": archive_images,
    "folder": folder_images,
    "csv": csv_images,
}


def source_path(name: str, dataset: DatasetConfig) -> Path:
    """The folder that the entry names, or the file in data/raw/<dataset>."""
    if isinstance(dataset, LocalConfig):
        return Path(dataset.path)
    files = [path for path in Path("data/raw", name).glob("*") if not path.name.startswith(".partial-")]
    if len(files) != 1:
        raise UserError(f"data/raw/{name} has {len(files)} files instead of one. Delete it and run `dvc repro`.")
    return files[0]


def read_source(dataset: DatasetConfig, path: Path) -> Iterator[SourceImage]:
    """The images of a dataset; `UserError` if its source is missing, damaged or has another layout."""
    for image in READERS[dataset.source](dataset, path):
        yield image._replace(bits=getattr(dataset, "bits", None))
