"""Fetches the source of a dataset as it is, as one file, into data/raw/<dataset>."""

import importlib.resources
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from stages.config.datasets import DigitsConfig, KaggleConfig
from stages.core.files import keep_only
from stages.core.stage import run_stage
from stages.sources.fetch import fetch
from stages.sources.kaggle import fetch_kaggle
from stages.validation.study import Study

# Of the file in scikit-learn: another version of it must not pass for the same data.
DIGITS_CHECKSUM = "sha256:09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"


def main(study: Study, name: str) -> str:
    dataset = study.datasets[name]
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
    keep_only(folder, [file])  # the file itself is kept where it is there and right, not fetched again
    return f"{file.name}, {file.stat().st_size / 1e6:.1f} MB"


def file_name(url: str) -> str:
    """The last part of an address or a path, without what follows a ? or #."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name if ":" in url else Path(url).name
    return "archive" if name in ("", "..") else name


if __name__ == "__main__":
    run_stage(main, "datasets")
