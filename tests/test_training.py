"""Features, heads, fine-tunes and networks on a tiny study, stage by stage in one process."""

import itertools
import re
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from stages.artifacts.images import read_images
from stages.artifacts.models import (
    HeadProvenance,
    ModelRecord,
    cross_entropy,
    read_model_record,
    read_result,
    weights_file,
)
from stages.artifacts.seen_images import images_seen_by, read_seen_images
from stages.artifacts.tasks import read_task
from stages.backbones import inference
from stages.backbones.cached_features import read_features
from stages.backbones.extraction import FeaturesWriter, extract
from stages.backbones.inference import keras_inference
from stages.backbones.pretrained import load_backbone
from stages.backbones.runtime import make_deterministic
from stages.config.heads import HeadConfig
from stages.config.training import TrainingConfig
from stages.core import progress
from stages.core.errors import UserError
from stages.core.files import read_json, write_json
from stages.splitting.leaks import clean_folds
from stages.training.batches import Examples, TrainingBatches, iterate_inputs, split_examples, steps_per_epoch
from stages.training.fitting import TrainingRun, fit_runs, predict_probabilities
from stages.training.full_model import load_full_model, load_head
from stages.training.heads import build_head
from stages.training.optimizers import compile_model
from stages.training.repeats import TrainedModel, save_model, train_repeats
from stages.training.specification import BuiltModel, ModelDescription, TrainingData, TrainingSpec
from tests.example_results import model_record
from tests.tiny_study import STUDY, run


def trained_model(name: str) -> keras.Model:
    return load_full_model(read_model_record(name))


@pytest.mark.numeric
def test_features_are_the_activations_of_the_trained_network(here):
    features, images = read_features("exact"), read_images("digits")
    network = trained_model("base")
    expected = keras.Model(network.input, network.get_layer("pool1").output).predict(
        images.pixels[features.index], verbose=0
    )
    np.testing.assert_allclose(features.array, expected, rtol=1e-5, atol=1e-6)
    assert set(images.table["class"][features.index]) == {"7", "8", "9"}


def test_predictions_cover_exactly_the_rows_of_each_split(here):
    task = read_task("high")
    predictions = read_result("above").predictions
    for repeat in range(2):
        rows = {split: set(part.of_repeat(repeat)[0]) for split, part in predictions.items()}
        for split in ("validation", "test"):
            assert rows[split] == set(task.rows(split, fold=repeat)["index"])
        assert len(rows["train"]) == 3 * 40 and rows["train"] < set(task.rows("train", fold=repeat)["index"])
    for part in predictions.values():
        assert part.probabilities.shape == (*part.predicts.shape, 3) == (2, len(part.index), 3)


@pytest.mark.numeric
def test_fine_tuning_from_cached_features_is_fine_tuning_from_images(here):
    cached, uncached = read_result("cached"), read_result("uncached")
    assert run("fine_tune", "cached").endswith("from features 'exact'")
    assert run("fine_tune", "uncached").endswith("from images")
    columns = ["train_loss", "validation_loss"]
    np.testing.assert_allclose(cached.history[columns], uncached.history[columns], rtol=1e-3)
    for key in ("train_images", "epochs", "trained_parameters", "total_parameters"):
        assert getattr(cached.record, key) == getattr(uncached.record, key)


@pytest.mark.numeric
def test_fine_tuning_changes_the_layers_from_unfreeze_upward_only(here):
    start, tuned = (trained_model(name) for name in ("above", "cached"))

    def unchanged(layer):
        pairs = zip(start.get_layer(layer).weights, tuned.get_layer(layer).weights, strict=True)
        return all(np.array_equal(before, after) for before, after in pairs)

    layers = ("conv1", "conv2", "conv3", "conv4", "head")
    assert [unchanged(layer) for layer in layers] == [True, True, False, False, False]


@pytest.mark.numeric
def test_a_partly_trainable_network_changes_the_layers_from_trainable_upward_only(here):
    base, top = trained_model("base"), trained_model("top")
    for layer in ("conv1", "conv2", "conv3", "conv4"):
        np.testing.assert_array_equal(base.get_layer(layer).kernel, top.get_layer(layer).kernel)
    assert not np.array_equal(base.get_layer("fc1").kernel, top.get_layer("fc1").kernel)
    assert read_model_record("top").trained_parameters == (4 * 4 * 64 + 1) * 512 + (512 + 1) * 3


