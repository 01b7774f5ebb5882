"""The reference of the trainings: the flow, the BRNF network with its online flow, the
segmentation network.
"""

import copy
import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.finished_run import STEPS, FinishedRun
from benchmarks.growing_store import SavedMaps
from benchmarks.networks import in_planes
from benchmarks.ours import CAM_TRAININGS, QUIET, loaded_before, timed_steps
from benchmarks.reference_flow import ReferenceFlow
from benchmarks.reference_flow_training import reference_flow_training
from benchmarks.reference_maps import intermediate_prototype_maps, intermediate_seeds
from benchmarks.segmentation_training import plain_trainer
from benchmarks.stopwatch import Build, Runner, Stopwatch, replaced
from brnf.backbones import build_backbone
from brnf.cam import objective
from brnf.cam.network import CamNetwork, CamOutput, load_cam_network
from brnf.cam.objective import TrainingMaps
from brnf.cam.prototypes import classifier_maps, present_classes
from brnf.config.sections.cam import MapRules, Online
from brnf.config.sections.flow import FlowInTraining
from brnf.engine import runtime as common
from brnf.engine.trainer import Descent
from brnf.errors import UserError
from brnf.flow import online
from brnf.flow.online import OnlineFlow
from brnf.flow.posterior import tempered_posterior
from brnf.segment.dataset import SegmentationDraws, endless_batches, pair_with_masks
from brnf.segment.deeplab import build_deeplab
from brnf.stages import train_brnf, train_segmentation

__all__ = ["REFERENCE_TRAINING", "SEEING", "reference_objective"]

CLASS_MAPS = "prototypes, seeds, cosine maps"
SEEING = "train_brnf, images seen each step"
"""The training as research code has it where this project keeps a frozen backbone's outputs."""


class _ReferenceOnlineFlow(OnlineFlow):
    """The online flow with the research code's arithmetic: whole batches, differences of all
    classes, a plain Adam.
    """

    def __init__(
        self,
        dimension: int,
        classes: int,
        options: FlowInTraining,
        online: Online,
        watch: Stopwatch,
        **others: Any,
    ) -> None:
        super().__init__(dimension, classes, options, online, **others)
        self._watch = watch
        self.flow: Any = ReferenceFlow(self.flow)
        optimiser = torch.optim.Adam(
            [parameter for parameter in self.flow.parameters() if parameter.requires_grad],
            lr=options.learning_rate,
            betas=(options.beta1, options.beta2),
            foreach=False,
        )
        # The learning rate falls as in ours; what steps are the copies of the parameters.
        self._descent = Descent(
            optimiser,
            self._descent.share,
            "lower brnf.flow.learning_rate",
            clip_norm=options.clip_norm,
            name="the online flow's update",
        )

    def update(self, features: Tensor, targets: Tensor, allowed: Tensor) -> float:
        """Take one step on the features of a batch."""
        with self._watch.loop("flow training step"):
            return super().update(features, targets, allowed)

    def posterior(self, features: Tensor, allowed: Tensor) -> Tensor:
        """Return p(k|v), [N, K], from the log-densities of one whole batch."""
        with self._watch.loop("flow log-density"), torch.no_grad():
            return tempered_posterior(
                self.flow.log_prob(features.detach()), allowed, self.temperature
            )

    def _refit(self) -> None:
        with self._watch.loop("flow log-density"), torch.no_grad():
            super()._refit()


def _whole_gradient(
    flow: ReferenceFlow, features: Tensor, noise: Tensor, targets: Tensor
) -> Tensor:
    """Compute the gradient of the loss over one whole batch and return the loss."""
    with torch.enable_grad():
        loss = flow.loss(features, targets, noise)
        loss.backward()
    return loss.detach()


def _count_gradient(features: Tensor, cosine: Tensor, watch: Stopwatch) -> None:
    """Count the way of the gradient from the maps back to the features to their hot loop."""
    if not features.requires_grad:
        return
    loop = watch.loop(CLASS_MAPS)

    def begin(_: Tensor) -> None:
        loop.__enter__()

    def end(_: Tensor) -> None:
        loop.__exit__(None, None, None)

    cosine.register_hook(begin)
    features.register_hook(end)


