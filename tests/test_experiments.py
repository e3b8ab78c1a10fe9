"""Experiments: the commands of docs/experiments.md, the values they set, and what goes wrong with them."""

import json
import os
import re
import signal
import subprocess
import time

import pytest

from benchmarks.experiments import PAGE, run_command
from benchmarks.pages import commands, fill_outputs
from tests.conftest import plain, png, write_tree
from tests.pipeline import dvc, edit_study, environment, read_yaml, run, stages_run
from tests.small_project import small_project

RATE = "heads.b-one-layer.learning_rate"
AFTER_THE_HEAD = {"head@b-one-layer", "evaluate", "mistakes@digits-b", "report"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return small_project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def project(finished):
    """That project, as it was committed, with nothing in the queue."""
    reset(finished)
    yield finished
    stop_worker(finished)
    dvc(finished, "queue", "remove", "--all")


def reset(project):
    run(project, "git", "checkout", "-q", ".")
    run(project, "git", "clean", "-fdq")
    dvc(project, "checkout", "-q")


def start_worker(project):
    """The worker would keep a pipe open, and so keep us waiting until it ends."""
    subprocess.run(["dvc", "queue", "start"], cwd=project, env=environment(), stdout=subprocess.DEVNULL, check=True)


def worker_of(project):
    """The process of the queue's worker, where one runs."""
    try:
        pid = json.loads((project / ".dvc/tmp/exps/celery/dvc-exp-worker-1.json").read_text())["pid"]
        os.kill(pid, 0)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return pid


def stop_worker(project):
    """Ends the worker and all that it has started; where there is none, nothing."""
    if pid := worker_of(project):
        os.killpg(os.getpgid(pid), signal.SIGKILL)


def wait_until(condition):
    end = time.monotonic() + 180
    while not (found := condition()):
        assert time.monotonic() < end, "this took too long"
        time.sleep(0.2)
    return found


def states(project):
    """What the queue says of each experiment."""
    lines = dvc(project, "queue", "status").stdout.splitlines()
    return {
        words[1]: words[-1] for words in map(str.split, lines) if len(words) >= 4 and words[0] not in ("Task", "Worker")
    }


def queued(project):
    """The studies in the queue, by the name of the experiment."""
    revisions = run(project, "git", "log", "--walk-reflogs", "--format=%H %gs", "refs/exps/celery/stash").stdout
    return {
        line.rsplit(":", 1)[1]: read_yaml(run(project, "git", "show", f"{line.split()[0]}:params.yaml").stdout)
        for line in revisions.splitlines()
    }


def log_of(project, name):
    """What an experiment of the queue has printed; nothing before it has started."""
    logs = [path.read_text() for path in project.glob(".dvc/tmp/exps/run/*/*.out")]
    return "".join(log for log in logs if f"Reproducing experiment '{name}'" in log)


def of_experiment(project, name, file):
    (ref,) = run(project, "git", "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{name}").stdout.split()
    return run(project, "git", "show", f"{ref}:{file}").stdout


@pytest.fixture(scope="module")
def page(finished):
    """What each command of the page says here, run in their order."""
    try:
        yield {command: run_command(command, finished) for command in commands(PAGE.read_text(encoding="utf-8"))}
    finally:
        stop_worker(finished)
        dvc(finished, "queue", "remove", "--all")


def said(page, start):
    return next(output for command, output in page.items() if command.splitlines()[-1].startswith(start))


def test_an_experiment_runs_what_its_value_reaches(page):
    output = said(page, "dvc exp run --name slower")
    assert set(re.findall(r"Running stage '([^']+)'", output)) == AFTER_THE_HEAD | {"sound"}
    assert "Ran experiment(s): slower" in output


def test_its_values_and_metrics_are_shown_beside_those_of_the_commit(page):
    assert re.search(rf"params.yaml +{RATE} +0.001 +0.0001", said(page, "dvc params diff"))
    changed = said(page, "dvc metrics diff").splitlines()[2:-1]
    assert changed and all(line.startswith("reports/summary/b-one-layer.json ") for line in changed)


def test_a_grid_is_run_by_a_worker_and_logged(page):
    for number in (1, 2):
        assert re.search(rf" rate-{number} .* Success$", said(page, "dvc queue status"), re.MULTILINE)
    assert "Started '1' new experiments task queue worker." in said(page, "dvc queue start")
    assert "head b-one-layer: " in said(page, "dvc queue logs")


def test_experiments_stand_in_one_table_with_what_differs(page):
    table = [line.strip("|").split("|") for line in said(page, "dvc exp show").splitlines()[1:-1]]
    header, _, *rows = [[cell.strip() for cell in line] for line in table]
    assert RATE in header and "features.b-fc1.cut" not in header
    rates = {re.sub(r".*\[(.+)\].*", r"\1", row[0]): row[header.index(RATE)] for row in rows}
    assert rates.items() >= {"slower": "0.0001", "rate-1": "0.0003", "rate-2": "0.003"}.items()
    assert re.search(r"reports/summary/b-one-layer.json +total_seconds", said(page, "dvc metrics diff rate-1"))


def test_the_plots_of_two_experiments_are_one_page(page, finished):
    assert "file://<project>/dvc_plots/index.html" in said(page, "dvc plots diff")
    drawn = (finished / "dvc_plots/index.html").read_text()
    assert "rate-1" in drawn and "rate-2" in drawn


def test_an_experiment_is_applied_or_becomes_a_branch(page, finished):
    assert said(page, "git status").count(" M ") == 3
    of_branch = read_yaml(run(finished, "git", "show", "lower-rate:params.yaml").stdout)
    assert of_branch["heads"]["b-one-layer"]["learning_rate"] == 0.0003


def test_a_failed_experiment_says_why_and_leaves_its_value(page):
    output = said(page, "dvc exp run --name wrong")
    assert "seed: -1 is not accepted" in output
    assert "\n+seed: -1\n" in output
    assert "Traceback" not in output


def test_an_output_is_written_behind_its_command_and_the_others_stay():
    place = "```\n{}\n```\n\n<!-- output -->\n\n{}\n\n<!-- end -->\n"
    page = "# Page\n\n" + place.format("first", "old\n```text\nlines\n```") + place.format("second\nthird", "old")
    assert commands(page) == ["first", "second\nthird"]
    assert fill_outputs(page, {"first": "new"}.get) == "# Page\n\n" + place.format("first", "new") + place.format(
        "second\nthird", "old"
    )


def test_no_output_of_the_page_is_missing_or_names_a_folder_of_a_machine():
    text = PAGE.read_text(encoding="utf-8")
    assert "<!-- output -->\n<!-- end -->" not in text
    assert not re.search(r"(?<!\.dvc)/(tmp|home|root|usr|var)/", text)


def test_values_arrive_as_what_they_are(project):
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
    dvc(project, "exp", "run", "--queue", "--name", "typed", *options, "-S", "~heads.b-two-layers.kind")
    study = queued(project)["typed"]
    for setting, expected in settings.items():
        value = study
        for key in setting.split("=")[0].lstrip("+").split("."):
            value = value[key]
        assert value == expected and type(value) is type(expected), setting
    assert "kind" not in study["heads"]["b-two-layers"]


def test_a_key_that_an_entry_does_not_have_needs_a_plus(project):
    done = dvc(project, "exp", "run", "--queue", "-S", "heads.b-one-layer.dropout=0.5", fails=True)
    assert "To append to your config use +heads.b-one-layer.dropout=0.5" in done.stderr


def test_a_grid_has_all_combinations_of_lists_and_ranges(project):
    grid = ["-S", f"{RATE}=1e-05,0.003", "-S", "seed=range(1,3)"]
    assert "without `--queue`" in dvc(project, "exp", "run", *grid, fails=True).stderr
    dvc(project, "exp", "run", "--queue", "--name", "grid", *grid)
    studies = [study for name, study in queued(project).items() if name.startswith("grid-")]
    found = sorted((study["heads"]["b-one-layer"]["learning_rate"], study["seed"]) for study in studies)
    assert found == [(1e-05, 1), (1e-05, 2), (0.003, 1), (0.003, 2)]
    assert not run(project, "git", "status", "--porcelain").stdout


def test_changes_that_are_not_committed_are_part_of_an_experiment_and_untracked_files_are_not(project):
    edit_study(project, lambda study: study["heads"]["b-one-layer"].update(dropout=0.5))
    (project / "studies/mine.yaml").write_text("seed: 1\n")
    before = (project / "params.yaml").read_text()
    dvc(project, "exp", "run", "--temp", "--name", "dirty", "-S", "seed=7", "split@digits-b")
    study = read_yaml(of_experiment(project, "dirty", "params.yaml"))
    assert study["seed"] == 7 and study["heads"]["b-one-layer"]["dropout"] == 0.5
    assert not of_experiment(project, "dirty", "").count("mine.yaml")
    assert (project / "params.yaml").read_text() == before and (project / "studies/mine.yaml").exists()
    dvc(project, "exp", "apply", "dirty")
    assert read_yaml(project / "params.yaml")["seed"] == 7
    run(project, "git", "checkout", "refs/exps/apply/stash", "--", "params.yaml")
    assert (project / "params.yaml").read_text() == before


def test_images_below_the_folder_go_along_where_they_are_named(project):
    colors = {"dark": [0, 40], "light": [200, 240]}
    write_tree(project / "pictures", {f"{name}/{c}.png": png(plain(c)) for name, of in colors.items() for c in of})
    folder = {"source": "folder", "path": "pictures", "image_size": 8}
    edit_study(project, lambda study: study["folders"].update(mine=folder))
    command = ["exp", "run", "--temp", "--name", "own", "prepare_folder@mine"]
    assert "No such file or directory" in dvc(project, *command, fails=True).stderr
    assert stages_run(dvc(project, *command, "--copy-paths", "pictures")) == {"prepare_folder@mine"}
    dvc(project, "exp", "apply", "own")
    assert len((project / "data/images/mine/table.csv").read_text().splitlines()) == 1 + 4


def test_a_failed_experiment_of_the_queue_stops_no_other(project):
    for name, seed in ("bad", -1), ("good", 3):
        dvc(project, "exp", "run", "--queue", "--name", name, "-S", f"seed={seed}", "split@digits-b")
    start_worker(project)
    wait_until(lambda: states(project) == {"bad": "Failed", "good": "Success"})
    assert "seed: -1 is not accepted" in dvc(project, "queue", "logs", "bad").stdout
    assert read_yaml(of_experiment(project, "good", "params.yaml"))["seed"] == 3
    assert not run(project, "git", "status", "--porcelain").stdout


def test_what_a_killed_worker_leaves_running_can_be_ended_and_queued_again(project):
    again = ["exp", "run", "--queue", "--name", "cut-off", "-S", f"{RATE}=0.02", "head@b-one-layer"]
    dvc(project, *again)
    start_worker(project)
    wait_until(lambda: "Running stage 'head@" in log_of(project, "cut-off"))
    os.kill(worker_of(project), signal.SIGKILL)
    assert states(project) == {"cut-off": "Running"}
    assert "0 active" in dvc(project, "queue", "status").stdout
    assert "cut-off has been killed" in dvc(project, "queue", "kill", "cut-off").stdout  # what outlived the worker

    def given_up():
        dvc(project, "queue", "kill", "cut-off")
        return states(project) == {"cut-off": "Failed"}

    wait_until(given_up)
    dvc(project, "queue", "remove", "cut-off")
    dvc(project, *again)
    start_worker(project)
    wait_until(lambda: states(project) == {"cut-off": "Success"})
    assert read_yaml(of_experiment(project, "cut-off", "params.yaml"))["heads"]["b-one-layer"]["learning_rate"] == 0.02
