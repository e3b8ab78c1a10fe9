"""How often the screen of backbones contains the best one, and how long it takes.

    python -m benchmarks.screen winners <files> [--work folder]
    python -m benchmarks.screen time

`winners` needs a folder with the archives of DATASETS and the ImageNet weights of WEIGHTS, also in subfolders. On every
data set, each backbone has nearest neighbors, a logistic probe, a head, and a fine-tune of the layers from UPPER up.
Three backbones come of each weights file: as published, with random weights from UPPER up, and with random weights
throughout. The model of a backbone is its head or its fine-tune, whichever is better on validation. The winner has the
model with the highest test accuracy. `work` is where the study is run, by default a temporary folder; images, features
and models that are there are not computed again.

`time` runs twenty architectures with random weights on 500 images, and times `dvc repro` of probes, comparison and
report when the features are there.
"""

import argparse
import contextlib
import io
import os
import sys
import tempfile
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from benchmarks.heads import file_in, run, test_accuracy
from benchmarks.pipeline import DVC, timed
from benchmarks.tables import table
from stages import compare, evaluate
from stages.backbones.building import build_backbone
from stages.core.files import read_json, sha256_of
from stages.core.params import Params
from stages.core.yaml import read_yaml
from stages.evaluation.screen import FIRST
from stages.validation.study import validate_study
from tests.pipeline import ROOT, copy_of_project, write_study

DATASETS = {  # the archive, and how many images of a class are drawn from it
    "cifar10": ("cifar10_jpeg.zip", 80),
    "flowers": ("flowers_160.zip", 120),
    "birds": ("birds_cub30_160.zip", 60),
    "dogs": ("dogs_cats_160.zip", 250),
    "xrays": ("chest_xray_published_224.zip", 250),
}
WEIGHTS = {
    "vgg16": "vgg16_imagenet_notop.weights.h5",
    "mobilenet_v2": "mobilenet_v2_imagenet_notop.weights.h5",
}
UPPER = {"vgg16": ("block4_pool", "block5_conv1"), "mobilenet_v2": ("block_12_add", "block_13_expand")}
IMAGE_SIZE = 96
TRAINING = {
    "epochs": 15,
    "batch_size": 32,
    "optimizer": "adam",
    "learning_rate": 0.0001,
    "early_stopping": 4,
    "repeats": 1,
    "max_train_per_class": None,
}
TWENTY = [
    *("vgg16", "vgg19", "resnet50", "resnet101", "resnet50_v2", "resnet101_v2", "densenet121", "densenet169"),
    *("mobilenet", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "nasnet_mobile", "convnext_tiny"),
    *("efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_v2_b0", "efficientnet_v2_b1"),
    "convnext_small",
]


