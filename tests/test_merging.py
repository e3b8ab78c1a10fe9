"""Merging dvc.lock and params.yaml of two branches, without a hand-edit."""

import subprocess

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stages.merge import merge_parts, split_parts
from tests.pipeline import ROOT, environment, read_yaml, run

PARAMS = """# A study.
seed: 0

# Solved in seconds.
probes:
  # The first one.
  one:
    task: t
    features: f

networks: {}
# Defaults.
training:
  epochs: 3
"""
BOTH = """# A study.
seed: 0

# Solved in seconds.
probes:
  # The first one.
  one:
    task: t
    features: f
  two:
    task: t
    features: f
  # Another one.
  three:
    task: t
    features: g

networks: {}
# Defaults.
training:
  epochs: 3
"""
TWO = ("    features: f\n", "    features: f\n  two:\n    task: t\n    features: f\n")
THREE = ("    features: f\n", "    features: f\n  # Another one.\n  three:\n    task: t\n    features: g\n")
NETWORKS = "networks:\n  n:\n    task: t\n"


def merge(folder, kind, base, ours, theirs):
    """The exit code of the driver that git starts, its output and the merged text."""
    for name, text in (("base", base), ("ours", ours), ("theirs", theirs)):
        (folder / name).write_text(text)
    driver = run(ROOT, "git", "config", "-f", ".gitconfig", f"merge.{'lock' if kind == 'lock' else 'study'}.driver")
    command = driver.stdout.strip()
    for mark, name in (("%O", "base"), ("%A", "ours"), ("%B", "theirs")):
        command = command.replace(mark, str(folder / name))
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr, (folder / "ours").read_text()


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([TWO], [THREE], BOTH),
        ([TWO], [TWO], PARAMS.replace(*TWO)),
        ([TWO], [("seed: 0", "seed: 1")], PARAMS.replace(*TWO).replace("seed: 0", "seed: 1")),
        ([TWO, ("networks: {}\n", NETWORKS)], [THREE], BOTH.replace("networks: {}\n", NETWORKS)),
        ([TWO], [THREE, ("\nnetworks: {}\n", "")], BOTH.replace("\nnetworks: {}\n", "")),
        ([("  epochs: 3\n", "  epochs: 3\n  a: 1\n")], [("  epochs: 3\n", "  epochs: 3")], None),
        ([TWO], [("epochs: 3\n", "epochs: 3")], PARAMS.replace(*TWO)),  # no line end
        ([("  # The first one.\n  one:\n    task: t\n    features: f\n", "  new:\n    task: t\n")], [], None),
    ],
)
def test_entries_that_two_branches_added_are_kept(ours, theirs, expected, tmp_path):
    texts = [PARAMS, PARAMS, PARAMS]
    for number, changes in ((1, ours), (2, theirs)):
        for old, new in changes:
            assert old in texts[number]
            texts[number] = texts[number].replace(old, new)
    code, _, merged = merge(tmp_path, "params", *texts)
    assert (code, merged) == (0, texts[1] if expected is None else expected)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (("seed: 0", "seed: 1"), ("seed: 0", "seed: 2")),
        (TWO, (TWO[0], TWO[1].replace("two:\n    task: t", "two:\n    task: u"))),
        (("    task: t\n", "    task: u\n"), ("  # The first one.\n  one:\n    task: t\n    features: f\n", "")),
        (TWO, ("seed: 0", "seed: [0")),  # not a study any more
    ],
)
def test_what_both_changed_is_left_to_the_user(ours, theirs, tmp_path):
    code, _, merged = merge(tmp_path, "params", PARAMS, PARAMS.replace(*ours), PARAMS.replace(*theirs))
    expected = subprocess.run(
        ["git", "merge-file", "-p", *("-L", "ours", "-L", "base", "-L", "theirs"), *write(tmp_path, ours, theirs)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (code, merged) == (min(1, expected.returncode), expected.stdout)


def write(folder, ours, theirs):
    paths = [folder / "ours", folder / "base", folder / "theirs"]
    for path, text in zip(paths, (PARAMS.replace(*ours), PARAMS, PARAMS.replace(*theirs)), strict=True):
        path.write_text(text)
    return paths


LOCK = "schema: '2.0'\nstages:\n  check:\n    cmd: a\n  probe@one:\n    cmd: b\n"
ONE = "  probe@one:\n    cmd: b\n"
ADDED = "  probe@two:\n    cmd: c\n"


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "expected", "said"),
    [
        (LOCK, LOCK + ADDED, LOCK + "  probe@three:\n    cmd: d\n", LOCK + ADDED + "  probe@three:\n    cmd: d\n", ""),
        (
            *(LOCK, LOCK.replace("a\n", "x\n") + ADDED, LOCK.replace("a\n", "y\n")),
            LOCK.replace("  check:\n    cmd: a\n", "") + ADDED,
            "dvc.lock: both branches ran check. `dvc repro` runs what is in no cache.\n",
        ),
        (LOCK, LOCK.replace(ONE, ""), LOCK + ADDED, LOCK.replace(ONE, "") + ADDED, ""),
        ("", LOCK, LOCK + ADDED, LOCK + ADDED, ""),  # the base has none
        (
            *(LOCK, LOCK.replace("a\n", "x\n").replace("b\n", "x\n"), LOCK.replace("a\n", "y\n").replace("b\n", "y\n")),
            "schema: '2.0'\nstages: {}\n",
            "dvc.lock: both branches ran check, probe@one. `dvc repro` runs what is in no cache.\n",
        ),
    ],
)
def test_stages_that_both_branches_ran_leave_the_lock(base, ours, theirs, expected, said, tmp_path):
    assert merge(tmp_path, "lock", base, ours, theirs) == (0, said, expected)


