"""Section `backbones`: an architecture and where its weights come from."""

from stages.config.fields import Entry, Location, Sha256


class BackboneConfig(Entry):
    """A convolutional network without its classification layers, and where its weights come from."""

    architecture: str
    """The architecture. Its preprocessing is part of it."""
    weights: Location
    """`random`, `imagenet`, or the path or URL of a Keras weights file."""
    sha256: Sha256 | None = None
    """The checksum of the weights file."""
