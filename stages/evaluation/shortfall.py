"""The rule that recommends a model: the cheapest one whose validation accuracy is within a margin of the highest."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from stages.evaluation.comparisons import RESAMPLES, resampled_accuracies
from stages.evaluation.folds import Outcomes, fold_variances

SAME_COST = 1.2  # costs within this factor of the smallest one count as the same
ROUNDING = 1e-9  # a model that is exactly `margin` below the best is within the margin


@dataclass(frozen=True)
class MultiplyAdds:
    """The cost of a model, the same on every machine and in every run.

    in_use: multiply-adds of predicting one image. training: those of one repeat, with all that the model is built on.
    """

    in_use: int
    training: int


@dataclass(frozen=True)
class Choice:
    """best: the model with the smallest expected shortfall. candidates: the models within the margin of it, in the
    order of the study. recommended: the cheapest candidate. shortfalls: expected shortfall of every model, 0 to 1.
    probability: that the recommended model is within the margin of whichever model is best, 0 to 1.
    """

    best: str
    candidates: list[str]
    recommended: str
    shortfalls: dict[str, float]
    probability: float


def choose(
    outcomes: dict[str, Outcomes],
    costs: dict[str, MultiplyAdds],
    margin: float,
    seed: int,
    resamples: int = RESAMPLES,
) -> Choice:
    """Recommend a model of a task: the cheapest one whose validation accuracy is within a margin of the highest.

    The choice itself needs no resampling: expected shortfalls differ by exactly the differences in accuracy. What
    resampling adds is how sure the choice is, the size of the shortfalls and the probability.

    outcomes: of models on the same validation images. costs: of each of them. margin: how far the recommended model
    may be below the best one, as a share; with 0 the best is recommended. seed: of the resampling.

    The expected shortfall of a model is the mean, over joint resamples of images and repeats, of how far its accuracy
    is below that of whichever model is best in the resample: the expected opportunity cost of selecting it (Chick &
    Inoue 2001, Operations Research 49). The resamples are those of the bootstrap (Efron 1979, Annals of Statistics 7).
    """
    accuracies = joint_accuracies(outcomes, seed, resamples)
    highest = accuracies.max(axis=1)
    # The mean of a model's resamples is its accuracy. The accuracy itself has no noise of the resampling, which would
    # decide between models whose difference is the margin.
    shortfalls = {model: float(highest.mean() - part.by_image.mean()) for model, part in outcomes.items()}
    smallest = min(shortfalls.values())
    best = cheapest((model for model in shortfalls if shortfalls[model] <= smallest + ROUNDING), costs, shortfalls)
    candidates = [model for model in shortfalls if shortfalls[model] <= smallest + margin + ROUNDING]
    recommended = cheapest(candidates, costs, shortfalls)
    below = highest - accuracies[:, [*outcomes].index(recommended)]
    return Choice(best, candidates, recommended, shortfalls, float((below <= margin + ROUNDING).mean()))


def cheapest(models: Iterable[str], costs: dict[str, MultiplyAdds], shortfalls: dict[str, float]) -> str:
    """The cheapest of some models, at least one.

    Of the models whose cost in use is within `SAME_COST` of the lowest, those whose cost of training is within
    `SAME_COST` of the lowest among them; of these, the one with the smallest shortfall; then the first.
    """
    models = list(models)
    for cost in ("in_use", "training"):
        lowest = min(getattr(costs[model], cost) for model in models)
        models = [model for model in models if getattr(costs[model], cost) <= SAME_COST * lowest]
    return min(models, key=lambda model: round(shortfalls[model], 9))


def joint_accuracies(outcomes: dict[str, Outcomes], seed: int, resamples: int) -> np.ndarray:
    """The accuracies of all models in resamples of images and of what training varies, (resamples, models).

    Where all repeats validate on the same images, images and repeats are drawn, see `resampled_accuracies`. Where they
    validate on different folds, the images are drawn, and then for every model the effects of the trainings of the
    folds, see `_training_effects`: drawing folds with their images would count the variation of the images twice.
    """
    correct = {model: part.by_image for model, part in outcomes.items()}
    first = next(iter(outcomes.values()))
    drawn = resampled_accuracies(correct, first.groups, seed, resamples)
    accuracies = np.stack([drawn[model] for model in outcomes], axis=1)
    if not first.folds.any() or len(outcomes) == 1:
        return accuracies
    effects = _training_effects(np.concatenate([*correct.values()]), first.groups, first.folds)
    random, draws = np.random.default_rng([seed, len(outcomes)]), effects.shape[1] - 1
    # One fold fewer than there are, as for repeats.
    weights = random.multinomial(draws, np.full(draws + 1, 1 / (draws + 1)), size=accuracies.shape) / draws
    return accuracies + (weights * effects).sum(axis=2)


def _training_effects(values: np.ndarray, groups: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """By how much the training of each fold made a model better or worse, (models, folds) float64, with a mean of 0.

    values: (models, n), at least two models. groups, folds: (n,) int. How hard the images of a fold are is no effect of
    training. It is the same for all models, so it is removed as the median over the models: a training that failed is
    then an effect on its own model alone. The rest is scaled to the variance that the choice of images leaves
    unexplained.
    """
    sizes, models = np.bincount(folds), len(values)
    deviations = np.stack([np.bincount(folds, row) for row in values]) / sizes - values.mean(axis=1, keepdims=True)
    effects = deviations - np.median(deviations, axis=0)
    _, between = fold_variances(effects[:, folds], groups, folds)
    images, _ = fold_variances(values - values.mean(axis=0), groups, folds)
    # The median of two models is their mean: it takes half of the variance of both. That of more models takes little.
    training = np.maximum(0, between - images) * (2 if models == 2 else 1)
    shares = effects * sizes / sizes.mean()
    scale = np.sqrt(np.divide(training, between, out=np.zeros(models), where=between > 0))
    return (shares - shares.mean(axis=1, keepdims=True)) * scale[:, None]
