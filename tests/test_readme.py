"""The README tells the truth where it can be asked."""

import re
from pathlib import Path
from typing import get_args

import pydantic

from stages.config.datasets import (
    ArchiveConfig,
    Cifar10Config,
    CsvConfig,
    DigitsConfig,
    FilesConfig,
    FlowersConfig,
    FolderConfig,
    KaggleConfig,
)
from stages.validation.study import SECTIONS, validate_study
from tests.pipeline import read_yaml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_entries_in_the_readme_are_sound():
    blocks = [read_yaml(block) for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)]
    entries = [(section, entry) for block in blocks for section, of in block.items() for entry in of.values()]
    assert entries
    for section, entry in entries:
        pydantic.TypeAdapter(SECTIONS[section]).validate_python(entry, strict=True)


def test_what_the_readme_adds_to_the_study_goes_with_it():
    study = read_yaml(ROOT / "params.yaml")
    for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL):
        for section, added in read_yaml(block).items():
            study[section] = study[section] | added
    assert validate_study(study)[1] == []


def test_every_source_is_in_the_readme_with_its_keys():
    shared = set(FilesConfig.model_fields) | {"source"}
    for source in (DigitsConfig, Cifar10Config, FlowersConfig, ArchiveConfig, KaggleConfig, FolderConfig, CsvConfig):
        name = get_args(source.model_fields["source"].annotation)[0]
        row = next(line for line in README.splitlines() if line.startswith(f"| `{name}` |"))
        optional = {"sha256", "md5", "subfolder"} if source in (Cifar10Config, FlowersConfig) else set()
        assert set(source.model_fields) - shared - optional <= set(re.findall(r"`(\w+)`", row)), name


def test_the_values_that_the_readme_sets_are_in_the_study():
    study = read_yaml(ROOT / "params.yaml")
    settings = re.findall(r"-S ([\w.-]+)=", README)
    assert settings
    for setting in settings:
        value = study
        for key in setting.split("."):
            value = value[key]


def test_every_file_that_the_readme_links_is_there():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert len(links) >= 5
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_stage_is_in_the_readme():
    stages = read_yaml(ROOT / "dvc.yaml")["stages"]
    assert [stage for stage in stages if f"`{stage}`" not in README] == []


def test_every_page_is_linked_from_the_readme():
    pages = [page.relative_to(ROOT).as_posix() for page in [ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]]
    assert [page for page in pages if f"]({page})" not in README] == []


def test_every_ready_study_is_in_the_readme():
    assert [path.stem for path in (ROOT / "studies").glob("*.yaml") if f"](studies/{path.name})" not in README] == []
