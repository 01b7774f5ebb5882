"""The outputs of a frozen backbone for whole images and their mirrors, computed once for all
trainings that see the same.
"""

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import PIL
import timm
import torch
from numpy.typing import NDArray

from brnf.backbones import Backbone
from brnf.cam.batch import Batch
from brnf.cam.network import CamNetwork
from brnf.store.files import atomic_file, is_held, lock_file, locked
from brnf.store.records import Records, write_records

__all__ = ["backbone_outputs", "outputs_stamp"]

LIBRARIES = tuple(
    (library.__name__, library.__version__) for library in (PIL, cv2, np, timm, torch)
)
"""That decode and resize images and compute the outputs, with their versions."""


def outputs_stamp(backbone: Backbone, *others: object) -> str:
    """Hash all that the outputs of a frozen backbone depend on: weights, layers with their strides,
    libraries, threads.

    Arguments:
        backbone: frozen.
        others: further plain values: the code that prepares images, their list, sizes, device.
    """
    digest = hashlib.sha256(str(backbone).encode())
    for name, value in [
        *backbone.state_dict().items(),
        ("mean", backbone.mean),
        ("std", backbone.std),
    ]:
        digest.update(
            f"{name} {tuple(value.shape)}\n".encode() + value.cpu().contiguous().numpy().tobytes()
        )
    for part in (*LIBRARIES, torch.get_num_threads(), *others):
        digest.update(f"{part}\n".encode())
    return digest.hexdigest()[:32]


def backbone_outputs(
    file: Path, network: CamNetwork, batches: Iterable[Batch], images: int, device: torch.device
) -> Records:
    """Return a record for each image and its mirror, on the disk: the backbone's four outputs,
    labels, valid mask.

    They are computed unless the file is there; while another training computes them they are waited
    for.

    Arguments:
        file: that holds them, named by their stamp.
        network: whose backbone is asked.
        batches: of every image followed by its mirror.
        images: how many there are.
        device: of the network.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    if not file.exists():
        if is_held(lock_file(file)):
            print(
                "backbone features: another training computes them, waiting",
                file=sys.stderr,
                flush=True,
            )
        with locked(file, patience=float("inf")):
            if not file.exists():
                with atomic_file(file) as temporary:
                    write_records(
                        temporary,
                        2 * images,
                        (_computed(batch, network, device) for batch in batches),
                    )
    return Records(file)


def _computed(batch: Batch, network: CamNetwork, device: torch.device) -> NDArray[np.void]:
    """Return the records of a batch."""
    assert isinstance(batch.pixels, torch.Tensor)
    with torch.inference_mode():
        stages = [stage.cpu().numpy() for stage in network.stages(batch.pixels.to(device))]
    columns = {f"stage{i}": stage for i, stage in enumerate(stages)}
    columns |= {"labels": batch.labels.numpy(), "valid": batch.valid.numpy()}
    records = np.empty(
        len(batch.labels),
        np.dtype([(name, values.dtype, values.shape[1:]) for name, values in columns.items()]),
    )
    for name, values in columns.items():
        records[name] = values
    return records
