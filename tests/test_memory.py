"""The memory of `prepare`, `split` and `features` does not grow with the number of images."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from stages import download, weights
from stages.backbones.building import build_backbone
from stages.core.files import sha256_of
from stages.core.params import Params

ROOT = Path(__file__).parents[1]
FEW, MANY, SIZE = 1_000, 7_000, 112
PIXELS = (MANY - FEW) * SIZE * SIZE * 3  # bytes: 226 MB
# The tables are in memory: some hundred bytes for each image.
TOLERANCE = 0.15 * PIXELS

LOAD_ALL_PIXELS = ["-c", "import numpy; numpy.load('data/images/noise/images.npy')"]
# Measured in a process between: the peak of a process includes that of the process which forks it.
PRINT_PEAK = """
import resource, subprocess, sys
subprocess.run([sys.executable, *sys.argv[1:]], check=True, stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak(folder: Path, *arguments: str) -> int:
    """The peak memory of Python with these arguments, or of the largest process that it starts, in bytes."""
    command = [sys.executable, "-c", PRINT_PEAK, *arguments]
    result = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    return int(result.stdout) * (1 if sys.platform == "darwin" else 1024)


def project(folder: Path, images: int) -> Path:
    """Create a folder with a study of this many small images of two classes."""
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (images, 6, 6, 3), np.uint8)
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for number, pixels in enumerate(noise):
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "BMP")
            archive.writestr(f"{'ab'[number % 2]}/{number}.bmp", file.getvalue())
    dataset = {"source": "archive", "image_size": SIZE, "url": "images.zip", "sha256": sha256_of(folder / "images.zip")}
    build_backbone("four_conv", SIZE).save_weights(folder / "own.weights.h5")
    own = {"architecture": "four_conv", "weights": "own.weights.h5", "sha256": sha256_of(folder / "own.weights.h5")}
    task = {"dataset": "noise", "validation": 0.1, "test": 0.2}
    study = YAML(typ="safe").load(ROOT / "params.yaml") | {
        "datasets": {"noise": dataset},
        "backbones": {"four-conv": {"architecture": "four_conv", "weights": "random"}, "own": own},
        "tasks": {"reported": task, "grouped": {**task, "near_duplicates": "group"}},
        "networks": {"net": {"dataset": "noise", "task": "reported", "backbone": "four-conv"}},
        "features": {"low": {"dataset": "noise", "backbone": "own", "cut": "conv1", "pooling": "average"}},
        **{section: {} for section in ("probes", "heads", "fine_tunes")},
    }
    YAML(typ="safe").dump(study, folder / "params.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        download.main(Params(study), "noise")
        weights.main(Params(study), "own")
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no resource module")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    folders = [project(tmp_path / str(images), images) for images in (FEW, MANY)]
    for stage in ("prepare", "noise"), ("split", "reported"), ("split", "grouped"), ("features", "low"):
        few, many = (peak(folder, "-m", f"stages.{stage[0]}", stage[1]) for folder in folders)
        assert many - few < TOLERANCE, stage
    # The method of measurement detects a process that holds all pixels.
    few, many = (peak(folder, *LOAD_ALL_PIXELS) for folder in folders)
    assert many - few > 5 * TOLERANCE
