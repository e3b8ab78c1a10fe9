"""Trains a network end to end, from random or pretrained weights: models/<network>.

The trained network without its head is also written to data/weights/<network>: a backbone for other entries.
"""

import keras
import pandas as pd

from stages.artifacts.images import read_images
from stages.artifacts.models import Provenance
from stages.artifacts.seen_images import images_seen_by, write_seen_images
from stages.artifacts.tasks import read_task
from stages.artifacts.weights import WEIGHTS_FOLDER, WeightsRecord, read_weights_record, write_weights_record
from stages.backbones.augmentation import with_augmentation
from stages.backbones.cuts import up_to_cut
from stages.backbones.layer_names import cut_layer, first_trained_layer
from stages.backbones.layer_table import layers_of
from stages.backbones.pooling import check_pooling, prefix_tokens
from stages.backbones.pretrained import load_backbone, save_weights
from stages.config.networks import NetworkConfig
from stages.config.parsing import model_settings, parse_entry, parse_training
from stages.core.files import atomic_directory
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.splitting.leaks import clean_folds, images_seen
from stages.training.batches import repeat_folds, split_examples
from stages.training.full_model import build_network, freeze
from stages.training.optimizers import learning_rate_factors
from stages.training.repeats import save_model, train_repeats
from stages.training.specification import BuiltModel, ModelDescription, TrainingData, TrainingSpec


def main(params: Params, name: str) -> str:
    entry = parse_entry(params, "networks", name, NetworkConfig)
    settings = parse_training(params, entry)
    images, task = read_images(entry.dataset), read_task(entry.task)
    task.check_images(images.sha256, f"data/images/{entry.dataset}")
    weights = read_weights_record(entry.backbone)
    layers = layers_of(weights.architecture, weights.preset)
    cut = cut_layer(layers, entry.cut or "top", f"networks.{name}.cut", weights.architecture)
    if layers[cut].shape != "vector":
        check_pooling(f"networks.{name}.pooling", entry.pooling, cut, layers[cut], weights.preset)
    prefix, lowest_trained = prefix_tokens(weights.preset), None
    if entry.trainable != "head":
        where = f"networks.{name}.trainable"
        lowest_trained = first_trained_layer(layers, entry.trainable, cut, where, weights.architecture)

    def build(_: int, l2: float) -> BuiltModel:
        backbone, _ = load_backbone(entry.backbone, images.image_size)
        freeze(backbone, entry, lowest_trained)
        network = build_network(name, entry, up_to_cut(backbone, cut), len(task.classes), l2, prefix)
        below_head = [layer for layer in backbone.layers if layer in network.layers]
        factors = learning_rate_factors(below_head, entry.layer_decay)
        return BuiltModel(network, with_augmentation(network, entry.augmentation), factors)

    description = ModelDescription(
        name=name,
        kind="network",
        task=entry.task,
        dataset=entry.dataset,
        classes=task.classes,
        image_size=images.image_size,
        resize=images.resize,
        bits=images.bits,
        settings=model_settings(entry),
        seed=params.seed,
        provenance=Provenance(
            images_sha256=images.sha256,
            task_settings=task.settings,
            backbone=entry.backbone,
            architecture=weights.architecture,
            backbone_sha256=weights.sha256,
            cut=cut,
            pooling=entry.pooling,
            lowest_trained_layer=lowest_trained,
            preset=weights.preset,
        ),
    )
    below = images_seen_by(entry.backbone)
    folds = repeat_folds(clean_folds(task, below, f"networks.{name}"), settings.repeats)
    data = {}
    for fold in folds:
        examples = split_examples(task, images.pixels, lambda rows: rows, settings, fold)
        data[fold] = TrainingData(examples, examples["train"])
    shares_start = weights.sha256 is not None and not entry.hidden
    trained = train_repeats(TrainingSpec(description, [(settings, entry.l2)], folds, shares_start), build, data)
    best = data[folds[trained.result.record.best_repeat]]
    seen = images_seen(task, name, folds, best.examples["train"].index, below)
    write_backbone(name, entry.backbone, trained.model, images.image_size, seen)
    return save_model(trained)


def write_backbone(name: str, backbone: str, network: keras.Model, image_size: int, seen: pd.DataFrame) -> None:
    """Write the backbone with the trained weights of the network to data/weights/<name>, without the head.

    Layers above the cut layer keep the weights they had. seen: the images that the network has seen.
    """
    model, record = load_backbone(backbone, image_size)
    trained = {layer.name: layer for layer in network.layers}
    for layer in model.layers:
        if layer.name in trained:
            layer.set_weights(trained[layer.name].get_weights())
    with atomic_directory(WEIGHTS_FOLDER / name) as folder:
        file = folder / "backbone.weights.h5"
        save_weights(model, file)
        write_seen_images(folder, seen)
        write_weights_record(folder, WeightsRecord(record.architecture, image_size, preset=record.preset), file)


if __name__ == "__main__":
    run_stage(main, "networks")
