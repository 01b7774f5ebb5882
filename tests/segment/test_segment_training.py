"""The loss, the schedule and the steps."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from brnf.config.sections.bounds import Precision
from brnf.config.sections.segmentation import DeepLabNetwork, SegmentationOptimiser
from brnf.data.masks import colour_map
from brnf.engine.trainer import Row
from brnf.errors import UserError
from brnf.segment.deeplab import DeepLab, build_deeplab
from brnf.segment.loss import multi_scale_logits, multi_scale_loss, segmentation_loss
from brnf.segment.training import SegmentationTrainer

CPU = torch.device("cpu")


class TinyBackbone(nn.Module):
    """One strided convolution that stands for a backbone of four stages."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = (8, 8, 8, 8)
        self.layer = nn.Conv2d(3, 8, 5, stride=4, padding=2)

    def normalise(self, images: Tensor) -> Tensor:
        return images.float() / 128 - 1

    def forward(self, images: Tensor) -> list[Tensor]:
        return [F.relu(self.layer(images))] * 4


def tiny_network() -> DeepLab:
    torch.manual_seed(0)
    return DeepLab(TinyBackbone(), 3, TINY)


TINY = DeepLabNetwork(
    backbone="mobilenetv3_small_050",
    weights="none",
    rates=(1, 2),
    frozen_batch_norm=True,
    head="aspp_sum",
    head_width=8,
)


def train(
    network: DeepLab,
    batch: tuple[Tensor, Tensor],
    options: SegmentationOptimiser,
    *,
    precision: Precision = "fp32",
) -> list[Row]:
    """Take all steps on the same batch."""
    trainer = SegmentationTrainer(network, options, CPU, precision=precision)
    return [trainer.step(batch) for _ in range(options.iterations)]


def test_the_loss_is_the_mean_over_labelled_pixels() -> None:
    logits = torch.tensor([[[[0.0, 2.0]], [[1.0, -1.0]]]], dtype=torch.float64)
    labels = torch.tensor([[[1, 255]]])
    expected = math.log(math.exp(0) + math.exp(1)) - 1
    # 1e-6 would be eight roundings of float32, of which log-softmax and mean take some.
    assert segmentation_loss(logits, labels).item() == pytest.approx(expected, rel=1e-5)


def test_the_loss_equals_pytorchs_own_at_equal_sizes() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 7, 9), torch.randint(0, 5, (2, 7, 9))
    labels[torch.rand(2, 7, 9) < 0.3] = 255
    torch.testing.assert_close(
        segmentation_loss(logits, labels), F.cross_entropy(logits, labels, ignore_index=255)
    )


def test_ignored_pixels_have_no_gradient() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 4, 6, 6, requires_grad=True)
    labels = torch.randint(0, 4, (1, 6, 6))
    labels[:, :3] = 255
    segmentation_loss(logits, labels).backward()
    assert not logits.grad[:, :, :3].any() and logits.grad[:, :, 3:].all()


def test_a_batch_without_labels_gives_zero_and_no_nan() -> None:
    logits = torch.randn(1, 4, 6, 6, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((1, 12, 12), 255))
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


def test_small_logits_are_enlarged_to_the_labels() -> None:
    logits = torch.tensor([[[[10.0, -10.0]], [[-10.0, 10.0]]]])
    labels = torch.tensor([[[0, 0, 1, 1]] * 2])
    assert segmentation_loss(logits, labels) < 1e-3 < segmentation_loss(logits, 1 - labels)


def test_poly_schedule_by_hand() -> None:
    options = SegmentationOptimiser(iterations=4, learning_rate=0.01, power=0.9)
    expected = [0.01 * (step / 5) ** 0.9 for step in (5, 4, 3, 2)]
    assert recorded_rates(options) == pytest.approx(expected, rel=1e-12)
    every_third = replace(options, schedule_every=3, schedule_beyond=0)
    expected = [0.01, 0.01, 0.01, 0.01 * 0.25**0.9]
    assert recorded_rates(every_third) == pytest.approx(expected, rel=1e-12)


def recorded_rates(options: SegmentationOptimiser) -> list[float]:
    """Train on nothing; the rates of the history, which those of the optimiser must equal."""
    batch = torch.zeros(1, 3, 16, 16), torch.full((1, 16, 16), 255)
    trainer = SegmentationTrainer(tiny_network(), options, CPU)
    rates = []
    for _ in range(options.iterations):
        rate = trainer.step(batch)["learning_rate"]
        used = [group["lr"] for group in trainer.state_dict()["optimiser"]["param_groups"]]
        assert used == pytest.approx([rate, 2 * rate, 10 * rate, 20 * rate], rel=1e-12)
        rates.append(rate)
    return rates


