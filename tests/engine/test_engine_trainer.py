"""A step of any training: its rates, its clipping, its state, and what it refuses."""

import math

import pytest
import torch
from torch import Tensor, nn

from brnf.engine.trainer import Descent, Row, Trainer
from brnf.errors import UserError


class Line(Trainer[Tensor]):
    """Minimise the sum of a batch's products with one weight."""

    def __init__(self, rate: float = 0.5, steps: int = 4, **changes: float) -> None:
        network = nn.Linear(1, 1, bias=False)
        nn.init.ones_(network.weight)
        self.weight = network.weight
        optimiser = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.5)
        descent = Descent(optimiser, lambda done: 1 / (done + 1), "lower it", **changes)
        super().__init__(network, descent, steps)

    def add_gradient(self, batch: Tensor) -> Row:
        loss = self.network(batch).sum()
        loss.backward()
        return {"loss": loss.item()}


def test_a_step_moves_by_the_schedules_share_of_the_rate() -> None:
    trainer, batch = Line(), torch.tensor([[1.0]])
    assert trainer.step(batch) == {"loss": 1.0}
    assert trainer.weight.item() == 0.5
    trainer.step(batch)  # momentum 0.5: the direction is 1.5, the rate a quarter
    assert trainer.weight.item() == 0.5 - 0.25 * 1.5
    assert trainer.history == [{"loss": 1.0}, {"loss": 0.5}]


def test_gradients_are_clipped() -> None:
    trainer = Line(clip_norm=0.25)
    trainer.step(torch.tensor([[8.0]]))
    assert trainer.weight.item() == pytest.approx(1 - 0.5 * 0.25, rel=1e-5)


def test_a_training_goes_on_from_its_state() -> None:
    whole, first, second = Line(), Line(), Line()
    batches = torch.rand(4, 1, 1, generator=torch.Generator().manual_seed(0))
    for batch in batches:
        whole.step(batch)
    for batch in batches[:2]:
        first.step(batch)
    second.load_state_dict(first.state_dict())
    for batch in batches[2:]:
        second.step(batch)
    assert second.history == whole.history and torch.equal(second.weight, whole.weight)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_refused_before_the_step(value: float) -> None:
    trainer = Line()
    trainer.step(torch.zeros(1, 1))
    with pytest.raises(UserError, match=rf"^training step 2: the loss is {value}; lower it$"):
        trainer.step(torch.tensor([[value]]))
    assert trainer.weight.item() == 1 and len(trainer.history) == 1


def test_a_gradient_that_is_not_finite_is_refused_before_the_step() -> None:
    trainer = Line()
    trainer.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(UserError, match=r"^training step 1: the gradient's norm is inf; lower it$"):
        trainer.step(torch.ones(1, 1))
    assert trainer.weight.item() == 1 and not trainer.history


def test_weights_that_the_last_step_breaks_are_refused() -> None:
    batch = torch.tensor([[10.0]])
    Line(rate=1e38, steps=2).step(batch)  # the next loss would tell
    with pytest.raises(UserError, match=r"^training step 1: the weights are no longer finite; low"):
        Line(rate=1e38, steps=1).step(batch)
