"""`python -m stages.interim_report`: the report of the models that are finished."""

import argparse
import json
import shutil
from pathlib import Path

import pytest
import yaml

from stages import interim_report
from stages.artifacts.margin import write_margin
from stages.core.errors import UserError
from stages.core.params import Params
from stages.evaluation.finished import NOT_TRAINED, OUTDATED, unfinished_models
from tests.tiny_study import STUDY

FOLDER = Path("exports/interim_report")


def keep_models(*kept: str) -> None:
    for folder in Path("models").iterdir():
        if folder.name not in kept:
            shutil.rmtree(folder)


def study_with(**changes: dict) -> Params:
    """The tiny study with changed entries, as params.yaml; changes: section -> {entry: {key: value}}."""
    content = {section: dict(STUDY[section]) if section in changes else STUDY[section] for section in STUDY}
    for section, entries in changes.items():
        for name, keys in entries.items():
            content[section][name] = {**content[section][name], **keys} if isinstance(keys, dict) else keys
    Path("params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return Params(content)


def files_outside_of_the_report() -> dict[str, bytes]:
    return {
        path.as_posix(): path.read_bytes()
        for path in Path().rglob("*")
        if path.is_file() and FOLDER not in path.parents
    }


def test_the_report_covers_the_finished_models_and_nothing_else_is_written(here, capsys):
    keep_models("base", "fresh", "probe")
    study_with()
    write_margin(1)
    before = files_outside_of_the_report()
    assert interim_report.main(argparse.Namespace()) == 0
    assert files_outside_of_the_report() == before
    assert list(json.loads((FOLDER / "metrics.json").read_text())) == ["base", "fresh", "probe"]
    printed = capsys.readouterr().out
    assert "finished 3 of 14 models: base, fresh, probe\n" in printed
    assert f"interim_report: above: {NOT_TRAINED}\n" in printed
    for page in (FOLDER / "report.html", FOLDER / "report.md"):
        assert "This is an interim report. Not finished: top, part," in page.read_text(encoding="utf-8")


def test_without_a_finished_model_there_is_no_report(here):
    keep_models()
    study_with()
    with pytest.raises(UserError, match="no model is finished yet"):
        interim_report.main(argparse.Namespace())
    assert not FOLDER.exists()


def test_all_models_of_an_unchanged_study_that_were_trained_are_finished(here):
    assert unfinished_models(study_with()) == {"short": NOT_TRAINED}


@pytest.mark.parametrize(
    ("changes", "outdated"),
    [
        ({"heads": {"fresh": {"hidden": [9]}}}, {"fresh"}),
        ({"heads": {"choice": {"learning_rate": [0.3, 0.1]}}}, {"choice", "changed"}),
        ({"probes": {"probe": {"l2": 0.5}}}, {"probe", "from-probe"}),
        ({"training": {"batch_size": 16}}, None),  # None: of most models
        ({"training": {"max_train_per_class": 39}}, None),
    ],
)
def test_a_model_with_changed_settings_is_not_finished_nor_are_those_built_on_it(here, changes, outdated):
    unfinished = unfinished_models(study_with(**changes))
    del unfinished["short"]
    assert set(unfinished.values()) == {OUTDATED}
    if outdated is None:
        assert {"base", "fresh", "cached"} <= unfinished.keys()
    else:
        assert unfinished.keys() == outdated


def test_models_of_an_input_that_was_removed_or_changed_are_not_finished(here):
    shutil.rmtree("data/features/several")  # as DVC does before it computes them again
    assert unfinished_models(study_with()).keys() == {"short", "choice", "probe", "changed", "from-probe"}
    path = Path("data/tasks/low/task.json")
    path.write_text(path.read_text().replace('"images_sha256": "', '"images_sha256": "0'))
    assert {"base", "top", "fresh", "cached"} <= unfinished_models(study_with()).keys()


def test_a_fine_tune_is_not_finished_when_its_head_was_trained_again(here):
    path = Path("models/above/record.json")
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "weights_sha256": ["0" * 64 for _ in record["weights_sha256"]]}))
    built_on_it = {name for name, entry in STUDY["fine_tunes"].items() if entry["head"] == "above"}
    assert unfinished_models(study_with()).keys() == {"short", *built_on_it}
