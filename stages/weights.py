"""Fetches the weights of a backbone into data/weights/<backbone>.

The stage `train` writes the same files for each network, so that a network of the study can be a backbone.
"""

from contextlib import suppress

import h5py

from stages.artifacts.weights import WEIGHTS_FOLDER, read_weights_record, write_weights_record
from stages.backbones.published_weights import PUBLISHED_WEIGHTS
from stages.config.backbones import BackboneConfig
from stages.config.parsing import parse_entry
from stages.core.errors import UserError
from stages.core.files import keep_only
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.sources.fetch import fetch
from stages.sources.urls import redact


def main(params: Params, name: str) -> str:
    entry = parse_entry(params, "backbones", name, BackboneConfig)
    folder = WEIGHTS_FOLDER / name
    if entry.weights == "random":
        keep_only(folder, [])
        write_weights_record(folder, entry.architecture)
        return f"{entry.architecture}, random weights"
    source, checksum = entry.weights, entry.sha256 and f"sha256:{entry.sha256}"
    if entry.weights == "imagenet":
        published = PUBLISHED_WEIGHTS[entry.architecture]
        source, checksum = published.url, checksum or published.checksum
    file = folder / ("backbone.weights.h5" if source.split("?")[0].endswith(".weights.h5") else "backbone.h5")
    earlier = None if checksum else earlier_checksum(name, entry.architecture)
    try:
        fetch(source, file, checksum or earlier)
    except UserError as error:
        if not earlier:
            raise
        raise UserError(
            f"{error} Weights without a published checksum must equal those of the last run: to replace them, delete "
            f"{folder} first."
        ) from None
    redacted = redact(source)
    if not h5py.is_hdf5(file):
        file.unlink()
        raise UserError(f"backbones.{name}.weights: {redacted!r} is not an HDF5 file. Give weights that Keras saved.")
    keep_only(folder, [file])
    record = write_weights_record(folder, entry.architecture, file=file)
    return f"{entry.architecture}, {redacted}, sha256 {record.sha256}"


def earlier_checksum(name: str, architecture: str) -> str | None:
    """The checksum of the weights that the last run fetched for the same architecture, if there are any."""
    with suppress(UserError):  # no weights yet, or damaged ones
        record = read_weights_record(name)
        if record.architecture == architecture and record.sha256:
            return f"sha256:{record.sha256}"
    return None


if __name__ == "__main__":
    run_stage(main, "backbones")
