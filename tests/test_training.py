"""Features, heads, fine-tunes and networks on a tiny study, stage by stage in one process."""

import itertools
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from stages.training.trained_model import precisions
from stages.training.trainers import KerasTrainer

from stages import features
from stages.artifacts.features import FeaturesRecord, read_features
from stages.artifacts.images import read_images
from stages.artifacts.models import Provenance, cross_entropy, read_model_record, read_result
from stages.artifacts.tasks import read_task
from stages.backbones import inference
from stages.backbones.inference import keras_inference
from stages.backbones.pretrained import load_backbone
from stages.backbones.runtime import make_deterministic
from stages.config.training import TrainingConfig
from stages.core.errors import UserError
from stages.core.files import read_json, write_json
from stages.fine_tune import join
from stages.training import fitting
from stages.training.batches import Examples, iterate_batches, split_examples
from stages.training.fitting import TrainingRun, fit_runs, predict_probabilities
from stages.training.optimizers import compile_model
from stages.training.repeats import BuiltModel, train_repeats
from tests.tiny_study import STUDY, run, study

pytestmark = pytest.mark.numeric


def test_features_are_the_activations_of_the_trained_network(here):
    features, images = read_features("exact"), read_images("digits")
    network = keras.Model(*build_network("base"))
    expected = keras.Model(network.input, network.get_layer("pool1").output).predict(
        images.pixels[features.index], verbose=0
    )
    np.testing.assert_allclose(features.array, expected, rtol=1e-5, atol=1e-6)
    assert set(images.table["class"][features.index]) == {"7", "8", "9"}


def build_network(name: str):
    from stages.backbones.building import build_backbone
    from stages.training.heads import add_head

    network = add_head(build_backbone("four_conv", 16), study().networks[name], 3, 0.0, name)
    network.load_weights(Path("models") / f"{name}.weights.h5")
    return network.input, network.output


def test_the_stored_weights_give_the_stored_predictions_of_the_kept_repeat(here):
    images = read_images("digits")
    for name in ("base", "top"):
        result = read_result(name)
        network = keras.Model(*build_network(name))
        for predictions in result.predictions.values():
            np.testing.assert_allclose(
                network.predict(images.pixels[predictions.index], verbose=0),
                predictions.probabilities[result.record.best_repeat],
                rtol=1e-4,
                atol=1e-6,
            )


def test_predictions_cover_exactly_the_rows_of_each_split(here):
    task = read_task("high")
    predictions = read_result("above").predictions
    for split in ("validation", "test"):
        np.testing.assert_array_equal(predictions[split].index, task.rows(split)["index"])
    assert len(predictions["train"].index) == 3 * 40
    assert set(predictions["train"].index) < set(task.rows("train")["index"])
    for split in predictions.values():
        assert split.probabilities.shape == (2, len(split.index), 3)


def test_a_head_on_cached_features_predicts_what_the_joined_model_predicts(here):
    entry = study().fine_tunes["cached"]
    for head in ("above", "fresh"):
        record = read_model_record(head)
        joined, _ = join(entry.model_copy(update={"head": head}), study().heads[head], record, 16, 3)
        stored = read_result(head).predictions["test"]
        found = joined.predict(read_images("digits").pixels[stored.index], verbose=0)
        # Features are stored in float16: eleven bits, so about three digits of each activation.
        np.testing.assert_allclose(found, stored.probabilities[record.best_repeat], atol=5e-3)


def test_fine_tuning_from_cached_features_is_fine_tuning_from_images(here):
    cached, uncached = read_result("cached"), read_result("uncached")
    assert run("fine_tune", "cached").endswith("from features 'exact'")
    assert run("fine_tune", "uncached").endswith("from images")
    columns = ["train_loss", "validation_loss"]
    np.testing.assert_allclose(cached.history[columns], uncached.history[columns], rtol=1e-3)
    assert cached.record == uncached.record


