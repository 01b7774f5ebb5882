"""The reference of the stages over images: one image after the other, over all classes, into
files of one image each.
"""

import json
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.confusion import as_labels, masked_count
from benchmarks.finished_run import MAPS, MASKS, SEEN, UNSEEN, FinishedRun
from benchmarks.growing_store import GrowingStore, read_saved, write_saved
from benchmarks.networks import in_planes
from benchmarks.ours import CPU, evaluations
from benchmarks.reference_flow import ReferenceFlow
from benchmarks.reference_maps import intermediate_prototype_maps, intermediate_seeds
from benchmarks.stopwatch import Build, Runner, Stopwatch
from brnf.cam.inference import scaled_image
from brnf.cam.network import CamNetwork, load_cam_network
from brnf.cam.prototypes import classifier_maps, divide_by_maximum, present_classes
from brnf.config.sections.segmentation import Crf, PredictionViews
from brnf.data.augment import resize_maps
from brnf.data.images import read_image, resize_image
from brnf.data.masks import colour_map
from brnf.data.tensors import label_vector, load_image, map_size
from brnf.errors import UserError
from brnf.evaluate.confusion import mean_iou
from brnf.evaluate.truth import GroundTruth
from brnf.flow.bsdnf import decision_margin, enlarge_margin, suppress
from brnf.flow.density import FlowDensity
from brnf.flow.saved import load_density
from brnf.segment.crf import dense_crf
from brnf.segment.deeplab import DeepLab, load_deeplab
from brnf.segment.predict import seen_size
from brnf.segment.pseudo_labels import label_image, map_probability
from brnf.stages import (
    compute_cams,
    denoise_seeds,
    make_pseudo_labels,
    predict_segmentation,
    store_pixels,
)
from brnf.store.pixels import PixelRows

__all__ = ["REFERENCE_IMAGES"]

THRESHOLDS = tuple(step / 20 for step in range(1, 13))
"""Constant background thresholds that research code tries, .05 to .6."""


