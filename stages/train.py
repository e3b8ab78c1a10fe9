"""Trains a network end to end, from random or pretrained weights: models/<network>.

The trained network without its head is written to data/weights/<network> too: a backbone for other entries.
"""

import keras

from stages.artifacts import weights
from stages.artifacts.images import read_images
from stages.artifacts.models import Provenance
from stages.artifacts.tasks import read_task
from stages.backbones.augmentation import with_augmentation
from stages.backbones.pretrained import load_backbone, save_weights
from stages.core.files import atomic_directory
from stages.core.stage import run_stage
from stages.training.batches import examples_fingerprint, split_examples
from stages.training.full_model import build_network
from stages.training.optimizers import learning_rate_factors
from stages.training.repeats import BuiltModel, save_model, train_repeats
from stages.validation.study import Study


def main(study: Study, name: str) -> str:
    entry = study.networks[name]
    settings = entry.training(study.training)
    images, task = read_images(entry.dataset), read_task(entry.task)
    task.check_images(images.sha256, f"data/images/{entry.dataset}")
    image_size = images.pixels.shape[1]
    record = weights.read_weights_record(entry.backbone)

    def build(l2: float) -> BuiltModel:
        network, lower = build_network(name, entry, image_size, len(task.classes), l2)
        factors = learning_rate_factors(lower.layers, entry.layer_decay)
        return BuiltModel(network, with_augmentation(network, entry.augmentation), factors)

    origin = Provenance(kind="network", task=entry.task, backbone=entry.backbone, weights_sha256=record.sha256)
    examples = split_examples(task, images.pixels, lambda rows: rows, settings)
    fingerprint = [
        entry.model_dump(),
        settings.model_dump(),
        study.seed,
        record.sha256,
        images.sha256,
        examples_fingerprint(examples),
    ]
    candidates = [(settings, entry.l2)]
    network, result = train_repeats(
        name, build, candidates, examples, examples["train"], study.seed, origin, fingerprint
    )
    write_backbone(name, entry.backbone, network, image_size)
    return save_model(name, network, result)


def write_backbone(name: str, backbone: str, network: keras.Model, image_size: int) -> None:
    """Write the backbone with the trained weights of the network to data/weights/<name>; the head is left out.

    Layers above the cut keep the weights they had.
    """
    whole, record = load_backbone(backbone, image_size)
    trained = {layer.name: layer for layer in network.layers}
    for layer in whole.layers:
        if layer.name in trained:
            layer.set_weights(trained[layer.name].get_weights())
    with atomic_directory(weights.FOLDER / name) as folder:
        file = folder / "backbone.weights.h5"
        save_weights(whole, file)
        weights.write_weights_record(folder, record.architecture, name, image_size, file)


if __name__ == "__main__":
    run_stage(main, "networks")
