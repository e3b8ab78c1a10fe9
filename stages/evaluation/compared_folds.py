"""Which models of a task are compared on which folds, where their repeats did not hold out the same ones."""

from dataclasses import dataclass
from itertools import combinations

from stages.artifacts.models import ModelRecord
from stages.core.wording import counted, listing


@dataclass(frozen=True)
class ComparedFolds:
    """models: those that are compared, in the order of the study. folds: those on which all of them validated,
    ascending. left_out: models that did not validate on all of these folds.
    """

    models: list[str]
    folds: list[int]
    left_out: list[str]


def compared_folds(records: dict[str, ModelRecord], images: list[int]) -> ComparedFolds:
    """Choose the folds of a task on which its models are compared.

    records: of all models of the task, at least one. images: the number of validation images of each fold. Chosen is
    the set of folds with the most comparisons of the recommended model with another one, each counted with its
    images: a model with fewer folds is left out rather than take most images from all others. On a tie, more models.
    """
    sets = {frozenset(record.folds) for record in records.values()}
    while more := {a & b for a, b in combinations(sets, 2)} - sets:
        sets |= more

    def worth(folds: frozenset[int]) -> tuple[int, int, int, list[int]]:
        models = sum(folds <= {*record.folds} for record in records.values())
        count = sum(images[fold] for fold in folds)
        return count * (models - 1), models, count, [-fold for fold in sorted(folds)]

    folds = max((folds for folds in sets if folds), key=worth)
    models = [model for model, record in records.items() if folds <= {*record.folds}]
    return ComparedFolds(models, sorted(folds), [model for model in records if model not in models])


def left_out_sentences(compared: ComparedFolds, records: dict[str, ModelRecord]) -> list[str]:
    """Which models are not part of the choice, why, and what to do about it; records: of all models of the task."""
    folds, sentences = {*compared.folds}, []
    for model in compared.left_out:
        record = records[model]
        common = len(folds & {*record.folds})
        where = f"{common} of the {counted(len(folds), 'fold')}" if common else "no fold"
        sentences.append(
            f"{model} validated on {where} of the other models, so it is not part of the choice. "
            f"{_remedy([record], folds)}"
        )
    return sentences


def limiting_sentences(compared: ComparedFolds, records: dict[str, ModelRecord]) -> list[str]:
    """Which of the compared models keep the others from being compared on more folds; nothing if none does."""
    folds = {*compared.folds}
    available = {fold for model in compared.models for fold in records[model].folds}
    limiting = [records[model] for model in compared.models if {*records[model].folds} != available]
    if available == folds:
        return []
    names = listing(record.name for record in limiting)
    return [
        f"The models are compared on {len(folds)} of {counted(len(available), 'fold')}, because {names} did not "
        f"validate on all of them. {_remedy(limiting, available)}"
    ]


def _remedy(records: list[ModelRecord], folds: set[int]) -> str:
    """How models that validated on too few folds can validate on all of some folds."""
    count = max(folds) + 1
    few = [record.name for record in records if record.repeats < count]
    if few:
        return f"Set the repeats of {listing(few)} to {count} to validate on all of them."
    names = listing(record.name for record in records)
    return f"The backbone of {names} has trained on the images of the other folds; use one that has not."
