"""Published datasets, through the real pipeline: download, prepare, split. Of CIFAR-10, a fifth of the images."""

import functools
import hashlib
import http.server
import re
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.pipeline import copy_of_project, dvc, edit_study, stages_run

DATA = Path(__file__).parents[1].parent / "shared" / "data"
FILES = (
    "make_cifar10_binary.py",
    "cifar10_jpeg.zip",
    "flowers_160.zip",
    "chest_xray_published_224.zip",
)
pytestmark = pytest.mark.skipif(
    not all((DATA / name).exists() for name in FILES), reason="the published datasets are not available"
)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def archive(name: str, image_size: int, **settings) -> dict:
    path = DATA / name
    return {"source": "archive", "url": str(path), "sha256": sha256(path), "image_size": image_size, **settings}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A web server that serves CIFAR-10's binary archive with 1,000 training and 200 test images of each class."""
    folder = tmp_path_factory.mktemp("server")
    archive = str(folder / "cifar-10-binary.tar.gz")
    make = [sys.executable, str(DATA / "make_cifar10_binary.py"), archive, "--per-class", "1000"]
    subprocess.run(make, check=True)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture(scope="module")
def project(tmp_path_factory, server):
    """A copy of the project with the three datasets downloaded, prepared and split; and the output of that run."""
    served, address = server
    folder = copy_of_project(tmp_path_factory.mktemp("project"))

    def change(study: dict) -> None:
        study["datasets"] |= {
            "cifar": {
                "source": "cifar10",
                "url": f"{address}/cifar-10-binary.tar.gz",
                "sha256": sha256(served / "cifar-10-binary.tar.gz"),
                "image_size": 32,
            },
            "flowers": archive("flowers_160.zip", 64),
            "xray": archive("chest_xray_published_224.zip", 64, resize="stretch", subfolder="train"),
        }
        study["tasks"] |= {
            "cifar": {"dataset": "cifar", "validation": 0.1, "test": "published"},
            "flowers": {"dataset": "flowers", "validation": 20, "test": 20},
            "xray": {"dataset": "xray", "validation": 0.1, "test": 0.2, "group": r"person\d+"},
        }

    edit_study(folder, change)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        done = dvc(folder, "repro", *(f"split@{name}" for name in ("cifar", "flowers", "xray")))
    return folder, done


def table_of(project: Path, dataset: str) -> pd.DataFrame:
    return pd.read_csv(project / f"data/images/{dataset}/table.csv", keep_default_na=False)


def split_of(project: Path, task: str) -> pd.DataFrame:
    return pd.read_csv(project / f"data/tasks/{task}/split.csv", keep_default_na=False)


def sizes(split: pd.DataFrame) -> dict[str, int]:
    return split["split"].value_counts().to_dict()


def test_every_image_of_every_dataset_is_prepared(project):
    folder, _ = project
    counts = {
        dataset: table_of(folder, dataset)["class"].value_counts().to_dict() for dataset in ("cifar", "flowers", "xray")
    }
    assert set(counts["cifar"].values()) == {1200} and len(counts["cifar"]) == 10
    assert counts["flowers"] == {"daisy": 664, "dandelion": 707, "rose": 647, "sunflower": 635, "tulip": 654}
    assert counts["xray"] == {"NORMAL": 1341, "PNEUMONIA": 3875}
    for dataset, size in (("cifar", 32), ("flowers", 64), ("xray", 64)):
        images = np.load(folder / f"data/images/{dataset}/images.npy", mmap_mode="r", allow_pickle=False)
        assert (images.shape, images.dtype) == ((sum(counts[dataset].values()), size, size, 3), np.uint8)
        assert (folder / f"data/images/{dataset}/quarantine.csv").read_text() == "name,class,reason\n"


def test_cifar_10_has_the_published_pixels_and_test_split(project, server):
    folder, _ = project
    table, split = table_of(folder, "cifar"), split_of(folder, "cifar")
    assert table["split"].value_counts().to_dict() == {"train": 10_000, "test": 2_000}
    assert sizes(split) == {"train": 9_000, "validation": 1_000, "test": 2_000}
    assert (split.groupby(["class", "split"]).size().unstack()["test"] == 200).all()
    assert set(split.loc[split["split"] == "test", "name"]) == set(table.loc[table["split"] == "test", "name"])
    # The same image as in the other archive, which holds it as a file.
    import io

    from PIL import Image

    with zipfile.ZipFile(DATA / "cifar10_jpeg.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.startswith("test/horse/"))
        known = {np.asarray(Image.open(io.BytesIO(archive.read(name)))).tobytes() for name in names[:20]}
    images = np.load(folder / "data/images/cifar/images.npy", mmap_mode="r", allow_pickle=False)
    horses = table.index[(table["class"] == "horse") & (table["split"] == "test")]
    assert known <= {images[index].tobytes() for index in horses}


def test_images_of_a_patient_are_in_one_split(project):
    folder, done = project
    split = split_of(folder, "xray")
    patients = split["name"].str.extract(r"(person\d+)")[0]
    assert patients.notna().sum() == 3875
    assert (split.groupby(patients)["split"].nunique() == 1).all()
    assert f"images of groups, each group in one split: 3,875 images, {patients.nunique():,} groups" in done.stdout
    shares = split.groupby("class")["split"].value_counts(normalize=True).unstack()
    assert shares["test"].between(0.199, 0.201).all() and shares["validation"].between(0.099, 0.101).all()


def test_a_number_of_images_per_class_is_held_out(project):
    folder, _ = project
    counts = split_of(folder, "flowers").groupby(["class", "split"]).size().unstack()
    assert (counts[["test", "validation"]] == 20).all(axis=None)
    assert counts.sum(axis=1).tolist() == [664, 707, 647, 635, 654]


def test_near_duplicates_across_splits_are_listed(project):
    """CIFAR-10 is known for near-duplicates (Barz and Denzler 2020): two of these test images. The flowers have few."""
    folder, done = project
    near = pd.read_csv(folder / "data/tasks/cifar/near_duplicates.csv")
    assert set(near.loc[near["split"] == "test", "name"]) == {"test_batch/0398", "test_batch/0843"}
    assert len(near) < 20
    assert (near["split"] != near["similar_split"]).all() and near["bits"].between(0, 24).all()
    assert f"validation and test images similar to an image of another split: {len(near)}, see" in done.stdout
    # The flowers have twelve pairs, each in one class. A pair gives two rows if it is in validation and test.
    flowers = pd.read_csv(folder / "data/tasks/flowers/near_duplicates.csv", dtype={"name": str, "similar_to": str})
    assert 1 <= len(flowers) <= 24
    assert (flowers["name"].str.split("/").str[0] == flowers["similar_to"].str.split("/").str[0]).all()


def test_an_existing_archive_is_not_downloaded_again(project):
    folder, done = project
    assert re.search(r"cifar-10-binary.tar.gz.*\d MB from http://127", done.stdout)
    edit_study(folder, lambda study: study["datasets"]["cifar"].update(resize="stretch"))
    again = dvc(folder, "repro", "download@cifar")
    assert stages_run(again) == {"download@cifar"}
    assert " MB from " not in again.stdout
