"""HDF5 shards and torch files."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
import numpy as np
import torch

from brnf.backbones import build_backbone
from brnf.cam.network import CamNetwork, load_cam_network, save_cam_network
from brnf.config.sections.cam import BackboneOptions
from brnf.config.sections.flow import Baseline, Denoising, FlowArchitecture
from brnf.config.sections.segmentation import DeepLabNetwork
from brnf.flow.bsdnf import Calibration
from brnf.flow.density import FlowDensity
from brnf.flow.gaussian import build_gaussian
from brnf.flow.saved import load_density, save_density
from brnf.segment.deeplab import build_deeplab, load_deeplab, save_deeplab
from brnf.stages import denoise_seeds
from brnf.store.maps import MapReader, write_maps
from brnf.store.pixels import PixelRows, PixelStore, write_pixels
from brnf.store.tensors import read_tensors, write_tensors
from tests.fuzz.mutations import absurd_value, mutate_bytes, mutate_value
from tests.fuzz.runner import Kind
from tests.fuzz.sources import QUIET

__all__ = ["store_kinds"]

DIMENSION, CLASSES = 4, 3
GRID = (3, 4)
OLDEST = ("earliest", "v108")


def write_valid_maps(path: Path) -> bytes:
    """Write maps of three images and return the file."""
    random = np.random.default_rng(0)
    with write_maps(path, 20) as writer:
        for number, classes in enumerate(([1], [1, 2], [2])):
            values = {
                name: random.random((len(classes) + 1, 6, 8)).astype(np.float32)
                for name in ("classifier", "prototype")
            }
            writer.write(f"image{number}", np.array(classes), values)
    return path.read_bytes()


def write_valid_pixels(path: Path) -> bytes:
    """Write the pixels of the same images and return the file."""
    random = np.random.default_rng(1)
    rows = GRID[0] * GRID[1]
    with write_pixels(path, DIMENSION, CLASSES) as writer:
        for number, present in enumerate(
            ([True, True, False], [True, True, True], [True, False, True])
        ):
            score = random.random(rows)
            label = np.full(rows, 1 if present[1] else 2)
            feature = random.normal(size=(rows, DIMENSION))
            writer.append(
                PixelRows(
                    f"image{number}",
                    GRID,
                    np.array(present),
                    feature,
                    score,
                    1 - score,
                    label,
                    np.arange(rows),
                )
            )
    return path.read_bytes()


def older(write: Callable[[Path], bytes], path: Path) -> bytes:
    """Return what a writer writes in the oldest format, without checksums."""
    with patch("brnf.store.hdf5.FORMAT", OLDEST):
        return write(path)


def respelt(
    content: bytes,
    change: Callable[[h5py.File, np.random.Generator], None],
    folder: Path,
    random: np.random.Generator,
) -> bytes:
    """Change a file through HDF5 itself, so that its checksums are right and its content wrong."""
    path = folder / f"{os.getpid()}.h5"
    path.write_bytes(content)
    try:
        with h5py.File(path, "r+", libver=("v110", "v110")) as file:
            change(file, random)
        return path.read_bytes()
    finally:
        path.unlink()


def change_file(file: h5py.File, random: np.random.Generator) -> None:
    """Replace, remove, rename or link a dataset, or change attributes."""
    datasets: list[str] = []
    file.visititems(
        lambda name, entry: datasets.append(name) if isinstance(entry, h5py.Dataset) else None
    )
    name = datasets[int(random.integers(len(datasets)))]
    old = file[name]
    attributes = [
        (entry, key) for entry in (file, *(file[key] for key in file)) for key in entry.attrs
    ]
    way = int(random.integers(14))
    if way < 9:
        values = old[()]
        del file[name]
    shape = (
        tuple(int(random.choice([0, 1, 5, side, side + 1, max(side - 1, 0)])) for side in old.shape)
        if way in (0, 1)
        else ()
    )
    if way == 0:
        file.create_dataset(
            name, data=np.resize(values, shape), chunks=shape if shape and 0 not in shape else None
        )
    elif way == 1:
        huge = tuple(int(random.choice([2**20, 2**40])) for _ in values.shape)
        file.create_dataset(
            name, shape=huge, dtype=values.dtype, chunks=tuple(min(side, 64) for side in huge)
        )
    elif way == 2:
        kind = str(random.choice(["f8", "f4", "i8", "u1", "S5", "?"]))
        file.create_dataset(name, data=np.resize(values.view(np.uint8), values.shape).astype(kind))
    elif way == 3:
        file[name] = (
            h5py.ExternalLink("/etc/passwd", "/")
            if random.random() < 0.5
            else h5py.SoftLink(random.choice(["/", "/nowhere", name]))
        )
    elif way == 4:
        file.create_dataset(
            name,
            shape=values.shape,
            dtype=values.dtype,
            external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)],
        )
    elif way == 5:
        layout = h5py.VirtualLayout(values.shape, values.dtype)
        layout[...] = h5py.VirtualSource("/etc/hostname", "x", values.shape)
        file.create_virtual_dataset(name, layout)
    elif way == 6:
        file.create_group(name)
    elif way == 7:
        data = values.astype(np.float64) if values.dtype.kind != "S" else values
        if data.dtype.kind == "f" and data.size:
            data.flat[int(random.integers(data.size))] = random.choice([np.nan, np.inf, -1, 1e4])
            data = data.astype(values.dtype)
        file.create_dataset(name, data=data, chunks=values.shape if values.ndim == 3 else None)
    elif way == 8:
        file.create_dataset(name, data=["text"] * 3)
    elif way < 12 and attributes:
        entry, key = attributes[int(random.integers(len(attributes)))]
        value = random.choice(np.array([0, -1, 3, 10**6, "x", 0.5, np.nan], object))
        entry.attrs[key] = (
            value
            if random.random() < 0.5
            else np.resize(
                np.array([0, 1, 2, 200], np.uint8), int(random.choice([0, 1, 2, 3, 5000]))
            )
        )
    elif way == 12 and attributes:
        entry, key = attributes[int(random.integers(len(attributes)))]
        del entry.attrs[key]
    else:
        del file[name.split("/")[0]]
        file[name.split("/")[0]] = file["/"]


def spoilt_hdf5(content: bytes, old: bytes, folder: Path) -> Callable[[np.random.Generator], bytes]:
    """Return what spoils the bytes of a file, of its older twin, or its structure."""

    def spoil(random: np.random.Generator) -> bytes:
        chance = random.random()
        if chance < 0.4:
            return respelt(content, change_file, folder, random)
        return mutate_bytes(old if chance < 0.5 else content, [content, old], random)

    return spoil


def read_maps(path: Path, number: int) -> None:
    """Read all maps of a shard."""
    reader = MapReader([path], "classifier" if number % 2 else "prototype")
    for image in reader.images:
        maps = reader[image]
        assert maps.values.shape[0] == len(maps.classes) + 1 and np.isfinite(maps.values).all()


def read_pixels(path: Path, number: int) -> None:
    """Read a shard in order, at random and by image."""
    store = PixelStore([path])
    for batch in (*store.blocks(), *(store.shuffled_batches(7, 0, epochs=1) if len(store) else ())):
        assert np.isfinite(batch.feature).all() and (
            not len(batch) or batch.label.max() < store.classes
        )
    for image in store.images:
        rows = store.image_rows(image)
        assert np.isfinite(rows.feature).all() and len(rows.position) == len(rows.feature)


def spoilt_torch(content: bytes) -> Callable[[np.random.Generator], bytes]:
    """Return what spoils a torch file's bytes, or the values in it."""

    def spoil(random: np.random.Generator) -> bytes:
        if random.random() < 0.5:
            return mutate_bytes(content, [content], random)
        value = torch.load(io.BytesIO(content), weights_only=True)
        tensors = [
            (holder, key)
            for holder in _holders(value)
            for key in holder
            if isinstance(holder[key], torch.Tensor)
        ]
        if random.random() < 0.4:
            holder, key = tensors[int(random.integers(len(tensors)))]
            holder[key] = _other_tensor(holder[key], random)
        else:
            value = mutate_value(value, random)
        file = io.BytesIO()
        torch.save(value, file)
        return file.getvalue()

    return spoil


