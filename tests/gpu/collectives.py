"""Each collective of brnf.engine.distributed in a group of one process, which `torchrun` starts."""

import argparse
from unittest import mock

import torch
import torch.distributed as dist
from torch import nn

from brnf.engine import distributed
from brnf.engine.runtime import Runtime


class _Several(int):
    """A one for all that is computed, and not the one that leaves a collective out."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


def main() -> None:
    """Check every collective and print what carried it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda:0")
    device = Runtime(device=parser.parse_args().device, progress="none").torch_device(told=False)
    distributed.join(device)
    wanted = "nccl" if device.type == "cuda" else "gloo"
    assert dist.get_backend() == wanted and dist.get_world_size() == 1
    with mock.patch.object(distributed, "processes", lambda: _Several(1)):
        check(device)
    dist.barrier()
    print(f"{wanted}: all_reduce, all_gather, broadcast, barrier on {device}")


def check(device: torch.device) -> None:
    """Let values of each type go around; all come back as they were."""
    values = torch.arange(6.0, device=device).view(3, 2)
    assert torch.equal(distributed.mean(values), values)
    assert float(distributed.mean_count(values > 2)) == 3
    for kind in (torch.float32, torch.float64, torch.int64, torch.bool):
        rows = values.to(kind)
        assert torch.equal(distributed.all_gather(rows), rows), kind
    assert distributed.all_gather(values[:0]).shape == (0, 2)
    assert distributed.any_rank(True, device) and not distributed.any_rank(False, device)
    layers = [nn.Linear(2, 2).to(device), nn.Linear(2, 2).to(device)]
    layers[0](values).sum().backward()
    parameters = [value for layer in layers for value in layer.parameters()]
    before = [None if value.grad is None else value.grad.clone() for value in parameters]
    distributed.average_gradients(parameters)
    for value, own in zip(parameters, before, strict=True):
        assert (value.grad is None) == (own is None)
        assert own is None or (value.grad is not None and torch.equal(value.grad, own))
    state = distributed.broadcast(lambda: {"values": values, "text": "x"})
    assert torch.equal(state["values"].to(device), values) and state["text"] == "x"


if __name__ == "__main__":
    main()
