"""Section `backbones`: an architecture and where its weights come from."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from stages.backbones.registry import ARCHITECTURES
from stages.config.fields import Entry, Sha256
from stages.config.urls import refuse_credentials

ArchitectureName = Literal[tuple(ARCHITECTURES)]


class BackboneConfig(Entry):
    """A convolutional network and where its weights come from: `random`, `imagenet`, or a path or address.

    architecture: the network without its classification layers; its preprocessing belongs to it.
    weights: `random`, `imagenet`, or a weights file of Keras. sha256: checksum of that file.
    """

    architecture: ArchitectureName
    weights: Annotated[
        str,
        Field(min_length=1, description="random, imagenet, or a path or address"),
        AfterValidator(refuse_credentials),
    ]
    sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _file_has_checksum(self) -> "BackboneConfig":
        if self.weights == "imagenet" and ARCHITECTURES[self.architecture].imagenet is None:
            raise ValueError(
                f"weights 'imagenet' do not exist for {self.architecture}; accepted: random, or a path or address "
                "with its sha256"
            )
        if self.weights == "random" and self.sha256 is not None:
            raise ValueError("sha256 goes with a file of weights; leave it out with weights: random")
        if self.weights not in ("random", "imagenet") and self.sha256 is None:
            raise ValueError(
                f"weights {self.weights!r} is taken for a file, which needs its sha256; accepted: random, imagenet, "
                "or a path or address with its sha256 (a network of the study is a backbone by its own name)"
            )
        return self
