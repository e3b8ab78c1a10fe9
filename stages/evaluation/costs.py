"""What a model costs with everything of the study that it is built on."""

from stages.artifacts.costs import read_cost
from stages.artifacts.models import ModelResult
from stages.backbones.layer_names import can_start_from, find_layer, lowest_trained_layer
from stages.backbones.layer_table import layers_of
from stages.validation.references import REFERENCES
from stages.validation.study import Study

COSTLY = ("networks", "features", "heads", "fine_tunes")


def built_on(study: Study, model: str) -> list[tuple[str, str]]:
    """(section, entry) of a model and of all that it is built on, each once, the model first.

    A head is built on its features, these on their backbone, which may be a network of the study, and so on. Data
    sets and weights from elsewhere are not counted.
    """
    section = next(section for section in COSTLY if section != "features" and model in getattr(study, section))
    parts = [(section, model)]
    for part_section, part in parts:  # grows while it is walked
        entry = getattr(study, part_section)[part]
        for key, targets in REFERENCES[part_section].items():
            name = getattr(entry, key)
            found = [(target, name) for target in targets if target in COSTLY and name in getattr(study, target)]
            parts += [each for each in found if each not in parts]
    return parts


def total_seconds(study: Study, model: str, results: dict[str, ModelResult]) -> float:
    """Seconds of one repeat of a model and of all that it is built on, each counted once.

    Of features as much as the model uses, see `images_used`, whatever else they are computed for; where they have
    several cuts, the lower ones cost as much as the highest.
    """
    parts = built_on(study, model)
    total = 0.0
    for section, part in parts:
        if section == "features":
            cost = read_cost("features", part)
            total += images_used(study, part, parts, results) / cost.images_per_second
        else:
            total += results[part].cost.seconds
    return total


def images_used(study: Study, features: str, parts: list[tuple[str, str]], results: dict[str, ModelResult]) -> int:
    """How many images, changed copies counted by themselves, models among `parts` take from a cache of features.

    The training images in all views that are trained on, and the validation images. Where several models take from
    it, each image counts once: all take the same ones first. Test images are no part of what it takes to make a model.
    """
    trained, validation = [0] * (1 + len(study.features[features].views)), 0
    for section, part in parts:
        entry = getattr(study, section)[part]
        if section not in ("heads", "fine_tunes") or entry.features != features:
            continue
        record = results[part].record
        if section == "fine_tunes" and not starts_from_features(study, part, record.cut):
            continue
        views = 1 if section == "fine_tunes" else min(entry.views or len(trained), len(trained))
        trained[:views] = [max(before, record.train_images) for before in trained[:views]]
        validation = len(results[part].predictions["validation"].index)
    return sum(trained) + validation


def starts_from_features(study: Study, fine_tune: str, cut: str) -> bool:
    """Whether a fine-tune of a head on `cut` is trained from cached features, not from the images."""
    entry = study.fine_tunes[fine_tune]
    architecture = study.architecture(entry.backbone)
    lowest, layers = lowest_trained_layer(architecture, entry.unfreeze, cut), layers_of(architecture)
    features = study.features[entry.features]
    cuts = [find_layer(architecture, each, "highest") for each in features.cuts]
    return not entry.augmentation and any(can_start_from(each, features.pooling, layers, lowest) for each in cuts)
