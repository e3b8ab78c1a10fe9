"""What a model costs with everything of the study that it is built on."""

from stages.data.costs import Cost, read_cost
from stages.study import Study
from stages.study.references import REFERENCES

COSTLY = ("networks", "features", "heads", "fine_tunes")


def parts_of(study: Study, model: str) -> list[tuple[str, str]]:
    """(section, entry) of a model and of all that it is built on, each once, the model first.

    A head is built on its features, these on their backbone, which may be a network of the study, and so on. Data
    sets and weights from elsewhere are not counted.
    """
    section = next(section for section in COSTLY if section != "features" and model in getattr(study, section))
    parts = [(section, model)]
    for part_section, part in parts:  # grows while it is walked
        entry = getattr(study, part_section)[part]
        for key, targets in REFERENCES[part_section].items():
            name = getattr(entry, key)
            found = [(target, name) for target in targets if target in COSTLY and name in getattr(study, target)]
            parts += [each for each in found if each not in parts]
    return parts


def total_seconds(study: Study, model: str, costs: dict[str, Cost]) -> float:
    """Seconds of one repeat of a model and of all that it is built on, each counted once.

    costs: of every model; those of features are read from data/costs.
    """
    return sum(
        read_cost("features", part).seconds if section == "features" else costs[part].seconds
        for section, part in parts_of(study, model)
    )
