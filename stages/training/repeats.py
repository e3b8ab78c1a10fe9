"""Trains a model several times from different seeds and keeps the best weights and all predictions."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import keras
import numpy as np
import pandas as pd
from tqdm import tqdm

from stages.base.errors import UserError
from stages.base.files import atomic_file
from stages.data.costs import Cost
from stages.data.results import FOLDER, ModelRecord, Origin, Predictions, Result, cross_entropy, write_result
from stages.networks.pretrained import save_weights
from stages.networks.runtime import make_deterministic
from stages.study.schema import Training
from stages.training.batches import Examples, batches

INFERENCE_BATCH = 64


@dataclass(frozen=True)
class Built:
    """A model made for one repeat.

    whole: all that is stored. trained: the part that is fitted; the same model, or the layers of it above cached
    features, which share their weights with `whole`.
    """

    whole: keras.Model
    trained: keras.Model


def train_repeats(
    name: str,
    build: Callable[[], Built],
    examples: dict[str, Examples],
    settings: Training,
    seed: int,
    origin: Origin,
) -> tuple[keras.Model, Result]:
    """Train `settings.repeats` models from different seeds.

    build: makes a model for a repeat; its random weights come from the seed of the repeat.
    examples: split -> examples; test examples are only predicted, after training.
    origin: what the model is made of, for its record.

    Returns the whole model with the weights of the repeat of the lowest validation loss, and the result.
    Raises `UserError` when the loss of every repeat is not finite.
    """
    histories, probabilities, losses, seconds = [], {split: [] for split in examples}, [], []
    kept = None
    for repeat in range(settings.repeats):
        repeat_seed = int(np.random.SeedSequence([seed, repeat]).generate_state(1)[0])
        make_deterministic(repeat_seed)
        built = build()
        compile_model(built.trained, settings)
        history, took = fit(built.trained, examples, settings, repeat_seed, f"{name} {repeat + 1}/{settings.repeats}")
        history.insert(0, "repeat", repeat)
        histories.append(history)
        seconds.append(took)
        for split, of_split in examples.items():
            probabilities[split].append(predict(built.trained, of_split))
        losses.append(cross_entropy(probabilities["validation"][-1], examples["validation"].labels))
        if np.isfinite(losses[-1]) and (kept is None or losses[-1] < losses[kept]):
            kept, weights = repeat, built.whole.get_weights()
    if kept is None:
        raise UserError(
            f"{name}: the loss of every repeat became infinite or no number; lower learning_rate "
            f"(now {settings.learning_rate:g})."
        )
    built.whole.set_weights(weights)

    epochs = [len(history) for history in histories]
    train_images = len(examples["train"].rows)
    result = Result(
        record=ModelRecord(
            **asdict(origin),
            train_images=train_images,
            repeats=settings.repeats,
            kept_repeat=kept,
            epochs=epochs,
            trained_parameters=sum(int(np.prod(weight.shape)) for weight in built.whole.trainable_weights),
            total_parameters=origin.parameters_below + built.whole.count_params(),
        ),
        cost=Cost.measured(float(np.mean(seconds)), train_images * sum(epochs) / sum(seconds)),
        history=pd.concat(histories),
        predictions={split: Predictions(examples[split].index, np.stack(probabilities[split])) for split in examples},
    )
    return built.whole, result


def compile_model(model: keras.Model, settings: Training) -> None:
    """Give the model its optimizer, cross-entropy loss and accuracy."""
    optimizer = keras.optimizers.get(settings.optimizer)
    optimizer.learning_rate = settings.learning_rate
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])


def fit(
    model: keras.Model, examples: dict[str, Examples], settings: Training, seed: int, description: str
) -> tuple[pd.DataFrame, float]:
    """Train a compiled model; returns its history, one row an epoch, and the seconds it took.

    seed: of the order of the images, a new one in every epoch. The training figures are means over the epoch's
    batches, dropout active; the validation figures are of the weights at the end of the epoch. With early stopping the
    model ends with the weights of the lowest validation loss. A loss that is no number ends the training.
    """
    train, validation = examples["train"], examples["validation"]
    random = np.random.default_rng(seed)
    history, best, best_weights = [], {"epoch": 0, "validation_loss": np.inf}, None
    start = time.perf_counter()
    with tqdm(total=settings.epochs, desc=description, unit=" epochs", disable=None) as bar:
        for epoch in range(1, settings.epochs + 1):
            # Batch by batch, not Model.fit: with few images its preparations cost several times the training itself.
            steps = []  # images, loss and accuracy of each
            for inputs, labels in batches(train, settings.batch_size, random.permutation(len(train.rows))):
                of_step = model.train_on_batch(inputs, labels, return_dict=True)
                steps.append((len(labels), of_step["loss"], of_step["accuracy"]))
            sizes, losses, accuracies = zip(*steps, strict=True)
            probabilities = predict(model, validation)
            row = {
                "epoch": epoch,
                "train_loss": float(np.average(losses, weights=sizes)),
                "train_accuracy": float(np.average(accuracies, weights=sizes)),
                "validation_loss": cross_entropy(probabilities, validation.labels),
                "validation_accuracy": float((probabilities.argmax(axis=1) == validation.labels).mean()),
            }
            history.append(row)
            bar.set_postfix({key: f"{row[key]:.3f}" for key in ("train_loss", "validation_accuracy")}, refresh=False)
            bar.update()
            if not np.isfinite(row["train_loss"]):
                break
            if settings.early_stopping is None:
                continue
            if row["validation_loss"] < best["validation_loss"]:
                best, best_weights = row, model.get_weights()
            elif epoch - best["epoch"] >= settings.early_stopping:
                break
    if best_weights is not None:
        model.set_weights(best_weights)
    return pd.DataFrame(history), time.perf_counter() - start


def predict(model: keras.Model, examples: Examples) -> np.ndarray:
    """Predicted probabilities in inference mode, (n, classes) float32."""
    parts = [model.predict_on_batch(inputs) for inputs, _ in batches(examples, INFERENCE_BATCH)]
    return np.concatenate(parts).astype(np.float32)


def save_model(name: str, model: keras.Model, result: Result) -> str:
    """Write weights and result of a model to models/; returns the line the stage ends with."""
    write_result(name, result)
    with atomic_file(FOLDER / f"{name}.weights.h5") as partial:
        save_weights(model, partial)
    validation = result.history.groupby("repeat")["validation_accuracy"].max().mean()
    record = result.record
    return (
        f"{record.repeats} x {np.mean(record.epochs):.0f} epochs on {record.train_images} images, "
        f"{result.cost.seconds:.1f} s each, best validation accuracy {validation:.1%} on average"
    )
