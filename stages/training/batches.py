"""The examples of a task, and the batches of a training; arrays may be larger than memory."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from stages.artifacts.tasks import SPLITS, Task, row_labels
from stages.config.training import TrainingConfig

# In inference; the activations of images take many times the bytes of the images.
IMAGES_PER_CALL, FEATURES_PER_CALL, BYTES_PER_CALL = 64, 1024, 16 * 2**20


@dataclass(frozen=True)
class Examples:
    """The images, or the features, of one split of a task.

    array: (m, ...) uint8 images or float features, possibly memory-mapped. rows: (n,) rows of the array.
    labels: (n,) int32. index: (n,) rows of the dataset, which are stored with the predictions. classes: of the task.
    views: in which every example occurs; all examples in one view, then all in the next.
    """

    array: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    index: np.ndarray
    classes: int
    views: int = 1

    def with_views(self, views: int, images: int) -> "Examples":
        """Every example in this many views; the array holds all `images` in one view, then all in the next."""
        rows = np.concatenate([self.rows + view * images for view in range(views)])
        labels, index = np.tile(self.labels, views), np.tile(self.index, views)
        return replace(self, rows=rows, labels=labels, index=index, views=views)

    def targets(self) -> np.ndarray:
        """The labels one-hot, (n, classes) float32."""
        return np.eye(self.classes, dtype=np.float32)[self.labels]


def split_examples(
    task: Task,
    array: np.ndarray,
    positions: Callable[[np.ndarray], np.ndarray],
    settings: TrainingConfig,
    fold: int,
) -> dict[str, Examples]:
    """The examples of every split of a task; the settings may limit the training images.

    positions: function from rows of the dataset (n,) to rows of `array` (n,). fold: the validation part.
    """
    examples = {}
    for split in SPLITS:
        limits = (settings.max_train_per_class, settings.train_fraction) if split == "train" else ()
        rows = task.rows(split, *limits, fold=fold)
        index = rows["index"].to_numpy(np.int64)
        examples[split] = Examples(array, positions(index), row_labels(rows), index, len(task.classes))
    return examples


def repeat_folds(folds: Sequence[int], repeats: int) -> list[int]:
    """The fold of each repeat: one after another of `folds`, from the first again if there are more repeats."""
    return [folds[repeat % len(folds)] for repeat in range(repeats)]


def iterate_inputs(examples: Examples, size: int) -> Iterator[np.ndarray]:
    """The inputs of the examples in order, in batches of `size`; the last batch may be smaller.

    Reads only the rows of one batch from the array at a time. Batches keep the dtype of the array.
    """
    for start in range(0, len(examples.rows), size):
        yield np.asarray(examples.array[examples.rows[start : start + size]])


def inference_batch_size(array: np.ndarray) -> int:
    """Examples of an array (n, ...) in one call of a model in inference mode."""
    if array.dtype == np.uint8:
        return IMAGES_PER_CALL
    return int(np.clip(rows_within(array, BYTES_PER_CALL), IMAGES_PER_CALL, FEATURES_PER_CALL))


class Batch(NamedTuple):
    """One or more training batches: inputs (n, ...), one-hot targets (n, classes) float32, weights (n,) float32."""

    inputs: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


class TrainingBatches:
    """The batches of all epochs of a training, by step.

    The order of the examples depends only on the seed and the epoch, and mixup only on the seed, the epoch and the
    batch. So a resumed training continues with the batches that it would have had.
    """

    def __init__(self, examples: Examples, settings: TrainingConfig, seed: int):
        self.examples, self.seed = examples, seed
        self.batch_size, self.alpha = settings.batch_size, settings.mixup
        self.steps_per_epoch = steps_per_epoch(examples, settings)
        self._one_hot = np.eye(examples.classes, dtype=np.float32)
        balanced = settings.class_weights == "balanced"
        self._weights = class_weights(examples.labels) if balanced else np.ones(len(examples.labels), np.float32)
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step; step and epoch are counted from 0."""
        epoch, number = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            random = np.random.default_rng([self.seed, epoch])
            self._epoch, self._order = epoch, random.permutation(len(self.examples.rows))
        chosen = self._order[number * self.batch_size :][: self.batch_size]
        inputs = np.asarray(self.examples.array[self.examples.rows[chosen]])
        targets = self._one_hot[self.examples.labels[chosen]]
        if self.alpha:
            inputs, targets = mixup(inputs, targets, self.alpha, np.random.default_rng([self.seed, epoch, number]))
        return Batch(inputs, targets, self._weights[chosen])


def steps_per_epoch(examples: Examples, settings: TrainingConfig) -> int:
    """The batches of an epoch; the last one may be smaller."""
    return -(-len(examples.rows) // settings.batch_size)


def rows_within(array: np.ndarray, size: int) -> int:
    """How many rows of an array (n, ...) fit into `size` bytes as float32, or as uint8 for images; at least 1."""
    return max(1, size // (np.prod(array.shape[1:], dtype=int) * (1 if array.dtype == np.uint8 else 4)))


def class_weights(labels: np.ndarray) -> np.ndarray:
    """Weights (n,) float32 with mean 1 and equal sums for all classes, as scikit-learn's `balanced`."""
    counts = np.bincount(labels)
    return (len(labels) / (np.count_nonzero(counts) * counts[labels])).astype(np.float32)


def mixup(
    inputs: np.ndarray, targets: np.ndarray, alpha: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mix a batch with a permutation of itself: mixup (Zhang et al. 2018), one share for the batch as in their code.

    inputs: (n, ...) uint8, which stay uint8, or float16 or float32, which become float32.
    targets: (n, classes) float32.
    """
    share, order = np.float32(random.beta(alpha, alpha)), random.permutation(len(inputs))
    mixed = share * inputs.astype(np.float32) + (1 - share) * inputs[order].astype(np.float32)
    mixed = np.rint(mixed).astype(np.uint8) if inputs.dtype == np.uint8 else mixed
    return mixed, share * targets + (1 - share) * targets[order]


def examples_fingerprint(examples: dict[str, Examples]) -> str:
    """A checksum of the images and labels of all splits."""
    checksum = hashlib.sha256()
    for part in examples.values():
        checksum.update(part.index.astype(np.int64).tobytes() + part.labels.astype(np.int32).tobytes())
    return checksum.hexdigest()
