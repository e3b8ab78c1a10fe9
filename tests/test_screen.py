"""The screen of backbones by probes: their order, intervals and chances, and the sentences on what to fine-tune."""

from types import SimpleNamespace

import numpy as np
import pytest

from stages.evaluation.folds import Outcomes
from stages.evaluation.screen import FIRST, LINEAR, NEIGHBORS, screen, screen_backbones, screen_sentences

IMAGES = 400
SHARE = 0.3  # of images that two probes of a backbone see differently


def record(backbone, kind="ridge", cost=1_000):
    features = SimpleNamespace(multiply_adds=cost, parameters=250_000)
    provenance = SimpleNamespace(backbone=backbone, architecture=f"net-{backbone}", features=features)
    return SimpleNamespace(kind="probe", settings={"kind": kind}, provenance=provenance)


def outcome(accuracy, seed=0):
    """One repeat with exactly this accuracy, on images of different difficulty."""
    correct = np.zeros(IMAGES, bool)
    correct[np.random.default_rng(seed).permutation(IMAGES)[: round(accuracy * IMAGES)]] = True
    return Outcomes(correct[None], np.ones((1, IMAGES), bool), np.arange(IMAGES))


def study(accuracies, costs=None, kinds=("nearest_neighbors", "ridge")):
    """Records, outcomes and metrics of probes; accuracies: backbone -> accuracy of each kind."""
    records, outcomes, metrics = {}, {}, {}
    for number, (backbone, values) in enumerate(accuracies.items()):
        for kind, value in zip(kinds, values, strict=False):
            name = f"{backbone}-{kind}"
            records[name] = record(backbone, kind, (costs or {}).get(backbone, 1_000))
            outcomes[name] = outcome(value, number)
            metrics[name] = {"cost": {"batch_images_per_second": 100.0 if kind == "ridge" else 90.0}}
    return records, outcomes, metrics


def test_backbones_are_ranked_by_the_mean_of_both_kinds_of_probes():
    backbones = screen_backbones(*study({"a": (0.6, 0.8), "b": (0.9, 0.7), "c": (0.5, 0.5)}), seed=0)
    assert [(entry.backbone, entry.score) for entry in backbones] == [("b", 0.8), ("a", 0.7), ("c", 0.5)]
    best = backbones[0]
    assert best.accuracies == {NEIGHBORS: 0.9, LINEAR: 0.7}
    assert best.probes == {NEIGHBORS: "b-nearest_neighbors", LINEAR: "b-ridge"}
    assert (best.architecture, best.images_per_second, best.megabytes) == ("net-b", 100.0, 1.0)
    assert best.low < best.score < best.high


def test_a_kind_that_a_backbone_lacks_does_not_count():
    records, outcomes, metrics = study({"a": (0.9, 0.6), "b": (0.5, 0.7)})
    del records["b-nearest_neighbors"], outcomes["b-nearest_neighbors"], metrics["b-nearest_neighbors"]
    assert [(entry.backbone, entry.score) for entry in screen_backbones(records, outcomes, metrics, seed=0)] == [
        ("b", 0.7),
        ("a", 0.6),
    ]


@pytest.mark.parametrize("backbones", [{}, {"a": (0.5, 0.6)}])
def test_fewer_than_two_backbones_are_no_screen(backbones):
    assert screen(*study(backbones), seed=0) == {"screen": [], "screen_sentences": []}


def test_models_other_than_probes_do_not_count():
    records, outcomes, metrics = study({"a": (0.5, 0.6), "b": (0.7, 0.6)})
    for other in records.values():
        other.kind = "head"
    assert screen_backbones(records, outcomes, metrics, seed=0) == []


def test_the_chances_of_a_place_among_the_first_add_up_to_their_number():
    accuracies = {name: (value, value) for name, value in zip("abcdef", (0.9, 0.8, 0.79, 0.78, 0.5, 0.5), strict=True)}
    backbones = screen_backbones(*study(accuracies), seed=0)
    chances = {entry.backbone: entry.among_first for entry in backbones}
    assert sum(chances.values()) == pytest.approx(FIRST, abs=1e-4)
    assert chances["a"] > 0.99 and chances["e"] < 0.01
    assert chances["b"] > chances["c"] > chances["d"] > 0.1


