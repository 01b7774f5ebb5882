"""Whether both sides of a stage found the same, with the tolerance of each stage."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.finished_run import SEEN, FinishedRun
from benchmarks.growing_store import GrowingStore, read_saved
from benchmarks.ours import CPU, brnf_training
from benchmarks.reference_training import SEEING, reference_objective
from benchmarks.stopwatch import Stopwatch
from brnf.cam.network import CamOutput
from brnf.flow.saved import load_density
from brnf.stages import train_brnf
from brnf.store.maps import MapReader, winning_channels
from brnf.store.pixels import PixelStore

__all__ = ["AGREEMENT"]


def _same_maps(own: MapReader, folder: Path, product: str, mean: float, winners: float) -> None:
    """Assert that maps in 0..1 differ by less than ``mean`` on average, and that enough pixels have
    the same winner.
    """
    for image in own.images:
        ours, theirs = own[image].values, read_saved(folder / f"{image}.npy")[product]
        assert ours.shape == theirs.shape and np.abs(ours - theirs).mean() < mean, (
            f"{product} of {image}"
        )
        assert np.mean(winning_channels(ours)[0] == winning_channels(theirs)[0]) >= winners, (
            f"{product} of {image}"
        )


def _compute_cams(run: FinishedRun, own: Path, theirs: Path) -> None:
    """Maps differ by less than 0.005 on average: pixels between seeds may fall to either."""
    for product in ("classifier", "prototype"):
        _same_maps(MapReader([own / "maps.h5"], product), theirs, product, 5e-3, 0.97)


def _store_pixels(run: FinishedRun, own: Path, theirs: Path) -> None:
    """Rows differ by float16's rounding, labels in one of a hundred rows at most."""
    store = PixelStore([own / "pixels.h5"])
    with GrowingStore.open(theirs / "pixels.h5") as growing:
        for image in store.images:
            rows, part = store.image_rows(image), growing.rows(image)
            np.testing.assert_allclose(
                rows.feature, growing.file["feature"][part], atol=2e-3, err_msg=image
            )
            np.testing.assert_allclose(
                rows.score, growing.file["score"][part], atol=2e-3, err_msg=image
            )
            assert np.mean(rows.label == growing.file["label"][part]) >= 0.99, image


