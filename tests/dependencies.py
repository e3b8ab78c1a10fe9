"""The files of this project that each stage imports: `python -m tests.dependencies [--write] [stage ...]`.

Prints them as `dvc.yaml` lists them under `deps`; with --write, replaces them there. All import statements count, also
those inside functions, but for `if TYPE_CHECKING`, which runs nothing. A folder stands for its files if a stage
imports all of them. `__init__.py` files hold a docstring and are left out: `tests/test_pipeline.py` holds that.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PIPELINE = ROOT / "dvc.yaml"

# Files that a module reads when it runs.
READ_BY_MODULES = {
    "stages/backbones/layer_table.py": {"stages/backbones/layers.json"},
    "stages/backbones/known_presets.py": {"stages/backbones/presets.json"},
    "stages/reporting/page.py": {
        "stages/reporting/page.js",
        "stages/reporting/report.html.j2",
        "stages/reporting/report.md.j2",
    },
}


def stages() -> dict[str, dict]:
    """The stages of dvc.yaml; of a group, what `do` says of each member."""
    content = yaml.safe_load(PIPELINE.read_text(encoding="utf-8"))
    return {name: stage.get("do", stage) for name, stage in content["stages"].items()}


def module_of(stage: dict) -> str:
    """The file that a stage runs: stages/<name>.py for `python -m stages.<name> ...`."""
    return f"stages/{stage['cmd'].split()[2].removeprefix('stages.')}.py"


def module_file(name: str) -> str | None:
    """The file of a module of this project; None for packages, for names in a module and for other libraries."""
    file = f"{name.replace('.', '/')}.py"
    return file if name.startswith("stages.") and (ROOT / file).exists() else None


@cache
def imported_names(file: str) -> frozenset[str]:
    """The modules that a file imports, and `module.name` for each name that it imports from one."""
    names = set()
    for node in _nodes_that_run(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{file}: write imports of this project in full")
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def _nodes_that_run(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            child = ast.Module(child.orelse, [])
        yield child
        yield from _nodes_that_run(child)


def imported_files(file: str) -> set[str]:
    """The files of this project that a file imports directly."""
    return {path for name in imported_names(file) if (path := module_file(name))}


def import_chains(file: str) -> dict[str, list[str]]:
    """Every file of this project that a file imports directly or not, and itself -> a shortest chain of imports."""
    chains, waiting = {file: [file]}, [file]
    for importer in waiting:
        for imported in sorted(imported_files(importer) - chains.keys()):
            chains[imported] = [*chains[importer], imported]
            waiting.append(imported)
    return chains


def files_of(stage: dict) -> set[str]:
    """The files of this project that decide what a stage writes."""
    modules = set(import_chains(module_of(stage)))
    return modules.union(*(READ_BY_MODULES.get(module, ()) for module in modules))


def files_in(path: str) -> set[str]:
    """What a line of `deps` stands for: a file itself, a folder its files but for __init__.py."""
    if not (ROOT / path).is_dir():
        return {path}
    return {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / path).rglob("*")
        if file.is_file() and file.name != "__init__.py" and "__pycache__" not in file.parts
    }


def code_deps(stage: dict) -> list[str]:
    """The lines of `deps` that name code: folders first, then files, the stage's own module last."""
    files, own = files_of(stage), module_of(stage)
    packages = sorted(str(path.parent.relative_to(ROOT).as_posix()) for path in ROOT.glob("stages/*/__init__.py"))
    folders = [package for package in packages if files_in(package) <= files]
    covered = {own}.union(*map(files_in, folders))
    return [*sorted([*folders, *(files - covered)]), own]


def rewritten(text: str, deps: dict[str, list[str]]) -> str:
    """dvc.yaml with other lines of code under `deps`: they go where the first of them was, or after the last other."""
    lines = []
    for block in re.split(r"(?m)^(?=  \w+:\n)", text):
        stage = re.match(r"  (\w+):\n", block)
        lines.append(_with_code(block, deps[stage[1]]) if stage and stage[1] in deps else block)
    return "".join(lines)


def _with_code(block: str, files: list[str]) -> str:
    def replaced(match: re.Match) -> str:
        items = match["items"].splitlines(keepends=True)
        is_code = [bool(re.match(r"\s*- stages/", item)) for item in items]
        position = is_code.index(True) if any(is_code) else len(items)
        others = [item for item, code in zip(items, is_code, strict=True) if not code]
        return match["head"] + "".join(
            [*others[:position], *(f"{match['indent']}- {f}\n" for f in files), *others[position:]]
        )

    return re.sub(
        r"(?P<head>(?P<indent> +)deps:\n)(?P<items>(?:(?P=indent)(?:  )?(?:- |#).*\n)*)", replaced, block, count=1
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", nargs="*", help="stages of dvc.yaml; all by default")
    parser.add_argument("--write", action="store_true", help="replace the lines in dvc.yaml")
    arguments = parser.parse_args()
    deps = {}
    for name, stage in stages().items():
        if arguments.stage and name not in arguments.stage:
            continue
        if (ROOT / module_of(stage)).exists():
            deps[name] = code_deps(stage)
        else:
            print(f"{name}: {module_of(stage)} does not exist", file=sys.stderr)
    if arguments.write:
        PIPELINE.write_text(rewritten(PIPELINE.read_text(encoding="utf-8"), deps), encoding="utf-8")
    else:
        for name, lines in deps.items():
            print(f"{name}:", *(f"- {line}" for line in lines), sep="\n  ")


if __name__ == "__main__":
    main()
