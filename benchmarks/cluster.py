"""A study on a Ray cluster of nodes with one core each, on this machine: killed workers, and the speed of two nodes.

    python -m benchmarks.cluster [--models 40] [--kills 50] [speed | kills ...]

`speed` runs the study on one node and on two. `kills` runs it on two nodes and kills workers at random times, again
until there are enough kills. Both compare the artifacts with those of `dvc repro` with one thread: all files of data
and models, but for measured times. Needs requirements-ray.txt, and two idle cores.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
from ray.cluster_utils import Cluster

from benchmarks.pipeline import DEFAULT, DVC, project, study_of
from benchmarks.tables import table
from stages.core.files import sha256_of
from tests.pipeline import commit, run, write_study

ONE_THREAD = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"), "1")
MOST_KILLS = 5  # of one stage in a run: after more, it fails
LONGEST_PAUSE = 24  # seconds between two kills


def copy_of_study(work: Path, name: str, models: int) -> Path:
    """Return a project with a study of so many models: a network, probes and heads on its features. It has a remote."""
    study = study_of(DEFAULT)
    cached = {"task": "digits-b", "features": "some"}
    study |= {
        "networks": {"base": study["networks"]["a-scratch"] | {"epochs": 1, "repeats": 1}},
        "features": {"some": study["features"]["b-flatten"] | {"backbone": "base"}},
        "probes": {f"ridge-{n:02}": {**cached, "l2": [0.01 * (n + 1)]} for n in range(models // 2)},
        "heads": {f"head-{n:02}": {**cached, "learning_rate": 1e-4 * (n + 1)} for n in range(models - 1 - models // 2)},
        "fine_tunes": {},
    }
    folder = project(work, name, DEFAULT)
    write_study(folder, study)
    run(folder, *DVC, "remote", "add", "-d", "team", str(work / f"{name}-storage"))
    commit(folder)
    return folder


def artifacts(folder: Path) -> dict[str, str]:
    """The checksums of what the stages wrote, but for measured times."""
    files = [path for root in ("data", "models") for path in (folder / root).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): sha256_of(path) for path in files if "costs" not in path.parts}


def nodes(work: Path, name: str, count: int) -> Cluster:
    """Start nodes, each with a home of its own for its clones."""
    homes = [work / f"{name}-home-{number}" for number in range(count)]
    for home in homes:
        home.mkdir()
    own = [{"num_cpus": 1, "env_vars": {"HOME": str(home)}} for home in homes]
    cluster = Cluster(initialize_head=True, head_node_args={**own[0], "include_dashboard": False})
    for arguments in own[1:]:
        cluster.add_node(**arguments)
    return cluster


def on_nodes(work: Path, name: str, count: int, options: argparse.Namespace, kills: int = 0) -> tuple[Path, float, int]:
    """Run the study on so many nodes, and kill workers; return its folder, its seconds and the number of kills."""
    folder, killed = copy_of_study(work, name, options.models), Counter()
    cluster = nodes(work, name, count)
    try:
        start = time.perf_counter()
        command = [sys.executable, "-m", "stages.run", "--address", cluster.address]
        with (work / f"{name}.log").open("w") as log:
            process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None:
            time.sleep(random.uniform(0, LONGEST_PAUSE) if kills else 0.2)
            with suppress(psutil.NoSuchProcess):  # it has ended in the meantime
                names = {child: child.name() for child in psutil.Process().children(recursive=True)}
                workers = [child for child, stage in names.items() if "@" in stage and killed[stage] < MOST_KILLS]
                if killed.total() < kills and workers:
                    worker = random.choice(workers)
                    worker.kill()
                    killed[names[worker]] += 1
        seconds = time.perf_counter() - start
    finally:
        cluster.shutdown()
    if process.returncode:
        sys.exit((work / f"{name}.log").read_text()[-3000:])
    return folder, seconds, killed.total()


def compare(work: Path, options: argparse.Namespace, runs: dict[str, tuple[Path, float, int]]) -> list[tuple]:
    """Compare runs with `dvc repro` in a copy; returns the rows of a table."""
    reference = copy_of_study(work, "reference", options.models)
    subprocess.run([*DVC, "repro", "--quiet"], cwd=reference, env={**os.environ, **ONE_THREAD}, check=True)
    expected, rows = artifacts(reference), []
    for name, (folder, seconds, killed) in runs.items():
        own = artifacts(folder)
        wrong = [path for path in expected.keys() | own.keys() if own.get(path) != expected.get(path)]
        again = run(folder, *DVC, "repro").stdout.count("Running stage")
        rows.append((name, seconds, killed, len(expected), len(wrong), again))
        print(*sorted(wrong)[:20], sep="\n", file=sys.stderr)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help="speed, kills")
    parser.add_argument("--models", type=int, default=40)
    parser.add_argument("--kills", type=int, default=50)
    options = parser.parse_args()
    columns = ("", "seconds", "kills", "artifacts", "wrong or missing", "stages that `dvc repro` runs afterwards")
    with tempfile.TemporaryDirectory() as folder:
        work, runs = Path(folder), {}
        if "speed" in (options.parts or ["speed"]):
            for count, name in ((1, "one node"), (2, "two nodes")):
                runs[name] = on_nodes(work, f"on-{count}", count, options)
        if "kills" in (options.parts or ["kills"]):
            number, left = 0, options.kills
            while left:
                number += 1
                name = f"two nodes with kills, run {number}"
                runs[name] = on_nodes(work, f"killed-{number}", 2, options, left)
                left -= runs[name][2]
        table(f"A study of {options.models} models on a Ray cluster", columns, *compare(work, options, runs))
        if "one node" in runs:
            print(f"\nTwo nodes are {runs['one node'][1] / runs['two nodes'][1]:.2f} times as fast as one.")


if __name__ == "__main__":
    main()
