"""From maps to pseudo-labels, and the segmenter."""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from brnf.config.sections.bounds import (
    Count,
    Distinct,
    Momentum,
    NotNegative,
    Positive,
    Share,
    Side,
    SomeDistinct,
    Whole,
)


@dataclass(frozen=True, kw_only=True)
class Crf:
    """A dense CRF."""

    iterations: Whole = 10
    """Of mean-field inference; 0 leaves the CRF out."""
    gaussian_sigma: Positive = 1.0
    """Width of the smoothness term, pixels."""
    gaussian_weight: NotNegative = 3.0
    """Of the smoothness term."""
    bilateral_sigma_xy: Positive = 67.0
    """Width of the appearance term in the plane, pixels."""
    bilateral_sigma_rgb: Positive = 3.0
    """Width of the appearance term in colour, grey values."""
    bilateral_weight: NotNegative = 4.0
    """Of the appearance term."""


@dataclass(frozen=True, kw_only=True)
class LabelChoice:
    """Which pixels of a pseudo-label count."""

    confidence: Share = 0.0
    """Pixels of lower winning probability are ignored (255)."""
    save_probabilities: bool = False
    """Keep probabilities, so that the sweep and the bias can be measured."""


@dataclass(frozen=True, kw_only=True)
class CrfLabels(LabelChoice):
    """What pseudo-labels by the CRF take of section pseudo_labels."""

    unary: Literal["scores", "labels"] = "scores"
    """What the CRF starts from: the maps, or the winning label at probability 0.7."""
    crf: Crf = Crf()
    """Of the dense CRF that refines the maps."""


@dataclass(frozen=True, kw_only=True)
class PseudoLabels(CrfLabels):
    """Section pseudo_labels."""

    seed_map: Literal["prototype", "classifier"] = "prototype"
    """Map of a BRNF network that becomes the pseudo-label."""
    bsdnf: bool = True
    """Denoise the maps of a network with `brnf.bsdnf` by its own flow first (the last BSDNF)."""
    refine: Literal["crf", "random_walk"] = "crf"
    """How maps become pseudo-labels: by a dense CRF, or by a random walk along boundaries that
    are learnt from sure pixels (IRN).
    """


@dataclass(frozen=True, kw_only=True)
class Walk:
    """The walk."""

    radius: Annotated[int, Meta(ge=2)] = 5
    """Steps are shorter than this, in pixels of the grid of stride 4."""
    beta: Positive = 10.0
    """Power of the affinities; the higher the less a step crosses a weak boundary."""
    exponent: Annotated[int, Meta(ge=0, le=12)] = 8
    """The walk takes 2 to the power of this steps."""


@dataclass(frozen=True, kw_only=True)
class BoundaryLabels:
    """The labels that the boundary network learns from."""

    ignore_unsure: bool = True
    """Ignore pixels in training that are background at the maps' own background but not at a
    lower one.
    """
    background_factor: Share = 0.5
    """The lower background is the maps' own times this (SIPE)."""
    crf: Crf = Crf(
        gaussian_sigma=3.0,
        bilateral_sigma_xy=50.0,
        bilateral_sigma_rgb=5.0,
        bilateral_weight=10.0,
    )
    """Of the CRF that refines the labels which the network learns from."""


@dataclass(frozen=True, kw_only=True)
class BoundaryTraining:
    """The training of the boundary network."""

    training_radius: Annotated[int, Meta(ge=2)] = 10
    """Pairs of pixels nearer than this are compared in training, on the same grid."""
    batch_size: Count = 32
    """Images of a step."""
    epochs: Count = 3
    """Passes over the training split."""
    steps: Count | None = None
    """Steps instead of epochs."""
    learning_rate: Positive = 0.1
    """Of the boundary branches."""
    weight_decay: NotNegative = 0.0001
    """Of SGD."""
    momentum: Momentum = 0.0001
    """IRN, like SIPE, passes its weight decay here."""
    crop: Side = 512
    """Side of the training crop, pixels."""
    scale_low: Positive = 0.5
    """Smallest random scale."""
    scale_high: Positive = 1.5
    """Largest random scale."""


@dataclass(frozen=True, kw_only=True)
class RandomWalk(Walk, BoundaryLabels, BoundaryTraining):
    """Section random_walk."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training images are cut."""

    crop: Side = 448
    """Side of the training crop, pixels."""
    scale_low: Positive = 0.5
    """Smallest random scale."""
    scale_high: Positive = 1.5
    """Largest random scale."""
    scales: Distinct[Positive] = ()
    """Draw from these instead, as the paper does for COCO."""
    flip: bool = True
    """Mirror half of the crops."""
    hsv: NotNegative = 10.0
    """Largest shift of hue, saturation and value; CLIP-ES trains without."""
    interpolation: Literal["area", "bilinear", "bicubic"] = "bicubic"
    """Of scaled images; bicubic (HSC) and bilinear (CLIP-ES) alias where they shrink, area does
    not.
    """
    padding: Literal["random", "after"] = "random"
    """An image that is smaller than the crop lies at a random place in it (HSC), or above and
    left (CLIP-ES).
    """


