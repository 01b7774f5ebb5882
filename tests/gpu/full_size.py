"""The paper's trainings at their true sizes: memory and time; hot loops beside research code."""

import copy
import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import cam_inference, flow_training, segmentation_training
from benchmarks.gpu_counts import count_step
from benchmarks.paper_trainings import TRAININGS, Steps, paper_experiment
from benchmarks.reference_flow import ReferenceFlow
from brnf.backbones import build_backbone
from brnf.cam.inference import multi_scale_maps
from brnf.cam.network import CamNetwork
from brnf.config.sections.cam import BackboneOptions, MultiScaleMaps
from brnf.config.sections.flow import FlowArchitecture, FlowTraining
from brnf.config.sections.segmentation import DeepLabNetwork
from brnf.engine.precision import use_precision
from brnf.flow.density import FlowDensity
from brnf.flow.training import FlowTrainer
from brnf.segment.deeplab import build_deeplab
from brnf.segment.training import SegmentationTrainer
from tests.gpu.result import Context, Result

__all__ = ["beside_research_code", "peak_memory"]

LEAST, MOST = 0.9, 1.35
"""Of the counted memory: workspaces of cuDNN and rounding to blocks come on top."""
TIMED = 5
SMALL: dict[str, Any] = {
    "base": {"crop": 64, "batch_size": 2},
    "brnf": {"crop": 64, "batch_size": 2},
    "flow": {"batch_rows": 256},
    "segmentation": {"crop": 65, "batch_size": 2},
}
"""For a CPU, which only shows that the steps are taken."""


def peak_memory(context: Context) -> Iterator[Result]:
    """Take three steps of each training, VOC's and COCO's, and compare with what was counted."""
    device, on_gpu = context.torch_device, context.device != "cpu"
    for name in ("voc12", "coco14"):
        with tempfile.TemporaryDirectory() as folder:
            experiment = paper_experiment(name, Path(folder), None if on_gpu else SMALL)
        for rule, steps_of in TRAININGS.items():
            if not on_gpu:
                steps = steps_of(experiment, device, "fp32")
                yield Result(f"{name}, {rule}", f"{_seconds(steps.step, device, 1):.2f} s a step")
                continue
            counted = count_step(rule, experiment)[0].peak
            for precision in context.precisions:
                if rule == "train_flow" and precision != "fp32":
                    continue
                if counted * MOST > torch.cuda.mem_get_info(device)[0]:
                    yield Result(f"{name}, {rule}", f"needs {counted / 2**30:.1f} GiB, left out")
                    break
                use_precision(precision, device)
                what = f"{name}, {rule}, {precision}"
                new_steps = partial(steps_of, experiment, device, precision)
                yield _measured(what, precision, counted, new_steps, device)


def _measured(
    what: str,
    precision: str,
    counted: int,
    new_steps: Callable[[], Steps],
    device: torch.device,
) -> Result:
    """Take steps in a precision and compare their memory with what was counted in float32."""
    gc.collect()
    torch.cuda.empty_cache()
    steps = new_steps()
    for _ in range(2):
        steps.step()
    torch.cuda.reset_peak_memory_stats(device)
    seconds = _seconds(steps.step, device, 3)
    peak = torch.cuda.max_memory_allocated(device)
    share = peak / counted
    told = f"{peak / 2**30:.1f} GiB, {share:.2f} of the counted, {seconds:.3f} s a step"
    # In half precision values take half, which was not counted: only the upper bound holds.
    least = LEAST if precision in ("fp32", "tf32") else 0.0
    return Result(what, told, least <= share <= MOST)


def _seconds(run: Callable[[], object], device: torch.device, times: int) -> float:
    """Return the median time of a call, of which the device has done all."""
    taken = []
    for _ in range(times):
        _wait(device)
        start = time.perf_counter()
        run()
        _wait(device)
        taken.append(time.perf_counter() - start)
    return median(taken)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def beside_research_code(context: Context) -> Iterator[Result]:
    """Time hot loops beside the way of the research code, after both have agreed, in float32."""
    device, tiny = context.torch_device, context.device == "cpu"
    use_precision("fp32", device)
    torch.manual_seed(0)
    yield from _flow(device, tiny)
    yield _maps(device, tiny)
    yield _segmentation(device, tiny)