def test_fine_tuning_changes_the_layers_from_unfreeze_upward_only(here):
    entry, record = study().fine_tunes["cached"], read_model_record("above")
    start, _ = join(entry, study().heads["above"], record, 16, 3)
    tuned, _ = join(entry, study().heads["above"], record, 16, 3)
    tuned.load_weights("models/cached.weights.h5")

    def same(layer):
        pairs = zip(start.get_layer(layer).weights, tuned.get_layer(layer).weights, strict=True)
        return all(np.array_equal(old, new) for old, new in pairs)

    assert [same(layer) for layer in ("conv1", "conv2", "conv3", "conv4", "head")] == [True, True, False, False, False]


def test_a_partly_trainable_network_changes_the_layers_from_trainable_upward_only(here):
    base, top = keras.Model(*build_network("base")), keras.Model(*build_network("top"))
    for layer in ("conv1", "conv2", "conv3", "conv4"):
        np.testing.assert_array_equal(base.get_layer(layer).kernel, top.get_layer(layer).kernel)
    assert not np.array_equal(base.get_layer("fc1").kernel, top.get_layer("fc1").kernel)
    assert read_model_record("top").trained_parameters == (4 * 4 * 64 + 1) * 512 + (512 + 1) * 3


def test_a_head_that_starts_from_the_backbone_starts_from_its_weights(here):
    from stages.training.heads import build_head

    record = read_features("upper").record
    head = build_head(
        study().heads["above"],
        3,
        record.shape,
        record.architecture,
        16,
        "flatten",
        above_weights=Path("data/features/upper/flatten/above.weights.h5"),
    )
    base = keras.Model(*build_network("base"))
    np.testing.assert_array_equal(head.get_layer("fc1").kernel, base.get_layer("fc1").kernel)


def test_several_cuts_are_those_of_single_passes_and_views_stand_behind_the_images(here):
    exact, images = read_features("exact"), read_images("digits")
    conv3, fc1 = (read_features("several", cut) for cut in ("conv3", "fc1"))
    count = len(exact.index)
    assert len(conv3.array) == len(fc1.array) == 3 * count and conv3.record.cut == "conv3"
    base = keras.Model(*build_network("base"))
    for cache in (conv3, fc1):
        model = keras.Model(base.input, base.get_layer(cache.record.cut).output)
        pixels = images.pixels[cache.index]
        for view, changed in enumerate((pixels, pixels[:, :, ::-1])):
            found = cache.array[view * count : (view + 1) * count]
            np.testing.assert_allclose(found, model.predict(changed, verbose=0), rtol=1e-4, atol=1e-5)
        assert not np.allclose(cache.array[2 * count :], cache.array[:count], atol=1e-3)
    with pytest.raises(UserError, match=r"^data/features/several has no cut 'conv1', only conv3, fc1; run"):
        read_features("several", "conv1")


def test_features_in_bfloat16_are_near_those_in_float32(here):
    run("features", "rough")
    run("features", "some")
    rough, some = read_features("rough"), read_features("some")
    assert (rough.record.precision, rough.record.cut) == ("bfloat16", "dropout")
    left, right = rough.array.astype(float), some.array.astype(float)
    assert not np.array_equal(left, right)
    cosine = (left * right).sum() / np.sqrt(np.square(left).sum() * np.square(right).sum())
    assert cosine > 0.999


def test_settings_that_were_tried_are_recorded_and_the_chosen_one_is_fine_tuned(here):
    record = read_model_record("choice")
    assert [(each.learning_rate, each.l2) for each in record.candidates] == [
        *((0.00001, 0.0), (0.00001, 0.001), (0.01, 0.0), (0.01, 0.001))
    ]
    (chosen,) = [each for each in record.candidates if each.chosen]
    assert chosen.learning_rate == 0.01
    strengths = [each.l2 for each in read_model_record("probe").candidates]
    assert strengths == sorted(strengths) and len(strengths) == 9
    joined, _ = join(study().fine_tunes["changed"], study().heads["choice"], record, 16, 3, chosen.l2)
    assert len(joined.losses) == (1 if chosen.l2 else 0)


def test_a_probe_joined_to_its_backbone_predicts_what_it_predicts_on_features(here):
    record, entry = read_model_record("probe"), study().fine_tunes["from-probe"]
    joined, _ = join(entry, study().heads["probe"], record, 16, 3)
    stored = read_result("probe").predictions["test"]
    found = joined.predict(read_images("digits").pixels[stored.index], verbose=0)
    np.testing.assert_allclose(found, stored.probabilities[0], atol=1e-4)