@contextmanager
def reference_objective(watch: Stopwatch) -> Iterator[None]:
    """Let the objective of BRNF, within the block, make maps with SIPE's intermediates and the
    online flow as research code does.
    """

    def maps_of(output: CamOutput, labels: Tensor, valid: Tensor, rules: MapRules) -> TrainingMaps:
        if (rules.seed_rule, rules.background_weight, output.affinity) != ("structure", None, None):
            raise UserError("the reference has SIPE's seeds")
        present = present_classes(labels)
        mask = present[:, :, None, None] & valid
        classifier = classifier_maps(output.logits, labels, rules.background_over) * mask
        features = output.features.view_as(output.features)
        with watch.loop(CLASS_MAPS):
            seeds = intermediate_seeds(classifier.detach(), output.semantic, present)
            cosine = intermediate_prototype_maps(features, seeds * valid)
        _count_gradient(features, cosine, watch)
        return TrainingMaps(classifier, cosine, mask)

    def flow_of(
        dimension: int, classes: int, options: FlowInTraining, online: Online, **others: Any
    ) -> OnlineFlow:
        return _ReferenceOnlineFlow(dimension, classes, options, online, watch, **others)

    with (
        replaced(objective, training_maps=maps_of),
        replaced(train_brnf, OnlineFlow=flow_of),
        replaced(online, add_gradient=_whole_gradient),
    ):
        yield


def _train_network(
    run: FinishedRun, watch: Stopwatch, rule: str, cache: bool | None = None
) -> Runner:
    """Set up the training of a CAM network in planes, with the research code's maps and flow.

    The loop around the step, the other losses and the optimiser of the network are this project's.

    Arguments:
        run: finished.
        watch: of the reference.
        rule: ``train_base`` or ``train_brnf``.
        cache: whether a frozen backbone's outputs are cached, of ``train_brnf``; None: as
            configured, which is the same work as this project's.
    """
    stage, training = CAM_TRAININGS[rule]
    (inputs, options), steps = training(run), run.steps(rule)[0]
    if cache is not None:
        options = replace(options, brnf=replace(options.brnf, cache=cache))
    new_network = loaded_before(build_backbone(options.backbone))

    def planes(*arguments: Any, **named: Any) -> CamNetwork:
        network = in_planes(new_network(*arguments, **named))
        stages = network.stages

        def timed(images: Tensor) -> list[Tensor]:
            with watch.loop("CAM inference"):
                return stages(images)

        network.__dict__["stages"] = (
            timed  # asked for the outputs that are cached or that the classifier is fitted to
        )
        return network

    def work(folder: Path) -> None:
        outputs = stage.Outputs(folder / "network.pt", folder / "history.csv")
        guide = SavedMaps(run.folder / "guide", run.guide[1])
        with (
            reference_objective(watch),
            replaced(common, use_fast_matmul=lambda: None),
            replaced(stage, new_cam_network=planes),
            replaced(
                train_brnf,
                MapReader=lambda *_: guide,
                load_cam_network=lambda *words: in_planes(load_cam_network(*words)),
            ),
            timed_steps(stage, watch, steps),
        ):
            stage.run(inputs, outputs, options, QUIET)

    return work


def _train_segmentation(run: FinishedRun, watch: Stopwatch) -> Runner:
    split = run.split("train")
    index = run.images(split)
    options: train_segmentation.Options = run.options(train_segmentation, split=split)
    steps = run.steps("train_segmentation")[0]
    how = options.segmentation
    loss = how.loss_scales or how.balanced_loss or how.accumulate > 1
    if loss or options.precision != "fp32" or how.head != "aspp_sum":
        what = "the plain cross entropy at one scale, one batch a step, float32, the head aspp_sum"
        raise UserError(f"the reference has {what}")
    torch.manual_seed(options.seed)
    network = in_planes(build_deeplab(how, len(index.classes) + 1))
    red, green, blue = (round(value) for value in network.backbone.mean.flatten().tolist())

    def work(folder: Path) -> None:
        images = pair_with_masks(index.images, run.shards("pseudo_labels", split, suffix=""))
        count = how.iterations * how.batch_size
        draws = SegmentationDraws(
            images, len(index.classes), count, how, (red, green, blue), options.seed
        )
        step = plain_trainer(copy.deepcopy(network), how)
        with watch.phase(STEPS):
            losses = [
                step(*batch) for batch in islice(endless_batches(draws, how.batch_size, 0), steps)
            ]
        with (folder / "history.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("step", "loss"), *enumerate(losses, 1)])

    return work


REFERENCE_TRAINING: dict[str, Build] = {
    "train_flow": reference_flow_training,
    "train_base": partial(_train_network, rule="train_base"),
    "train_brnf": partial(_train_network, rule="train_brnf"),
    SEEING: partial(_train_network, rule="train_brnf", cache=False),
    "train_segmentation": _train_segmentation,
}
"""Training -> what sets its measured share up."""
