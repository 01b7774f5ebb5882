"""SIPE's network, maps, seeds, losses, inference and four steps of its optimiser."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.networks import in_planes
from brnf.cam.batch import Batch
from brnf.cam.inference import ImageMaps, multi_scale_maps
from brnf.cam.network import CamNetwork, CamOutput
from brnf.cam.objective import TrainingMaps, base_loss, training_maps
from brnf.cam.prototypes import (
    divide_by_maximum,
    present_classes,
    prototype_maps,
    prototypes,
    structure_seeds,
)
from brnf.cam.training import CamTrainer
from brnf.config.sections.cam import MapRules, MultiScaleMaps
from brnf.config.sections.cam import Training as CamOptimiser
from tests.reference.peers import gradient_norms, named_values, reference_network
from tests.reference.recipe import load, normal, pieces

STORED = load("sipe")
LABELS = torch.from_numpy(STORED["labels"]).float()
VALID = torch.from_numpy(STORED["valid"])[:, None]
TERMS = {"lossCLS": "classification", "lossGSC": "consistency"}
MAPS, DIVIDED = 2e-5, 1e-4
"""Largest differences of maps in 0..1, and of those that were divided by a small maximum."""


@pytest.fixture(scope="module")
def network() -> CamNetwork:
    return reference_network()


@pytest.fixture(scope="module")
def output(network: CamNetwork) -> CamOutput:
    found: CamOutput = network(normal("sipe.images", (2, 3, 128, 160)))
    return found


@pytest.fixture(scope="module")
def maps(output: CamOutput) -> TrainingMaps:
    return training_maps(output, LABELS, VALID, MapRules())


def close(found: Tensor, stored: NDArray[np.float32], allowed: float) -> None:
    np.testing.assert_allclose(found.detach().numpy(), stored, rtol=0, atol=allowed)


def test_scores(output: CamOutput) -> None:
    close(output.scores, STORED["score"], 1e-5 * np.abs(STORED["score"]).max())


def test_classifier_maps(maps: TrainingMaps) -> None:
    close(maps.classifier, STORED["cam"], MAPS)


def test_prototype_maps_of_all_pixels_the_padding_too(maps: TrainingMaps) -> None:
    close(maps.cosine, STORED["IS_cam"], MAPS)
    assert STORED["IS_cam"][..., ~STORED["valid"][0, 0]].max() > 0.5


def test_seeds(output: CamOutput, maps: TrainingMaps) -> None:
    seeds = structure_seeds(maps.classifier, output.semantic, present_classes(LABELS)) * VALID
    assert np.array_equal(seeds.bool().numpy(), STORED["seeds"])


@pytest.mark.parametrize(("term", "allowed"), [("lossCLS", 1e-5), ("lossGSC", 1e-6)])
def test_losses(output: CamOutput, term: str, allowed: float) -> None:
    loss = base_loss(output, LABELS, VALID, MapRules())[TERMS[term]]
    expected = STORED["losses_f64"][STORED["grad_terms"].tolist().index(term)]
    assert loss.item() == pytest.approx(expected, abs=allowed)


@pytest.mark.parametrize("term", list(TERMS))
def test_gradients(network: CamNetwork, output: CamOutput, term: str) -> None:
    network.zero_grad()
    base_loss(output, LABELS, VALID, MapRules())[TERMS[term]].backward(retain_graph=True)
    row = STORED["grad_norms_f64"][STORED["grad_terms"].tolist().index(term)]
    norms = gradient_norms(network)
    found = [norms[group] for group in STORED["grad_groups"]]
    assert found == pytest.approx(row.tolist(), rel=1e-4)


@pytest.fixture(scope="module")
def inferred(network: CamNetwork) -> dict[str, ImageMaps]:
    """Return the maps on the grid for all labels and for some of them."""
    image, chosen = normal("sipe.pair", (3, 128, 160)), MultiScaleMaps(scales=(1.0,))
    labels = {
        "all": torch.ones(20),
        "some": torch.from_numpy(STORED["inference_some"][1:]).float(),
    }
    with torch.inference_mode():
        return {
            name: multi_scale_maps(network, image, given, (8, 10), chosen)
            for name, given in labels.items()
        }


def test_inference_of_classifier_maps(inferred: dict[str, ImageMaps]) -> None:
    close(inferred["all"].classifier, STORED["norm_cam"], DIVIDED)
    some = STORED["inference_some_norm_cam"][STORED["inference_some"]]
    close(inferred["some"].classifier[1:], some[1:], DIVIDED)  # its background counts these alone


@pytest.mark.parametrize(("labels", "name"), [("all", "inference"), ("some", "inference_some")])
def test_inference_of_prototype_maps(
    inferred: dict[str, ImageMaps],
    labels: str,
    name: str,
) -> None:
    stored = torch.from_numpy(STORED[f"{name}_IS_cam"])
    if labels == "some":
        stored = stored[torch.from_numpy(STORED["inference_some"])]
    close(inferred[labels].prototype, divide_by_maximum(stored).numpy(), DIVIDED)


def test_pieces() -> None:
    maps, features = pieces("sipe")
    seeds = structure_seeds(maps, features, torch.ones(2, 5, dtype=torch.bool))
    assert np.array_equal(seeds.bool().numpy(), STORED["pieces_seeds"])
    assert STORED["pieces_seeds"].any((2, 3)).all()  # every class wins somewhere
    centres = prototypes(features, seeds)
    close(F.normalize(centres, dim=2), STORED["pieces_directions"], MAPS)
    close(prototype_maps(features, centres), STORED["pieces_IS_cam"], MAPS)


STEPS = STORED["kept_steps"].tolist()


@dataclass(frozen=True)
class Training:
    """What four steps showed.

    Attributes:
        losses: of each step [4, 2].
        rates: of each step [4, 2].
        sizes: of the tensors [161].
        statistics: sum, norm and norm of the change of the tensors after kept steps [3, 161, 3].
        changed: names of the tensors that learn.
    """

    losses: list[list[float]]
    rates: list[list[float]]
    sizes: list[int]
    statistics: NDArray[np.float64]
    changed: set[str]


@pytest.fixture(scope="module")
def training(network: CamNetwork) -> Training:
    # In planes, as SIPE: the smallest changes are some units in the last place of BatchNorm's
    # scales, and sums over channels-last memory are rounded otherwise (8e-5, not 5e-7, after one
    # step).
    learner = in_planes(network)
    values = named_values(learner)
    start = {name: value.detach().double().clone() for name, value in values.items()}
    trainer = CamTrainer(
        learner,
        lambda output, batch, step: base_loss(output, batch.labels, batch.valid, MapRules()),
        steps=20,
        options=CamOptimiser(),
    )
    losses, rates, statistics = [], [], []
    for step in range(max(STEPS)):
        images = normal(f"sipe.step{step}.images", (2, 3, 128, 160))
        found = trainer.step(Batch(images, LABELS, VALID))
        optimiser = trainer.state_dict()["optimiser"]
        rates.append([group["lr"] for group in optimiser["param_groups"]])
        losses.append([found[TERMS[term]] for term in STORED["grad_terms"]])
        if step + 1 in STEPS:
            rows = []
            for name in STORED["tensor_names"]:
                value = values[name].detach().double()
                moved = value - start[name]
                rows.append([float(value.sum()), float(value.norm()), float(moved.norm())])
            statistics.append(rows)
    changed = {name for name in values if not torch.equal(values[name].double(), start[name])}
    sizes = [values[name].numel() for name in STORED["tensor_names"]]
    return Training(losses, rates, sizes, np.array(statistics), changed)


def test_steps_have_the_losses(training: Training) -> None:
    found, stored = np.array(training.losses), STORED["step_losses_f64"]
    np.testing.assert_allclose(found[0], stored[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[:, 0], stored[:, 0], rtol=0, atol=5e-4)
    np.testing.assert_allclose(found[:, 1], stored[:, 1], rtol=0, atol=5e-6)


def test_steps_have_the_learning_rates(training: Training) -> None:
    np.testing.assert_allclose(training.rates, STORED["step_rates_f64"], rtol=1e-9)


def test_what_learns(training: Training) -> None:
    assert training.changed == set(STORED["changed"].tolist())
    assert len(training.changed) == 92


@pytest.mark.parametrize("step", STEPS)
def test_steps_lead_to_the_tensors(training: Training, step: int) -> None:
    place = STEPS.index(step)
    (sums, norms, changes), stored = training.statistics[place].T, STORED["tensor_statistics_f64"]
    stored_sums, stored_norms, stored_changes = stored[place].T
    allowed = 3e-7 if step == 1 else 1e-6
    spread = stored_norms * np.sqrt(training.sizes)
    assert (np.abs(sums - stored_sums) <= allowed * spread).all()
    np.testing.assert_allclose(norms, stored_norms, rtol=allowed)
    np.testing.assert_allclose(changes, stored_changes, rtol=1e-4 if step == 1 else 2e-3)
