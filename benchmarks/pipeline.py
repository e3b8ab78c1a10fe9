"""What the pipeline itself costs: start of the stages, `dvc repro` with nothing to do, a study by stage, side by side.

    python -m benchmarks.pipeline [--rounds 3] [--jobs N] [start | no-op | stages | threads | side-by-side ...]
    python -m benchmarks.pipeline --run <folder> edit

The second changes one head of a finished run of studies/cifar10_cut_layers.yaml, a quick and a slow one, and times
what `dvc repro` makes of it, in that folder. All else happens in copies of the project, which are deleted. Two
studies are run: the default one, and one of many ridge heads on digits, which do next to nothing, so that what is
seen is the pipeline. What is repeated takes turns, and the medians of the rounds are printed. Beside seconds stand
processor seconds, of all threads: other work on the machine changes those less.
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
from stages.core.yaml import read_yaml
from stages.side_by_side import CORES
from tests.pipeline import ROOT, copy_of_project, run, write_study

HEADS = 30
EDITED = ["data9-pool5", "data8-pool3"]
STUDIES = DEFAULT, MANY = "the default study", f"{HEADS} ridge heads"
PYTHON = [sys.executable, "-c"]
DVC = [sys.executable, "-m", "dvc"]
LOAD = "import sys, pathlib, stages.{}, stages.study; stages.study.load_study(pathlib.Path('params.yaml'))"
BARE = {"python": "pass", "import tensorflow": "import tensorflow", "import keras": "import keras"}
KERAS = "import keras"
ENVIRONMENT = {
    **os.environ,
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
}

# Functions of DVC in which a `dvc repro` with nothing to do spends its time; none calls another of them.
SPENT_ON = {
    "reading YAML": ("utils/serialize/_yaml.py", "parse_yaml"),
    "finding out whether files changed": ("dvc/output.py", "status"),
    "locks of files": ("dvc/rwlock.py", "_edit_rwlock"),
}

# What uses how many threads: those that do more than a tenth of the work. Linux only.
BUSY = """
import pathlib, sys
import keras, numpy as np, onnxruntime, onnx
from onnx import TensorProto, helper

def spent():
    found = {}
    for task in pathlib.Path("/proc/self/task").iterdir():
        fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
        found[task.name] = int(fields[11]) + int(fields[12])
    return found

def busy(work):
    work()  # compiles
    before = spent()
    for _ in range(8):
        work()
    ticks = [after - before.get(task, 0) for task, after in spent().items()]
    return sum(each > 0.1 * sum(ticks) for each in ticks)

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
    """Run a command; its seconds and processor seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def in_turns(folder: Path, commands: dict[str, list[str]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds and processor seconds of every round of every command, after a round that is not counted."""
    found = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            both = timed(folder, *command)
            if number:
                found[name].append(both)
    return found


def medians(rounds: list[tuple[float, float]]) -> tuple[float, float]:
    seconds, processor = zip(*rounds, strict=True)
    return statistics.median(seconds), statistics.median(processor)


