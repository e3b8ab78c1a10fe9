"""Sentences of the report on the images of a task and on the calibration of its models."""

from typing import Any

from stages.core.wording import counted, listing

MOST_NAMES = 5  # of models in a sentence; of more, their number


def split_sentence(task: dict[str, Any], models: list[dict], metrics: dict[str, Any]) -> str:
    """How many images train, validation and test have, and how many of them are used.

    task, models: its part and those of its models in study.json. metrics: model -> its part of metrics.json.
    """
    train, test = (sum(task["images"][split]) for split in ("train", "test"))
    # The number of folds and of validation images of the model with the most folds.
    folds, validation = max(
        (len({*model["folds"]}), metrics["validation"]["images"])
        for model, metrics in zip(models, metrics.values(), strict=True)
    )
    used = _used(train, models, metrics)
    test_images, in_fold = counted(test, "test image"), counted(validation / folds, "validation image")
    if folds == 1:
        return f"{counted(train, 'train image')}{used}, {in_fold} and {test_images}."
    exact = "" if validation % folds == 0 else "about "
    return (
        f"{folds} folds of {exact}{in_fold}; {counted(train, 'image')} outside a fold and the test part{used}; "
        f"{test_images}."
    )


def _used(train: int, models: list[dict], metrics: dict[str, Any]) -> str:
    """How many of the train images the models are trained on, with the limit if all have the same one."""
    numbers = [values["training"]["images"] for values in metrics.values()]
    low, high = min(numbers), max(numbers)
    if low >= train:
        return ""
    limits = [", ".join(f"{key}: {value:g}" for key, value in model["limits"].items()) for model in models]
    limit = f" ({limits[0]})" if limits[0] and len({*limits}) == 1 else ""
    return f", of which {low:,} are used{limit}" if low == high else f", of which {low:,} to {high:,} are used"


def calibration_sentence(metrics: dict[str, Any]) -> str:
    """What calibration did to models whose calibration error it did not lower on the test images; empty without any.

    metrics: model -> its part of metrics.json. Errors are compared as they are displayed, in tenths of a point.
    """
    errors = {
        model: (values["test"]["calibration_error"], values["test"]["calibrated_error"])
        for model, values in metrics.items()
    }
    changes = {
        model: round(after, 3) - round(before, 3) for model, (before, after) in errors.items() if before and after
    }
    higher = {model: change for model, change in changes.items() if change > 0}
    if higher:
        names = f"{len(higher)} of {len(metrics)} models" if len(higher) > MOST_NAMES else listing(higher)
        most = f"{'by' if len(higher) == 1 else 'by at most'} {100 * max(higher.values()):.1f} points"
        return f"Calibration raised the calibration error of {names} on the test images, {most}."
    if changes and not any(changes.values()):
        return "Calibration changed nothing: the validation images do not show that the probabilities need it."
    return ""
