"""The two principal components of features, for a scatter plot."""

import numpy as np
from sklearn.decomposition import PCA

from stages.artifacts.models import PcaProjection
from stages.training.batches import Examples

MAX_IMAGES = 400  # more points would only cover each other in a plot


def project_features(examples: Examples, seed: int) -> PcaProjection:
    """Project the features of at most `MAX_IMAGES` examples, drawn by the seed, on their first two components.

    Every channel (last axis) is first scaled to variance 1, as heads do; a few large channels would dominate otherwise.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(examples.rows))[:MAX_IMAGES])
    features = examples.array[examples.rows[chosen]].astype(np.float32)  # (n, ..., channels)
    spread = features.std(axis=tuple(range(features.ndim - 1)))
    features /= np.where(spread > 0, spread, 1)
    pca = PCA(n_components=2, svd_solver="randomized", random_state=seed % 2**32)
    points = pca.fit_transform(features.reshape(len(chosen), -1))
    # Rounded, because the last digits of sums of many numbers differ between runs on several cores.
    shares = np.nan_to_num(pca.explained_variance_ratio_)
    return PcaProjection(examples.index[chosen], points.round(3).astype(np.float32), shares.round(4))
