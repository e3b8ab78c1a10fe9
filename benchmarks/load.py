"""Runs a study of forty models on 20,000 images on two cores with 4 GB of memory, and measures time and memory.

    python -m benchmarks.load [--images 20000] [--gigabytes 4]

The images are synthetic: each of ten classes has a pattern, shifted and with noise. Everything is written to a
temporary folder. POSIX only. A Linux control group limits the memory of all processes together if the user may create
one (root); otherwise each process has the limit.
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
    """Write a zip of this many PNG files, <class>/<number>.png."""
    random = np.random.default_rng(0)
    patterns = random.integers(0, 256, (CLASSES, SIZE, SIZE, 3), np.uint8)
    patterns = [
        np.asarray(Image.fromarray(pattern).filter(ImageFilter.GaussianBlur(3)), np.float32) for pattern in patterns
    ]
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            kind = number % CLASSES
            shifted = np.roll(patterns[kind], random.integers(-4, 5, 2), (0, 1))
            pixels = (shifted + random.normal(0, 40, shifted.shape)).clip(0, 255).astype(np.uint8)
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            archive.writestr(f"class-{kind}/{number:05}.png", file.getvalue())


def study_of(archive: Path) -> dict:
    """Return a study of forty models: eight networks, sixteen probes, eight heads, eight fine-tunes."""
    common = {"dataset": "synthetic", "task": "ten", "backbone": "base"}
    few = {"max_train_per_class": 200, "epochs": 2}
    cached = {"task": "ten", "features": "cuts"}
    probes = {
        f"ridge-{number:02}": {**cached, "cut": CUTS[1 + number % 2], "max_train_per_class": 50 * (number + 1)}
        for number in range(16)
    }
    heads = {
        f"dense-{number}": {**cached, "cut": CUTS[1 + number % 2], "hidden": [32 * (number + 1)], "repeats": 2}
        for number in range(8)
    }
    return read_yaml(ROOT / "params.yaml") | {
        "datasets": {
            "synthetic": {"source": "archive", "url": str(archive), "sha256": sha256_of(archive), "image_size": SIZE}
        },
        "folders": {},
        "tasks": {"ten": {"dataset": "synthetic", "validation": 0.1, "test": 0.2}},
        "backbones": {"new": {"architecture": "four_conv", "weights": "random"}},
        "networks": {
            "base": {**common, "backbone": "new", "max_train_per_class": 500, "epochs": 3},
            **{
                f"scratch-{number}": {**common, **few, "backbone": "new", "dropout": number / 10} for number in range(4)
            },
            **{f"network-{number}": {**common, **few, "learning_rate": 0.0003 * (number + 1)} for number in range(3)},
        },
        "features": {"cuts": {"dataset": "synthetic", "backbone": "base", "cut": CUTS}},
        "heads": heads,
        "probes": probes,
        "fine_tunes": {
            f"tuned-{number}": {**common, **few, "head": f"dense-{number}", "features": "cuts", "unfreeze": "conv3"}
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
    """Limit memory; yield a description, a function that limits the calling process, and one that returns the peak."""
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
        # The file cache counts too, but the system drops it before it ends a process.
        yield "of all processes (control group)", join, lambda: int((group / f"memory.{peak}").read_text())
    finally:
        group.rmdir()


def confined(join: Callable[[], None]) -> None:
    """Restrict this process, and the processes it starts, to CORES cores and to the memory limit."""
    join()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def seconds_of(lines: list[tuple[float, str]], total: float) -> dict[str, list[float]]:
    """Return, for each kind of stage, the seconds from the start of each stage to the start of the next one."""
    starts = [(second, match[1]) for second, line in lines if (match := re.match(r"Running stage '(\w+)", line))]
    ends = [second for second, _ in starts[1:]] + [total]
    seconds = defaultdict(list)
    for (start, stage), end in zip(starts, ends, strict=True):
        seconds[stage].append(end - start)
    return seconds


def seconds_to_load(page: Path) -> float | None:
    """Return the seconds until the page is loaded in Chromium, or None without Chromium."""
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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work, limited(int(options.gigabytes * 2**30)) as (how, join, peak):
        folder = Path(work, "project")
        folder.mkdir()
        copy_of_project(folder)
        (folder / "dvc.lock").unlink(missing_ok=True)
        archive = Path(work, "images.zip")
        write_images(archive, options.images)
        study = study_of(archive)
        write_study(folder, study)
        models = sum(len(study[section]) for section in ("networks", "probes", "heads", "fine_tunes"))
        total, lines = repro(folder, partial(confined, join))
        largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        again, _ = repro(folder, partial(confined, join))
        by_stage = seconds_of(lines, total)
        page = folder / "reports/report.html"
        table(
            f"{models} models on {options.images:,} images of {SIZE}x{SIZE}, {CORES} cores",
            ("stage", "stages", "seconds", "longest"),
            *((stage, len(seconds), sum(seconds), max(seconds)) for stage, seconds in by_stage.items()),
            ("all", sum(map(len, by_stage.values())), total, ""),
            ("`dvc repro` with nothing to do", "", again, ""),
        )
        total_peak, seconds = peak(), seconds_to_load(page)
        table(
            f"Memory, limited to {options.gigabytes:g} GB {how}, and the page",
            ("", ""),
            ("peak GB of all processes and the file cache", total_peak / 2**30 if total_peak else "unknown"),
            ("GB of the largest process", largest / 2**30),
            ("MB of reports/report.html", page.stat().st_size / 1e6),
            ("seconds until Chromium has loaded it", seconds if seconds else "Chromium is not installed"),
        )


if __name__ == "__main__":
    main()
