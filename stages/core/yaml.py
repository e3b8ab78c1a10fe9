"""Reading YAML as DVC reads it."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.core.errors import UserError


def parse_yaml(text: str) -> Any:
    """Parse YAML as DVC does: YAML 1.2 by ruamel.yaml, where 1e-05 is a number and `no` is text.

    DVC's `dvc exp run -S` writes such numbers, and PyYAML would take them for text.
    """
    return YAML(typ="safe", pure=True).load(text)


def read_yaml(path: Path) -> Any:
    """Read YAML from a file as DVC does; `UserError` where that cannot be."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; give the path of a study, or copy one of studies/ to {path}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give the path of a study.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; save it as UTF-8.") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = " ".join(str(getattr(error, "problem", error)).split())
        raise UserError(f"{path}{place}: this cannot be read as YAML ({reason}).") from None
    except ValueError as error:  # of a value that looks like a date and is none
        raise UserError(f"{path} cannot be read as YAML ({error}); put the value in quotes.") from None