@pytest.mark.parametrize("added", ["<<<<<<< ours\n", "stages: [\n", "  check: {}\n"])
def test_a_lock_that_is_none_is_merged_as_git_merges_lines(added, tmp_path):
    code, _, merged = merge(tmp_path, "lock", LOCK, added + LOCK, LOCK.replace("b\n", "c\n"))
    assert (code, merged) == (0, added + LOCK.replace("b\n", "c\n"))
    code, _, merged = merge(tmp_path, "lock", LOCK, added + LOCK.replace("b\n", "d\n"), LOCK.replace("b\n", "c\n"))
    assert code == 1 and "<<<<<<< ours\n    cmd: d\n" in merged


@pytest.mark.parametrize("path", [*sorted(ROOT.glob("studies/*.yaml")), ROOT / "dvc.lock"], ids=lambda path: path.name)
def test_the_parts_of_a_file_are_the_file(path):
    text = path.read_text()
    parts = split_parts(text)
    assert "".join("".join(section.values()) for section in parts.values()) == text
    content = read_yaml(text)
    assert list(parts) == list(content)
    for section, entries in content.items():
        expected = [str(name) for name in entries] if isinstance(entries, dict) else []
        assert list(parts[section]) == ["", *expected]


ENTRIES = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3), min_size=1)
STUDIES = st.fixed_dictionaries({name: ENTRIES for name in ("heads", "probes")})


@given(STUDIES, STUDIES, STUDIES)
def test_a_merge_is_that_of_the_entries(base, ours, theirs):
    texts = [yaml.safe_dump(study, sort_keys=False) for study in (base, ours, theirs)]
    merged, both = merge_parts(*map(split_parts, texts))
    expected, conflicts = {}, []
    for section in base:
        for name in "abcdef":
            before, own, other = (study[section].get(name) for study in (base, ours, theirs))
            if own != before and other not in (before, own):
                conflicts.append(name)
            elif (value := other if own == before else own) is not None:
                expected[section, name] = value
    content = read_yaml(merged)
    assert {(s, n): v for s, entries in content.items() for n, v in (entries or {}).items()} == expected
    assert sorted(both) == sorted(conflicts)
