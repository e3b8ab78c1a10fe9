"""Types of values that several sections of `params.yaml` share."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints


class Entry(BaseModel):
    """Base of all entries. It refuses unknown keys and conversions, such as of text to a number or of true to 1.

    The docstring below a key is its meaning in docs/studies.md.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


# DVC cannot look up parameters of names with a dot, and drops stages with a number as their name.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$")]
# Any text, so that the check can list the names that exist.
Reference = str
LayerOrNull = str | None
Location = Annotated[str, Field(min_length=1)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Md5 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]

Class = Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)]
Classes = Annotated[list[Class], Field(min_length=1)]
ImageSize = Annotated[int, Field(ge=8, le=1024)]

Positive = Annotated[int, Field(ge=1)]
PositiveOrNull = Positive | None
NotNegative = Annotated[float, Field(ge=0)]
NotNegativeOrNull = NotNegative | None
Share = Annotated[float, Field(gt=0, lt=1)]
ShareOrZero = Annotated[float, Field(ge=0, lt=1)]
Factor = Annotated[float, Field(gt=0, le=1)]
LearningRate = Annotated[float, Field(gt=0, le=10)]
Precision = Literal["float32", "bfloat16"]
Pooling = Literal["none", "average", "max", "class_token", "class_token_and_average"]
