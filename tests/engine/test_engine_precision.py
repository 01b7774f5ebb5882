"""A precision means the same on every device; a scaled loss takes the same steps."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from brnf.config.sections.bounds import Precision
from brnf.engine import precision as precisions
from brnf.engine.precision import computing, described, use_precision
from brnf.engine.trainer import Descent
from brnf.errors import UserError

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


@pytest.fixture(autouse=True)
def switches() -> Iterator[None]:
    """Leave torch's switches as they were."""
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolutions, products


@pytest.mark.parametrize(
    ("precision", "convolutions"),
    [("fp32", False), ("tf32", True), ("bf16", False), ("fp16", False)],
)
def test_tf32_is_for_convolutions_and_only_where_it_is_asked_for(
    precision: Precision, convolutions: bool
) -> None:
    torch.backends.cudnn.allow_tf32 = not convolutions
    torch.backends.cuda.matmul.allow_tf32 = True
    use_precision(precision, GPU)
    assert torch.backends.cudnn.allow_tf32 == convolutions
    assert not torch.backends.cuda.matmul.allow_tf32, "flows and losses take matrix products"


@pytest.mark.parametrize(
    ("precision", "kind"),
    [
        ("fp32", torch.float32),
        ("tf32", torch.float32),
        ("bf16", torch.bfloat16),
        ("fp16", torch.float16),
    ],
)
def test_a_network_computes_in_what_was_asked_for(precision: Precision, kind: torch.dtype) -> None:
    with computing(precision, CPU):
        assert nn.Conv2d(3, 2, 1)(torch.rand(1, 3, 4, 4)).dtype == kind


def test_a_log_says_what_tf32_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    capability = {"now": (7, 5)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability["now"])
    assert described("tf32", CPU) == "tf32 (fp32 on a CPU)"
    assert described("tf32", GPU) == "tf32 (fp32 on a GPU of this capability)"
    capability["now"] = (8, 0)
    assert described("tf32", GPU) == "tf32" and described("fp16", CPU) == "fp16"


def test_fp16_is_refused_on_a_cpu_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("not implemented for 'Half'\nmore")

    monkeypatch.setattr(precisions, "_half_fault", lambda: "")
    use_precision("fp16", CPU)
    monkeypatch.undo()
    monkeypatch.setattr(torch.nn.Conv2d, "forward", refuse)
    with pytest.raises(UserError, match=r"fp16 cannot .+ \(not implemented for 'Half'\); set it"):
        use_precision("fp16", CPU)
    use_precision("bf16", CPU)


def descent(scales: bool) -> tuple[nn.Parameter, Descent]:
    weight = nn.Parameter(torch.tensor([2.0]))
    optimiser = torch.optim.SGD([weight], lr=0.1)
    return weight, Descent(optimiser, lambda done: 1.0, "lower it", clip_norm=1.0, scales=scales)


def take(weight: Tensor, taken: Descent, factor: float) -> None:
    taken.begin(0)
    loss = (factor * weight.square()).sum()
    taken.scaled(loss).backward()
    taken.finish(0, {"loss": loss})


def test_a_scaled_loss_takes_the_same_clipped_step() -> None:
    steps = []
    for scales in (False, True):
        weight, taken = descent(scales)
        take(weight, taken, 1.0)
        steps.append(weight.item())
    assert steps == [pytest.approx(1.9)] * 2


def test_an_overflow_of_the_scale_leaves_the_step_out_and_one_without_is_refused() -> None:
    weight, taken = descent(scales=True)
    scale = taken.scaler.get_scale()
    take(weight, taken, 1e35)  # times the scale that is beyond float32
    assert weight.item() == 2.0 and taken.scaler.get_scale() == scale / 2
    taken.scaler.update(1.0)
    with pytest.raises(UserError, match=r"gradient's norm is (nan|inf); lower it"):
        taken.begin(0)
        taken.scaled((weight * float("inf")).sum()).backward()
        taken.finish(0, {"loss": 1.0})
