"""Runs the published studies on files of this machine and writes docs/results.md: published and measured side by side.

    python -m benchmarks.results <files> <work> [run ...]

files: a folder with the archives and weights that benchmarks/results.yaml names. work: a folder for the runs, each a
clone of the project with its outputs (20 GB). Without names, all runs are made; finished stages do not run again. The
page shows all runs in `work`, and lists those that are missing.
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
FILE_KEYS = ("url", "weights")  # their values in results.yaml are names of files
DONE = "run.json"


def changed(study: dict, changes: dict, files: Path) -> dict:
    """A study with changes: mappings are merged; null removes a key.

    An entry with a source or an architecture replaces the old one. Names of files become paths in `files`, with
    their sha256. Raises `UserError` if a file does not exist.
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
                raise UserError(f"{file} does not exist. Put the file there, or name the runs that do not need it.")
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
        # Only the lock of the clone is kept: DVC reads from it which outputs exist.
        lock = (clone / "dvc.lock").read_text(encoding="utf-8")
        call(clone, "git", "fetch", "-q", "origin")
        call(clone, "git", "checkout", "-q", "-f", "--detach", "FETCH_HEAD")
        (clone / "dvc.lock").write_text(lock, encoding="utf-8")
    (clone / "params.yaml").write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    (clone / DONE).unlink(missing_ok=True)
    call(clone, "dvc", "repro", "-q")
    write_json(clone / DONE, {"exports": [exported(clone, model) for model in settings.get("export", [])]})


def exported(clone: Path, model: str) -> str:
    """The last line that `stages.export` prints for a model; a refusal is a result too."""
    command = [sys.executable, "-m", "stages.export", model]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False)
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()[-1:]
    if not lines or not lines[0].startswith("export"):
        raise UserError(f"{' '.join(command)} failed in {clone}:\n{done.stderr[-2000:]}")
    return lines[0]


def call(folder: Path, *command: str) -> str:
    """Run a command of this environment in a folder; `UserError` with the end of its output if it fails."""
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


def results_in(clone: Path, settings: dict) -> dict[str, Any]:
    """The results of a run: for each task images, models with published and measured figures, verdict and warnings."""
    metrics, comparisons, study = (
        read_json(clone / f"reports/{name}.json") for name in ("metrics", "comparisons", "study")
    )
    history = pd.read_csv(clone / "reports/history.csv", dtype={"model": str}, keep_default_na=False)
    params = read_yaml(clone / "params.yaml")
    tasks = {}
    for task, summary in study["tasks"].items():
        published = {model: settings.get("published", {}).get(model, {}) for model in summary["models"]}
        rows = {model: {**row_of(metrics[model]), "published": published[model]} for model in summary["models"]}
        compared = [row["test"] >= row["published"]["test"] for row in rows.values() if "test" in row["published"]]
        tasks[task] = {
            "images": {split: sum(counts) for split, counts in summary["images"].items()},
            "classes": len(summary["classes"]),
            "columns": [
                column
                for column in ("train", "validation", "test", "seconds")
                if any(column in figures for figures in published.values())
            ],
            "models": rows,
            "compared": len(compared),
            "reached": sum(compared),
            "recommended": comparisons[task]["recommended"],
            "best": max(rows, key=lambda model: rows[model]["test"]),
            "verdict": comparisons[task]["verdict"],
            "warnings": comparisons[task]["warnings"],
        }
    features = {name: read_json(clone / f"data/costs/features/{name}.json") for name in params["features"]}
    first_epochs = [
        {**history[history["model"] == model].iloc[0], "seconds": metrics[model]["cost"]["seconds"]}
        for model in settings.get("first_epochs", [])
    ]
    seconds = sum(cost["seconds"] for cost in features.values())
    seconds += sum(model["cost"]["seconds"] * model["training"]["repeats"] for model in metrics.values())
    return {
        "tasks": tasks,
        "features": features,
        "first_epochs": first_epochs,
        "seconds": round(seconds),
        "machines": sorted({model["machine"] for model in study["models"].values()}),
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
    """Run the tests of each claim; returns the last line of pytest. `UserError` if a test fails."""
    outcomes = []
    for check in checks:
        command = [sys.executable, "-m", "pytest", "-n", "0", *check["tests"].split()]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        summary = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "no output"
        outcomes.append({**check, "summary": summary})
        if done.returncode:
            raise UserError(f"{check['tests']} failed: {summary}")
    return outcomes


def studies_of(settings: dict, made: dict[str, dict]) -> dict[str, dict[str, Any]]:
    """For every file in studies/: its number of models, and its runs or the reason for having none.

    `UserError` if a study is not valid.
    """
    table, runs = {}, settings["runs"]
    for path in sorted((ROOT / "studies").glob("*.yaml")):
        study = load_study(path)
        names = [name for name, run in runs.items() if run.get("study", name) == path.stem and name in made]
        table[path.stem] = {"models": len(study.models), "runs": names, "why": settings["elsewhere"].get(path.stem, "")}
    return table


def page_of(settings: dict, made: dict[str, dict], checks: list[dict]) -> str:
    """The page, from the results of the finished runs."""
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
        machines=sorted({machine for results in made.values() for machine in results["machines"]}),
        versions=f"Keras {keras.__version__}, TensorFlow {tf.__version__}, Python {platform.python_version()}",
    )
    return re.sub(r"\n{3,}", "\n\n", page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--page-only", action="store_true", help="run nothing; write the page from the finished runs")
    given = parser.parse_args()
    settings = yaml.safe_load(RUNS.read_text(encoding="utf-8"))
    runs = settings["runs"]
    try:
        if unknown := set(given.runs) - set(runs):
            raise UserError(f"unknown run {', '.join(sorted(unknown))}. Runs: {', '.join(runs)}.")
        given.work.mkdir(parents=True, exist_ok=True)
        for name in [] if given.page_only else given.runs or runs:
            print(f"{name} ...", flush=True)
            run(name, runs[name], given.files, given.work)
        finished = [name for name in runs if (given.work / name / DONE).exists()]
        made = {name: results_in(given.work / name, runs[name]) for name in finished}
        write_text(PAGE, page_of(settings, made, checks_of(settings["checks"])))
    except UserError as error:
        sys.exit(f"results: {error}")
    print(f"{PAGE.relative_to(ROOT)} shows {len(made)} of {len(runs)} runs")


if __name__ == "__main__":
    main()
