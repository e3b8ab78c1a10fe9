"""Trains compiled models with `keras.Model.fit`; a killed training resumes after its last saved epoch."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import pandas as pd

from stages.artifacts.models import cross_entropy
from stages.config.training import TrainingConfig
from stages.core.progress import Progress
from stages.training.batch_normalization import StatisticsEstimator, StatisticsSample, trained_normalization
from stages.training.batches import Examples, TrainingBatches, inference_batch_size, iterate_inputs
from stages.training.checkpoints import CheckpointSlot
from stages.training.stacked import StackedTrainer, can_stack

# An interrupt is handled between two calls of the training function. A step on features takes milliseconds.
STEPS_PER_CALL = 32
PLATEAU_FACTOR = 0.2  # He et al. (2016) and most papers since divide by 5 or 10


def stops_early(settings: TrainingConfig) -> bool:
    """Whether a model keeps the weights with the lowest validation loss, not the last ones."""
    return settings.early_stopping is not None or settings.generalization_loss is not None


@dataclass
class TrainingRun:
    """A compiled model in training.

    history: one row per epoch. best: the row with the lowest validation loss. best_weights: of that epoch, if they
    may be restored. reduction: factor of the learning rate from plateaus. plateau: the epoch from which the next
    plateau is counted.
    """

    model: keras.Model
    settings: TrainingConfig
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=lambda: {"epoch": 0, "validation_loss": np.inf})
    best_weights: list[np.ndarray] = field(default_factory=list)
    reduction: float = 1.0
    plateau: int = 0
    ended: bool = False

    def trains_in(self, epoch: int) -> bool:
        """Whether training had not ended before an epoch, counted from 1."""
        return not self.ended or len(self.history) >= epoch

    @property
    def final(self) -> dict[str, float]:
        """The row of the epoch whose weights the model ends with."""
        return self.best if self.best_weights else self.history[-1]

    def end_epoch(self, row: dict[str, float]) -> None:
        """Record an epoch. Keep the weights if they are the best; lower the learning rate, or end the training."""
        self.history.append(row)
        epoch, loss = row["epoch"], row["validation_loss"]
        if loss < self.best["validation_loss"]:
            self.best, self.plateau = row, epoch
            if stops_early(self.settings):
                self.best_weights = self.model.get_weights()
        patience, alpha = self.settings.early_stopping, self.settings.generalization_loss
        waited = epoch - self.best["epoch"]
        self.ended = (
            not np.isfinite(row["train_loss"])
            or (patience is not None and waited >= patience)
            or (alpha is not None and loss / max(self.best["validation_loss"], 1e-12) - 1 > alpha)
            or epoch == self.settings.epochs
        )
        wait = self.settings.reduce_on_plateau
        if wait is not None and epoch - self.plateau >= wait:
            self.reduction, self.plateau = self.reduction * PLATEAU_FACTOR, epoch
            self.model.optimizer.schedule.reduction.assign(self.reduction)

    def restore_best(self) -> None:
        """Give the model the weights with the lowest validation loss, if training stops early."""
        if self.best_weights:
            self.model.set_weights(self.best_weights)

    def state(self) -> tuple[dict[str, Any], dict[str, list[np.ndarray]]]:
        """Everything that a resumed training needs, including the states of random number generators."""
        state = {key: getattr(self, key) for key in ("history", "best", "reduction", "plateau", "ended")}
        variables = {"model": self.model.variables, "optimizer": self.model.optimizer.variables}
        arrays = {key: [keras.ops.convert_to_numpy(value) for value in values] for key, values in variables.items()}
        return state, {**arrays, "best_weights": self.best_weights}

    def restore(self, state: dict[str, Any], arrays: dict[str, list[np.ndarray]]) -> None:
        """Return to a state that `state` gave."""
        for key, value in state.items():
            setattr(self, key, value)
        self.model.optimizer.build(self.model.trainable_variables)
        for key, variables in (("model", self.model.variables), ("optimizer", self.model.optimizer.variables)):
            for variable, value in zip(variables, arrays[key], strict=True):
                variable.assign(value)
        self.best_weights = arrays["best_weights"]


def fit_runs(
    runs: list[TrainingRun],
    train: Examples,
    validation: Examples,
    seed: int,
    description: str = "training",
    slot: CheckpointSlot | None = None,
) -> tuple[list[pd.DataFrame], float]:
    """Train compiled models, all on the same batches; returns the history of each and the seconds in total.

    runs: may differ only in learning rate, penalties and the end of their training. train: the training examples, in
    all their views. seed: of the order of the examples, which changes every epoch. slot: where the state after an epoch
    is saved.

    A history has one row per epoch: training figures are means over the batches of the epoch, with dropout,
    augmentation, penalties and label smoothing; validation figures are of the weights at the end of the epoch, for
    which the statistics of trained batch normalization are estimated anew. With early stopping a model ends with the
    weights of its lowest validation loss. A loss that is not finite ends the training.
    """
    settings = runs[0].settings
    batches = TrainingBatches(train, settings, seed)
    is_stacked = can_stack([run.model for run in runs])
    with Progress(description, "epoch", settings.epochs * (1 if is_stacked else len(runs))) as progress:
        if is_stacked:
            seconds = _fit_stacked(runs, batches, validation, slot, progress)
        else:
            seconds = sum(
                _fit_with_keras(run, batches, validation, slot and slot.part(number), progress)
                for number, run in enumerate(runs)
            )
    for run in runs:
        run.restore_best()
    return [pd.DataFrame(run.history) for run in runs], seconds


class _KerasBatches(keras.utils.PyDataset):
    """Training batches as an endless dataset: one iterator serves all epochs, where Keras would make one per epoch."""

    num_batches = None

    def __init__(self, batches: TrainingBatches, first_step: int):
        super().__init__()
        self.batches, self.first_step = batches, first_step

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:
        return tuple(self.batches[self.first_step + number])


class _EndOfEpoch(keras.callbacks.Callback):
    """Ends an epoch: statistics of batch normalization, validation, record, saved state; stops or slows the training.

    Keras's EarlyStopping, ReduceLROnPlateau and BackupAndRestore do not save the state of callbacks: a training that
    they resume forgets its best weights and its patience.
    """

    def __init__(self, run: TrainingRun, batches: TrainingBatches, validation: Examples, end: Callable[[], None]):
        super().__init__()
        self.run, self.validation, self.end = run, validation, end
        self.estimator = StatisticsEstimator(run.model) if trained_normalization(run.model) else None
        self.sample = StatisticsSample.of(batches)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """See the class."""
        if self.estimator:
            self.estimator.estimate(self.sample)
        probabilities = predict_probabilities(self.model, self.validation)
        _record(self.run, (logs["loss"], logs["accuracy"]), probabilities, self.validation.labels)
        self.model.stop_training = self.run.ended
        self.end()


def _fit_with_keras(
    run: TrainingRun, batches: TrainingBatches, validation: Examples, slot: CheckpointSlot | None, progress: Progress
) -> float:
    """Train one model with `keras.Model.fit`; returns the seconds."""
    clock = _Clock(_restore([run], slot))
    first = len(run.history)
    progress.resume(first)
    if run.ended:
        return clock.seconds

    def end() -> None:
        _show(progress, run)
        _save([run], clock, slot)

    # Each call of the training function costs Keras about a millisecond: heads take twice as long with single steps.
    run.model.steps_per_execution = _steps_per_call(batches)
    run.model.fit(
        _KerasBatches(batches, first * batches.steps_per_epoch),
        initial_epoch=first,
        epochs=run.settings.epochs,
        steps_per_epoch=batches.steps_per_epoch,
        shuffle=False,
        verbose=0,
        callbacks=[_EndOfEpoch(run, batches, validation, end)],
    )
    return clock.seconds


def _steps_per_call(batches: TrainingBatches) -> int:
    """Steps in one call of the training function: a divisor of the steps of an epoch, as the dataset is endless."""
    steps = batches.steps_per_epoch
    if batches.examples.array.dtype != np.uint8:
        return steps
    return max(number for number in range(1, STEPS_PER_CALL + 1) if steps % number == 0)


def _fit_stacked(
    runs: list[TrainingRun],
    batches: TrainingBatches,
    validation: Examples,
    slot: CheckpointSlot | None,
    progress: Progress,
) -> float:
    """Train several models as one; returns the seconds."""
    clock = _Clock(_restore(runs, slot))
    first = max(len(run.history) for run in runs)
    progress.resume(first)
    active, trainer, sample = runs, StackedTrainer([run.model for run in runs]), StatisticsSample.of(batches)
    for epoch in range(1, runs[0].settings.epochs + 1):
        # Also of epochs before a resumed one: the last digits of a sum may depend on how many models are stacked.
        still_training = [run for run in active if run.trains_in(epoch)]
        if not still_training:
            break
        if 2 * len(still_training) <= len(active):  # smaller stacks train faster, but have to be compiled
            active = still_training
            trainer = StackedTrainer([run.model for run in active])
        if epoch <= first:
            continue
        figures = trainer.train_epoch(batches, epoch - 1)
        trainer.estimate_statistics(sample)
        probabilities = _join(trainer.predict(inputs) for inputs in _inputs(validation))
        for number, run in enumerate(active):
            if not run.ended:
                _record(run, figures[number], probabilities[number], validation.labels)
        _show(progress, still_training[0])
        _save(runs, clock, slot)
    return clock.seconds


def _record(run: TrainingRun, training_figures: Iterable[float], probabilities: np.ndarray, labels: np.ndarray) -> None:
    """Add an epoch to the history of a run. training_figures: loss and accuracy."""
    train_loss, train_accuracy = training_figures
    run.end_epoch(
        {
            "epoch": len(run.history) + 1,
            "train_loss": float(train_loss),
            "train_accuracy": float(train_accuracy),
            "validation_loss": cross_entropy(probabilities, labels),
            "validation_accuracy": float((probabilities.argmax(axis=1) == labels).mean()),
        }
    )


def _show(progress: Progress, run: TrainingRun) -> None:
    figures = ("train_loss", "validation_loss", "validation_accuracy")
    progress.update(1, **{key: run.history[-1][key] for key in figures})


class _Clock:
    """The seconds of a training, with those before it was resumed."""

    def __init__(self, earlier: float):
        self._start = time.perf_counter() - earlier

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start


def _save(runs: list[TrainingRun], clock: _Clock, slot: CheckpointSlot | None) -> None:
    """Save the state of runs after an epoch, if a save is due."""
    if slot is None or not slot.due():
        return
    states, arrays = [], {}
    for number, run in enumerate(runs):
        state, run_arrays = run.state()
        states.append(state)
        arrays |= {f"{number}-{key}": values for key, values in run_arrays.items()}
    slot.save({"seconds": clock.seconds, "runs": states}, arrays)


def _restore(runs: list[TrainingRun], slot: CheckpointSlot | None) -> float:
    """Restore the saved state of runs; returns the seconds that they took up to it."""
    saved = slot and slot.load()
    if not saved:
        return 0.0
    state, arrays = saved
    for number, (run, run_state) in enumerate(zip(runs, state["runs"], strict=True)):
        run.restore(run_state, {key: arrays[f"{number}-{key}"] for key in ("model", "optimizer", "best_weights")})
    return state["seconds"]


def predict_probabilities(model: keras.Model, examples: Examples) -> np.ndarray:
    """Predicted probabilities in inference mode, (n, classes) float32."""
    return _join(model.predict_on_batch(inputs) for inputs in _inputs(examples))


def _join(parts: Iterable[np.ndarray]) -> np.ndarray:
    """Probabilities (..., n, classes) float32 of successive batches."""
    return np.concatenate([np.asarray(part) for part in parts], axis=-2).astype(np.float32)


def _inputs(examples: Examples) -> Iterable[np.ndarray]:
    """The inputs of examples in batches for inference."""
    return iterate_inputs(examples, inference_batch_size(examples.array))