def modules() -> list[str]:
    """The modules of the stages, in the order of dvc.yaml."""
    found = re.findall(r"cmd: python -m stages\.(\w+)", (ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    return list(dict.fromkeys(found))


@cache
def starts(rounds: int) -> dict[str, list[tuple[float, float]]]:
    commands = {name: [*PYTHON, code] for name, code in BARE.items()}
    return in_turns(ROOT, commands | {module: [*PYTHON, LOAD.format(module)] for module in modules()}, rounds)


def start(rounds: int) -> None:
    found = starts(rounds)
    rows = [("", "seconds", "processor seconds", "imports TensorFlow", f"of {KERAS}")]
    for name, of_name in found.items():
        imports, ratio = "", ""
        if name in modules():
            code = LOAD.format(name) + "; print('tensorflow' in sys.modules)"
            imports = "yes" if "True" in run(ROOT, *PYTHON, code).stdout else "no"
            ratio = statistics.median(one[0] / other[0] for one, other in zip(of_name, found[KERAS], strict=True))
        rows.append((name, *medians(of_name), imports, ratio if imports == "yes" else ""))
    table("Until a stage begins its own work", *rows)


def study_of(name: str) -> dict:
    """The default study, or that of many heads, as params.yaml."""
    study = read_yaml(ROOT / "studies/digits_class_groups.yaml")
    if name == DEFAULT:
        return study
    heads = {
        f"head-{number:02}": {"task": "digits-b", "features": "some", "kind": "ridge", "l2": [0.01 * (number + 1)]}
        for number in range(HEADS)
    }
    return study | {
        "networks": {"base": study["networks"]["a-scratch"] | {"epochs": 2, "repeats": 1}},
        "features": {"some": study["features"]["b-flatten"] | {"backbone": "base"}},
        "heads": heads,
        "fine_tunes": {},
    }


def project(work: Path, name: str, study: str) -> Path:
    """A copy of the project with a study of which nothing is there yet."""
    folder = work / name
    folder.mkdir()
    copy_of_project(folder)
    (folder / "dvc.lock").unlink(missing_ok=True)
    write_study(folder, study_of(study))
    return folder


def repro(folder: Path, begin: Callable[[], None] | None = None) -> tuple[float, list[tuple[float, str]]]:
    """Run `dvc repro`: its seconds, and when each line was printed. begin: what its process does before."""
    lines, begun = [], time.perf_counter()
    with subprocess.Popen(
        [*DVC, "repro"],
        cwd=folder,
        env=ENVIRONMENT,
        preexec_fn=begin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout:
            lines.append((time.perf_counter() - begun, line.rstrip()))
    if process.returncode:
        sys.exit("\n".join([*(line for _, line in lines[-20:]), f"`dvc repro` ended with {process.returncode}"]))
    return time.perf_counter() - begun, lines


@cache
def ran(work: Path, study: str) -> tuple[Path, float, list[tuple[float, str]]]:
    """A project whose study was run by `dvc repro`: its folder, the seconds, and when each line was printed."""
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
        rows += [(name, count, *medians(found)) for name, found in in_turns(folder, commands, rounds).items()]
        spent.append((f"{study}, {count} stages", *shares_of(folder)))
    table("`dvc repro` with nothing to do", *rows)
    table("What it spends its time on, under a profiler", *spent)


def shares_of(folder: Path) -> list[str]:
    """The shares of a `dvc repro` that the functions of `SPENT_ON` take, and the rest."""
    file = folder.with_suffix(".profile")
    run(folder, sys.executable, "-m", "cProfile", "-o", str(file), "-m", "dvc", "repro", "--quiet")
    found = pstats.Stats(str(file))
    shares = [
        sum(of[3] for (path, _, name), of in found.stats.items() if path.endswith(place[0]) and name == place[1])
        / found.total_tt
        for place in SPENT_ON.values()
    ]
    return [f"{share:.0%}" for share in [*shares, 1 - sum(shares)]]


def stages(work: Path, rounds: int) -> None:
    """The seconds of a study from nothing.

    A stage prints its line as it ends; what passes until the next begins is DVC's: hashing, the cache, dvc.lock.
    """
    folder, total, lines = ran(work, DEFAULT)
    begun = {found[1]: second for second, line in lines if (found := re.match("Running stage '(.+)'", line))}
    ended = {}
    for name in begun:
        said = name.replace("@", " ").replace("prepare_folder", "prepare") + ": "
        ended[name] = next(second for second, line in lines if line.startswith(said))
    follows = dict(zip(begun, [*list(begun.values())[1:], total], strict=True))
    sums, first = defaultdict(lambda: [0, 0.0, 0.0, 0.0, 0.0, 0.0]), min(begun.values())
    for name in begun:
        kind = name.partition("@")[0]
        start_up = medians(starts(rounds)["prepare" if kind == "prepare_folder" else kind])[0]
        own, recorded = ended[name] - begun[name], recorded_of(folder, name)
        parts = (1, follows[name] - begun[name], follows[name] - ended[name], start_up, recorded)
        for place, part in enumerate((*parts, own - start_up - recorded)):
            sums[kind][place] += part
    sums["`dvc repro` before the first stage"] = ["", first, first, 0.0, 0.0, 0.0]
    whole = [sum(of_kind[place] for of_kind in sums.values()) for place in range(1, 6)]
    table(
        "The default study from nothing, by stage",
        ("stage", "runs", "seconds", "DVC", "start and import", "recorded as cost", "other work"),
        *((kind, *of_kind) for kind, of_kind in sums.items()),
        ("all", len(begun), *whole),
        ("share", "", *(f"{part / whole[0]:.0%}" for part in whole)),
    )


def recorded_of(folder: Path, name: str) -> float:
    """The seconds of a stage that data/costs has: of all repeats of a model, or of features."""
    kind, _, entry = name.partition("@")
    if kind == "features":
        return read_json(folder / f"data/costs/features/{entry}.json")["seconds"]
    if kind not in ("train", "head", "fine_tune"):
        return 0.0
    repeats = read_json(folder / f"models/{entry}/record.json")["repeats"]
    return repeats * read_json(folder / f"data/costs/models/{entry}.json")["seconds"]


def threads() -> None:
    rows = [("set to 1", "training in Keras", "product in NumPy", "product in ONNX Runtime")]
    for names in ([], *([name] for name in THREADS), THREADS):
        environment = {key: value for key, value in ENVIRONMENT.items() if key not in THREADS} | dict.fromkeys(
            names, "1"
        )
        done = subprocess.run([*PYTHON, BUSY], env=environment, capture_output=True, text=True, check=True)
        rows.append((", ".join(names) or "nothing", *done.stdout.split()))
    table(f"Threads at work, of {CORES} cores", *rows)


def side_by_side(work: Path, jobs: int) -> None:
    rows = [("", "one after another", f"side by side, {jobs} jobs", "ratio", "models with the same weights")]
    for study in STUDIES:
        folder, seconds, _ = ran(work, study)
        other = project(work, "side-by-side-" + study.replace(" ", "-"), study)
        command = [sys.executable, "-m", "stages.side_by_side", "--jobs", str(jobs)]
        begun = time.perf_counter()
        run(other, *command)
        beside = time.perf_counter() - begun
        weights = sorted(path.name for path in (folder / "models").glob("*.weights.h5"))
        same = sum(sha256_of(folder / "models" / name) == sha256_of(other / "models" / name) for name in weights)
        rows.append((study, seconds, beside, beside / seconds, f"{same} of {len(weights)}"))
        shutil.rmtree(other)
    table("Stages side by side, in seconds", *rows)


def edit(folder: Path) -> None:
    """What a changed learning rate of one head costs, beside the training of that head, in a finished run."""
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
    parts = ["start", "no-op", "stages", "threads", "side-by-side"]
    parser.add_argument("parts", nargs="*", metavar="part", help=f"some of {', '.join(parts)}; with --run edit")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=max(2, CORES // 2))
    given = parser.parse_args()
    if given.run:
        edit(given.run)
        return
    if unknown := set(given.parts) - set(parts):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; accepted: {', '.join(parts)}")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for part in given.parts or parts:
            {
                "start": lambda: start(given.rounds),
                "no-op": lambda: no_op(work, given.rounds),
                "stages": lambda: stages(work, given.rounds),
                "threads": threads,
                "side-by-side": lambda: side_by_side(work, given.jobs),
            }[part]()


if __name__ == "__main__":
    main()
