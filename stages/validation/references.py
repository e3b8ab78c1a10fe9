"""Names of entries: references to other entries, names that are used twice, and cycles."""

from collections.abc import Iterator
from itertools import combinations

from stages.core.params import MODEL_SECTIONS
from stages.core.wording import did_you_mean, listing
from stages.validation.messages import quote_value
from stages.validation.sections import Entries

DATASETS, BACKBONES = ["datasets", "folders"], ["backbones", "networks"]
# Section -> key -> the sections whose entries the key names. A trained network can be a backbone.
REFERENCES = {
    "tasks": {"dataset": DATASETS},
    "networks": {"dataset": DATASETS, "task": ["tasks"], "backbone": BACKBONES},
    "features": {"dataset": DATASETS, "backbone": BACKBONES},
    "heads": {"task": ["tasks"], "features": ["features"]},
    "probes": {"task": ["tasks"], "features": ["features"]},
    "fine_tunes": {
        "dataset": DATASETS,
        "task": ["tasks"],
        "backbone": BACKBONES,
        "head": ["heads", "probes"],
        "features": ["features"],
    },
}
# Sections whose entries write to the same folder: data/images, data/weights or models.
SHARED_FOLDERS = [("folders", "datasets"), ("networks", "backbones"), *combinations(MODEL_SECTIONS, 2)]


def reference_problems(entries: Entries, written: dict[str, dict]) -> list[str]:
    """One sentence per problem with the names of entries.

    entries: those that are valid by themselves. written: section -> all entries in the file. A reference to an entry
    with a problem of its own is not a second problem.
    """
    problems = [*_missing(entries, written), *_shared_names(written), *_cycles(entries)]
    if not any(written.get(section, "malformed") for section in MODEL_SECTIONS):
        problems.append("networks, heads, probes and fine_tunes are all empty. Give at least one model.")
    return problems


def _missing(entries: Entries, written: dict[str, dict]) -> Iterator[str]:
    for section, keys in REFERENCES.items():
        for name, entry in entries[section].items():
            for key, targets in keys.items():
                value = getattr(entry, key)
                names = [target for section in targets for target in written.get(section, [value])]
                if value not in names:
                    yield (
                        f"{section}.{name}.{key}: {quote_value(value)} does not exist in {' or '.join(targets)}"
                        f"{did_you_mean(value, names)}. Entries: {listing(names)}."
                    )


def _shared_names(written: dict[str, dict]) -> Iterator[str]:
    for first, second in SHARED_FOLDERS:
        for name in written.get(first, ()):
            if name in written.get(second, ()):
                yield f"{first}.{name}: {second} has an entry of this name too. Rename one of them."


def _cycles(entries: Entries) -> Iterator[str]:
    """Networks that start from each other; each cycle is reported once, at the first of its names."""
    networks = entries["networks"]
    for name in networks:
        chain = [name]
        while (network := networks.get(chain[-1])) and network.backbone not in chain:
            chain.append(network.backbone)
        if network and network.backbone == name == min(chain) and name not in entries["backbones"]:
            yield (
                f"networks.{name}.backbone: the network would start from itself ({' -> '.join([*chain, name])}). Give "
                "one of these networks an entry of backbones."
            )
