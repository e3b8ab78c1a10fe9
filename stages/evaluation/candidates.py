"""The settings that a model was chosen from on validation images, in words."""

import math
from collections.abc import Callable

from stages.artifacts.models import Candidate

VALUES = {
    "learning rate": lambda candidate: candidate.learning_rate,
    "l2": lambda candidate: candidate.l2,
    "number of neighbors": lambda candidate: candidate.neighbors,
}


def describe_candidates(model: str, candidates: list[Candidate]) -> str:
    """What was chosen of how many settings, the validation losses, and whether settings beyond may be better."""
    (chosen,) = [candidate for candidate in candidates if candidate.chosen]
    varied = {name: value for name, value in VALUES.items() if len({*map(value, candidates)}) > 1}
    tried = varied or {"l2": VALUES["l2"]}
    setting = " and ".join(f"{name} {value(chosen):g}" for name, value in tried.items())
    number = f"{len(candidates)} {'values' if len(tried) == 1 else 'pairs'}"
    losses = [_loss(candidate) for candidate in candidates if not candidate.chosen]
    sentence = (
        f"{model} uses {setting}: of {number}, this had the lowest validation loss in the first repeat "
        f"({_text(_loss(chosen))}; {_others(losses)})."
    )
    edges = [_edge(name, value, candidates, chosen) for name, value in tried.items()]
    return " ".join([sentence, *filter(None, edges)])


def _loss(candidate: Candidate) -> float:
    return math.inf if candidate.validation_loss is None else candidate.validation_loss


def _text(loss: float) -> str:
    return f"{loss:.3f}" if math.isfinite(loss) else "not finite"


def _others(losses: list[float]) -> str:
    """The range of the losses that were not chosen."""
    noun = "the other" if len(losses) == 1 else "the others"
    finite = [f"{loss:.3f}" for loss in sorted(losses) if math.isfinite(loss)]
    if not finite:
        return f"{noun} not finite"
    text = finite[0] if finite[0] == finite[-1] else f"{finite[0]} to {finite[-1]}"
    return f"{noun} {text}" + (f", {len(losses) - len(finite)} not finite" if len(finite) < len(losses) else "")


def _edge(name: str, value: Callable, candidates: list[Candidate], chosen: Candidate) -> str:
    """A warning if the best of more than two values is the lowest (of those above the least, 0 or 1) or the highest."""
    values = sorted({*map(value, candidates)})
    if (
        len(values) < 3
        or value(chosen) not in (values[0], values[-1])
        or value(chosen) == (1 if "neighbors" in name else 0)
    ):
        return ""
    side = "lowest" if value(chosen) == values[0] else "highest"
    return f"This is the {side} {name} of the list: {'lower' if side == 'lowest' else 'higher'} ones may be better."
