"""dvc.yaml lists exactly the files that each stage imports, and the packages of stages/ keep to their order."""

import ast
import re
import shutil
from collections import defaultdict
from pathlib import Path

import pytest

from stages.validation.study import validate_study
from tests import dependencies
from tests.dependencies import ROOT, files_in, import_chains, module_of
from tests.pipeline import copy_of_project, dvc, read_yaml, run, write_study
from tests.small_project import STUDY

GROUPS = read_yaml(ROOT / "dvc.yaml")["stages"]
STAGES = dependencies.stages()
MODULES = sorted(file.relative_to(ROOT).as_posix() for file in (ROOT / "stages").rglob("*.py"))
STAGE_MODULES = [module for module in MODULES if module.count("/") == 1 and not module.endswith("__init__.py")]

# Each package imports only those listed before it.
PACKAGES = [
    "core", "config", "artifacts", "sources", "splitting", "backbones", "probes", "training", "evaluation",
    "reporting", "validation", "cluster",
]  # fmt: skip
DEEP_LEARNING = {"keras", "tensorflow", "tf2onnx", "keras_hub"}
WITHOUT_DEEP_LEARNING = [
    "check", "download", "prepare", "split", "probe", "evaluate", "compare", "mistakes", "report", "run",
    "interim_report",
]  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_exactly_the_files_it_imports(stage):
    listed = [dep for dep in STAGES[stage]["deps"] if dep.startswith("stages/")]
    listed_files = set().union(*map(files_in, listed))
    files = dependencies.files_of(STAGES[stage])
    hint = "run `python -m tests.dependencies --write`"
    assert sorted(files - listed_files) == [], f"dvc.yaml does not list files that {stage} imports: {hint}"
    assert sorted(listed_files - files) == [], f"dvc.yaml lists files that {stage} does not import: {hint}"
    assert len(listed) == len(set(listed))


def test_imports_under_type_checking_are_no_dependencies_and_imports_in_functions_are(tmp_path, monkeypatch):
    monkeypatch.setattr(dependencies, "ROOT", tmp_path)
    dependencies.imported_names.cache_clear()
    (tmp_path / "stages/core").mkdir(parents=True)
    for name in ("a", "b", "c", "d"):
        (tmp_path / f"stages/core/{name}.py").write_text("")
    (tmp_path / "stages/core/a.py").write_text("from stages.core import c\n")
    (tmp_path / "stages/run.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import stages.core.d\nelse:\n    import stages.core.b\n"
        "def main():\n    from stages.core.a import name\n"
    )
    assert import_chains("stages/run.py") == {
        "stages/run.py": ["stages/run.py"],
        "stages/core/a.py": ["stages/run.py", "stages/core/a.py"],
        "stages/core/b.py": ["stages/run.py", "stages/core/b.py"],
        "stages/core/c.py": ["stages/run.py", "stages/core/a.py", "stages/core/c.py"],
    }
    dependencies.imported_names.cache_clear()


def test_code_dependencies_are_replaced_where_they_were_and_other_lines_stay():
    before = (
        "# a comment\nstages:\n  check:\n    deps:\n    - params.yaml\n    outs:\n    - data/check\n\n"
        "  train:\n    foreach: ${networks}\n    do:\n      deps:\n      # first\n      - data/check\n"
        "      - stages/old\n      - stages/train.py\n      - data/raw/${key}\n      outs:\n      - stages/no-dep\n"
    )
    assert dependencies.rewritten(before, {"check": ["stages/check.py"], "train": ["stages/core"]}) == (
        "# a comment\nstages:\n  check:\n    deps:\n    - params.yaml\n    - stages/check.py\n    outs:\n"
        "    - data/check\n\n  train:\n    foreach: ${networks}\n    do:\n      deps:\n      # first\n"
        "      - data/check\n      - stages/core\n      - data/raw/${key}\n      outs:\n      - stages/no-dep\n"
    )


def test_every_data_file_of_the_code_is_a_dependency_of_the_module_that_reads_it():
    data = {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "stages").rglob("*")
        if file.is_file() and file.suffix not in (".py", ".pyc")
    }
    assert data == set().union(*dependencies.READ_BY_MODULES.values())


def test_modules_are_imported_by_import_statements_alone():
    for module in MODULES:
        text = (ROOT / module).read_text(encoding="utf-8")
        assert "import_module" not in text and "__import__" not in text, module


def test_the_packages_init_files_hold_a_docstring_alone():
    for module in MODULES:
        if module.endswith("__init__.py"):
            body = ast.parse((ROOT / module).read_text(encoding="utf-8")).body
            assert ast.get_docstring(ast.Module(body, [])), module
            code = [ast.unparse(statement) for statement in body[1:]]
            # The level of TensorFlow's log lines, which changes no result.
            log_level = ["import os", "os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')"]
            assert code == (log_level if module == "stages/__init__.py" else []), module


def package_of(module: str) -> str | None:
    """The package of a module; None for the stages' own modules."""
    return module.split("/")[1] if module.count("/") == 2 else None


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_those_below_it(package):
    allowed = PACKAGES[: PACKAGES.index(package) + 1]
    wrong = [
        (module, imported)
        for module in MODULES
        if package_of(module) == package
        for imported in sorted(dependencies.imported_files(module))
        if package_of(imported) not in allowed
    ]
    assert wrong == []


def test_every_package_has_a_layer():
    assert sorted(path.parent.name for path in ROOT.glob("stages/*/__init__.py")) == sorted(PACKAGES)


def test_only_the_check_imports_the_validation():
    importers = {
        module
        for module in MODULES
        if package_of(module) != "validation"
        and any(package_of(imported) == "validation" for imported in dependencies.imported_files(module))
    }
    assert importers == {"stages/check.py"}


