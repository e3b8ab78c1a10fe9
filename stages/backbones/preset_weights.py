"""Writes the weights of a preset into data/weights/<backbone>."""

from stages.artifacts.weights import WEIGHTS_FOLDER, WeightsRecord, write_weights_record
from stages.backbones.known_presets import known_presets
from stages.backbones.layer_table import parse_layers
from stages.backbones.presets import PRESET
from stages.config.backbones import BackboneConfig
from stages.core.errors import UserError
from stages.core.files import atomic_directory
from stages.core.wording import counted
from stages.sources.preset_files import checksum_mismatch, preset_checksum, preset_folder


def write_preset(name: str, entry: BackboneConfig) -> str:
    """Fetch a preset, and write it as the weights of backbone `name`; returns a summary.

    `UserError` if it cannot be fetched, or is not what the entry says.
    """
    where = f"backbones.{name}.weights"
    known = known_presets().get(entry.architecture)
    source = known.handle if entry.weights == PRESET else entry.weights
    files = preset_folder(source, where)
    sha256 = preset_checksum(files)
    if entry.sha256 and entry.sha256 != sha256:
        raise UserError(checksum_mismatch(f"backbones.{name}", source, sha256, entry.sha256))
    from stages.backbones.preset_conversion import convert_preset  # KerasHub takes seconds to import

    # A name of its own: addresses may end alike, and that of a folder may be the name of another architecture.
    architecture = entry.architecture if known else f"{name}-preset"
    with atomic_directory(WEIGHTS_FOLDER / name) as folder:
        file = folder / "backbone.weights.h5"
        preset, parameters = convert_preset(files, file, architecture, where)
        layers = parse_layers(preset["layers"])
        if known and not known.describes(preset, layers, parameters):
            raise UserError(
                f"{where}: {source!r} is a {preset['class_name']} of {counted(len(layers), 'layer')} and "
                f"{counted(parameters, 'weight')}, and not {entry.architecture}. Give architecture: preset."
            )
        write_weights_record(folder, WeightsRecord(architecture, preset={**preset, "sha256": sha256}), file)
    return f"{architecture}, {source}, sha256 {sha256}"
