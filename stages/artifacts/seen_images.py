"""The images that the networks of a study have seen: `seen.csv` in data/weights/<network> and data/features/<features>.

They are known by the sha256 of their content, so that copies and other datasets with the same images count too.
"""

from pathlib import Path

import pandas as pd

from stages.artifacts.tables import read_csv
from stages.artifacts.weights import WEIGHTS_FOLDER, read_weights_record
from stages.core.files import reading

SEEN_COLUMNS = ["sha256", "use", "network", "task"]
TRAINED, VALIDATED = "trained", "validated"


def no_seen_images() -> pd.DataFrame:
    """The table of a backbone that is not a network of the study."""
    return pd.DataFrame(columns=SEEN_COLUMNS, dtype=str)


def write_seen_images(folder: Path, seen: pd.DataFrame) -> None:
    """Write `seen.csv` into an (unfinished) folder of weights or features.

    seen: one row per image, use and network - sha256 of its content, use (trained or validated), the network, and the
    task that the network was trained for.
    """
    seen[SEEN_COLUMNS].to_csv(folder / "seen.csv", index=False, lineterminator="\n")


def read_seen_images(folder: Path) -> pd.DataFrame:
    """Read the table of a folder of weights or features; `UserError` if it is missing or damaged."""
    with reading(folder):
        return read_csv(folder / "seen.csv", SEEN_COLUMNS)


def images_seen_by(backbone: str) -> pd.DataFrame:
    """The images that a backbone has seen: none, unless it is a network of the study."""
    is_network = read_weights_record(backbone).image_size is not None
    return read_seen_images(WEIGHTS_FOLDER / backbone) if is_network else no_seen_images()
