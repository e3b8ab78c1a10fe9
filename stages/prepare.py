"""Decodes every image of a dataset once into one uint8 array in data/images/<dataset>."""

import hashlib
import json
from pathlib import Path

import PIL

from stages import sources
from stages.base.command import run_stage
from stages.sources.readers import images_of, place_of
from stages.sources.writing import write_images
from stages.study import Study
from stages.study.schema import Images


def main(study: Study, name: str) -> str:
    dataset = study.dataset(name)
    place = place_of(name, dataset)
    return write_images(
        name,
        images_of(dataset, place),
        dataset.image_size,
        getattr(dataset, "max_unreadable", 0.0),
        dataset.resize,
        made_of(dataset, place),
    )


def made_of(dataset: Images, place: Path) -> str:
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
