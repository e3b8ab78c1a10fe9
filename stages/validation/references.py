"""Checks across entries: dangling names, names that do not agree, cycles, impossible layers and image sizes."""

from collections.abc import Iterable, Iterator
from typing import Any

from stages.backbones.layer_names import can_start_from, find_layer, lowest_trained_layer, selectable_layers
from stages.backbones.layer_table import layers_of
from stages.backbones.registry import ARCHITECTURES
from stages.config.datasets import CIFAR10_CLASSES, Cifar10Config, DigitsConfig
from stages.core.wording import did_you_mean, listing

# Classes that are known before the images are there, and the splits such datasets publish.
KNOWN_CLASSES = {DigitsConfig: [str(digit) for digit in range(10)], Cifar10Config: CIFAR10_CLASSES}
KNOWN_SPLITS = {DigitsConfig: [], Cifar10Config: ["train", "test"]}

# Which key of an entry names an entry of which section. A backbone may also be a network of the study, whose trained
# weights are then the backbone's.
REFERENCES = {
    "tasks": {"dataset": ["datasets", "folders"]},
    "networks": {"dataset": ["datasets", "folders"], "task": ["tasks"], "backbone": ["backbones", "networks"]},
    "features": {"dataset": ["datasets", "folders"], "backbone": ["backbones", "networks"]},
    "heads": {"task": ["tasks"], "features": ["features"]},
    "fine_tunes": {
        "dataset": ["datasets", "folders"],
        "task": ["tasks"],
        "backbone": ["backbones", "networks"],
        "head": ["heads"],
        "features": ["features"],
    },
}

# Sections whose entries write to the same folder (data/images, data/weights or models) must not share a name.
SHARED_FOLDERS = [
    ("folders", "datasets"),
    ("networks", "backbones"),
    ("networks", "heads"),
    ("networks", "fine_tunes"),
    ("heads", "fine_tunes"),
]


def reference_problems(study: dict[str, dict[str, Any]], named: dict[str, dict]) -> list[str]:
    """One sentence for each problem between entries.

    study: section -> name -> well-formed entry, `datasets` with those of `folders`. named: every entry the user wrote,
    without malformed sections, so that a reference to something with a problem of its own is not reported as dangling.
    """
    problems = [*_dangling(study, named), *_shared_names(named), *_cycles(study)]
    if not any(named.get(section, "malformed") for section in ("networks", "heads", "fine_tunes")):
        problems.append("networks, heads and fine_tunes are all empty; a study needs at least one model.")
    if problems:
        return problems  # what follows would stumble over the same names again
    return [
        *(problem for name in study["tasks"] for problem in _task(study, name)),
        *(problem for name in study["networks"] for problem in _network(study, name)),
        *(problem for name in study["features"] for problem in _features(study, name)),
        *(problem for name in study["heads"] for problem in _head(study, name)),
        *(problem for name in study["fine_tunes"] for problem in _fine_tune(study, name)),
    ]


def _dangling(study: dict, named: dict) -> Iterator[str]:
    for section, keys in REFERENCES.items():
        for name, entry in study[section].items():
            for key, targets in keys.items():
                value = getattr(entry, key)
                known = [other for target in targets for other in named.get(target, [value])]
                if value not in known:
                    yield (
                        f"{section}.{name}.{key}: there is no {value!r} in {' or '.join(targets)}"
                        f"{did_you_mean(value, known)}; accepted: {listing(known)}."
                    )


def _shared_names(named: dict) -> Iterator[str]:
    for one, other in SHARED_FOLDERS:
        for name in named.get(one, ()):
            if name in named.get(other, ()):
                yield f"{one}.{name}: the name also stands in {other}; give one of them another name."


def _cycles(study: dict) -> Iterator[str]:
    """Networks that start from each other in a ring; each ring is reported once, at the first of its names."""
    for name in study["networks"]:
        chain = [name]
        while (network := study["networks"].get(chain[-1])) and network.backbone not in chain:
            chain.append(network.backbone)
        if network and network.backbone == name == min(chain) and name not in study["backbones"]:
            yield (
                f"networks.{name}.backbone: {study['networks'][name].backbone!r} is not accepted; the network would "
                f"start from itself ({' -> '.join([*chain, name])}): name an entry of backbones in one of them."
            )


