"""Brings the weights of a backbone to data/weights/<backbone>.

The train stage writes the same files for each network, so that a network of the study can be a backbone.
"""

from contextlib import suppress

import h5py

from stages.artifacts.weights import WEIGHTS_FOLDER, read_weights_record, write_weights_record
from stages.backbones.registry import ARCHITECTURES
from stages.config.backbones import BackboneConfig
from stages.core.errors import UserError
from stages.core.files import keep_only
from stages.core.stage import run_stage
from stages.sources.fetch import fetch
from stages.sources.urls import redact
from stages.validation.study import Study


def main(study: Study, name: str) -> str:
    entry = study.backbones[name]
    folder = WEIGHTS_FOLDER / name
    if entry.weights == "random":
        keep_only(folder, [])
        write_weights_record(folder, entry.architecture, "random")
        return f"{entry.architecture}, random weights"
    source, checksum = entry.weights, entry.sha256 and f"sha256:{entry.sha256}"
    if entry.weights == "imagenet":
        architecture = ARCHITECTURES[entry.architecture]
        source = architecture.imagenet
        checksum = checksum or architecture.imagenet_checksum
    file = folder / ("backbone.weights.h5" if source.split("?")[0].endswith(".weights.h5") else "backbone.h5")
    fetch(source, file, checksum or recorded_checksum(name, entry))
    shown = redact(source)
    if not h5py.is_hdf5(file):
        file.unlink()
        raise UserError(f"backbones.{name}.weights: {shown!r} is not an HDF5 file; give weights that Keras saved.")
    keep_only(folder, [file])
    record = write_weights_record(folder, entry.architecture, entry.weights, file=file)
    return f"{entry.architecture}, {shown}, sha256 {record.sha256}"


def recorded_checksum(name: str, entry: BackboneConfig) -> str | None:
    """The checksum of what was fetched before for the same entry, where nobody publishes one: it must not change."""
    with suppress(UserError):  # nothing there yet
        record = read_weights_record(name)
        if (record.architecture, record.source) == (entry.architecture, entry.weights):
            return f"sha256:{record.sha256}"
    return None


if __name__ == "__main__":
    run_stage(main, "backbones")
