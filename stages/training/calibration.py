"""Temperature scaling: one number that makes the probabilities of a model as certain as it is right (Guo et al. 2017).

Logits are divided by the temperature: above 1, probabilities become less certain, below 1 more certain. The order of
the classes stays, and with it the accuracy. Needs no deep-learning framework.
"""

import numpy as np
from scipy.special import log_softmax, softmax

from stages.probes.bisection import crossing

BOUNDS = (0.05, 20.0)
# As if so many further images had labels that follow the model's own probabilities. They pull the temperature to 1, by
# little beside a hundred images; without them, images that are all predicted correctly would make it 0.
PRIOR_IMAGES = 10
NEGLIGIBLE = 1e-6  # gain in cross-entropy, nats an image
SMALLEST = np.finfo(np.float32).tiny  # in a logarithm: float32 has no smaller probability


def fit_temperature(predictions: list[tuple[np.ndarray, np.ndarray]], images: int) -> float:
    """The temperature with the lowest cross-entropy on validation images, between `BOUNDS`.

    It makes a model more certain only up to a mean probability at the low end of the 95 % interval of its accuracy:
    otherwise a model that is correct on all validation images would become too certain of others.

    predictions: of each repeat its probabilities (n, classes) and the labels (n,) int; of repeats that diverged, whose
    probabilities are not finite, none count. images: how many different ones these are: repeats that predict the same
    images count as one. Returns 1 if all repeats diverged, or if 1 is best.
    """
    finite = [(probabilities, labels) for probabilities, labels in predictions if np.isfinite(probabilities).all()]
    if not finite:
        return 1.0
    logits = _logits(np.concatenate([probabilities for probabilities, _ in finite]))
    labels = np.concatenate([labels for _, labels in finite])
    own = softmax(logits, axis=1) * (PRIOR_IMAGES / images)
    own[np.arange(len(labels)), labels] += 1

    def loss(log_temperature: float) -> float:
        return -(own * log_softmax(logits / np.exp(log_temperature), axis=1)).sum()

    weights, total = own.sum(axis=1, keepdims=True), (own * logits).sum()

    def slope(log_temperature: float) -> float:  # of the loss, along the inverse temperature: the loss is convex in it
        return total - (weights * softmax(logits / np.exp(log_temperature), axis=1) * logits).sum()

    fitted = crossing(slope, *np.log(BOUNDS))
    if loss(0) - loss(fitted) < NEGLIGIBLE * len(labels):  # also if all are predicted correctly with certainty
        return 1.0
    supported = _lowest_accuracy(float((logits.argmax(axis=1) == labels).mean()), images)

    def lack(log_temperature: float) -> float:
        return supported - softmax(logits / np.exp(log_temperature), axis=1).max(axis=1).mean()

    if fitted < 0 and lack(fitted) < 0:
        fitted = 0.0 if lack(0) <= 0 else crossing(lack, fitted, 0)
    return round(float(np.exp(fitted)), 4)


def _lowest_accuracy(share: float, images: int) -> float:
    """The low end of Wilson's (1927) 95 % interval of an accuracy."""
    spread = 1.96**2 / images
    return float((share + spread / 2 - np.sqrt(spread * share * (1 - share) + spread**2 / 4)) / (1 + spread))


def at_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (..., classes) at a temperature, float32; what is not finite stays so."""
    return softmax(_logits(probabilities) / temperature, axis=-1).astype(np.float32)


def _logits(probabilities: np.ndarray) -> np.ndarray:
    """Logits, float64, whose softmax are the probabilities."""
    return np.log(np.maximum(probabilities.astype(np.float64), SMALLEST))
