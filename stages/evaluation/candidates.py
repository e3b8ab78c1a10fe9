"""The settings that a model was chosen from on validation images, in words."""

from stages.artifacts.models import Candidate
from stages.evaluation.formatting import percent


def describe_candidates(model: str, candidates: list[Candidate]) -> str:
    """One sentence: every setting that was tried with its validation accuracy and loss, the chosen one first."""
    ordered = sorted(candidates, key=lambda candidate: not candidate.chosen)
    chosen, *rest = [
        f"{_setting(candidate)} ({percent(candidate.validation_accuracy)}, {_loss(candidate)})" for candidate in ordered
    ]
    return (
        f"{model}: {len(ordered)} settings were tried; the one with the lowest validation loss was chosen: {chosen}. "
        f"The rest (validation accuracy, loss): {', '.join(rest)}."
    )


def _setting(candidate: Candidate) -> str:
    rate = [] if candidate.learning_rate is None else [f"learning rate {candidate.learning_rate:g}"]
    return " and ".join([*rate, f"l2 {candidate.l2:g}"])


def _loss(candidate: Candidate) -> str:
    return "not finite" if candidate.validation_loss is None else f"{candidate.validation_loss:.3f}"
