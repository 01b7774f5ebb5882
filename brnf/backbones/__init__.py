"""Networks that turn images into the outputs of four stages, at a chosen stride."""

from brnf.backbones.network import Backbone, build_backbone
from brnf.backbones.weights import LoadedWeights

__all__ = ["Backbone", "LoadedWeights", "build_backbone"]