def test_backbones_that_predict_alike_share_their_places():
    records, outcomes, metrics = study({name: (0.6, 0.6) for name in "abcd"})
    same = outcome(0.6)
    backbones = screen_backbones(records, dict.fromkeys(outcomes, same), metrics, seed=0)
    assert [entry.among_first for entry in backbones] == [FIRST / 4] * 4


def test_the_front_has_no_backbone_that_another_one_beats_in_both():
    accuracies = {"large": (0.9, 0.9), "small": (0.7, 0.7), "slow": (0.6, 0.6), "tiny": (0.5, 0.5)}
    costs = {"large": 9_000, "small": 500, "slow": 10_000, "tiny": 500}
    backbones = screen_backbones(*study(accuracies, costs), seed=0)
    assert {entry.backbone for entry in backbones if entry.on_front} == {"large", "small"}


def test_the_sentences_say_what_to_fine_tune_first_and_what_is_cheaper():
    accuracies = {"a": (0.95, 0.95), "b": (0.9, 0.9), "c": (0.85, 0.85), "d": (0.845, 0.845), "e": (0.5, 0.5)}
    costs = {"a": 10_000, "b": 10_000, "c": 10_000, "d": 10_000, "e": 400}
    first, close, cheap = screen_sentences(screen_backbones(*study(accuracies, costs), seed=0))
    assert first == (
        "Of 5 backbones, fine-tune a, b, c first: their probes are the most accurate on the validation images (85.0 % "
        "to 95.0 %)."
    )
    assert close.startswith("Other images of this kind may put d (with a probability of ")
    assert close.endswith(" %) among the first 3.")
    assert cheap == (
        "If speed matters, add e: it needs 4 % of the multiply-adds of a, and no backbone that needs fewer is as "
        "accurate (50.0 %)."
    )


def test_a_cheaper_backbone_of_almost_the_same_cost_has_a_readable_share():
    accuracies = {"a": (0.9, 0.9), "b": (0.8, 0.8), "c": (0.7, 0.7), "d": (0.6, 0.6)}
    costs = {"a": 1_000, "b": 1_000, "c": 1_000, "d": 996}
    *_, cheap = screen_sentences(screen_backbones(*study(accuracies, costs), seed=0))
    assert "it needs 100 % of the multiply-adds of a" in cheap


def test_three_backbones_are_few_enough():
    sentences = screen_sentences(screen_backbones(*study({"a": (0.9, 0.9), "b": (0.8, 0.8)}), seed=0))
    assert sentences == ["All 2 backbones are few enough to fine-tune: a, b, by their probes."]


KINDS = "Probes of kind {} do not count, because some backbones have none ({})."


@pytest.mark.parametrize(
    ("kinds", "sentence"),
    [
        (
            {"a": ["ridge"], "b": ["nearest_neighbors"]},
            "The backbones are not ranked, because their probes are of different kinds (a without "
            "nearest_neighbors; b without ridge or logistic). Add probes, so that all backbones have one of the "
            "same kind.",
        ),
        (
            {"a": ["logistic"], "b": ["nearest_neighbors", "ridge"], "c": ["nearest_neighbors"], "d": ["ridge"]},
            "The backbones are not ranked, because their probes are of different kinds (a, d without "
            "nearest_neighbors; c without ridge or logistic). Add probes, so that all backbones have one of the "
            "same kind.",
        ),
        ({"a": ["ridge", "nearest_neighbors"], "b": ["logistic"]}, KINDS.format("nearest_neighbors", "b")),
        (
            {"a": ["ridge", "nearest_neighbors"], "b": ["nearest_neighbors"], "c": ["nearest_neighbors"]},
            KINDS.format("ridge or logistic", "b, c"),
        ),
        (
            {"a": ["ridge", "logistic", "ridge"], "b": ["ridge", "ridge"], "c": ["ridge", "ridge", "logistic"]},
            "Of the probes of kind ridge or logistic of a, c, only the first 2 in the study count, as many as every "
            "backbone has: the best of more would also be the luckiest.",
        ),
        (
            {"a": ["nearest_neighbors", "nearest_neighbors"], "b": ["nearest_neighbors"]},
            "Of the probes of kind nearest_neighbors of a, only the first 1 in the study count, as many as every "
            "backbone has: the best of more would also be the luckiest.",
        ),
        ({"a": ["ridge"], "b": ["logistic"]}, None),
        ({"a": ["ridge"]}, None),
    ],
)
def test_probes_that_do_not_count_are_told(kinds, sentence):
    result = screen(*probes(kinds), seed=0)
    ranked = len(kinds) > 1 and not (sentence or "").startswith("The backbones are not ranked")
    assert bool(result["screen"]) == ranked
    assert result["screen_sentences"][ranked:] == ([sentence] if sentence else [])


