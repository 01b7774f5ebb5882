"""A trained network in the hand: a photograph in, a mask out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from brnf.cam.inference import map_products
from brnf.cam.network import CamNetwork
from brnf.data.images import read_image
from brnf.data.index import ImageRecord, Index
from brnf.data.tensors import image_tensor, label_vector, map_size
from brnf.errors import UserError
from brnf.segment.crf import over_all_labels
from brnf.segment.deeplab import DeepLab
from brnf.segment.predict import predict_labels, refine_labels
from brnf.segment.pseudo_labels import label_image, pseudo_label
from brnf.store.label_type import Labels, as_labels, ignored, ignored_in
from brnf.store.maps import as_stored
from brnf.use.model_file import CamUse, ModelFile, SegmentationUse

__all__ = ["Model", "Prediction"]

UNSURE = (128, 128, 128)
"""Colour of ignored pixels in an overlay."""


@dataclass(frozen=True)
class Prediction:
    """What a network says about one photograph.

    Attributes:
        image: [H, W, 3] uint8 RGB, upright.
        mask: [H, W] uint8: 0 background, 1..C classes, 255 too unsure to say; from 255 classes on
            uint16, with 65535.
        probabilities: [1 + C, H, W] float32, the background's first.
        classes: names of the C classes.
        palette: [1 + C] colours of the overlay, the background's first.
    """

    image: NDArray[np.uint8]
    mask: Labels
    probabilities: NDArray[np.float32]
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]

    @property
    def confidence(self) -> NDArray[np.float32]:
        """The probability of the winning class, [H, W] in 0..1."""
        found: NDArray[np.float32] = self.probabilities.max(0)
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes in the mask."""
        found = np.unique(self.mask[~ignored(self.mask)])
        return tuple(self.classes[i - 1] for i in found if i)

    def overlay(self, opacity: float = 0.5) -> NDArray[np.uint8]:
        """Return the photograph with its classes in colour and their outlines, [H, W, 3] uint8.

        Arguments:
            opacity: of the colours, 0..1; the background stays as it is.
        """
        colours = np.full((1 + ignored_in(self.mask.dtype), 3), UNSURE, np.uint8)
        colours[: len(self.palette)] = self.palette
        painted = self.image.copy()
        inside = self.mask > 0
        mixed = (1 - opacity) * self.image[inside] + opacity * colours[self.mask[inside]]
        painted[inside] = mixed.round().astype(np.uint8)
        thick = np.ones((3, 3), np.uint8)
        outline = inside & (cv2.dilate(self.mask, thick) != cv2.erode(self.mask, thick))
        painted[outline] = colours[self.mask[outline]]
        return painted


class Model:
    """Predict masks as the workflow does, to the byte.

    Arguments:
        network: in evaluation mode, on ``device``.
        file: how it is used, and what its classes are.
        device: where to compute.

    Attributes:
        network: see above.
        file: see above.
        device: see above.
    """

    def __init__(self, network: DeepLab | CamNetwork, file: ModelFile, device: torch.device):
        self.network, self.file, self.device = network, file, device

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the foreground classes."""
        return self.file.classes

    @property
    def needs_labels(self) -> bool:
        """Whether each photograph must come with the names of the classes in it."""
        return isinstance(self.network, CamNetwork)

    def with_options(self, long_side: int | None = None, crf: bool = True) -> "Model":
        """Return the model with other options.

        Arguments:
            long_side: pixels to which photographs are brought before they are seen; None leaves
                what the model has.
            crf: whether the dense CRF refines the masks.
        """
        use: Any = self.file.use
        part = "cam" if isinstance(use, CamUse) else "test"
        if long_side is not None:
            key = "image_long_side" if isinstance(use, CamUse) else "long_side"
            use = replace(use, **{part: replace(getattr(use, part), **{key: long_side})})
        if not crf:
            part = "pseudo_labels" if isinstance(use, CamUse) else "test"
            section = getattr(use, part)
            without = replace(section, crf=replace(section.crf, iterations=0))
            use = replace(use, **{part: without})
        return Model(self.network, replace(self.file, use=use), self.device)

    def __call__(
        self, photograph: str | Path | NDArray[np.uint8], labels: Sequence[str] | None = None
    ) -> Prediction:
        """Predict the mask of a photograph.

        Arguments:
            photograph: a file, turned upright as its EXIF says, or [H, W, 3] uint8 RGB.
            labels: names of the classes in it, for a CAM network; a segmenter takes none.

        Raises:
            UserError: the file cannot be read, or labels are missing, unknown or not taken.
        """
        image = photograph if isinstance(photograph, np.ndarray) else read_image(Path(photograph))
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise UserError(f"an image is [H, W, 3] uint8 RGB, not {image.shape} {image.dtype}")
        present = self._numbers(labels)
        use, network = self.file.use, self.network
        if isinstance(use, SegmentationUse):
            assert isinstance(network, DeepLab)
            likely = predict_labels(network, image, use.test, self.device, use.precision)
            shown, probability = refine_labels(image, *likely, use.test.crf)
            mask = label_image(probability, shown)
        else:
            assert isinstance(network, CamNetwork)
            shown = as_labels(present, len(self.classes))
            values = self._maps(network, image, present, use)
            mask, probability = pseudo_label(image, values, shown, use.pseudo_labels)
        whole = over_all_labels(probability, shown, len(self.classes))
        return Prediction(image, mask, whole, self.classes, self.file.palette)

    def _maps(
        self, network: CamNetwork, image: NDArray[np.uint8], labels: tuple[int, ...], use: CamUse
    ) -> NDArray[np.float32]:
        """Return the maps of an image as the workflow stores and reads them, [1 + k, h, w]."""
        record = ImageRecord("", Path(), image.shape[1], image.shape[0], labels)
        products = map_products(
            network,
            image_tensor(image, use.cam.image_long_side, self.device),
            label_vector(record, Index(self.classes, self.file.mask_values, ()), self.device),
            map_size(record, use.cam.map_stride),
            use.cam,
            use.precision,
        )
        return as_stored(products[use.product]).astype(np.float32)

    def _numbers(self, labels: Sequence[str] | None) -> tuple[int, ...]:
        """Return the numbers 1..C of labels, ascending."""
        known = ", ".join(self.classes)
        if (labels is not None) != self.needs_labels:
            if self.needs_labels:
                raise UserError(f"a CAM network has to be told which of {known} an image shows")
            raise UserError("a segmenter finds the classes itself; leave out the labels")
        named = [labels] if isinstance(labels, str) else labels or []
        if unknown := [name for name in named if name not in self.classes]:
            raise UserError(f"label '{unknown[0]}' is none of the network's classes: {known}")
        return tuple(sorted({self.classes.index(name) + 1 for name in named}))