@pytest.mark.numeric
def test_a_head_that_starts_from_the_backbone_starts_from_its_weights(here):
    features = read_features("upper")
    entry = HeadConfig(**STUDY["heads"]["above"])
    head = build_head(entry, features.record, 3, above_weights=features.folder / "above.weights.h5")
    np.testing.assert_array_equal(head.get_layer("fc1").kernel, trained_model("base").get_layer("fc1").kernel)


@pytest.mark.numeric
def test_several_cuts_equal_single_passes_and_views_follow_the_images(here):
    exact, images = read_features("exact"), read_images("digits")
    conv3, fc1 = (read_features("several", cut) for cut in ("conv3", "fc1"))
    count = len(exact.index)
    assert len(conv3.array) == len(fc1.array) == 3 * count and conv3.record.cut == "conv3"
    base = trained_model("base")
    for cache in (conv3, fc1):
        model = keras.Model(base.input, base.get_layer(cache.record.cut).output)
        pixels = images.pixels[cache.index]
        for view, changed in enumerate((pixels, pixels[:, :, ::-1])):
            features = cache.array[view * count : (view + 1) * count]
            np.testing.assert_allclose(features, model.predict(changed, verbose=0), rtol=1e-4, atol=1e-5)
        assert not np.allclose(cache.array[2 * count :], cache.array[:count], atol=1e-3)
    with pytest.raises(UserError, match=r"^data/features/several has no cut layer 'conv1', only conv3, fc1. Run"):
        read_features("several", "conv1")


