"""Learning curves with their crossovers, and cut curves."""

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stages import compare, evaluate, report
from stages.artifacts.margin import write_margin
from stages.artifacts.tasks import write_task
from stages.backbones.layer_table import layers_of
from stages.core.params import Params
from stages.evaluation.comparisons import Comparison
from stages.evaluation.crossovers import Crossover, find_crossovers
from stages.evaluation.cut_curves import cut_curves, frozen_layers
from stages.evaluation.learning_curves import ModelCurve, learning_curves
from stages.reporting.curve_figures import crossover_sentence, cut_title, thin_out
from tests.example_results import (
    NO_NEAR_DUPLICATES,
    features_record,
    fine_tune_record,
    head_record,
    make_result,
    make_task,
    model_record,
    write_features_cost,
    write_galleries,
    write_result,
)

FEW = {"max_train_per_class": 10}
HALF = {"train_fraction": 0.5}


def vgg_features(cut, **changes):
    return features_record(name="pools", backbone="vgg", architecture="vgg16", cut=f"block{cut}_pool", **changes)


def with_amount(record, amount, images):
    """A record of a model that was trained on fewer images; amount: of its settings."""
    training = {**record.training, **amount} if record.training else {}
    return replace(record, settings={**record.settings, **amount}, training=training, train_images=images)


def head(name, cut, kind="head", amount=None, images=240, **settings):
    record = head_record(name, vgg_features(cut), kind)
    return with_amount(replace(record, settings={**record.settings, **settings}), amount or {}, images)


def network(name, lowest_trained_layer, cut="block5_pool", trainable="all"):
    origin = {"backbone": "vgg", "architecture": "vgg16", "cut": cut, "lowest_trained_layer": lowest_trained_layer}
    record = model_record(name, "network", origin)
    return replace(record, settings={**record.settings, "trainable": trainable})


def fine_tune(name, start, lowest_trained_layer, amount=None, images=240):
    record = fine_tune_record(name, start, lowest_trained_layer)
    settings = {**record.settings, "head": start.name, "unfreeze": lowest_trained_layer}
    return with_amount(replace(record, settings=settings), amount or {}, images)


def make_records():
    heads = [
        head("few", 3, amount=FEW, images=30),
        head("some", 3, amount=HALF, images=120),
        head("all", 3),
        head("solved-few", 3, "probe", FEW, 30),
        head("solved-all", 3, "probe"),
        head("high", 5),
        # The same head on features of which only name and storage differ.
        head_record("low", replace(vgg_features(2), name="lower", storage="float32")),
        head("wide", 4, hidden=[16]),
    ]
    few, _, every, *_ = heads
    models = [
        network("whole", "block1_conv1"),
        network("upper", "block5_conv1", trainable="block5"),
        network("frozen", None, trainable="head"),
        network("cut-off", None, "block4_pool", "head"),
        network("cut-top", "block4_conv3", "block4_pool", 2),
        *heads,
        fine_tune("tuned-few", few, "block3_conv1", FEW, 30),
        fine_tune("tuned-all", every, "block3_conv1"),
        fine_tune("tuned-deep", every, "block1_conv1"),
    ]
    return {record.name: record for record in models}


@pytest.fixture(scope="module")
def records():
    return make_records()


def choose(records, *names):
    return {name: records[name] for name in names}


def test_learning_curves_join_models_that_differ_only_in_the_number_of_images(records):
    assert learning_curves(records) == [
        ModelCurve("all", {"few": 10, "some": 40, "all": 80}),
        ModelCurve("solved-all", {"solved-few": 10, "solved-all": 80}),
        ModelCurve("tuned-all", {"tuned-few": 10, "tuned-all": 80}),
    ]


def test_the_number_of_repeats_and_the_chosen_candidate_do_not_matter(records):
    few = records["few"]
    few = replace(few, training={**few.training, "repeats": 5}, settings={**few.settings, "repeats": 5})
    assert learning_curves({"few": few, "all": records["all"]}) == [ModelCurve("all", {"few": 10, "all": 80})]
    rates = {"learning_rate": [0.1, 0.01]}
    models = {
        name: replace(
            records[name],
            settings={**records[name].settings, **rates},
            training={**records[name].training, "learning_rate": chosen},
        )
        for name, chosen in (("few", 0.1), ("all", 0.01))
    }
    assert learning_curves(models) == [ModelCurve("all", {"few": 10, "all": 80})]


