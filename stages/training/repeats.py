"""Trains a model several times from different seeds and keeps the best weights and all predictions."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import keras
import numpy as np
import pandas as pd

from stages.artifacts.costs import Cost
from stages.artifacts.models import (
    MODELS_FOLDER,
    Candidate,
    ModelRecord,
    ModelResult,
    Predictions,
    Provenance,
    cross_entropy,
    write_result,
)
from stages.artifacts.tasks import SPLITS
from stages.backbones.pretrained import save_weights
from stages.backbones.runtime import computing_in, make_deterministic
from stages.config.training import TrainingConfig
from stages.core.errors import UserError
from stages.core.files import atomic_file
from stages.training.batches import Examples
from stages.training.checkpoints import Checkpoints, remove_checkpoints
from stages.training.fitting import TrainingRun, fit_runs, predict_probabilities
from stages.training.optimizers import compile_model


@dataclass(frozen=True)
class BuiltModel:
    """A model made for one repeat.

    whole: all that is stored. trained: the part that is fitted; the same model, or the layers of it above cached
    features, which share their weights with `whole`. factors: of the learning rate of single weights, by their path.
    """

    whole: keras.Model
    trained: keras.Model
    factors: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Repeat:
    """One finished training: what a stage that was killed later need not do again.

    chosen: which of the candidates. candidates: what became of each, where there was a choice.
    """

    chosen: int
    candidates: list[dict[str, float]]
    history: pd.DataFrame
    seconds: float
    weights: list[np.ndarray]
    probabilities: dict[str, np.ndarray]


def train_repeats(
    name: str,
    build: Callable[[float], BuiltModel],
    candidates: list[tuple[TrainingConfig, float]],
    examples: dict[str, Examples],
    shown: Examples,
    seed: int,
    origin: Provenance,
    fingerprint: Any,
) -> tuple[keras.Model, ModelResult]:
    """Train a model `repeats` times from different seeds.

    build: makes a model with an L2 strength for a repeat; its random weights come from the seed of the repeat.
    candidates: settings with their L2 strength; of several all are trained side by side in the first repeat, and the
        one of the lowest validation loss is trained in the others.
    examples: split -> examples; test examples are only predicted, after training. shown: those of train as they are
        trained on, with their views.
    origin: what the model is made of, for its record. fingerprint: all that the training depends on, as JSON.

    Returns the whole model with the weights of the repeat of the lowest validation loss, and the result.
    Raises `UserError` when the loss of every repeat is not finite.
    """
    settings = candidates[0][0]
    checkpoints = Checkpoints(name, fingerprint)
    repeats: list[Repeat] = []
    for number in range(settings.repeats):
        chosen = [repeats[0].chosen] if repeats else range(len(candidates))
        found = _load(checkpoints, number) or _train(
            f"{name} {number + 1}/{settings.repeats}",
            build,
            {place: candidates[place] for place in chosen},
            examples,
            shown,
            int(np.random.SeedSequence([seed, number]).generate_state(1)[0]),
            checkpoints,
            f"epoch-{number}",
        )
        _save(checkpoints, number, found)
        repeats.append(found)
    losses = [cross_entropy(each.probabilities["validation"], examples["validation"].labels) for each in repeats]
    if not np.isfinite(losses).any():
        remove_checkpoints(name)
        raise UserError(
            f"{name}: the loss of every repeat became infinite or no number; lower learning_rate "
            f"(now {settings.learning_rate:g})."
        )
    kept = int(np.nanargmin(np.where(np.isfinite(losses), losses, np.nan)))
    strength = candidates[repeats[0].chosen][1]
    make_deterministic(seed)
    with computing_in(settings.precision):
        whole = build(strength).whole
    whole.set_weights(repeats[kept].weights)
    return whole, summarize_repeats(repeats, kept, examples, shown, origin, whole)


def summarize_repeats(
    repeats: list[Repeat],
    kept: int,
    examples: dict[str, Examples],
    shown: Examples,
    origin: Provenance,
    whole: keras.Model,
) -> ModelResult:
    """The result of finished repeats, of which `kept` (from 0) is the one whose weights `whole` has."""
    for number, each in enumerate(repeats):
        each.history.insert(0, "repeat", number)
    epochs = [len(each.history) for each in repeats]
    seconds = [each.seconds for each in repeats]
    return ModelResult(
        record=ModelRecord(
            **asdict(origin),
            train_images=len(examples["train"].rows),
            repeats=len(repeats),
            best_repeat=kept,
            epochs=epochs,
            trained_parameters=sum(int(np.prod(weight.shape)) for weight in whole.trainable_weights),
            total_parameters=origin.parameters_below + whole.count_params(),
            candidates=[Candidate(**each) for each in repeats[0].candidates],
        ),
        cost=Cost.measured(float(np.mean(seconds)), len(shown.rows) * sum(epochs) / sum(seconds)),
        history=pd.concat([each.history for each in repeats]),
        predictions={
            split: Predictions(examples[split].index, np.stack([each.probabilities[split] for each in repeats]))
            for split in SPLITS
        },
    )


def _train(
    description: str,
    build: Callable[[float], BuiltModel],
    candidates: dict[int, tuple[TrainingConfig, float]],
    examples: dict[str, Examples],
    shown: Examples,
    seed: int,
    checkpoints: Checkpoints,
    slot: str,
) -> Repeat:
    """Train the candidates, by their number, side by side; the best on validation predicts all splits."""
    built, runs = [], []
    for settings, strength in candidates.values():
        make_deterministic(seed)
        with computing_in(settings.precision):
            built.append(build(strength))
        compile_model(built[-1].trained, settings, built[-1].factors)
        runs.append(TrainingRun(built[-1].trained, settings))
    histories, seconds = fit_runs(runs, shown, examples["validation"], seed, description, checkpoints, slot)
    losses = [run.kept["validation_loss"] for run in runs]
    best = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
    tried = [
        asdict(
            Candidate(
                learning_rate=settings.learning_rate,
                l2=strength,
                epochs=len(history),
                validation_loss=run.kept["validation_loss"] if np.isfinite(run.kept["validation_loss"]) else None,
                validation_accuracy=run.kept["validation_accuracy"],
                chosen=run is runs[best],
            )
        )
        for (settings, strength), history, run in zip(candidates.values(), histories, runs, strict=True)
    ]
    return Repeat(
        chosen=list(candidates)[best],
        candidates=tried if len(tried) > 1 else [],
        history=histories[best],
        seconds=seconds,
        weights=built[best].whole.get_weights(),
        probabilities={
            split: predict_probabilities(runs[best].model, of_split) for split, of_split in examples.items()
        },
    )


def _save(checkpoints: Checkpoints, number: int, repeat: Repeat) -> None:
    state = {"chosen": repeat.chosen, "candidates": repeat.candidates, "seconds": repeat.seconds}
    state["history"] = repeat.history.to_dict("list")
    arrays = {split: [of_split] for split, of_split in repeat.probabilities.items()}
    checkpoints.save(f"repeat-{number}", state, {**arrays, "weights": repeat.weights})
    checkpoints.drop(f"epoch-{number}")


def _load(checkpoints: Checkpoints, number: int) -> Repeat | None:
    saved = checkpoints.load(f"repeat-{number}")
    if saved is None:
        return None
    state, arrays = saved
    history = pd.DataFrame(state.pop("history"))
    return Repeat(
        **state, history=history, weights=arrays["weights"], probabilities={split: arrays[split][0] for split in SPLITS}
    )


def save_model(name: str, model: keras.Model, result: ModelResult) -> str:
    """Write weights and result of a model to models/; returns the line the stage ends with."""
    write_result(name, result)
    with atomic_file(MODELS_FOLDER / f"{name}.weights.h5") as partial:
        save_weights(model, partial)
    remove_checkpoints(name)
    validation = result.history.groupby("repeat")["validation_accuracy"].max().mean()
    record = result.record
    return (
        f"{record.repeats} x {np.mean(record.epochs):.0f} epochs on {record.train_images} images, "
        f"{result.cost.seconds:.1f} s each, best validation accuracy {validation:.1%} on average"
    )
