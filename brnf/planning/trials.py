"""What every kind of stage does in one step or with one image, with the configured networks: the
trials that a probe measures.

Networks get random weights and images are noise, which changes no time. On a CPU a step sees two
images.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brnf.cam.batch import Batch
from brnf.cam.inference import multi_scale_maps, pixel_features
from brnf.cam.network import CamNetwork, CamOutput
from brnf.cam.objective import base_loss
from brnf.cam.training import CamTrainer
from brnf.config.experiment import Experiment
from brnf.evaluate.confusion import Confusion
from brnf.evaluate.scores import ScoreHistogram
from brnf.flow.bsdnf import depress, enlarge_margin
from brnf.flow.training import FlowTrainer
from brnf.flow.training import TrainingOptions as FlowTrainingOptions
from brnf.planning.configured import cam_network, job_options, new_flow
from brnf.planning.sizes import SplitSize, map_side
from brnf.segment.crf import dense_crf, likely_labels
from brnf.segment.deeplab import build_deeplab
from brnf.segment.predict import predict_logits, seen_size
from brnf.segment.pseudo_labels import pseudo_label
from brnf.segment.training import SegmentationTrainer
from brnf.stages import (
    compute_cams,
    make_pseudo_labels,
    predict_segmentation,
    train_base,
    train_brnf,
    train_flow,
    train_segmentation,
)

__all__ = ["TRIALS", "Trial", "clock"]

IMAGES_ON_CPU = 2
LEAST_SIDE = 32
STILL = 1e-9
"""Learning rate of a probe: random weights must not diverge."""

Trial = Callable[[float], tuple[float, float]]
"""From the fraction of the side to the seconds of a step or image of that size, and those of a look
at one image.
"""


def clock(device: torch.device) -> Callable[[], float]:
    """Return what measures seconds: one thread of a CPU is measured by its own time, in which other
    processes do not count.
    """
    return (
        time.process_time
        if device.type == "cpu" and torch.get_num_threads() == 1
        else time.perf_counter
    )


def _timed(run: Callable[[], object], device: torch.device) -> float:
    now = clock(device)
    begin = now()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return now() - begin


def _step_images(batch_size: int, device: torch.device) -> tuple[int, int]:
    """Return how many images a probed step sees, and how many times as many the real one does
    (rounded up).
    """
    images = batch_size if device.type != "cpu" else min(batch_size, IMAGES_ON_CPU)
    return images, -(-batch_size // images)


def _side(side: float, fraction: float, multiple: int = 1) -> int:
    """Return a part of a side, not too small for a network."""
    return max(LEAST_SIDE, round(side * fraction / multiple) * multiple)


def _noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _present(size: SplitSize) -> int:
    """Return the number of classes of a usual image."""
    return min(size.classes, max(1, round(size.labels)))


def _cam_trial(
    options: CamTrainingOptions,
    size: SplitSize,
    device: torch.device,
    loss: Callable[[CamNetwork], Callable[[CamOutput, Batch, int], dict[str, Tensor]]],
) -> tuple[Trial, int]:
    """Return the trial of a training of a CAM network; with ``cache`` a step starts from the
    backbone's outputs.
    """
    options = replace(options, weights="none", learning_rate=STILL, head_learning_rate=STILL)
    network = options.new_network(size.classes, device)
    images, times = _step_images(options.batch_size, device)
    terms = loss(network)
    labels = torch.zeros(images, size.classes)
    labels[:, : _present(size)] = 1

    def trial(fraction: float) -> tuple[float, float]:
        side = _side(options.crop, fraction, 16)
        grid = side // 16
        pixels = torch.randint(0, 256, (images, 3, side, side), dtype=torch.uint8)
        seeds = torch.rand(images, size.classes + 1, grid, grid)
        seeds[:, 1:] *= labels[:, :, None, None]
        looks: list[list[Tensor]] = []
        with torch.no_grad():
            look = _timed(lambda: looks.append(network.stages(pixels.to(device))), device) / images
        batch = Batch(
            looks[0] if options.cache else pixels,
            labels,
            torch.ones(images, 1, grid, grid, dtype=torch.bool),
            seeds,
        )
        trainer = CamTrainer(network, terms, 1, options.optimiser_options())
        step = _timed(lambda: trainer.step(batch), device)
        return step, look if options.cache or options.fit_classifier else 0.0

    return trial, times


def _train_base(experiment: Experiment, size: SplitSize, device: torch.device) -> tuple[Trial, int]:
    options: train_base.Options = job_options(train_base, experiment, "base")
    rules = options.map_rules()

    def terms(output: CamOutput, batch: Batch, step: int) -> dict[str, Tensor]:
        return base_loss(output, batch.labels, batch.valid, rules)

    return _cam_trial(options, size, device, lambda network: terms)


def _train_brnf(experiment: Experiment, size: SplitSize, device: torch.device) -> tuple[Trial, int]:
    options: train_brnf.Options = job_options(train_brnf, experiment, "brnf")

    def loss(network: CamNetwork) -> Callable[[CamOutput, Batch, int], dict[str, Tensor]]:
        objective = train_brnf.build_objective(
            options, network.dimension, size.classes + 1, 1, device
        )

        def terms(output: CamOutput, batch: Batch, step: int) -> dict[str, Tensor]:
            assert batch.seeds is not None
            return objective(
                output,
                batch.labels,
                batch.valid,
                batch.seeds,
                objective.flow is not None and objective.flow.ready(1),
            )

        return terms

    return _cam_trial(options, size, device, loss)


def _compute_cams(
    experiment: Experiment, size: SplitSize, device: torch.device
) -> tuple[Trial, int]:
    options: compute_cams.Options = job_options(compute_cams, experiment, "base")
    network = cam_network(experiment, size.classes, device).eval()
    labels = torch.zeros(size.classes, device=device)
    labels[: _present(size)] = 1

    def trial(fraction: float) -> tuple[float, float]:
        stored = [
            map_side(_side(side, fraction), options.cam.map_stride)
            for side in (size.height, size.width)
        ]
        height, width = _seen(size, fraction, options.cam.image_long_side)
        image = torch.from_numpy(_noise(height, width)).permute(2, 0, 1).to(device)
        with torch.inference_mode():
            return _timed(
                lambda: multi_scale_maps(
                    network, image, labels, (stored[0], stored[1]), options.cam
                ),
                device,
            ), 0.0

    return trial, 1


def _store_pixels(
    experiment: Experiment, size: SplitSize, device: torch.device
) -> tuple[Trial, int]:
    network = cam_network(experiment, size.classes, device).eval()

    def trial(fraction: float) -> tuple[float, float]:
        height, width = _seen(size, fraction, experiment.settings["cam"]["image_long_side"])
        image = torch.from_numpy(_noise(height, width)).permute(2, 0, 1).to(device)
        with torch.inference_mode():
            return _timed(lambda: pixel_features(network, image), device), 0.0

    return trial, 1


def _seen(size: SplitSize, fraction: float, long_side: int | None) -> tuple[int, int]:
    """Return height and width at which a network sees the mean image, and of these a part."""
    height, width = seen_size(round(size.height), round(size.width), 1.0, long_side)
    return _side(height, fraction), _side(width, fraction)


def _train_flow(experiment: Experiment, size: SplitSize, device: torch.device) -> tuple[Trial, int]:
    options: train_flow.Options = job_options(train_flow, experiment, "base")
    flow = new_flow(experiment, size, device)
    trainer = FlowTrainer(flow, FlowTrainingOptions(steps=1_000_000), None)

    def trial(fraction: float) -> tuple[float, float]:
        rows = max(64, round(options.batch_rows * fraction**2))
        features, codes = (
            torch.randn(rows, flow.dimension),
            torch.randint(-1, size.classes + 1, (rows,)),
        )
        return _timed(lambda: trainer.step((features, codes)), device), 0.0

    return trial, 1


def _denoise_seeds(
    experiment: Experiment, size: SplitSize, device: torch.device
) -> tuple[Trial, int]:
    flow = new_flow(experiment, size, device)
    stride = experiment.settings["cam"]["map_stride"]

    def trial(fraction: float) -> tuple[float, float]:
        height, width = (
            map_side(_side(side, fraction), stride) for side in (size.height, size.width)
        )
        seen = _seen(size, fraction, experiment.settings["cam"]["image_long_side"])
        grid = -(-seen[0] // 16), -(-seen[1] // 16)
        features, maps = (
            torch.randn(grid[0] * grid[1], flow.dimension),
            torch.rand(1 + _present(size), height, width),
        )

        def denoise() -> None:
            margin = flow.log_prob(features.to(device))[:, 0].cpu().view(grid)
            depress(maps, enlarge_margin(margin, (height, width), "bilinear"), 0.0)

        return _timed(denoise, device), 0.0

    return trial, 1


def _make_pseudo_labels(
    experiment: Experiment, size: SplitSize, device: torch.device
) -> tuple[Trial, int]:
    options: make_pseudo_labels.Options = job_options(make_pseudo_labels, experiment, "base")
    classes = np.arange(1, _present(size) + 1, dtype=np.uint8)

    def trial(fraction: float) -> tuple[float, float]:
        image = _noise(_side(size.height, fraction), _side(size.width, fraction))
        maps = np.random.default_rng(0).random(
            (1 + len(classes), *image.shape[:2]), dtype=np.float32
        )
        return _timed(
            lambda: pseudo_label(image, maps, classes, options.pseudo_labels), device
        ), 0.0

    return trial, 1


def _train_segmentation(
    experiment: Experiment, size: SplitSize, device: torch.device
) -> tuple[Trial, int]:
    options = replace(
        job_options(train_segmentation, experiment, "base"),
        weights="none",
        iterations=1,
        learning_rate=STILL,
    )
    network = build_deeplab(options, size.classes + 1)
    images, times = _step_images(options.batch_size, device)
    options, times = replace(options, accumulate=1), times * options.accumulate

    def trial(fraction: float) -> tuple[float, float]:
        side = _side(options.crop, fraction)
        pixels = torch.randint(0, 256, (images, 3, side, side), dtype=torch.uint8)
        batch = pixels, torch.randint(0, size.classes + 1, (images, side, side))
        trainer = SegmentationTrainer(network, options, device)
        return _timed(lambda: trainer.step(batch), device), 0.0

    return trial, times


def _predict_segmentation(
    experiment: Experiment, size: SplitSize, device: torch.device
) -> tuple[Trial, int]:
    """Measure scale 1 without its mirror and the CRF; what the network sees of the other scales is
    a multiple of that.
    """
    options: predict_segmentation.Options = job_options(predict_segmentation, experiment, "base")
    network = build_deeplab(
        replace(job_options(train_segmentation, experiment, "base"), weights="none"),
        size.classes + 1,
    )
    network = network.to(device).eval()
    test, crf = options.test, options.test.crf
    once = replace(test, scales=(1.0,), flip=False, merge="mean")
    times = sum(scale**2 for scale in test.scales) * (2 if test.flip else 1)

    def trial(fraction: float) -> tuple[float, float]:
        image = _noise(_side(size.height, fraction), _side(size.width, fraction))
        smaller = (
            once
            if once.long_side is None
            else replace(once, long_side=_side(once.long_side, fraction))
        )
        seen = _timed(lambda: predict_logits(network, image, smaller, device, options.amp), device)
        probability = np.zeros((size.classes + 1, *image.shape[:2]), np.float32)
        probability[: 1 + _present(size)] = 1 / (1 + _present(size))

        def refine() -> None:
            dense_crf(image, likely_labels(probability, crf.minimum)[1], crf)

        refined = _timed(refine, device) if crf.iterations else 0.0
        return times * seen + refined, 0.0

    return trial, 1


def _evaluate(experiment: Experiment, size: SplitSize, device: torch.device) -> tuple[Trial, int]:
    confusion, histogram = Confusion(size.classes + 1), ScoreHistogram(size.classes)
    classes = np.arange(1, _present(size) + 1, dtype=np.uint8)

    def trial(fraction: float) -> tuple[float, float]:
        height, width = _side(size.height, fraction), _side(size.width, fraction)
        random = np.random.default_rng(0)
        truth, found = (
            random.integers(0, size.classes + 1, (height, width), dtype=np.uint8) for _ in range(2)
        )
        foreground = random.random((len(classes), height, width), dtype=np.float32)

        def measure() -> None:
            confusion.add(truth, found)
            histogram.add(truth, classes, foreground)

        return _timed(measure, device), 0.0

    return trial, 1


TRIALS: dict[str, Callable[[Experiment, SplitSize, torch.device], tuple[Trial, int]]] = {
    "train_base": _train_base,
    "train_brnf": _train_brnf,
    "compute_cams": _compute_cams,
    "store_pixels": _store_pixels,
    "train_flow": _train_flow,
    "denoise_seeds": _denoise_seeds,
    "make_pseudo_labels": _make_pseudo_labels,
    "train_segmentation": _train_segmentation,
    "predict_segmentation": _predict_segmentation,
    "evaluate": _evaluate,
}
"""Rule -> what prepares its trial; it returns the trial, and how many times as many images a real
step has.
"""
