"""CAM networks: backbone, maps, and the trainings of base and BRNF."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta

from brnf.config.sections.bounds import (
    Count,
    Folder,
    Momentum,
    NotNegative,
    Positive,
    Side,
    SomeDistinct,
    Whole,
)


@dataclass(frozen=True, kw_only=True)
class BackboneNetwork:
    """A network that gives features."""

    name: str = "resnet50"
    """A network of timm (docs/backbones.md): ResNet, ConvNeXt, Swin, ViT and others."""
    weights: str = "resnet50.tv_in1k"
    """timm's name with its tag, <network>.<tag> (timm downloads it; resnet50.tv_in1k is
    torchvision's first, which the code bases start from), efficientnet_lite0 (from the package
    index), a file, caffe:<file> for weights that see blue first, or none.
    """
    stride: Literal[8, 16, 32] = 16
    """Pixels between two features of the last stage; a ViT's patches are brought to it."""
    dilated: bool = False
    """Replace lost strides by dilation; SIPE's ResNet does not."""


@dataclass(frozen=True, kw_only=True)
class BackboneOptions(BackboneNetwork):
    """Section backbone."""

    trainable_stages: Annotated[int, Meta(ge=0, le=4)] = 2
    """Last stages that learn."""


SeedRule = Literal["structure", "plain"]
BackgroundOver = Literal["all", "present"]


@dataclass(frozen=True, kw_only=True)
class MapRules:
    """How prototypes and maps are made (docs/method.md section 1)."""

    background_over: BackgroundOver = "all"
    """Classes whose maximum the background is the complement of."""
    seed_rule: SeedRule = "structure"
    """How seeds of prototypes are chosen: SIPE's structure-aware rule or SFC's arg max."""
    background_weight: Positive | None = None
    """Factor of the background when seeds are chosen, by whichever rule; null is the rule's
    own, 0.5 of structure (SIPE) and 0.3 of plain (SFC).
    """


@dataclass(frozen=True, kw_only=True)
class CamTraining(MapRules):
    """What a training takes of section cam."""

    side_widths: Annotated[tuple[Count, ...], Meta(min_length=4, max_length=4)] = (
        128,
        128,
        256,
        256,
    )
    """Channels of the four side convolutions."""
    detach_sides: bool = True
    """As SIPE, keep losses on features and prototype maps (consistency, guidance, FSCL) from
    teaching the backbone; without effect where none of its stages learns.
    """


@dataclass(frozen=True, kw_only=True)
class ImageSize:
    """At which size images are seen."""

    image_long_side: Annotated[int, Meta(ge=32)] | None = None
    """Long side that images are brought to before maps are made; null keeps theirs."""


@dataclass(frozen=True, kw_only=True)
class MapSize:
    """How large stored maps are."""

    map_stride: Count = 1
    """Image pixels per stored map pixel."""


@dataclass(frozen=True, kw_only=True)
class StoredMaps(ImageSize, MapSize):
    """What maps of any network take of section cam."""


@dataclass(frozen=True, kw_only=True)
class MultiScaleMaps(MapRules):
    """How multi-scale maps are made."""

    scales: SomeDistinct[Positive] = (0.5, 1.0, 1.5, 2.0)
    """Scales of the multi-scale maps, each with its mirror image."""


@dataclass(frozen=True, kw_only=True)
class CamMaps(MultiScaleMaps, StoredMaps):
    """What the maps of a CAM network take of section cam."""


@dataclass(frozen=True, kw_only=True)
class Cam(CamTraining, CamMaps):
    """Section cam."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the trainings of base and BRNF have in common."""

    batch_size: Count = 16
    """Images of a step."""
    epochs: Count = 5
    """Passes over the training split."""
    steps: Whole | None = None
    """Steps instead of epochs; 0 leaves the fitted classifier as it is."""
    learning_rate: Positive = 0.1
    """Of the backbone."""
    head_learning_rate: Positive = 1.0
    """Of the new layers."""
    weight_decay: NotNegative = 0.0001
    """Of SGD."""
    momentum: Momentum = 0.0001
    """SIPE passes its weight decay here."""
    resize_low: Side = 320
    """Smallest long side, pixels."""
    resize_high: Side = 640
    """Largest long side, pixels."""
    crop: Side = 512
    """Side of the random crop, pixels."""
    clip_norm: Positive = 1.0
    """Largest norm of the gradient."""
    fit_classifier: bool = False
    """Fit the classifier on the frozen backbone first, for small data."""
    classifier_weight_decay: NotNegative = 0.0001
    """Weight decay of that fit."""
    cache: bool = False
    """Keep a frozen backbone's outputs while training; images are then only mirrored, never
    cropped.
    """