def architecture_of(study: dict, backbone: str) -> tuple[str, int | None] | None:
    """The architecture of a backbone and, where a network of the study trained it, its image size.

    None where an entry on the way has a problem of its own.
    """
    image_size = None
    while backbone in study["networks"]:
        network = study["networks"][backbone]
        dataset = study["datasets"].get(network.dataset)
        if dataset is None:
            return None
        image_size, backbone = image_size or dataset.image_size, network.backbone
    entry = study["backbones"].get(backbone)
    return (entry.architecture, image_size) if entry else None


def _agree(where: str, key: str, value: str, source: str, expected: str) -> Iterator[str]:
    if value != expected:
        yield f"{where}.{key}: {value!r} is not accepted; it must be {expected!r}, as in {source}."


def _no_layer(where: str, key: str, value: str | int, architecture: str, accepted: list[str], note: str = "") -> str:
    what = f"no layer {value!r}" if isinstance(value, str) else f"fewer than {value} layers"
    return (
        f"{where}.{key}: {architecture} has {what}{note}{did_you_mean(value, accepted)}; accepted: {listing(accepted)}."
    )


def _image_fits(study: dict, where: str, entry: Any) -> Iterator[str]:
    """The images of the entry's dataset can go through its backbone."""
    found = architecture_of(study, entry.backbone)
    dataset = study["datasets"].get(entry.dataset)
    if found is None or dataset is None:
        return
    architecture, trained_size = found
    smallest = ARCHITECTURES[architecture].smallest_image
    if dataset.image_size < smallest:
        yield (
            f"{where}.dataset: the images of {entry.dataset!r} have {dataset.image_size} pixels a side, but "
            f"{architecture} needs at least {smallest}; raise datasets.{entry.dataset}.image_size."
        )
    elif trained_size and not ARCHITECTURES[architecture].any_size and dataset.image_size != trained_size:
        yield (
            f"{where}.dataset: the images of {entry.dataset!r} have {dataset.image_size} pixels a side, but backbone "
            f"{entry.backbone!r} was trained on {trained_size} and {architecture} cannot change its size; use a "
            f"dataset with image_size: {trained_size}."
        )


def _random_backbone(study: dict, entry: Any) -> bool:
    backbone = study["backbones"].get(entry.backbone)
    return backbone is not None and backbone.weights == "random"


def _dataset_of_task(study: dict, where: str, entry: Any) -> Iterator[str]:
    if task := study["tasks"].get(entry.task):
        yield from _agree(where, "dataset", entry.dataset, f"tasks.{entry.task}", task.dataset)


def _task(study: dict, name: str) -> Iterator[str]:
    task = study["tasks"][name]
    for key, listed in (("include", task.include), ("exclude", task.exclude)):
        yield from _unknown_classes(study, f"tasks.{name}.{key}", task.dataset, listed, task.rename.values())
    yield from _unknown_classes(study, f"tasks.{name}.rename", task.dataset, list(task.rename))
    known = KNOWN_SPLITS.get(type(study["datasets"].get(task.dataset)))
    for key in ("validation", "test"):
        if getattr(task, key) == "published" and known is not None and key not in known:
            yield (
                f"tasks.{name}.{key}: 'published' is not accepted, because dataset {task.dataset!r} publishes no {key} "
                f"images (its splits: {listing(known)}); give a share, or a number of images per class."
            )


def _network(study: dict, name: str) -> Iterator[str]:
    network, where = study["networks"][name], f"networks.{name}"
    yield from _dataset_of_task(study, where, network)
    yield from _image_fits(study, where, network)
    if (found := architecture_of(study, network.backbone)) is None:
        return
    cut = find_layer(found[0], network.cut or "top", "highest")
    if cut is None:
        yield _no_layer(where, "cut", network.cut, found[0], selectable_layers(found[0]))
    elif network.trainable == "all":
        return
    elif network.trainable != "head" and lowest_trained_layer(found[0], network.trainable, cut) is None:
        accepted = ["all", "head", *selectable_layers(found[0])]
        yield _no_layer(where, "trainable", network.trainable, found[0], accepted)
    elif _random_backbone(study, network):
        yield f"{where}.trainable: {network.trainable!r} would freeze random weights; use all."


