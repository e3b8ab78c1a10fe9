"""What a model costs in use, and in training together with everything in the study that it is built on."""

from dataclasses import dataclass
from typing import Any

from stages.artifacts.costs import InferenceTime, read_features_cost
from stages.artifacts.models import ModelRecord, ModelResult
from stages.evaluation.formatting import rounded


@dataclass(frozen=True)
class Lineage:
    """Everything in the study that a model is built on, each once.

    models: the model first, then its head and the networks that serve as backbone. features: caches of features.
    """

    models: list[str]
    features: list[str]

    @property
    def ancestors(self) -> list[str]:
        """Names of all but the model itself."""
        return [*self.models[1:], *self.features]


def lineage(model: str, records: dict[str, ModelRecord]) -> Lineage:
    """Follow the records from a model to its head, its features and the networks below.

    Datasets and pretrained weights are not part of it.
    """
    models, features = [model], []
    for name in models:  # grows during the loop
        provenance = records[name].provenance
        backbone = records.get(provenance.backbone)
        if backbone and backbone.kind == "network" and provenance.backbone not in models:
            models.append(provenance.backbone)
        if provenance.head and provenance.head.name not in models:
            models.append(provenance.head.name)
        if provenance.features and provenance.features.name not in features:
            features.append(provenance.features.name)
    return Lineage(models, features)


def base_networks(model: str, records: dict[str, ModelRecord], metrics: dict[str, Any]) -> dict[str, int]:
    """The networks of the study that a model is built on -> the multiply-adds of the training of each alone.

    metrics: model -> its part of metrics.json.
    """
    below = [name for name in lineage(model, records).models[1:] if records[name].kind == "network"]
    return {name: metrics[name]["cost"]["training_multiply_adds"] for name in below}


def model_costs(model: str, results: dict[str, ModelResult]) -> dict[str, float | None]:
    """The costs of a model, as in metrics.json.

    seconds, training_multiply_adds, peak_memory_mb: of the training of the model alone. total_seconds,
    total_training_multiply_adds: with everything that it is built on. images_per_second: in training.
    milliseconds_per_image, batch_images_per_second, multiply_adds: of the model in use, from pixels to probabilities.
    megabytes: of its weights in float32.
    """
    record, cost, time = results[model].record, results[model].cost, inference_time(results[model])
    return {
        "seconds": cost.seconds,
        "total_seconds": round(total_seconds(model, results), 3),
        "images_per_second": cost.images_per_second,
        "milliseconds_per_image": rounded(time.single),
        "batch_images_per_second": rounded(1000 / time.batched),
        "peak_memory_mb": cost.peak_memory,
        "megabytes": rounded(record.total_parameters * 4 / 1e6),
        "multiply_adds": record.multiply_adds,
        "training_multiply_adds": record.training_multiply_adds,
        "total_training_multiply_adds": total_training_multiply_adds(model, results),
        "trained_parameters": record.trained_parameters,
        "total_parameters": record.total_parameters,
    }


def inference_time(result: ModelResult) -> InferenceTime:
    """The time of a model from pixels to probabilities: for a head or a probe, with the backbone up to its features."""
    own, features = result.cost.inference, result.record.provenance.features
    if result.record.kind not in ("head", "probe"):
        return own
    below = read_features_cost(features.name).inference[features.cut]
    return InferenceTime(below.single + own.single, below.batched + own.batched)


def pareto_front(metrics: dict[str, Any], cost: str) -> list[str]:
    """The models than which no other is both cheaper and more accurate, the cheapest first.

    metrics: model -> its part of metrics.json. cost: a key of its costs. Accuracy is that on the test images. Of models
    that are equal in both, all are on the front.
    """
    points = {model: (values["cost"][cost], -values["test"]["accuracy"]) for model, values in metrics.items()}
    front = [
        model
        for model, (price, error) in points.items()
        if not any(p <= price and e <= error and (p, e) != (price, error) for p, e in points.values())
    ]
    return sorted(front, key=points.__getitem__)


def total_seconds(model: str, results: dict[str, ModelResult]) -> float:
    """Seconds of one repeat of a model and of everything that it is built on, each counted once.

    A cache of features counts in proportion to the images that are used, see `images_used`. Of a cache with several
    cut layers, a lower one costs as much as the highest.
    """
    parts = lineage(model, {name: result.record for name, result in results.items()})
    training = sum(results[name].cost.seconds for name in parts.models)
    extraction = (
        images_used(features, parts, results) / read_features_cost(features).images_per_second
        for features in parts.features
    )
    return training + sum(extraction)


def total_training_multiply_adds(model: str, results: dict[str, ModelResult]) -> int:
    """Multiply-adds of one repeat of a model and of everything that it is built on, each counted once.

    Unlike seconds they are the same on every machine. A cache of features counts up to the highest cut layer that the
    models of the lineage use, for the images of `images_used`.
    """
    parts = lineage(model, {name: result.record for name, result in results.items()})
    records = [results[name].record for name in parts.models]
    caches = [record.provenance.features for record in records if record.provenance.features]
    extraction = (
        images_used(features, parts, results) * max(cache.multiply_adds for cache in caches if cache.name == features)
        for features in parts.features
    )
    return sum(record.training_multiply_adds for record in records) + sum(extraction)


def images_used(features: str, parts: Lineage, results: dict[str, ModelResult]) -> int:
    """The number of images, each view counted by itself, that the models of a lineage take from a cache of features.

    Those of one repeat of each model, the best one: training images in all views that a model trains on, and validation
    images. An image that several models use counts once, because all take the same images first. Test images do not
    count: they are not needed to make a model.
    """
    train: dict[int, int] = {}
    validation = 0
    for name in parts.models:
        record = results[name].record
        cache = record.provenance.features
        if cache is None or cache.name != features:
            continue
        views = 1 if record.kind == "fine-tune" else cache.views_used(record.settings["views"])
        for view in range(views):
            train[view] = max(train.get(view, 0), record.train_images)
        validation = max(validation, int(results[name].predictions["validation"].predicts[record.best_repeat].sum()))
    return sum(train.values()) + validation
