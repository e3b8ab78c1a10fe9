"""The default study, with few epochs, run through DVC in a copy of the project."""

import json
import re
from pathlib import Path

import pytest
import vl_convert

from tests.pipeline import commit, copy_of_project, dvc, edit_study, read_yaml, run, run_in_one_process, stages_run

MODELS_OF_B = {
    "train@b-scratch",
    "train@b-all-layers",
    "head@b-one-layer",
    "head@b-two-layers",
    "fine_tune@b-top-conv",
}


# They have the settings of networks among their params.
GALLERIES = {"gallery@digits-a", "gallery@digits-b"}


def few_epochs(study: dict) -> None:
    for section in ("networks", "heads", "fine_tunes"):
        for entry in study[section].values():
            entry["epochs"] = 2
    study["training"]["repeats"] = 2
    for name in ("a-scratch", "b-scratch"):  # what repeats do is seen on the others
        study["networks"][name] |= {"max_train_per_class": 10, "repeats": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A copy of the project in which the study has run, committed; the output of that run beside it."""
    folder = copy_of_project(tmp_path_factory.mktemp("project"))
    edit_study(folder, few_epochs)
    done = dvc(folder, "repro")
    commit(folder)
    return folder, done


@pytest.fixture
def project(finished):
    """That copy, with everything as it was committed."""
    folder, _ = finished
    run(folder, "git", "checkout", "-q", "--", ".")
    dvc(folder, "checkout", "-q")
    return folder


def metrics(folder) -> dict:
    return json.loads((folder / "reports/metrics.json").read_text())


def comparisons(folder) -> dict:
    return json.loads((folder / "reports/comparisons.json").read_text())


def ran(done) -> set[str]:
    """The stages that have run, but for `recommend`: whether that runs depends on which model is recommended."""
    return {stage for stage in stages_run(done) if not stage.startswith("recommend@")}


def test_the_study_runs_through_and_every_stage_says_what_it_made(finished):
    folder, done = finished
    listed = set(dvc(folder, "stage", "list", "--name-only").stdout.split())
    assert stages_run(done) | {"sound"} == listed and len(listed) == 23
    for stage in listed:
        stage = stage.replace("@", " ")
        assert [line for line in done.stdout.splitlines() if line.startswith(f"{stage}: ")], stage
    for model, found in metrics(folder).items():
        assert {"train", "validation", "test", "cost"} <= set(found), model
        assert 0 <= found["test"]["accuracy"] <= 1 and found["test"]["loss"] > 0
        assert {"seconds", "images_per_second", "trained_parameters", "total_parameters"} <= set(found["cost"])
        for file in (f"{model}.weights.h5", f"{model}/history.csv", f"{model}/predictions.npz"):
            assert (folder / "models" / file).stat().st_size > 0
    assert "b-two-layers" in (folder / "reports/report.html").read_text()
    assert "b-two-layers" in (folder / "reports/report.md").read_text()


def test_running_again_runs_nothing(project):
    done = dvc(project, "repro")
    assert not stages_run(done)
    assert "up to date" in done.stdout
    assert not run(project, "git", "status", "--porcelain").stdout


def test_another_learning_rate_of_a_head_reruns_it_and_what_builds_on_it(project):
    done = dvc(project, "exp", "run", "-S", "heads.b-two-layers.learning_rate=3e-03")
    assert ran(done) == {
        "head@b-two-layers", "fine_tune@b-top-conv", "evaluate", "mistakes@digits-b", "report",
    }  # fmt: skip
    assert read_yaml(project / "params.yaml")["heads"]["b-two-layers"]["learning_rate"] == 0.003
    others = run(project, "git", "diff", "--name-only", "HEAD", "--", "reports/recommended").stdout.split()
    recommended = {stage for stage in stages_run(done) if stage.startswith("recommend@")}
    assert recommended == {f"recommend@{Path(file).stem}" for file in others}
    changes = json.loads(dvc(project, "metrics", "diff", "--json").stdout)
    assert changes["reports/summary/b-two-layers.json"]["total_seconds"]["diff"] != 0
    assert "reports/summary/b-one-layer.json" not in changes and "reports/summary/b-scratch.json" not in changes
    shown = dvc(project, "metrics", "show", "--md").stdout.strip().splitlines()
    assert len(shown) == 2 + len(metrics(project)) and max(map(len, shown)) < 160
    check_plots(project)


def check_plots(project) -> None:
    """The plots of the working tree beside those of HEAD can be drawn, and show all models of both."""
    plots = json.loads(dvc(project, "plots", "diff", "HEAD", "--json").stdout)["data"]
    shown = {name: plot for each in read_yaml(project / "dvc.yaml")["plots"] for name, plot in each.items()}
    models = list(metrics(project))
    per_model = {f"reports/confusion/{model}.csv" for model in models}
    assert plots.keys() == shown.keys() - {"reports/confusion"} | per_model
    for name, (plot,) in plots.items():
        assert plot["revisions"] == ["workspace", "HEAD"]
        drawn = vl_convert.vegalite_to_svg(plot["content"])
        texts = re.findall(r"<text[^>]*>([^<]*)</text>", drawn)
        title = name if name in per_model else shown[name]["title"]
        assert {title, "workspace", "HEAD"} <= set(texts), name
        if name not in per_model:
            assert set(models) <= set(texts), name
            assert len(re.findall(r'aria-roledescription="(?:bar|line mark)"', drawn)) == 2 * len(models), name


def test_another_validation_share_reruns_the_split_and_the_models_of_the_task(project):
    edit_study(project, lambda study: study["tasks"]["digits-b"].update(validation=0.2))
    assert ran(dvc(project, "repro")) == {
        "split@digits-b", "gallery@digits-b", *MODELS_OF_B, "evaluate", "mistakes@digits-b", "report",
    }  # fmt: skip


def test_another_figure_or_metric_reruns_no_training(project):
    for module in (project / "stages/reporting").glob("*.py"):
        module.write_text(module.read_text() + "\n# changed\n")
    assert ran(dvc(project, "repro")) == {"evaluate", "report"}


def test_a_setting_that_is_changed_back_trains_nothing_also_after_a_bad_one(project):
    before = metrics(project)
    edit_study(project, lambda study: study["heads"]["b-one-layer"].update(learning_rate=0.002))
    assert ran(dvc(project, "repro")) == {"head@b-one-layer", "evaluate", "mistakes@digits-b", "report"}
    edit_study(project, lambda study: study["heads"]["b-one-layer"].update(learning_rate=-1))
    done = dvc(project, "repro", fails=True)
    assert "heads.b-one-layer.learning_rate: -1 is not accepted; " in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout
    run(project, "git", "checkout", "-q", "--", "params.yaml")
    done = dvc(project, "repro")
    assert "head@b-one-layer' is cached" in done.stdout
    assert ran(done) == {"evaluate", "report"}
    assert metrics(project) == before  # no result is lost


def test_a_removed_model_is_gone_with_its_files_also_for_a_colleague_and_comes_back_from_the_cache(project, tmp_path):
    edit_study(project, lambda study: study["networks"].pop("b-all-layers"))
    assert ran(dvc(project, "repro")) == {"evaluate", "mistakes@digits-b", "report", *GALLERIES}
    assert "b-all-layers" not in metrics(project)
    assert "b-all-layers" not in (project / "reports/report.html").read_text()
    assert not list((project / "models").glob("b-all-layers*"))
    dvc(project, "remote", "add", "-d", "team", str(tmp_path / "remote"))
    dvc(project, "push")
    commit(project)
    run(tmp_path, "git", "clone", "-q", str(project), "clone")
    done = dvc(tmp_path / "clone", "repro", "--pull")
    assert not stages_run(done)
    assert not run(tmp_path / "clone", "git", "status", "--porcelain").stdout
    assert (tmp_path / "clone/models/b-two-layers.weights.h5").exists()
    for key in ("name", "email"):
        run(project, "git", "config", f"user.{key}", "test@localhost")
    run(project, "gto", "register", "recommended")
    dvc(tmp_path, "artifacts", "get", str(project), "recommended", "-o", "got")
    chosen = {task: of_task["recommended"] for task, of_task in comparisons(project).items()}
    assert {
        path.name: json.loads((path / "model.json").read_text())["model"] for path in (tmp_path / "got").iterdir()
    } == chosen
    for task in chosen:
        written = project / "exports/recommended" / task / "model.keras"
        assert (tmp_path / "got" / task / "model.keras").read_bytes() == written.read_bytes()
    run(project, "git", "checkout", "-q", "HEAD~1", "--", "params.yaml")
    assert ran(dvc(project, "repro")) == {"evaluate", "report"}
    assert "b-all-layers" in metrics(project)
    run(project, "git", "reset", "-q", "--hard", "HEAD~1")


def test_the_same_study_in_another_copy_gives_the_same_bytes(finished, tmp_path):
    folder, done = finished
    other = copy_of_project(tmp_path)
    edit_study(other, few_epochs)
    run_in_one_process(other, re.findall(r"Running stage '([^']+)'", done.stdout))
    locks = [read_yaml(run(folder, "git", "show", "HEAD:dvc.lock").stdout), read_yaml(other / "dvc.lock")]
    outs = [{out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]} for lock in locks]
    differ = {path for path in outs[0] if outs[0][path] != outs[1][path]}
    # Seconds differ, and with them what shows them, and which of several models is the cheapest.
    shows_cost = (
        "data/costs/",
        "exports/recommended/",
        *(
            f"reports/{file}"
            for file in ("metrics", "models", "summary", "comparisons", "recommended", "report", "figures")
        ),
    )
    assert outs[0].keys() == outs[1].keys()
    assert sorted(path for path in differ if not path.startswith(shows_cost)) == []
    found = [json.loads(run(folder, "git", "show", "HEAD:reports/metrics.json").stdout), metrics(other)]
    for model in [model for each in found for model in each.values()]:
        for measure in ("seconds", "total_seconds", "images_per_second"):
            del model["cost"][measure]
    assert found[0] == found[1]
