"""What the networks minimise: SIPE's base loss and BRNF's four terms (`docs/method.md` 2, 7)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from brnf.cam.affinity import propagate
from brnf.cam.batch import Places
from brnf.cam.contrast import (
    ContrastBank,
    info_nce,
    paired_region_features,
    region_features,
)
from brnf.cam.network import CamOutput
from brnf.cam.prototypes import (
    choose_seeds,
    classifier_maps,
    divide_by_maximum,
    present_classes,
    prototype_maps,
    prototypes,
)
from brnf.config.sections.cam import BrnfLoss, MapRules
from brnf.engine import distributed
from brnf.flow.labels import three_way_labels
from brnf.flow.online import OnlineFlow

__all__ = [
    "BrnfObjective",
    "TrainingMaps",
    "base_loss",
    "classification_loss",
    "masked_difference",
    "soft_margin_loss",
    "training_maps",
]


@dataclass(frozen=True)
class TrainingMaps:
    """The two maps of a batch and where they count.

    Attributes:
        classifier: A, [N, K, h, w] in 0..1, masked by labels and padding; where an affinity has
            propagated it (SFC) it was masked before, and reaches into the padding.
        cosine: P, likewise in 0..1, neither masked nor divided by its maximum; zero where a class
            has no seed, as those that are not of the image.
        mask: [N, K, h, w] bool, true for classes of the image and background outside the padding.
    """

    classifier: Tensor
    cosine: Tensor
    mask: Tensor

    @cached_property
    def prototype(self) -> Tensor:
        """Return P outside the padding, divided by its maximum there."""
        return divide_by_maximum(self.cosine * self.mask)

    @cached_property
    def allowed(self) -> Tensor:
        """Return which classes each pixel's image has [N * h * w, K], the background included."""
        present = self.mask.flatten(2).any(2)
        return present[:, None].expand(-1, self.mask[0, 0].numel(), -1).flatten(0, 1)


def training_maps(
    output: CamOutput, labels: Tensor, valid: Tensor, rules: MapRules
) -> TrainingMaps:
    """Make both maps from the network's output.

    With an affinity (SFC) the classifier's maps are propagated by it, and seeds are then always
    chosen by the plain rule.

    Arguments:
        output: of the network for N images.
        labels: [N, C] in {0, 1}.
        valid: [N, 1, h, w] bool, false on padding.
        rules: how seeds and prototypes are made.
    """
    present = present_classes(labels)
    mask = present[:, :, None, None] & valid
    classifier = classifier_maps(output.logits, labels, rules.background_over) * mask
    if output.affinity is not None:
        classifier = propagate(classifier, output.affinity)
    rule = rules.seed_rule if output.affinity is None else "plain"
    weight = rules.background_weight
    seeds = choose_seeds(classifier.detach(), output.semantic, present, rule, weight)
    centres = prototypes(output.features, seeds * valid)
    return TrainingMaps(classifier, prototype_maps(output.features, centres), mask)


def masked_difference(maps: Tensor, targets: Tensor, mask: Tensor, count: Tensor) -> Tensor:
    """Return the mean absolute difference inside a mask, so that its weight does not fall with the
    number of classes.

    Arguments:
        maps: [N, K, h, w].
        targets: likewise.
        mask: likewise, bool.
        count: of the mask, :func:`brnf.engine.distributed.mean_count`.
    """
    return ((maps - targets).abs() * mask).sum() / count


def base_loss(
    output: CamOutput, labels: Tensor, valid: Tensor, rules: MapRules
) -> dict[str, Tensor]:
    """Return SIPE's loss, ``L_cls + mean|A - P|`` over all K maps.

    The padding counts: A is zero there, P is not. P is divided by its maximum over the whole crop.

    Arguments: as :func:`training_maps`.
    """
    maps = training_maps(output, labels, valid, rules)
    difference = (maps.classifier - divide_by_maximum(maps.cosine)).abs()
    return {
        "classification": classification_loss(output, labels),
        "consistency": distributed.batch_mean(difference.mean(), len(labels)),
    }


def classification_loss(output: CamOutput, labels: Tensor) -> Tensor:
    """Return the multi-label soft margin loss of the scores, against labels [N, C] in {0, 1}."""
    on_cpu = output.scores.device.type == "cpu"
    loss_of = F.multilabel_soft_margin_loss if on_cpu else soft_margin_loss
    return distributed.batch_mean(loss_of(output.scores, labels), len(labels))


