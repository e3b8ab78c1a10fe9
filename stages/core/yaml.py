"""Reads YAML with PyYAML, and gives scalars the values that DVC gives them.

DVC reads params.yaml with ruamel.yaml, which follows YAML 1.2: 1e-05 is a number, `no` is text, 017 is 17. PyYAML
follows YAML 1.1, so `Yaml12Loader` replaces its types of plain scalars. A test compares the two readers.
"""

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.constructor import ConstructorError

from stages.core.errors import UserError

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML was built without libyaml
    from yaml import SafeLoader

DEEPEST = 50  # levels of nesting; a study has at most six
TAG = "tag:yaml.org,2002:"
# Type -> pattern of plain scalars, and the characters that they start with; the first match counts. Dates, underscores
# and 0b101 are not in YAML 1.2's core schema, but ruamel.yaml reads them.
SCALARS = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "float": (
        r"[-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|[-+]?\.[0-9_]+([eE][-+][0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    "int": (r"[-+]?0b[01_]+|[-+]?0o?[0-7_]+|[-+]?[0-9_]+|[-+]?0x[0-9a-fA-F_]+", "-+0123456789"),
    "merge": (r"<<", "<"),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "timestamp": (
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
        r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(\.[0-9]*)?"
        r"([ \t]*(Z|[-+][0-9]{1,2}(:[0-9]{2})?))?",
        "0123456789",
    ),
    "value": (r"=", "="),  # no constructor: refused
}


class Yaml12Loader(SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2; it refuses a key that is given twice."""

    yaml_implicit_resolvers: ClassVar = {}  # not those of YAML 1.1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """The mapping of a node; `ConstructorError` if a key is given twice."""
        merges = [key for key, _ in node.value if key.tag == f"{TAG}merge"]
        if len(merges) > 1:
            raise ConstructorError(None, None, "found duplicate merge key '<<'", merges[1].start_mark)
        if not merges:  # ruamel.yaml does not check a mapping with a merge key
            self._refuse_duplicate_keys(node)
        return super().construct_mapping(node, deep)

    def _refuse_duplicate_keys(self, node: yaml.MappingNode) -> None:
        keys = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            key = self.construct_object(key_node)
            if key in keys:
                raise ConstructorError(None, None, f"found duplicate key {key!r}", key_node.start_mark)
            keys.add(key)


def _construct_int(loader: Yaml12Loader, node: yaml.ScalarNode) -> int:
    text = node.value.replace("_", "")
    digits = text.lstrip("-+")
    base = {"0b": 2, "0o": 8, "0x": 16}.get(digits[:2], 10)
    return (-1 if text.startswith("-") else 1) * int(digits[2:] if base != 10 else digits, base)


def _construct_float(loader: Yaml12Loader, node: yaml.ScalarNode) -> float:
    return float(re.sub(r"\.(inf|nan)", r"\1", node.value.replace("_", "").lower()))


for _type, (_pattern, _start) in SCALARS.items():
    Yaml12Loader.add_implicit_resolver(f"{TAG}{_type}", re.compile(f"(?:{_pattern})$"), list(_start))
Yaml12Loader.add_constructor(f"{TAG}int", _construct_int)
Yaml12Loader.add_constructor(f"{TAG}float", _construct_float)


def parse_yaml(text: str) -> Any:
    """The content of a YAML document, read as DVC reads it; `yaml.YAMLError` or `ValueError` if it is not valid."""
    _refuse_deep_nesting(text)
    loader = Yaml12Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _refuse_deep_nesting(text: str) -> None:
    """`YAMLError` for a text whose nesting would overflow the stack of the loader in C, and end Python."""
    depth = 0
    for event in yaml.parse(text, SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                raise ConstructorError(None, None, f"found more than {DEEPEST} levels of nesting", event.start_mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def read_yaml(path: Path) -> Any:
    """The content of a YAML file, read as DVC reads it; `UserError` if it is missing or not valid."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist. Give the path of a study, or copy one of studies/ to {path}."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}). Give the path of a study.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text. Save it as UTF-8.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        position = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        raise UserError(
            f"{path}{position}: not valid YAML ({' '.join(str(reason).split())}). Correct the syntax."
        ) from None
    except ValueError as error:  # the value has the pattern of a date or a number, but is neither
        raise UserError(f"{path} is not valid YAML ({error}). Put the value in quotes.") from None
