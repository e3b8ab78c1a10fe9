"""The entries, files, stages and commands that README.md names exist."""

import re
from pathlib import Path

import pydantic

from stages.validation.study import SECTIONS, validate_study
from tests.pipeline import read_yaml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_entries_in_the_readme_are_valid():
    blocks = [read_yaml(block) for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)]
    entries = [(section, entry) for block in blocks for section, added in block.items() for entry in added.values()]
    assert entries
    for section, entry in entries:
        pydantic.TypeAdapter(SECTIONS[section]).validate_python(entry, strict=True)


def test_the_default_study_stays_valid_with_the_entries_of_the_readme():
    study = read_yaml(ROOT / "params.yaml")
    for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL):
        for section, added in read_yaml(block).items():
            study[section] = study[section] | added
    assert validate_study(study)[1] == []


def test_the_values_that_the_readme_sets_exist_in_the_study():
    study = read_yaml(ROOT / "params.yaml")
    settings = re.findall(r"-S ([\w.-]+)=", README)
    assert settings
    for setting in settings:
        value = study
        for key in setting.split("."):
            value = value[key]


def test_every_file_that_the_readme_links_exists():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert len(links) >= 5
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_readme_links_every_page():
    pages = [page.relative_to(ROOT).as_posix() for page in [ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]]
    assert [page for page in pages if f"]({page})" not in README] == []


def test_the_readme_links_every_ready_study():
    assert [path.stem for path in (ROOT / "studies").glob("*.yaml") if f"](studies/{path.name})" not in README] == []
