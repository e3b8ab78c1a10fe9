"""Example results of a small study, written without training: records, predictions, costs, tasks and tiles."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from stages.artifacts.costs import Cost, FeaturesCost, InferenceTime, write_cost
from stages.artifacts.features import FeaturesRecord
from stages.artifacts.margin import write_margin
from stages.artifacts.models import (
    HeadProvenance,
    ModelRecord,
    ModelResult,
    PcaProjection,
    Predictions,
    Provenance,
    cross_entropy,
    read_result,
    write_model,
)
from stages.artifacts.tasks import NEAR_COLUMNS, SPLITS, SplitSummary, Task, read_task, write_task
from stages.artifacts.tiles import GALLERY_FOLDER, MISTAKES_FOLDER, Tile, write_tiles
from stages.core.params import Params
from stages.evaluation.predictions import SplitPredictions

NASTY = "<script>alert(1)</script>|x"
CLASSES = ["plain", NASTY, "$_*a*^$\nb"]  # the last is not a formula
MACHINE = "test machine"
ACCURACY = {"a-net": 0.95, "b-net": 0.9, "b-head": 0.4, "b-tune": 0.9}
SECONDS = {"a-net": 10.0, "b-net": 5.0, "b-head": 2.0, "b-tune": 3.0}
TRAINING = {"learning_rate": 0.001, "train_fraction": None, "max_train_per_class": None, "repeats": 2}
PARAMS = Params(
    {
        "seed": 3,
        "tasks": {"a": {}, "b": {}},
        "networks": {"a-net": {}, "b-net": {}},
        "features": {"f": {}},
        "heads": {"b-head": {}},
        "probes": {},
        "fine_tunes": {"b-tune": {}},
    }
)
NO_NEAR_DUPLICATES = pd.DataFrame(columns=NEAR_COLUMNS)


def features_record(**changes) -> FeaturesRecord:
    """Features `f` of network `a-net`."""
    record = FeaturesRecord(
        name="f", dataset="d", images_sha256="0", images=600, image_size=16, resize="crop", backbone="a-net",
        weights_sha256="1", architecture="four_conv", cut="flatten", pooling="none", precision="float32",
        storage="float16", views=[], shape=[1024], parameters=100, multiply_adds=1000,
    )  # fmt: skip
    return replace(record, **changes)


def model_record(name, kind, provenance=None, **changes) -> ModelRecord:
    """The record of a model of task `b`; provenance: changes to that of a network on random weights."""
    origin = Provenance(
        images_sha256="0", task_settings={}, backbone="blank", architecture="four_conv", backbone_sha256=None,
        cut="fc1", pooling="none", lowest_trained_layer="conv1",
    )  # fmt: skip
    own = dict.fromkeys(TRAINING)
    own |= {"task": "b", "views": None} if kind in ("head", "probe") else {"task": "b"}
    own |= {"kind": "ridge"} if kind == "probe" else {}
    record = ModelRecord(
        name=name, kind=kind, task="b", dataset="d", classes=CLASSES, image_size=16, resize="crop", settings=own,
        training={} if kind == "probe" else TRAINING, seed=3, provenance=replace(origin, **provenance or {}),
        repeats=2, folds=[0, 0], best_repeat=0, train_images=240, epochs=[3, 3],
        trained_parameters=10, total_parameters=20,
        multiply_adds=2000, training_multiply_adds=3_000_000, temperature=1.5,
    )  # fmt: skip
    return replace(record, **changes)


def head_record(name, features, kind="head", **changes) -> ModelRecord:
    """The record of a head or probe on features."""
    provenance = {
        "backbone": features.backbone, "architecture": features.architecture, "cut": features.cut,
        "pooling": features.pooling, "lowest_trained_layer": None, "features": features,
    }  # fmt: skip
    return model_record(name, kind, provenance, **changes)


def fine_tune_record(name, head, lowest_trained_layer, features=None, **changes) -> ModelRecord:
    """The record of a fine-tune of a head; features: from which training started."""
    provenance = {
        "backbone": head.provenance.backbone, "architecture": head.provenance.architecture,
        "cut": head.provenance.cut, "lowest_trained_layer": lowest_trained_layer, "features": features,
        "head": HeadProvenance.of(head),
    }  # fmt: skip
    return model_record(name, "fine-tune", provenance, **changes)


def records() -> dict[str, ModelRecord]:
    """Network a-net; on its features head b-head, and fine-tune b-tune of it; network b-net from random weights."""
    head = head_record("b-head", features_record())
    return {
        "a-net": model_record("a-net", "network", task="a"),
        "b-net": model_record("b-net", "network"),
        "b-head": head,
        "b-tune": fine_tune_record("b-tune", head, "conv4"),
    }


def make_task(name, first_row) -> Task:
    labels = np.tile(np.arange(3), 200)
    splits = np.repeat(SPLITS, [240, 120, 240])
    table = pd.DataFrame({"index": first_row + np.arange(600), "label": labels, "class": [CLASSES[i] for i in labels]})
    table["group_id"] = np.arange(600)
    table = table.assign(
        sha256="0",
        split=splits,
        fold=np.where(splits == "validation", 0, -1),
        order=np.arange(600) // 3 + 1,
        name=[f"image-{row}" for row in table["index"]],
    )
    summary = SplitSummary(
        near_duplicates=3, unreadable=1, first_unreadable=[{"name": "a/x|y.jpg", "reason": "<empty>"}]
    )
    return Task(name, "d", CLASSES, "0" * 64, table, summary=summary)


def random_probabilities(random, labels, accuracy, repeats=2):
    """Probabilities (repeats, n, 3) whose most probable class is the label in `accuracy` of the cases.

    labels: (n,), or (repeats, n) of each repeat.
    """
    wrong = random.random((repeats, labels.shape[-1])) > accuracy
    predicted = (labels + wrong * random.integers(1, 3, wrong.shape)) % 3
    probabilities = np.eye(3)[predicted] + random.random((*wrong.shape, 3)) * 0.5
    return (probabilities / probabilities.sum(-1, keepdims=True)).astype(np.float32)


def split_predictions(labels, probabilities, groups=None, predicts=None) -> SplitPredictions:
    """Predictions of a split; by default no image is in a group with another, and every repeat predicts all images."""
    groups = np.arange(len(labels)) if groups is None else groups
    predicts = np.ones(probabilities.shape[:2], bool) if predicts is None else predicts
    return SplitPredictions(labels, predicts, probabilities, groups)


def make_result(record, accuracy, seconds) -> ModelResult:
    """Random predictions of a given accuracy, and a history that fits them."""
    task, name = read_task(record.task), record.name
    random = np.random.default_rng(len(name) + ord(name[2]))
    predictions = {}
    for split in SPLITS:
        rows = [task.rows(split, fold=fold) for fold in record.folds]
        labels = np.stack([of_repeat["label"] for of_repeat in rows])
        probabilities = random_probabilities(random, labels, accuracy, record.repeats)
        indices = [of_repeat["index"].to_numpy() for of_repeat in rows]
        predictions[split] = Predictions.of_repeats(indices, list(probabilities))
    history = pd.DataFrame(
        [[repeat, epoch, 1 / epoch, 0.5, 1.5 / epoch, 0.4] for repeat in range(record.repeats) for epoch in (1, 2, 3)],
        columns=["repeat", "epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"],
    )
    for repeat, fold in enumerate(record.folds):  # the weights of the last epoch are those that predict
        validation = task.rows("validation", fold=fold)["label"].to_numpy()
        loss = cross_entropy(predictions["validation"].of_repeat(repeat)[1], validation)
        history.loc[(history["repeat"] == repeat) & (history["epoch"] == 3), "validation_loss"] = loss
    rows = task.rows("validation").head(20)["index"].to_numpy()
    pca = PcaProjection(rows, random.normal(size=(20, 2)).astype(np.float32), np.array([0.5, 0.2]))
    on_features = record.kind in ("head", "probe")
    return ModelResult(record, make_cost(seconds), history, predictions, pca if on_features else None)


def make_cost(seconds) -> Cost:
    """The cost of a model that took 0.5 ms for its own layers, or 0.1 ms in batches."""
    return Cost(seconds, 100.0, MACHINE, 800.0, InferenceTime(0.5, 0.1))


def write_features_cost(name, *cuts):
    """Write the cost of features that took 20 s; the backbone up to each cut takes 4 ms, or 1 ms in batches."""
    write_cost("features", name, FeaturesCost(20.0, 50.0, MACHINE, dict.fromkeys(cuts, InferenceTime(4.0, 1.0))))


def write_result(result):
    name = result.record.name
    write_model(result, lambda repeat, path: path.write_text(f"weights of {name}, repeat {repeat}"))


def write_study() -> Params:
    """Write into the current folder what the stages before evaluate write; returns the params."""
    for name, first_row in (("a", 0), ("b", 1000)):
        write_task(make_task(name, first_row), NO_NEAR_DUPLICATES)
        write_galleries(name)
    for name, record in records().items():
        write_result(make_result(replace(record, classes=CLASSES), ACCURACY[name], SECONDS[name]))
    write_features_cost("f", "flatten")
    write_margin(1)
    return PARAMS


def write_galleries(name):
    """Tiles of two training images, of an augmented one, and of every test image."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 30)).save(file, "PNG")
    task = read_task(name)
    train, title = task.rows("train").head(2), "rotation 15 (a-net)"
    roles = [("sample", "", train), ("augmented", title, train), ("mistake", "", task.rows("test"))]
    tiles = [
        Tile(f"{role}-{row}.png", role, title, row, label, file.getvalue())
        for role, title, rows in roles
        for row, label in zip(rows["index"], rows["class"], strict=True)
    ]
    for folder, of_folder in ((GALLERY_FOLDER, ("sample", "augmented")), (MISTAKES_FOLDER, ("mistake",))):
        write_tiles(folder / name, [tile for tile in tiles if tile.role in of_folder])


def change_test_predictions(name, **changes):
    """Rewrite the test predictions of a model."""
    result = read_result(name)
    test = replace(result.predictions["test"], **changes)
    write_result(replace(result, predictions={**result.predictions, "test": test}))


def copy_model(name, copy):
    """Write a model that no entry of the study names."""
    result = read_result(name)
    write_result(replace(result, record=replace(result.record, name=copy)))


def report_files() -> dict[str, bytes]:
    """Every file in reports/ with its content."""
    return {path.as_posix(): path.read_bytes() for path in Path("reports").rglob("*") if path.is_file()}