def _pair(network: CamNetwork, view: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits [1, C, h, w] and features [1, D, h, w], each summed over an image and its
    mirror, which are seen apart.
    """
    straight, mirrored = network(view), network(view.flip(-1))
    return straight.logits + mirrored.logits.flip(-1), straight.features + mirrored.features.flip(
        -1
    )


def _compute_cams(run: FinishedRun, watch: Stopwatch) -> Runner:
    index = run.images(SEEN)
    network = in_planes(load_cam_network(run.product("network/network.pt"), CPU, index.classes))
    options = run.options(compute_cams)
    cam = options.cam
    rules = cam.seed_rule, cam.background_over, cam.background_weight
    if (*rules, options.precision) != ("structure", "all", None, "fp32"):
        raise UserError("the reference has SIPE's seeds and background, in float32")

    def maps_of(
        image: Tensor, labels: Tensor, size: tuple[int, int]
    ) -> dict[str, NDArray[np.float32]]:
        present = present_classes(labels[None])
        sums: list[list[Tensor]] = [[], []]
        for scale in cam.scales:
            view = scaled_image(image, scale)[None].float()
            with watch.loop("CAM inference"):
                logits, features = _pair(network, view)
            with watch.loop("prototypes, seeds, cosine maps"):
                seeds = intermediate_seeds(classifier_maps(logits, labels[None]), features, present)
                activation = intermediate_prototype_maps(features, seeds)
            for kept, maps in zip(
                sums, (logits.relu()[:, labels.bool()], activation[:, present[0]]), strict=True
            ):
                kept.append(F.interpolate(maps, size, mode="bilinear", align_corners=False)[0])
        classifier, prototype = (divide_by_maximum(torch.stack(kept).sum(0)) for kept in sums)
        with_background = torch.cat([1 - classifier.amax(0, keepdim=True), classifier])
        return {"classifier": with_background.numpy(), "prototype": prototype.numpy()}

    def work(folder: Path) -> None:
        with torch.no_grad():
            for record in index.images:
                image, labels = (
                    load_image(record, cam.image_long_side, CPU),
                    label_vector(record, index, CPU),
                )
                found = maps_of(image, labels, map_size(record, cam.map_stride))
                write_saved(folder / f"{record.id}.npy", np.array(record.labels), found)

    return work


def _store_pixels(run: FinishedRun, watch: Stopwatch) -> Runner:
    index = run.images(SEEN)
    network = in_planes(load_cam_network(run.product("network/network.pt"), CPU, index.classes))
    product = run.experiment.seed_map(run.model)
    options = run.options(store_pixels, product=product)

    def rows_of(image: str, features: Tensor, labels: Tensor) -> PixelRows:
        saved = read_saved(run.folder / "cams" / f"{image}.npy")
        grid = features.shape[1], features.shape[2]
        # By exact areas, unlike torch's pooling: the same scores on both sides.
        reduced = np.stack(
            [
                cv2.resize(one, grid[::-1], interpolation=cv2.INTER_AREA).ravel()
                for one in saved[product]
            ]
        )
        return PixelRows(
            image=image,
            grid=grid,
            present=present_classes(labels[None])[0].numpy(),
            feature=features.flatten(1).T.numpy(),
            score=reduced[1:].max(0),
            background=reduced[0],
            label=saved["keys"][reduced[1:].argmax(0)],
            position=np.arange(grid[0] * grid[1]),
        )

    def work(folder: Path) -> None:
        with torch.no_grad(), GrowingStore.create(folder / "pixels.h5", network.dimension) as store:
            for record in index.images:
                image = load_image(record, options.cam.image_long_side, CPU)[None]
                with watch.loop("CAM inference"):
                    _, features = _pair(network, image)
                store.append(rows_of(record.id, features[0] / 2, label_vector(record, index, CPU)))

    return work


def _denoise_seeds(run: FinishedRun, watch: Stopwatch) -> Runner:
    density, calibration = load_density(run.product("flow/flow.pt"))
    assert isinstance(density, FlowDensity) and calibration is not None
    flow = ReferenceFlow(density).requires_grad_(False)
    images = run.images(SEEN).images
    product = run.experiment.seed_map(run.model)
    options = run.options(denoise_seeds, product=product).bsdnf

    def work(folder: Path) -> None:
        with torch.no_grad(), GrowingStore.open(run.folder / "growing.h5") as store:
            for record in images:
                saved, rows, number = (
                    read_saved(run.folder / "cams" / f"{record.id}.npy"),
                    store.rows(record.id),
                    store.images[record.id],
                )
                features = torch.from_numpy(store.file["feature"][rows]).float()
                with watch.loop("flow log-density"):
                    log_prob = flow.log_prob(features)
                label = torch.from_numpy(store.file["label"][rows])
                allowed = torch.from_numpy(store.present[number]).expand(len(label), -1)
                margin = decision_margin(
                    options.rule,
                    options.xi,
                    log_prob,
                    label,
                    allowed,
                    calibration,
                    options.population,
                )
                values = torch.from_numpy(saved[product])
                enlarged = enlarge_margin(
                    margin.view(*store.grid[number].tolist()),
                    (values.shape[1], values.shape[2]),
                    options.upsample,
                )
                write_saved(
                    folder / f"{record.id}.npy",
                    saved["keys"],
                    {"seeds": suppress(values, enlarged, options.factor).numpy()},
                )

    return work


def _refined(
    watch: Stopwatch,
    image: NDArray[np.uint8],
    probability: NDArray[np.float32],
    options: Crf,
) -> NDArray[np.float32]:
    with watch.loop("dense CRF"):
        return dense_crf(image, probability, options)


def _save_mask(path: Path, labels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(labels, mode="P")
    mask.putpalette(colour_map().ravel().tolist())
    mask.save(path)


def _make_pseudo_labels(run: FinishedRun, watch: Stopwatch) -> Runner:
    index = run.images(SEEN)
    options = run.options(make_pseudo_labels, product=run.labelled[1])
    how = options.pseudo_labels
    every_class = np.arange(1, len(index.classes) + 1, dtype=np.uint8)

    def work(folder: Path) -> None:
        for record in index.images:
            image, saved = (
                read_image(record.path),
                read_saved(run.folder / "labelled" / f"{record.id}.npy"),
            )
            height, width = image.shape[:2]
            values = resize_maps(saved[options.product], (height, width))
            probability = np.zeros((len(every_class) + 1, height, width), np.float32)
            probability[[0, *saved["keys"]]] = map_probability(
                values, how.unary if how.crf.iterations else "scores"
            )
            if how.crf.iterations:
                probability = _refined(watch, image, probability, how.crf)
            _save_mask(
                folder / "masks" / f"{record.id}.png",
                label_image(probability, every_class, how.confidence),
            )

    return work


def _predict_segmentation(run: FinishedRun, watch: Stopwatch) -> Runner:
    index = run.images(UNSEEN)
    network = in_planes(load_deeplab(run.product("segmentation/network.pt"), CPU))
    options = run.options(predict_segmentation)
    test = options.test
    if test.merge != "mean" or options.precision != "fp32":
        raise UserError("the reference averages logits, in float32")

    def work(folder: Path) -> None:
        for record in index.images:
            image = read_image(record.path)
            probability = _segmented(network, image, test).softmax(0).numpy()
            if test.crf.iterations:
                probability = _refined(watch, image, probability, test.crf)
            _save_mask(
                folder / "masks" / f"{record.id}.png", probability.argmax(0).astype(np.uint8)
            )

    return work


@torch.no_grad()
def _segmented(network: DeepLab, image: NDArray[np.uint8], options: PredictionViews) -> Tensor:
    """Return the mean logits [K, H, W] over all scales; the image and its mirror are seen apart and
    enlarged apart.
    """
    height, width = image.shape[:2]
    align = network.options.align_corners

    def enlarged(view: Tensor) -> Tensor:
        size = height, width
        return F.interpolate(network(view), size, mode="bilinear", align_corners=align)[0]

    found = []
    for scale in options.scales:
        size = seen_size(height, width, scale, options.long_side)
        resized = resize_image(image.astype(np.float32), size, options.interpolation)
        view = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))[None]
        found.append(enlarged(view))
        if options.flip:
            found.append(enlarged(view.flip(-1)).flip(-1))
    return torch.stack(found).mean(0)


def _evaluate(run: FinishedRun, watch: Stopwatch) -> Runner:
    maps, _ = evaluations(run)
    predicted = {
        path.stem: path
        for folder in run.shards("predictions", run.split("val"), suffix="")
        for path in folder.glob("*.png")
    }

    def truths(split: str) -> dict[str, NDArray[np.int32]]:
        index = run.images(split)
        truth = GroundTruth(index, run.index, split)
        found = {record.id: truth.objects(record) for record in index.images}
        return {image: as_labels(mask) for image, mask in found.items() if mask is not None}

    def confusion(
        truth: dict[str, NDArray[np.int32]], labels: dict[str, NDArray[np.uint8]]
    ) -> NDArray[np.int64]:
        with watch.loop("confusion matrix"):
            return masked_count((truth[image], as_labels(labels[image])) for image in truth)

    def work(folder: Path) -> None:
        with watch.phase(MAPS):
            truth = truths(SEEN)
            saved = {image: read_saved(run.folder / "cams" / f"{image}.npy") for image in truth}
            sweep = [
                mean_iou(confusion(truth, _over(saved, truth, maps.product, threshold)))
                for threshold in (None, *THRESHOLDS)
            ]
            (folder / "maps.json").write_text(json.dumps([float(value) for value in sweep]))
        with watch.phase(MASKS):
            truth = truths(UNSEEN)
            counts = confusion(
                truth, {image: np.array(Image.open(predicted[image])) for image in truth}
            )
            (folder / "masks.json").write_text(json.dumps([float(mean_iou(counts))]))

    return work


def _over(
    saved: dict[str, dict[str, NDArray[np.float32]]],
    truth: dict[str, NDArray[np.int32]],
    product: str,
    threshold: float | None,
) -> dict[str, NDArray[np.uint8]]:
    """Return the masks of all images with a constant as their background, or with the maps' own
    where there is none.
    """
    found = {}
    for image, mask in truth.items():
        values = resize_maps(saved[image][product], (mask.shape[0], mask.shape[1]))
        if threshold is not None:
            below = np.nextafter(
                np.float32(threshold), np.float32(0)
            )  # at the threshold a pixel is foreground
            values = np.pad(values[1:], ((1, 0), (0, 0), (0, 0)), constant_values=below)
        found[image] = np.pad(saved[image]["keys"], (1, 0)).astype(np.uint8)[
            np.argmax(values, axis=0)
        ]
    return found


REFERENCE_IMAGES: dict[str, Build] = {
    "compute_cams": _compute_cams,
    "store_pixels": _store_pixels,
    "denoise_seeds": _denoise_seeds,
    "make_pseudo_labels": _make_pseudo_labels,
    "predict_segmentation": _predict_segmentation,
    "evaluate": _evaluate,
}
"""Stage over images -> what sets its measured share up."""
