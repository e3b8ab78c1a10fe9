"""Memory of the stage `features` for few and for many images, and of training a head relative to its features.

    python -m benchmarks.memory [larger-than-memory]

With `larger-than-memory`, a head is trained on more features than fit into the memory of the machine: a sparse file of
zeros that takes no space on disk. POSIX only.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd

from benchmarks.tables import table
from benchmarks.training import ROOT, ROWS, WIDTH, examples_of, fitted, head_of, made
from stages.artifacts.images import IMAGE_COLUMNS, QUARANTINE_COLUMNS
from stages.backbones.building import build_backbone
from stages.core.files import sha256_of, write_json
from stages.core.yaml import read_yaml

SIZE = 64  # of images in pixels
# Measured in a process between: the peak of a process includes that of the process which forks it.
PEAK = """
import resource, subprocess, sys
subprocess.run([sys.executable, *sys.argv[1:]], check=True, stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""
TRAIN_HEAD = "import sys, pathlib; from benchmarks.memory import train_head; train_head(pathlib.Path(sys.argv[1]))"


def write_prepared(folder: Path, images: int) -> None:
    """Write data/images/noise as the stage `prepare` does; images: a multiple of 1,000."""
    dataset = folder / "data/images/noise"
    dataset.mkdir(parents=True)
    random = np.random.default_rng(0)
    pixels = np.lib.format.open_memmap(dataset / "images.npy", "w+", np.uint8, (images, SIZE, SIZE, 3))
    for start in range(0, images, 1000):
        pixels[start : start + 1000] = random.integers(0, 256, (1000, SIZE, SIZE, 3), np.uint8)
    pixels.flush()
    table = pd.DataFrame({column: ["x"] * images for column in IMAGE_COLUMNS})
    table = table.assign(
        index=range(images), label=np.arange(images) % 2, **{"class": ["ab"[n % 2] for n in range(images)]}
    )
    table.to_csv(dataset / "table.csv", index=False)
    pd.DataFrame(columns=QUARANTINE_COLUMNS).to_csv(dataset / "quarantine.csv", index=False)
    write_json(dataset / "record.json", {"classes": ["a", "b"], "images_sha256": sha256_of(dataset / "images.npy")})


def peak(folder: Path, *arguments: str) -> int:
    """Return the peak memory of Python with these arguments, in bytes."""
    command = [sys.executable, "-c", PEAK, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(result.stderr)
    return int(result.stdout)


def measure_stages(work: Path) -> None:
    rows, first = [("", "MB on disk", "MB at most", "of the first")], None
    for images in (2_000, 20_000):
        folder = work / f"memory-{images}"
        write_prepared(folder, images)
        weights = folder / "own.weights.h5"
        build_backbone("mobilenet_v2", SIZE).save_weights(weights)
        backbone = {"architecture": "mobilenet_v2", "weights": "own.weights.h5", "sha256": sha256_of(weights)}
        study = read_yaml(ROOT / "params.yaml") | {
            "datasets": {"noise": {"source": "archive", "image_size": SIZE, "url": "x.zip", "sha256": "0" * 64}},
            "tasks": {"two": {"dataset": "noise", "validation": 0.1, "test": 0.1}},
            "backbones": {"own": backbone},
            "networks": {},
            "probes": {},
            "features": {"low": {"dataset": "noise", "backbone": "own", "cut": "block_5_add"}},
            "heads": {"any": {"task": "two", "features": "low"}},
            "fine_tunes": {},
        }
        write_json(folder / "params.yaml", study)  # JSON is valid YAML
        peak(folder, "-m", "stages.weights", "own")
        used = peak(folder, "-m", "stages.features", "low")
        first = first or used
        bytes_on_disk = (folder / "data/features/low/block_5_add/features.npy").stat().st_size
        rows.append((f"features of {images:,} images of {SIZE}x{SIZE}", bytes_on_disk / 1e6, used / 1e6, used / first))
    table("Memory of `features`", *rows)
    array = made(work / "features.npy", ROWS, WIDTH)
    bare = peak(work, "-c", "import benchmarks.memory")
    used = peak(work, "-c", TRAIN_HEAD, str(work / "features.npy"))
    table(
        "Memory of a head",
        ("", "MB", "of the features"),
        ("the features", array.nbytes / 1e6, 1.0),
        ("a process that has imported all", bare / 1e6, bare / array.nbytes),
        ("what training takes beyond that", (used - bare) / 1e6, (used - bare) / array.nbytes),
    )


def train_head(file: Path) -> None:
    """Train a head on a file of features; the processes whose memory is measured call this."""
    array = np.load(file, mmap_mode="r")
    fitted(lambda: head_of([], array.shape[1]), examples_of(array), epochs=1)


def larger_than_memory(work: Path) -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    width = 25_088  # the last layer of VGG16 at 224 pixels
    rows = int(1.25 * total) // (2 * width)
    file = work / "larger.npy"
    np.lib.format.open_memmap(file, "w+", np.float16, (rows, width))  # a sparse file
    start = time.perf_counter()
    peak(work, "-c", TRAIN_AND_WATCH, str(file))
    seconds = time.perf_counter() - start
    table(
        f"A head on {rows:,} x {width:,} features, an epoch",
        ("", "GB"),
        ("memory of the machine", total / 1e9),
        ("the features", 2 * width * rows / 1e9),
        ("memory that is not the file's own, at most", int((work / "anonymous").read_text()) / 1e9),
    )
    print(f"\n{seconds:.0f} seconds")


# Anonymous memory only: the pages of the file that are in memory count too, but the system can drop them at any time.
TRAIN_AND_WATCH = """
import pathlib, sys, threading, time
from benchmarks.memory import train_head
most = 0
def watch():
    global most
    while True:
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        most = max(most, int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) * 1024)
        time.sleep(0.1)
threading.Thread(target=watch, daemon=True).start()
train_head(pathlib.Path(sys.argv[1]))
pathlib.Path("anonymous").write_text(str(most))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["larger-than-memory"])
    part = larger_than_memory if parser.parse_args().part else measure_stages
    with tempfile.TemporaryDirectory() as work:
        part(Path(work))


if __name__ == "__main__":
    main()
