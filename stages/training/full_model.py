"""Full models, from uint8 images to probabilities: a network, or a head joined to its backbone.

The trainings build their models here. `load_full_model` rebuilds a trained one from its record;
`load_calibrated_model` also applies the temperature that was fitted after its training.
"""

from dataclasses import replace
from pathlib import Path

import keras

from stages.artifacts.models import MODELS_FOLDER, HeadProvenance, ModelRecord, weights_file
from stages.backbones.building import build_backbone
from stages.backbones.cuts import freeze_batch_normalization, freeze_below, pool_output, up_to_cuts
from stages.backbones.pooling import prefix_tokens
from stages.backbones.pretrained import load_backbone, load_weights
from stages.backbones.runtime import computing_in
from stages.backbones.tuning import load_stored, merge_updates, tune
from stages.config.heads import HeadConfig
from stages.config.networks import NetworkConfig
from stages.core.errors import UserError
from stages.core.files import sha256_of
from stages.probes.weights import NeighborWeights, read_probe
from stages.training.heads import add_head, build_head, build_neighbors, set_statistics


def build_network(
    name: str, entry: NetworkConfig, lower: keras.Model, classes: int, l2: float = 0.0, prefix: int = 0
) -> keras.Model:
    """The network of an entry on a backbone, whose layers it shares; its head has random weights.

    lower: the backbone up to the layer that the head stands on, not pooled. l2: strength of the penalty on the squared
    weights of the head. prefix: see `up_to_cut`. Returns a model from uint8 images (n, image_size, image_size, 3) to
    probabilities (n, classes).
    """
    return add_head(pool_output(lower, entry.pooling, prefix), entry, classes, l2, name)


def freeze(backbone: keras.Model, entry: NetworkConfig, lowest_trained: str | None) -> None:
    """Freeze what a network does not train: the layers below `lowest_trained`, and batch normalization."""
    if entry.trainable != "all":
        freeze_below(backbone, lowest_trained)
    trained = entry.train_batch_normalization
    if not (entry.trainable == "all" if trained is None else trained):
        freeze_batch_normalization(backbone)


def load_head(head: HeadProvenance, repeat: int, classes: int, l2: float = 0.0) -> keras.Model:
    """A repeat of a trained head, or probe: from features (n, *shape) float32 to probabilities (n, classes).

    `UserError` if the weights file is missing, or is not the one that `head` records.
    """
    file = checked_weights(head.name, repeat, head.weights_sha256[repeat])
    probe = read_probe(file) if head.kind == "probe" else None
    if isinstance(probe, NeighborWeights):
        return build_neighbors(build_untrained_head(head, classes), probe)
    model = build_untrained_head(head, classes, l2)
    if probe:
        set_statistics(model, probe.mean, probe.variance)
        model.get_layer("predictions").set_weights([probe.kernel, probe.bias])
    else:
        load_weights(model, file, f"models/{head.name}")
    return model


def build_untrained_head(head: HeadProvenance, classes: int, l2: float = 0.0) -> keras.Model:
    """The layers of a head, or of a probe as a head without hidden layers, with random weights."""
    if head.kind == "probe":
        entry = HeadConfig(task=head.settings["task"], features=head.settings["features"])
    else:
        entry = HeadConfig(**head.settings)
    return build_head(entry, head.features, classes, l2)


def join_head(name: str, head: keras.Model, lower: keras.Model) -> keras.Model:
    """A head on the part of a backbone up to its cut; from images to probabilities. The layers are shared."""
    return keras.Model(lower.input, head(lower.output), name=name)