def test_one_step_is_gradient_descent_at_the_rate_of_each_group() -> None:
    batch = torch.randint(0, 256, (2, 3, 16, 16)), torch.randint(0, 3, (2, 16, 16))
    before, after = tiny_network(), tiny_network()
    segmentation_loss(before(batch[0]), batch[1]).backward()
    train(after, batch, SegmentationOptimiser(iterations=1, learning_rate=0.01, weight_decay=0.1))
    moved = dict(after.named_parameters())
    for name, parameter in before.named_parameters():
        decay = 0.0 if name.endswith("bias") else 0.1
        expected = parameter - multiple(name) * 0.01 * (parameter.grad + decay * parameter)
        torch.testing.assert_close(moved[name], expected, atol=1e-6, rtol=1e-4, msg=name)


def multiple(name: str) -> int:
    """Return how many times as fast as the backbone's weights a parameter learns."""
    return (2 if name.endswith("bias") else 1) * (10 if name.startswith("head") else 1)


@pytest.mark.parametrize("scales", [(), (0.5,)])
def test_a_step_takes_the_mean_gradient_of_its_batches(scales: tuple[float, ...]) -> None:
    images, labels = torch.randint(0, 256, (4, 3, 16, 16)), torch.randint(0, 3, (4, 16, 16))
    labels[:2, :12] = 255  # the mean over all pixels would be another one
    before, after = tiny_network(), tiny_network()
    losses = []
    for half in (slice(0, 2), slice(2, 4)):
        seen = multi_scale_logits(before, images[half], scales, align_corners=True)
        one = multi_scale_loss(seen, labels[half])
        losses.append(one if scales else segmentation_loss(seen[0], labels[half]))
    (sum(losses) / 2).backward()
    options = SegmentationOptimiser(
        iterations=1,
        accumulate=2,
        learning_rate=0.01,
        momentum=0.0,
        weight_decay=0.0,
        loss_scales=scales,
    )
    (row,) = train(after, (images, labels), options)
    assert row["loss"] == pytest.approx(sum(loss.item() for loss in losses) / 2, rel=1e-6)
    for name, parameter in after.named_parameters():
        start = before.get_parameter(name)
        expected = start - multiple(name) * 0.01 * start.grad
        torch.testing.assert_close(parameter, expected, atol=1e-5, rtol=1e-4, msg=name)


def test_an_unlabelled_batch_does_not_spoil_the_weights() -> None:
    network = tiny_network()
    batch = torch.zeros(1, 3, 16, 16), torch.full((1, 16, 16), 255)
    train(network, batch, SegmentationOptimiser(iterations=2, weight_decay=0.0))
    for (name, parameter), start in zip(
        network.named_parameters(), tiny_network().parameters(), strict=True
    ):
        torch.testing.assert_close(parameter, start, msg=name)


def test_a_diverging_training_stops_with_one_line_naming_the_step() -> None:
    batch = torch.randint(0, 256, (2, 3, 16, 16)), torch.randint(0, 3, (2, 16, 16))
    with pytest.raises(
        UserError, match=r"training step \d+: .*lower segmentation\.learning_rate"
    ) as caught:
        train(tiny_network(), batch, SegmentationOptimiser(iterations=60, learning_rate=1e30))
    assert "\n" not in str(caught.value)


def test_weights_that_only_the_last_step_breaks_are_noticed() -> None:
    batch = torch.randint(0, 256, (2, 3, 16, 16)), torch.randint(0, 3, (2, 16, 16))
    with pytest.raises(UserError, match="step 1: the weights are no longer finite; lower"):
        train(
            tiny_network(),
            batch,
            SegmentationOptimiser(iterations=1, learning_rate=1e30, weight_decay=1e10),
        )


def test_coloured_squares_are_learnt() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = build_deeplab(replace(TINY, frozen_batch_norm=False), 3)
    images, labels = coloured_squares(6)
    options = SegmentationOptimiser(iterations=30, learning_rate=0.01)
    losses = [row["loss"] for row in train(network, (images, labels), options)]
    assert losses[0] == pytest.approx(math.log(3), abs=0.2)
    assert losses[-1] < 0.4 * losses[0]
    with torch.no_grad():
        logits = F.interpolate(network(images), size=(64, 64), mode="bilinear", align_corners=False)
    share_of_background = (labels == 0).float().mean().item()
    assert (logits.argmax(1) == labels).float().mean().item() > share_of_background + 0.1


def buffers(network: DeepLab) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.named_buffers()}


@pytest.mark.parametrize("head", ["aspp_sum", "aspp_concat"])
def test_frozen_statistics_stay_to_the_bit_while_weights_learn(head: str) -> None:
    torch.manual_seed(0)
    changes: dict[str, Any] = {"head": head, "norm_momentum": 0.1}
    network = build_deeplab(replace(TINY, **changes), 3)
    norms = {
        name: value
        for name, value in network.backbone.named_parameters()
        if not value.requires_grad
    }
    before, frozen = buffers(network), {name: value.clone() for name, value in norms.items()}
    weights = [value.clone() for value in network.parameters() if value.requires_grad]
    train(network, coloured_squares(2), SegmentationOptimiser(iterations=2, learning_rate=0.01))
    after = buffers(network)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert frozen and all(torch.equal(norms[name], value) for name, value in frozen.items())
    assert any(
        not torch.equal(old, new)
        for old, new in zip(
            weights, (p for p in network.parameters() if p.requires_grad), strict=True
        )
    )
    assert {name.split(".")[0] for name in moved} == (set() if head == "aspp_sum" else {"head"})
    assert sum(name.endswith("running_mean") for name in moved) == (0 if head == "aspp_sum" else 4)


