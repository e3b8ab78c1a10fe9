"""Rules between the keys of one entry, each of which is valid by itself."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from stages.backbones.known_presets import is_preset, known_presets
from stages.backbones.presets import PLACES, PRESET
from stages.backbones.published_weights import PUBLISHED_WEIGHTS
from stages.backbones.registry import ARCHITECTURES
from stages.config.augmentation import AugmentationConfig
from stages.config.backbones import BackboneConfig
from stages.config.datasets import ArchiveConfig, DownloadConfig, LocalConfig
from stages.config.features import FeaturesConfig
from stages.config.fine_tunes import FineTuneConfig
from stages.config.heads import HeadConfig
from stages.config.networks import ImageModelConfig
from stages.config.probes import ProbeConfig
from stages.config.tasks import TaskConfig
from stages.config.training import TrainingConfig
from stages.core.files import sha256_of
from stages.core.wording import counted, did_you_mean, listing
from stages.sources.preset_files import HUGGING_FACE, is_commit
from stages.sources.urls import is_url, local_path
from stages.validation.credentials import credential_problem

WRITTEN_FOLDERS = ("data", "models", "reports", "exports")  # by stages
LAYER_KEYS = ("hidden", "activation", "batch_normalization", "dropout")


def entry_problems(where: str, entry: Any) -> Iterator[str]:
    """One sentence per rule that a parsed entry breaks; where: the entry, such as `heads.b-one-layer`."""
    for kind, rule in RULES:
        if isinstance(entry, kind):
            yield from rule(where, entry)


def _credentials(where: str, entry: DownloadConfig | BackboneConfig) -> Iterator[str]:
    key = "url" if isinstance(entry, DownloadConfig) else "weights"
    if problem := credential_problem(getattr(entry, key)):
        yield f"{where}.{key}: {problem}"


def _download(where: str, entry: DownloadConfig) -> Iterator[str]:
    if entry.sha256 and entry.md5:
        yield f"{where}: sha256 and md5 are both given. Give one of them."


def _archive(where: str, entry: ArchiveConfig) -> Iterator[str]:
    if entry.checksum is None:
        yield f"{where}: the checksum is missing. {_give_checksum(entry.url)}"


def _give_checksum(source: str) -> str:
    """The remedy for a missing checksum: that of the file if it is there, ready to copy."""
    with suppress(OSError):  # of a path that is too long, or a file without permission to read it
        if not is_url(source) and local_path(source).is_file():
            return f"Give `sha256: {sha256_of(local_path(source))}`, if this file is the right one."
    name = re.split("[?#]", source)[0].rpartition("/")[2] if is_url(source) else source
    return f"Give sha256 of the file, as `sha256sum {name}` prints it."


def _local_folder(where: str, entry: LocalConfig) -> Iterator[str]:
    if "://" in entry.path:  # DVC would connect to it
        yield f"{where}.path: a URL is not valid. Give the path of a folder on this machine."
        return
    # DVC has the path from params.yaml itself, and expands nothing.
    expanded = os.path.expandvars(os.path.expanduser(entry.path))  # noqa: PTH111
    if expanded != entry.path:
        yield f"{where}.path: {entry.path!r} is not expanded here, as a shell would. Write {expanded!r}."
        return
    folder, project = Path(entry.path).resolve(), Path.cwd()
    if project.is_relative_to(folder):
        yield f"{where}.path: {entry.path!r} contains the project itself. Give a folder that contains only the images."
    elif any(folder.is_relative_to(project / written) for written in WRITTEN_FOLDERS):
        yield f"{where}.path: {entry.path!r} is in a folder that stages write to. Move the images to another folder."


def _task(where: str, entry: TaskConfig) -> Iterator[str]:
    settled = entry.settled(published=())
    shares = [share for share in (settled.validation, settled.test) if isinstance(share, float)]
    if sum(shares) >= 1:
        yield (
            f"{where}: validation {settled.validation} and test {settled.test} leave no images for training. Give "
            "shares with a sum below 1."
        )
    if entry.include is not None and entry.exclude is not None:
        yield f"{where}: include and exclude are both given. Give one of them."
    elif entry.include is not None and len(set(entry.include)) < 2:
        yield f"{where}.include: {entry.include} is one class. Give at least two."
    try:
        re.compile(entry.group or "")
    except re.error as error:
        yield (
            f"{where}.group: {entry.group!r} is not a regular expression ({error}). Give one, such as 'patient\\d+'."
        )


def _backbone(where: str, entry: BackboneConfig) -> Iterator[str]:
    if is_preset(entry.architecture):
        yield from _preset(where, entry)
    elif entry.architecture not in ARCHITECTURES:
        yield (
            f"{where}.architecture: {entry.architecture!r} does not exist"
            f"{did_you_mean(entry.architecture, [*ARCHITECTURES, *known_presets(), PRESET])}. Architectures: "
            f"{listing(ARCHITECTURES)}. Or a preset of KerasHub, as in docs/backbones.md."
        )
    elif entry.weights == PRESET or entry.weights.startswith(PLACES):
        yield (
            f"{where}.weights: {entry.weights!r} is for presets of KerasHub, and {entry.architecture} is not one. Give "
            "imagenet, random, or a path or URL with its sha256, or give the preset as the architecture."
        )
    elif entry.weights == "imagenet" and entry.architecture not in PUBLISHED_WEIGHTS:
        yield (
            f"{where}.weights: {entry.architecture} has no ImageNet weights. Give random, or a path or URL with its "
            "sha256."
        )
    elif entry.weights == "random" and entry.sha256 is not None:
        yield f"{where}.sha256: random weights have no checksum. Leave it out."
    elif entry.weights not in ("random", "imagenet") and entry.sha256 is None:
        yield (
            f"{where}.weights: {entry.weights!r} has no checksum. {_give_checksum(entry.weights)} Or give random or "
            "imagenet; a network of the study is a backbone under its own name."
        )


def _preset(where: str, entry: BackboneConfig) -> Iterator[str]:
    if entry.architecture == PRESET and entry.weights == PRESET:
        yield f"{where}.weights: preset does not say which one. Give a folder, kaggle://... or hf://...."
    elif entry.weights in ("random", "imagenet") or entry.weights.startswith(("http://", "https://")):
        own = "" if entry.architecture == PRESET else "preset, or "
        yield (
            f"{where}.weights: {entry.weights!r} is not possible with a preset of KerasHub. Give {own}the place of "
            "one: a folder, kaggle://owner/model/keras/variation/version or hf://owner/model@commit."
        )
    elif entry.weights.startswith(HUGGING_FACE) and entry.sha256 is None and not is_commit(entry.weights):
        name = entry.weights.removeprefix(HUGGING_FACE).partition("@")[0]
        yield (
            f"{where}.weights: {entry.weights!r} can have other files tomorrow. Give {HUGGING_FACE}{name}@ and the 40 "
            f"digits of a commit on https://huggingface.co/{name}/commits/main, or give sha256."
        )


def training_problems(where: str, settings: TrainingConfig) -> Iterator[str]:
    """One sentence per rule that training settings break: those of section `training`, or of a model."""
    if settings.momentum and settings.optimizer not in ("sgd", "rmsprop"):
        yield (
            f"{where}.momentum: {settings.momentum} is not valid with optimizer {settings.optimizer}. Use sgd or "
            "rmsprop, or leave momentum out."
        )
    if settings.warm_up >= settings.epochs:
        yield f"{where}.warm_up: {settings.warm_up} is not valid with {counted(settings.epochs, 'epoch')}. Give fewer."


def _head(where: str, entry: HeadConfig) -> Iterator[str]:
    given = [f"{key} {getattr(entry, key)}" for key in LAYER_KEYS if key in entry.model_fields_set]
    if entry.start_from == "backbone" and given:
        yield (
            f"{where}: {' and '.join(given)} cannot be combined with start_from: backbone, which uses the backbone's "
            "own layers. Leave out one or the other."
        )


def _probe(where: str, entry: ProbeConfig) -> Iterator[str]:
    if entry.kind == "nearest_neighbors" and entry.l2 is not None:
        yield f"{where}.l2: nearest_neighbors has no penalty. Leave l2 out, or use kind ridge or logistic."
    if entry.kind != "nearest_neighbors" and entry.neighbors is not None:
        yield f"{where}.neighbors: {entry.kind} has no neighbors. Leave neighbors out, or use kind nearest_neighbors."


def _augmentations(where: str, entry: ImageModelConfig | FeaturesConfig) -> Iterator[str]:
    key = "views" if isinstance(entry, FeaturesConfig) else "augmentation"
    for augmentation in entry.views if key == "views" else [entry.augmentation]:
        if isinstance(augmentation, AugmentationConfig) and not augmentation.model_fields_set - {"fill"}:
            yield f"{where}.{key}: an augmentation changes nothing. Give rotation, shift, zoom or another key."


def _fine_tune(where: str, entry: FineTuneConfig) -> Iterator[str]:
    if entry.unfreeze is not None and entry.tuning:
        yield f"{where}: unfreeze and tuning are both given. Give one of them."
    elif entry.unfreeze is None and entry.tuning is None:
        yield f"{where}: unfreeze is missing. Give a layer or `all`, or give tuning: lora, bias or normalization."
    if "rank" in entry.model_fields_set and entry.tuning != "lora":
        yield f"{where}.rank: {entry.rank} is only valid with tuning: lora. Leave rank out."
    if entry.tuning and entry.layer_decay != 1:
        yield f"{where}.layer_decay: {entry.layer_decay} is not valid with tuning. Leave it out, or give unfreeze."
    if entry.tuning and entry.train_batch_normalization:
        yield (
            f"{where}.train_batch_normalization: with tuning, the statistics of batch normalization stay frozen. Leave "
            "it out, or give unfreeze; tuning: normalization trains its scales and shifts."
        )


RULES: list[tuple[Any, Callable[[str, Any], Iterator[str]]]] = [
    (DownloadConfig | BackboneConfig, _credentials),
    (DownloadConfig, _download),
    (ArchiveConfig, _archive),
    (LocalConfig, _local_folder),
    (TaskConfig, _task),
    (BackboneConfig, _backbone),
    (TrainingConfig, training_problems),
    (HeadConfig, _head),
    (FineTuneConfig, _fine_tune),
    (ProbeConfig, _probe),
    (ImageModelConfig | FeaturesConfig, _augmentations),
]
