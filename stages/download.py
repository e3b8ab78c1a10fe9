"""Fetches the source of a dataset as it is into data/raw/<dataset>."""

from pathlib import Path

from stages.base.command import run_stage
from stages.base.files import keep_only
from stages.sources.readers import SOURCES
from stages.study import Study


def main(study: Study, name: str) -> str:
    dataset = study.datasets[name]
    folder = Path("data/raw") / name
    file = SOURCES[dataset.source].download(dataset, folder)
    keep_only(folder, [file])  # the file itself is kept where it is there and right, not fetched again
    return f"{file.name}, {file.stat().st_size / 1e6:.1f} MB"


if __name__ == "__main__":
    run_stage(main, section="datasets")