def write_backbones(files: Path, folder: Path) -> dict[str, dict[str, str]]:
    """The entries of the backbones; weights that are partly or wholly random are written into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    backbones = {}
    for architecture, file in WEIGHTS.items():
        published = file_in(files, file)
        for name in ("published", "random-above", "random"):
            path = published if name == "published" else folder / f"{architecture}-{name}.weights.h5"
            if not path.exists():
                keras.utils.set_random_seed(0)
                model = build_backbone(architecture, IMAGE_SIZE)
                if name == "random-above":
                    first = [layer.name for layer in model.layers].index(UPPER[architecture][1])
                    untrained = [layer.get_weights() for layer in model.layers]
                    model.load_weights(published)
                    for layer, weights in list(zip(model.layers, untrained, strict=True))[first:]:
                        layer.set_weights(weights)
                model.save_weights(path)
            entry = {"architecture": architecture, "weights": str(path.resolve()), "sha256": sha256_of(path)}
            backbones[f"{architecture.replace('_', '-')}-{name}"] = entry
    return backbones


def draw(files: Path, name: str, folder: Path) -> dict[str, Any]:
    """Write images of each class, drawn from an archive without its published split; the entry of the data set."""
    folder.mkdir(parents=True, exist_ok=True)
    path, (source, count) = folder / f"{name}.zip", DATASETS[name]
    classes = defaultdict(list)
    with zipfile.ZipFile(file_in(files, source)) as archive, zipfile.ZipFile(path, "w") as drawn:
        for image in sorted(archive.namelist()):
            if not image.endswith("/"):
                classes[Path(image).parent.name].append(image)
        random = np.random.default_rng(0)
        for label, images in classes.items():
            for image in random.permutation(images)[:count]:
                # A date of its own would give the zip another checksum each time.
                drawn.writestr(zipfile.ZipInfo(f"{label}/{'-'.join(Path(image).parts)}"), archive.read(image))
    return {"source": "archive", "url": str(path), "sha256": sha256_of(path), "image_size": IMAGE_SIZE}


def study_of(files: Path, folder: Path) -> dict[str, Any]:
    """The study of `winners`."""
    study = {
        "seed": 0,
        "margin": 1,
        "datasets": {name: draw(files, name, folder / "images") for name in DATASETS},
        "folders": {},
        "tasks": {name: {"dataset": name, "validation": 0.2, "test": 0.4} for name in DATASETS},
        "backbones": write_backbones(files, folder / "weights"),
        **{section: {} for section in ("networks", "features", "heads", "probes", "fine_tunes")},
        "training": TRAINING,
    }
    study["tasks"]["xrays"] |= {"group": r"(person\d+|IM-\d+)"}
    for task in study["tasks"]:
        for backbone, entry in study["backbones"].items():
            name, cut = f"{task}-{backbone}", UPPER[entry["architecture"]][0]
            common = {"dataset": task, "backbone": backbone}
            study["features"][name] = {**common, "cut": "top", "pooling": "average"}
            study["features"][f"{name}-below"] = {**common, "cut": cut}
            for ending, kind in (("knn", "nearest_neighbors"), ("linear", "logistic")):
                study["probes"][f"{name}-{ending}"] = {"task": task, "features": name, "kind": kind}
            study["heads"][f"{name}-head"] = {
                **{"task": task, "features": name, "epochs": 100, "learning_rate": 0.001},
                **{"schedule": "cosine", "early_stopping": None},
            }
            study["fine_tunes"][f"{name}-tuned"] = {
                **common,
                **{"task": task, "head": f"{name}-head", "features": f"{name}-below"},
                "unfreeze": UPPER[entry["architecture"]][1],
            }
    _, problems = validate_study(study)
    if problems:
        raise SystemExit("\n".join(problems))
    return study


def winners(files: Path, folder: Path) -> None:
    """Run the study in the working folder and print the table."""
    study = study_of(files, folder)
    Path("params.yaml").write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    params = Params(study)
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data/margin").write_text("1\n", encoding="utf-8")
    for stage, section, output in (
        ("download", "datasets", "data/raw"),
        ("prepare", "datasets", "data/images"),
        ("split", "tasks", "data/tasks"),
        ("weights", "backbones", "data/weights"),
        ("features", "features", "data/features"),
        ("probe", "probes", "models"),
        ("head", "heads", "models"),
        ("fine_tune", "fine_tunes", "models"),
    ):
        for name in study[section]:
            run(params, stage, name, f"{output}/{name}")
    with contextlib.redirect_stdout(sys.stderr):
        evaluate.main(params)
        compare.main(params)
    metrics, comparisons = read_json(Path("reports/metrics.json")), read_json(Path("reports/comparisons.json"))
    rows, places = [], []
    for task in study["tasks"]:
        best = {
            backbone: max(
                (f"{task}-{backbone}-head", f"{task}-{backbone}-tuned"),
                key=lambda model: metrics[model]["validation"]["accuracy"],
            )
            for backbone in study["backbones"]
        }
        accuracies = {backbone: test_accuracy(model, task) for backbone, model in best.items()}
        winner = max(accuracies, key=accuracies.__getitem__)
        ranking = [entry["backbone"] for entry in comparisons[task]["screen"]]
        places.append(ranking.index(winner) + 1)
        rows.append((task, winner, accuracies[winner], places[-1], ranking[0], accuracies[ranking[0]]))
    table(
        f"The winner of the full study in the screen of {len(study['backbones'])} backbones",
        ("data set", "winner", "test accuracy, %", "its place in the screen", "first in the screen", "its accuracy, %"),
        *rows,
        ("winner first", sum(place == 1 for place in places), "", "", "", ""),
        (f"among the first {FIRST}", sum(place <= FIRST for place in places), "", "", "", ""),
    )


def write_images(path: Path) -> dict[str, Any]:
    """Write fifty of the images of each digit into a zip; return the entry of the data set."""
    digits = load_digits()
    with zipfile.ZipFile(path, "w") as archive:
        for digit in range(10):
            for number, pixels in enumerate(digits.images[digits.target == digit][:50]):
                file = io.BytesIO()
                Image.fromarray((pixels * 15).astype(np.uint8)).save(file, "PNG")
                archive.writestr(f"{digit}/{number}.png", file.getvalue())
    return {"source": "archive", "url": str(path), "sha256": sha256_of(path), "image_size": IMAGE_SIZE}


def screen_time(work: Path) -> None:
    """Print the time of the screen of twenty backbones on 500 images."""
    folder = copy_of_project(work)
    (folder / "dvc.lock").unlink(missing_ok=True)
    (folder / "files").mkdir()
    study = read_yaml(ROOT / "studies/digits_class_groups.yaml")
    names = [architecture.replace("_", "-") for architecture in TWENTY]
    backbones = {}
    for name, architecture in zip(names, TWENTY, strict=True):
        path = folder / f"files/{name}.weights.h5"
        build_backbone(architecture, IMAGE_SIZE).save_weights(path)
        backbones[name] = {"architecture": architecture, "weights": f"files/{path.name}", "sha256": sha256_of(path)}
    write_study(
        folder,
        study
        | {
            "datasets": {"digits": write_images(folder / "files/digits.zip")},
            "tasks": {"ten": {"dataset": "digits", "validation": 0.2, "test": 0.2}},
            "backbones": backbones,
            **{"networks": {}, "heads": {}, "fine_tunes": {}},
            "features": {
                name: {"dataset": "digits", "backbone": name, "cut": "top", "pooling": "average"} for name in names
            },
            "probes": {
                f"{name}-{ending}": {"task": "ten", "features": name, "kind": kind}
                for name in names
                for ending, kind in (("knn", "nearest_neighbors"), ("linear", "logistic"))
            },
        },
    )
    features = timed(folder, *DVC, "repro", "features", "split")
    rest = timed(folder, *DVC, "repro")
    table(
        f"A screen of {len(TWENTY)} backbones on 500 images",
        ("`dvc repro` of", "seconds", "processor seconds"),
        ("features, weights on disk", *features),
        ("probes, comparison and report, features cached", *rest),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("winners", "time"))
    parser.add_argument("files", type=Path, nargs="?")
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    if given.part == "winners" and given.files is None:
        parser.error("winners needs a folder with images and weights")
    with tempfile.TemporaryDirectory() as temporary:
        if given.part == "time":
            screen_time(Path(temporary))
            return
        files, folder = given.files.resolve(), (given.work or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        winners(files, folder)


if __name__ == "__main__":
    main()
