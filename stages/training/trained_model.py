"""A trained model of the study as one whole, from images to probabilities."""

from dataclasses import dataclass

import keras

from stages.artifacts.images import IMAGES_FOLDER as IMAGES
from stages.artifacts.models import MODELS_FOLDER, ModelRecord, read_model_record
from stages.artifacts.tasks import read_task
from stages.backbones.cuts import up_to_cut
from stages.backbones.pretrained import load_backbone, load_weights
from stages.backbones.runtime import computing_in, make_deterministic
from stages.config.heads import HeadConfig
from stages.config.networks import NetworkConfig
from stages.core.errors import UserError
from stages.core.files import read_json
from stages.core.wording import did_you_mean, listing
from stages.training.full_model import build_network, join_head
from stages.validation.study import Study

SHAPING = ("image_size", "resize")  # how images are brought to the form that a model takes


@dataclass(frozen=True)
class TrainedModel:
    """A model with its stored weights, and what it takes and tells.

    model: from uint8 images (n, image_size, image_size, 3) to probabilities (n, classes) float32. dataset: that it was
    trained on. resize: how images are made square, as in that dataset.
    """

    model: keras.Model
    record: ModelRecord
    dataset: str
    classes: list[str]
    image_size: int
    resize: str


def load_trained_model(study: Study, name: str, precision: str | None = None) -> TrainedModel:
    """Load the weights of a model into the whole of it.

    precision: of the computation, float32 or bfloat16; None for that in which it was trained.
    Raises `UserError` for an unknown name, and where a file is missing, damaged, or made with other weights.
    """
    if name not in study.models:
        raise UserError(
            f"there is no model {name!r} in the study{did_you_mean(name, study.models)}; accepted: {listing(study.models)}."
        )
    record = read_model_record(name)
    for model in (name, getattr(study.models[name], "head", name)):
        if not (weights := MODELS_FOLDER / f"{model}.weights.h5").exists():
            raise UserError(f"{weights} is missing; `dvc repro` makes it.")
    task = read_task(record.task)
    dataset = study.dataset(task.dataset)
    prepared = IMAGES / task.dataset / "record.json"
    if prepared.exists() and any((found := read_json(prepared))[key] != getattr(dataset, key) for key in SHAPING):
        raise UserError(
            f"the images of {task.dataset!r} were prepared with {', '.join(f'{key} {found[key]}' for key in SHAPING)}, "
            "which is not what the study says now; run `dvc repro`."
        )
    make_deterministic(0)  # nothing random is left in a trained model
    model = _whole(study, name, record, dataset.image_size, len(task.classes), precision)
    return TrainedModel(model, record, task.dataset, task.classes, dataset.image_size, dataset.resize)


def _whole(
    study: Study, name: str, record: ModelRecord, image_size: int, classes: int, precision: str | None
) -> keras.Model:
    entry, weights = study.models[name], MODELS_FOLDER / f"{name}.weights.h5"
    below_in, above_in = (precision or each for each in precisions(study, name, record))
    with computing_in(below_in):
        backbone, used = load_backbone(record.backbone, image_size)
        if used.sha256 != record.weights_sha256:
            raise UserError(
                f"models/{name} was made with other weights of {record.backbone!r} than there are now; run `dvc repro`."
            )
        lower = None if isinstance(entry, NetworkConfig) else up_to_cut(backbone, record.cut, record.pooling)
    with computing_in(above_in):
        if isinstance(entry, NetworkConfig):
            model, _ = build_network(name, entry, image_size, classes)
            load_weights(model, weights, f"models/{name}")
            return model
        head = name if isinstance(entry, HeadConfig) else entry.head
        file = MODELS_FOLDER / f"{head}.weights.h5"
        model, _ = join_head(head, study.heads[head], file, lower, used.architecture, record.cut, classes)
        if head != name:
            load_weights(model, weights, f"models/{name}")
        return model


def precisions(study: Study, name: str, record: ModelRecord) -> tuple[str, str]:
    """In which precision a model was trained: below its head, where that comes from cached features, and above."""
    entry = study.models[name]
    if isinstance(entry, HeadConfig):
        settings, _ = entry.candidates(study.training)[0]
        return record.features_precision, settings.precision
    settings = entry.training(study.training)
    return settings.precision, settings.precision