@dataclass(frozen=True, kw_only=True)
class Sfc:
    """Section base.sfc."""

    drawn: Whole = 4
    """Images of the bank that join each batch."""
    lambda_prototype: NotNegative = 1.6
    """Weight of the difference between classifier and prototype maps."""
    lambda_scale: NotNegative = 0.8
    """Weight of the difference between the maps of both scales."""


@dataclass(frozen=True, kw_only=True)
class ClipRefinement:
    """How maps of CLIP are refined by its attention."""

    box_threshold: Momentum = 0.4
    """Share of a map's maximum above which a region gets a box; 0.7 for COCO."""
    attention_maps: Count = 8
    """Last blocks whose attention is averaged."""


@dataclass(frozen=True, kw_only=True)
class ClipEs(ClipRefinement):
    """Section base.clip_es."""

    words: Annotated[str, Meta(min_length=1)] = "voc"
    """What CLIP is asked for: voc, coco (config/clip_es), or a YAML file with names and
    background.
    """
    prompt: Annotated[str, Meta(min_length=1)] = "a clean origami {name}."
    """{name} stands for a class or a background thing."""
    model: str = "ViT-B-16-quickgelu"
    """Architecture of open_clip; OpenAI's weights need quick-GELU."""
    weights: str = "openai"
    """A tag that open_clip downloads, or a file."""


@dataclass(frozen=True, kw_only=True)
class Import:
    """Section base.import."""

    folder: Folder | None = None
    """Folder of <image id>.npy or .npz, one an image."""


@dataclass(frozen=True, kw_only=True)
class BaseTraining(Training):
    """What the base network takes of section base."""

    sfc: Sfc = Sfc()
    """Of method sfc."""


@dataclass(frozen=True, kw_only=True)
class Base(BaseTraining):
    """Section base."""

    method: Literal["sipe", "sfc", "clip_es", "import"] = "sipe"
    """Source of the base seeds (docs/bases.md); with clip_es and import the SIPE network only
    gives the pixel features.
    """
    seed_map: Literal["prototype", "classifier"] = "prototype"
    """Map of the trained base that is the seed."""
    clip_es: ClipEs = ClipEs()
    """Of method clip_es."""
    import_: Import = Import()
    """Of method import."""


@dataclass(frozen=True, kw_only=True)
class BrnfLoss:
    """The terms of BRNF's loss (docs/method.md section 7)."""

    guidance: bool = True
    """Pull prototype maps towards the base seeds."""
    ccnf: bool = True
    """Calibrate the classifier's maps by the online flow."""
    fscl: bool = True
    """Contrast region features with the bank and flow samples."""
    lambda_gui: NotNegative = 1.0
    """Weight of the guidance by the base seeds."""
    lambda_cal: NotNegative = 3.0
    """Weight of CCNF's calibration."""
    lambda_nce: NotNegative = 0.3
    """Weight of FSCL's contrast."""
    labels_from: Literal["prototype", "classifier", "seed"] = "prototype"
    """Maps that label the online flow's pixels."""
    nce_temperature: Positive = 0.5
    """Of the contrastive loss."""
    sample_std: NotNegative = 0.5
    """Standard deviation of latent samples around their class mean."""
    samples_per_step: Count = 10
    """Flow samples drawn a step for each class of the batch."""


@dataclass(frozen=True, kw_only=True)
class Online:
    """How the online flow follows the network."""

    online_warmup: Whole = 100
    """Steps of the online flow before it is used."""
    online_refit_interval: Count = 20
    """Steps between fits of the online flow's temperature auto."""
    online_refit_rows: Count = 4096
    """Labelled rows of recent steps that it is fitted on."""
    online_window: Count = 1000000
    """Rows after which the online flow's standardisation begins to forget."""


@dataclass(frozen=True, kw_only=True)
class BrnfTraining(Training, BrnfLoss, Online):
    """What a BRNF network takes of section brnf."""

    init: Literal["imagenet", "base"] = "imagenet"
    """Weights the network starts from."""
    bank_region: Count = 500
    """Region features kept per class."""
    bank_sampled: Whole = 100
    """Flow samples per class."""


@dataclass(frozen=True, kw_only=True)
class Brnf(BrnfTraining):
    """Section brnf."""

    bsdnf: bool = True
    """Denoise the base seeds that guide and, unless `pseudo_labels.bsdnf` is false, the maps
    before they become pseudo-labels.
    """
    flow: dict[str, Any] = field(default_factory=dict)
    """What differs from section flow for the flow that learns along with the network."""
