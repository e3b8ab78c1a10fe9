"""In words, the settings that a head chose from on validation images."""

from stages.artifacts.models import Candidate
from stages.evaluation.formatting import percent


def describe_candidates(model: str, candidates: list[Candidate]) -> str:
    """One sentence: every setting that was tried with its validation accuracy and loss, the chosen one first."""
    tried = sorted(candidates, key=lambda each: not each.chosen)
    chosen, *others = [f"{_setting(each)} ({percent(each.validation_accuracy)}, {_loss(each)})" for each in tried]
    return (
        f"{model}: of {len(tried)} settings the one of the lowest validation loss was taken, {chosen}; the others "
        f"(validation accuracy, loss): {', '.join(others)}"
    )


def _setting(candidate: Candidate) -> str:
    rate = [] if candidate.learning_rate is None else [f"learning rate {candidate.learning_rate:g}"]
    return " and ".join([*rate, f"l2 {candidate.l2:g}"])


def _loss(candidate: Candidate) -> str:
    return "not finite" if candidate.validation_loss is None else f"{candidate.validation_loss:.3f}"
