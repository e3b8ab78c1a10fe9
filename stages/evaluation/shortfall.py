"""The rule that recommends a model: the cheapest one whose expected shortfall is within a margin of the smallest."""

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
    """Recommend a model of a task.

    outcomes: of all models on the same validation images. costs: of each model. margin: how far the recommended model
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
    validate on different folds, the images are drawn, and what training adds to the differences between folds is drawn
    from a normal distribution: drawing folds too would count the variation of their images twice.
    """
    correct = {model: part.by_image for model, part in outcomes.items()}
    first = next(iter(outcomes.values()))
    drawn = resampled_accuracies(correct, first.groups, seed, resamples)
    accuracies = np.stack([drawn[model] for model in outcomes], axis=1)
    folds, models = first.folds, len(outcomes)
    if not folds.any() or models == 1:
        return accuracies
    values = np.concatenate([*correct.values()])
    # How hard the images of a fold are is the same for all models, and no effect of training.
    images, between = fold_variances(values - values.mean(axis=0), first.groups, folds)
    training = np.maximum(0, between - images) * models / (models - 1)
    random = np.random.default_rng([seed, models])
    return accuracies + random.normal(size=accuracies.shape) * np.sqrt(training)
