"""Files are written whole or not at all."""

import hashlib
import math

import pytest

from stages.base.errors import UserError
from stages.base.files import atomic_directory, atomic_file, read_json, sha256_of, write_json, write_text


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_appears_when_its_block_ends(tmp_path):
    target = tmp_path / "deep/er/a.txt"
    with atomic_file(target) as partial:
        partial.write_text("new")
        assert partial.suffix == ".txt"
        assert not target.exists()
    assert target.read_text() == "new"
    assert names(tmp_path) == ["deep", "deep/er", "deep/er/a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_file_leaves_the_old_one(error, tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(error), atomic_file(tmp_path / "a.txt") as partial:
        partial.write_text("half")
        raise error
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_file_replaces_the_old_one(tmp_path):
    write_text(tmp_path / "a.txt", "old and long")
    write_text(tmp_path / "a.txt", "new\n")
    assert (tmp_path / "a.txt").read_bytes() == b"new\n"
    assert names(tmp_path) == ["a.txt"]


def test_a_directory_replaces_the_old_one_and_keeps_nothing_of_it(tmp_path):
    for name in ("old", "new"):
        with atomic_directory(tmp_path / "a/b") as partial:
            (partial / name).write_text(name)
    assert names(tmp_path) == ["a", "a/b", "a/b/new"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_directory_leaves_the_old_one(error, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/old").write_text("old")
    with pytest.raises(error), atomic_directory(tmp_path / "a") as partial:
        (partial / "half").write_text("half")
        raise error
    assert names(tmp_path) == ["a", "a/old"]


def test_what_a_killed_run_left_does_not_come_into_the_next(tmp_path):
    (tmp_path / ".partial-a").mkdir()
    (tmp_path / ".partial-a/half").write_text("half")
    with atomic_directory(tmp_path / "a") as partial:
        (partial / "new").write_text("new")
    assert names(tmp_path) == ["a", "a/new"]


def test_json_keeps_its_order_and_its_letters(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": "\u00fc"})
    assert (tmp_path / "a.json").read_bytes() == '{\n  "b": 1,\n  "a": "\u00fc"\n}\n'.encode()
    assert read_json(tmp_path / "a.json") == {"b": 1, "a": "\u00fc"}


def test_json_refuses_what_other_readers_refuse(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": math.nan})
    assert not names(tmp_path)


@pytest.mark.parametrize("content", [b'{"a": 1', b"", b"\xff\xfe"])
def test_broken_json_is_answered_with_the_way_out(content, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json is damaged .*; delete it and run `dvc repro`\.$"):
        read_json(tmp_path / "a.json")


def test_the_checksum_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()
