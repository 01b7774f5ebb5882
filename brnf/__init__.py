"""BRNF: bias-resilient weakly supervised segmentation with normalizing flows.

``brnf.load("model.pt")`` gives a trained network to use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brnf.use.load import load

__all__ = ["__version__", "load"]

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """Import torch and the networks only when somebody loads one."""
    if name == "load":
        return import_module("brnf.use.load").load
    raise AttributeError(f"module 'brnf' has no attribute '{name}'")
