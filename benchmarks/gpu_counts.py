"""Memory and hours of the paper's experiments on a GPU, from what is counted without one.

``python -m benchmarks.gpu_counts`` prints the tables of docs/gpu.md. Every stage that computes on a
GPU takes a step, or an image, at its true size on a pretended device (`tests/pretended_device.py`),
which notes operations, bytes and memory. How many steps and images there are is Snakemake's plan.
"""

import argparse
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.counted_work import Card, Work, counted_work
from benchmarks.paper_trainings import (
    GRID_STRIDE,
    TRAININGS,
    foreground_classes,
    new_density,
    new_network,
    paper_experiment,
)
from brnf.cam.inference import map_products, pixel_features
from brnf.config.experiment import Experiment
from brnf.evaluate.tables import markdown
from brnf.planning.jobs import whole_jobs
from brnf.planning.pace import work_table
from brnf.planning.sizes import SIDE
from brnf.segment.deeplab import build_deeplab
from brnf.segment.predict import predict_logits
from tests.pretended_device import DEVICE, masks_keep
from tests.stage_options import options_of

__all__ = ["CARDS", "IMAGES", "RULES", "count_density", "count_features", "count_image"]
__all__ += ["count_maps", "count_prediction", "count_step", "main"]

PRECISIONS = ("fp32", "tf32", "bf16")
CARDS = (
    Card("A100", {"fp32": 19.5e12, "tf32": 156e12, "bf16": 312e12}, 1555e9),
    Card("RTX 3090", {"fp32": 35.6e12, "tf32": 35.6e12, "bf16": 71e12}, 936e9),
)
"""As NVIDIA prints them, without sparsity; the A100 is that of 40 GB."""
SECONDS_OF_AN_HOUR = 3600


SHOWN = 3
"""Classes of an image; photographs of VOC show 1.5 in the mean, COCO's 2.9."""
Sides = tuple[int, int]
SQUARE: Sides = (SIDE, SIDE)


def count_maps(
    experiment: Experiment, work: Work, sides: Sides = SQUARE, shown: int = SHOWN
) -> None:
    """Count the multi-scale maps of an image.

    Arguments:
        experiment: whose settings are taken.
        work: what is counted.
        sides: height and width of the image.
        shown: how many classes it shows.
    """
    options = options_of("compute_cams", experiment, "base").cam
    network = new_network(experiment, DEVICE).eval()
    network.backbone.fold()
    work.restart()
    image = torch.zeros(3, *sides, dtype=torch.uint8).to(DEVICE)
    classes = foreground_classes(experiment)
    labels = torch.ones(classes).to(DEVICE)
    with masks_keep({classes: shown, classes + 1: shown + 1}):  # the background, too
        map_products(network, image, labels, sides, options)


def count_features(experiment: Experiment, work: Work, sides: Sides = SQUARE) -> None:
    """Count the features of an image."""
    network = new_network(experiment, DEVICE).eval()
    network.backbone.fold()
    work.restart()
    with torch.inference_mode():
        pixel_features(network, torch.zeros(3, *sides, dtype=torch.uint8).to(DEVICE))


def count_density(experiment: Experiment, work: Work, sides: Sides = SQUARE) -> None:
    """Count the log-densities of an image's rows."""
    flow = new_density(experiment, DEVICE)
    work.restart()
    rows = math.prod(-(-side // GRID_STRIDE) for side in sides)
    flow.log_prob(torch.zeros(rows, flow.dimension, dtype=torch.float16))


def count_prediction(experiment: Experiment, work: Work, sides: Sides = SQUARE) -> None:
    """Count the logits of an image at all scales."""
    options = options_of("predict_segmentation", experiment, "base").test
    how = options_of("train_segmentation", experiment, "base").segmentation
    with DEVICE:
        network = build_deeplab(how, 1 + foreground_classes(experiment), load=False).eval()
    network.backbone.fold()
    work.restart()
    image = np.zeros((*sides, 3), np.uint8)
    with torch.inference_mode():
        predict_logits(network, image, options, DEVICE).softmax(0)


IMAGES: Mapping[str, Callable[[Experiment, Work], None]] = {
    "compute_cams": count_maps,
    "store_pixels": count_features,
    "train_flow": count_density,  # its calibration
    "denoise_seeds": count_density,
    "predict_segmentation": count_prediction,
}
"""By rule, what an image costs."""
RULES = (
    *("train_base", "compute_cams", "store_pixels", "train_flow", "denoise_seeds"),
    *("train_brnf", "train_segmentation", "predict_segmentation"),
)
"""In the order of the workflow."""


def count_step(rule: str, experiment: Experiment) -> tuple[Work, int]:
    """Return what the third step of a training does, and how many samples it has; the optimiser's
    state is there.
    """
    with counted_work() as work:
        steps = TRAININGS[rule](experiment, DEVICE, "fp32")
        for _ in range(2):
            steps.step()
        work.restart()
        steps.step()
    return work, steps.samples


def count_image(rule: str, experiment: Experiment) -> tuple[Work, int]:
    """Return what an image costs."""
    with counted_work() as work:
        IMAGES[rule](experiment, work)
    return work, 1


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=["voc12", "coco14"])
    for name in parser.parse_args().names:
        with tempfile.TemporaryDirectory() as folder:
            experiment = paper_experiment(name, Path(folder))
            known = {name: experiment}
            jobs = whole_jobs(known, Path(folder, "results"))
            jobs_work = work_table(known, jobs, Path(folder, "results"))
        work = jobs_work.groupby("rule")[["images", "samples"]].sum()
        steps, hours = tables(experiment, work)
        print(f"{name}, a step or an image:\n\n{markdown(steps)}\n")
        print(f"{name}, all of them, hours:\n\n{markdown(hours)}\n", flush=True)


def tables(experiment: Experiment, work: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what a step or an image of each rule costs, and the hours of all.

    Arguments:
        experiment: of the paper.
        work: images and samples of each rule.
    """
    steps, hours = [], []
    for rule in RULES:
        total = {f"{card.name} {kind}": 0.0 for card in CARDS for kind in PRECISIONS}
        total_operations = 0.0
        for known, counting, unit, times in (
            (IMAGES, count_image, "image", work.images[rule]),
            (TRAININGS, count_step, "step", work.samples[rule]),
        ):
            if rule not in known:
                continue
            found, samples = counting(rule, experiment)
            calls = times / samples
            steps.append(_step_row(rule, unit, samples, found))
            total_operations += calls * found.operations
            for card in CARDS:
                for kind in PRECISIONS:
                    seconds = calls * found.seconds(card, kind)
                    total[f"{card.name} {kind}"] += seconds / SECONDS_OF_AN_HOUR
        hours.append({"rule": rule, "PFLOP": total_operations / 1e15, **total})
    table = pd.DataFrame(hours)
    sums = {"rule": "all", **table.drop(columns="rule").sum().to_dict()}
    table = pd.concat([table, pd.DataFrame([sums])], ignore_index=True)
    return pd.DataFrame(steps), table.map(lambda one: f"{one:,.2f}" if one != str(one) else one)


def _step_row(rule: str, unit: str, samples: int, found: Work) -> dict[str, str]:
    of = f"{unit} of {samples:,}" if samples > 1 else unit
    return {
        "rule": rule,
        "of a": of,
        "memory (GiB)": f"{found.peak / 2**30:.1f}",
        "TFLOP": f"{found.operations / 1e12:.3f}",
        "GB moved": f"{found.moved / 1e9:.1f}",
        "kernels": f"{len(found.kernels):,}",
    }


if __name__ == "__main__":
    main()