def test_a_part_of_the_training_images_is_a_share_of_every_class_and_nested(here):
    task = read_task("high")
    whole = task.rows("train")
    parts = [task.rows("train", None, fraction) for fraction in (0.01, 0.1, 0.5, 1.0)]
    counts = whole["label"].value_counts()
    for fraction, rows in zip((0.01, 0.1, 0.5, 1.0), parts, strict=True):
        assert rows["label"].value_counts().to_dict() == np.ceil(counts * fraction).astype(int).to_dict()
    for smaller, larger in itertools.pairwise(parts):
        assert set(smaller["index"]) <= set(larger["index"])
    assert read_model_record("part").train_images == len(parts[1])


def test_a_network_that_ends_at_a_cut_trains_the_layers_below_it_and_is_a_backbone_with_all_its_layers(here):
    base, part = load_backbone("base", 16)[0], load_backbone("part", 16)[0]
    same = {
        layer: all(np.array_equal(one, other) for one, other in zip(*weights, strict=True))
        for layer in ("conv1", "conv2", "conv3", "conv4", "fc1")
        for weights in [[each.get_layer(layer).get_weights() for each in (base, part)]]
    }
    # Of the layers up to pool2 the last two, conv4 and pool2, are trained; fc1 has no part in it.
    assert same == {"conv1": True, "conv2": True, "conv3": True, "conv4": False, "fc1": True}


def test_a_frozen_backbone_keeps_all_its_weights(here):
    base, frozen = load_backbone("base", 16)[0], load_backbone("frozen", 16)[0]
    for one, other in zip(base.get_weights(), frozen.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert read_model_record("frozen").trained_parameters == (512 + 1) * 3


def test_with_augmentation_a_fine_tune_starts_from_the_images(here):
    assert run("fine_tune", "changed").endswith("from images")
    assert run("fine_tune", "from-probe").endswith("from features 'exact'")


def test_nothing_is_left_of_the_checkpoints_of_finished_models(here):
    assert [path for path in Path("data/checkpoints").rglob("*") if path.is_file()] == []


def test_training_again_writes_the_same_bytes_but_for_the_cost(here):
    files = [
        *(f"models/{model}/{file}" for model in ("fresh", "cached") for file in ("history.csv", "record.json")),
        *(f"models/{model}/predictions.npz" for model in ("fresh", "cached")),
        *(f"models/{model}.weights.h5" for model in ("fresh", "cached")),
        *(f"data/features/upper/flatten/{file}" for file in ("features.npy", "above.weights.h5", "record.json")),
    ]
    before = {file: Path(file).read_bytes() for file in files}
    run("features", "upper")
    run("head", "fresh")
    run("fine_tune", "cached")
    assert [file for file in files if Path(file).read_bytes() != before[file]] == []


def test_features_without_some_classes_of_the_task_are_refused(here):
    # The check of the study knows the classes of digits; of other sources only the stage does.
    some = study().features["some"].model_copy(update={"classes": [7, 8]})
    features.main(replace(study(), features={"some": some}), "some")
    with pytest.raises(UserError, match=r"^features\.some\.classes: \d+ of 120 images of task 'high' have no features"):
        run("head", "short")
    assert not Path("models/short").exists() and not Path("models/short.weights.h5").exists()


@pytest.mark.parametrize("file", ["predictions.npz", "history.csv", "record.json"])
@pytest.mark.parametrize("damage", ["empty", "half", "other"])
def test_damaged_results_are_refused(here, file, damage):
    path = Path("models/fresh") / file
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "half": content[: len(content) // 3], "other": b"[]"}[damage])
    with pytest.raises(UserError, match=r"^models/fresh(/record\.json)? is damaged \(.*\); delete it and run") as error:
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
    write_json(path, {**read_json(path), "weights_sha256": "0" * 64})
    with pytest.raises(UserError, match=rf"^fine_tunes\.cached\.{part}: .* was made with other weights of 'base'"):
        run("fine_tune", "cached")


@pytest.mark.parametrize("stands_it", [True, False])
def test_auto_is_recorded_as_what_it_was(here, monkeypatch, stands_it):
    monkeypatch.setitem(STUDY["features"], "rough", {**STUDY["features"]["rough"], "precision": "auto"})
    monkeypatch.setitem(STUDY["heads"], "on-rough", {"task": "high", "features": "rough", "repeats": 1})
    monkeypatch.setattr(inference, "has_bfloat16", lambda: True)
    monkeypatch.setattr(inference, "TOLERATES_BFLOAT16", {"four_conv"} if stands_it else set())
    run("features", "rough")
    run("head", "on-rough")
    expected = "bfloat16" if stands_it else "float32"
    assert read_features("rough").record.precision == expected
    assert precisions(study(), "on-rough", read_model_record("on-rough")) == (expected, "float32")


def as_they_are(pixels):
    return pixels


def test_activations_beyond_float16_are_refused(here):
    inputs = keras.Input((16, 16, 3), dtype="uint8")
    model = keras.Model(inputs, keras.layers.Rescaling(1000.0)(inputs))
    images = read_images("digits")

    def extracted(storage: str, rows: np.ndarray) -> np.ndarray:
        with Path("out.npy").open("wb") as file:
            out = features.ArrayFile(file, (len(rows), 16, 16, 3), storage)
            features.extract(keras_inference(model), as_they_are, images.read, rows, [out], "features.x")
        return np.load("out.npy")

    with pytest.raises(UserError, match=r"^features\.x\.storage: an activation of 255000 does not fit float16; set"):
        extracted("float16", np.arange(70))
    found = extracted("float32", np.arange(5, 75))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, images.pixels[5:75] * 1000.0)


def examples(count: int = 10, seed: int = 0) -> Examples:
    random = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int32) % 2
    array = (random.normal(size=(count, 4)) + labels[:, None]).astype(np.float16)
    return Examples(array, np.arange(count), labels, np.arange(count), 2)


