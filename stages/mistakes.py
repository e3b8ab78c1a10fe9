"""Makes the small pictures of the test images that models mistake, which the report shows: data/mistakes/<task>.

The report itself then reads no image array.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from stages.artifacts.images import read_images
from stages.artifacts.tables import read_csv
from stages.artifacts.tasks import Task, read_task
from stages.artifacts.tiles import MISTAKES_FOLDER, make_tiles, write_tiles
from stages.core.errors import UserError
from stages.core.files import reading
from stages.core.stage import run_stage
from stages.validation.study import Study

TABLES = Path("reports/mistakes")


def main(study: Study, name: str) -> str:
    dataset = study.tasks[name].dataset
    images, task = read_images(dataset), read_task(name)
    task.check_images(images.sha256, f"data/images/{dataset}")
    mistakes = mistakes_of(task)
    write_tiles(MISTAKES_FOLDER / name, [*make_tiles(mistakes, "mistake", images.pixels)])
    return f"{len(mistakes)} test images"


def mistakes_of(task: Task) -> pd.DataFrame:
    """The test images that evaluate found a model to mistake; `UserError` where one is no test image of the task."""
    path = TABLES / f"{task.name}.csv"
    with reading(path):
        named = read_csv(path, ["index"])["index"].to_numpy(np.int64)
    test = task.rows("test")
    if len(strange := np.setdiff1d(named, test["index"])):
        raise UserError(
            f"{path}: {len(strange)} of {len(np.unique(named))} images are not test images of task {task.name!r}, such "
            f"as row {strange[0]}; run `dvc repro`, which writes it anew."
        )
    return test[test["index"].isin(named)]


if __name__ == "__main__":
    run_stage(main, "tasks")