@dataclass(frozen=True, kw_only=True)
class DeepLabNetwork:
    """The network."""

    backbone: str = "resnet101"
    """A network of timm (docs/backbones.md): ResNet, ConvNeXt, Swin, ViT and others."""
    weights: str = "resnet101.tv_in1k"
    """As backbone.weights; COCO-initialised ones of DeepLabV2's authors as caffe:<file>."""
    output_stride: Literal[8, 16, 32] = 8
    """Pixels between two logits."""
    trainable_stages: Annotated[int, Meta(ge=0, le=4)] = 4
    """Last stages of the backbone that learn."""
    layout: Literal["torchvision", "caffe"] = "torchvision"
    """Of a ResNet; caffe (CLIP-ES) has the stride in a stage's first 1x1 convolution, dilates
    its first block, too, and rounds the pooling up.
    """
    frozen_batch_norm: bool = False
    """Keep the backbone's BatchNorm statistics (CLIP-ES) instead of following the batches
    (HSC); scale and shift never learn.
    """
    head: Literal["aspp_sum", "aspp_concat"] = "aspp_concat"
    """Sum of atrous convolutions (CLIP-ES), or HSC's concatenation of them with the image's
    mean.
    """
    head_width: Count = 256
    """Channels of a branch of the head aspp_concat."""
    norm_momentum: Annotated[float, Meta(gt=0, le=1)] = 0.0003
    """Share of a batch in the statistics of the head aspp_concat; a short training needs more."""
    rates: Annotated[tuple[Count, ...], Meta(min_length=1)] = (6, 12, 18, 24)
    """Of the atrous convolutions."""
    align_corners: bool = True
    """Enlarge logits, in training and prediction, with aligned corners (HSC) or without (CLIP-ES).
    """


@dataclass(frozen=True, kw_only=True)
class SegmentationOptimiser:
    """The optimiser."""

    iterations: Count = 20000
    """Training steps."""
    epochs: Count | None = None
    """Fewer iterations where they would pass over the images more often than this; null: never."""
    accumulate: Count = 1
    """Batches of a step, whose gradients are averaged; CLIP-ES trains with 2."""
    learning_rate: Positive = 0.001
    """Of the backbone's weights; its biases learn 2, the head's weights 10 and its biases 20
    times as fast.
    """
    momentum: Momentum = 0.9
    """Of SGD."""
    weight_decay: NotNegative = 0.0005
    """Of all but biases."""
    power: Positive = 0.9
    """Of the polynomial decay of the learning rate."""
    schedule_every: Count = 1
    """Steps between two changes of the learning rate; CLIP-ES trains with 10."""
    schedule_beyond: Whole = 1
    """Steps after the last at which the learning rate would be 0; HSC: 1, CLIP-ES: 0."""
    loss_scales: Distinct[Positive] = ()
    """Further sizes of each crop whose losses, and that of the maximum of all, are added; CLIP-ES
    trains with 0.5, 0.75.
    """
    balanced_loss: bool = False
    """Background and foreground pixels make up half of the loss each."""


@dataclass(frozen=True, kw_only=True)
class SegmentationTraining(DeepLabNetwork, Augmentation, SegmentationOptimiser):
    """What the training takes of section segmentation."""

    batch_size: Count = 10
    """Images of a batch."""


@dataclass(frozen=True, kw_only=True)
class PredictionCrf(Crf):
    """The dense CRF after the segmenter."""

    minimum: Share = 0.01
    """Labels that reach this probability nowhere are left out of the CRF."""


@dataclass(frozen=True, kw_only=True)
class PredictionViews:
    """How the trained network sees an image (docs/method.md section 9)."""

    scales: SomeDistinct[Positive] = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    """Sizes at which each image is seen."""
    flip: bool = True
    """See each scale mirrored, too."""
    merge: Literal["mean", "max"] = "mean"
    """How the logits of the scales become one; max is taken on the grid of the largest scale
    (CLIP-ES).
    """
    long_side: Annotated[int, Meta(ge=32)] | None = None
    """Long side at scale 1; null keeps the image's own."""
    interpolation: Literal["area", "bilinear", "bicubic"] = "bicubic"
    """Of resized images; bicubic (HSC) and bilinear (CLIP-ES) alias where they shrink, area
    does not.
    """


@dataclass(frozen=True, kw_only=True)
class SegmentationTest(PredictionViews):
    """Section segmentation.test."""

    save_probabilities: bool = False
    """Keep probabilities, so that the sweep and the bias can be measured."""
    crf: PredictionCrf = PredictionCrf()
    """Of the dense CRF that refines predictions."""


@dataclass(frozen=True, kw_only=True)
class Segmentation(SegmentationTraining):
    """Section segmentation."""

    test: SegmentationTest = SegmentationTest()
    """How the trained network predicts."""
