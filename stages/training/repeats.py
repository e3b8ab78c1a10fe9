"""Trains a model several times, from different seeds and on different folds, and keeps all weights and predictions."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from scipy import stats

from stages.artifacts.costs import Cost
from stages.artifacts.models import (
    Candidate,
    ModelRecord,
    ModelResult,
    Predictions,
    cross_entropies,
    write_model,
)
from stages.artifacts.tasks import SPLITS
from stages.backbones.multiply_adds import multiply_adds, training_multiply_adds
from stages.backbones.pretrained import save_weights
from stages.backbones.runtime import computing_in, make_deterministic
from stages.backbones.tuning import merge_updates, save_stored, stored_weights
from stages.config.training import TrainingConfig
from stages.core.errors import UserError
from stages.core.wording import counted
from stages.training.batch_normalization import (
    MAX_IMAGES,
    StatisticsEstimator,
    StatisticsSample,
    batch_statistics_gap,
    trained_normalization,
)
from stages.training.batches import inference_batch_size, steps_per_epoch
from stages.training.calibration import fit_temperature
from stages.training.checkpoints import Checkpoints, CheckpointSlot, remove_checkpoints
from stages.training.fitting import TrainingRun, fit_runs, predict_probabilities
from stages.training.measurement import measure_inference, peak_memory
from stages.training.optimizers import compile_model
from stages.training.specification import Build, BuiltModel, TrainingData, TrainingSpec

SIGNIFICANTLY_WORSE = 0.05  # p value


@dataclass(frozen=True)
class Repeat:
    """One finished repeat, which a resumed stage does not train again.

    candidate: the number of the chosen candidate. candidates: the results of all, if there was a choice. weights: of
    the model in use. stored: what is stored of a tuned model in place of them, else empty; see `stored_weights`.
    probabilities: split -> (n, classes) float32. batch_statistics_gap: see the function of this name. memory: the peak
    of the process that trained it, see `peak_memory`.
    """

    candidate: int
    candidates: list[dict[str, Any]]
    history: pd.DataFrame
    seconds: float
    weights: list[np.ndarray]
    stored: list[np.ndarray]
    probabilities: dict[str, np.ndarray]
    batch_statistics_gap: float | None
    memory: float | None


@dataclass(frozen=True)
class TrainedModel:
    """A model with the weights of its best repeat, all repeats, and the result.

    validation_accuracy: 0 to 1, the mean over the repeats, each with its own weights and fold.
    """

    model: keras.Model
    repeats: list[Repeat]
    result: ModelResult
    validation_accuracy: float


def train_repeats(spec: TrainingSpec, build: Build, data: dict[int, TrainingData]) -> TrainedModel:
    """Train a model once per fold of `spec.folds`, each time from another seed.

    build: builds the model of a repeat; its random weights come from the seed of the repeat. data: fold -> examples.

    Raises `UserError` if the loss of every repeat is not finite.
    """
    name = spec.description.name
    checkpoints = Checkpoints(name, spec.fingerprint(data))
    repeats: list[Repeat] = []
    for number in range(spec.repeats):
        candidates = [repeats[0].candidate] if repeats else list(range(len(spec.candidates)))
        repeat = _load(checkpoints, number)
        if repeat is None:
            repeat = _train(spec, build, data, candidates, CheckpointSlot(checkpoints, f"epoch-{number}"), number)
            _save(checkpoints, number, repeat)
        repeats.append(repeat)
    settings, l2 = spec.candidates[repeats[0].candidate]
    predicted = [repeat.probabilities["validation"] for repeat in repeats]
    labels = [data[fold].examples["validation"].labels for fold in spec.folds]
    best = best_repeat(list(map(cross_entropies, predicted, labels)), spec.folds)
    if best is None:
        remove_checkpoints(name)
        raise UserError(
            f"{name}: training diverged in every repeat (the loss is infinite or not a number). Lower learning_rate "
            f"(now {settings.learning_rate:g})."
        )
    make_deterministic(spec.description.seed)
    with computing_in(settings.precision):
        built = build(best, l2)
    result = _result(spec, repeats, best, data, built)
    accuracies = [np.mean(part.argmax(axis=1) == own) for part, own in zip(predicted, labels, strict=True)]
    result = replace(result, soup=predict_soup(spec, repeats, data, built))
    return TrainedModel(built.full_model, repeats, result, float(np.mean(accuracies)))


def best_repeat(losses: list[np.ndarray], folds: list[int]) -> int | None:
    """The number, from 0, of the repeat that is used and exported; None if the loss of every repeat is not finite.

    losses: of each repeat that of its validation images, (n,) in nats. folds: of each repeat.

    Of repeats with the same fold, the one of the lowest loss. Repeats with different folds are validated on different
    images, and a lower loss may only mean that these are easier. So among the folds it is the first whose repeat is not
    significantly worse than the best one: Welch's test (1947, Biometrika 34) of the losses, one-sided, at 5 %.
    """
    means = np.array([values.mean() for values in losses])
    if not np.isfinite(means).any():
        return None
    ranks = np.where(np.isfinite(means), means, np.inf)
    best = int(np.argmin(ranks))
    for fold in dict.fromkeys(folds):
        repeat = min((number for number, own in enumerate(folds) if own == fold), key=lambda number: ranks[number])
        if fold == folds[best]:
            break
        if np.isfinite(means[repeat]):
            p = stats.ttest_ind(losses[repeat], losses[best], equal_var=False, alternative="greater").pvalue
            if not p < SIGNIFICANTLY_WORSE:  # p is not a number if no loss varies
                return repeat
    return best


def _result(
    spec: TrainingSpec, repeats: list[Repeat], best: int, data: dict[int, TrainingData], built: BuiltModel
) -> ModelResult:
    """The result of finished repeats; the model gets the weights of the repeat `best`, from 0."""
    model, description = built.full_model, vars(spec.description).copy()
    trained_parameters = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    training = _training_multiply_adds(built, repeats, data[spec.folds[0]])
    merge_updates(model)
    model.set_weights(repeats[best].weights)
    parameters_below, multiply_adds_below = (
        description.pop(f"{name}_below") for name in ("parameters", "multiply_adds")
    )
    epochs = [len(repeat.history) for repeat in repeats]
    seconds = [repeat.seconds for repeat in repeats]
    memory = max((repeat.memory for repeat in repeats if repeat.memory is not None), default=None)
    gaps = [repeat.batch_statistics_gap for repeat in repeats if repeat.batch_statistics_gap is not None]
    settings, _ = spec.candidates[repeats[0].candidate]
    images = sum(len(data[fold].train_views.rows) * count for fold, count in zip(spec.folds, epochs, strict=True))
    return ModelResult(
        record=ModelRecord(
            **description,
            training=settings.model_dump(),
            repeats=len(repeats),
            folds=spec.folds,
            best_repeat=best,
            train_images=len(data[spec.folds[best]].examples["train"].rows),
            epochs=epochs,
            trained_parameters=trained_parameters,
            total_parameters=parameters_below + model.count_params(),
            multiply_adds=multiply_adds_below + multiply_adds(model),
            training_multiply_adds=training,
            temperature=fit_temperature(
                [
                    (repeat.probabilities["validation"], data[fold].examples["validation"].labels)
                    for repeat, fold in zip(repeats, spec.folds, strict=True)
                ],
                sum(len(data[fold].examples["validation"].rows) for fold in set(spec.folds)),
            ),
            candidates=[Candidate(**candidate) for candidate in repeats[0].candidates],
            batch_statistics_gap=max(gaps, default=None),
        ),
        cost=Cost.measured(float(np.mean(seconds)), images / sum(seconds), memory, measure_inference(model)),
        history=pd.concat([repeat.history.assign(repeat=number) for number, repeat in enumerate(repeats)])[
            ["repeat", *repeats[0].history.columns]
        ],
        predictions={
            split: Predictions.of_repeats(
                [data[fold].examples[split].index for fold in spec.folds],
                [repeat.probabilities[split] for repeat in repeats],
            )
            for split in SPLITS
        },
    )


def predict_soup(
    spec: TrainingSpec, repeats: list[Repeat], data: dict[int, TrainingData], built: BuiltModel
) -> dict[str, np.ndarray]:
    """The probabilities of a model with the averaged weights of all repeats (Wortsman et al. 2022); see `ModelResult`.

    Empty for repeats that do not share their start, or diverged. The statistics of trained batch normalization are
    estimated under the averaged weights, on the training images of the first repeat. The model has its own weights
    again at the end.
    """
    finite = all(np.isfinite(values).all() for repeat in repeats for values in repeat.probabilities.values())
    if not spec.shares_start or len(repeats) == 1 or not finite:
        return {}
    model, trained = built.full_model, built.trained
    best = model.get_weights()
    by_weight = zip(*(repeat.weights for repeat in repeats), strict=True)
    model.set_weights([np.mean(values, axis=0) for values in by_weight])
    examples = data[spec.folds[0]].examples
    if trained_normalization(trained):
        size = inference_batch_size(examples["train"].array)
        sample = StatisticsSample.draw(examples["train"], size, spec.description.seed)
        StatisticsEstimator(trained).estimate(sample)
    splits = ["test"] if len(set(spec.folds)) > 1 else ["validation", "test"]
    soup = {split: predict_probabilities(trained, examples[split]) for split in splits}
    model.set_weights(best)
    return {split: part[np.argsort(examples[split].index)] for split, part in soup.items()}


def _training_multiply_adds(built: BuiltModel, repeats: list[Repeat], data: TrainingData) -> int:
    """The multiply-adds of one repeat: a mean over all, with every candidate of the first, as its seconds are.

    An epoch trains on every view of the training images and predicts the validation images; the statistics of trained
    batch normalization take a prediction of training images more.
    """
    trained = built.trained
    epochs = sum(len(repeat.history) for repeat in repeats)
    epochs += sum(candidate["epochs"] for candidate in repeats[0].candidates if not candidate["chosen"])
    train, validation = len(data.train_views.rows), len(data.examples["validation"].rows)
    predicted = validation
    if trained_normalization(trained):
        predicted += min(MAX_IMAGES, len(data.examples["train"].rows))
    epoch = train * training_multiply_adds(trained, built.is_tuned) + predicted * multiply_adds(trained)
    return round(epoch * epochs / len(repeats))


def _train(
    spec: TrainingSpec,
    build: Build,
    data: dict[int, TrainingData],
    candidates: list[int],
    slot: CheckpointSlot,
    number: int,
) -> Repeat:
    """Train the candidates with these numbers for one repeat; the best on validation predicts all splits."""
    seed, builds, runs = spec.repeat_seed(number), [], []
    fold = data[spec.folds[number]]
    for candidate in candidates:
        settings, l2 = spec.candidates[candidate]
        make_deterministic(seed)
        with computing_in(settings.precision):
            built = build(number, l2)
        compile_model(built.trained, settings, steps_per_epoch(fold.train_views, settings), built.factors)
        builds.append(built)
        runs.append(TrainingRun(built.trained, settings))
    description = f"{spec.description.name} {number + 1}/{spec.repeats}"
    histories, seconds = fit_runs(runs, fold.train_views, fold.examples["validation"], seed, description, slot)
    losses = [run.final["validation_loss"] for run in runs]
    best = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))
    model, batch_size = runs[best].model, runs[best].settings.batch_size
    results = [_candidate(spec.candidates[candidate], run) for candidate, run in zip(candidates, runs, strict=True)]
    results[best]["chosen"] = True
    probabilities = {split: predict_probabilities(model, fold.examples[split]) for split in SPLITS}
    gap = batch_statistics_gap(model, fold.examples["train"], batch_size, seed)
    full_model = builds[best].full_model
    stored = [keras.ops.convert_to_numpy(weight) for weight in stored_weights(full_model) if builds[best].is_tuned]
    merge_updates(full_model)
    return Repeat(
        candidate=candidates[best],
        candidates=results if len(results) > 1 else [],
        history=histories[best],
        seconds=seconds,
        weights=full_model.get_weights(),
        stored=stored,
        probabilities=probabilities,
        batch_statistics_gap=gap,
        memory=peak_memory(),
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
    keys = ("candidate", "candidates", "seconds", "batch_statistics_gap", "memory")
    state = {key: getattr(repeat, key) for key in keys}
    state["history"] = repeat.history.to_dict("list")
    arrays = {split: [probabilities] for split, probabilities in repeat.probabilities.items()}
    checkpoints.save(f"repeat-{number}", state, {**arrays, "weights": repeat.weights, "stored": repeat.stored})
    checkpoints.drop(f"epoch-{number}*")


def _load(checkpoints: Checkpoints, number: int) -> Repeat | None:
    saved = checkpoints.load(f"repeat-{number}")
    if saved is None:
        return None
    state, arrays = saved
    history = pd.DataFrame(state.pop("history"))
    probabilities = {split: arrays[split][0] for split in SPLITS}
    weights = {key: arrays[key] for key in ("weights", "stored")}
    return Repeat(**state, **weights, history=history, probabilities=probabilities)


def save_model(trained: TrainedModel) -> str:
    """Write a model to models/ and remove its checkpoints; returns the line that the stage prints at its end.

    The accuracies in this line are those of the stored weights.
    """
    record, model = trained.result.record, trained.model

    def save(repeat: int, path: Path) -> None:
        if trained.repeats[repeat].stored:
            save_stored(trained.repeats[repeat].stored, path)
        else:
            model.set_weights(trained.repeats[repeat].weights)
            save_weights(model, path)

    write_model(trained.result, save)
    remove_checkpoints(record.name)
    return (
        f"{record.repeats} x {counted(np.mean(record.epochs), 'epoch')} on {counted(record.train_images, 'image')}, "
        f"{trained.result.cost.seconds:.1f} s each, validation accuracy {trained.validation_accuracy:.1%}"
    )
