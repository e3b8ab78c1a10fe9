"""What models cost: multiply-adds, which are the same on every machine, and measured time, size and memory."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

from stages.artifacts.costs import InferenceTime, read_features_cost, read_model_cost
from stages.artifacts.models import ModelResult, Predictions, read_model_record
from stages.artifacts.tasks import read_task
from stages.backbones.building import build_backbone
from stages.backbones.cuts import above_cut, freeze_below, up_to_cut
from stages.backbones.multiply_adds import multiply_adds, training_multiply_adds
from stages.core import measurement
from stages.core.measurement import milliseconds_per_image, process_peak_memory
from stages.evaluation.costs import inference_time, model_costs, pareto_front, total_training_multiply_adds
from stages.evaluation.formatting import quantity
from stages.reporting.cost_figures import draw_cost, draw_times, training_time
from stages.reporting.style import TaskModels, line_styles
from stages.training.measurement import measure_inference
from tests.example_results import (
    features_record,
    fine_tune_record,
    head_record,
    make_cost,
    model_record,
    write_features_cost,
)


@pytest.mark.parametrize(
    ("application", "published"),
    [
        ("ResNet50", 3.8e9),  # He et al. 2016, table 1
        ("MobileNetV2", 300e6),  # Sandler et al. 2018, table 4
        ("EfficientNetB0", 390e6),  # Tan & Le 2019, table 2
    ],
)
def test_the_multiply_adds_of_a_network_are_the_published_ones(application, published):
    network = getattr(keras.applications, application)(weights=None)
    assert multiply_adds(network) == pytest.approx(published, rel=0.02)


def test_a_network_is_counted_up_to_a_cut_and_above_it():
    backbone = build_backbone("vgg16", 224)
    dense = 7 * 7 * 512 * 4096 + 4096 * 4096 + 4096 * 1000  # which a backbone lacks
    assert multiply_adds(backbone) + dense == pytest.approx(15.5e9, rel=0.005)  # Simonyan & Zisserman 2015
    below, above = up_to_cut(backbone, "block1_pool"), above_cut(backbone, "block1_pool")
    assert multiply_adds(below) == 224 * 224 * 9 * (3 * 64 + 64 * 64)
    assert multiply_adds(below) + multiply_adds(above) == multiply_adds(backbone)


def test_every_kind_of_layer_is_counted():
    images = keras.Input((8, 8, 4))
    x = layers.Conv2D(6, 3, strides=2, groups=2, padding="same")(images)  # (4, 4, 6)
    convolution = 16 * 9 * 2 * 6
    x = layers.DepthwiseConv2D(3, depth_multiplier=2)(x)  # (2, 2, 12)
    depthwise = 4 * 9 * 12
    x = keras.Sequential([layers.SeparableConv2D(5, 2, padding="same"), layers.BatchNormalization()])(x)
    separable = 4 * (4 * 12 + 12 * 5)
    x = layers.Activation("relu")(layers.LayerNormalization()(x))
    shared = layers.Dense(5)
    x = layers.Add()([shared(x), shared(x)])
    dense = 2 * 4 * 5 * 5
    inner = keras.Input((2, 2, 5))
    nested = keras.Model(inner, layers.Dense(3)(layers.Flatten()(inner)))
    model = keras.Model(images, nested(x))
    assert multiply_adds(model) == convolution + depthwise + separable + dense + 20 * 3


def test_a_layer_that_cannot_be_counted_is_refused():
    tokens = keras.Input((7, 8))
    convolved = layers.Conv1D(4, 3, name="convolution")(tokens)
    with pytest.raises(TypeError, match=r"cannot count layer 'convolution' \(Conv1D\)\. Add its class"):
        multiply_adds(keras.Model(tokens, convolved))


def test_attention_counts_its_projections_and_the_products_of_all_pairs_of_tokens():
    queries, keys = keras.Input((7, 8)), keras.Input((5, 8))
    attention = layers.MultiHeadAttention(num_heads=2, key_dim=3)(queries, keys)
    projections = 7 * 8 * 6 + 2 * 5 * 8 * 6 + 7 * 6 * 8  # queries, keys and values, output
    assert multiply_adds(keras.Model([queries, keys], attention)) == projections + 2 * 7 * 5 * 8


def test_a_training_step_takes_three_forward_passes_of_trained_layers_and_one_of_frozen_ones():
    backbone = build_backbone("four_conv", 16)
    freeze_below(backbone, "conv3")
    below, above = (multiply_adds(part) for part in (up_to_cut(backbone, "pool1"), above_cut(backbone, "pool1")))
    assert training_multiply_adds(backbone) == below + 3 * above


def test_the_record_of_a_model_has_its_multiply_adds(here):
    convolutions = 16 * 16 * 9 * (3 * 32 + 32 * 32) + 8 * 8 * 9 * (32 * 64 + 64 * 64)
    hidden = 4 * 4 * 64 * 512
    base, fresh, probe, tuned, choice = map(read_model_record, ("base", "fresh", "probe", "cached", "choice"))
    assert base.multiply_adds == convolutions + hidden + 512 * 3
    assert fresh.multiply_adds == convolutions + 1024 * 8 + 8 * 3
    assert tuned.multiply_adds == base.multiply_adds
    below_probe = 16 * 16 * 9 * (3 * 32 + 32 * 32) + 8 * 8 * 9 * 32 * 64
    assert probe.provenance.features.multiply_adds == below_probe
    assert probe.multiply_adds == below_probe + 8 * 8 * 64 * 3
    # Training: 2 epochs of the network on 3 x 40 images, with the validation images after each.
    images = len(read_task("low").rows("validation"))
    assert base.training_multiply_adds == 2 * (120 * 3 + images) * base.multiply_adds
    # The heads train only what is above the features, the fine-tune only what is above those that it starts from.
    images = len(read_task("high").rows("validation"))  # of each fold
    assert fresh.training_multiply_adds == 2 * (120 * 3 + images) * (1024 * 8 + 8 * 3)
    upper = 8 * 8 * 9 * (32 * 64 + 64 * 64) + hidden + 512 * 3
    assert tuned.training_multiply_adds == 2 * (120 * 3 + images) * upper
    # Four candidates in the first of two repeats, one in the second; three views.
    head = choice.multiply_adds - choice.provenance.features.multiply_adds
    assert choice.training_multiply_adds == (4 + 1) * 2 * (3 * 120 * 3 + images) * head / 2
    # 120 images of 8 x 8 x 64 features: the products of all pairs of images, and the decomposition of their matrix.
    assert probe.training_multiply_adds == 120 * 120 * 4096 + 120**3


def result_of(record, images=10, folds=1):
    """The result of a model with two repeats and 10 validation images, or a repeat for each of several folds."""
    count = max(2, folds)
    indices = [images * (repeat % folds) + np.arange(images) for repeat in range(count)]
    validation = Predictions.of_repeats(indices, [np.zeros((images, 3), np.float32)] * count)
    return ModelResult(record, make_cost(1.0), None, {"validation": validation})


def test_the_total_counts_everything_that_a_model_is_built_on_once():
    low, high = features_record(cut="conv4", multiply_adds=700), features_record(multiply_adds=1000)
    network = model_record("a-net", "network", training_multiply_adds=10**9)
    head = head_record("b-head", high, training_multiply_adds=10**6)
    tuned = fine_tune_record("b-tune", head, "conv4", features=low, training_multiply_adds=10**7)
    results = {record.name: result_of(record) for record in (network, head, tuned)}
    features = (240 + 10) * 1000  # training and validation images, to the higher of the two cut layers
    assert total_training_multiply_adds("a-net", results) == 10**9
    assert total_training_multiply_adds("b-head", results) == 10**9 + 10**6 + features
    assert total_training_multiply_adds("b-tune", results) == 10**9 + 10**6 + 10**7 + features
    two_views = head_record("b-head", replace(high, views=[{"flip": "horizontal"}]), training_multiply_adds=10**6)
    results["b-head"] = result_of(two_views)
    assert total_training_multiply_adds("b-head", results) == 10**9 + 10**6 + (2 * 240 + 10) * 1000


@pytest.mark.parametrize("folds", [1, 2, 3])
def test_repeats_on_other_folds_change_no_cost_of_one_repeat(folds):
    """The validation images of the other repeats are not needed to train one."""
    built = [model_record("a-net", "network"), head_record("b-head", features_record(multiply_adds=1000))]
    results = {record.name: result_of(record, folds=folds) for record in built}
    assert total_training_multiply_adds("b-head", results) == 2 * 3_000_000 + (240 + 10) * 1000


@pytest.mark.parametrize("images", [(30, 10), (10, 30)])
def test_the_validation_images_of_a_lineage_are_those_of_the_model_with_the_most(images):
    head = head_record("b-head", features_record(multiply_adds=1000))
    tuned = fine_tune_record("b-tune", head, "conv4", features=features_record(multiply_adds=1000))
    results = {"a-net": result_of(model_record("a-net", "network"))}
    results |= {record.name: result_of(record, count) for record, count in zip((head, tuned), images, strict=True)}
    assert total_training_multiply_adds("b-tune", results) == 3 * 3_000_000 + (240 + 30) * 1000


# Measured costs.


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests advance; measuring ends after the fewest runs unless a test says otherwise."""
    clock = [0.0]
    monkeypatch.setattr(measurement.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(measurement, "SHORTEST", 0.0)
    monkeypatch.setattr(measurement, "LONGEST", 0.0)
    return clock


def test_speed_is_the_median_of_runs_after_a_warm_up(clock):
    calls = []

    def run(images):
        calls.append(len(images))
        # The first two calls of a size compile; one later call is interrupted.
        clock[0] += 100.0 if calls.count(len(images)) in (1, 2, 5) else 0.002 * len(images)

    assert milliseconds_per_image(run, np.zeros((32, 4))) == (pytest.approx(2.0), pytest.approx(2.0))
    assert calls == [1] * 9 + [32] * 9


@pytest.mark.parametrize(("growth", "runs"), [(0.0, 100), (0.01, 118)])
def test_a_fast_function_runs_longer_if_its_speed_changes(clock, monkeypatch, growth, runs):
    monkeypatch.setattr(measurement, "SHORTEST", 0.5)
    monkeypatch.setattr(measurement, "LONGEST", 1.5)
    calls = []

    def run(images):
        calls.append(len(images))
        clock[0] += 0.01 * (1 + growth * len(calls))

    milliseconds_per_image(run, np.zeros((32, 4)))
    assert calls.count(1) == pytest.approx(runs, abs=6)


def test_the_peak_memory_of_a_process_grows_by_what_it_uses():
    before = process_peak_memory()
    block = np.ones(int(before * 1e6 / 8) + 10_000_000)  # larger than all so far
    assert process_peak_memory() > before + 50 and block.any()


def test_the_time_of_a_head_is_without_that_of_a_call(monkeypatch):
    """The time of a run depends here on the model alone: 5 ms for a head, 3 ms for a model that does nothing."""
    monkeypatch.setattr(
        "stages.training.measurement.milliseconds_per_image",
        lambda run, images: (5.0, 0.5) if run.__self__.name == "head" else (3.0, 0.1),
    )
    features, images = keras.Input((6,)), keras.Input((4, 4, 3), dtype="uint8")
    head = keras.Model(features, layers.Dense(2)(features), name="head")
    assert measure_inference(head) == InferenceTime(2.0, 0.4)
    full = keras.Model(images, layers.Dense(2)(layers.Flatten()(layers.Rescaling(1.0)(images))), name="head")
    assert measure_inference(full) == InferenceTime(5.0, 0.5)


def test_a_head_in_use_takes_the_time_of_its_backbone_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_features_cost("f", "flatten")
    head, network = result_of(head_record("b-head", features_record())), result_of(model_record("b-net", "network"))
    assert inference_time(head) == InferenceTime(4.5, 1.1)
    assert inference_time(network) == InferenceTime(0.5, 0.1)
    costs = model_costs("b-net", {"b-net": network})
    assert (costs["milliseconds_per_image"], costs["batch_images_per_second"]) == (0.5, 10_000)
    assert (costs["megabytes"], costs["peak_memory_mb"]) == (20 * 4 / 1e6, 800)


def test_stages_measure_time_and_memory(here):
    features = read_features_cost("several")
    assert {*features.inference} == {"fc1", "conv3"}
    for time in [*features.inference.values(), *(read_model_cost(name).inference for name in ("base", "cached"))]:
        assert 0 < time.batched < time.single
    own, below = read_model_cost("probe").inference, features.inference["conv3"]
    assert 0 < own.single < below.single
    assert read_model_cost("base").peak_memory > 100


# The Pareto front.


def example_metrics(**models):
    return {
        name: {
            "validation": {"accuracy": accuracy},
            "test": {"accuracy": accuracy, "accuracy_low": accuracy - 0.1, "accuracy_high": accuracy + 0.05},
            "cost": {
                "multiply_adds": cost, "total_training_multiply_adds": 100 * cost, "seconds": 1.0,
                "total_seconds": 2.0, "milliseconds_per_image": 3.0,
            },
        }
        for name, (accuracy, cost) in models.items()
    }  # fmt: skip


def test_no_model_is_cheaper_and_more_accurate_than_one_on_the_front():
    metrics = example_metrics(
        best=(0.9, 100), cheap=(0.7, 1), middle=(0.8, 10), worse=(0.75, 20), dear=(0.9, 200), equal=(0.8, 10)
    )
    assert pareto_front(metrics, "multiply_adds") == ["cheap", "middle", "equal", "best"]


def cost_figures(**models):
    """The models of a study with their accuracy and cost, and what draws their costs."""
    metrics = example_metrics(**models)
    models = TaskModels("b", line_styles([*metrics]), dict.fromkeys(metrics, "head"), metrics, [*metrics][-1])
    fronts = {cost: pareto_front(metrics, cost) for cost in ("total_training_multiply_adds", "multiply_adds")}
    return models, draw_cost(models, fronts)


@pytest.mark.parametrize("prices", [(10**6, 13 * 10**5), (1, 10**15), (2 * 10**8, 3 * 10**8)])
def test_the_figures_of_cost_show_every_model_on_a_readable_scale(prices):
    models, (picture,) = cost_figures(one=(0.8, prices[0]), two=(0.9, prices[1]))
    assert len(picture.figure.axes) == 2
    for axes in picture.figure.axes:
        low, high = axes.get_xlim()
        drawn = [x for line in axes.lines for x in line.get_xdata()]
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert low < min(drawn) and max(drawn) < high and 3 <= len(ticks) <= 12
        assert {text.get_text() for text in axes.texts} == {"one", "two ✓"}
    legend = [text.get_text() for text in picture.figure.legends[0].get_texts()]
    assert legend == ["head", "Pareto front"]
    assert "one" in draw_times(models).alt


def test_costs_that_count_as_the_same_are_not_drawn():
    models, pictures = cost_figures(one=(0.8, 100), two=(0.9, 120))
    assert pictures == []
    assert "In multiply-adds, the models are within a factor of 1.2" in draw_times(models).caption
    models.metrics["one"]["cost"]["total_training_multiply_adds"] = 10
    (picture,) = draw_cost(models, {cost: ["two"] for cost in ("total_training_multiply_adds", "multiply_adds")})
    assert len(picture.figure.axes) == 1
    assert "The cost of use is not drawn" in picture.caption
    assert "In multiply-adds" not in draw_times(models).caption


def test_the_time_of_what_a_model_is_built_on_has_its_own_number():
    assert training_time(0.2, 43.0) == "0.2 s + 42.8 s"
    assert training_time(10.0, 10.0) == "10.0 s"


@pytest.mark.parametrize(
    ("number", "text"), [(15_470_000_000, "15.5 G"), (300_774_272, "301 M"), (1e12, "1 T"), (4640, "4.64 k"), (0, "0")]
)
def test_large_numbers_have_prefixes(number, text):
    assert quantity(number) == text
