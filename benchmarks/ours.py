"""This project's side of the chain: the stages themselves over the measured share, without loading
weights.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.finished_run import MAPS, MASKS, SEEN, STEPS, UNSEEN, FinishedRun
from benchmarks.stopwatch import Build, Runner, Stopwatch, replaced
from brnf.backbones import Backbone, build_backbone
from brnf.cam import network as cam_network
from brnf.cam.network import CamNetwork, load_cam_network, new_cam_network
from brnf.engine.runtime import Runtime
from brnf.flow import denoiser
from brnf.flow.saved import load_density
from brnf.segment.deeplab import build_deeplab, load_deeplab
from brnf.stages import (
    compute_cams,
    denoise_seeds,
    evaluate,
    make_pseudo_labels,
    predict_segmentation,
    store_pixels,
    train_base,
    train_brnf,
    train_flow,
    train_segmentation,
)

__all__ = [
    "CAM_TRAININGS",
    "CPU",
    "OURS",
    "QUIET",
    "brnf_training",
    "evaluations",
    "loaded_before",
    "timed_steps",
]

CPU = torch.device("cpu")
QUIET = Runtime(device="cpu", threads=1, workers=0, progress="none")


@contextmanager
def timed_steps(module: Any, watch: Stopwatch, steps: int) -> Iterator[None]:
    """Let a module's ``take_steps`` end after the first steps of a training, and count them to the
    phase of steps.

    Schedule, judging and all else stay those of the whole training.
    """
    take_steps: Callable[..., None] = module.take_steps

    def timed(name: str, trainer: Any, batches: Any, whole: int, *others: Any) -> None:
        with watch.phase(STEPS):
            take_steps(name, trainer, batches, min(steps, whole), *others)

    with replaced(module, take_steps=timed):
        yield


def _compute_cams(run: FinishedRun, watch: Stopwatch) -> Runner:
    path = run.product("network/network.pt")
    network = load_cam_network(path, CPU, run.images(SEEN).classes)
    inputs = compute_cams.Inputs(run.index, path, run.listed(SEEN))
    options = run.options(compute_cams)

    def work(folder: Path) -> None:
        with replaced(compute_cams, load_cam_network=lambda *_: network):
            compute_cams.run(inputs, compute_cams.Outputs(folder / "maps.h5"), options, QUIET)

    return work


def _store_pixels(run: FinishedRun, watch: Stopwatch) -> Runner:
    path = run.product("network/network.pt")
    network = load_cam_network(path, CPU, run.images(SEEN).classes)
    inputs = store_pixels.Inputs(run.index, path, run.folder / "cams.h5", run.listed(SEEN))
    options = run.options(store_pixels, product=run.experiment.seed_map(run.model))

    def work(folder: Path) -> None:
        with replaced(store_pixels, load_cam_network=lambda *_: network):
            store_pixels.run(inputs, store_pixels.Outputs(folder / "pixels.h5"), options, QUIET)

    return work


def _train_flow(run: FinishedRun, watch: Stopwatch) -> Runner:
    inputs = train_flow.Inputs(run.shards("pixels", run.split("train")))
    options, steps = run.options(train_flow), run.steps("train_flow")[0]

    def work(folder: Path) -> None:
        with timed_steps(train_flow, watch, steps):
            train_flow.run(
                inputs,
                train_flow.Outputs(folder / "flow.pt", folder / "history.csv"),
                options,
                QUIET,
            )

    return work


def _denoise_seeds(run: FinishedRun, watch: Stopwatch) -> Runner:
    path = run.product("flow/flow.pt")
    loaded = load_density(path)
    inputs = denoise_seeds.Inputs(run.folder / "pixels.h5", run.folder / "cams.h5", path)
    options = run.options(denoise_seeds, product=run.experiment.seed_map(run.model))

    def work(folder: Path) -> None:
        with replaced(denoiser, load_density=lambda _: loaded):
            denoise_seeds.run(inputs, denoise_seeds.Outputs(folder / "seeds.h5"), options, QUIET)

    return work


def base_training(run: FinishedRun) -> tuple[train_base.Inputs, train_base.Options]:
    """Return what a share of the base's training reads, and its options: fewer images, each as
    often as in the whole.
    """
    options: train_base.Options = run.options(
        train_base, split=SEEN, method=run.experiment.trained_base
    )
    base = replace(options.base, steps=run.steps("train_base")[1])
    return train_base.Inputs(run.index), replace(options, base=base)


def brnf_training(run: FinishedRun) -> tuple[train_brnf.Inputs, train_brnf.Options]:
    """Return the same of a BRNF training."""
    measured, whole = run.steps("train_brnf")
    options: train_brnf.Options = run.options(train_brnf, split=SEEN, seed_product=run.guide[1])
    # As large a share of the steps as in the whole uses the flow.
    warmup = max(1, options.brnf.online_warmup * measured // whole)
    brnf = replace(options.brnf, steps=whole, online_warmup=warmup)
    base = run.product("network/network.pt", "base")
    inputs = train_brnf.Inputs(run.index, base, (run.folder / "guide.h5",))
    return inputs, replace(options, brnf=brnf)


CAM_TRAININGS: dict[str, tuple[Any, Callable[[FinishedRun], tuple[Any, Any]]]] = {
    "train_base": (train_base, base_training),
    "train_brnf": (train_brnf, brnf_training),
}
"""Training of a CAM network -> its stage, and what gives the inputs and options of the measured
share.
"""


def loaded_before(backbone: Backbone) -> Callable[..., CamNetwork]:
    """Return what stands for ``new_cam_network`` where a backbone's weights are loaded already."""

    def new_network(*arguments: Any, **named: Any) -> CamNetwork:
        with replaced(cam_network, build_backbone=lambda _: copy.deepcopy(backbone)):
            return new_cam_network(*arguments, **named)

    return new_network


