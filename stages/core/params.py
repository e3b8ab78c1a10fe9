"""`params.yaml` as a stage reads it: sections of entries, not yet parsed.

A stage parses the entries that it uses (`stages.config.parsing`) and no others, so that a change to the rest of the
study, or to the code that checks it, reruns nothing.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.errors import UserError
from stages.core.yaml import read_yaml

PARAMS = Path("params.yaml")
MARGIN = 1  # point, of a study that does not say
MODEL_SECTIONS = ("networks", "heads", "probes", "fine_tunes")
# Names become parts of paths. Dots break DVC's parameter look-up, and DVC drops stages with a number as their name.
NAME = re.compile(r"[a-z][a-z0-9-]*")


@dataclass(frozen=True)
class Params:
    """content: the mapping that the file holds, from section to entries."""

    content: dict[str, Any]

    @classmethod
    def read(cls, path: Path = PARAMS) -> "Params":
        """Read a study; `UserError` if it is missing or is not a mapping in YAML."""
        content = read_yaml(path)
        if not isinstance(content, dict):
            raise UserError(
                f"{path} is not a valid study: its top level must be sections such as `tasks:` and `heads:`. Run "
                "`python -m stages.check` for details."
            )
        return cls(content)

    def names(self, *sections: str) -> list[str]:
        """The names of the entries of sections, in the order of the file; an empty section has none."""
        return [name for section in sections for name in (self.content.get(section) or {})]

    def entry(self, section: str, name: str) -> Any:
        """The entry as it stands in the file; `UserError` if the section does not have it."""
        if name not in self.names(section) or not NAME.fullmatch(name):
            raise UserError(f"{PARAMS} has no {section}.{name}; `python -m stages.check` checks the whole study.")
        return self.content[section][name]

    @property
    def seed(self) -> int:
        """The seed of every random choice; `UserError` unless it is a whole number from 0 up."""
        seed = self.content.get("seed")
        if type(seed) is not int or seed < 0:
            raise UserError(f"seed: {seed!r} is not a whole number from 0 up; correct it in {PARAMS}.")
        return seed


def is_margin(value: Any) -> bool:
    """Whether a value from a study can be its margin."""
    return type(value) in (int, float) and 0 <= value <= 100
