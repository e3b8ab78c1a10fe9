"""Cost of the pipeline itself: start of stages, `dvc repro` with nothing to do, a study by stage, stages in parallel.

    python -m benchmarks.pipeline [--rounds 3] [--jobs N] [start | no-op | stages | probes | threads | side-by-side ...]
    python -m benchmarks.pipeline --run <folder> edit

The second command changes a quick and then a slow head of a finished run of studies/cifar10_cut_layers.yaml, in that
folder, and times `dvc repro`. Everything else runs in temporary copies of the project. There are two studies: the
default study, and one of many ridge probes on digits. Probes take almost no time, so its time is that of the
pipeline. Repeated commands run in turns, and the tables have medians over the rounds. Processor seconds are those of
all threads: other work on the machine changes them less than seconds. `side-by-side` needs requirements-ray.txt.
"""

import argparse
import os
import pstats
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from pathlib import Path

from benchmarks.tables import table
from stages.core.files import read_json, sha256_of
from stages.core.stage_graph import CORES
from stages.core.yaml import read_yaml
from tests.pipeline import ROOT, copy_of_project, run, write_study

PROBES = 30
PROBE_KINDS = "ridge", "logistic", "nearest_neighbors"
EDITED = ["data9-pool5", "data8-pool3"]
STUDIES = DEFAULT, MANY = "the default study", f"{PROBES} ridge probes"
PYTHON = [sys.executable, "-c"]
DVC = [sys.executable, "-m", "dvc"]
LOAD = "import sys, stages.{}; from stages.core.params import Params; Params.read()"
BARE = {"python": "pass", "import tensorflow": "import tensorflow", "import keras": "import keras"}
KERAS = "import keras"
ENVIRONMENT = {
    **os.environ,
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
}

# The functions of DVC in which a `dvc repro` with nothing to do spends its time; they do not call each other.
SPENT_ON = {
    "reading YAML": ("utils/serialize/_yaml.py", "parse_yaml"),
    "checking whether files changed": ("dvc/output.py", "status"),
    "file locks": ("dvc/rwlock.py", "_edit_rwlock"),
}

# Prints how many threads do more than a tenth of the work, for each library. Linux only.
BUSY = """
import pathlib, sys
import keras, numpy as np, onnxruntime, onnx
from onnx import TensorProto, helper

def spent():
    ticks = {}
    for task in pathlib.Path("/proc/self/task").iterdir():
        fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
        ticks[task.name] = int(fields[11]) + int(fields[12])
    return ticks

def busy(work):
    work()  # compiles
    before = spent()
    for _ in range(8):
        work()
    ticks = [after - before.get(task, 0) for task, after in spent().items()]
    return sum(own > 0.1 * sum(ticks) for own in ticks)

images, labels = np.random.rand(128, 32, 32, 64).astype("f"), np.zeros((128, 4))
network = keras.Sequential([keras.Input((32, 32, 64)), *(keras.layers.Conv2D(64, 3) for _ in range(3)),
                            keras.layers.Flatten(), keras.layers.Dense(4)])
network.compile("adam", "mse")
matrix = np.random.rand(2000, 2000).astype("f")
kind = helper.make_tensor_value_info
graph = helper.make_graph([helper.make_node("MatMul", ["a", "a"], ["b"])], "product",
                          [kind("a", TensorProto.FLOAT, [2000, 2000])], [kind("b", TensorProto.FLOAT, [2000, 2000])])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
print(busy(lambda: network.train_on_batch(images, labels)), busy(lambda: matrix @ matrix),
      busy(lambda: session.run(None, {"a": matrix})))
"""
THREADS = ["OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"]


def timed(folder: Path, *command: str) -> tuple[float, float]:
    """Run a command; return its seconds and processor seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    result = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def in_turns(folder: Path, commands: dict[str, list[str]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return seconds and processor seconds of every round of every command, after a round that does not count."""
    times = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            measured = timed(folder, *command)
            if number:
                times[name].append(measured)
    return times


