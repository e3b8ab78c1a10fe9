"""The README tells the truth where it can be asked."""

import re
from pathlib import Path

from stages.study import study_of
from tests.pipeline import read_yaml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_studies_in_the_readme_are_sound():
    studies = [read_yaml(block) for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)]
    assert studies and [study_of(study)[1] for study in studies] == [[]] * len(studies)


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
