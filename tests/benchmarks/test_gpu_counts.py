"""What is counted on the pretended device, and that docs/gpu.md says it."""

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.counted_work import LAUNCH_SECONDS, PRODUCT_SHARE, Card, Kernel, Work, counted_work
from benchmarks.gpu_counts import IMAGES, RULES, count_image, count_step
from benchmarks.paper_trainings import TRAININGS, paper_experiment
from tests.pretended_device import DEVICE

ROOT = Path(__file__).parents[2]


def test_memory_is_held_until_the_last_view_is_gone() -> None:
    with counted_work() as work:
        values = torch.zeros(1000, device=DEVICE)
        view = (values + 1)[::2]
        assert work.alive == 8000
        del values
        assert work.alive == 4000
        del view
        assert (work.alive, work.peak) == (0, 8000)
        torch.zeros(10, device=DEVICE)
        work.restart()
        assert work.peak == 0 and not work.kernels


def test_products_count_forwards_and_backwards_and_bytes_both_ways() -> None:
    with counted_work() as work:
        layer = nn.Conv2d(3, 8, 3, bias=False, device=DEVICE)
        images = torch.zeros(2, 3, 34, 34, device=DEVICE)
        work.restart()
        found = layer(images)
        assert work.operations == 2 * found.numel() * 27
        assert work.moved == 4 * (images.numel() + layer.weight.numel() + found.numel())
        found.sum().backward()
        assert work.operations == 2 * 2 * found.numel() * 27, "only the weights have a gradient"
        assert [kernel.of_network for kernel in work.kernels].count(True) == 2


def test_a_card_takes_the_longer_of_products_bytes_and_launches() -> None:
    card = Card("some", {"fp32": 1e12, "tf32": 4e12}, 1e12)
    network, other = Kernel(10**12, 0, True), Kernel(10**12, 0, False)
    slow = 1 / PRODUCT_SHARE
    assert Work([network]).seconds(card, "tf32") == pytest.approx(slow / 4)
    assert Work([other]).seconds(card, "tf32") == pytest.approx(slow), "only networks are rounded"
    assert Work([Kernel(1, 10**12, True)]).seconds(card, "fp32") > 1
    assert Work([Kernel(0, 0, False)] * 100).seconds(card, "fp32") == 100 * LAUNCH_SECONDS


def test_a_training_keeps_values_gradients_and_momentum() -> None:
    with counted_work() as work:
        network = nn.Linear(100, 100, bias=False, device=DEVICE)
        optimiser = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
        for _ in range(2):
            optimiser.zero_grad()
            network(torch.zeros(1, 100, device=DEVICE)).sum().backward()
            optimiser.step()
        assert work.alive == 3 * 40_000


@pytest.mark.parametrize("name", ["voc12", "coco14"])
def test_the_document_has_the_memory_that_is_counted(name: str, tmp_path: Path) -> None:
    experiment = paper_experiment(name, tmp_path)
    text = (ROOT / "docs" / "gpu.md").read_text()
    part = text.split(f"<!-- steps of {name} -->")[1].split("<!--")[0]
    found = [line.split(" | ") for line in part.splitlines() if line.startswith("| ")][2:]
    told = {(row[0].strip("| "), row[1].split()[0]): row for row in found}
    assert {rule for rule, _ in told} == {*RULES} == {*TRAININGS, *IMAGES}
    for rule in TRAININGS:
        work, samples = count_step(rule, experiment)
        row = told[rule, "step"]
        assert row[1] == f"step of {samples:,}"
        assert row[2] == f"{work.peak / 2**30:.1f}"
        assert row[3] == f"{work.operations / 1e12:.3f}"
    work, _ = count_image("store_pixels", experiment)
    assert told["store_pixels", "image"][3] == f"{work.operations / 1e12:.3f}"