def medians(rounds: list[tuple[float, float]]) -> tuple[float, float]:
    seconds, processor = zip(*rounds, strict=True)
    return statistics.median(seconds), statistics.median(processor)


def modules() -> list[str]:
    """Return the modules of the stages, in the order of dvc.yaml."""
    names = re.findall(r"cmd: python -m stages\.(\w+)", (ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    return list(dict.fromkeys(names))


@cache
def starts(rounds: int) -> dict[str, list[tuple[float, float]]]:
    commands = {name: [*PYTHON, code] for name, code in BARE.items()}
    return in_turns(ROOT, commands | {module: [*PYTHON, LOAD.format(module)] for module in modules()}, rounds)


def start(rounds: int) -> None:
    times = starts(rounds)
    rows = [("", "seconds", "processor seconds", "imports TensorFlow", f"of {KERAS}")]
    for name, own_times in times.items():
        imports, ratio = "", ""
        if name in modules():
            code = LOAD.format(name) + "; print('tensorflow' in sys.modules)"
            imports = "yes" if "True" in run(ROOT, *PYTHON, code).stdout else "no"
            ratio = statistics.median(own[0] / keras[0] for own, keras in zip(own_times, times[KERAS], strict=True))
        rows.append((name, *medians(own_times), imports, ratio if imports == "yes" else ""))
    table("Until a stage starts its own work", *rows)


def study_of(name: str) -> dict:
    """Return the default study, or the one of many probes, as a mapping."""
    study = read_yaml(ROOT / "studies/digits_class_groups.yaml")
    if name == DEFAULT:
        return study
    probes = {
        f"probe-{number:02}": {"task": "digits-b", "features": "some", "l2": [0.01 * (number + 1)]}
        for number in range(PROBES)
    }
    return study | {
        "networks": {"base": study["networks"]["a-scratch"] | {"epochs": 2, "repeats": 1}},
        "features": {"some": study["features"]["b-flatten"] | {"backbone": "base"}},
        "heads": {},
        "probes": probes,
        "fine_tunes": {},
    }


def project(work: Path, name: str, study: str) -> Path:
    """Return a copy of the project with a study that has not run."""
    folder = work / name
    folder.mkdir()
    copy_of_project(folder)
    (folder / "dvc.lock").unlink(missing_ok=True)
    write_study(folder, study_of(study))
    return folder


def repro(folder: Path, prepare: Callable[[], None] | None = None) -> tuple[float, list[tuple[float, str]]]:
    """Run `dvc repro`; return its seconds and its lines, each with the second at which it was printed.

    prepare: called in the process before `dvc` starts.
    """
    lines, started = [], time.perf_counter()
    with subprocess.Popen(
        [*DVC, "repro"],
        cwd=folder,
        env=ENVIRONMENT,
        preexec_fn=prepare,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout:
            lines.append((time.perf_counter() - started, line.rstrip()))
    if process.returncode:
        sys.exit("\n".join([*(line for _, line in lines[-20:]), f"`dvc repro` ended with {process.returncode}"]))
    return time.perf_counter() - started, lines


@cache
def ran(work: Path, study: str) -> tuple[Path, float, list[tuple[float, str]]]:
    """Return a project whose study `dvc repro` has run: its folder, and the results of `repro`."""
    folder = project(work, "one-after-another-" + study.replace(" ", "-"), study)
    return folder, *repro(folder)


def no_op(work: Path, rounds: int) -> None:
    rows = [("", "stages", "seconds", "processor seconds")]
    spent = [("", *SPENT_ON, "the rest")]
    for study in STUDIES:
        folder, _, lines = ran(work, study)
        count = sum(line.startswith("Running stage") for _, line in lines)
        commands = {
            "python -c 'import dvc.repo'": [*PYTHON, "import dvc.repo"],
            "dvc --version": [*DVC, "--version"],
            "dvc repro --single-item report": [*DVC, "repro", "-s", "report"],
            "dvc repro": [*DVC, "repro"],
        }
        rows += [(name, count, *medians(times)) for name, times in in_turns(folder, commands, rounds).items()]
        spent.append((f"{study}, {count} stages", *shares_of(folder)))
    table("`dvc repro` with nothing to do", *rows)
    table("Its time by activity, under a profiler", *spent)


def shares_of(folder: Path) -> list[str]:
    """Return the shares of the functions in SPENT_ON of the time of a `dvc repro`, and the rest."""
    file = folder.with_suffix(".profile")
    run(folder, sys.executable, "-m", "cProfile", "-o", str(file), "-m", "dvc", "repro", "--quiet")
    profile = pstats.Stats(str(file))
    shares = [
        sum(
            cumulative
            for (path, _, name), (_, _, _, cumulative, _) in profile.stats.items()
            if path.endswith(module) and name == function
        )
        / profile.total_tt
        for module, function in SPENT_ON.values()
    ]
    return [f"{share:.0%}" for share in [*shares, 1 - sum(shares)]]


def stages(work: Path, rounds: int) -> None:
    """Print the seconds of the first run of a study by stage.

    A stage prints its line when it ends. The time until the next stage starts is DVC's: hashing, the cache, dvc.lock.
    """
    folder, total, lines = ran(work, DEFAULT)
    started = {match[1]: second for second, line in lines if (match := re.match("Running stage '(.+)'", line))}
    ended = {}
    for name in started:
        prefix = name.replace("@", " ").replace("prepare_folder", "prepare") + ": "
        ended[name] = next(second for second, line in lines if line.startswith(prefix))
    next_start = dict(zip(started, [*list(started.values())[1:], total], strict=True))
    sums, first = defaultdict(lambda: [0, 0.0, 0.0, 0.0, 0.0, 0.0]), min(started.values())
    for name in started:
        kind = name.partition("@")[0]
        start_up = medians(starts(rounds)["prepare" if kind == "prepare_folder" else kind])[0]
        own, recorded = ended[name] - started[name], recorded_of(folder, name)
        parts = (1, next_start[name] - started[name], next_start[name] - ended[name], start_up, recorded)
        for column, part in enumerate((*parts, own - start_up - recorded)):
            sums[kind][column] += part
    sums["`dvc repro` before the first stage"] = ["", first, first, 0.0, 0.0, 0.0]
    totals = [sum(values[column] for values in sums.values()) for column in range(1, 6)]
    table(
        "The first run of the default study, by stage",
        ("stage", "runs", "seconds", "DVC", "start and import", "recorded as cost", "other work"),
        *((kind, *values) for kind, values in sums.items()),
        ("all", len(started), *totals),
        ("share", "", *(f"{part / totals[0]:.0%}" for part in totals)),
    )


def probes(work: Path) -> None:
    """Print the time of `dvc repro` of 30 probes of all kinds on cached features, and that of one of each kind."""
    folder = project(work, "probes", MANY)
    study = read_yaml(folder / "params.yaml")
    for number, probe in enumerate(study["probes"].values()):
        del probe["l2"]
        probe |= {"kind": PROBE_KINDS[number % len(PROBE_KINDS)], "max_train_per_class": 20 + number}
    write_study(folder, study)
    run(folder, *DVC, "repro", "--quiet", "features", "split")
    seconds, processor = timed(folder, *DVC, "repro", "probe")
    rows = [
        (f"`dvc repro` of {PROBES} probes", seconds, processor),
        ("of that, a probe", seconds / PROBES, processor / PROBES),
    ]
    for number, kind in enumerate(PROBE_KINDS):
        own = timed(folder, sys.executable, "-m", "stages.probe", f"probe-{number:02}")
        rows.append((f"{kind}, without DVC", *own))
    table("Probes on cached features", ("", "seconds", "processor seconds"), *rows)


def recorded_of(folder: Path, name: str) -> float:
    """Return the seconds of a stage in data/costs: of all repeats of a model, or of features."""
    kind, _, entry = name.partition("@")
    if kind == "features":
        return read_json(folder / f"data/costs/features/{entry}.json")["seconds"]
    if kind not in ("train", "probe", "head", "fine_tune"):
        return 0.0
    repeats = read_json(folder / f"models/{entry}/record.json")["repeats"]
    return repeats * read_json(folder / f"data/costs/models/{entry}.json")["seconds"]


def threads() -> None:
    rows = [("set to 1", "training in Keras", "product in NumPy", "product in ONNX Runtime")]
    for names in ([], *([name] for name in THREADS), THREADS):
        environment = {key: value for key, value in ENVIRONMENT.items() if key not in THREADS} | dict.fromkeys(
            names, "1"
        )
        result = subprocess.run([*PYTHON, BUSY], env=environment, capture_output=True, text=True, check=True)
        rows.append((", ".join(names) or "nothing", *result.stdout.split()))
    table(f"Threads at work, of {CORES} cores", *rows)


def side_by_side(work: Path, jobs: int) -> None:
    rows = [("", "one after another", f"side by side, {jobs} jobs", "ratio", "models with the same weights")]
    for study in STUDIES:
        folder, seconds, _ = ran(work, study)
        parallel = project(work, "side-by-side-" + study.replace(" ", "-"), study)
        command = [sys.executable, "-m", "stages.run", "--jobs", str(jobs)]
        start = time.perf_counter()
        run(parallel, *command)
        parallel_seconds = time.perf_counter() - start
        weights = sorted(path.relative_to(folder) for path in folder.glob("models/*/weights/*.h5"))
        same = sum(sha256_of(folder / path) == sha256_of(parallel / path) for path in weights)
        rows.append((study, seconds, parallel_seconds, parallel_seconds / seconds, f"{same} of {len(weights)}"))
        shutil.rmtree(parallel)
    table("Stages side by side, in seconds", *rows)


def edit(folder: Path) -> None:
    """Print the time of `dvc repro` after a change of the learning rate of a head, compared with its training."""
    rows = [("head", "its training, seconds", "`dvc repro`, seconds", "1.2 trainings and 10 seconds")]
    params = folder / "params.yaml"
    before = params.read_text(encoding="utf-8")
    for head in EDITED:
        study = read_yaml(params)
        study["heads"][head]["learning_rate"] = 0.99 * study["heads"][head].get("learning_rate", 0.001)
        write_study(folder, study)
        seconds, _ = timed(folder, *DVC, "repro")
        training = read_json(folder / f"data/costs/models/{head}.json")["seconds"]
        rows.append((head, training, seconds, 1.2 * training + 10))
    params.write_text(before, encoding="utf-8")
    run(folder, *DVC, "repro", "--quiet")  # from the run-cache
    table("One head of the CIFAR-10 study changed", *rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ["start", "no-op", "stages", "probes", "threads", "side-by-side"]
    parser.add_argument("parts", nargs="*", metavar="part", help=f"some of {', '.join(parts)}; with --run edit")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=max(2, CORES // 2))
    options = parser.parse_args()
    if options.run:
        edit(options.run)
        return
    if unknown := set(options.parts) - set(parts):
        parser.error(f"unknown part {', '.join(sorted(unknown))}. Parts: {', '.join(parts)}")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for part in options.parts or parts:
            {
                "start": lambda: start(options.rounds),
                "no-op": lambda: no_op(work, options.rounds),
                "stages": lambda: stages(work, options.rounds),
                "probes": lambda: probes(work),
                "threads": threads,
                "side-by-side": lambda: side_by_side(work, options.jobs),
            }[part]()


if __name__ == "__main__":
    main()
