"""Fetches the source of a dataset as it is into data/raw/<dataset>."""

from pathlib import Path

from stages.base.command import run_stage
from stages.base.files import atomic_directory
from stages.sources.readers import SOURCES
from stages.study import Study


def main(study: Study, name: str) -> str:
    dataset = study.datasets[name]
    with atomic_directory(Path("data/raw") / name) as folder:
        SOURCES[dataset.source].download(dataset, folder)
        files = sorted(folder.iterdir())
        size = sum(file.stat().st_size for file in files)
        return f"{', '.join(file.name for file in files)}, {size / 1e6:.1f} MB"


if __name__ == "__main__":
    run_stage(main, section="datasets")