def _holders(value: Any) -> list[dict[str, Any]]:
    found, waiting = [], [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            found.append(part)
            waiting += part.values()
    return found


def _other_tensor(tensor: torch.Tensor, random: np.random.Generator) -> Any:
    """Return a tensor of another size or kind, or with values that are not finite."""
    way = int(random.integers(6))
    if way == 0 and tensor.numel():
        spoilt = tensor.clone().float()
        spoilt.view(-1)[int(random.integers(tensor.numel()))] = float(
            random.choice([np.nan, np.inf])
        )
        return spoilt
    return (
        tensor.flatten()[1:],
        tensor.double(),
        tensor.to(torch.int64),
        torch.zeros(3, 1).expand(3, 1000),
        torch.zeros(2).to_sparse(),
        absurd_value(random),
    )[way]


def read_network(path: Path, number: int) -> None:
    """Read a CAM or a segmentation network; each refuses the other's files."""
    if number % 2:
        load_cam_network(path, torch.device("cpu"), ["cat", "dog"])
    else:
        load_deeplab(path, torch.device("cpu"))


def read_weights(path: Path, number: int) -> None:
    """Read a file of plain tensors."""
    read_tensors(path, "give another file")


def denoising(folder: Path) -> Callable[[Path, int], None]:
    """Return what denoises the valid maps with a spoilt density."""

    def read(path: Path, number: int) -> None:
        if number % 8 == 1:
            inputs = denoise_seeds.Inputs(folder / "pixels.h5", folder / "maps.h5", path)
            denoise_seeds.run(
                inputs,
                denoise_seeds.Outputs(path.parent / "out" / "denoised.h5"),
                denoise_seeds.Options(bsdnf=Denoising(rule="posterior")),
                QUIET,
            )
            return
        density, calibration = load_density(path)
        assert density.log_prob(torch.zeros(5, density.dimension)).shape == (5, density.classes)
        assert calibration is None or calibration.temperature > 0

    return read


def store_kinds(folder: Path) -> list[Kind]:
    """Return the kinds of binary files that the workflow writes itself."""
    torch.manual_seed(0)
    maps, pixels = write_valid_maps(folder / "maps.h5"), write_valid_pixels(folder / "pixels.h5")
    old_maps, old_pixels = (
        older(write, folder / "old.h5") for write in (write_valid_maps, write_valid_pixels)
    )
    names = ("predicted", "above_low", "above_high")
    tables = {name: torch.linspace(-5, 5, 1001).repeat(CLASSES, 1) for name in names}
    flow = FlowDensity(DIMENSION, CLASSES, FlowArchitecture(blocks=2, hidden=8))
    save_density(folder / "flow.pt", flow, Calibration(2.0, tables, tables))
    save_density(
        folder / "gmm.pt", build_gaussian("gmm", DIMENSION, CLASSES, Baseline(components=2))
    )
    write_tensors(
        folder / "weights.pt",
        {
            "a.weight": torch.ones(3, 4),
            "b": torch.zeros(2, dtype=torch.int64),
            "c": {"d": [1, 2.5, "x"]},
        },
    )
    backbone = BackboneOptions(
        name="tf_efficientnet_lite0", weights="none", stride=16, trainable_stages=0
    )
    cam = CamNetwork(build_backbone(backbone), 2, (4, 4, 4, 4))
    save_cam_network(folder / "cam.pt", cam, backbone, ["cat", "dog"])
    options = DeepLabNetwork(
        backbone="tf_efficientnet_lite0",
        weights="none",
        output_stride=16,
        rates=(1, 2),
        head="aspp_sum",
    )
    save_deeplab(folder / "deeplab.pt", build_deeplab(options, 3), ["cat", "dog"])
    files = {
        name: (folder / f"{name}.pt").read_bytes()
        for name in ("flow", "gmm", "weights", "cam", "deeplab")
    }

    def spoil_network(random: np.random.Generator) -> bytes:
        return spoilt_torch(files["cam" if random.random() < 0.5 else "deeplab"])(random)

    def spoil_density(random: np.random.Generator) -> bytes:
        return spoilt_torch(files["flow" if random.random() < 0.7 else "gmm"])(random)

    return [
        Kind("hdf5 maps", 1200, maps, spoilt_hdf5(maps, old_maps, folder), read_maps, "maps.h5"),
        Kind(
            "hdf5 pixels",
            1200,
            pixels,
            spoilt_hdf5(pixels, old_pixels, folder),
            read_pixels,
            "pixels.h5",
        ),
        Kind("torch density", 700, files["flow"], spoil_density, denoising(folder), "flow.pt"),
        Kind(
            "torch weights",
            600,
            files["weights"],
            spoilt_torch(files["weights"]),
            read_weights,
            "weights.pt",
        ),
        Kind("torch network", 100, files["deeplab"], spoil_network, read_network, "network.pt"),
    ]
