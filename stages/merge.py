"""Merges dvc.lock, or params.yaml, of two branches: `python -m stages.merge {lock,params} BASE OURS THEIRS`.

Git runs it for a file that both branches have changed, once the command in docs/sharing.md has told it to. The result
is written into OURS. What cannot be merged is left as it is, with exit code 1; then git merges lines as usual.

dvc.lock: of a stage that both branches ran, neither result is right, so it is left out, and `dvc repro` runs it.
params.yaml: entries that both branches added are kept. Git alone reports them as a conflict.
"""

import argparse
from pathlib import Path

import yaml

from stages.core.command import run_command
from stages.core.errors import UserError
from stages.core.wording import listing
from stages.core.yaml import Yaml12Loader, parse_yaml

# Section, and stage or entry -> its lines, with the comments above it. "" stands for what is before the first entry.
Parts = dict[str, dict[str, str]]


def main(arguments: argparse.Namespace) -> int:
    files = [arguments.base, arguments.ours, arguments.theirs]
    try:
        merged, both = merge_parts(*(split_parts(file.read_text(encoding="utf-8")) for file in files))
        content = parse_yaml(merged)
    except (UserError, ValueError, yaml.YAMLError):
        return 1
    if both and arguments.kind == "params":
        return 1
    if both:
        if not content["stages"]:
            merged = merged.replace("stages:", "stages: {}")  # DVC refuses an empty value
        print(f"dvc.lock: both branches ran {listing(both)}. `dvc repro` runs what is in no cache.")
    arguments.ours.write_text(merged, encoding="utf-8", newline="\n")
    return 0


def split_parts(text: str) -> Parts:
    """A file of sections of entries, in parts; joined they are the file. `ValueError` or `YAMLError` if it is not one.

    What precedes a section or an entry is of its part, so comments stay with what they are about.
    """
    if not text.strip():
        return {}  # the base of a file that both branches added
    text = text if text.endswith("\n") else f"{text}\n"
    node = yaml.compose(text, Loader=Yaml12Loader)
    if not isinstance(node, yaml.MappingNode) or node.flow_style:
        raise ValueError("it is not a mapping of sections in lines")
    lines = text.splitlines(keepends=True)
    starts = [(key.value, "", _start(lines, key)) for key, _ in node.value]
    for key, value in node.value:
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            starts += [(key.value, entry.value, _start(lines, entry)) for entry, _ in value.value]
    starts.sort(key=lambda part: part[2])
    starts[0] = (*starts[0][:2], 0)
    parts: Parts = {}
    for (section, name, start), end in zip(starts, [*(part[2] for part in starts[1:]), len(lines)], strict=True):
        parts.setdefault(section, {})[name] = "".join(lines[start:end])
    return parts


def merge_parts(base: Parts, ours: Parts, theirs: Parts) -> tuple[str, list[str]]:
    """The text with what either branch changed, and the names of the parts that both did, which are not in it."""
    merged, both = "", []
    for section in dict.fromkeys([*ours, *theirs]):
        before, own, other = (version.get(section, {}) for version in (base, ours, theirs))
        for name in dict.fromkeys([*own, *other]):
            versions = before.get(name), own.get(name), other.get(name)
            if versions[1] == versions[0]:
                merged += versions[2] or ""
            elif versions[2] in (versions[0], versions[1]):
                merged += versions[1] or ""
            else:
                both.append(name or section)
    return merged, both


def _start(lines: list[str], key: yaml.ScalarNode) -> int:
    """The line of a key, or the first of the comments and empty lines above it."""
    number = key.start_mark.line
    while number and (not lines[number - 1].strip() or lines[number - 1].lstrip().startswith("#")):
        number -= 1
    return number


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.merge", description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("lock", "params"))
    for name in ("base", "ours", "theirs"):
        parser.add_argument(name, type=Path)
    run_command(parser, main)
