"""Types of values that several sections of `params.yaml` share."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from stages.config.urls import refuse_credentials

# Dots in a name break DVC's parameter look-up and bare numbers silently drop the stage.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$")]
# The name of another entry: any text, so that a wrong one is answered with the names there are.
Reference = Annotated[str, Field(description="the name of an entry")]
Layer = Annotated[str, Field(description="the name of a layer")]
LayerOrNull = Annotated[str | None, Field(description="the name of a layer or block, or null")]
Location = Annotated[str, Field(min_length=1, description="a path or an address"), AfterValidator(refuse_credentials)]
Share = Annotated[float, Field(gt=0, lt=1, description="a number above 0 and below 1")]
ShareOrZero = Annotated[float, Field(ge=0, lt=1, description="a number from 0 to below 1")]
ImageSize = Annotated[int, Field(ge=8, le=1024, description="a whole number from 8 to 1024")]
Class = Annotated[int, Field(ge=0)] | Annotated[str, Field(min_length=1)]
Classes = Annotated[
    list[Class], Field(min_length=1, description="a list of classes by number or name, as in [0, 1] or [cat, dog]")
]
Positive = Annotated[int, Field(ge=1, description="a whole number from 1 up")]
PositiveOrNull = Annotated[Positive | None, Field(description="a whole number from 1 up, or null")]
Sha256 = Annotated[
    str, StringConstraints(pattern=r"^[0-9a-f]{64}$"), Field(description="64 hexadecimal digits, 0 to 9 and a to f")
]
Md5 = Annotated[
    str, StringConstraints(pattern=r"^[0-9a-f]{32}$"), Field(description="32 hexadecimal digits, 0 to 9 and a to f")
]
Subfolder = Annotated[str | None, Field(description="a folder of the archive, as in photos/train")]
HeldOut = Annotated[
    Share | Annotated[int, Field(ge=2)] | Literal["published"],
    Field(
        description="a share of each class above 0 and below 1, a number of images per class from 2 up, or published"
    ),
]
Renames = Annotated[
    dict[Class, Annotated[str, Field(min_length=1)]],
    Field(description="classes by number or name with their new names, as in {cane: dog, gatto: cat}"),
]
Pattern = Annotated[str, Field(min_length=1, description="a regular expression, as in 'patient\\d+'")]


class Entry(BaseModel):
    """Base of all entries: unknown keys and silent conversions (text for a number, true for 1) are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Epochs = Annotated[int, Field(ge=1, le=100_000, description="a whole number from 1 to 100000")]
Repeats = Annotated[int, Field(ge=1, le=100, description="a whole number from 1 to 100")]
Units = Annotated[int, Field(ge=1, le=65_536)]
Optimizer = Literal["adam", "adamw", "rmsprop", "sgd"]
Precision = Literal["float32", "bfloat16"]
Rate = Annotated[float, Field(gt=0, le=10)]
LearningRate = Annotated[Rate, Field(description="a number above 0, at most 10")]
Strength = Annotated[float, Field(ge=0)]
NotNegative = Annotated[float, Field(ge=0, description="a number from 0 up")]
NotNegativeOrNull = Annotated[NotNegative | None, Field(description="a number from 0 up, or null")]
Factor = Annotated[float, Field(gt=0, le=1, description="a number above 0, at most 1")]
Angle = Annotated[float, Field(ge=0, le=180, description="degrees from 0 to 180")]
Hidden = Annotated[list[Units], Field(description="a list of whole numbers from 1 to 65536, as in [64, 32], or []")]