@pytest.mark.numeric
@pytest.mark.parametrize("pooling", ["none", "average"])
def test_several_cuts_come_from_one_pass(here, monkeypatch, pooling):
    entry = {**STUDY["features"]["several"], "cut": ["pool1", "conv3"], "pooling": pooling}
    monkeypatch.setitem(STUDY["features"], "several", entry)
    batches = []

    def counted(*arguments):
        infer = inference.fastest_inference(*arguments)
        return lambda pixels: batches.append(len(pixels)) or infer(pixels)

    monkeypatch.setattr("stages.features.fastest_inference", counted)
    run("features", "several")
    exact = read_features("exact")  # the same images at pool1
    assert sum(batches) == 3 * len(exact.index)  # the images and two views
    expected = exact.array.mean(axis=(1, 2)) if pooling == "average" else exact.array
    stored = read_features("several", "pool1").array[: len(exact.index)]
    np.testing.assert_allclose(stored, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.numeric
def test_features_in_bfloat16_are_near_those_in_float32(here):
    run("features", "rough")
    run("features", "some")
    rough, some = read_features("rough"), read_features("some")
    assert (rough.record.precision, rough.record.cut) == ("bfloat16", "dropout")
    left, right = rough.array.astype(float), some.array.astype(float)
    assert not np.array_equal(left, right)
    cosine = (left * right).sum() / np.sqrt(np.square(left).sum() * np.square(right).sum())
    assert cosine > 0.999


@pytest.mark.numeric
def test_candidates_are_recorded_and_the_chosen_one_is_fine_tuned(here):
    record = read_model_record("choice")
    assert [(candidate.learning_rate, candidate.l2) for candidate in record.candidates] == [
        *((0.00001, 0.0), (0.00001, 0.001), (0.01, 0.0), (0.01, 0.001))
    ]
    (chosen,) = [candidate for candidate in record.candidates if candidate.chosen]
    assert chosen.learning_rate == record.training["learning_rate"] == 0.01
    head = load_head(HeadProvenance.of(record), record.best_repeat, 3, chosen.l2)
    assert record.l2 == chosen.l2 and len(head.losses) == (1 if chosen.l2 else 0)


def test_a_part_of_the_training_images_is_a_share_of_every_class_and_nested(here):
    task = read_task("high")
    all_rows = task.rows("train")
    parts = [task.rows("train", None, fraction) for fraction in (0.01, 0.1, 0.5, 1.0)]
    counts = all_rows["label"].value_counts()
    for fraction, rows in zip((0.01, 0.1, 0.5, 1.0), parts, strict=True):
        assert rows["label"].value_counts().to_dict() == np.ceil(counts * fraction).astype(int).to_dict()
    for smaller, larger in itertools.pairwise(parts):
        assert set(smaller["index"]) <= set(larger["index"])
    assert read_model_record("part").train_images == len(parts[1])


@pytest.mark.numeric
def test_a_network_that_ends_at_a_cut_trains_the_layers_below_it_and_is_a_backbone_with_all_its_layers(here):
    base, part = load_backbone("base", 16)[0], load_backbone("part", 16)[0]
    same = {
        layer: all(map(np.array_equal, base.get_layer(layer).get_weights(), part.get_layer(layer).get_weights()))
        for layer in ("conv1", "conv2", "conv3", "conv4", "fc1")
    }
    # Of the layers up to pool2 the last two, conv4 and pool2, are trained; fc1 is not in the network.
    assert same == {"conv1": True, "conv2": True, "conv3": True, "conv4": False, "fc1": True}


@pytest.mark.numeric
def test_a_frozen_backbone_keeps_all_its_weights(here):
    base, frozen = load_backbone("base", 16)[0], load_backbone("frozen", 16)[0]
    for before, after in zip(base.get_weights(), frozen.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert read_model_record("frozen").trained_parameters == (512 + 1) * 3


def test_with_augmentation_a_fine_tune_starts_from_the_images(here):
    assert run("fine_tune", "changed").endswith("from images")
    assert run("fine_tune", "from-probe").endswith("from features 'exact'")


def test_finished_models_leave_no_checkpoints(here):
    assert [path for path in Path("data/checkpoints").rglob("*") if path.is_file()] == []


@pytest.mark.numeric
def test_training_again_writes_the_same_bytes_but_for_the_cost(here):
    files = [
        *(f"models/{model}/{file}" for model in ("fresh", "cached") for file in ("history.csv", "record.json")),
        *(f"models/{model}/predictions.npz" for model in ("fresh", "cached")),
        *(f"models/{model}/weights/repeat-{repeat}.weights.h5" for model in ("fresh", "cached") for repeat in (0, 1)),
        *(f"data/features/upper/flatten/{file}" for file in ("features.npy", "above.weights.h5", "record.json")),
    ]
    before = {file: Path(file).read_bytes() for file in files}
    run("features", "upper")
    run("head", "fresh")
    run("fine_tune", "cached")
    assert [file for file in files if Path(file).read_bytes() != before[file]] == []


def test_features_without_some_classes_of_the_task_are_refused(here, monkeypatch):
    # The check of the study knows the classes of digits; of other sources only the stage does.
    monkeypatch.setitem(STUDY["features"], "some", {**STUDY["features"]["some"], "classes": [7, 8]})
    run("features", "some")
    with pytest.raises(UserError, match=r"^features\.some\.classes: \d+ of 120 images of the task have no features"):
        run("head", "short")
    assert not Path("models/short").exists()


@pytest.mark.parametrize("file", ["predictions.npz", "history.csv", "record.json"])
@pytest.mark.parametrize("damage", ["empty", "half", "other"])
def test_damaged_results_are_refused(here, file, damage):
    path = Path("models/fresh") / file
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "half": content[: len(content) // 3], "other": b"[]"}[damage])
    with pytest.raises(
        UserError, match=r"^models/fresh(/record\.json|/predictions\.npz)? is damaged \(.*\)\. Delete it"
    ) as error:
        read_result("fresh")
    assert "\n" not in str(error.value)


def test_features_of_other_images_are_refused(here):
    record = read_json(Path("data/features/upper/flatten/record.json"))
    write_json(Path("data/features/upper/flatten/record.json"), {**record, "images_sha256": "0" * 64})
    with pytest.raises(UserError, match=r"^data/features/upper does not match the images of task 'high'"):
        run("head", "fresh")


@pytest.mark.parametrize("damage", ["rows", "dtype", "key", "truncated", "missing"])
def test_damaged_features_are_refused(here, damage):
    folder = Path("data/features/upper/flatten")
    record = read_json(folder / "record.json")
    if damage == "rows":
        write_json(folder / "record.json", {**record, "images": record["images"] - 1})
    elif damage == "dtype":
        write_json(folder / "record.json", {**record, "storage": "float32"})
    elif damage == "key":
        write_json(folder / "record.json", {**record, "surprise": 1})
    elif damage == "truncated":
        content = (folder / "features.npy").read_bytes()
        (folder / "features.npy").write_bytes(content[: len(content) // 2])
    else:
        (folder / "record.json").unlink()
    with pytest.raises(UserError, match=r"^data/features/upper(/flatten/record\.json)? (is damaged|is missing)"):
        read_features("upper")


@pytest.mark.parametrize("part", ["features", "head"])
def test_a_fine_tune_refuses_parts_made_with_other_weights(here, part):
    path = {"features": Path("data/features/exact/pool1/record.json"), "head": Path("models/above/record.json")}[part]
    record = read_json(path)
    provenance, key = (record, "weights_sha256") if part == "features" else (record["provenance"], "backbone_sha256")
    provenance[key] = "0" * 64
    write_json(path, record)
    with pytest.raises(
        UserError, match=rf"^fine_tunes\.cached\.{part}: .* was made with other weights of backbone 'base'"
    ):
        run("fine_tune", "cached")


@pytest.mark.numeric
@pytest.mark.parametrize("tolerates_bfloat16", [True, False])
def test_precision_auto_is_recorded_as_the_one_that_was_used(here, monkeypatch, tolerates_bfloat16):
    monkeypatch.setitem(STUDY["features"], "rough", {**STUDY["features"]["rough"], "precision": "auto"})
    monkeypatch.setitem(STUDY["heads"], "on-rough", {"task": "high", "features": "rough", "repeats": 1})
    monkeypatch.setattr(inference, "has_bfloat16", lambda: True)
    monkeypatch.setattr(inference, "TOLERATES_BFLOAT16", {"four_conv"} if tolerates_bfloat16 else set())
    run("features", "rough")
    run("head", "on-rough")
    expected = "bfloat16" if tolerates_bfloat16 else "float32"
    assert read_features("rough").record.precision == expected
    assert read_model_record("on-rough").precisions == (expected, "float32")


def test_activations_beyond_float16_are_refused(here):
    inputs = keras.Input((16, 16, 3), dtype="uint8")
    model = keras.Model(inputs, keras.layers.Rescaling(1000.0)(inputs))
    images, record = read_images("digits"), read_features("exact").record

    def extracted(storage: str, index: np.ndarray) -> np.ndarray:
        folder = Path(storage)
        folder.mkdir()
        writer = FeaturesWriter.create(folder, replace(record, storage=storage, shape=[16, 16, 3]), len(index))
        extract(keras_inference(model), None, images.read, index, [writer], "features.x")
        return np.load(writer.file)

    with pytest.raises(UserError, match=r"^features\.x\.storage: an activation of 255000 does not fit float16\. Set"):
        extracted("float16", np.arange(70))
    activations = extracted("float32", np.arange(5, 75))
    assert activations.dtype == np.float32
    np.testing.assert_array_equal(activations, images.pixels[5:75] * 1000.0)


def examples(count: int = 10, seed: int = 0) -> Examples:
    random = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int32) % 2
    array = (random.normal(size=(count, 4)) + labels[:, None]).astype(np.float16)
    return Examples(array, np.arange(count), labels, np.arange(count), 2)


def test_inputs_are_read_in_order_and_in_batches():
    batches = list(iterate_inputs(examples(), 3))
    assert [len(batch) for batch in batches] == [3, 3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(batches), examples().array)
    assert batches[0].dtype == np.float16


def test_images_stay_bytes():
    ten = examples()
    images = Examples(np.zeros((10, 4, 4, 3), np.uint8), ten.rows, ten.labels, ten.index, 2)
    assert next(iterate_inputs(images, 4)).dtype == np.uint8
    assert TrainingBatches(images, training(mixup=0.2), 0)[0].inputs.dtype == np.uint8


def test_every_epoch_trains_on_every_row_once_in_another_order():
    ten = examples()
    ten = Examples(ten.array, ten.rows, np.arange(10, dtype=np.int32), ten.index, 10)
    batches = TrainingBatches(ten, training(batch_size=4), 0)
    orders = []
    for epoch in range(3):
        labels = [batches[3 * epoch + step].targets.argmax(axis=1) for step in range(3)]
        assert [len(batch) for batch in labels] == [4, 4, 2]
        orders.append(np.concatenate(labels).tolist())
    assert [sorted(order) for order in orders] == [list(range(10))] * 3
    assert len(set(map(tuple, orders))) == 3


def fitted(settings: TrainingConfig, parts: dict[str, Examples]) -> tuple[keras.Model, pd.DataFrame]:
    make_deterministic(0)
    model = small_model()
    compile_model(model, settings, steps_per_epoch(parts["train"], settings))
    (history,), _ = fit_runs([TrainingRun(model, settings)], parts["train"], parts["validation"], 0)
    return model, history


@pytest.mark.numeric
def test_the_history_holds_what_keras_measures():
    parts = splits()
    # The weights hardly change, so both measure the same model.
    model, history = fitted(training(epochs=1, learning_rate=1e-10, batch_size=3), parts)
    for split in ("train", "validation"):
        loss, accuracy = model.evaluate(parts[split].array.astype(np.float32), parts[split].targets(), verbose=0)
        assert history[f"{split}_loss"][0] == pytest.approx(loss, rel=1e-5)
        assert history[f"{split}_accuracy"][0] == pytest.approx(accuracy, rel=1e-6)


@pytest.mark.numeric
def test_lines_of_progress_have_the_losses_and_change_no_weight(capsys, monkeypatch):
    parts, settings = splits(), training(epochs=40)
    silent, _ = fitted(settings, parts)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "SECONDS_PER_LINE", 0.001)
    model, _ = fitted(settings, parts)
    figures = ", ".join(rf"{name} \d\.\d{{3}}" for name in ("train_loss", "validation_loss", "validation_accuracy"))
    assert re.search(rf"^training: \d+ of 40 epochs, {figures}, about \d\d:\d\d left$", capsys.readouterr().err, re.M)
    for actual, expected in zip(model.get_weights(), silent.get_weights(), strict=True):
        np.testing.assert_array_equal(actual, expected)


def small_model(classes: int = 2) -> keras.Model:
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(classes, activation="softmax")(inputs))


def training(**changes) -> TrainingConfig:
    return TrainingConfig(**{**STUDY["training"], "batch_size": 4, **changes})


def splits(**sizes) -> dict[str, Examples]:
    return {split: examples(sizes.get(split, 10), seed) for seed, split in enumerate(("train", "validation", "test"))}


@pytest.mark.numeric
def test_early_stopping_ends_with_the_weights_of_the_lowest_validation_loss():
    parts = splits()
    model, history = fitted(training(epochs=200, early_stopping=3, learning_rate=0.3), parts)
    best = history["validation_loss"].idxmin()
    assert len(history) == best + 1 + 3 < 200
    loss = cross_entropy(predict_probabilities(model, parts["validation"]), parts["validation"].labels)
    assert loss == pytest.approx(history["validation_loss"][best], rel=1e-6)


def trained(parts: dict[str, Examples], settings: TrainingConfig, kernel=None, diverging=()) -> TrainedModel:
    """Train a small model, with a constant kernel at first or a random one; some repeats diverge at once."""

    def build(repeat: int, l2: float) -> BuiltModel:
        model = small_model()
        if kernel is not None or repeat in diverging:
            model.layers[1].kernel.assign(np.full((4, 2), np.nan if kernel is None else kernel))
        return BuiltModel(model, model)

    record: ModelRecord = model_record("test", "network")
    description = ModelDescription(
        **{key: getattr(record, key) for key in ModelDescription.__annotations__ if hasattr(record, key)}
    )
    spec = TrainingSpec(description, [(settings, 0.0)], [0] * settings.repeats)
    return train_repeats(spec, build, {0: TrainingData(parts, parts["train"])})


@pytest.fixture(autouse=True)
def nowhere_else(tmp_path, monkeypatch):
    """Checkpoints are written below the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.numeric
def test_the_repeat_with_the_lowest_validation_loss_is_kept():
    parts = splits()
    repeats = trained(parts, training(repeats=4))
    model, result = repeats.model, repeats.result
    final = result.history.groupby("repeat")["validation_loss"].last()
    best = result.record.best_repeat
    assert best == final.idxmin() and final.nunique() == 4
    np.testing.assert_array_equal(
        predict_probabilities(model, parts["test"]), result.predictions["test"].probabilities[best]
    )


@pytest.mark.numeric
@pytest.mark.parametrize("early_stopping", [None, 2])
def test_the_printed_accuracy_is_that_of_the_stored_weights(early_stopping):
    parts = splits(validation=30)
    repeats = trained(parts, training(repeats=3, epochs=12, learning_rate=0.3, early_stopping=early_stopping))
    accuracies, weights_of = [], [repeat.weights for repeat in repeats.repeats]
    for weights in weights_of:
        repeats.model.set_weights(weights)
        predicted = predict_probabilities(repeats.model, parts["validation"]).argmax(axis=1)
        accuracies.append((predicted == parts["validation"].labels).mean())
    assert save_model(repeats).endswith(f"validation accuracy {np.mean(accuracies):.1%}")
    for repeat, weights in enumerate(weights_of):
        stored = small_model()
        stored.load_weights(weights_file("test", repeat))
        np.testing.assert_array_equal(stored.get_weights()[0], weights[0])


@pytest.mark.numeric
def test_a_model_of_which_one_repeat_diverges_at_once_is_saved():
    repeats = trained(splits(), training(repeats=2, early_stopping=2), diverging=[0])
    assert repeats.result.record.best_repeat == 1
    assert "validation accuracy" in save_model(repeats)


@pytest.mark.numeric
def test_a_loss_that_is_not_finite_in_any_repeat_is_an_error():
    with pytest.raises(
        UserError, match=r"^test: training diverged in every repeat .* Lower learning_rate \(now 0\.001\)"
    ):
        trained(splits(), training(), kernel=np.nan)


@pytest.mark.numeric
def test_test_rows_do_not_change_training():
    few = trained(splits(test=4), training())
    many = trained(splits(test=10), training())
    for left, right in zip(few.model.get_weights(), many.model.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_fewer_training_images_are_chosen_from_train_only(here):
    task, images = read_task("high"), read_images("digits")
    few, more = (
        split_examples(task, images.pixels, lambda rows: rows, training(max_train_per_class=most), 0) for most in (2, 5)
    )
    assert set(few["train"].index) < set(more["train"].index) <= set(task.rows("train")["index"])
    assert np.bincount(few["train"].labels).tolist() == [2, 2, 2]
    assert len(few["test"].index) == len(more["test"].index)
    assert pd.Index(few["train"].index).is_unique


def test_a_features_record_says_what_the_features_were_made_from(here):
    record = read_features("upper").record
    assert record.images_sha256 == read_images("digits").sha256
    assert (record.cut, record.pooling, record.storage, record.precision) == ("flatten", "none", "float16", "float32")
    assert record.weights_sha256 == read_json(Path("data/weights/base/backbone.json"))["sha256"]


def test_networks_record_the_images_that_they_have_seen_and_features_hand_them_on(here):
    assert images_seen_by("new").empty
    base, top = images_seen_by("base"), images_seen_by("top")
    table = read_task("low").table
    with np.load("models/base/predictions.npz") as arrays:
        for use, index in (("trained", arrays["train_index"]), ("validated", arrays["validation_index"])):
            assert set(base["sha256"][base["use"] == use]) == set(table["sha256"][table["index"].isin(index)])
    assert set(base["network"]) == {"base"} and set(base["task"]) == {"low"}
    assert set(top["network"]) == {"base", "top"}
    pd.testing.assert_frame_equal(top[top["network"] == "base"].reset_index(drop=True), base)
    pd.testing.assert_frame_equal(read_seen_images(Path("data/features/upper")), base)
    assert clean_folds(read_task("high"), base, "heads.above") == list(range(read_task("high").folds))
