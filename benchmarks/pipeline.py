"""How busy a GPU would be in inference: ``python -m benchmarks.pipeline``.

The stages run as they are on photographs of PASCAL VOC's size, but for two things. What the network
computes is replaced by a sleep: the operations that torch counts, over the rate that an A100 is
assumed to reach. Where a stage does not wait for the device, that goes on beside, and launching
takes the main thread its time. And whatever processes, the main thread and the writer do with an
image, its arrival from a reader among it, is done once, its processor time measured, and from then
on a sleep of that length that returns what was returned then: eight processes, a main thread and a
writer do not fit on a small machine. So the simulated machine has a core for each of them, and
threads do not wait for Python's lock. Real are the queues between them, and the way of maps and
probabilities from the main thread to processes and back.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.counted_work import LAUNCH_SECONDS
from benchmarks.harness import machine
from benchmarks.pipeline_scene import (
    CLASSES,
    PROCESSOR,
    Scene,
    Size,
    maps,
    probability_of,
    slept_pack,
    slept_read,
    slept_read_stored,
    slept_refine,
    work,
)
from brnf.backbones import build_backbone
from brnf.cam.network import CamNetwork
from brnf.config.sections.cam import BackboneOptions, CamTraining, MultiScaleMaps
from brnf.config.sections.segmentation import Crf, DeepLabNetwork, SegmentationTest
from brnf.data.pipeline import Workers
from brnf.engine import map_shards
from brnf.engine.runtime import Runtime
from brnf.segment import crf_batches
from brnf.segment.crf import likely_labels
from brnf.segment.deeplab import build_deeplab
from brnf.stages import compute_cams, predict_segmentation, store_pixels
from brnf.store.maps import MapWriter
from brnf.store.pixels import PixelWriter

__all__ = ["STAGES", "Size", "busy", "operations"]

CPU = torch.device("cpu")
LAUNCH, LAUNCHES = 5e-6, 1300
"""Seconds that a kernel takes at least, and kernels of a batch of the CRF."""
NETWORK_LAUNCHES = 344
"""Kernels of the network for an image and its mirror (`benchmarks.gpu_counts`), each of which takes
the main thread as long as that assumes.
"""


@dataclass
class Device:
    """A GPU that sleeps.

    Attributes:
        slept: seconds that it was asked for.
        begun: when it was first called.
    """

    slept: float = 0.0
    begun: float | None = field(default=None)
    _queue: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def begin(self, seconds: float) -> Future[None]:
        """Be busy after all that was asked for before, while the caller goes on."""
        self.begun = self.begun or time.perf_counter()
        self.slept += seconds
        return self._queue.submit(time.sleep, seconds)

    def work(self, seconds: float) -> None:
        """Be busy while the caller waits."""
        self.begin(seconds).result()


class OneThread(Workers):
    """How it was before: only the dense CRF is left to processes."""

    def map(self, function: Any, items: Any, known: Any = None) -> Iterator[Any]:
        """Yield results, those of all but the CRF made here."""
        if isinstance(function, partial):
            return super().map(function, items)
        return (function(*item) for item in items)

    @contextmanager
    def writing(self, write: Callable[..., None]) -> Iterator[Callable[..., None]]:
        """Write here."""
        yield write


def _cams(scene: Scene, device: Device, runtime: Runtime) -> None:
    def products(network: Any, image: Tensor, labels: Tensor, size: Any, *_: Any) -> Any:
        device.work(scene.size.device)
        values = maps(int(labels.sum()), size)
        return {"classifier": values, "prototype": values}

    with ExitStack() as stack:
        _patch(stack, compute_cams, load_cam_network=_network, map_products=products)
        _patch(stack, map_shards, read_sized=slept_read, pack_maps=slept_pack)
        _patch(stack, MapWriter, write_packed=work("write_packed"))
        inputs = compute_cams.Inputs(scene.index, scene.folder, scene.list)
        outputs = compute_cams.Outputs(scene.folder / "cams.h5")
        compute_cams.run(inputs, outputs, compute_cams.Options(), runtime)


def _pixels(scene: Scene, device: Device, runtime: Runtime) -> None:
    grid = torch.rand(768, 24, 32)
    busy: list[Future[None]] = []

    def features(network: Any, image: Tensor) -> Tensor:
        busy.append(device.begin(scene.size.device))
        if scene.size.processor is None:
            time.sleep(LAUNCH_SECONDS * NETWORK_LAUNCHES)
        return grid

    def begin_copy(values: Tensor) -> Callable[[], Tensor]:
        done = busy.pop()
        return lambda: done.result() or values

    with ExitStack() as stack:
        _patch(stack, store_pixels, load_cam_network=_network, pixel_features=features)
        _patch(stack, store_pixels, begin_copy=begin_copy)
        _patch(stack, store_pixels, read_stored=slept_read_stored, _rows=lambda *_: None)
        _patch(stack, PixelWriter, append=work("append"))
        place = scene.folder, scene.folder / "maps.h5", scene.list
        inputs = store_pixels.Inputs(scene.index, *place)
        outputs = store_pixels.Outputs(scene.folder / "pixels.h5")
        store_pixels.run(inputs, outputs, store_pixels.Options(), runtime)


def _predictions(scene: Scene, device: Device, runtime: Runtime) -> None:
    side = scene.size.height, scene.size.width
    likely = {turned: likely_labels(probability_of(turned)) for turned in (side, side[::-1])}

    def labels(network: Any, image: NDArray[np.uint8], *_: Any) -> Any:
        time.sleep(PROCESSOR["views"])
        device.work(scene.size.device)
        return likely[image.shape[0], image.shape[1]]

    def crf(images: Tensor, probability: Tensor, *_: Any) -> Tensor:
        device.work(LAUNCHES * LAUNCH)
        return probability

    def on_gpu(images: Iterable[Any], options: Crf, _: Any) -> Iterator[Any]:
        return crf_batches.refine_in_batches(images, options, CPU)

    before = vars(predict_segmentation)["Workers"] is OneThread
    name = "cpu" if before else "meta"  # by its type the CRF is left to processes, or is not
    with ExitStack() as stack:
        _patch(stack, Runtime, torch_device=lambda *_, **__: torch.device(name))
        _patch(stack, crf_batches, dense_crf_batch=crf)
        _patch(stack, predict_segmentation, load_deeplab=_network, predict_labels=labels)
        _patch(stack, predict_segmentation, read_image=slept_read, refine_labels=slept_refine)
        _patch(stack, predict_segmentation, refine_in_batches=on_gpu, write_mask=work("write_mask"))
        _patch(stack, predict_segmentation, label_image=lambda *_: None)
        inputs = predict_segmentation.Inputs(scene.index, scene.folder, scene.list)
        outputs = predict_segmentation.Outputs(*(scene.folder / name for name in "mpc"))
        predict_segmentation.run(inputs, outputs, predict_segmentation.Options(), runtime)


def _network(*_: Any) -> SimpleNamespace:
    return SimpleNamespace(dimension=768, backbone=SimpleNamespace(fold=lambda: None))


def _patch(stack: ExitStack, target: Any, **changes: Any) -> None:
    stack.enter_context(mock.patch.multiple(target, **changes))


STAGES: dict[str, Callable[[Scene, Device, Runtime], None]] = {
    "compute_cams": _cams,
    "store_pixels": _pixels,
    "predict_segmentation": _predictions,
}


def busy(stage: str, size: Size, workers: int, *, before: bool = False) -> float:
    """Return the share of the time from its first image to the end in which the device is busy.

    Arguments:
        stage: its name.
        size: what is simulated.
        workers: processes.
        before: do all but the CRF in one thread.
    """
    device, runtime = Device(), Runtime(device="cpu", workers=workers, progress="none")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        scene = Scene(Path(name), size)
        if before:
            for module in (map_shards, store_pixels, predict_segmentation):
                _patch(stack, module, Workers=OneThread)
        STAGES[stage](scene, device, runtime)
        assert device.begun is not None
        return device.slept / (time.perf_counter() - device.begun)


def operations(height: int, width: int) -> dict[str, float]:
    """Return the operations of the paper's networks on a photograph, by stage."""
    with torch.device("meta"):
        backbone = build_backbone(BackboneOptions(name="resnet50", weights="none"))
        cam = CamNetwork(backbone, CLASSES, CamTraining().side_widths).eval()
        deeplab = build_deeplab(DeepLabNetwork(weights="none"), CLASSES + 1, load=False).eval()
    cams = _operations(cam, height, width, MultiScaleMaps().scales)
    predictions = _operations(deeplab, height, width, SegmentationTest().scales)
    pixels = _operations(cam, height, width, (1.0,))
    return dict(zip(STAGES, (cams, pixels, predictions), strict=True))


