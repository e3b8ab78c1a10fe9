"""Decodes every image of a dataset once, into one uint8 array in data/images/<dataset>."""

import hashlib
import json
from pathlib import Path

import PIL

from stages import sources
from stages.config.datasets import DatasetConfig, FetchedDataset, LocalDataset
from stages.config.parsing import parse_entry
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.sources.readers import read_source, source_path
from stages.sources.writing import write_images


def main(params: Params, name: str) -> str:
    section, kind = ("folders", LocalDataset) if name in params.names("folders") else ("datasets", FetchedDataset)
    dataset = parse_entry(params, section, name, kind)
    path = source_path(name, dataset)
    return write_images(
        name,
        read_source(dataset, path),
        dataset.image_size,
        getattr(dataset, "max_unreadable", 0.0),
        dataset.resize,
        fingerprint(dataset, path),
    )


def fingerprint(dataset: DatasetConfig, path: Path) -> str:
    """A hash of everything that determines the prepared images; only a run with the same hash can be resumed.

    A source file is identified by its name, size and modification time, without reading it.
    """
    files = sorted(file for file in [path, *path.rglob("*")] if file.is_file())
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    code = [module.read_text(encoding="utf-8") for module in sorted(Path(sources.__path__[0]).glob("*.py"))]
    inputs = json.dumps([dataset.model_dump(), stats, code, PIL.__version__])
    return hashlib.sha256(inputs.encode("utf-8", "backslashreplace")).hexdigest()


if __name__ == "__main__":
    run_stage(main, "datasets", "folders")
