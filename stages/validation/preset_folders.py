"""Presets in folders: whether each is there, is one that the project supports, and is the one that the study means."""

import json
from collections.abc import Iterator
from pathlib import Path

from stages.artifacts.weights import read_weights_record
from stages.backbones.image_processors import timm_pixels, transformers_pixels
from stages.backbones.known_presets import FAMILIES, is_preset
from stages.backbones.preset_formats import TIMM, TRANSFORMERS, check_timm, preset_format, transformers_config
from stages.backbones.presets import PLACES, PRESET
from stages.config.backbones import BackboneConfig
from stages.core.errors import UserError
from stages.core.wording import listing
from stages.sources.preset_files import checksum_mismatch, preset_checksum, preset_folder
from stages.validation.entry_rules import WRITTEN_FOLDERS


def preset_folder_problems(backbones: dict[str, BackboneConfig]) -> Iterator[str]:
    """One sentence per preset in a folder that cannot be the weights of its backbone, without building it."""
    for name, entry in backbones.items():
        if is_preset(entry.architecture) and entry.weights != PRESET and not entry.weights.startswith(PLACES):
            yield from _folder_problems(name, entry)


def _folder_problems(name: str, entry: BackboneConfig) -> Iterator[str]:
    where = f"backbones.{name}"
    try:
        folder = preset_folder(entry.weights, f"{where}.weights")
    except UserError as error:
        if not _is_converted(name, entry):
            yield str(error)
        return
    if any(folder.resolve().is_relative_to(Path.cwd() / written) for written in WRITTEN_FOLDERS):
        yield f"{where}.weights: {entry.weights!r} is in a folder that stages write to. Move it to another folder."
        return
    sha256 = preset_checksum(folder)
    if problem := _config_problem(folder):
        yield f"{where}.weights: {entry.weights!r} is not a preset of an image backbone ({problem}). Give another one."
    elif problems := [*_other_format_problems(folder, f"{where}.weights")]:
        yield from problems
    elif entry.sha256 is None:
        yield (
            f"{where}.weights: {entry.weights!r} has no checksum. Give `sha256: {sha256}`, if this preset is the right "
            "one."
        )
    elif entry.sha256 != sha256:
        yield checksum_mismatch(where, entry.weights, sha256, entry.sha256)


def _is_converted(name: str, entry: BackboneConfig) -> bool:
    """Whether data/weights has the backbone of this preset: a clone of the project needs no folder then."""
    try:
        preset = read_weights_record(name).preset
    except UserError:
        return False
    return entry.sha256 is not None and (preset or {}).get("sha256") == entry.sha256


def _other_format_problems(folder: Path, where: str) -> Iterator[str]:
    """Why a model of transformers or of timm cannot be converted, as far as its configuration says."""
    file_format, config = preset_format(folder)
    checks = {
        TRANSFORMERS: (
            lambda: transformers_config(folder, config, where),
            lambda: transformers_pixels(folder, where),
        ),
        TIMM: (lambda: check_timm(folder, config, where), lambda: timm_pixels(config, where)),
    }
    for check in checks.get(file_format, ()):
        try:
            check()
        except UserError as error:
            yield str(error)


def _config_problem(folder: Path) -> str | None:
    """Why a preset in KerasHub's own format has no image backbone, as far as its config.json says."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError:
        return "its config.json is not JSON"
    if not isinstance(config, dict):
        return "its config.json has no class"
    if "registered_name" not in config:
        return None
    own = config.get("config")
    tower = own.get("vision_encoder") if isinstance(own, dict) else None  # of one for images and text
    class_name = (tower if isinstance(tower, dict) else config).get("class_name")
    if isinstance(class_name, str) and class_name in FAMILIES:
        return None
    return f"its class is {class_name}; possible are {listing(family for family, _ in FAMILIES.values())}"
