"""Decodes every image of a dataset once into one uint8 array in data/images/<dataset>."""

import hashlib
import json
from pathlib import Path

import PIL

from stages import sources
from stages.config.datasets import DatasetConfig
from stages.core.stage import run_stage
from stages.sources.readers import read_source, source_path
from stages.sources.writing import write_images
from stages.validation.study import Study


def main(study: Study, name: str) -> str:
    dataset = study.dataset(name)
    place = source_path(name, dataset)
    return write_images(
        name,
        read_source(dataset, place),
        dataset.image_size,
        getattr(dataset, "max_unreadable", 0.0),
        dataset.resize,
        fingerprint(dataset, place),
    )


def fingerprint(dataset: DatasetConfig, place: Path) -> str:
    """A hash of everything that decides what is prepared; a killed run is taken up only where it is the same.

    Files are told by name, size and time of change, without reading them.
    """
    files = sorted(path for path in [place, *place.rglob("*")] if path.is_file())
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    code = [module.read_text(encoding="utf-8") for module in sorted(Path(sources.__path__[0]).glob("*.py"))]
    told = json.dumps([dataset.model_dump(), stats, code, PIL.__version__])
    return hashlib.sha256(told.encode("utf-8", "backslashreplace")).hexdigest()


if __name__ == "__main__":
    run_stage(main, "datasets", "folders")
