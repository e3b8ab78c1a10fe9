"""Files are written whole or not at all."""

import hashlib
import math

import pytest

from stages.core import files
from stages.core.errors import UserError
from stages.core.files import (
    atomic_directory,
    atomic_file,
    keep_only,
    read_json,
    resumable_directory,
    sha256_of,
    write_json,
    write_text,
)


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


def test_a_directory_replaces_the_old_one_completely(tmp_path):
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


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    (tmp_path / ".partial-a").mkdir()
    (tmp_path / ".partial-a/half").write_text("half")
    with atomic_directory(tmp_path / "a") as partial:
        (partial / "new").write_text("new")
    assert names(tmp_path) == ["a", "a/new"]


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_directory_is_resumed(end, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/old").write_text("old")
    for number in (1, 2):
        with pytest.raises(end), resumable_directory(tmp_path / "a", "this") as partial:
            (partial / f"part {number}").write_text("done")
            raise end
        assert names(tmp_path / "a") == ["old"]
    with resumable_directory(tmp_path / "a", "this") as partial:
        assert {"part 1", "part 2"} <= set(names(partial))
        (partial / "part 3").write_text("done")
    assert names(tmp_path) == ["a", "a/part 1", "a/part 2", "a/part 3"]


def no_mark(partial):
    (partial / ".fingerprint").unlink()


def another_mark(partial):
    (partial / ".fingerprint").write_bytes(b"\xff\xfe of another disk")


@pytest.mark.parametrize(
    ("fingerprint", "change"), [("that", lambda partial: None), ("this", no_mark), ("this", another_mark)]
)
def test_a_different_fingerprint_starts_an_empty_directory(fingerprint, change, tmp_path):
    with pytest.raises(KeyboardInterrupt), resumable_directory(tmp_path / "a", "this") as partial:
        (partial / "part").write_text("done")
        raise KeyboardInterrupt
    change(tmp_path / ".partial-a")
    with resumable_directory(tmp_path / "a", fingerprint) as partial:
        assert not (partial / "part").exists()
        (partial / "new").write_text("done")
    assert names(tmp_path) == ["a", "a/new"]


@pytest.mark.parametrize("error", [UserError, OSError, ValueError, MemoryError])
def test_an_error_removes_the_partial_directory(error, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/old").write_text("old")
    with pytest.raises(error), resumable_directory(tmp_path / "a", "this") as partial:
        (partial / "part").write_text("done")
        raise error
    assert names(tmp_path) == ["a", "a/old"]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_text", full)
    with pytest.raises(OSError, match="No space left"), resumable_directory(tmp_path / "a", "this"):
        pass
    assert names(tmp_path) == []


def test_keep_only_removes_other_files(tmp_path):
    (tmp_path / "a/deep").mkdir(parents=True)
    for name in ("a/kept", "a/other", "a/.partial-kept", "a/deep/kept", "beside"):
        (tmp_path / name).write_text(name)
    (tmp_path / "a/link").symlink_to(tmp_path / "beside")
    keep_only(tmp_path / "a", [tmp_path / "a/kept", tmp_path / "a/not there"])
    assert names(tmp_path) == ["a", "a/kept", "beside"]
    keep_only(tmp_path / "b", [])
    assert names(tmp_path) == ["a", "a/kept", "b", "beside"]


def test_removing_a_link_keeps_its_target(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("mine")
    (tmp_path / "a/link").symlink_to(tmp_path / "mine")
    keep_only(tmp_path / "a", [])
    assert names(tmp_path) == ["a", "mine", "mine/file"]


def test_json_keeps_key_order_and_unicode(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": "\u00fc"})
    assert (tmp_path / "a.json").read_bytes() == '{\n  "b": 1,\n  "a": "\u00fc"\n}\n'.encode()
    assert read_json(tmp_path / "a.json") == {"b": 1, "a": "\u00fc"}


def test_json_rejects_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": math.nan})
    assert not names(tmp_path)


@pytest.mark.parametrize("content", [b'{"a": 1', b"", b"\xff\xfe"])
def test_broken_json_is_an_error(content, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json is damaged .*. Delete it and run `dvc repro`\.$"):
        read_json(tmp_path / "a.json")


def test_sha256_of_hashes_the_file_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()
