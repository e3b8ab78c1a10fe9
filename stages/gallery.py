"""Makes the small pictures that the report shows of a task: data/gallery/<task>.

Training images of every class, the test images that a model mistakes, and what augmentation makes of an image. The
report itself then reads no image array.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from stages.base.command import run_stage
from stages.base.errors import UserError
from stages.base.files import reading
from stages.data.gallery import Tile, write_gallery
from stages.data.images import read_csv, read_images
from stages.data.tasks import Task, read_task
from stages.study import Study
from stages.study.schema import Augmentation, Head

MISTAKES = Path("reports/mistakes")
SAMPLES = 5  # training images of a class
MOST_CLASSES = 20  # that are shown
CHANGED = 2  # training images that each augmentation is shown on
VARIANTS = 5  # of each of them
LARGEST_SIDE = 112  # pixels
LARGEST_PNG = 64  # pixels; JPEG would blur images that small


def main(study: Study, name: str) -> str:
    dataset = study.tasks[name].dataset
    images, task = read_images(dataset), read_task(name)
    task.check_images(images.sha256, f"data/images/{dataset}")
    samples, mistakes = samples_of(task), mistakes_of(task)
    augmentations = augmentations_of(study, name)

    tiles = [*plain(samples, "sample", images.pixels), *plain(mistakes, "mistake", images.pixels)]
    if augmentations:
        chosen = samples.drop_duplicates("label").head(CHANGED)  # of different classes
        tiles += augmented(augmentations, chosen, images.pixels, study.seed)
    write_gallery(name, tiles)
    return f"{len(samples)} training images, {len(mistakes)} mistakes, {len(augmentations)} augmentations"


def samples_of(task: Task) -> pd.DataFrame:
    """The first training images of every class, or of evenly chosen ones where there are many, class by class."""
    last = len(task.classes) - 1
    shown = np.linspace(0, last, min(MOST_CLASSES, last + 1)).round().astype(int)
    rows = task.rows("train", max_per_class=SAMPLES)
    return rows[rows["label"].isin(shown)].sort_values(["label", "order"])


def mistakes_of(task: Task) -> pd.DataFrame:
    """The test images that evaluate found a model to mistake; `UserError` where one is no test image of the task."""
    path = MISTAKES / f"{task.name}.csv"
    with reading(path):
        named = read_csv(path, ["index"])["index"].to_numpy(np.int64)
    test = task.rows("test")
    if len(strange := np.setdiff1d(named, test["index"])):
        raise UserError(
            f"{path}: {len(strange)} of {len(np.unique(named))} images are not test images of task {task.name!r}, such "
            f"as row {strange[0]}; run `dvc repro`, which writes it anew."
        )
    return test[test["index"].isin(named)]


def augmentations_of(study: Study, task: str) -> dict[tuple[Augmentation, bool], list[str]]:
    """The different augmentations that models of the task train with, each with their names.

    With each stands whether its flips are certain, as they are in a view.
    """
    found: dict[tuple[Augmentation, bool], list[str]] = {}
    for model, entry in study.models.items():
        if entry.task != task:
            continue
        if isinstance(entry, Head):
            others = None if entry.views is None else entry.views - 1  # the first view is the image itself
            used = [(view, view.flip != "none") for view in study.features[entry.features].views[:others]]
        else:
            used = [(entry.augmentation, False)] if entry.augmentation else []
        for each in dict.fromkeys(used):
            found.setdefault(each, []).append(model)
    return found


def plain(rows: pd.DataFrame, role: str, pixels: np.ndarray) -> Iterator[Tile]:
    """The images of rows of a task's table as they are; pixels: (n, size, size, 3) uint8 of the dataset."""
    for index, label in zip(rows["index"], rows["class"], strict=True):
        yield tile_of(pixels[index], f"{role}-{index}", role, "", index, label)


def augmented(
    augmentations: dict[tuple[Augmentation, bool], list[str]], rows: pd.DataFrame, pixels: np.ndarray, seed: int
) -> Iterator[Tile]:
    """For each augmentation and row of a task's table the image as it is, and after it what training makes of it.

    pixels: (n, size, size, 3) uint8 of the dataset. The random numbers are the same for every augmentation, so that
    one more in the study leaves the pictures of the others as they are.
    """
    # Importing Keras takes longer than all else here, and most studies augment nothing.
    from stages.networks.augmentation import Augment
    from stages.networks.runtime import make_deterministic

    images = pixels[rows["index"].to_numpy()]
    for number, ((entry, certain_flip), models) in enumerate(augmentations.items(), 1):
        variants = 1 if certain_flip and is_only_flip(entry) else VARIANTS  # all would be the same
        make_deterministic(seed % 2**32)
        changed = np.asarray(Augment(entry, always=certain_flip)(images.repeat(variants, axis=0), training=True))
        title = f"{in_words(entry, certain_flip)} (of {', '.join(models)})"
        for place, (index, label) in enumerate(zip(rows["index"], rows["class"], strict=True)):
            row = [images[place], *changed[place * variants : (place + 1) * variants]]
            for variant, each in enumerate(row):
                yield tile_of(each, f"augmented-{number}-{index}-{variant}", "augmented", title, index, label)


def is_only_flip(entry: Augmentation) -> bool:
    """Whether an augmentation changes nothing but to flip."""
    return not any(entry.model_dump(exclude={"flip", "fill"}).values())


def in_words(entry: Augmentation, certain_flip: bool) -> str:
    """What an augmentation does, as in `rotation 15, flip horizontal`."""
    given = entry.model_dump(exclude_defaults=True)
    words = [f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in given.items()]
    words = [f"{each} always" if certain_flip and each.startswith("flip") else each for each in words]
    return ", ".join(words) or "no change"


def tile_of(pixels: np.ndarray, name: str, role: str, title: str, index: int, label: str) -> Tile:
    """A tile of an image, (size, size, 3) uint8: made smaller where it is large, never larger."""
    image = Image.fromarray(pixels)
    if max(image.size) > LARGEST_SIDE:
        image = image.resize((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    if max(image.size) <= LARGEST_PNG:
        image.save(file, "PNG", optimize=True)
        return Tile(f"{name}.png", role, title, index, label, file.getvalue())
    image.save(file, "JPEG", quality=85, optimize=True)
    return Tile(f"{name}.jpg", role, title, index, label, file.getvalue())


if __name__ == "__main__":
    run_stage(main, "tasks")
