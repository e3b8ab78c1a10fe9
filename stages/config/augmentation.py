"""Random changes of images: key `augmentation`, and the items of `views`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.config.fields import Angle, Entry, ShareOrZero


class AugmentationConfig(Entry):
    """Random changes of an image, each drawn anew for every image and every epoch from 0 up to the given strength.

    rotation: degrees to either side. shift: share of the side, in both directions. zoom: share in or out. shear:
    degrees, in both directions. flip: with probability 1/2; in a view, always. noise: standard deviation of Gaussian
    noise, as a share of the range 0..255. brightness: share of that range, up or down. contrast: share, up or down.
    fill: what is put where the image was moved away.
    """

    rotation: Angle = 0.0
    shift: ShareOrZero = 0.0
    zoom: ShareOrZero = 0.0
    shear: Annotated[float, Field(ge=0, lt=90, description="degrees from 0 to below 90")] = 0.0
    flip: Literal["none", "horizontal", "vertical", "both"] = "none"
    noise: ShareOrZero = 0.0
    brightness: ShareOrZero = 0.0
    contrast: ShareOrZero = 0.0
    fill: Literal["nearest", "reflect", "wrap", "constant"] = "nearest"

    @model_validator(mode="after")
    def _changes_something(self) -> "AugmentationConfig":
        if not self.model_fields_set - {"fill"}:
            raise ValueError(
                "this augmentation changes nothing; give rotation, shift, zoom or another, or leave it out"
            )
        return self


AUGMENTATION = (
    f"keys and values: {', '.join(AugmentationConfig.model_fields)}, as in {{rotation: 15, flip: horizontal}}"
)
