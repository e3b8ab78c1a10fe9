"""The default study, with few epochs, in a copy of the project: what runs again after which change."""

import json
import re

import pytest
import vl_convert
from dvc.repo import Repo

from tests.pipeline import (
    ROOT,
    commit,
    copy_of_project,
    dvc,
    edit_study,
    read_yaml,
    run,
    run_in_one_process,
    stages_run,
)

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SHARING = (ROOT / "docs/sharing.md").read_text(encoding="utf-8")
# Rows of a change, a file as an example, and the stages that depend on it.
CHANGES = re.findall(r"^\|[^|]+\| `(stages/[^`]+)` \| ([^|]+) \|$", CONTRIBUTING, re.MULTILINE)
REPORTS = {"evaluate", "compare", "report"}
# The settings of augmentation are among their params.
GALLERIES = {"gallery@digits-a", "gallery@digits-b"}


def few_epochs(study: dict) -> None:
    for section in ("networks", "heads", "fine_tunes"):
        for entry in study[section].values():
            entry["epochs"] = 2
    study["training"]["repeats"] = 2
    for name in ("a-scratch", "b-scratch"):  # the other models show the repeats
        study["networks"][name] |= {"max_train_per_class": 10, "repeats": 1}


def stages_of(study: dict) -> list[str]:
    """The stages of a study, each after those that it depends on."""
    definitions, stages = read_yaml(ROOT / "dvc.yaml")["stages"], []
    # dvc.yaml has what takes long last, and DVC runs it earlier where other stages need it.
    order = [stage for stage in definitions if stage not in ("train", "features")]
    order[order.index("probe") : order.index("probe")] = ["train", "features"]
    for stage in order:
        definition = definitions[stage]
        if "foreach" in definition:
            stages += [f"{stage}@{entry}" for entry in study[definition["foreach"][2:-1]]]
        elif stage != "check":
            stages.append(stage)
    return stages


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A copy of the project in which the study has run, committed."""
    folder = copy_of_project(tmp_path_factory.mktemp("project"))
    edit_study(folder, few_epochs)
    stages = stages_of(read_yaml(folder / "params.yaml"))
    assert set(dvc(folder, "stage", "list", "--name-only").stdout.split()) == {"check", *stages}
    run_in_one_process(folder, stages)
    commit(folder)
    return folder


@pytest.fixture
def project(finished):
    """That copy, with everything as it was committed."""
    run(finished, "git", "checkout", "-q", "--", ".")
    dvc(finished, "checkout", "-q")
    return finished


def metrics(folder) -> dict:
    return json.loads((folder / "reports/metrics.json").read_text())


def recommended(folder) -> dict[str, str]:
    """Task -> its recommended model."""
    comparisons = json.loads((folder / "reports/comparisons.json").read_text())
    return {task: comparison["recommended"] for task, comparison in comparisons.items()}


def ran(done) -> set[str]:
    """The stages that have run, without `recommend`, which depends on the recommended model."""
    return {stage for stage in stages_run(done) if not stage.startswith("recommend@")}


def test_every_model_has_metrics_and_files_and_is_in_the_report(finished):
    study = read_yaml(finished / "params.yaml")
    models = [model for section in ("networks", "heads", "probes", "fine_tunes") for model in study[section]]
    assert set(metrics(finished)) == set(models)
    for model, values in metrics(finished).items():
        assert {"train", "validation", "test", "cost"} <= set(values), model
        assert 0 <= values["test"]["accuracy"] <= 1 and values["test"]["loss"] > 0
        assert {"seconds", "images_per_second", "trained_parameters", "total_parameters"} <= set(values["cost"])
        assert (finished / "models" / model / "record.json").stat().st_size > 0
        for page in ("report.html", "report.md"):
            assert model in (finished / "reports" / page).read_text()
    assert (finished / "data/README.md").exists() and (finished / "models/README.md").exists()


def test_running_again_runs_nothing(project):
    done = dvc(project, "repro")
    assert not stages_run(done)
    assert "up to date" in done.stdout
    assert not run(project, "git", "status", "--porcelain").stdout


def changed_stages(project, monkeypatch) -> set[str]:
    """The stages that `dvc status` calls changed; of a group, the name before the @."""
    monkeypatch.chdir(project)
    with Repo() as repo:
        return {stage.partition("@")[0] for stage in repo.status()}


def touch(file) -> None:
    comment = "{# changed #}\n" if file.suffix == ".j2" else "# changed\n"
    file.write_text(file.read_text(encoding="utf-8") + comment, encoding="utf-8")


@pytest.mark.parametrize(("file", "stages"), CHANGES)
def test_a_change_of_code_changes_the_stages_that_contributing_lists(project, monkeypatch, file, stages):
    touch(project / file)
    assert changed_stages(project, monkeypatch) == set(re.findall(r"`(\w+)`", stages))


def test_contributing_has_a_change_for_every_kind_of_stage():
    listed = {stage for _, stages in CHANGES for stage in re.findall(r"`(\w+)`", stages)}
    assert listed >= {"check", "prepare", "gallery", "train", "features", "head", "probe", "fine_tune", *REPORTS}


def test_a_source_that_gives_equal_images_reruns_only_prepare(project):
    touch(project / "stages/sources/archives.py")
    assert stages_run(dvc(project, "repro")) == {"prepare@digits"}


def test_an_edit_that_changes_no_result_is_committed_without_a_run(project, monkeypatch):
    touch(project / "stages/training/schedules.py")
    (command,) = re.findall(r"^dvc (commit .+)$", CONTRIBUTING, re.MULTILINE)
    dvc(project, *command.split())
    assert changed_stages(project, monkeypatch) == set()
    assert not stages_run(dvc(project, "repro"))


def test_another_learning_rate_of_a_head_reruns_it_and_the_stages_that_depend_on_it(project):
    before = recommended(project)
    done = dvc(project, "exp", "run", "-S", "heads.b-two-layers.learning_rate=3e-03")
    assert ran(done) == {"head@b-two-layers", "fine_tune@b-top-conv", "mistakes@digits-b", *REPORTS}
    assert read_yaml(project / "params.yaml")["heads"]["b-two-layers"]["learning_rate"] == 0.003
    for task, model in recommended(project).items():
        retrained = {"b-two-layers", "b-top-conv"} & {model, before[task]}
        assert (f"recommend@{task}" in stages_run(done)) == (model != before[task] or bool(retrained))
    changes = json.loads(dvc(project, "metrics", "diff", "--json").stdout)
    assert changes["reports/summary/b-two-layers.json"]["seconds"]["diff"] != 0
    assert "reports/summary/b-one-layer.json" not in changes and "reports/summary/b-scratch.json" not in changes
    table = dvc(project, "metrics", "show", "--md", "reports/summary").stdout.strip().splitlines()
    assert len(table) == 2 + len(metrics(project)) and max(map(len, table)) < 180
    check_plots(project)


def check_plots(project) -> None:
    """The plots of the working tree beside those of HEAD can be drawn, and show all models of both."""
    plots = json.loads(dvc(project, "plots", "diff", "HEAD", "--json").stdout)["data"]
    definitions = {name: plot for plots in read_yaml(project / "dvc.yaml")["plots"] for name, plot in plots.items()}
    models = list(metrics(project))
    per_model = {f"reports/confusion/{model}.csv" for model in models}
    assert plots.keys() == definitions.keys() - {"reports/confusion"} | per_model
    for name, (plot,) in plots.items():
        assert plot["revisions"] == ["workspace", "HEAD"]
        svg = vl_convert.vegalite_to_svg(plot["content"])
        texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
        title = name if name in per_model else definitions[name]["title"]
        assert {title, "workspace", "HEAD"} <= set(texts), name
        if name not in per_model:
            assert set(models) <= set(texts), name
            assert len(re.findall(r'aria-roledescription="(?:bar|line mark)"', svg)) == 2 * len(models), name


def test_a_setting_that_is_changed_back_trains_nothing_even_after_an_invalid_one(project):
    before = metrics(project)
    edit_study(project, lambda study: study["heads"]["b-one-layer"].update(learning_rate=0.002))
    assert ran(dvc(project, "repro")) == {"head@b-one-layer", "mistakes@digits-b", *REPORTS}
    edit_study(project, lambda study: study["heads"]["b-one-layer"].update(learning_rate=-1))
    done = dvc(project, "repro", fails=True)
    assert re.search(r"heads\.b-one-layer\.learning_rate: .*-1", done.stderr + done.stdout)
    assert "Traceback" not in done.stderr + done.stdout
    run(project, "git", "checkout", "-q", "--", "params.yaml")
    done = dvc(project, "repro")
    assert "head@b-one-layer' is cached" in done.stdout
    assert ran(done) <= REPORTS  # the run-cache has them after a commit to DVC, but not after a run
    assert metrics(project) == before


def test_a_removed_model_is_removed_with_its_files_and_comes_back_from_the_cache(project):
    edit_study(project, lambda study: study["networks"].pop("b-all-layers"))
    assert ran(dvc(project, "repro")) == {"mistakes@digits-b", *GALLERIES, *REPORTS}
    assert "b-all-layers" not in metrics(project)
    assert "b-all-layers" not in (project / "reports/report.html").read_text()
    assert not (project / "models/b-all-layers").exists()
    assert (project / "models/README.md").exists()
    run(project, "git", "checkout", "-q", "--", "params.yaml")
    assert ran(dvc(project, "repro")) <= REPORTS
    assert "b-all-layers" in metrics(project)


def test_the_recommended_models_of_a_registered_version_can_be_fetched(project, tmp_path):
    run(project, "gto", "register", "recommended")
    dvc(tmp_path, "artifacts", "get", str(project), "recommended", "-o", "fetched")
    for task, model in recommended(project).items():
        exported = project / "exports/recommended" / task / "model.keras"
        fetched = tmp_path / "fetched" / task
        assert json.loads((fetched / "model.json").read_text())["model"] == model
        assert (fetched / "model.keras").read_bytes() == exported.read_bytes()


@pytest.fixture
def remote(project, tmp_path):
    """The folder of a clone that has the remote to which the project was pushed."""
    dvc(project, "remote", "add", "-d", "team", str(tmp_path / "remote"))
    dvc(project, "push")
    commit(project)
    run(tmp_path, "git", "clone", "-q", str(project), "clone")
    yield tmp_path / "clone"
    run(project, "git", "reset", "-q", "--hard", "HEAD~1")


def artifacts(project):
    """Every file that stages wrote: its path -> its bytes."""
    folders = ("data", "models", "reports", "exports")
    files = [path for folder in folders for path in (project / folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(project)): path.read_bytes() for path in files if "checkpoints" not in path.parts}


def test_a_second_person_runs_no_stage(project, remote):
    assert not stages_run(dvc(remote, "repro", "--pull"))
    assert artifacts(remote) == artifacts(project)
    assert not run(remote, "git", "status", "--porcelain").stdout


def test_a_second_person_fetches_and_runs_only_what_a_changed_head_needs(remote):
    edit_study(remote, lambda study: study["heads"]["b-one-layer"].update(learning_rate=0.01))
    (pull,) = re.findall(r"^dvc pull \$.*", SHARING, re.MULTILINE)
    run(remote, "bash", "-euo", "pipefail", "-c", pull)
    done = dvc(remote, "repro", "--pull", "--allow-missing")
    assert ran(done) == {"head@b-one-layer", "mistakes@digits-b", *REPORTS}
    fetched = ("data/features/b-fc1", "data/images/digits", "data/weights/a-scratch")
    assert [path for path in fetched if not (remote / path).exists()] == []
    needless = ("data/raw/digits", "data/features/b-flatten")
    assert [path for path in needless if (remote / path).exists()] == []