def _operations(
    network: torch.nn.Module, height: int, width: int, scales: Iterable[float]
) -> float:
    """Return the operations of an image and its mirror at all scales."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        for scale in scales:
            size = round(height * scale), round(width * scale)
            network(torch.empty(2, 3, *size, device="meta"))
    return float(counter.get_total_flops())


def main(
    workers: int = 8,
    rate: float = 19.5,
    images: tuple[int, int, int] = (200, 600, 60),
    processor: float | None = None,
) -> None:
    """Print how busy a GPU would be.

    Arguments:
        workers: processes.
        rate: operations that the GPU does a second, 10^12; 19.5 is the most of an A100 in float32.
        images: of compute_cams, store_pixels and predict_segmentation.
        processor: seconds of a process's work on an image instead of the measured ones.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    counted = operations(Size.height, Size.width)
    print(f"{machine()}\n{workers} workers, {rate} T operations/s\n")
    print("| stage | T operations | GPU, ms an image | before | now |\n|---|---|---|---|---|")
    for (stage, count), number in zip(counted.items(), images, strict=True):
        seconds = count / (rate * 1e12)
        size = Size(images=number, device=seconds, processor=processor)
        shares = [busy(stage, size, workers, before=before) for before in (True, False)]
        cells = f"{count / 1e12:.2f} | {1e3 * seconds:.1f} | {shares[0]:.0%} | {shares[1]:.0%}"
        print(f"| {stage} | {cells} |", flush=True)
    times = ", ".join(f"{name.strip('_')} {1e3 * one:.1f}" for name, one in PROCESSOR.items())
    print(f"\nmeasured processor time of an image, ms: {times}")


if __name__ == "__main__":
    tyro.cli(main)
