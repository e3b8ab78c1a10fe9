"""Fetches the source of a dataset, unchanged and as one file, into data/raw/<dataset>."""

import importlib.resources
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from stages.config.datasets import DigitsConfig, FetchedDataset, KaggleConfig
from stages.config.parsing import parse_entry
from stages.core.files import keep_only
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.sources.fetch import fetch
from stages.sources.kaggle import fetch_kaggle

# Of the file in scikit-learn, so that a changed file is noticed.
DIGITS_CHECKSUM = "sha256:09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"


def main(params: Params, name: str) -> str:
    dataset = parse_entry(params, "datasets", name, FetchedDataset)
    folder = Path("data/raw") / name
    if isinstance(dataset, DigitsConfig):
        file = folder / "digits.csv.gz"
        with importlib.resources.as_file(importlib.resources.files("sklearn.datasets.data") / file.name) as source:
            fetch(str(source), file, DIGITS_CHECKSUM)
    elif isinstance(dataset, KaggleConfig):
        file = folder / f"{dataset.handle.replace('/', '-')}-{dataset.version}.zip"
        fetch_kaggle(dataset.handle, dataset.version, file)
    else:
        file = folder / file_name(dataset.url)
        fetch(dataset.url, file, dataset.checksum)
    keep_only(folder, [file])  # a file with the right checksum is not fetched again
    return f"{file.name}, {file.stat().st_size / 1e6:.1f} MB"


def file_name(url: str) -> str:
    """The last part of a URL or a path, without its query and fragment."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name if ":" in url else Path(url).name
    return "archive" if name in ("", "..") else name


if __name__ == "__main__":
    run_stage(main, "datasets")
