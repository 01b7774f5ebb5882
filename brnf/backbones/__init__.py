"""Networks that turn images into the outputs of four stages, at a chosen stride."""

from brnf.backbones.network import Backbone, BackboneOptions, build_backbone
from brnf.backbones.weights import LoadedWeights

__all__ = ["Backbone", "BackboneOptions", "LoadedWeights", "build_backbone"]