def _features(study: dict, name: str) -> Iterator[str]:
    features, where = study["features"][name], f"features.{name}"
    yield from _unknown_classes(study, f"{where}.classes", features.dataset, features.classes)
    yield from _image_fits(study, where, features)
    if _random_backbone(study, features):
        yield f"{where}.backbone: {features.backbone!r} has random weights; name a network or a trained backbone."
    if not (found := architecture_of(study, features.backbone)):
        return
    layers, seen = layers_of(found[0]), {}
    for named in features.cuts:
        cut = find_layer(found[0], named, "highest")
        if cut is None:
            yield _no_layer(where, "cut", named, found[0], selectable_layers(found[0]))
        elif cut in seen:
            yield f"{where}.cut: {seen[cut]!r} and {named!r} are one layer, {cut}; leave one of them out."
        elif features.pooling != "none" and not layers[cut].image:
            poolable = [name for name, layer in layers.items() if layer.image]
            yield (
                f"{where}.pooling: {features.pooling!r} is not accepted, because the activations of {cut} are no "
                f"image; use pooling: none, or cut {found[0]} at one of {listing(poolable)}."
            )
        seen[cut] = named


def _head(study: dict, name: str) -> Iterator[str]:
    head, where = study["heads"][name], f"heads.{name}"
    features, task = study["features"].get(head.features), study["tasks"].get(head.task)
    if features and task and features.dataset != task.dataset:
        yield (
            f"{where}.features: {head.features!r} is made of dataset {features.dataset!r}; name features of "
            f"{task.dataset!r}, the dataset of tasks.{head.task}."
        )
    yield from _classes(study, where, head.features, head.task)
    if features is None:
        return
    found = architecture_of(study, features.backbone)
    cut = found and cut_of(found[0], features, head)
    if head.cut is None and len(features.cuts) > 1:
        yield (
            f"{where}.cut: the key is missing, because features.{head.features} have several cuts; give one of "
            f"{listing(features.cuts)}."
        )
    elif head.cut is not None and found and cut is None:
        yield (
            f"{where}.cut: {head.cut!r} is not among the cuts of features.{head.features}; accepted: "
            f"{listing(features.cuts)}."
        )
    if head.views is not None and head.views > len(features.views) + 1:
        yield (
            f"{where}.views: {head.views} is not accepted, because features.{head.features} have "
            f"{len(features.views) + 1}, the images themselves among them; give at most so many."
        )
    if head.start_from != "backbone":
        return
    if features.pooling != "none":
        yield (
            f"{where}.start_from: 'backbone' is not accepted, because features.{head.features} has pooling: "
            f"{features.pooling}; use features with pooling: none, or start_from: random."
        )
        return
    layers = layers_of(found[0]) if found else {}
    if cut and not layers[cut].separates:
        separating = [name for name, layer in layers.items() if layer.separates]
        yield (
            f"{where}.start_from: 'backbone' is not accepted, because other paths pass beside the cut {cut!r} "
            f"of features.{head.features}; use start_from: random, or cut {found[0]} at one of {listing(separating)}."
        )


def _labels(study: dict, dataset: str, chosen: list | None, left_out: list | None = None) -> set[int] | None:
    """The labels that a choice of classes means; None where that is known only when the images are there."""
    classes = KNOWN_CLASSES.get(type(study["datasets"].get(dataset)), [])
    listed = [*(chosen or []), *(left_out or [])]
    if not all(isinstance(each, int) or each in classes for each in listed):
        return None
    label_of = {each: each if isinstance(each, int) else classes.index(each) for each in listed}
    if chosen is None:
        return set(range(len(classes))) - {label_of[each] for each in left_out or []} if classes else None
    return {label_of[each] for each in chosen}


def _unknown_classes(
    study: dict, where: str, dataset: str, listed: list | None, also: Iterable[str] = ()
) -> Iterator[str]:
    """Classes that the dataset does not have, where its classes are known; also: names that are accepted besides."""
    classes = KNOWN_CLASSES.get(type(study["datasets"].get(dataset)))
    if listed and classes:
        numbers = range(len(classes))
        unknown = [each for each in listed if each not in numbers and each not in classes and each not in also]
        if unknown:
            names = "" if classes == list(map(str, numbers)) else f", or {listing(classes)}"
            yield (
                f"{where}: {listing(unknown)} is not accepted; the classes of {dataset!r} are 0 to {len(classes) - 1}"
                f"{names}."
            )