def test_batches_pass_every_row_once_in_the_order_asked_for():
    found = list(iterate_batches(examples(), 3))
    assert [len(places) for _, places in found] == [3, 3, 3, 1]
    np.testing.assert_array_equal(np.concatenate([inputs for inputs, _ in found]), examples().array)
    assert found[0][0].dtype == np.float16
    order = np.random.default_rng(0).permutation(10)
    places = np.concatenate([places for _, places in iterate_batches(examples(), 4, order)])
    np.testing.assert_array_equal(places, order)


def test_images_stay_bytes():
    ten = examples()
    images = Examples(np.zeros((10, 4, 4, 3), np.uint8), ten.rows, ten.labels, ten.index, 2)
    assert next(iterate_batches(images, 4))[0].dtype == np.uint8


def test_every_epoch_trains_on_every_row_once_in_another_order(monkeypatch):
    ten = examples()
    ten = Examples(ten.array, ten.rows, np.arange(10, dtype=np.int32), ten.index, 10)
    model = small_model(10)
    compile_model(model, training())
    seen = []

    class Noted(KerasTrainer):
        def steps(self, iterate_batches, rates):
            seen.append(iterate_batches.targets.argmax(axis=1).tolist())
            return super().steps(iterate_batches, rates)

    monkeypatch.setattr(fitting, "trainers_of", lambda models: [Noted(model) for model in models])
    monkeypatch.setattr(fitting, "CALL_BYTES", 5 * ten.array[0].nbytes)
    fit_runs([TrainingRun(model, training(epochs=3, batch_size=5))], ten, ten, 0, "test")
    assert [sorted(seen[n] + seen[n + 1]) for n in (0, 2, 4)] == [list(range(10))] * 3
    assert len({tuple(batch) for batch in seen}) == 6


