"""Trains a network end to end, from random or pretrained weights: models/<network>.

The trained network without its output layer is written to data/weights/<network> too: a backbone for other entries.
"""

import keras

from stages.base.command import run_stage
from stages.base.files import atomic_directory
from stages.data import weights
from stages.data.images import read_images
from stages.data.results import Origin
from stages.data.tasks import read_task
from stages.networks.cuts import freeze_batch_normalization, freeze_below, with_predictions
from stages.networks.pretrained import load_backbone, save_weights
from stages.study import Study
from stages.training.batches import examples_of
from stages.training.repeats import Built, save_model, train_repeats


def main(study: Study, name: str) -> str:
    entry = study.networks[name]
    settings = entry.training(study.training)
    images, task = read_images(entry.dataset), read_task(entry.task)
    task.check_images(images.sha256, f"data/images/{entry.dataset}")
    image_size = images.pixels.shape[1]
    backbone_weights = weights.read_weights_record(entry.backbone)

    def build() -> Built:
        backbone, _ = load_backbone(entry.backbone, image_size)
        if entry.trainable != "all":
            freeze_below(backbone, entry.trainable)
            freeze_batch_normalization(backbone)
        network = with_predictions(backbone, len(task.classes), name)
        return Built(network, network)

    origin = Origin(kind="network", task=entry.task, backbone=entry.backbone, weights_sha256=backbone_weights.sha256)
    examples = examples_of(task, images.pixels, lambda rows: rows, settings.max_train_per_class)
    network, result = train_repeats(name, build, examples, settings, study.seed, origin)
    write_backbone(name, network, backbone_weights.architecture, image_size)
    return save_model(name, network, result)


def write_backbone(name: str, network: keras.Model, architecture: str, image_size: int) -> None:
    """Write the trained network without its output layers to data/weights/<name>."""
    last = "average_pool" if "average_pool" in [layer.name for layer in network.layers] else "predictions"
    backbone = keras.Model(network.input, network.get_layer(last).input)
    with atomic_directory(weights.FOLDER / name) as folder:
        file = folder / "backbone.weights.h5"
        save_weights(backbone, file)
        weights.write_weights_record(folder, architecture, name, image_size, file)


if __name__ == "__main__":
    run_stage(main, "networks")