def _column(path: Path, name: str) -> list[float]:
    with path.open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def _train_flow(run: FinishedRun, own: Path, theirs: Path) -> None:
    """The standardisation is equal to 1e-4; minibatches and noise differ, so the last losses to 0.1
    nats a dimension only.
    """
    densities = [load_density(folder / "flow.pt")[0] for folder in (own, theirs)]
    torch.testing.assert_close(densities[0].mean, densities[1].mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(densities[0].std, densities[1].std, rtol=1e-4, atol=1e-5)
    found = [
        _column(folder / "history.csv", "held_out") or _column(folder / "history.csv", "loss")
        for folder in (own, theirs)
    ]
    assert abs(found[0][-1] - found[1][-1]) < 0.1, found


def _denoise_seeds(run: FinishedRun, own: Path, theirs: Path) -> None:
    """Maps agree to float16, but for a pixel of a thousand at borders of what is suppressed."""
    _same_maps(MapReader([own / "seeds.h5"], "seeds"), theirs, "seeds", 2e-3, 0.999)


def _train_brnf(run: FinishedRun, own: Path, theirs: Path) -> None:
    """The same batches: all terms of the first step are equal to 2 %, since the classifier is
    fitted to the optimum only nearly.
    """
    _same_objectives(run, own, theirs)
    for name in ("classification", "guidance", "flow_nll", "loss"):
        ours, reference = (_column(folder / "history.csv", name)[:1] for folder in (own, theirs))
        np.testing.assert_allclose(ours, reference, rtol=0.02, atol=1e-3, err_msg=name)


def _train_base(run: FinishedRun, own: Path, theirs: Path) -> None:
    """The loss of the first step is equal to 2 %, or the fitted classifier to 5 % of its length
    where no step is taken.
    """
    losses = [_column(folder / "history.csv", "loss")[:1] for folder in (own, theirs)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.02)
    if not losses[0]:
        weights = [
            torch.load(folder / "network.pt", weights_only=True)["state"]["classifier.weight"]
            for folder in (own, theirs)
        ]
        assert float((weights[0] - weights[1]).norm() / weights[0].norm()) < 0.05


def _same_objectives(run: FinishedRun, own: Path, theirs: Path) -> None:
    """On three made-up batches all terms of the loss are equal to 0.1 %."""
    options = brnf_training(run)[1]
    classes, dimension = (
        len(run.images(SEEN).classes) + 1,
        load_density(run.product("flow/flow.pt"))[0].dimension,
    )
    ours = _losses(options, dimension, classes)
    with reference_objective(Stopwatch()):
        reference = _losses(options, dimension, classes)
    for expected, found in zip(ours, reference, strict=True):
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            assert abs(found[name] - value) <= 1e-3 * max(abs(value), 1.0), (
                name,
                value,
                found[name],
            )
    lengths = [len(_column(folder / "history.csv", "loss")) for folder in (own, theirs)]
    assert lengths[0] == lengths[1] == run.steps("train_brnf")[0]


def _losses(options: train_brnf.Options, dimension: int, classes: int) -> list[dict[str, float]]:
    """Return the losses of three batches; the flow alone learns from the first."""
    objective = train_brnf.build_objective(options, dimension, classes, 3, CPU)
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(2, classes - 1)
    labels[0, 0] = labels[1, -1] = 1
    found = []
    for number in range(3):
        coarse = [
            torch.randn(2, channels, 3, 4, generator=generator)
            for channels in (classes - 1, dimension, 16)
        ]
        logits, features, semantic = (
            torch.nn.functional.interpolate(maps, (6, 8), mode="bilinear") for maps in coarse
        )
        seeds = (
            torch.rand(2, classes, 6, 8, generator=generator)
            * torch.cat([torch.ones(2, 1), labels], 1)[:, :, None, None]
        )
        valid = torch.ones(2, 1, 6, 8, dtype=torch.bool)
        terms = objective(
            CamOutput(logits, features, semantic),
            labels,
            valid,
            seeds,
            objective.flow is not None and number > 0,
        )
        found.append({name: float(value) for name, value in terms.items()})
    return found


def _same_masks(own: Path, theirs: Path, share: float) -> None:
    """Assert that enough pixels of all images together have the same label."""
    names = sorted(path.name for path in own.glob("[!.]*"))
    assert names and names == sorted(path.name for path in theirs.glob("[!.]*"))
    same = [
        np.array(Image.open(own / name)).ravel() == np.array(Image.open(theirs / name)).ravel()
        for name in names
    ]
    assert np.mean(np.concatenate(same)) >= share, float(np.mean(np.concatenate(same)))


def _masks(run: FinishedRun, own: Path, theirs: Path) -> None:
    """At least 995 of 1,000 pixels have the same label: the CRF of all labels leaves those without
    a chance a little.
    """
    _same_masks(own / "masks", theirs / "masks", 0.995)


def _train_segmentation(run: FinishedRun, own: Path, theirs: Path) -> None:
    """The same crops in the same order: the first loss is equal to 0.1 %."""
    found = [_column(folder / "history.csv", "loss") for folder in (own, theirs)]
    assert len(found[0]) == len(found[1]) and abs(found[0][0] / found[1][0] - 1) < 1e-3, found


def _evaluate(run: FinishedRun, own: Path, theirs: Path) -> None:
    """Mean IoU of arg max and of the masks is equal to 1e-4, and no threshold beats the best."""
    maps, masks = (json.loads((own / name).read_text()) for name in ("maps.json", "masks.json"))
    own_background, *swept = json.loads((theirs / "maps.json").read_text())
    np.testing.assert_allclose(own_background, maps["miou"], atol=1e-4)
    best = maps["sweep"]["same_images_miou"]
    assert max(swept) <= best + 1e-4, (swept, best)
    np.testing.assert_allclose(
        json.loads((theirs / "masks.json").read_text()), [masks["miou"]], atol=1e-4
    )


AGREEMENT: dict[str, Callable[[FinishedRun, Path, Path], None]] = {
    "train_base": _train_base,
    "compute_cams": _compute_cams,
    "store_pixels": _store_pixels,
    "train_flow": _train_flow,
    "denoise_seeds": _denoise_seeds,
    "train_brnf": _train_brnf,
    SEEING: _same_objectives,  # cached outputs are those of whole images, crops lie elsewhere
    "make_pseudo_labels": _masks,
    "train_segmentation": _train_segmentation,
    "predict_segmentation": _masks,
    "evaluate": _evaluate,
}
"""Stage -> what raises AssertionError where the outputs of both sides differ: (run, our folder,
reference folder).
"""
