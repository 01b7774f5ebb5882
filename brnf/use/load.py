"""From a file to a network that can be used."""

import sys
from os import PathLike
from pathlib import Path

from brnf.cam.network import CamNetwork, load_cam_network
from brnf.engine.runtime import Runtime
from brnf.segment.deeplab import DeepLab, load_deeplab
from brnf.use.model import Model
from brnf.use.model_file import SegmentationUse, read_model

__all__ = ["load"]


def load(path: str | PathLike[str], device: str = "auto", threads: int = 1) -> Model:
    """Load a trained network.

    Arguments:
        path: ``model.pt`` of a segmenter or a CAM network; for ``network.pt`` see
            :func:`brnf.use.model_file.read_model`.
        device: auto (a GPU that no other job has, else the CPU), cpu, cuda, cuda:1 ...
        threads: of the CPU; masks are equal to the workflow's to the byte for an equal count.

    Raises:
        UserError: the file is missing, damaged, or of another kind, or the device does not exist.
    """
    file = read_model(Path(path))
    if file.note:
        print(file.note, file=sys.stderr)
    place = Runtime(device=device, threads=threads).torch_device(
        told=False, precision=file.use.precision
    )
    segments = isinstance(file.use, SegmentationUse)
    read = load_deeplab if segments else load_cam_network
    network: DeepLab | CamNetwork = read(Path(path), place)
    network.backbone.fold()
    return Model(network, file, place)
