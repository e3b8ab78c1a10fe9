"""Experiments: the commands of docs/experiments.md, and the values that they set."""

import json
import os
import re
import signal
import time

import psutil
import pytest

from benchmarks.experiments import PAGE, run_command
from benchmarks.pages import commands, fill_outputs
from tests.pipeline import commit, dvc, edit_study, read_yaml, run, stages_run
from tests.small_project import small_project

RATE = "heads.b-one-layer.learning_rate"
AFTER_THE_HEAD = {"head@b-one-layer", "evaluate", "compare", "mistakes@digits-b", "report"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return small_project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def project(finished):
    """That project, as it was committed, with an empty queue."""
    run(finished, "git", "checkout", "-q", ".")
    run(finished, "git", "clean", "-fdq")
    dvc(finished, "checkout", "-q")
    yield finished
    dvc(finished, "queue", "remove", "--all")


def worker_of(project):
    """The process id of the queue's worker; None if no worker runs."""
    try:
        pid = json.loads((project / ".dvc/tmp/exps/celery/dvc-exp-worker-1.json").read_text())["pid"]
        return pid if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE else None
    except (FileNotFoundError, psutil.NoSuchProcess):
        return None


def stop_worker(project):
    """Stop the worker, if one runs, and the processes that it has started."""
    if pid := worker_of(project):
        os.killpg(os.getpgid(pid), signal.SIGKILL)


def queued(project):
    """The studies in the queue: name of the experiment -> its params.yaml."""
    revisions = run(project, "git", "log", "--walk-reflogs", "--format=%H %gs", "refs/exps/celery/stash").stdout
    return {
        line.rsplit(":", 1)[1]: read_yaml(run(project, "git", "show", f"{line.split()[0]}:params.yaml").stdout)
        for line in revisions.splitlines()
    }


def run_on_page(command, project):
    """Run a command of the page; one that waits for the queue, after the worker has ended.

    To ask DVC each second takes a core. And each time it sends the worker a message: kombu creates the file, then
    writes it, and a worker that reads it between fails.
    """
    while command.startswith("while dvc queue status") and worker_of(project):
        time.sleep(0.1)
    return run_command(command, project)


@pytest.fixture(scope="module")
def page(finished):
    """The output of each command of the page, run in their order."""
    try:
        yield {command: run_on_page(command, finished) for command in commands(PAGE.read_text(encoding="utf-8"))}
    finally:
        stop_worker(finished)
        dvc(finished, "queue", "remove", "--all")


def output_of_command(page, start):
    return next(output for command, output in page.items() if command.splitlines()[-1].startswith(start))


def test_an_experiment_runs_the_stages_that_depend_on_its_value(page):
    output = output_of_command(page, "dvc exp run --name slower")
    assert set(re.findall(r"Running stage '([^']+)'", output)) == AFTER_THE_HEAD | {"check"}
    assert "Ran experiment(s): slower" in output


def test_values_and_metrics_of_an_experiment_are_compared_with_the_commit(page):
    assert re.search(rf"params.yaml +{RATE} +0.001 +0.0001", output_of_command(page, "dvc params diff"))
    changed = output_of_command(page, "dvc metrics diff").splitlines()[2:-1]
    files = r"reports/(summary/b-one-layer\.json|validation_accuracy\.json +b-one-layer) "
    assert changed and all(re.match(files, line) and len(line) <= 100 for line in changed)


def test_a_worker_runs_a_grid_and_logs_it(page):
    for number in (1, 2):
        assert re.search(rf" rate-{number} .* Success$", output_of_command(page, "dvc queue status"), re.MULTILINE)
    assert "Started '1' new experiments task queue worker." in output_of_command(page, "dvc queue start")
    assert "head b-one-layer: " in output_of_command(page, "dvc queue logs")


def test_one_table_shows_the_experiments_and_the_values_that_differ(page):
    table = [line.strip("|").split("|") for line in output_of_command(page, "dvc exp show").splitlines()[1:-1]]
    header, _, *rows = [[cell.strip() for cell in line] for line in table]
    assert RATE in header and "features.b-fc1.cut" not in header
    assert "b-one-layer" in header and not [name for name in header if "/" in name]
    assert max(map(len, output_of_command(page, "dvc exp show").splitlines())) <= 100
    rates = {re.sub(r".*\[(.+)\].*", r"\1", row[0]): row[header.index(RATE)] for row in rows}
    assert rates.items() >= {"slower": "0.0001", "rate-1": "0.0003", "rate-2": "0.003"}.items()
    assert re.search(r"reports/summary/b-one-layer.json +seconds", output_of_command(page, "dvc metrics diff rate-1"))


def test_the_plots_of_two_experiments_are_on_one_page(page, finished):
    assert "file://<project>/dvc_plots/index.html" in output_of_command(page, "dvc plots diff")
    page_of_plots = (finished / "dvc_plots/index.html").read_text()
    assert "rate-1" in page_of_plots and "rate-2" in page_of_plots


def test_an_experiment_is_applied_or_becomes_a_branch(page, finished):
    assert output_of_command(page, "git status").count(" M ") == 3
    study = read_yaml(run(finished, "git", "show", "lower-rate:params.yaml").stdout)
    assert study["heads"]["b-one-layer"]["learning_rate"] == 0.0003


def test_a_failed_experiment_reports_the_reason_and_leaves_its_value(page):
    output = output_of_command(page, "dvc exp run --name wrong")
    assert "seed: -1 is not valid" in output
    assert "\n+seed: -1\n" in output
    assert "Traceback" not in output


def test_an_output_replaces_the_one_after_its_command_and_the_others_stay():
    block = "```\n{}\n```\n\n<!-- output -->\n\n{}\n\n<!-- end -->\n"
    page = "# Page\n\n" + block.format("first", "old\n```text\nlines\n```") + block.format("second\nthird", "old")
    assert commands(page) == ["first", "second\nthird"]
    assert fill_outputs(page, {"first": "new"}.get) == "# Page\n\n" + block.format("first", "new") + block.format(
        "second\nthird", "old"
    )


def test_every_command_of_the_page_has_an_output_without_paths_of_a_machine():
    text = PAGE.read_text(encoding="utf-8")
    assert "<!-- output -->\n<!-- end -->" not in text
    assert not re.search(r"(?<!\.dvc)/(tmp|home|root|usr|var)/", text)


def test_values_keep_their_types(project):
    settings = {
        f"{RATE}=1e-05": 1e-05,
        "++heads.b-one-layer.hidden=[64,32]": [64, 32],
        "++heads.b-one-layer.l2=[1e-05,0.1]": [1e-05, 0.1],
        "+heads.b-one-layer.early_stopping=null": None,
        "+heads.b-one-layer.standardize=false": False,
        "+heads.b-wide={task: digits-b, features: b-fc1, hidden: [512]}": {
            "task": "digits-b", "features": "b-fc1", "hidden": [512],
        },
        "training.early_stopping=3": 3,
        "training.repeats=2": 2,
        "tasks.digits-b.include=[5,6]": [5, 6],
        "+tasks.digits-b.group='patient\\d+'": "patient\\d+",
    }  # fmt: skip
    options = [word for setting in settings for word in ("-S", setting)]
    dvc(project, "exp", "run", "--queue", "--name", "typed", *options, "-S", "~heads.b-one-layer.epochs")
    study = queued(project)["typed"]
    for setting, expected in settings.items():
        value = study
        for key in setting.split("=")[0].lstrip("+").split("."):
            value = value[key]
        assert value == expected and type(value) is type(expected), setting
    assert "epochs" not in study["heads"]["b-one-layer"]


def test_branches_that_each_add_a_model_merge(project):
    run(project, "git", "config", "--local", "include.path", "../.gitconfig")
    base = run(project, "git", "rev-parse", "HEAD").stdout.strip()
    for branch, kind in (("one", "logistic"), ("two", "nearest_neighbors")):
        run(project, "git", "checkout", "-q", "-B", branch, base)
        dvc(project, "checkout", "-q")
        entry = {"task": "digits-b", "features": "b-fc1", "kind": kind}
        edit_study(project, lambda study, name=f"of-{branch}", entry=entry: study["probes"].update({name: entry}))
        dvc(project, "repro", "evaluate")
        commit(project)
    merged = run(project, "git", "merge", "-q", "--no-edit", "one")
    assert "dvc.lock: both branches ran evaluate, check. `dvc repro` runs what is in no cache." in merged.stdout
    assert {"of-one", "of-two", "b-ridge"} == set(read_yaml((project / "params.yaml").read_text())["probes"])
    dvc(project, "checkout", "-q", "--allow-missing")
    assert stages_run(dvc(project, "repro", "evaluate")) == {"evaluate"}
    metrics = json.loads((project / "reports/metrics.json").read_text())
    assert {"of-one", "of-two"} <= set(metrics)
    run(project, "git", "checkout", "-qf", base)
