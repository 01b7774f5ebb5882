"""The flow's defaults against DDFP's settings, row by row (`settings.csv`)."""

import csv
from typing import Any

import pytest
import torch
from FrEIA.modules import PermuteRandom
from torch import nn

from brnf.config.generate import load_schema
from brnf.config.schema import complete
from brnf.config.sections.flow import FlowArchitecture, FlowInTraining, FlowTraining
from brnf.flow.density import FlowDensity
from tests.reference.recipe import FOLDER

DEFAULTS = complete({"flow": {}}, load_schema())["flow"]
EQUAL: dict[str, Any] = {
    "noise": "noise",
    "learning_rate": "learning_rate",
    "clamp": "clamp",
    "hidden": "hidden",
    "grad_clip": "clip_norm",
    "rows_a_step": "batch_rows",
}
"""Row -> key of section flow with the same value."""
DEVIATIONS = {
    "blocks": "8 one-sided blocks, which change one half each [P]: "
    "4 blocks of DDFP's kind change as much",
    "linear_layers_of_a_subnet": "two Linear layers: the paper prints them [P]",
    "learnable_mean": "the means learn: DDFP's script passes True, whatever its configuration says",
    "permutation_seed": "each block's seed follows from the run's seed and its number",
}
"""Rows that differ -> why; docs/decisions.md has the same list."""


def rows() -> dict[str, str]:
    with (FOLDER / "settings.csv").open(newline="") as file:
        found = {row[0]: row[1] for row in csv.reader(file) if row[0].startswith("ddfp.")}
    return {name.removeprefix("ddfp."): value for name, value in found.items()}


ROWS = rows()


def flow(seed: int = 0, **changes: Any) -> FlowDensity:
    return FlowDensity(4, 3, FlowArchitecture(**changes), seed)


def subnet_of(density: FlowDensity) -> nn.Sequential:
    subnet = density.network[0].subnet
    assert isinstance(subnet, nn.Sequential)
    return subnet


def test_every_row_is_compared_or_named() -> None:
    tested = {"noise_place", "adam_betas", "initial_parameters"}
    assert set(ROWS) == set(EQUAL) | set(DEVIATIONS) | tested


@pytest.mark.parametrize("row", EQUAL)
def test_equal_values(row: str) -> None:
    assert DEFAULTS[EQUAL[row]] == float(ROWS[row])


def test_place_of_the_noise() -> None:
    """DDFP standardises nothing; added to the features first, the noise is the same here."""
    assert ROWS["noise_place"].startswith("raw features")
    assert DEFAULTS["noise_unit"] == "feature"


def test_adam() -> None:
    assert [DEFAULTS["beta1"], DEFAULTS["beta2"]] == [float(x) for x in ROWS["adam_betas"].split()]
    for options in (FlowTraining(), FlowInTraining()):
        assert (options.beta1, options.beta2) == (DEFAULTS["beta1"], DEFAULTS["beta2"])
        assert (options.decay, options.final_rate) == ("exponential", 0.01)


def test_initial_parameters() -> None:
    assert ROWS["initial_parameters"] == "0.05 randn"
    density = FlowDensity(256, 3, FlowArchitecture())
    values = torch.cat(
        [p.detach().flatten() for p in density.network.parameters() if p.requires_grad]
    )
    assert float(values.std()) == pytest.approx(0.05, rel=0.01)
    assert float(values.mean()) == pytest.approx(0.0, abs=0.001)
    kurtosis = float((values / values.std()).pow(4).mean())
    assert kurtosis == pytest.approx(3.0, abs=0.1)  # normal, not uniform


def test_deviations_are_still_deviations() -> None:
    assert int(ROWS["blocks"]) == 2 and DEFAULTS["blocks"] == 8
    assert DEFAULTS["coupling"] == "one_sided"
    linear = [layer for layer in subnet_of(flow()) if isinstance(layer, nn.Linear)]
    assert int(ROWS["linear_layers_of_a_subnet"]) == 3 and len(linear) == 2
    assert ROWS["learnable_mean"] == "False" and DEFAULTS["learn_means"]
    assert flow().mixture.means.requires_grad
    assert ROWS["permutation_seed"] == "number of the block"
    permutations = [m.perm.tolist() for m in flow(blocks=8).network if isinstance(m, PermuteRandom)]
    others = [m.perm.tolist() for m in flow(seed=1).network if isinstance(m, PermuteRandom)]
    assert permutations != others
