"""What memory `features` takes for few and many images, and training a head beside its features.

    python -m benchmarks.memory [larger-than-memory]

With larger-than-memory a head is trained on more features than the machine has memory, a file of zeros that takes no
room on disk. POSIX only.
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
from stages.features import ArrayFile

SIZE = 64  # of images in pixels
# A process of its own stands between: the peak of a process counts from that of the one that starts it.
PEAK = """
import resource, subprocess, sys
subprocess.run([sys.executable, *sys.argv[1:]], check=True, stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""
TRAINED = "import sys, pathlib; from benchmarks.memory import trained; trained(pathlib.Path(sys.argv[1]))"


def prepared(folder: Path, images: int) -> None:
    """data/images/noise, as the stage `prepare` leaves it."""
    place = folder / "data/images/noise"
    place.mkdir(parents=True)
    random = np.random.default_rng(0)
    with (place / "images.npy").open("wb") as file:
        out = ArrayFile(file, (images, SIZE, SIZE, 3), "uint8")
        for _ in range(0, images, 1000):
            out.write(random.integers(0, 256, (min(1000, images), SIZE, SIZE, 3), np.uint8))
    table = pd.DataFrame({column: ["x"] * images for column in IMAGE_COLUMNS})
    table = table.assign(
        index=range(images), label=np.arange(images) % 2, **{"class": ["ab"[n % 2] for n in range(images)]}
    )
    table.to_csv(place / "table.csv", index=False)
    pd.DataFrame(columns=QUARANTINE_COLUMNS).to_csv(place / "quarantine.csv", index=False)
    write_json(place / "record.json", {"classes": ["a", "b"], "images_sha256": sha256_of(place / "images.npy")})


def peak(folder: Path, *arguments: str) -> int:
    """Bytes of memory that Python with these arguments takes at most."""
    command = [sys.executable, "-c", PEAK, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return int(done.stdout)


def usual(work: Path) -> None:
    rows, first = [("", "MB on disk", "MB at most", "of the first")], None
    for images in (2_000, 20_000):
        folder = work / f"memory-{images}"
        prepared(folder, images)
        weights = folder / "own.weights.h5"
        build_backbone("mobilenet_v2", SIZE).save_weights(weights)
        backbone = {"architecture": "mobilenet_v2", "weights": "own.weights.h5", "sha256": sha256_of(weights)}
        study = read_yaml(ROOT / "params.yaml") | {
            "datasets": {"noise": {"source": "archive", "image_size": SIZE, "url": "x.zip", "sha256": "0" * 64}},
            "tasks": {"two": {"dataset": "noise", "validation": 0.1, "test": 0.1}},
            "backbones": {"own": backbone},
            "networks": {},
            "features": {"low": {"dataset": "noise", "backbone": "own", "cut": "block_5_add"}},
            "heads": {"any": {"task": "two", "features": "low"}},
            "fine_tunes": {},
        }
        write_json(folder / "params.yaml", study)  # JSON is YAML too
        peak(folder, "-m", "stages.weights", "own")
        taken = peak(folder, "-m", "stages.features", "low")
        first = first or taken
        bytes_on_disk = (folder / "data/features/low/block_5_add/features.npy").stat().st_size
        rows.append(
            (f"features of {images:,} images of {SIZE}x{SIZE}", bytes_on_disk / 1e6, taken / 1e6, taken / first)
        )
    table("Memory of `features`", *rows)
    array = made(work / "features.npy", ROWS, WIDTH)
    bare = peak(work, "-c", "import benchmarks.memory")
    taken = peak(work, "-c", TRAINED, str(work / "features.npy"))
    table(
        "Memory of a head",
        ("", "MB", "of the features"),
        ("the features", array.nbytes / 1e6, 1.0),
        ("a process that has imported all", bare / 1e6, bare / array.nbytes),
        ("what training takes beyond that", (taken - bare) / 1e6, (taken - bare) / array.nbytes),
    )


def trained(file: Path) -> None:
    """Train a head on a file of features, for who watches this process."""
    array = np.load(file, mmap_mode="r")
    fitted(lambda: head_of([], array.shape[1]), examples_of(array), epochs=1)


def larger_than_memory(work: Path) -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    width = 25_088  # of VGG16's last layer at 224 pixels
    rows = int(1.25 * total) // (2 * width)
    file = work / "larger.npy"
    with file.open("wb") as opened:
        ArrayFile(opened, (rows, width), "float16")
        opened.truncate(opened.tell() + 2 * width * rows)
    start = time.perf_counter()
    peak(work, "-c", WATCHED, str(file))
    seconds = time.perf_counter() - start
    table(
        f"A head on {rows:,} x {width:,} features, an epoch",
        ("", "GB"),
        ("memory of the machine", total / 1e9),
        ("the features", 2 * width * rows / 1e9),
        ("memory that is not the file's own, at most", int((work / "anonymous").read_text()) / 1e9),
    )
    print(f"\n{seconds:.0f} seconds")


# Pages of the file that are in memory count as the process's too, though they are given up at any time.
WATCHED = """
import pathlib, sys, threading, time
from benchmarks.memory import trained
most = 0
def watch():
    global most
    while True:
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        most = max(most, int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) * 1024)
        time.sleep(0.1)
threading.Thread(target=watch, daemon=True).start()
trained(pathlib.Path(sys.argv[1]))
pathlib.Path("anonymous").write_text(str(most))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["larger-than-memory"])
    part = larger_than_memory if parser.parse_args().part else usual
    with tempfile.TemporaryDirectory() as work:
        part(Path(work))


if __name__ == "__main__":
    main()
