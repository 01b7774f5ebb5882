"""BRNF's loss: what counts, what is learnt from what, what is switched off."""

import pytest
import torch
import torch.nn.functional as F

from brnf.cam.contrast import ContrastBank
from brnf.cam.network import CamOutput
from brnf.cam.objective import (
    BrnfObjective,
    base_loss,
    masked_difference,
    soft_margin_loss,
    training_maps,
)
from brnf.config.sections.cam import BrnfLoss, MapRules, Online
from brnf.config.sections.flow import FlowInTraining
from brnf.flow.online import OnlineFlow

CLASSES, DIMENSION = 3, 6
LABELS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])


def make_output(seed: int = 0) -> tuple[CamOutput, torch.Tensor]:
    """Return a random output with gradients and a valid mask whose second image ends in padding."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, CLASSES, 4, 5, generator=generator, requires_grad=True)
    features = torch.randn(2, DIMENSION, 4, 5, generator=generator, requires_grad=True)
    valid = torch.ones(2, 1, 4, 5, dtype=torch.bool)
    valid[1, :, :, 3:] = False
    return CamOutput(logits, features, features.detach()), valid


def make_objective(**changes: object) -> BrnfObjective:
    options = BrnfLoss(**changes)  # type: ignore[arg-type]
    flow = (
        OnlineFlow(
            DIMENSION,
            CLASSES + 1,
            FlowInTraining(blocks=2, hidden=8, batch_rows=64),
            Online(),
            updates=10_000,
        )
        if options.ccnf or options.fscl
        else None
    )
    bank = ContrastBank(CLASSES + 1, DIMENSION, 5, 5) if options.fscl else None
    return BrnfObjective(options, MapRules(), flow, bank)


def test_maps_are_empty_on_padding_and_absent_classes() -> None:
    output, valid = make_output()
    maps = training_maps(output, LABELS, valid, MapRules())
    for values in (maps.classifier, maps.prototype):
        assert not values[1, :, :, 3:].any() and not values[0, 2:].any() and not values[1, 1].any()
    assert maps.mask.sum((2, 3)).tolist() == [[20, 20, 0, 0], [12, 0, 12, 12]]


def test_padding_does_not_move_prototypes() -> None:
    output, valid = make_output()
    maps = training_maps(output, LABELS, valid, MapRules(seed_rule="plain"))
    changed = output.features.detach().clone()
    changed[1, :, :, 3:] = 100.0
    again = training_maps(
        CamOutput(output.logits, changed, output.semantic),
        LABELS,
        valid,
        MapRules(seed_rule="plain"),
    )
    torch.testing.assert_close(again.prototype, maps.prototype)


def test_guidance_leaves_the_padding_out() -> None:
    """Pixels of the padding neither count nor set the maximum that maps are divided by."""
    output, valid = make_output()
    objective, seeds = make_objective(ccnf=False, fscl=False), torch.rand(2, 4, 4, 5)
    expected = objective(output, LABELS, valid, seeds, False)["guidance"].item()
    changed = output.features.detach().clone()
    changed[1, :, :, 3:] = changed[1, :, :1, :1]  # most alike to a seed
    again = CamOutput(output.logits, changed, output.semantic)
    found = objective(again, LABELS, valid, seeds, False)["guidance"].item()
    assert found == pytest.approx(expected)


def test_masked_difference_by_hand() -> None:
    maps, targets = (
        torch.tensor([[[[1.0, 5.0]], [[0.0, 9.0]]]]),
        torch.tensor([[[[0.5, 0.0]], [[1.0, 0.0]]]]),
    )
    counts = torch.tensor([[[[True, False]], [[True, False]]]])
    found = masked_difference(maps, targets, counts, counts.sum())
    assert found.item() == pytest.approx(0.75)


def test_the_soft_margin_loss_is_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    found, expected = (
        (30 * torch.randn(5, 4, generator=generator.manual_seed(0))).double().requires_grad_()
        for _ in range(2)
    )
    labels = (torch.rand(5, 4, generator=generator) < 0.5).double()
    loss, torchs = soft_margin_loss(found, labels), F.multilabel_soft_margin_loss(expected, labels)
    torch.testing.assert_close(loss, torchs)
    loss.backward()
    torchs.backward()
    torch.testing.assert_close(found.grad, expected.grad)


def test_base_loss_averages_over_all_maps_and_the_padding() -> None:
    output, valid = make_output()
    terms = base_loss(output, LABELS, valid, MapRules())
    maps = training_maps(output, LABELS, valid, MapRules())
    assert maps.cosine[1, :, :, 3:].any()  # no seed lies in the padding, but what resembles one
    divided = maps.cosine / (maps.cosine.amax((2, 3), keepdim=True) + 1e-5)
    total = (maps.classifier - divided).abs().sum()
    torch.testing.assert_close(terms["consistency"], total / divided.numel())
    torch.testing.assert_close(
        terms["classification"], F.multilabel_soft_margin_loss(output.logits.mean((2, 3)), LABELS)
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ccnf": False, "fscl": False}, {"classification", "guidance"}),
        ({"fscl": False}, {"classification", "guidance", "flow_nll", "calibration"}),
        ({"ccnf": False}, {"classification", "guidance", "flow_nll", "contrast"}),
        ({"guidance": False}, {"classification", "flow_nll", "calibration", "contrast"}),
    ],
)
def test_each_part_switches_off(changes: dict[str, bool], expected: set[str]) -> None:
    output, valid = make_output()
    terms = make_objective(**changes)(output, LABELS, valid, torch.rand(2, 4, 4, 5), True)
    assert set(terms) == expected


def test_the_flow_is_not_used_before_it_is_ready() -> None:
    output, valid = make_output()
    terms = make_objective()(output, LABELS, valid, torch.rand(2, 4, 4, 5), False)
    assert "calibration" not in terms and terms["contrast"].item() == 0
    assert terms["flow_nll"].item() != 0 and not terms["flow_nll"].requires_grad  # but it learns


def test_calibration_pulls_the_classifier_to_the_posterior_only() -> None:
    output, valid = make_output()
    objective = make_objective(fscl=False, lambda_cal=1.0)
    objective.flow.temperature = 7.0
    maps = training_maps(output, LABELS, valid, MapRules())
    loss = objective._calibration(output.features, maps, maps.mask.sum())
    present = torch.tensor([[True, True, False, False], [True, False, True, True]])
    rows, total, count = output.features.detach(), 0.0, 0
    for n in range(2):
        for y in range(4):
            for x in range(5):
                if not valid[n, 0, y, x]:
                    continue
                log_prob = objective.flow.flow.log_prob(rows[n, :, y, x][None])[0][present[n]] / 7.0
                posterior = log_prob.softmax(0)
                total += (maps.classifier[n, present[n], y, x] - posterior).abs().sum().item()
                count += int(present[n].sum())
    assert loss.item() == pytest.approx(total / count, rel=1e-4)
    loss.backward()
    assert output.logits.grad.any() and output.features.grad is None


@pytest.mark.parametrize("source", ["prototype", "classifier", "seed"])
def test_labels_of_the_flow_come_from_the_chosen_maps(source: str) -> None:
    output, valid = make_output()
    seeds = torch.zeros(2, 4, 4, 5)
    seeds[:, 0] = 1
    objective = make_objective(labels_from=source)
    seen = {}
    objective.flow.update = lambda features, codes, allowed: (
        seen.update(codes=codes, rows=len(features)) or 0.0
    )
    objective(output, LABELS, valid, seeds, False)
    assert seen["rows"] == 20 + 12  # padding never reaches the flow
    maps = training_maps(output, LABELS, valid, MapRules())
    scores = {"prototype": maps.prototype, "classifier": maps.classifier, "seed": seeds}[source]
    score, winner = (scores * maps.mask)[:, 1:].max(1)
    expected = torch.where(score >= 0.7, winner + 1, torch.where(score <= 0.3, 0, -1))
    assert seen["codes"].tolist() == expected[valid[:, 0]].tolist()


def test_guidance_and_contrast_reach_the_features() -> None:
    output, valid = make_output()
    objective = make_objective(ccnf=False)
    objective(output, LABELS, valid, torch.rand(2, 4, 4, 5), True)  # fills the bank
    output, valid = make_output(1)
    terms = objective(output, LABELS, valid, torch.rand(2, 4, 4, 5), True)
    terms["contrast"].backward(retain_graph=True)
    assert output.features.grad.any()
    terms["guidance"].backward()
    assert (
        output.logits.grad is None
    )  # seeds are one-hot: the classifier is not pulled through them
