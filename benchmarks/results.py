"""Runs the published studies on files of this machine and writes docs/results.md: published and measured side by side.

    python -m benchmarks.results <files> <work> [run ...]

files: a folder with the archives and weights that benchmarks/results.yaml names. work: a folder for a clone of the
project for each run, with everything that the run makes (20 GB). Without names all runs are made; what is already there
is not made again. The page is written from all runs of `work`, and says which are missing.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
import keras
import pandas as pd
import tensorflow as tf
import yaml

from stages.core.errors import UserError
from stages.core.files import read_json, sha256_of, write_json, write_text
from stages.core.yaml import read_yaml
from stages.validation.study import load_study

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/results.md"
RUNS = Path(__file__).with_suffix(".yaml")
FILE_KEYS = ("url", "weights")  # whose values in results.yaml are names of files
DONE = "run.json"


def changed(study: dict, changes: dict, files: Path) -> dict:
    """A study with changes: mappings are merged, null removes; an entry with a source or an architecture is put whole.

    Names of files become paths in `files`, with their sha256. Raises `UserError` where a file is not there.
    """
    study = dict(study)
    for key, value in changes.items():
        if value is None:
            study.pop(key, None)
        elif (
            isinstance(value, dict) and isinstance(study.get(key), dict) and not {"source", "architecture"} & set(value)
        ):
            study[key] = changed(study[key], value, files)
        elif isinstance(value, dict):
            study[key] = changed({}, value, files)
        elif key in FILE_KEYS and value != "random":
            file = files.resolve() / value
            if not file.is_file():
                raise UserError(f"{file} is not there; put it there, or name the runs that do without it.")
            study |= {key: str(file), "sha256": sha256_of(file)}
        else:
            study[key] = value
    return study


def run(name: str, settings: dict, files: Path, work: Path) -> None:
    """Make one run in its clone: the study as changed, then `dvc repro`."""
    clone = work / name
    study = changed(read_yaml(ROOT / "studies" / f"{settings.get('study', name)}.yaml"), settings["changes"], files)
    if not clone.exists():
        call(work, "git", "clone", "-q", str(ROOT), name)
        call(clone, "dvc", "cache", "dir", "--local", str(work.resolve() / "cache"))
    else:
        # Of the clone only the lock stays, from which DVC knows what is there.
        lock = (clone / "dvc.lock").read_text(encoding="utf-8")
        call(clone, "git", "fetch", "-q", "origin")
        call(clone, "git", "checkout", "-q", "-f", "--detach", "FETCH_HEAD")
        (clone / "dvc.lock").write_text(lock, encoding="utf-8")
    (clone / "params.yaml").write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    (clone / DONE).unlink(missing_ok=True)
    call(clone, "dvc", "repro", "-q")
    write_json(clone / DONE, {"exports": [exported(clone, model) for model in settings.get("export", [])]})


def exported(clone: Path, model: str) -> str:
    """What `stages.export` says of a model; a refusal is a finding too."""
    command = [sys.executable, "-m", "stages.export", model]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False)
    said = (done.stderr if done.returncode else done.stdout).strip().splitlines()[-1:]
    if not said or not said[0].startswith("export"):
        raise UserError(f"{' '.join(command)} failed in {clone}:\n{done.stderr[-2000:]}")
    return said[0]


def call(folder: Path, *command: str) -> str:
    """Run a command of this environment in a folder; `UserError` with the end of what it says when it fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError(f"{' '.join(command)} failed in {folder}:\n{done.stdout[-2000:]}")
    return done.stdout