def load_full_model(record: ModelRecord, precision: str | None = None) -> keras.Model:
    """A trained model with the weights of its best repeat, rebuilt from its record alone.

    precision: of the computation, float32 or bfloat16; None for the one that the model was trained in. Returns a model
    from uint8 images (n, image_size, image_size, 3) to probabilities (n, classes) float32. `UserError` if a weights
    file is missing, damaged, or is not the one that the record names.
    """
    provenance, classes = record.provenance, len(record.classes)
    tuning = record.settings.get("tuning") if record.kind == "fine-tune" else None
    weights = checked_weights(record.name, record.best_repeat, record.weights_sha256[record.best_repeat])
    below, above = record.precisions
    lower = _load_lower(record, precision or below)
    with computing_in(precision or above):
        if record.kind in ("head", "probe"):
            return join_head(record.name, load_head(HeadProvenance.of(record), record.best_repeat, classes), lower)
        if record.kind == "network":
            prefix = prefix_tokens(provenance.preset)
            model = build_network(record.name, NetworkConfig(**record.settings), lower, classes, prefix=prefix)
        else:
            model = join_head(record.name, build_untrained_head(provenance.head, classes), lower)
        if tuning:
            tune(lower, tuning, record.settings["rank"], f"fine_tunes.{record.name}.tuning")
            load_stored(model, weights)
            merge_updates(model)
            return model
        load_weights(model, weights, f"models/{record.name}")
        return model


def _load_lower(record: ModelRecord, precision: str) -> keras.Model:
    """The backbone of a model up to its cut, or cuts; with random weights if the model's own file has all weights."""
    provenance = record.provenance
    with computing_in(precision):
        if record.kind in ("head", "probe") or (record.kind == "fine-tune" and record.settings.get("tuning")):
            backbone, used = load_backbone(provenance.backbone, record.image_size)
            if used.sha256 != provenance.backbone_sha256:
                raise UserError(
                    f"models/{record.name} does not belong to data/weights/{provenance.backbone}: it was trained with "
                    "other weights of this backbone. Run `dvc checkout`, or `dvc repro` to train it again."
                )
        else:  # its own file holds all weights
            backbone = build_backbone(provenance.architecture, record.image_size, provenance.preset)
        pooling = "none" if record.kind == "network" else provenance.pooling
        return up_to_cuts(backbone, provenance.cuts, pooling, prefix_tokens(provenance.preset))


def load_calibrated_model(record: ModelRecord, precision: str | None = None) -> keras.Model:
    """A trained model as it is used: `load_full_model` with its logits divided by the temperature of the record."""
    model = load_full_model(record, precision)
    _calibrate(model, record.temperature)
    return model


def load_ensemble(record: ModelRecord) -> keras.Model:
    """All repeats of a trained model, of whose calibrated probabilities it is the mean; see `load_full_model`.

    The frozen backbone of heads and probes is in it once.
    """
    if record.kind in ("head", "probe"):
        below, above = record.precisions
        lower = _load_lower(record, below)
        images, x = lower.input, lower.output
        with computing_in(above):
            head = HeadProvenance.of(record)
            models = [load_head(head, repeat, len(record.classes)) for repeat in range(record.repeats)]
        for model in models:
            _calibrate(model, record.temperature)
    else:
        models = [load_calibrated_model(replace(record, best_repeat=repeat)) for repeat in range(record.repeats)]
        images = x = keras.Input(models[0].input.shape[1:], dtype="uint8")
    for number, model in enumerate(models):
        model.name = f"repeat{number}"
    return keras.Model(images, keras.layers.Average(dtype="float32")([model(x) for model in models]), name=record.name)


def _calibrate(model: keras.Model, temperature: float) -> None:
    output = model.layers[-1]
    while isinstance(output, keras.Model):  # a head
        output = output.layers[-1]
    output.set_weights([weights / temperature for weights in output.get_weights()])


def checked_weights(model: str, repeat: int, sha256: str) -> Path:
    """The path of the weights of a repeat of a model; `UserError` if it is missing or has another checksum."""
    file = weights_file(model, repeat)
    if not file.exists():
        raise UserError(f"{file} is missing. Run `dvc checkout`, or `dvc repro` to train the model.")
    if sha256_of(file) != sha256:
        raise UserError(
            f"{file} does not belong to {MODELS_FOLDER / model / 'record.json'}: its checksum differs. Run "
            "`dvc checkout`, or `dvc repro` to train the model again."
        )
    return file
