"""The sections of a study, and the class of their entries."""

from typing import Any

from stages.config.backbones import BackboneConfig
from stages.config.datasets import FetchedDataset, LocalDataset
from stages.config.features import FeaturesConfig
from stages.config.fine_tunes import FineTuneConfig
from stages.config.heads import HeadConfig
from stages.config.networks import NetworkConfig
from stages.config.probes import ProbeConfig
from stages.config.tasks import TaskConfig

SECTIONS = {
    "datasets": FetchedDataset,
    "folders": LocalDataset,
    "tasks": TaskConfig,
    "backbones": BackboneConfig,
    "networks": NetworkConfig,
    "features": FeaturesConfig,
    "heads": HeadConfig,
    "probes": ProbeConfig,
    "fine_tunes": FineTuneConfig,
}
ALL_SECTIONS = ("seed", "margin", *SECTIONS, "training")

Entries = dict[str, dict[str, Any]]
"""Section -> name -> entry."""
