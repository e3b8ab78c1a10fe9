"""Whether a study of forty models on 20,000 images runs through on two cores and 4 GB of memory, and what it takes.

    python -m benchmarks.load [--images 20000] [--gigabytes 4]

The images are made up: a pattern for each of ten classes, moved about in noise. All is written to a temporary folder.
POSIX only; where control groups of Linux may be made (as root), they limit the memory of all processes together, else
each process has that limit for itself.
"""

import argparse
import contextlib
import io
import os
import re
import resource
import shutil
import sys
import tempfile
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.pipeline import repro
from benchmarks.tables import table
from stages.core.files import sha256_of
from stages.core.yaml import read_yaml
from tests.pipeline import ROOT, copy_of_project, write_study

CORES, SIZE, CLASSES = 2, 32, 10
CUTS = ["pool1", "flatten", "fc1"]


def write_images(path: Path, count: int) -> None:
    """A zip of so many PNG files, <class>/<number>.png."""
    random = np.random.default_rng(0)
    patterns = random.integers(0, 256, (CLASSES, SIZE, SIZE, 3), np.uint8)
    patterns = [np.asarray(Image.fromarray(each).filter(ImageFilter.GaussianBlur(3)), np.float32) for each in patterns]
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            kind = number % CLASSES
            moved = np.roll(patterns[kind], random.integers(-4, 5, 2), (0, 1))
            pixels = (moved + random.normal(0, 40, moved.shape)).clip(0, 255).astype(np.uint8)
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            archive.writestr(f"class-{kind}/{number:05}.png", file.getvalue())


def study_of(archive: Path) -> dict:
    """A study of forty models: eight networks, sixteen ridge and eight dense heads, eight fine-tunes."""
    on = {"dataset": "made-up", "task": "ten", "backbone": "base"}
    few = {"max_train_per_class": 200, "epochs": 2}
    cached = {"task": "ten", "features": "cuts"}
    heads = {
        **{
            f"ridge-{number:02}": {
                **cached,
                "cut": CUTS[1 + number % 2],
                "kind": "ridge",
                "max_train_per_class": 50 * (number + 1),
            }
            for number in range(16)
        },
        **{
            f"dense-{number}": {**cached, "cut": CUTS[1 + number % 2], "hidden": [32 * (number + 1)], "repeats": 2}
            for number in range(8)
        },
    }
    return read_yaml(ROOT / "params.yaml") | {
        "datasets": {
            "made-up": {"source": "archive", "url": str(archive), "sha256": sha256_of(archive), "image_size": SIZE}
        },
        "folders": {},
        "tasks": {"ten": {"dataset": "made-up", "validation": 0.1, "test": 0.2}},
        "backbones": {"new": {"architecture": "four_conv", "weights": "random"}},
        "networks": {
            "base": {**on, "backbone": "new", "max_train_per_class": 500, "epochs": 3},
            **{f"scratch-{number}": {**on, **few, "backbone": "new", "dropout": number / 10} for number in range(4)},
            **{f"whole-{number}": {**on, **few, "learning_rate": 0.0003 * (number + 1)} for number in range(3)},
        },
        "features": {"cuts": {"dataset": "made-up", "backbone": "base", "cut": CUTS}},
        "heads": heads,
        "fine_tunes": {
            f"tuned-{number}": {**on, **few, "head": f"dense-{number}", "features": "cuts", "unfreeze": "conv3"}
            for number in range(8)
        },
        "training": {
            "epochs": 2,
            "batch_size": 64,
            "optimizer": "adam",
            "learning_rate": 0.001,
            "early_stopping": None,
            "repeats": 1,
            "max_train_per_class": None,
        },
    }


@contextlib.contextmanager
def limited(memory: int) -> Iterator[tuple[str, Callable[[], None], Callable[[], int | None]]]:
    """How memory is limited in words, what a process calls to be limited, and what tells the peak of all of them."""
    base = Path("/sys/fs/cgroup")
    version_1 = (base / "memory").is_dir()
    group = base / ("memory" if version_1 else "") / f"load-{os.getpid()}"
    limit, peak = ("limit_in_bytes", "max_usage_in_bytes") if version_1 else ("max", "peak")
    try:
        group.mkdir()
        (group / f"memory.{limit}").write_text(str(memory))
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        own = (memory, resource.getrlimit(resource.RLIMIT_DATA)[1])
        yield "of each process (RLIMIT_DATA)", lambda: resource.setrlimit(resource.RLIMIT_DATA, own), lambda: None
        return
    try:
        join = lambda: (group / "cgroup.procs").write_text(str(os.getpid()))  # noqa: E731
        # What the system keeps of files counts too, but is given up before the limit ends a process.
        yield "of all processes (control group)", join, lambda: int((group / f"memory.{peak}").read_text())
    finally:
        group.rmdir()


def confined(join: Callable[[], None]) -> None:
    """Keep this process, and all it starts, to few cores and within the limit."""
    join()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def seconds_of(lines: list[tuple[float, str]], total: float) -> dict[str, list[float]]:
    """Of each kind of stage, the seconds from the start of each of its stages to that of the next one."""
    begun = [(second, found[1]) for second, line in lines if (found := re.match(r"Running stage '(\w+)", line))]
    ends = [second for second, _ in begun[1:]] + [total]
    found = defaultdict(list)
    for (second, stage), end in zip(begun, ends, strict=True):
        found[stage].append(end - second)
    return found


def opened(page: Path) -> float | None:
    """The seconds until the page is loaded in Chromium; None where there is none."""
    if not (chromium := shutil.which("chromium")):
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page()
        start = time.perf_counter()
        tab.goto(page.as_uri(), wait_until="load")
        tab.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        seconds = time.perf_counter() - start
        browser.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--gigabytes", type=float, default=4)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work, limited(int(given.gigabytes * 2**30)) as (how, join, peak):
        folder = Path(work, "project")
        folder.mkdir()
        copy_of_project(folder)
        (folder / "dvc.lock").unlink(missing_ok=True)
        archive = Path(work, "images.zip")
        write_images(archive, given.images)
        study = study_of(archive)
        write_study(folder, study)
        models = sum(len(study[section]) for section in ("networks", "heads", "fine_tunes"))
        total, lines = repro(folder, partial(confined, join))
        largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        again, _ = repro(folder, partial(confined, join))
        found = seconds_of(lines, total)
        page = folder / "reports/report.html"
        table(
            f"{models} models on {given.images:,} images of {SIZE}x{SIZE}, {CORES} cores",
            ("stage", "stages", "seconds", "of the longest"),
            *((stage, len(seconds), sum(seconds), max(seconds)) for stage, seconds in found.items()),
            ("all", sum(map(len, found.values())), total, ""),
            ("`dvc repro` with nothing to do", "", again, ""),
        )
        of_all, seconds = peak(), opened(page)
        table(
            f"Memory, limited to {given.gigabytes:g} GB {how}, and the page",
            ("", ""),
            ("GB of all processes and the files they read, at most", of_all / 2**30 if of_all else "not known"),
            ("GB of the largest process", largest / 2**30),
            ("MB of reports/report.html", page.stat().st_size / 1e6),
            ("seconds until Chromium shows it", seconds if seconds else "there is no Chromium"),
        )


if __name__ == "__main__":
    main()
