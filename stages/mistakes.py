"""Makes small pictures of the test images that models misclassify, for the report: data/mistakes/<task>.

So the report itself reads no image array.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from stages.artifacts.images import read_images
from stages.artifacts.reports import REPORTS_FOLDER
from stages.artifacts.tables import read_csv
from stages.artifacts.tasks import Task, read_task
from stages.artifacts.tiles import MISTAKES_FOLDER, Tile, make_tiles, write_tiles
from stages.core.errors import UserError
from stages.core.files import reading
from stages.core.params import Params
from stages.core.stage import run_stage
from stages.core.wording import counted


def main(_: Params, name: str) -> str:
    tiles = mistake_tiles(name, REPORTS_FOLDER)
    write_tiles(MISTAKES_FOLDER / name, tiles)
    return counted(len(tiles), "test image")


def mistake_tiles(name: str, reports: Path) -> list[Tile]:
    """A tile of each test image of a task that the table in the folder `reports` lists."""
    task = read_task(name)
    images = read_images(task.dataset)
    task.check_images(images.sha256, f"data/images/{task.dataset}")
    return [*make_tiles(read_mistakes(task, reports), "mistake", images.pixels)]


def read_mistakes(task: Task, reports: Path) -> pd.DataFrame:
    """The rows of a task that evaluate lists as mistakes; `UserError` if one is not a test image."""
    path = reports / "mistakes" / f"{task.name}.csv"
    with reading(path):
        listed = read_csv(path, ["index"])["index"].to_numpy(np.int64)
    test = task.rows("test")
    if len(unknown := np.setdiff1d(listed, test["index"])):
        raise UserError(
            f"{path} lists {counted(len(unknown), 'image')} outside the test images of task {task.name!r}, such as row "
            f"{unknown[0]}. Run `dvc repro` to write it again."
        )
    return test[test["index"].isin(listed)]


if __name__ == "__main__":
    run_stage(main, "tasks")
