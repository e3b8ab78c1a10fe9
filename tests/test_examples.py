"""The command that makes the example reports says what it lacks."""

import sys

import pytest

from benchmarks import examples
from stages.core.errors import UserError


def test_a_run_that_is_not_there_is_answered_with_the_command_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["examples", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"is no finished run; `python -m benchmarks.results <files> <work> cifar10"):
        examples.main()


def test_without_a_browser_no_picture_is_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(examples.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="chromium is not installed"):
        examples.picture_of(tmp_path / "report.html", tmp_path / "report.png")
    assert not list(tmp_path.iterdir())
