"""Simulated studies with known truth: how far below the best model is the one that the product's rule recommends?

Of K models the best has an accuracy uniform in 0.70 to 0.95, the others are below it by exponential gaps with a mean of
5 points. Costs are log-uniform over a factor of 32. The models share the difficulty of the images.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from stages.evaluation.folds import Outcomes
from stages.evaluation.shortfall import MultiplyAdds, choose


@dataclass(frozen=True)
class Kind:
    """A kind of study.

    models: how many. correlation: of the difficulty of an image for two models. equal: the number of models that are at
    most 0.3 points below the best; 0 for one best model. repeats: of each model. folds: whether each repeat validates
    on another share of the images. training: what repeats of a model differ in, as a share of the part of the
    difficulty that models do not share, and as a standard deviation of their ability.
    """

    models: int = 8
    correlation: float = 0.7
    equal: int = 0
    repeats: int = 1
    folds: bool = False
    training: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Decisions:
    """What was recommended in many studies; arrays (studies,).

    below: true accuracy of the best model minus that of the recommended one. cost: of the recommended model over that
    of the model with the highest validation accuracy. probability: as stated, that it is within the margin of the best.
    """

    below: np.ndarray
    cost: np.ndarray
    probability: np.ndarray

    def missed(self, points: float) -> float:
        """The share of studies whose recommended model is more than this many points below the best."""
        return float((self.below > points / 100 + 1e-12).mean())

    @property
    def mean_cost(self) -> float:
        """The geometric mean of the cost."""
        return float(np.exp(np.log(self.cost).mean()))


def simulate(images: int, kind: Kind, studies: int = 600, resamples: int = 20, margin: float = 0.01) -> Decisions:
    """Simulate studies with this many validation images, and let the product recommend a model in each."""
    random = np.random.default_rng(images)
    results = [_decide(random, images, kind, resamples, margin) for _ in range(studies)]
    return Decisions(*np.transpose(results))


def _decide(random, images, kind, resamples, margin) -> tuple[float, float, float]:
    accuracy, cost = _models(random, kind)
    outcomes = _outcomes(random, accuracy, images, kind)
    costs = {model: MultiplyAdds(value, value) for model, value in zip(outcomes, cost, strict=True)}
    choice = choose(outcomes, costs, margin, seed=0, resamples=resamples)
    recommended = [*outcomes].index(choice.recommended)
    validation = np.array([part.by_image.mean() for part in outcomes.values()]).round(9)
    best_cost = cost[validation == validation.max()].min()
    return accuracy.max() - accuracy[recommended], cost[recommended] / best_cost, choice.probability


def _models(random, kind) -> tuple[np.ndarray, np.ndarray]:
    """True accuracy and cost of every model, (models,)."""
    best = random.uniform(0.70, 0.95)
    accuracy = np.clip(best - random.exponential(0.05, kind.models), 0.2, 1.0)
    accuracy[: kind.equal] = best - random.uniform(0, 0.003, kind.equal)
    accuracy[0] = best
    return accuracy, 10 ** random.uniform(0, 1.5, kind.models)


def _outcomes(random, accuracy, images, kind) -> dict[str, Outcomes]:
    """What the models predict correctly; a model's true accuracy is the mean over its possible trainings."""
    own, ability = kind.training
    shape = (kind.models, kind.repeats)
    difficulty = np.sqrt(1 - own) * random.normal(size=(kind.models, 1, images))
    if own:
        difficulty = difficulty + np.sqrt(own) * random.normal(size=(*shape, images))
    difficulty *= np.sqrt(1 - kind.correlation)
    difficulty = difficulty + np.sqrt(kind.correlation) * random.normal(size=images)
    threshold = np.sqrt(1 + ability**2) * stats.norm.ppf(accuracy)[:, None] + ability * random.normal(size=shape)
    predicts = np.ones((kind.repeats, images), bool)
    if kind.folds:
        predicts = np.arange(kind.repeats)[:, None] == np.arange(images) % kind.repeats
    correct = (difficulty < threshold[:, :, None]) & predicts
    return {f"m{number}": Outcomes(part, predicts, np.arange(images)) for number, part in enumerate(correct)}