def test_several_scales_add_the_gradients_of_all_and_of_the_maximum() -> None:
    batch = coloured_squares(2)
    before, after = tiny_network(), tiny_network()
    images, labels = batch[0].float(), batch[1]
    reduced = [F.interpolate(images, scale_factor=scale, mode="bilinear") for scale in (0.75, 0.5)]
    seen = [before(one) for one in (images, *reduced)]
    grid = seen[0].shape[2:]
    large = [F.interpolate(one, size=grid, mode="bilinear", align_corners=True) for one in seen]
    maximum = torch.stack(large).max(0).values
    total = sum(
        segmentation_loss(logits, nearest(labels, logits.shape[-1])) for logits in (*seen, maximum)
    )
    assert isinstance(total, Tensor)
    total.backward()
    options = SegmentationOptimiser(
        iterations=1, learning_rate=1e-4, weight_decay=0.0, loss_scales=(0.75, 0.5)
    )
    (row,) = train(after, batch, options)
    assert row["loss"] == pytest.approx(total.item(), rel=1e-5)
    moved = dict(after.named_parameters())
    for name, parameter in before.named_parameters():
        expected = parameter - multiple(name) * 1e-4 * parameter.grad
        torch.testing.assert_close(moved[name], expected, atol=1e-7, rtol=1e-4, msg=name)


def nearest(labels: Tensor, side: int) -> Tensor:
    """Take the label in the middle of each of ``side`` equal parts of both sides."""
    places = ((torch.arange(side) + 0.5) * labels.shape[-1] / side).long()
    return labels[:, places][:, :, places]


def test_one_image_a_batch_is_refused_by_the_head_that_normalises_a_mean_an_image() -> None:
    network = build_deeplab(replace(TINY, head="aspp_concat"), 3)
    for images, accumulate in ((1, 1), (2, 2)):
        with pytest.raises(UserError, match=r"segmentation\.batch_size") as caught:
            train(
                network,
                coloured_squares(images),
                SegmentationOptimiser(iterations=2, accumulate=accumulate),
            )
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_less_exact_networks_follow_float32_and_leave_float32_weights(
    precision: Precision,
) -> None:
    batch = coloured_squares(4)
    networks = tiny_network(), tiny_network()
    options = SegmentationOptimiser(iterations=4, learning_rate=0.005)
    losses = [
        [one["loss"] for one in train(network, batch, options, precision=one_of)]
        for network, one_of in zip(networks, ("fp32", precision), strict=True)
    ]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert all(parameter.dtype == torch.float32 for parameter in networks[1].parameters())


def coloured_squares(count: int) -> tuple[Tensor, Tensor]:
    """Return images [N, 3, 64, 64] uint8 with one square each, red (class 1) or green (class 2),
    and their labels.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(90, 110, (count, 3, 64, 64), generator=generator, dtype=torch.uint8)
    labels = torch.zeros(count, 64, 64, dtype=torch.long)
    for number in range(count):
        top, left = (int(value) for value in torch.randint(0, 24, (2,), generator=generator))
        colour = number % 2
        images[number, :, top : top + 40, left : left + 40] = 20
        images[number, colour, top : top + 40, left : left + 40] = 230
        labels[number, top : top + 40, left : left + 40] = colour + 1
    return images, labels


def test_pictures_show_image_labels_and_prediction_and_change_nothing() -> None:
    options = SegmentationOptimiser(iterations=2, learning_rate=0.01)
    images, labels = torch.randint(0, 256, (2, 3, 32, 48)).byte(), torch.ones(2, 32, 48).byte()
    labels[0, :4] = 255
    learnt = replace(TINY, frozen_batch_norm=False)
    trainers = []
    for watched in (False, True):
        torch.manual_seed(0)
        network = build_deeplab(learnt, 3)
        trainer = SegmentationTrainer(network, options, CPU)
        for _ in range(2):
            shown = trainer.pictures((images, labels)) if watched else {}
            trainer.step((images, labels))
        trainers.append(trainer)
    ((name, picture),) = shown.items()
    assert name == "image, labels, prediction" and picture.shape == (32, 3 * 48, 3)
    assert (picture[:, :48] == images[0].permute(1, 2, 0).numpy()).all()
    assert (picture[4:, 48:96] == colour_map()[1]).all()
    assert (picture[:4, 48:96] == colour_map()[255]).all()
    known = {tuple(colour) for colour in colour_map()[:4].tolist()}
    assert {tuple(colour) for colour in picture[:, 96:].reshape(-1, 3).tolist()} <= known
    assert trainers[0].history == trainers[1].history
    states = [trainer.network.state_dict() for trainer in trainers]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
