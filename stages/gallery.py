"""Makes the small pictures that the report shows of a task's images: data/gallery/<task>.

Training images of every class, and what augmentation makes of an image. Needs no model: another head leaves them as
they are.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from stages.artifacts.images import read_images
from stages.artifacts.tasks import Task, read_task
from stages.artifacts.tiles import GALLERY_FOLDER, Tile, make_tile, make_tiles, write_tiles
from stages.config.augmentation import AugmentationConfig
from stages.core.stage import run_stage
from stages.validation.study import Study

SAMPLES = 5  # training images of a class
MOST_CLASSES = 20  # that are shown
CHANGED = 2  # training images that each augmentation is shown on
VARIANTS = 5  # of each of them


def main(study: Study, name: str) -> str:
    dataset = study.tasks[name].dataset
    images, task = read_images(dataset), read_task(name)
    task.check_images(images.sha256, f"data/images/{dataset}")
    samples, augmentations = samples_of(task), augmentations_of(study, name)

    tiles = [*make_tiles(samples, "sample", images.pixels)]
    if augmentations:
        chosen = samples.drop_duplicates("label").head(CHANGED)  # of different classes
        tiles += augmented(augmentations, chosen, images.pixels, study.seed)
    write_tiles(GALLERY_FOLDER / name, tiles)
    return f"{len(samples)} training images, {len(augmentations)} augmentations"


def samples_of(task: Task) -> pd.DataFrame:
    """The first training images of every class, or of evenly chosen ones where there are many, class by class."""
    last = len(task.classes) - 1
    shown = np.linspace(0, last, min(MOST_CLASSES, last + 1)).round().astype(int)
    rows = task.rows("train", max_per_class=SAMPLES)
    return rows[rows["label"].isin(shown)].sort_values(["label", "order"])


def augmentations_of(study: Study, task: str) -> dict[tuple[AugmentationConfig, bool], list[str]]:
    """The different augmentations that models of the task train with, and the views of features of its dataset.

    Each with the names of the entries that ask for it. With each stands whether its flips are certain, as they are in a
    view.
    """
    found: dict[tuple[AugmentationConfig, bool], list[str]] = {}
    for name, entry in {**study.networks, **study.fine_tunes}.items():
        if entry.task == task and entry.augmentation:
            found.setdefault((entry.augmentation, False), []).append(name)
    for name, features in study.features.items():
        if features.dataset == study.tasks[task].dataset:
            for view in dict.fromkeys(features.views):
                found.setdefault((view, view.flip != "none"), []).append(name)
    return found


def augmented(
    augmentations: dict[tuple[AugmentationConfig, bool], list[str]], rows: pd.DataFrame, pixels: np.ndarray, seed: int
) -> Iterator[Tile]:
    """For each augmentation and row of a task's table the image as it is, and after it what training makes of it.

    pixels: (n, size, size, 3) uint8 of the dataset. The random numbers are the same for every augmentation, so that
    one more in the study leaves the pictures of the others as they are.
    """
    # Importing Keras takes longer than all else here, and most studies augment nothing.
    from stages.backbones.augmentation import Augment
    from stages.backbones.runtime import make_deterministic

    images = pixels[rows["index"].to_numpy()]
    for number, ((entry, certain_flip), names) in enumerate(augmentations.items(), 1):
        variants = 1 if certain_flip and is_only_flip(entry) else VARIANTS  # all would be the same
        make_deterministic(seed % 2**32)
        changed = np.asarray(Augment(entry, always=certain_flip)(images.repeat(variants, axis=0), training=True))
        title = f"{in_words(entry, certain_flip)} (of {', '.join(names)})"
        for place, (index, label) in enumerate(zip(rows["index"], rows["class"], strict=True)):
            row = [images[place], *changed[place * variants : (place + 1) * variants]]
            for variant, each in enumerate(row):
                yield make_tile(each, f"augmented-{number}-{index}-{variant}", "augmented", title, index, label)


def is_only_flip(entry: AugmentationConfig) -> bool:
    """Whether an augmentation changes nothing but to flip."""
    return not any(entry.model_dump(exclude={"flip", "fill"}).values())


def in_words(entry: AugmentationConfig, certain_flip: bool) -> str:
    """What an augmentation does, as in `rotation 15, flip horizontal`."""
    given = entry.model_dump(exclude_defaults=True)
    words = [f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in given.items()]
    words = [f"{each} always" if certain_flip and each.startswith("flip") else each for each in words]
    return ", ".join(words) or "no change"


if __name__ == "__main__":
    run_stage(main, "tasks")