@pytest.mark.parametrize("stage", WITHOUT_DEEP_LEARNING)
def test_a_light_stage_imports_no_deep_learning_framework(stage):
    chains = import_chains(f"stages/{stage}.py")
    wrong = {
        name: chains[module]
        for module in chains
        for name in dependencies.imported_names(module)
        if name.split(".")[0] in DEEP_LEARNING
    }
    assert wrong == {}


@pytest.mark.parametrize("module", STAGE_MODULES)
def test_a_stage_module_has_at_most_120_lines(module):
    assert len((ROOT / module).read_text(encoding="utf-8").splitlines()) <= 120


def definitions(kind: type | tuple) -> list:
    return [
        (module, node)
        for module in MODULES
        for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8")))
        if isinstance(node, kind)
    ]


def test_no_function_takes_more_than_six_parameters():
    counts = {}
    for module, function in definitions((ast.FunctionDef, ast.AsyncFunctionDef)):
        arguments = function.args
        names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        names += [argument.arg for argument in (arguments.vararg, arguments.kwarg) if argument]
        counts[f"{module}: {function.name}"] = len(names) - (names[:1] in (["self"], ["cls"]))
    assert {function: count for function, count in counts.items() if count > 6} == {}


def test_no_two_public_classes_share_a_name():
    modules = defaultdict(list)
    for module, defined in definitions(ast.ClassDef):
        if not defined.name.startswith("_"):
            modules[defined.name].append(module)
    assert {name: files for name, files in modules.items() if len(files) > 1} == {}


def test_constants_for_folders_say_which_folder():
    bare = [
        module
        for module, assignment in definitions(ast.Assign)
        if "FOLDER" in [target.id for target in assignment.targets if isinstance(target, ast.Name)]
    ]
    assert bare == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_a_description_and_runs_a_module_of_its_entry(stage):
    assert STAGES[stage]["desc"]
    # Two stages prepare images: downloaded ones, and those of local folders.
    module = "prepare" if stage == "prepare_folder" else stage
    arguments = {"check": " --clean"}.get(stage, " ${key}" if "foreach" in GROUPS[stage] else "")
    assert STAGES[stage]["cmd"] == f"python -m stages.{module}{arguments}"


def test_git_ignores_what_stages_write_and_a_linked_environment_but_not_the_pages_that_describe_them(tmp_path):
    run(tmp_path, "git", "init", "-q")
    shutil.copy(ROOT / ".gitignore", tmp_path)
    for file in ("data/README.md", "data/raw/digits/a", "models/README.md", "models/a/record.json", "exports/a.keras"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("")
    (tmp_path / ".venv").symlink_to(tmp_path.parent)
    listed = run(tmp_path, "git", "ls-files", "--others", "--exclude-standard").stdout.split()
    assert listed == [".gitignore", "data/README.md", "models/README.md"]


def test_no_stage_depends_on_the_pages_in_the_folders_that_stages_write():
    pages = ["data/README.md", "models/README.md"]
    assert all((ROOT / page).exists() for page in pages)
    assert dvc(ROOT, "check-ignore", *pages).stdout.split() == pages


def test_dvc_accepts_every_stage_of_the_study():
    listed = dvc(ROOT, "stage", "list", "--name-only", "--fail").stdout.split()
    assert {"download@digits", "train@a-scratch", "fine_tune@b-top-conv", "report"} <= set(listed)


def test_the_study_that_measures_the_pipeline_is_valid_and_has_forty_stages():
    pytest.importorskip("resource")  # Windows does not have it
    from benchmarks import pipeline

    params = pipeline.study_of(pipeline.MANY)
    assert validate_study(params)[1] == []
    members = [len(params[group["foreach"][2:-1]]) if "foreach" in group else 1 for group in GROUPS.values()]
    assert sum(members) >= 40
    assert pipeline.modules() == [Path(module).stem for module in dict.fromkeys(map(module_of, STAGES.values()))]


def test_cheap_models_run_before_expensive_ones(tmp_path):
    copy_of_project(tmp_path)
    entry, images = {"task": "all"}, {"dataset": "digits", "task": "all"}
    study = {
        **STUDY,
        "tasks": {"all": {"dataset": "digits", "validation": 0.1, "test": 0.2}},
        "networks": {"scratch": {**images, "backbone": "four-conv"}, "base": {**images, "backbone": "four-conv"}},
        "features": {
            "of-trained": {"dataset": "digits", "backbone": "base", "cut": "fc1"},
            "pooled": {"dataset": "digits", "backbone": "four-conv", "cut": "pool2", "pooling": "average"},
            "for-tuning": {"dataset": "digits", "backbone": "four-conv", "cut": "pool1"},
        },
        "heads": {"frozen": {**entry, "features": "pooled"}, "on-trained": {**entry, "features": "of-trained"}},
        "probes": {"ridge": {**entry, "features": "pooled"}},
        "fine_tunes": {
            "tuned": {
                **images, "backbone": "four-conv", "head": "frozen", "features": "for-tuning", "unfreeze": "conv4",
            }
        },
    }  # fmt: skip
    write_study(tmp_path, study)
    order = re.findall(r"Running stage '([^']+)'", dvc(tmp_path, "repro", "--dry", "--force").stdout)
    assert [stage for stage in order if stage.split("@")[0] in ("probe", "head", "train", "fine_tune", "features")] == [
        *("features@pooled", "probe@ridge", "head@frozen"),
        *("train@base", "features@of-trained", "head@on-trained"),  # a head on a network of the study has to wait
        *("features@for-tuning", "fine_tune@tuned", "train@scratch"),
    ]
