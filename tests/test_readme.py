"""The README has valid examples and links every page and study."""

import re
from pathlib import Path

import pydantic

from stages.validation.study import SECTIONS, validate_study
from tests.pipeline import read_yaml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = [read_yaml(block) for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)]


def test_the_example_entries_are_valid():
    entries = [
        (section, entry)
        for example in EXAMPLES
        for section, entries_by_name in example.items()
        for entry in entries_by_name.values()
    ]
    assert entries
    for section, entry in entries:
        pydantic.TypeAdapter(SECTIONS[section]).validate_python(entry, strict=True)


def test_the_default_study_is_valid_with_the_example_entries():
    study = read_yaml(ROOT / "params.yaml")
    for example in EXAMPLES:
        for section, entries in example.items():
            study[section] = study[section] | entries
    assert validate_study(study)[1] == []


def test_the_values_set_by_commands_are_in_the_default_study():
    study = read_yaml(ROOT / "params.yaml")
    settings = re.findall(r"-S ([\w.-]+)=", README)
    assert settings
    for setting in settings:
        value = study
        for key in setting.split("."):
            value = value[key]


def test_the_readme_links_every_page():
    pages = [page.relative_to(ROOT).as_posix() for page in [ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]]
    assert [page for page in pages if f"]({page})" not in README] == []


def test_the_readme_links_every_ready_study():
    assert [path.stem for path in (ROOT / "studies").glob("*.yaml") if f"](studies/{path.name})" not in README] == []
