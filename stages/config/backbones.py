"""Section `backbones`: an architecture and where its weights come from."""

from stages.config.fields import Entry, Location, Sha256


class BackboneConfig(Entry):
    """A network without its classification layers, and where its weights come from."""

    architecture: str
    """The architecture, or a preset of KerasHub, as listed in docs/backbones.md; `preset` for the one that `weights`
    names. Its preprocessing is part of it."""
    weights: Location
    """`random`, `imagenet`, or the path or URL of a Keras weights file. Of a preset: `preset`, or the place of one: a
    folder, `kaggle://owner/model/keras/variation/version` or `hf://owner/model@commit`."""
    sha256: Sha256 | None = None
    """The checksum of the weights file, or of all files of a preset, as the check prints it."""
