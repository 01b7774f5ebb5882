"""SFC's maps at both scales, its losses, their gradients, its weights and its inference."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from brnf.base.sfc import SfcObjective, bank_draws, distribution_weights, halved
from brnf.cam.affinity import propagate
from brnf.cam.inference import multi_scale_maps
from brnf.cam.network import CamNetwork, CamOutput
from brnf.cam.objective import TrainingMaps, training_maps
from brnf.cam.prototypes import (
    classifier_maps,
    divide_by_maximum,
    plain_seeds,
    prototype_maps,
    prototypes,
)
from brnf.config.sections.cam import MapRules, MultiScaleMaps, Sfc
from tests.reference.peers import gradient_norms, reference_network
from tests.reference.recipe import load, normal, pieces

STORED = load("sfc")
LABELS = torch.from_numpy(STORED["labels"]).float()
VALID = torch.from_numpy(STORED["valid"])[:, None]
TERMS = {
    "lossCLS": "classification",
    "lossGSC": "consistency",
    "loss_consistency": "scales",
}
MAPS, DIVIDED = 2e-5, 1e-4
"""Largest differences of maps in 0..1, and of those that were divided by a small maximum."""


@dataclass(frozen=True)
class Scale:
    """What the network says about the images at one scale."""

    output: CamOutput
    maps: TrainingMaps
    valid: Tensor


@pytest.fixture(scope="module")
def network() -> CamNetwork:
    return reference_network(affinity=True)


@pytest.fixture(scope="module")
def scales(network: CamNetwork) -> dict[str, Scale]:
    """Return the images as they are, "", and at half their size, "half_"."""
    images = normal("sfc.images", (3, 3, 128, 128))
    found = {}
    small = halved(images), VALID[:, :, ::2, ::2]
    for name, (seen, valid) in {"": (images, VALID), "half_": small}.items():
        output = network(seen)
        found[name] = Scale(output, training_maps(output, LABELS, valid, MapRules()), valid)
    return found


def close(found: Tensor, stored: NDArray[np.float32], allowed: float) -> None:
    np.testing.assert_allclose(found.detach().numpy(), stored, rtol=0, atol=allowed)


@pytest.mark.parametrize("scale", ["", "half_"])
def test_scores(scales: dict[str, Scale], scale: str) -> None:
    stored = STORED[f"{scale}score"]
    close(scales[scale].output.scores, stored, 1e-5 * np.abs(stored).max())


def test_maps_before_they_are_propagated(scales: dict[str, Scale]) -> None:
    output, mask = scales[""].output, scales[""].maps.mask
    close(classifier_maps(output.logits, LABELS) * mask, STORED["original_cam"], MAPS)


@pytest.mark.parametrize("scale", ["", "half_"])
def test_propagated_maps_reach_into_the_padding(scales: dict[str, Scale], scale: str) -> None:
    stored = STORED[f"{scale}pcm_cam"]
    close(scales[scale].maps.classifier, stored, MAPS)
    assert (stored * ~scales[scale].valid.numpy()).max() > 0.1


@pytest.mark.parametrize("scale", ["", "half_"])
def test_prototype_maps(scales: dict[str, Scale], scale: str) -> None:
    close(scales[scale].maps.cosine, STORED[f"{scale}prototype_cam"], MAPS)


@pytest.fixture(scope="module")
def losses(scales: dict[str, Scale]) -> dict[str, Tensor]:
    weights = torch.from_numpy(STORED["class_weights"])
    objective = SfcObjective(Sfc(), MapRules(), weights)
    return objective(scales[""].output, scales["half_"].output, LABELS, VALID)


def test_every_term_is_compared(losses: dict[str, Tensor]) -> None:
    assert set(STORED["loss_names"]) == set(STORED["grad_terms"]) == set(TERMS)
    assert set(losses) == set(TERMS.values())


@pytest.mark.parametrize("term", list(TERMS))
def test_losses(losses: dict[str, Tensor], term: str) -> None:
    expected = STORED["losses_f64"][STORED["loss_names"].tolist().index(term)]
    allowed = 1e-5 if term == "lossCLS" else 1e-6
    assert losses[TERMS[term]].item() == pytest.approx(expected, abs=allowed)


@pytest.mark.parametrize("term", list(TERMS))
def test_gradients(network: CamNetwork, losses: dict[str, Tensor], term: str) -> None:
    network.zero_grad()
    losses[TERMS[term]].backward(retain_graph=True)
    row = STORED["grad_norms_f64"][STORED["grad_terms"].tolist().index(term)]
    norms = gradient_norms(network)
    found = [norms[group] for group in STORED["grad_groups"]]
    assert found == pytest.approx(row.tolist(), rel=1e-4)


def test_weights_of_the_classes() -> None:
    draws = int(STORED["bank_draws"])
    assert bank_draws(10582 // 16, 4, 20) == draws
    found = distribution_weights(torch.from_numpy(STORED["class_counts"]), draws)
    close(found, STORED["class_weights"], 1e-6)


def test_inference(network: CamNetwork) -> None:
    image = normal("sfc.images", (3, 3, 128, 128))[0]
    with torch.inference_mode():
        maps = multi_scale_maps(
            network, image, torch.ones(20), (8, 8), MultiScaleMaps(scales=(1.0,))
        )
        pair = network(torch.stack([image, image.flip(-1)])).logits
    original = classifier_maps(pair[:1] + pair[1:].flip(-1), torch.ones(1, 20))[0]
    close(original, STORED["inference_original_cam"], DIVIDED)
    for found, name in ((maps.classifier, "pcm_cam"), (maps.prototype, "prototype_cam")):
        stored = divide_by_maximum(torch.from_numpy(STORED[f"inference_{name}"]))
        close(found, stored.numpy(), DIVIDED)


def test_pieces() -> None:
    maps, features = pieces("sfc")
    close(propagate(maps, features), STORED["pieces_pcm_cam"], MAPS)
    seeds = plain_seeds(maps, torch.ones(2, 5, dtype=torch.bool))
    assert seeds.any(2).any(2).all()  # every class wins somewhere
    centres = F.normalize(prototypes(features, seeds), dim=2)
    close(prototype_maps(features, centres), STORED["pieces_prototype_cam"], MAPS)