def test_a_different_training_setting_is_not_on_the_curve(records):
    few = records["few"]
    few = replace(few, training={**few.training, "learning_rate": 0.1})
    assert learning_curves({"few": few, "all": records["all"]}) == []


def test_fine_tunes_of_one_head_and_of_several_heads_are_separate_curves(records):
    """A head of all images is fine-tuned on few of them, and on all."""
    few = fine_tune("deep-few", records["all"], "block1_conv1", FEW, 30)
    models = choose(records, "few", "all", "tuned-few", "tuned-all", "tuned-deep") | {"deep-few": few}
    assert learning_curves(models)[1:] == [
        ModelCurve("tuned-deep", {"deep-few": 10, "tuned-deep": 80}),
        ModelCurve("tuned-all", {"tuned-few": 10, "tuned-all": 80}),
    ]


def test_the_first_of_two_models_with_equally_many_images_is_on_the_curve(records):
    models = choose(records, "few", "some", "all")
    models["few"] = replace(models["few"], train_images=120)
    assert learning_curves(models) == [ModelCurve("all", {"few": 40, "all": 80})]
    assert learning_curves({name: replace(record, train_images=240) for name, record in models.items()}) == []


def test_cut_curves_join_models_that_differ_only_in_the_frozen_layers(records):
    """VGG16 has blocks of 2, 2, 3, 3 and 3 convolutions, each followed by a pooling layer."""
    assert cut_curves(records) == {
        "vgg16": [
            ModelCurve("frozen", {"whole": 0, "upper": 14, "frozen": 18}),
            ModelCurve("cut-off", {"cut-top": 12, "cut-off": 14}),
            ModelCurve("high", {"low": 6, "all": 10, "high": 18}),
            ModelCurve("tuned-all", {"tuned-deep": 0, "tuned-all": 6}),
        ]
    }
    assert cut_curves(choose(records, "few", "solved-all", "wide")) == {}


def test_cut_curves_on_a_network_of_the_study_have_its_architecture():
    heads = {cut: head_record(cut, features_record(cut=cut)) for cut in ("flatten", "conv4")}
    assert list(cut_curves(heads)) == ["four_conv"]
    layers = list(layers_of("four_conv"))
    assert {cut: frozen_layers(record) - 1 for cut, record in heads.items()} == {
        cut: layers.index(cut) for cut in heads
    }


# Crossovers


def pair(a, b, difference, distinguishable=True):
    return Comparison(a, b, difference, 0, 0, 0.01, 0.01, distinguishable, 0, 0, 1, 1)


def accuracies(**models):
    return {model: {"test": {"accuracy": accuracy}} for model, accuracy in models.items()}


def curve(name, *images):
    return ModelCurve(f"{name}{images[-1]}", {f"{name}{number}": number for number in images})


A, B = curve("a", 1, 100), curve("b", 1, 100)
CROSSED = accuracies(a1=0.6, a100=0.7, b1=0.4, b100=0.9)


def test_curves_with_equal_and_opposite_distances_cross_in_the_middle_of_the_logarithm():
    test = [pair("a1", "b1", 0.2), pair("a100", "b100", -0.2)]
    expected = [Crossover("a100", "b100", pytest.approx(10), True)]
    assert find_crossovers([A, B], CROSSED, test) == expected
    assert find_crossovers([B, A], CROSSED, [pair("b1", "a1", -0.2), pair("b100", "a100", 0.2)]) == expected


