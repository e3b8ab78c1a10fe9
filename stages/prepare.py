"""Decodes every image of a dataset once into one uint8 array in data/images/<dataset>."""

from pathlib import Path

from stages.base.command import run_stage
from stages.sources.decoding import write_images
from stages.sources.readers import SOURCES
from stages.study import Study


def main(study: Study, name: str) -> str:
    dataset = study.datasets[name]
    source = SOURCES[dataset.source].images(dataset, Path("data/raw") / name)
    return write_images(name, source, dataset.image_size, getattr(dataset, "max_unreadable", 0.0))


if __name__ == "__main__":
    run_stage(main, section="datasets")