def probes(kinds):
    """Records, outcomes and metrics of probes; kinds: backbone -> the kinds of its probes."""
    named = {
        f"{backbone}{number}": (backbone, kind) for backbone in kinds for number, kind in enumerate(kinds[backbone])
    }
    records = {name: record(*of) for name, of in named.items()}
    metrics = {name: {"cost": {"batch_images_per_second": 1.0}} for name in named}
    return records, {name: outcome(0.5 + number / 100) for number, name in enumerate(named)}, metrics


@pytest.mark.parametrize(
    ("kinds", "chosen", "score"),
    [
        (["ridge", "logistic"], {LINEAR: "a1"}, 0.6),  # the most accurate
        (["ridge", "logistic", "ridge"], {LINEAR: "a1"}, 0.6),  # not the third, which is more accurate
        (["logistic", "nearest_neighbors", "ridge"], {LINEAR: "a2"}, 0.9),  # the second of its kind
    ],
)
def test_as_many_probes_of_a_kind_count_as_every_backbone_has(kinds, chosen, score):
    records, outcomes, metrics = probes({"a": kinds, "b": ["ridge", "logistic"]})
    outcomes |= {"a0": outcome(0.5), "a1": outcome(0.6), "b0": outcome(0.8), "b1": outcome(0.7)}
    if "a2" in outcomes:
        outcomes["a2"] = outcome(0.9)
    backbones = {entry.backbone: entry for entry in screen_backbones(records, outcomes, metrics, seed=0)}
    assert (backbones["a"].probes, backbones["a"].score) == (chosen, score)
    assert (backbones["b"].probes, backbones["b"].score) == ({LINEAR: "b0"}, 0.8)


@pytest.mark.parametrize("numbers", [(1, 1), (1, 12), (3, 12), (4, 4)], ids=str)
def test_the_first_three_of_twelve_backbones_are_the_best_about_as_often_as_stated(numbers):
    """Simulated studies with 200 validation images and backbones whose true accuracies are known.

    numbers: of the probes of the three best backbones, and of each other one, which more must not help.
    """
    random, stated, actual = np.random.default_rng(5), 0.0, 0
    names = [f"b{number}" for number in range(12)]
    few, many = numbers
    kinds = {name: ["ridge"] * (few if names.index(name) < FIRST else many) for name in names}
    for _ in range(60):
        records, _, metrics = probes(kinds)
        truth = dict(zip(names, np.sort(random.uniform(0.6, 0.9, 12))[::-1], strict=True))
        difficulty = {name: random.random(200) for name in names}  # of each image for a backbone
        outcomes = {}
        for probe, own in records.items():
            backbone = own.provenance.backbone
            differs = random.random(200) < SHARE
            correct = np.where(differs, random.random(200), difficulty[backbone]) < truth[backbone]
            outcomes[probe] = Outcomes(correct[None], np.ones((1, 200), bool), np.arange(200))
        first = screen_backbones(records, outcomes, metrics, seed=0)[:FIRST]
        stated += sum(entry.among_first for entry in first)
        actual += sum(names.index(entry.backbone) < FIRST for entry in first)
    assert abs(stated - actual) / (60 * FIRST) < 0.05
