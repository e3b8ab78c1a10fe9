"""Random changes of images: key `augmentation`, and the items of `views`."""

from typing import Annotated, Literal

from pydantic import Field

from stages.config.fields import Entry, ShareOrZero


class AugmentationConfig(Entry):
    """Random changes of an image. Each is drawn between 0 and its strength, for every image and every epoch."""

    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest angle in degrees, to both sides."""
    shift: ShareOrZero = 0.0
    """Largest shift in both directions, as a share of the side."""
    zoom: ShareOrZero = 0.0
    """Largest zoom in or out, as a share of the side."""
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0
    """Largest angle in degrees, in both directions."""
    flip: Literal["none", "horizontal", "vertical", "both"] = "none"
    """Mirror the image with probability 1/2; in a view, always."""
    noise: ShareOrZero = 0.0
    """Standard deviation of Gaussian noise, as a share of the range 0 to 255."""
    brightness: ShareOrZero = 0.0
    """Largest change of all values, up or down, as a share of the range 0 to 255."""
    contrast: ShareOrZero = 0.0
    """Largest change of the contrast, up or down, as a share."""
    fill: Literal["nearest", "reflect", "wrap", "constant"] = "nearest"
    """What fills the pixels that a change leaves empty."""
