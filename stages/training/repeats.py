"""Trains a model several times from different seeds and keeps the best weights and all predictions."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import keras
import numpy as np
import pandas as pd

from stages.artifacts.costs import Cost
from stages.artifacts.models import (
    Candidate,
    ModelRecord,
    ModelResult,
    Predictions,
    Provenance,
    cross_entropy,
    write_model,
)
from stages.artifacts.tasks import SPLITS
from stages.backbones.multiply_adds import multiply_adds, training_multiply_adds
from stages.backbones.pretrained import save_weights
from stages.backbones.runtime import computing_in, make_deterministic
from stages.config.training import TrainingConfig
from stages.core.errors import UserError
from stages.training.batches import Examples, steps_per_epoch
from stages.training.calibration import fit_temperature
from stages.training.checkpoints import Checkpoints, CheckpointSlot, remove_checkpoints
from stages.training.fitting import TrainingRun, fit_runs, predict_probabilities, stops_early
from stages.training.measurement import measure_inference, peak_memory
from stages.training.optimizers import compile_model


@dataclass(frozen=True)
class BuiltModel:
    """A model built for one repeat.

    full_model: the model that is stored. trained: the part that is trained: the same model, or the layers above cached
    features, which share their weights with it. factors: of the learning rate of single weights, by their path.
    """

    full_model: keras.Model
    trained: keras.Model
    factors: dict[str, float] = field(default_factory=dict)


Build = Callable[[float], BuiltModel]


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """What is known of a model before its training; see `ModelRecord`.

    parameters_below, multiply_adds_below: weights of the backbone below the features that the model is trained on, and
    its multiply-adds of one image.
    """

    name: str
    kind: str
    task: str
    dataset: str
    classes: list[str]
    image_size: int
    resize: str
    settings: dict[str, Any]
    seed: int
    provenance: Provenance
    parameters_below: int = 0
    multiply_adds_below: int = 0


@dataclass(frozen=True)
class TrainingSpec:
    """What is trained, and how.

    candidates: training settings, each with an L2 strength. If there are several, all are trained in the first repeat,
    and only the one with the lowest validation loss in the others. examples_fingerprint: of the images and labels.
    """

    description: ModelDescription
    candidates: list[tuple[TrainingConfig, float]]
    examples_fingerprint: str

    @property
    def repeats(self) -> int:
        """Trainings from different seeds."""
        return self.candidates[0][0].repeats

    def fingerprint(self) -> list[Any]:
        """Everything that the training depends on but the code, as JSON."""
        candidates = [(settings.model_dump(), l2) for settings, l2 in self.candidates]
        return [asdict(self.description), candidates, self.examples_fingerprint]

    def repeat_seed(self, number: int) -> int:
        """The seed of a repeat, counted from 0."""
        return int(np.random.SeedSequence([self.description.seed, number]).generate_state(1)[0])


@dataclass(frozen=True)
class TrainingData:
    """The examples of all splits, and the training examples in all views that the model is trained on."""

    examples: dict[str, Examples]
    train_views: Examples


@dataclass(frozen=True)
class Repeat:
    """One finished repeat, which a resumed stage does not train again.

    candidate: the number of the chosen candidate. candidates: the results of all, if there was a choice.
    probabilities: split -> (n, classes) float32.
    """

    candidate: int
    candidates: list[dict[str, Any]]
    history: pd.DataFrame
    seconds: float
    weights: list[np.ndarray]
    probabilities: dict[str, np.ndarray]


def train_repeats(
    spec: TrainingSpec, build: Build, examples: dict[str, Examples], train_views: Examples
) -> tuple[keras.Model, ModelResult]:
    """Train a model `repeats` times from different seeds.

    build: builds the model with an L2 strength; its random weights come from the seed of the repeat. examples: split ->
    examples; test examples are only predicted, after training. train_views: the training examples in all their views.

    Returns the full model with the weights of the repeat with the lowest validation loss, and the result.
    Raises `UserError` if the loss of every repeat is not finite.
    """
    name, data = spec.description.name, TrainingData(examples, train_views)
    checkpoints = Checkpoints(name, spec.fingerprint())
    repeats: list[Repeat] = []
    for number in range(spec.repeats):
        candidates = [repeats[0].candidate] if repeats else list(range(len(spec.candidates)))
        repeat = _load(checkpoints, number)
        if repeat is None:
            repeat = _train(spec, build, data, candidates, CheckpointSlot(checkpoints, f"epoch-{number}"), number)
            _save(checkpoints, number, repeat)
        repeats.append(repeat)
    labels = examples["validation"].labels
    losses = [cross_entropy(repeat.probabilities["validation"], labels) for repeat in repeats]
    settings, l2 = spec.candidates[repeats[0].candidate]
    if not np.isfinite(losses).any():
        remove_checkpoints(name)
        raise UserError(
            f"{name}: training diverged in every repeat (the loss is infinite or not a number). Lower learning_rate "
            f"(now {settings.learning_rate:g})."
        )
    best = int(np.nanargmin(np.where(np.isfinite(losses), losses, np.nan)))
    make_deterministic(spec.description.seed)
    with computing_in(settings.precision):
        built = build(l2)
    built.full_model.set_weights(repeats[best].weights)
    return built.full_model, _result(spec, repeats, best, data, built)


def _result(spec: TrainingSpec, repeats: list[Repeat], best: int, data: TrainingData, built: BuiltModel) -> ModelResult:
    """The result of finished repeats; `best` is the repeat, from 0, whose weights the model has."""
    model, description = built.full_model, vars(spec.description).copy()
    parameters_below, multiply_adds_below = (
        description.pop(f"{name}_below") for name in ("parameters", "multiply_adds")
    )
    epochs = [len(repeat.history) for repeat in repeats]
    seconds = [repeat.seconds for repeat in repeats]
    settings, _ = spec.candidates[repeats[0].candidate]
    return ModelResult(
        record=ModelRecord(
            **description,
            training=settings.model_dump(),
            fold=0,
            train_images=len(data.examples["train"].rows),
            repeats=len(repeats),
            best_repeat=best,
            epochs=epochs,
            trained_parameters=sum(int(np.prod(weight.shape)) for weight in model.trainable_weights),
            total_parameters=parameters_below + model.count_params(),
            multiply_adds=multiply_adds_below + multiply_adds(model),
            training_multiply_adds=_training_multiply_adds(built.trained, repeats, data),
            temperature=fit_temperature(
                [(repeat.probabilities["validation"], data.examples["validation"].labels) for repeat in repeats],
                len(data.examples["validation"].labels),
            ),
            candidates=[Candidate(**candidate) for candidate in repeats[0].candidates],
        ),
        cost=Cost.measured(
            float(np.mean(seconds)),
            len(data.train_views.rows) * sum(epochs) / sum(seconds),
            peak_memory(),
            measure_inference(model),
        ),
        history=pd.concat([repeat.history.assign(repeat=number) for number, repeat in enumerate(repeats)])[
            ["repeat", *repeats[0].history.columns]
        ],
        predictions={
            split: Predictions(part.index, np.stack([repeat.probabilities[split] for repeat in repeats]))
            for split, part in data.examples.items()
        },
    )


def _training_multiply_adds(trained: keras.Model, repeats: list[Repeat], data: TrainingData) -> int:
    """The multiply-adds of one repeat: a mean over all, with every candidate of the first, as its seconds are.

    An epoch trains on every view of the training images and predicts the validation images.
    """
    epochs = sum(len(repeat.history) for repeat in repeats)
    epochs += sum(candidate["epochs"] for candidate in repeats[0].candidates if not candidate["chosen"])
    train, validation = len(data.train_views.rows), len(data.examples["validation"].rows)
    epoch = train * training_multiply_adds(trained) + validation * multiply_adds(trained)
    return round(epoch * epochs / len(repeats))


def _train(
    spec: TrainingSpec, build: Build, data: TrainingData, candidates: list[int], slot: CheckpointSlot, number: int
) -> Repeat:
    """Train the candidates with these numbers for one repeat; the best on validation predicts all splits."""
    seed, models, runs = spec.repeat_seed(number), [], []
    for candidate in candidates:
        settings, l2 = spec.candidates[candidate]
        make_deterministic(seed)
        with computing_in(settings.precision):
            built = build(l2)
        compile_model(built.trained, settings, steps_per_epoch(data.train_views, settings), built.factors)
        models.append(built.full_model)
        runs.append(TrainingRun(built.trained, settings))
    description = f"{spec.description.name} {number + 1}/{spec.repeats}"
    histories, seconds = fit_runs(runs, data.train_views, data.examples["validation"], seed, description, slot)
    losses = [run.final["validation_loss"] for run in runs]
    best = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
    results = [_candidate(spec.candidates[candidate], run) for candidate, run in zip(candidates, runs, strict=True)]
    results[best]["chosen"] = True
    return Repeat(
        candidate=candidates[best],
        candidates=results if len(results) > 1 else [],
        history=histories[best],
        seconds=seconds,
        weights=models[best].get_weights(),
        probabilities={split: predict_probabilities(runs[best].model, data.examples[split]) for split in SPLITS},
    )


def _candidate(candidate: tuple[TrainingConfig, float], run: TrainingRun) -> dict[str, Any]:
    """The result of a candidate, which is not yet chosen."""
    settings, l2 = candidate
    loss = run.final["validation_loss"]
    return asdict(
        Candidate(
            learning_rate=settings.learning_rate,
            l2=l2,
            epochs=len(run.history),
            validation_loss=loss if np.isfinite(loss) else None,
            validation_accuracy=run.final["validation_accuracy"],
            chosen=False,
        )
    )


def _save(checkpoints: Checkpoints, number: int, repeat: Repeat) -> None:
    state = {key: getattr(repeat, key) for key in ("candidate", "candidates", "seconds")}
    state["history"] = repeat.history.to_dict("list")
    arrays = {split: [probabilities] for split, probabilities in repeat.probabilities.items()}
    checkpoints.save(f"repeat-{number}", state, {**arrays, "weights": repeat.weights})
    checkpoints.drop(f"epoch-{number}*")


def _load(checkpoints: Checkpoints, number: int) -> Repeat | None:
    saved = checkpoints.load(f"repeat-{number}")
    if saved is None:
        return None
    state, arrays = saved
    history = pd.DataFrame(state.pop("history"))
    probabilities = {split: arrays[split][0] for split in SPLITS}
    return Repeat(**state, history=history, weights=arrays["weights"], probabilities=probabilities)


def save_model(model: keras.Model, result: ModelResult) -> str:
    """Write a model to models/ and remove its checkpoints; returns the line that the stage prints at its end.

    The accuracy in this line is that of the stored weights.
    """
    write_model(result, lambda path: save_weights(model, path))
    remove_checkpoints(result.record.name)
    record = result.record
    history = result.history[result.history["repeat"] == record.best_repeat].set_index("epoch")
    kept = history["validation_loss"].idxmin() if stops_early(TrainingConfig(**record.training)) else history.index[-1]
    accuracy = history["validation_accuracy"][kept]
    return (
        f"{record.repeats} x {np.mean(record.epochs):.0f} epochs on {record.train_images} images, "
        f"{result.cost.seconds:.1f} s each, validation accuracy {accuracy:.1%}"
    )