def soft_margin_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Return torch's multi-label soft margin loss, which takes twice as many kernels.

    ``-y log sigmoid(s) - (1 - y) log sigmoid(-s) = log(1 + e^s) - y s``, averaged.
    """
    return torch.addcmul(F.softplus(scores), labels, scores, value=-1).mean()


class BrnfObjective:
    """Compute BRNF's loss and let the online flow learn beside the network.

    Arguments:
        options: terms and their weights.
        rules: how maps are made.
        flow: f1, or None when neither CCNF nor FSCL is on.
        bank: of FSCL, or None when it is off.
        fixed_shapes: whether every shape is one that labels and padding tell, so that no device is
            asked how many regions it has found: what there is not is computed, too, and left out
            of all sums. It suits a GPU, where calls and answers cost more than numbers.
    """

    def __init__(
        self,
        options: BrnfLoss,
        rules: MapRules,
        flow: OnlineFlow | None,
        bank: ContrastBank | None,
        *,
        fixed_shapes: bool = False,
    ) -> None:
        self.options, self.rules, self.flow, self.bank = options, rules, flow, bank
        self.fixed_shapes = fixed_shapes

    def __call__(
        self,
        output: CamOutput,
        labels: Tensor,
        valid: Tensor,
        seeds: Tensor,
        use_flow: bool,
        places: Places | None = None,
    ) -> dict[str, Tensor]:
        """Return the weighted terms of the loss by name.

        Arguments:
            output: of the network for N images.
            labels: [N, C] in {0, 1}.
            valid: [N, 1, h, w] bool, false on padding.
            seeds: S, base seed maps on the grid [N, K, h, w] in 0..1, masked by the labels.
            use_flow: whether f1 has learnt enough for L_cal and L_nce.
            places: of ``labels`` and ``valid`` where they are known, else found here.
        """
        places = places or Places.of(labels, valid)
        maps = training_maps(output, labels, valid, self.rules)
        count = distributed.mean_count(maps.mask)
        terms = {"classification": classification_loss(output, labels)}
        if self.options.guidance:
            guidance = masked_difference(maps.prototype, seeds, maps.mask, count)
            terms["guidance"] = self.options.lambda_gui * guidance
        if self.flow is not None:
            terms["flow_nll"] = output.logits.new_full(
                (), self._teach_flow(output.features, maps, seeds, places.inside)
            )
        if self.options.ccnf and use_flow:
            terms["calibration"] = self.options.lambda_cal * self._calibration(
                output.features, maps, count
            )
        if self.bank is not None:
            terms["contrast"] = self.options.lambda_nce * self._contrast(
                output.features, maps, places, use_flow
            )
        return terms

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the flow and of the bank."""
        return {
            "flow": None if self.flow is None else self.flow.state_dict(),
            "bank": None if self.bank is None else self.bank.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        for part, value in ((self.flow, state["flow"]), (self.bank, state["bank"])):
            if part is not None:
                part.load_state_dict(value)

    def _teach_flow(
        self, features: Tensor, maps: TrainingMaps, seeds: Tensor, inside: Tensor
    ) -> float:
        """Take one step of f1 on this batch's pixels; return its loss."""
        assert self.flow is not None
        source = {"prototype": maps.prototype, "classifier": maps.classifier, "seed": seeds}[
            self.options.labels_from
        ].detach()
        tau = self.flow.options.tau
        score, winner = (source * maps.mask)[:, 1:].max(1)
        targets = three_way_labels(score, winner + 1, tau.low, tau.high)
        return self.flow.update(
            _rows(features)[inside], targets.flatten()[inside], maps.allowed[inside]
        )

    def _calibration(self, features: Tensor, maps: TrainingMaps, count: Tensor) -> Tensor:
        """Return CCNF's ``mean|A - G|`` with G the flow's posterior over background and the image's
        labels.
        """
        assert self.flow is not None
        posterior = self.flow.posterior(_rows(features), maps.allowed)
        grid = posterior.view(len(features), *features.shape[2:], -1).permute(0, 3, 1, 2)
        return masked_difference(maps.classifier, grid, maps.mask, count)

    def _contrast(
        self, features: Tensor, maps: TrainingMaps, places: Places, use_flow: bool
    ) -> Tensor:
        """Return FSCL's loss of this batch's regions against the bank, then store them in it."""
        assert self.bank is not None and self.flow is not None
        certain = features, maps.prototype.detach(), maps.mask, self.flow.options.tau.high
        if self.fixed_shapes:
            anchors, classes = paired_region_features(*certain, places.images, places.classes)
        else:
            anchors, classes = region_features(*certain)
        regions, region_classes = (
            distributed.all_gather(anchors.detach()),
            distributed.all_gather(classes),
        )
        if use_flow:
            self._draw_samples(region_classes)
        vectors, vector_classes = self.bank.contents(every_slot=self.fixed_shapes)
        loss = info_nce(anchors, classes, vectors, vector_classes, self.options.nce_temperature)
        self.bank.add_regions(regions, region_classes)
        return loss if use_flow else loss * 0

    def _draw_samples(self, region_classes: Tensor) -> None:
        """Store samples of the flow for each class that has a region."""
        assert self.bank is not None and self.flow is not None
        std, count = self.options.sample_std, self.options.samples_per_step
        kinds = self.bank.kinds
        has_region = (kinds[:, None] == region_classes).any(1)
        if self.fixed_shapes:
            drawn = self.flow.sample(kinds[:, None].expand(-1, count).flatten(), std)
            drawn = drawn.unflatten(0, (-1, count))
        else:
            drawn = self.bank.samples.new_zeros(len(kinds), count, self.flow.flow.dimension)
            for one in has_region.nonzero():
                drawn[one] = self.flow.sample(one.expand(count), std)
        self.bank.add_samples(drawn, has_region)


def _rows(features: Tensor) -> Tensor:
    """Return pixel features [N, D, h, w] as detached rows [N * h * w, D], image by image."""
    return features.detach().permute(0, 2, 3, 1).flatten(0, 2)
