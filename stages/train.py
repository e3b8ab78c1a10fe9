"""Trains a network end to end, from random or pretrained weights: models/<network>.

The trained network without its head is written to data/weights/<network> too: a backbone for other entries.
"""

import keras

from stages.base.command import run_stage
from stages.base.files import atomic_directory
from stages.data import weights
from stages.data.images import read_images
from stages.data.results import Origin
from stages.data.tasks import read_task
from stages.networks.augmentation import augmented
from stages.networks.pretrained import load_backbone, save_weights
from stages.networks.whole import build_network
from stages.study import Study
from stages.training.batches import content_of, examples_of
from stages.training.compiling import layer_factors
from stages.training.repeats import Built, save_model, train_repeats


def main(study: Study, name: str) -> str:
    entry = study.networks[name]
    settings = entry.training(study.training)
    images, task = read_images(entry.dataset), read_task(entry.task)
    task.check_images(images.sha256, f"data/images/{entry.dataset}")
    image_size = images.pixels.shape[1]
    record = weights.read_weights_record(entry.backbone)

    def build(l2: float) -> Built:
        network, lower = build_network(name, entry, image_size, len(task.classes), l2)
        factors = layer_factors(lower.layers, entry.layer_decay)
        return Built(network, augmented(network, entry.augmentation), factors)

    origin = Origin(kind="network", task=entry.task, backbone=entry.backbone, weights_sha256=record.sha256)
    examples = examples_of(task, images.pixels, lambda rows: rows, settings)
    made_of = [
        entry.model_dump(),
        settings.model_dump(),
        study.seed,
        record.sha256,
        images.sha256,
        content_of(examples),
    ]
    candidates = [(settings, entry.l2)]
    network, result = train_repeats(name, build, candidates, examples, examples["train"], study.seed, origin, made_of)
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
