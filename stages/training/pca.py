"""A look at features: their two principal components."""

import numpy as np
from sklearn.decomposition import PCA

from stages.artifacts.models import PcaProjection
from stages.training.batches import Examples

IMAGES = 400  # more would only cover each other in a picture


def project_features(examples: Examples, seed: int) -> PcaProjection:
    """Project the features of at most `IMAGES` of the examples, drawn by the seed, on their first two components.

    Every channel (last axis) is scaled to variance 1 first, as heads do: a few large ones would be all that is seen.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(examples.rows))[:IMAGES])
    features = examples.array[examples.rows[chosen]].astype(np.float32)  # (n, ..., channels)
    spread = features.std(axis=tuple(range(features.ndim - 1)))
    features /= np.where(spread > 0, spread, 1)
    analysis = PCA(n_components=2, svd_solver="randomized", random_state=seed % 2**32)
    points = analysis.fit_transform(features.reshape(len(chosen), -1))
    # Rounded, because sums of many numbers differ in their last digits between runs on several cores.
    shares = np.nan_to_num(analysis.explained_variance_ratio_)
    return PcaProjection(examples.index[chosen], points.round(3).astype(np.float32), shares.round(4))
