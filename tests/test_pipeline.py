"""dvc.yaml says exactly what each stage reads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from stages.validation.study import validate_study
from tests.pipeline import read_yaml

ROOT = Path(__file__).parents[1]
STAGES = read_yaml(ROOT / "dvc.yaml")["stages"]


def definition(stage: str) -> dict:
    return STAGES[stage].get("do", STAGES[stage])


def module_name(stage: str) -> str:
    """Two stages prepare images: of what is fetched, and of folders of this machine."""
    return "prepare" if stage == "prepare_folder" else stage


def module_file(name: str) -> Path | None:
    path = ROOT / name.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)


def imported_by(file: Path) -> set[Path]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {module_file(name) for name in names if name.startswith("stages.")} - {None}


def modules_of(stage: str) -> set[Path]:
    """Every file of the project that `python -m stages.<stage>` imports, but for the packages' docstrings."""
    seen, waiting = set(), {module_file(f"stages.{module_name(stage)}")}
    while waiting:
        file = waiting.pop()
        seen.add(file)
        waiting |= imported_by(file) - seen
    return {file for file in seen if file.name != "__init__.py" or file.parent.name == "study"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_exactly_the_modules_it_imports(stage):
    listed = [ROOT / dep for dep in definition(stage)["deps"] if dep.startswith("stages/")]
    modules = modules_of(stage)
    uncovered = {file for file in modules if not any(file.is_relative_to(path) for path in listed)}
    needless = {path for path in listed if not any(file.is_relative_to(path) for file in modules)}
    assert not uncovered, "dvc.yaml leaves out modules that the stage imports"
    assert not needless, "dvc.yaml lists modules that the stage does not import"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_says_what_it_does_and_runs_the_module_of_its_name(stage):
    described = definition(stage)
    assert described["desc"]
    entry = " ${key}" if "foreach" in STAGES[stage] else ""
    assert described["cmd"] == f"python -m stages.{module_name(stage)}{entry}"


def test_dvc_accepts_every_stage_of_the_study():
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--name-only", "--fail"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {"download@digits", "train@a-scratch", "fine_tune@b-top-conv", "report"} <= set(done.stdout.split())


def test_the_study_that_measures_the_pipeline_is_sound_and_has_forty_stages():
    pytest.importorskip("resource")  # there is none on Windows
    from benchmarks import pipeline

    params = pipeline.study_of(pipeline.MANY)
    assert validate_study(params)[1] == []
    entries = sum(len(params[STAGES[stage]["foreach"][2:-1]]) for stage in STAGES if "foreach" in STAGES[stage])
    assert entries + sum("foreach" not in of for of in STAGES.values()) >= 40
    assert pipeline.modules() == list(dict.fromkeys(map(module_name, STAGES)))
