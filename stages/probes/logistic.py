"""Multinomial logistic regression on features, with scikit-learn."""

import warnings

import numpy as np

from stages.probes.linear import LinearProbe
from stages.probes.standardization import StandardizedFeatures

LARGEST_INPUT = 2**29  # float32 values of the standardized features that are in memory; 2 GiB
PARALLEL = 10**8  # multiply-adds of a product from which several threads pay, about 10 ms
MOST_ITERATIONS, TOLERANCE = 200, 1e-4  # of L-BFGS, for a strength


def solve_logistic(
    features: StandardizedFeatures, rows: np.ndarray, labels: np.ndarray, weights: np.ndarray, strengths: list[float]
) -> list[LinearProbe]:
    """Solve logistic regression for all strengths with L-BFGS (Liu & Nocedal 1989), from the strongest to the weakest.

    rows: (n,) of the features to train on. labels: (n,) int, all classes. weights: (n,) of the rows, above 0.
    strengths: above 0. Minimizes the weighted mean of the cross-entropy plus strength times the squared kernel, as the
    penalty `l2` of a head does; the bias is not penalized.
    """
    # Here, because other probes would wait for this import longer than for their solution.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    inputs = np.concatenate([block.astype(np.float32) for block in features.blocks(rows)])
    share = (weights / weights.sum()).astype(np.float32)
    classifier = LogisticRegression(max_iter=MOST_ITERATIONS, tol=TOLERANCE, warm_start=True)
    solved = {}
    for l2 in sorted(strengths, reverse=True):
        # scikit-learn minimizes C times the sum of the loss plus half the squared kernel. Of two classes it has one
        # column, w, whose probabilities are those of the columns -w/2 and w/2, with half the squared kernel.
        two = labels.max() == 1
        classifier.set_params(C=1 / l2 if two else 1 / (2 * l2))
        # Thousands of short products: several threads would wait for each other longer than they compute.
        threads = 1 if inputs.size * (labels.max() + 1) < PARALLEL else None  # None: as many as there are
        with warnings.catch_warnings(), threadpool_limits(threads, "blas"):
            warnings.simplefilter("ignore", ConvergenceWarning)  # a weak penalty changes little after that many
            classifier.fit(inputs, labels, sample_weight=share)
        kernel, bias = classifier.coef_.T.astype(np.float64), classifier.intercept_.astype(np.float64)
        if two:
            kernel, bias = np.hstack([-kernel / 2, kernel / 2]), np.concatenate([-bias / 2, bias / 2])
        solved[l2] = LinearProbe(l2, kernel, bias)
    return [solved[l2] for l2 in strengths]


def solving_multiply_adds(rows: int, dimensions: int, classes: int, strengths: int) -> int:
    """The multiply-adds of `solve_logistic` at most: in each iteration, scores and gradient of all rows.

    How many iterations it takes depends on rounding, and so on the processor.
    """
    return strengths * MOST_ITERATIONS * 2 * rows * dimensions * classes
