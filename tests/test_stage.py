"""The start of a stage: its entry, its exit, and settings that change while it runs."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from stages.core.stage import run_stage
from stages.core.yaml import read_yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def default_study(tmp_path, monkeypatch):
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("arguments", "given"), [([], ""), (["a", "b"], ", but got 'a b'"), (["c"], ", but got 'c'")])
def test_a_stage_takes_one_of_its_entries(arguments, given, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["split.py", *arguments])
    with pytest.raises(SystemExit) as exit_:
        run_stage(lambda *_: pytest.fail("worked"), "tasks")
    assert exit_.value.code == 1
    assert capsys.readouterr().err == (
        f"split: python -m stages.split takes the name of one entry of tasks{given}. "
        "Entries in params.yaml: digits-a, digits-b.\n"
    )


def test_a_stage_works_on_the_given_entry(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["split.py", "digits-a"])
    run_stage(lambda params, name: f"validation {params.entry('tasks', name)['validation']}", "tasks")
    assert capsys.readouterr().out == "split digits-a: validation 0.1\n"


@pytest.mark.parametrize(
    ("command", "section", "entry", "changed"),
    [
        ("head b-one-layer", "heads", "b-one-layer", "heads.b-one-layer"),
        ("head b-one-layer", "heads", "b-two-layers", None),
        ("head b-one-layer", "training", None, "training"),
        ("features b-fc1", "training", None, None),
        ("prepare digits", "datasets", "digits", "datasets.digits"),
        ("evaluate", "seed", None, "seed"),
        ("report", "heads", "b-one-layer", None),
    ],
)
def test_a_result_whose_settings_change_during_the_run_is_refused(
    command, section, entry, changed, monkeypatch, capsys
):
    stage, *arguments = command.split()
    monkeypatch.setattr(sys, "argv", [f"stages/{stage}.py", *arguments])
    sections = {"head": ["heads"], "features": ["features"], "prepare": ["datasets"]}.get(stage, [])

    def work(*_):
        study = read_yaml(Path("params.yaml"))
        if entry:
            study[section][entry]["new"] = 1
        elif section == "seed":
            study["seed"] += 1
        else:
            study[section]["new"] = 1
        Path("params.yaml").write_text(json.dumps(study))
        return "done"

    if changed is None:
        run_stage(work, *sections)
        assert capsys.readouterr().out.endswith(": done\n")
        return
    with pytest.raises(SystemExit) as exit_:
        run_stage(work, *sections)
    assert exit_.value.code == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"{stage}: {changed} changed in params.yaml while the stage ran, ")
    assert not printed.out
