"""Makes small pictures of a task's training images for the report, also augmented ones: data/gallery/<task>.

Needs no model, so an edit of a head does not run it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from stages.artifacts.images import read_images
from stages.artifacts.tasks import Task, read_task
from stages.artifacts.tiles import GALLERY_FOLDER, Tile, make_tile, make_tiles, write_tiles
from stages.config.augmentation import AugmentationConfig
from stages.config.features import FeaturesConfig
from stages.config.fine_tunes import FineTuneConfig
from stages.config.networks import NetworkConfig
from stages.config.parsing import parse_entry
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.core.wording import counted

SAMPLES = 5  # training images of a class
MOST_CLASSES = 20
AUGMENTED = 2  # training images for every augmentation
VARIANTS = 5  # of each of them


@dataclass(frozen=True)
class UsedAugmentation:
    """An augmentation and the entries that use it. certain_flip: its flips are certain, as in a view."""

    config: AugmentationConfig
    certain_flip: bool
    entries: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Such as `rotation 15, flip horizontal (a-net)`."""
        settings = self.config.model_dump(exclude_defaults=True)
        words = [
            f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in settings.items()
        ]
        words = [f"{word} always" if self.certain_flip and word.startswith("flip") else word for word in words]
        return f"{', '.join(words) or 'no change'} ({', '.join(self.entries)})"

    @property
    def variants(self) -> int:
        """How many examples to show: one if all would be the same."""
        random = any(self.config.model_dump(exclude={"flip", "fill"}).values())
        return VARIANTS if random or not self.certain_flip else 1


def main(params: Params, name: str) -> str:
    task = read_task(name)
    images = read_images(task.dataset)
    task.check_images(images.sha256, f"data/images/{task.dataset}")
    samples, augmentations = first_images(task), used_augmentations(params, task)

    tiles = [*make_tiles(samples, "sample", images.pixels)]
    if augmentations:
        examples = samples.drop_duplicates("label").head(AUGMENTED)  # of different classes
        tiles += augmented_tiles(augmentations, examples, images.pixels, params.seed)
    write_tiles(GALLERY_FOLDER / name, tiles)
    return f"{counted(len(samples), 'training image')}, {counted(len(augmentations), 'augmentation')}"


def first_images(task: Task) -> pd.DataFrame:
    """The first training images of every class, class by class; if there are many classes, of evenly spaced ones."""
    last = len(task.classes) - 1
    labels = np.linspace(0, last, min(MOST_CLASSES, last + 1)).round().astype(int)
    rows = task.rows("train", max_per_class=SAMPLES)
    return rows[rows["label"].isin(labels)].sort_values(["label", "order"])


def used_augmentations(params: Params, task: Task) -> list[UsedAugmentation]:
    """The different augmentations that models of the task train with, and the views of features of its dataset."""
    uses = []
    for section, kind in (("networks", NetworkConfig), ("fine_tunes", FineTuneConfig)):
        for name in params.names(section):
            entry = parse_entry(params, section, name, kind)
            if entry.task == task.name and entry.augmentation:
                uses.append((entry.augmentation, False, name))
    for name in params.names("features"):
        features = parse_entry(params, "features", name, FeaturesConfig)
        if features.dataset == task.dataset:
            uses += [(view, view.flip != "none", name) for view in dict.fromkeys(features.views)]
    augmentations = {}
    for config, certain_flip, name in uses:
        used = augmentations.setdefault((config, certain_flip), UsedAugmentation(config, certain_flip))
        used.entries.append(name)
    return list(augmentations.values())


def augmented_tiles(
    augmentations: list[UsedAugmentation], rows: pd.DataFrame, pixels: np.ndarray, seed: int
) -> Iterator[Tile]:
    """For each augmentation and row of a task's table the unchanged image, followed by augmented copies.

    pixels: (n, size, size, 3) uint8 of the dataset. Every augmentation draws the same random numbers, so an additional
    one does not change the pictures of the rest.
    """
    # Importing Keras takes longer than everything else here, and most studies augment nothing.
    from stages.backbones.augmentation import Augment
    from stages.backbones.runtime import make_deterministic

    images = pixels[rows["index"].to_numpy()]
    for number, used in enumerate(augmentations, start=1):
        make_deterministic(seed % 2**32)
        augment = Augment(used.config, always=used.certain_flip)
        copies = np.asarray(augment(images.repeat(used.variants, axis=0), training=True))
        copies = copies.reshape(len(images), used.variants, *images.shape[1:])
        for index, label, image, changed in zip(rows["index"], rows["class"], images, copies, strict=True):
            for variant, picture in enumerate([image, *changed]):
                yield make_tile(picture, f"augmented-{number}-{index}-{variant}", "augmented", used.title, index, label)


if __name__ == "__main__":
    run_stage(main, "tasks")
