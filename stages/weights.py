"""Fetches the weights of a backbone into data/weights/<backbone>.

The stage `train` writes the same files for networks, so that a network of the study can be a backbone.
"""

import zipfile
from contextlib import suppress
from pathlib import Path

import h5py

from stages.artifacts.weights import WEIGHTS_FOLDER, WeightsRecord, read_weights_record, write_weights_record
from stages.backbones.known_presets import is_preset
from stages.backbones.preset_weights import write_preset
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
    if is_preset(entry.architecture):
        return write_preset(name, entry)
    if entry.weights == "random":
        keep_only(folder, [])
        write_weights_record(folder, WeightsRecord(entry.architecture))
        return f"{entry.architecture}, random weights"
    source, checksum = entry.weights, entry.sha256 and f"sha256:{entry.sha256}"
    if entry.weights == "imagenet":
        published = PUBLISHED_WEIGHTS[entry.architecture]
        source, checksum = published.url, checksum or published.checksum
    earlier_files = [path for path in folder.glob("backbone.*") if keras_suffix(path)]
    named = next((end for end in (".weights.h5", ".keras") if source.split("?")[0].endswith(end)), ".h5")
    # The same file is not fetched again.
    file = earlier_files[0] if earlier_files else folder / f"backbone{named}"
    earlier = None if checksum else earlier_checksum(name, entry.architecture)
    try:
        fetch(source, file, checksum or earlier, "weights")
    except UserError as error:
        if not earlier:
            raise
        raise UserError(
            f"{error} Weights without a published checksum must equal those of the last run: to replace them, delete "
            f"{folder} first."
        ) from None
    redacted = redact(source)
    suffix = keras_suffix(file)
    if suffix is None:
        file.unlink()
        raise UserError(
            f"backbones.{name}.weights: {redacted!r} is not a file of Keras weights. Give one that Keras saved "
            "(.weights.h5, .h5 or .keras), such as by model.save_weights('backbone.weights.h5'). Weights of PyTorch, "
            "ONNX and TensorFlow's own formats cannot be read."
        )
    file = file.rename(folder / f"backbone{suffix}")
    keep_only(folder, [file])
    record = write_weights_record(folder, WeightsRecord(entry.architecture), file)
    return f"{entry.architecture}, {redacted}, sha256 {record.sha256}"


def earlier_checksum(name: str, architecture: str) -> str | None:
    """The checksum of the weights that the last run fetched for the same architecture, if there are any."""
    with suppress(UserError):  # no weights yet, or damaged ones
        record = read_weights_record(name)
        if record.architecture == architecture and record.sha256:
            return f"sha256:{record.sha256}"
    return None


def keras_suffix(file: Path) -> str | None:
    """The suffix by which Keras recognizes the format of a file with weights; None if it has no such format."""
    try:
        if h5py.is_hdf5(file):
            with h5py.File(file) as content:
                is_old = "layer_names" in content.attrs or "model_weights" in content
            return ".h5" if is_old else ".weights.h5"
        with zipfile.ZipFile(file) as content:
            return ".keras" if "model.weights.h5" in content.namelist() else None
    except (OSError, RuntimeError, zipfile.BadZipFile):  # h5py raises each of them for a damaged file
        return None


if __name__ == "__main__":
    run_stage(main, "backbones")
