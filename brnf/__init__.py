"""BRNF: bias-resilient weakly supervised segmentation with normalizing flows."""

__version__ = "0.1.0"
