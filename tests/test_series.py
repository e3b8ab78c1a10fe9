"""Models that differ in one thing only: learning curves with their crossings, and accuracy by depth."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stages import evaluate, report
from stages.artifacts.costs import Cost, write_cost
from stages.artifacts.models import ModelRecord, read_model_record, read_result, write_result
from stages.artifacts.tasks import read_task, write_task
from stages.backbones.layer_table import layers_of
from stages.evaluation.comparisons import Comparison
from stages.evaluation.learning_curves import Crossover, ModelSeries, cut_curves, find_crossovers, learning_curves
from stages.reporting.curve_figures import crossing_sentence, depth_title, spread
from tests import test_reporting
from tests.test_reporting import NO_NEAR_DUPLICATES, make_task, sound_study, write_galleries, write_model

TASK = {"task": "b"}
HEADS = {
    "few": {"features": "pools", "cut": "pool3", "max_train_per_class": 10, **TASK},
    "some": {"features": "pools", "cut": "pool3", "train_fraction": 0.5, **TASK},
    "all": {"features": "pools", "cut": "pool3", **TASK},
    "solved-few": {"features": "pools", "cut": "pool3", "kind": "ridge", "max_train_per_class": 10, **TASK},
    "solved-all": {"features": "pools", "cut": "pool3", "kind": "ridge", **TASK},
    "high": {"features": "pools", "cut": "pool5", **TASK},
    # The same cut in other features, of which only the storage differs.
    "low": {"features": "lower", **TASK},
    "apart": {"features": "pools", "cut": "pool4", "hidden": [16], **TASK},
}
IMAGES = {"few": 30, "some": 120, "solved-few": 30, "tuned-few": 30}  # of 240
CUTS = {"pool2": "block2_pool", "pool3": "block3_pool", "pool4": "block4_pool", "pool5": "block5_pool"}


def make_study():
    tune = {"dataset": "d", "backbone": "vgg", "features": "pools", **TASK}
    return sound_study(
        **{
            "tasks": {"b": {"dataset": "d", "include": [0, 1, 2], "validation": 0.2, "test": 0.4}},
            "backbones": {"vgg": {"architecture": "vgg16", "weights": "imagenet"}},
            "networks": {
                "whole": {"dataset": "d", "backbone": "vgg", **TASK},
                "upper": {"dataset": "d", "backbone": "vgg", "trainable": "block5", **TASK},
                "frozen": {"dataset": "d", "backbone": "vgg", "trainable": "head", **TASK},
                "cut-off": {"dataset": "d", "backbone": "vgg", "trainable": "head", "cut": "pool4", **TASK},
                "cut-top": {"dataset": "d", "backbone": "vgg", "trainable": 2, "cut": "pool4", **TASK},
            },
            "features": {
                "pools": {"dataset": "d", "backbone": "vgg", "cut": ["pool3", "pool4", "pool5"]},
                "lower": {"dataset": "d", "backbone": "vgg", "cut": "pool2", "storage": "float32"},
            },
            "heads": HEADS,
            "fine_tunes": {
                "tuned-few": {"head": "few", "unfreeze": "block3", "max_train_per_class": 10, **tune},
                "tuned-all": {"head": "all", "unfreeze": "block3", **tune},
                "tuned-deep": {"head": "all", "unfreeze": "all", **tune},
            },
        }
    )  # fmt: skip


def record_of(study, model):
    head = study.heads.get(getattr(study.models[model], "head", model))
    cut = CUTS[head.cut or "pool2"] if head else None  # train records none
    return ModelRecord(
        kind="head", task="b", backbone="vgg", weights_sha256="0", cut=cut, train_images=IMAGES.get(model, 240),
        repeats=2, best_repeat=0, epochs=[3, 3], trained_parameters=1, total_parameters=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def study():
    return make_study()


@pytest.fixture(scope="module")
def records(study):
    return {model: record_of(study, model) for model in study.models}


def test_learning_curves_join_models_that_differ_in_the_number_of_images_alone(study, records):
    assert learning_curves(study, list(study.models), records, classes=3) == [
        ModelSeries("all", {"few": 10, "some": 40, "all": 80}),
        ModelSeries("solved-all", {"solved-few": 10, "solved-all": 80}),
        ModelSeries("tuned-all", {"tuned-few": 10, "tuned-all": 80}),
    ]


def test_what_is_called_otherwise_or_repeated_more_often_is_still_the_same(study, records):
    again = study.heads["few"].model_copy(update={"cut": "block3_pool", "repeats": 5})
    again = again.model_copy(update={"__pydantic_fields_set__": again.model_fields_set})
    renamed = replace(study, heads={**study.heads, "few": again})
    assert learning_curves(renamed, ["few", "all"], records, classes=3) == [ModelSeries("all", {"few": 10, "all": 80})]


def test_fine_tunes_of_other_heads_are_another_line(study, records):
    """A head of all images tuned on few of them, and tuned on all."""
    few = study.fine_tunes["tuned-deep"].model_copy(update={"max_train_per_class": 10})
    wide = replace(study, fine_tunes={**study.fine_tunes, "deep-few": few})
    records = {**records, "deep-few": replace(records["all"], train_images=30)}
    tunes = list(wide.fine_tunes)
    assert learning_curves(wide, tunes, records, classes=3) == [
        ModelSeries("tuned-deep", {"deep-few": 10, "tuned-deep": 80}),
        ModelSeries("tuned-all", {"tuned-few": 10, "tuned-all": 80}),
    ]


def test_of_two_models_with_equally_many_images_the_first_counts(study, records):
    every = {**records, "few": replace(records["few"], train_images=120)}
    assert learning_curves(study, ["few", "some", "all"], every, classes=3) == [
        ModelSeries("all", {"few": 40, "all": 80})
    ]
    every["some"] = every["few"] = records["all"]
    assert learning_curves(study, ["few", "some", "all"], every, classes=3) == []


def test_depths_join_models_that_differ_in_the_frozen_layers_alone(study, records):
    """VGG16 has its blocks of 2, 2, 3, 3 and 3 convolutions, each with a pooling layer."""
    found = cut_curves(study, list(study.models), records)
    assert found == {
        "vgg16": [
            ModelSeries("frozen", {"whole": 0, "upper": 14, "frozen": 18}),
            ModelSeries("cut-off", {"cut-top": 12, "cut-off": 14}),
            ModelSeries("high", {"low": 6, "all": 10, "high": 18}),
            ModelSeries("tuned-all", {"tuned-deep": 0, "tuned-all": 6}),
        ]
    }
    assert cut_curves(study, ["few", "solved-all", "apart"], records) == {}


def test_the_architecture_of_a_network_of_the_study_is_that_of_its_backbone():
    study = test_reporting.make_study()
    records = {name: replace(record_of(make_study(), "all"), backbone="a-net", cut=cut) for name, cut in
               (("b-head", "flatten"), ("other", "conv4"))}  # fmt: skip
    heads = {name: study.heads["b-head"] for name in records}
    wide = replace(study, heads=heads)
    assert list(cut_curves(wide, list(heads), records)) == ["four_conv"]


# Crossings


def pair(a, b, difference, distinguishable=True):
    return Comparison(a, b, difference, 0, 0, 0.01, 0.01, distinguishable, 0, 0, 1, 1)


def accuracies(**found):
    return {model: {"test": {"accuracy": accuracy}} for model, accuracy in found.items()}


ONE, OTHER = ModelSeries("a100", {"a1": 1, "a100": 100}), ModelSeries("b100", {"b1": 1, "b100": 100})
CROSSED = accuracies(a1=0.6, a100=0.7, b1=0.4, b100=0.9)


def test_lines_of_equal_and_opposite_distance_cross_in_the_middle_of_the_logarithm():
    test = [pair("a1", "b1", 0.2), pair("a100", "b100", -0.2)]
    expected = [Crossover("a100", "b100", pytest.approx(10), True)]
    assert find_crossovers([ONE, OTHER], CROSSED, test) == expected
    assert find_crossovers([OTHER, ONE], CROSSED, [pair("b1", "a1", -0.2), pair("b100", "a100", 0.2)]) == expected


@pytest.mark.parametrize("clear", [(True, False), (False, True), (False, False)])
def test_a_crossing_is_beyond_chance_only_where_both_sides_are_distinguishable(clear):
    test = [pair("a1", "b1", 0.2, clear[0]), pair("a100", "b100", -0.2, clear[1])]
    (found,) = find_crossovers([ONE, OTHER], CROSSED, test)
    assert not found.beyond_chance
    assert "which may be chance" in crossing_sentence(vars(found))
    assert "are distinguishable" in crossing_sentence({**vars(found), "beyond_chance": True})


def test_a_difference_the_other_way_round_is_no_evidence():
    """A pair of models of other lines, and one that says the opposite of the lines."""
    test = [pair("a1", "b1", -0.2), pair("a100", "b100", 0.2), pair("a1", "b100", 0.2), pair("a100", "a1", 0.1)]
    assert [crossing.beyond_chance for crossing in find_crossovers([ONE, OTHER], CROSSED, test)] == [False]


def test_a_pair_is_evidence_only_up_to_where_the_lines_cross_again():
    a, b = (ModelSeries(f"{name}1000", {f"{name}{images}": images for images in (1, 10, 100, 1000)}) for name in "ab")
    metrics = accuracies(a1=0.6, a10=0.59, a100=0.61, a1000=0.6, b1=0.5, b10=0.6, b100=0.6, b1000=0.7)
    ends = [pair("a1", "b1", 0.1), pair("a1000", "b1000", -0.1)]
    found = find_crossovers([a, b], metrics, ends)
    assert [(each.after, each.beyond_chance) for each in found] == [
        ("b1000", False),
        ("a1000", False),
        ("b1000", False),
    ]
    middle = [pair("a10", "b10", -0.01), pair("a100", "b100", 0.01)]
    assert [each.beyond_chance for each in find_crossovers([a, b], metrics, ends + middle)] == [True, True, True]


def test_lines_that_are_level_for_a_while_cross_in_the_middle_of_it():
    a, b = (ModelSeries(f"{name}100", {f"{name}{images}": images for images in (1, 10, 100)}) for name in "ab")
    (touch,) = find_crossovers([a, b], accuracies(a1=0.7, a10=0.8, a100=0.8, b1=0.5, b10=0.8, b100=0.9), [])
    assert touch.at == pytest.approx(10)
    four = [ModelSeries(f"{name}1000", {f"{name}{images}": images for images in (1, 10, 100, 1000)}) for name in "ab"]
    level = accuracies(a1=0.7, a10=0.8, a100=0.8, a1000=0.8, b1=0.5, b10=0.8, b100=0.8000004, b1000=0.9)
    (stretch,) = find_crossovers(four, level, [])
    assert stretch.at == pytest.approx(10**1.5)


def test_lines_that_touch_or_do_not_overlap_do_not_cross():
    assert find_crossovers([ONE, OTHER], accuracies(a1=0.5, a100=0.7, b1=0.5, b100=0.9), []) == []
    assert find_crossovers([ONE, OTHER], accuracies(a1=0.6, a100=0.9, b1=0.4, b100=0.9), []) == []
    late = ModelSeries("b900", {"b200": 200, "b900": 900})
    assert find_crossovers([ONE, late], accuracies(a1=0.9, a100=0.1, b200=0.9, b900=0.1), []) == []


lines = st.dictionaries(st.integers(1, 1000), st.integers(0, 100), min_size=2, max_size=6)


@given(lines, lines)
@example({1: 70, 10: 80, 100: 80}, {1: 50, 10: 80, 100: 90})
def test_at_every_crossing_the_lines_are_equal_and_the_order_changes(one, other):
    both = {"a": one, "b": other}
    series = [ModelSeries(name, {f"{name}{place}": place for place in sorted(line)}) for name, line in both.items()]
    metrics = accuracies(**{f"{name}{place}": line[place] / 100 for name, line in both.items() for place in line})
    low, high = max(min(one), min(other)), min(max(one), max(other))

    def ahead(places):
        heights = [
            np.interp(np.log(places), np.log(sorted(line)), [line[at] for at in sorted(line)]) for line in both.values()
        ]
        return heights[0] - heights[1]

    found = find_crossovers(series, metrics, [])
    for crossing in found:
        assert low * 0.999 <= crossing.at <= high * 1.001
        assert ahead(crossing.at) == pytest.approx(0, abs=1e-6)
    assert all(before.after == after.before for before, after in pairwise(found))
    # Between knots lines are straight: the order at the knots tells how often it changes.
    knots = np.array(sorted(place for place in {*one, *other} if low <= place <= high))
    signs = np.sign(ahead(knots).round(6)) if len(knots) else np.array([])
    signs = signs[signs != 0]
    assert len(found) == np.sum(signs[1:] != signs[:-1])


# Pictures


def test_labels_keep_their_distance():
    places = [1, 5, 6, 10, 100, 110, 1000]
    assert spread(places, places) == [1, 5, 10, 100, 1000]
    assert spread([8.5, 9.8, 30], places) == [8.5, 30]
    assert spread([8.5, 9.8, 30], [8, 9, 10]) == [8.5, 9.8, 30]
    assert spread([], places) == []


def test_the_title_names_the_best_depth_of_a_single_series():
    layers = list(layers_of("vgg16"))
    one = {"name": "high", "models": {"low": 6, "all": 10, "high": 18}}
    clear = [vars(pair(a, b, 0.3)) for a, b in (("low", "all"), ("all", "high"), ("all", "other"))]
    level = [vars(pair("low", "high", 0.1, False))]
    neutral = "accuracy by the depth that is frozen"
    metrics = accuracies(low=0.5, all=0.8, high=0.6)
    assert depth_title({"vgg16": {"layers": layers, "series": [one]}}, metrics, clear + level) == (
        "accuracy is highest with block3_pool as the highest frozen layer"
    )
    whole = {"name": "low", "models": {"all": 0, "low": 18}}
    assert "with none as" in depth_title({"vgg16": {"layers": layers, "series": [whole]}}, metrics, clear)
    assert depth_title({"vgg16": {"layers": layers, "series": [one, one]}}, metrics, clear) == neutral
    unclear = [*clear[1:], vars(pair("low", "all", 0.3, False))]
    assert depth_title({"vgg16": {"layers": layers, "series": [one]}}, metrics, unclear) == neutral


def test_the_report_shows_both(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rising = {"few": 0.9, "some": 0.9, "all": 0.6, "solved-few": 0.6, "solved-all": 0.95}
    write_task(make_task("b", 0), NO_NEAR_DUPLICATES)
    for model in study.models:
        monkeypatch.setitem(test_reporting.ACCURACY, model, rising.get(model, 0.7))
        monkeypatch.setitem(test_reporting.SECONDS, model, 1.0)
        write_model(model, read_task("b"), repeats=10)
        result = read_result(model)
        kind = {"networks": "network", "heads": "head", "fine_tunes": "fine-tune"}
        of = next(kind[section] for section in kind if model in getattr(study, section))
        made = replace(record_of(study, model), kind=of, repeats=10, epochs=[3] * 10)
        feature_map = result.feature_map or read_result("whole").feature_map
        if of == "head" and feature_map is None:
            rows = result.predictions["validation"].index[:20]
            feature_map = test_reporting.FeatureMap(rows, np.zeros((20, 2), np.float32), np.array([0.5, 0.2]))
        write_result(model, replace(result, record=made, feature_map=feature_map))
        assert read_model_record(model) == made
    for features in study.features:
        write_cost("features", features, Cost(20.0, 50.0, "test machine"))
    write_galleries("b")
    evaluate.main(study)
    report.main(study)
    found = json.loads((tmp_path / "reports/comparisons.json").read_text(encoding="utf-8"))["b"]["crossings"]
    first = found[0]
    assert (first["before"], first["after"], first["beyond_chance"]) == ("all", "solved-all", True)
    text = (tmp_path / "reports/report.md").read_text(encoding="utf-8")
    page = (tmp_path / "reports/report.html").read_text(encoding="utf-8")
    for picture in ("learning-b.png", "depth-b.png"):
        assert f"(figures/{picture})" in text
        assert (tmp_path / "reports/figures" / picture).stat().st_size > 10_000
    assert crossing_sentence(first) in page
    assert r"upper at block4\_pool" in text and r"low at block2\_pool" in text