@pytest.mark.parametrize("distinguishable", [(True, False), (False, True), (False, False)])
def test_a_crossover_is_significant_only_if_both_sides_are_distinguishable(distinguishable):
    test = [pair("a1", "b1", 0.2, distinguishable[0]), pair("a100", "b100", -0.2, distinguishable[1])]
    (crossover,) = find_crossovers([A, B], CROSSED, test)
    assert not crossover.significant
    assert crossover_sentence(vars(crossover)) == (
        "b100 overtakes a100 at about 10 images per class, but this may be chance: the difference is not significant "
        "on both sides."
    )
    assert "is significant on both sides" in crossover_sentence({**vars(crossover), "significant": True})


def test_pairs_of_unequal_images_and_pairs_against_the_curves_are_no_evidence():
    test = [pair("a1", "b1", -0.2), pair("a100", "b100", 0.2), pair("a1", "b100", 0.2), pair("a100", "a1", 0.1)]
    assert [crossover.significant for crossover in find_crossovers([A, B], CROSSED, test)] == [False]


def test_a_pair_is_evidence_only_up_to_the_next_crossover():
    curves = [curve(name, 1, 10, 100, 1000) for name in "ab"]
    metrics = accuracies(a1=0.6, a10=0.59, a100=0.61, a1000=0.6, b1=0.5, b10=0.6, b100=0.6, b1000=0.7)
    ends = [pair("a1", "b1", 0.1), pair("a1000", "b1000", -0.1)]
    crossovers = find_crossovers(curves, metrics, ends)
    assert [(crossover.after, crossover.significant) for crossover in crossovers] == [
        ("b1000", False), ("a1000", False), ("b1000", False),
    ]  # fmt: skip
    middle = [pair("a10", "b10", -0.01), pair("a100", "b100", 0.01)]
    crossovers = find_crossovers(curves, metrics, ends + middle)
    assert [crossover.significant for crossover in crossovers] == [True, True, True]


def test_curves_that_are_equal_for_a_while_cross_in_the_middle_of_it():
    three = [curve(name, 1, 10, 100) for name in "ab"]
    (touch,) = find_crossovers(three, accuracies(a1=0.7, a10=0.8, a100=0.8, b1=0.5, b10=0.8, b100=0.9), [])
    assert touch.images == pytest.approx(10)
    four = [curve(name, 1, 10, 100, 1000) for name in "ab"]
    equal = accuracies(a1=0.7, a10=0.8, a100=0.8, a1000=0.8, b1=0.5, b10=0.8, b100=0.8000004, b1000=0.9)
    (stretch,) = find_crossovers(four, equal, [])
    assert stretch.images == pytest.approx(10**1.5)


def test_curves_that_touch_or_do_not_overlap_do_not_cross():
    assert find_crossovers([A, B], accuracies(a1=0.5, a100=0.7, b1=0.5, b100=0.9), []) == []
    assert find_crossovers([A, B], accuracies(a1=0.6, a100=0.9, b1=0.4, b100=0.9), []) == []
    late = curve("b", 200, 900)
    assert find_crossovers([A, late], accuracies(a1=0.9, a100=0.1, b200=0.9, b900=0.1), []) == []


curves = st.dictionaries(st.integers(1, 1000), st.integers(0, 100), min_size=2, max_size=6)


@given(curves, curves)
@example({1: 70, 10: 80, 100: 80}, {1: 50, 10: 80, 100: 90})
def test_at_every_crossover_the_curves_are_equal_and_the_order_changes(a, b):
    both = {"a": a, "b": b}
    both_curves = [curve(name, *sorted(points)) for name, points in both.items()]
    metrics = accuracies(
        **{f"{name}{images}": points[images] / 100 for name, points in both.items() for images in points}
    )
    low, high = max(min(a), min(b)), min(max(a), max(b))

    def lead(images):
        heights = [
            np.interp(np.log(images), np.log(sorted(points)), [points[knot] for knot in sorted(points)])
            for points in both.values()
        ]
        return heights[0] - heights[1]

    crossovers = find_crossovers(both_curves, metrics, [])
    for crossover in crossovers:
        assert low * 0.999 <= crossover.images <= high * 1.001
        assert lead(crossover.images) == pytest.approx(0, abs=1e-6)
    assert all(before.after == after.before for before, after in pairwise(crossovers))
    # Curves are straight between knots: the order at the knots shows how often it changes.
    knots = np.array(sorted(images for images in {*a, *b} if low <= images <= high))
    signs = np.sign(lead(knots).round(6)) if len(knots) else np.array([])
    signs = signs[signs != 0]
    assert len(crossovers) == np.sum(signs[1:] != signs[:-1])


