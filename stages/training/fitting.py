"""Trains models side by side on the same batches, epoch by epoch; a killed training goes on after its last epoch."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import pandas as pd
from tqdm import tqdm

from stages.artifacts.models import cross_entropy
from stages.config.training import TrainingConfig
from stages.core.prefetch import prefetch
from stages.training.batches import Examples, class_weights, iterate_batches, mixup, rows_within
from stages.training.checkpoints import Checkpoints
from stages.training.schedules import learning_rate_at
from stages.training.trainers import Batches, Trainer, make_trainers

# Bytes of input in one call: enough that the call itself costs little beside the steps in it.
CALL_BYTES = 16 * 2**20
IMAGES_AT_ONCE, FEATURES_AT_ONCE = 64, 1024  # in inference; the activations of images take many times their bytes
PLATEAU_FACTOR = 0.2  # He et al. (2016) and most since divide by 5 or 10


@dataclass
class TrainingRun:
    """A compiled model in training.

    rows: its history, one dict an epoch. best: the row of the lowest validation loss, best_weights: of that epoch,
    where they may be restored. reduction: of the learning rate by plateaus; plateau: the epoch it is counted from.
    """

    model: keras.Model
    settings: TrainingConfig
    rows: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=lambda: {"epoch": 0, "validation_loss": np.inf})
    best_weights: list[np.ndarray] = field(default_factory=list)
    reduction: float = 1.0
    plateau: int = 0
    ended: bool = False

    @property
    def stops_early(self) -> bool:
        """Whether the weights of the lowest validation loss are the ones to keep."""
        return self.settings.early_stopping is not None or self.settings.generalization_loss is not None

    def trains_in(self, epoch: int) -> bool:
        """Whether it had, or has, not ended before an epoch, counted from 1."""
        return not self.ended or len(self.rows) >= epoch

    @property
    def kept(self) -> dict[str, float]:
        """The row of the epoch whose weights the model ends with."""
        return self.best if self.best_weights else self.rows[-1]

    def end_epoch(self, row: dict[str, float]) -> None:
        """Note the figures of an epoch, keep the weights if they are the best, lower the learning rate or end."""
        self.rows.append(row)
        epoch, loss = row["epoch"], row["validation_loss"]
        if loss < self.best["validation_loss"]:
            self.best, self.plateau = row, epoch
            if self.stops_early:
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

    def restore_best(self) -> None:
        """Give the model the weights of its lowest validation loss, where training stops early."""
        if self.best_weights:
            self.model.set_weights(self.best_weights)

    def state(self) -> tuple[dict[str, Any], dict[str, list[np.ndarray]]]:
        """All that training goes on from, also the states of the random numbers."""
        state = {key: getattr(self, key) for key in ("rows", "best", "reduction", "plateau", "ended")}
        arrays = {"model": self.model.variables, "optimizer": self.model.optimizer.variables}
        numbers = {key: [keras.ops.convert_to_numpy(each) for each in of_key] for key, of_key in arrays.items()}
        return state, {**numbers, "best_weights": self.best_weights}

    def go_on_from(self, state: dict[str, Any], arrays: dict[str, list[np.ndarray]]) -> None:
        """Take over what `state` gave."""
        for key, value in state.items():
            setattr(self, key, value)
        self.model.optimizer.build(self.model.trainable_variables)
        for key, variables in (("model", self.model.variables), ("optimizer", self.model.optimizer.variables)):
            for variable, value in zip(variables, arrays[key], strict=True):
                variable.assign(value)
        self.best_weights = arrays["best_weights"]


def fit_runs(
    runs: list[TrainingRun],
    shown: Examples,
    validation: Examples,
    seed: int,
    description: str,
    checkpoints: Checkpoints | None = None,
    slot: str = "epoch",
) -> tuple[list[pd.DataFrame], float]:
    """Train compiled models, all on the same batches; returns a history of each and the seconds it took.

    runs: may differ in learning rate and penalties only. shown: the training examples, in all their views. seed: of
    the order of the examples, a new one in every epoch. checkpoints, slot: where, and under which name, the state after
    an epoch is saved.

    A history has one row an epoch: the training figures are means over its batches, with dropout, augmentation,
    penalties and label smoothing; the validation figures are of the weights at the end of the epoch. With early
    stopping a model ends with the weights of its lowest validation loss. A loss that is no number ends its
    training.
    """
    settings = runs[0].settings
    first, spent = _go_on(runs, checkpoints, slot)
    start = time.perf_counter() - spent
    groups = _groups(runs)
    with tqdm(total=settings.epochs, initial=first, desc=description, unit=" epochs", disable=None) as bar:
        for epoch in range(1, settings.epochs + 1):
            # From the first on, also where training goes on from a later one: the last digits of a sum may depend on
            # how many models are trained as one.
            groups = [smaller for group in groups for smaller in _without_ended(*group, epoch)]
            if epoch <= first:
                continue
            if not groups:
                break
            sums = _train(groups, shown, epoch, np.random.default_rng([seed, epoch]))
            for trainer, of_group in groups:
                for run, probabilities in zip(of_group, _predict(trainer, validation), strict=True):
                    if run.ended:
                        continue
                    train_loss, train_accuracy = sums[id(run)] / len(shown.rows)
                    row = {
                        "epoch": epoch,
                        "train_loss": float(train_loss),
                        "train_accuracy": float(train_accuracy),
                        "validation_loss": cross_entropy(probabilities, validation.labels),
                        "validation_accuracy": float((probabilities.argmax(axis=1) == validation.labels).mean()),
                    }
                    run.end_epoch(row)
            bar.set_postfix({key: f"{row[key]:.3f}" for key in ("train_loss", "validation_accuracy")}, refresh=False)
            bar.update()
            if checkpoints and checkpoints.due():
                _save(runs, epoch, time.perf_counter() - start, checkpoints, slot)
    for run in runs:
        run.restore_best()
    return [pd.DataFrame(run.rows) for run in runs], time.perf_counter() - start


Group = tuple[Trainer, list[TrainingRun]]


def _groups(runs: list[TrainingRun]) -> list[Group]:
    """Runs with what trains them."""
    of_model = {id(run.model): run for run in runs}
    trainers = make_trainers([run.model for run in runs]) if runs else []
    return [(trainer, [of_model[id(model)] for model in trainer.models]) for trainer in trainers]


def _without_ended(trainer: Trainer, runs: list[TrainingRun], epoch: int) -> list[Group]:
    """A group as it is while most of its runs go on, which costs less than to make another one; else these alone."""
    active = [run for run in runs if run.trains_in(epoch)]
    return [(trainer, runs)] if 2 * len(active) > len(runs) else _groups(active)


def _train(groups: list[Group], shown: Examples, epoch: int, random: np.random.Generator) -> dict[int, np.ndarray]:
    """Train for an epoch, counted from 1; returns for the id of each run the sums of loss and of what was right."""
    settings = groups[0][1][0].settings
    steps_per_epoch = -(-len(shown.rows) // settings.batch_size)
    step = (epoch - 1) * steps_per_epoch
    sums = {id(run): np.zeros(2) for _, runs in groups for run in runs}
    for trainer, _ in groups:
        trainer.begin()
    for together in prefetch(_batches(shown, settings, random)):
        steps = range(step, step := step + -(-len(together.inputs) // settings.batch_size))
        for trainer, runs in groups:
            rates = [
                [learning_rate_at(run.settings, s, steps_per_epoch) * run.reduction for run in runs] for s in steps
            ]
            for run, of_run in zip(runs, trainer.steps(together, np.array(rates, np.float32)), strict=True):
                sums[id(run)] += of_run
    for trainer, _ in groups:
        trainer.end()
    return sums


def _batches(shown: Examples, settings: TrainingConfig, random: np.random.Generator) -> Iterator[Batches]:
    """The batches of an epoch, in a random order, as many together as make a call."""
    size, one_hot = settings.batch_size, np.eye(shown.classes, dtype=np.float32)
    balanced = settings.class_weights == "balanced"
    weights = class_weights(shown.labels) if balanced else np.ones(len(shown.labels), np.float32)
    steps = max(1, rows_within(shown.array, CALL_BYTES) // size)
    for inputs, places in iterate_batches(shown, steps * size, random.permutation(len(shown.rows))):
        wanted = one_hot[shown.labels[places]]
        if settings.mixup:
            cuts = range(size, len(places), size)
            pairs = zip(np.split(inputs, cuts), np.split(wanted, cuts), strict=True)
            pairs = [mixup(*pair, settings.mixup, random) for pair in pairs]
            inputs, wanted = (np.concatenate(each) for each in zip(*pairs, strict=True))
        yield Batches(inputs, wanted, weights[places], size)


def _save(runs: list[TrainingRun], epoch: int, seconds: float, checkpoints: Checkpoints, slot: str) -> None:
    states, arrays = [], {}
    for number, run in enumerate(runs):
        state, of_run = run.state()
        states.append(state)
        arrays |= {f"{number}-{key}": values for key, values in of_run.items()}
    checkpoints.save(slot, {"epoch": epoch, "seconds": seconds, "runs": states}, arrays)


def _go_on(runs: list[TrainingRun], checkpoints: Checkpoints | None, slot: str) -> tuple[int, float]:
    """Put runs into the state that was saved; returns the epochs that are done and the seconds they took."""
    saved = checkpoints and checkpoints.load(slot)
    if not saved:
        return 0, 0.0
    state, arrays = saved
    for number, (run, of_run) in enumerate(zip(runs, state["runs"], strict=True)):
        keys = ("model", "optimizer", "best_weights")
        run.go_on_from(of_run, {key: arrays[f"{number}-{key}"] for key in keys})
    return state["epoch"], state["seconds"]


def _predict(trainer: Trainer, examples: Examples) -> np.ndarray:
    """Predicted probabilities of all models of a trainer, (models, n, classes) float32."""
    parts = [trainer.predict(inputs) for inputs, _ in iterate_batches(examples, _at_once(examples.array))]
    return np.concatenate(parts, axis=1).astype(np.float32)


def predict_probabilities(model: keras.Model, examples: Examples) -> np.ndarray:
    """Predicted probabilities in inference mode, (n, classes) float32."""
    parts = [model.predict_on_batch(inputs) for inputs, _ in iterate_batches(examples, _at_once(examples.array))]
    return np.concatenate(parts).astype(np.float32)


def _at_once(array: np.ndarray) -> int:
    """How many rows of an array go through a model at once in inference."""
    images = array.dtype == np.uint8
    return IMAGES_AT_ONCE if images else int(np.clip(rows_within(array, CALL_BYTES), IMAGES_AT_ONCE, FEATURES_AT_ONCE))
