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
from stages.networks.cuts import freeze_batch_normalization, freeze_below, pooled
from stages.networks.heads import with_head
from stages.networks.pretrained import load_backbone, save_weights
from stages.study import Study
from stages.study.architectures import layers_of
from stages.study.references import lowest_trained
from stages.study.schema import Network
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
        backbone, _ = load_backbone(entry.backbone, image_size)
        freeze(backbone, record.architecture, entry)
        factors = layer_factors(backbone.layers, entry.layer_decay)
        network = with_head(pooled(backbone, entry.pooling), entry, len(task.classes), l2, name)
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
    write_backbone(name, network, record.architecture, image_size)
    return save_model(name, network, result)


def freeze(backbone: keras.Model, architecture: str, entry: Network) -> None:
    """Freeze what the entry does not train: the layers below `trainable`, and batch normalisation."""
    if entry.trainable != "all":
        freeze_below(backbone, None if entry.trainable == "head" else lowest_trained(architecture, entry.trainable))
    trained = entry.train_batch_normalization
    if not (entry.trainable == "all" if trained is None else trained):
        freeze_batch_normalization(backbone)


def write_backbone(name: str, network: keras.Model, architecture: str, image_size: int) -> None:
    """Write the trained network without its head to data/weights/<name>."""
    *_, last = layers_of(architecture)
    backbone = keras.Model(network.input, network.get_layer(last).output)
    with atomic_directory(weights.FOLDER / name) as folder:
        file = folder / "backbone.weights.h5"
        save_weights(backbone, file)
        weights.write_weights_record(folder, architecture, name, image_size, file)


if __name__ == "__main__":
    run_stage(main, "networks")