# Figures


def test_labels_keep_their_distance():
    ticks = [1, 5, 6, 10, 100, 110, 1000]
    assert thin_out(ticks, ticks) == [1, 5, 10, 100, 1000]
    assert thin_out([8.5, 9.8, 30], ticks) == [8.5, 30]
    assert thin_out([8.5, 9.8, 30], [8, 9, 10]) == [8.5, 9.8, 30]
    assert thin_out([], ticks) == []


def test_the_title_names_the_best_cut_of_a_single_curve_if_it_is_significant():
    layers = list(layers_of("vgg16"))
    heads = {"name": "high", "models": {"low": 6, "all": 10, "high": 18}}
    significant = [vars(pair(a, b, 0.3)) for a, b in (("low", "all"), ("all", "high"), ("all", "other"))]
    similar = [vars(pair("low", "high", 0.1, False))]
    neutral = "accuracy by highest frozen layer"
    metrics = accuracies(low=0.5, all=0.8, high=0.6)
    assert cut_title({"vgg16": {"layers": layers, "curves": [heads]}}, metrics, significant + similar) == (
        "accuracy is highest with block3_pool as the highest frozen layer"
    )
    whole = {"name": "low", "models": {"all": 0, "low": 18}}
    assert "with none as" in cut_title({"vgg16": {"layers": layers, "curves": [whole]}}, metrics, significant)
    assert cut_title({"vgg16": {"layers": layers, "curves": [heads, heads]}}, metrics, significant) == neutral
    unclear = [*significant[1:], vars(pair("low", "all", 0.3, False))]
    assert cut_title({"vgg16": {"layers": layers, "curves": [heads]}}, metrics, unclear) == neutral


def test_the_report_has_learning_curves_and_cut_curves(records, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rising = {"few": 0.9, "some": 0.9, "all": 0.6, "solved-few": 0.6, "solved-all": 0.95}
    write_task(make_task("b", 0), NO_NEAR_DUPLICATES)
    for name, record in records.items():
        repeated = replace(record, repeats=10, folds=[0] * 10, epochs=[3] * 10)
        write_result(make_result(repeated, rising.get(name, 0.7), seconds=1.0))
    for features in ("pools", "lower"):
        write_features_cost(features, *(f"block{cut}_pool" for cut in range(1, 6)))
    write_galleries("b")
    write_margin(1)
    params = Params(
        {"seed": 3, "tasks": {"b": {}}, "networks": dict.fromkeys(records), "features": {"pools": {}, "lower": {}}}
    )
    for stage in (evaluate, compare, report):
        stage.main(params)
    first = json.loads(Path("reports/comparisons.json").read_text(encoding="utf-8"))["b"]["crossovers"][0]
    assert (first["before"], first["after"], first["significant"]) == ("all", "solved-all", True)
    text = Path("reports/report.md").read_text(encoding="utf-8")
    page = Path("reports/report.html").read_text(encoding="utf-8")
    # A probe is solved: it has no epochs and no training curve.
    figures = {path.name for path in Path("reports/figures").iterdir()}
    assert "training-all.png" in figures and "training-solved-all.png" not in figures
    curves = re.search(r"!\[([^]]*)\]\(figures/curves-b.png\)", text)[1]
    assert " all," in curves and "solved" not in curves
    metrics = json.loads(Path("reports/metrics.json").read_text(encoding="utf-8"))
    assert metrics["solved-all"]["training"]["epochs"] is None and metrics["all"]["training"]["epochs"] == 3
    for picture in ("learning-b.png", "cuts-b.png"):
        assert f"(figures/{picture})" in text
        assert Path("reports/figures", picture).stat().st_size > 10_000
    assert crossover_sentence(first) in page
    assert r"upper at block4\_pool" in text and r"low at block2\_pool" in text