def _told(
    what: str,
    own: Callable[[], object],
    theirs: Callable[[], object],
    far: float,
    device: torch.device,
) -> Result:
    """Time both ways, which differ by ``far``; at most a hundredth."""
    own(), theirs()
    ours, reference = _seconds(own, device, TIMED), _seconds(theirs, device, TIMED)
    times = f"{1e3 * ours:.1f} ms, research code {1e3 * reference:.1f} ms"
    told = f"{times}: {reference / ours:.2f} times as fast, differ by {far:.0e}"
    return Result(what, told, far < 0.01)


def _flow(device: torch.device, tiny: bool) -> Iterator[Result]:
    size = flow_training.TINY if tiny else flow_training.Size((20_480,), 768)
    flow = FlowDensity(size.dimension, size.classes, FlowArchitecture(hidden=size.hidden))
    flow = flow.to(device)
    reference = ReferenceFlow(flow).to(device)
    features = torch.randn(size.rows[0], size.dimension, device=device)
    targets = torch.randint(-1, size.classes, size.rows, device=device)
    with torch.no_grad():
        own, theirs = flow.log_prob(features), reference.log_prob(features)
        far = float((own - theirs).abs().max() / theirs.abs().max())

        def densities() -> torch.Tensor:
            return reference.log_prob(features)

        def ours() -> torch.Tensor:
            return flow.log_prob(features)

        yield _told("log-density of the flow", ours, densities, far, device)
    host = features.half().cpu(), targets.cpu()
    trainer = FlowTrainer(flow, FlowTraining(), None)
    plain = flow_training.reference_step(reference, features, targets, flow.options.noise)
    yield _told("training step of the flow", lambda: trainer.step(host), plain, far, device)


@torch.inference_mode()
def _maps(device: torch.device, tiny: bool) -> Result:
    size = cam_inference.TINY if tiny else cam_inference.FULL
    backbone = build_backbone(BackboneOptions(name=size.backbone, weights="none"))
    network = CamNetwork(backbone, size.classes - 1, size.widths).to(device).eval()
    planes = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    network.backbone.fold()
    image = (255 * torch.rand(3, size.height, size.width, device=device)).round()
    labels = torch.zeros(size.classes - 1, device=device)
    labels[[0, 2]] = 1
    rules = MultiScaleMaps(scales=size.scales)

    def own() -> Any:
        return multi_scale_maps(network, image, labels, (size.height, size.width), rules)

    def theirs() -> Any:
        return cam_inference.maps_apart(planes, image, labels, size)

    far = float((own().prototype - theirs().prototype).abs().mean())
    return _told("multi-scale maps of an image", own, theirs, far, device)


def _segmentation(device: torch.device, tiny: bool) -> Result:
    size = segmentation_training.TINY if tiny else segmentation_training.FULL
    options = DeepLabNetwork(
        backbone=size.backbone, weights="none", head="aspp_sum", frozen_batch_norm=True
    )
    network = build_deeplab(options, size.classes).to(device)
    planes = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    shape = (size.batch, size.crop, size.crop)
    images = torch.randint(0, 256, (size.batch, 3, size.crop, size.crop), dtype=torch.uint8)
    labels = torch.randint(0, size.classes, shape, dtype=torch.uint8)
    optimiser = segmentation_training.OPTIMISER
    trainer = SegmentationTrainer(network, optimiser, device)
    plain = segmentation_training.plain_trainer(planes, optimiser)

    def theirs() -> float:
        return plain(images.to(device), labels.to(device))

    own = partial(trainer.step, (images, labels))
    far = abs(own()["loss"] / theirs() - 1)
    return _told("training step of DeepLabV2", own, theirs, far, device)