def test_the_history_holds_what_keras_measures():
    make_deterministic(0)
    model = small_model()
    settings = training(epochs=1, learning_rate=1e-10, batch_size=3)  # the weights stay: both measure the same
    compile_model(model, settings)
    parts = splits()
    (history,), _ = fit_runs([TrainingRun(model, settings)], parts["train"], parts["validation"], 0, "test")
    for split in ("train", "validation"):
        loss, accuracy = model.evaluate(parts[split].array.astype(np.float32), parts[split].targets(), verbose=0)
        assert history[f"{split}_loss"][0] == pytest.approx(loss, rel=1e-5)
        assert history[f"{split}_accuracy"][0] == pytest.approx(accuracy, rel=1e-6)


def small_model(classes: int = 2) -> keras.Model:
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(classes, activation="softmax")(inputs))


def training(**changes) -> TrainingConfig:
    return TrainingConfig(**{**STUDY["training"], "batch_size": 4, **changes})


def splits(**sizes) -> dict[str, Examples]:
    return {split: examples(sizes.get(split, 10), seed) for seed, split in enumerate(("train", "validation", "test"))}


def test_early_stopping_ends_with_the_weights_of_the_lowest_validation_loss():
    make_deterministic(0)
    model = small_model()
    settings = training(epochs=200, early_stopping=3, learning_rate=0.3)
    compile_model(model, settings)
    parts = splits()
    (history,), _ = fit_runs([TrainingRun(model, settings)], parts["train"], parts["validation"], 0, "test")
    best = history["validation_loss"].idxmin()
    assert len(history) == best + 1 + 3 < 200
    found = cross_entropy(predict_probabilities(model, parts["validation"]), parts["validation"].labels)
    assert found == pytest.approx(history["validation_loss"][best], rel=1e-6)


ORIGIN = Provenance(kind="head", task="t", backbone="b", weights_sha256=None)


def trained(build, parts, *settings: TrainingConfig, fingerprint=None):
    candidates = [(each, 0.0) for each in settings]
    return train_repeats("test", build, candidates, parts, parts["train"], 0, ORIGIN, fingerprint)


@pytest.fixture(autouse=True)
def nowhere_else(tmp_path, monkeypatch):
    """Checkpoints are written below the working directory."""
    monkeypatch.chdir(tmp_path)


def test_the_repeat_of_the_lowest_validation_loss_is_kept():
    def build(l2):
        model = small_model()
        return BuiltModel(model, model)

    parts = splits()
    model, result = trained(build, parts, training(repeats=4))
    final = result.history.groupby("repeat")["validation_loss"].last()
    kept = result.record.best_repeat
    assert kept == final.idxmin() and final.nunique() == 4
    np.testing.assert_array_equal(
        predict_probabilities(model, parts["test"]), result.predictions["test"].probabilities[kept]
    )


def test_a_loss_that_is_no_number_in_every_repeat_is_an_error():
    def build(l2):
        model = small_model()
        model.layers[1].kernel.assign(np.full((4, 2), np.nan))
        return BuiltModel(model, model)

    with pytest.raises(UserError, match=r"^test: the loss of every repeat .* lower learning_rate \(now 0\.001\)"):
        trained(build, splits(), training())


def test_test_rows_do_not_change_training():
    """Only the predictions differ when the test images do."""

    def build(l2):
        model = small_model()
        return BuiltModel(model, model)

    one, _ = trained(build, splits(test=10), training())
    two, _ = trained(build, splits(test=4), training())
    for left, right in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_fewer_training_images_are_chosen_from_train_only(here):
    task, images = read_task("high"), read_images("digits")
    few, more = (
        split_examples(task, images.pixels, lambda rows: rows, training(max_train_per_class=most)) for most in (2, 5)
    )
    assert set(few["train"].index) < set(more["train"].index) <= set(task.rows("train")["index"])
    assert np.bincount(few["train"].labels).tolist() == [2, 2, 2]
    assert len(few["test"].index) == len(more["test"].index)
    assert pd.Index(few["train"].index).is_unique


def test_a_feature_record_says_what_its_features_are_made_of(here):
    record = read_features("upper").record
    assert isinstance(record, FeaturesRecord)
    assert record.images_sha256 == read_images("digits").sha256
    assert (record.cut, record.pooling, record.storage, record.precision) == ("flatten", "none", "float16", "float32")
    assert record.weights_sha256 == read_json(Path("data/weights/base/backbone.json"))["sha256"]