def found_in(clone: Path, settings: dict) -> dict[str, Any]:
    """What a run found: for each task its images, models with published and measured figures, verdict and warnings."""
    metrics, comparisons, study = (
        read_json(clone / f"reports/{name}.json") for name in ("metrics", "comparisons", "study")
    )
    history = pd.read_csv(clone / "reports/history.csv", dtype={"model": str}, keep_default_na=False)
    params = read_yaml(clone / "params.yaml")
    tasks = {}
    for task, of_task in study["tasks"].items():
        published = {model: settings.get("published", {}).get(model, {}) for model in of_task["models"]}
        rows = {model: {**row_of(metrics[model]), "published": published[model]} for model in of_task["models"]}
        compared = [row["test"] >= row["published"]["test"] for row in rows.values() if "test" in row["published"]]
        tasks[task] = {
            "images": {split: sum(counts) for split, counts in of_task["images"].items()},
            "classes": len(of_task["classes"]),
            "columns": [
                column
                for column in ("train", "validation", "test", "seconds")
                if any(column in figures for figures in published.values())
            ],
            "models": rows,
            "compared": len(compared),
            "reached": sum(compared),
            "verdict": comparisons[task]["verdict"],
            "warnings": comparisons[task]["warnings"],
        }
    features = {name: read_json(clone / f"data/costs/features/{name}.json") for name in params["features"]}
    first_epochs = [
        {**history[history["model"] == model].iloc[0], "seconds": metrics[model]["cost"]["seconds"]}
        for model in settings.get("first_epochs", [])
    ]
    seconds = sum(cost["seconds"] for cost in features.values())
    seconds += sum(each["cost"]["seconds"] * each["training"]["repeats"] for each in metrics.values())
    return {
        "tasks": tasks,
        "features": features,
        "first_epochs": first_epochs,
        "seconds": round(seconds),
        "machines": sorted({each["machine"] for each in study["models"].values()}),
        **read_json(clone / DONE),
    }


def row_of(metrics: dict[str, Any]) -> dict[str, Any]:
    """The figures of one model in a table; accuracies in percent, seconds of all epochs of one repeat."""
    accuracy = {split: 100 * metrics[split]["accuracy"] for split in ("train", "validation", "test")}
    test = metrics["test"]
    return {
        **accuracy,
        "low": 100 * test["accuracy_low"],
        "high": 100 * test["accuracy_high"],
        "precision": 100 * test["macro_precision"],
        "recall": 100 * test["macro_recall"],
        "f1": 100 * test["macro_f1"],
        "epochs": metrics["training"]["epochs"],
        "seconds": metrics["cost"]["seconds"],
        "total_seconds": metrics["cost"]["total_seconds"],
    }


def checks_of(checks: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Run the tests that stand for a claim each; what pytest says of them. `UserError` where one fails."""
    outcomes = []
    for check in checks:
        command = [sys.executable, "-m", "pytest", "-n", "0", *check["tests"].split()]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        said = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "nothing"
        outcomes.append({**check, "said": said})
        if done.returncode:
            raise UserError(f"{check['tests']} failed: {said}")
    return outcomes


def studies_of(settings: dict, made: dict[str, dict]) -> dict[str, dict[str, Any]]:
    """Every file in studies/: how many models it has, and the runs that were made of it, or why there is none.

    `UserError` where one is unsound.
    """
    table, runs = {}, settings["runs"]
    for path in sorted((ROOT / "studies").glob("*.yaml")):
        study = load_study(path)
        of_it = [name for name, settings in runs.items() if settings.get("study", name) == path.stem]
        of_it = [name for name in of_it if name in made]
        table[path.stem] = {"models": len(study.models), "runs": of_it, "why": settings["elsewhere"].get(path.stem, "")}
    return table


def page_of(settings: dict, made: dict[str, dict], checks: list[dict]) -> str:
    """The page, from what was found in the runs that were made."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page = environment.get_template("results.md.j2").render(
        runs=settings["runs"],
        made=made,
        missing=[name for name in settings["runs"] if name not in made],
        studies=studies_of(settings, made),
        checks=checks,
        machines=sorted({machine for of_run in made.values() for machine in of_run["machines"]}),
        versions=f"Keras {keras.__version__}, TensorFlow {tf.__version__}, Python {platform.python_version()}",
    )
    return re.sub(r"\n{3,}", "\n\n", page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--page-only", action="store_true", help="run nothing, write the page from what is there")
    given = parser.parse_args()
    settings = yaml.safe_load(RUNS.read_text(encoding="utf-8"))
    runs = settings["runs"]
    try:
        if unknown := set(given.runs) - set(runs):
            raise UserError(f"there is no run {', '.join(sorted(unknown))}; accepted: {', '.join(runs)}.")
        given.work.mkdir(parents=True, exist_ok=True)
        for name in [] if given.page_only else given.runs or runs:
            print(f"{name} ...", flush=True)
            run(name, runs[name], given.files, given.work)
        finished = {name: of for name, of in runs.items() if (given.work / name / DONE).exists()}
        made = {name: found_in(given.work / name, of) for name, of in finished.items()}
        write_text(PAGE, page_of(settings, made, checks_of(settings["checks"])))
    except UserError as error:
        sys.exit(f"results: {error}")
    print(f"{PAGE.relative_to(ROOT)} shows {len(made)} of {len(runs)} runs")


if __name__ == "__main__":
    main()