def _train_network(run: FinishedRun, watch: Stopwatch, rule: str) -> Runner:
    stage, training = CAM_TRAININGS[rule]
    (inputs, options), steps = training(run), run.steps(rule)[0]
    new_network = loaded_before(build_backbone(options.backbone))

    def work(folder: Path) -> None:
        with (
            replaced(stage, new_cam_network=new_network),
            timed_steps(stage, watch, steps),
        ):
            stage.run(
                inputs, stage.Outputs(folder / "network.pt", folder / "history.csv"), options, QUIET
            )

    return work


def _make_pseudo_labels(run: FinishedRun, watch: Stopwatch) -> Runner:
    inputs = make_pseudo_labels.Inputs(run.index, run.listed(SEEN), run.folder / "labelled.h5")
    options = run.options(make_pseudo_labels, product=run.labelled[1])

    def work(folder: Path) -> None:
        make_pseudo_labels.run(
            inputs,
            make_pseudo_labels.Outputs(folder / "masks", folder / "probabilities.h5"),
            options,
            QUIET,
        )

    return work


def _train_segmentation(run: FinishedRun, watch: Stopwatch) -> Runner:
    split = run.split("train")
    inputs = train_segmentation.Inputs(run.index, run.shards("pseudo_labels", split, suffix=""))
    options, steps = (
        run.options(train_segmentation, split=split),
        run.steps("train_segmentation")[0],
    )
    torch.manual_seed(options.seed)
    network = build_deeplab(options.segmentation, len(run.images(SEEN).classes) + 1)

    def work(folder: Path) -> None:
        with (
            replaced(train_segmentation, build_deeplab=lambda *_: copy.deepcopy(network)),
            timed_steps(train_segmentation, watch, steps),
        ):
            train_segmentation.run(
                inputs,
                train_segmentation.Outputs(folder / "network.pt", folder / "history.csv"),
                options,
                QUIET,
            )

    return work


def _predict_segmentation(run: FinishedRun, watch: Stopwatch) -> Runner:
    path = run.product("segmentation/network.pt")
    loaded = load_deeplab(path, CPU)
    inputs = predict_segmentation.Inputs(run.index, path, run.listed(UNSEEN))
    options = run.options(predict_segmentation)

    def work(folder: Path) -> None:
        with replaced(predict_segmentation, load_deeplab=lambda *_: loaded):
            predict_segmentation.run(
                inputs,
                predict_segmentation.Outputs(
                    folder / "masks", folder / "probabilities.h5", folder / "confidences.csv"
                ),
                options,
                QUIET,
            )

    return work


def evaluations(run: FinishedRun) -> tuple[evaluate.Options, evaluate.Options]:
    """Return the options under which the measured maps and masks are evaluated."""
    product = run.experiment.seed_map(run.model)
    return run.options(evaluate, split=SEEN, product=product), run.options(
        evaluate, split=UNSEEN, product="mask"
    )


def _evaluate(run: FinishedRun, watch: Stopwatch) -> Runner:
    maps, masks = evaluations(run)
    folders = run.shards("predictions", run.split("val"), suffix="")

    def work(folder: Path) -> None:
        with watch.phase(MAPS):
            read = evaluate.Inputs(run.index, maps=(run.folder / "cams.h5",))
            evaluate.run(read, evaluate.Outputs(folder / "maps.json"), maps, QUIET)
        with watch.phase(MASKS):
            read = evaluate.Inputs(run.index, masks=folders)
            evaluate.run(read, evaluate.Outputs(folder / "masks.json"), masks, QUIET)

    return work


OURS: dict[str, Build] = {
    "train_base": partial(_train_network, rule="train_base"),
    "compute_cams": _compute_cams,
    "store_pixels": _store_pixels,
    "train_flow": _train_flow,
    "denoise_seeds": _denoise_seeds,
    "train_brnf": partial(_train_network, rule="train_brnf"),
    "make_pseudo_labels": _make_pseudo_labels,
    "train_segmentation": _train_segmentation,
    "predict_segmentation": _predict_segmentation,
    "evaluate": _evaluate,
}
"""Stage -> what sets its measured share up."""