def _classes(study: dict, where: str, features: str, name: str) -> Iterator[str]:
    """The features that `where` names have the classes of task `name`, as far as that is known."""
    fingerprint, task = study["features"].get(features), study["tasks"].get(name)
    if fingerprint is None or task is None or fingerprint.classes is None or fingerprint.dataset != task.dataset:
        return
    has = _labels(study, fingerprint.dataset, fingerprint.classes)
    wants = _labels(study, task.dataset, task.include, task.exclude)
    if has is not None and wants is not None and wants - has:
        yield (
            f"{where}.features: {features!r} is not accepted, because features.{features}.classes lacks "
            f"{listing(sorted(wants - has))} of tasks.{name}; add them there, or leave the key out for all classes."
        )


def _fine_tune(study: dict, name: str) -> Iterator[str]:
    tune, where = study["fine_tunes"][name], f"fine_tunes.{name}"
    yield from _dataset_of_task(study, where, tune)
    head, features = study["heads"].get(tune.head), study["features"].get(tune.features)
    if features:
        yield from _agree(where, "dataset", tune.dataset, f"features.{tune.features}", features.dataset)
    if head is None:
        return
    yield from _agree(where, "task", tune.task, f"heads.{tune.head}", head.task)
    if tune.features != head.features and tune.task == head.task:
        yield from _classes(study, where, tune.features, tune.task)
    below = study["features"].get(head.features)
    # A backbone that disagrees with both features is one problem, and then its layers say nothing.
    for name, fingerprint in ((head.features, below), (tune.features, features)):
        if fingerprint and fingerprint.backbone != tune.backbone:
            yield from _agree(where, "backbone", tune.backbone, f"features.{name}", fingerprint.backbone)
            return
    found = architecture_of(study, tune.backbone)
    if below is None or found is None:
        return
    cut = cut_of(found[0], below, head)
    if cut is None:
        return
    layers = layers_of(found[0])
    lowest = lowest_trained_layer(found[0], tune.unfreeze, cut)
    if lowest is None:
        upto = list(layers)[: list(layers).index(cut) + 1]
        note = f" up to the cut {cut!r} of heads.{tune.head}"
        yield _no_layer(where, "unfreeze", tune.unfreeze, found[0], ["all", *upto], note)
    elif features and tune.features != head.features:
        yield from _start(where, tune, head.features, features, found[0], lowest)


def _start(where: str, tune: Any, of_head: str, features: Any, architecture: str, lowest: str) -> Iterator[str]:
    """Training can start from the features: else they would be computed, and their cost counted, for nothing."""
    layers = layers_of(architecture)
    if tune.augmentation:
        yield (
            f"{where}.features: with augmentation, training starts from the images, not from {tune.features!r}; name "
            f"{of_head!r}, those of the head, or leave augmentation out."
        )
        return
    cuts = [cut for cut in (find_layer(architecture, named, "highest") for named in features.cuts) if cut]
    if cuts and not any(can_start_from(cut, features.pooling, layers, lowest) for cut in cuts):
        names = list(layers)
        fitting = [name for name in names[: names.index(lowest)] if layers[name].separates]
        other = f"features with pooling: none and a cut at one of {listing(fitting)}, or " if fitting else ""
        yield (
            f"{where}.features: training from {lowest!r} upward cannot start from {tune.features!r} (cut "
            f"{listing(cuts)}, pooling {features.pooling}); name {other}{of_head!r}, those of the head, to start from "
            "the images."
        )


def cut_of(architecture: str, features: Any, head: Any) -> str | None:
    """The layer at whose features a head stands; None where that is not clear, or there is none."""
    cuts = [find_layer(architecture, named, "highest") for named in features.cuts]
    if head.cut is None:
        return cuts[0] if len(cuts) == 1 else None
    found = find_layer(architecture, head.cut, "highest")
    return found if found in cuts else None
