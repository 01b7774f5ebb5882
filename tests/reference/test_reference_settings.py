"""The paper's configurations against the settings of HSC and CLIP-ES (`settings.csv`)."""

import csv
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from brnf.backbones.network import CAFFE_MEAN
from brnf.config.experiment import merged
from brnf.config.generate import load_schema
from brnf.config.schema import complete, reread
from brnf.config.sections.segmentation import DeepLabNetwork
from brnf.data.augment import Sample, random_crop_or_pad, resize
from brnf.segment.deeplab import DeepLab, build_deeplab
from brnf.segment.heads import AsppHead, AtrousHead
from brnf.segment.loss import multi_scale_loss, segmentation_loss
from tests.reference.recipe import FOLDER

CONFIG = FOLDER.parents[1] / "config"
FILES = {"hsc_voc": ("voc12",), "clip_es_coco": ("coco14", "bases/clip_es_coco")}
with (FOLDER / "settings.csv").open(newline="") as stored:
    ROWS = {row["key"]: row["value"] for row in csv.DictReader(stored)}
COMPARED = [key for key in ROWS if key.split(".")[0] in FILES]

EXPLAINED = {
    "hsc_voc.stem": "its README trains from torchvision's resnet101, which has one 7x7 convolution",
    "hsc_voc.initial_weights": "belong to the deep stem, and are not published with the code",
    "hsc_voc.initial_weights_by_readme": "equal: torchvision's first weights, which timm names"
    " resnet101.tv_in1k and torchvision has saved anew as 63fe2227",
    "hsc_voc.mask_interpolation": "cv2's takes the pixel above and left of the centre, ours that"
    " of the centre, as CLIP-ES: half a pixel at most",
    "hsc_voc.order": "the mirror comes last, as in CLIP-ES; each crop is as probable as there",
    "clip_es_coco.initial_weights": "no copy could be read; torchvision's first weights instead",
    "clip_es_coco.crop_of_its_coco_configuration": "the supplement has 481",
    "clip_es_coco.mean_subtracted": "belongs to Caffe's weights, with which it is subtracted",
    "clip_es_coco.channel_order": "belongs to Caffe's weights, which are turned round instead",
    "clip_es_coco.seed_background": "maps bring their own along, CLIP-ES's that one",
    "clip_es_coco.pseudo_crf_image": "a slip: our CRF sees the photograph",
}
"""Rows that are not ours, or that no key holds -> why (docs/segmentation.md)."""

SEGMENTATION = "backbone output_stride head_width batch_size crop learning_rate momentum rates"
CRF = "iterations gaussian_sigma gaussian_weight bilateral_sigma_xy bilateral_sigma_rgb"
KEYS = {
    **{f"hsc_voc.{name}": f"segmentation.{name}" for name in SEGMENTATION.split()},
    **{f"clip_es_coco.{name}": f"segmentation.{name}" for name in SEGMENTATION.split()},
    **{
        f"{source}.{row}": f"segmentation.{key}"
        for source in FILES
        for row, key in {
            "iter_size": "accumulate",
            "iterations": "iterations",
            "weight_decay": "weight_decay",
            "power": "power",
            "test_scales": "test.scales",
            "test_flip": "test.flip",
            "scale_range": "scale_low segmentation.scale_high",
            "scales": "scales",
            "loss_scales": "loss_scales",
            "head_norm_momentum": "norm_momentum",
            "freeze_bn_key": "frozen_batch_norm",
            "frozen_batch_norm": "frozen_batch_norm",
            "test_align_corners": "align_corners",
            "rate_changes_every": "schedule_every",
            "iterations_of_its_coco_configuration": "iterations",
            "batch_of_its_coco_configuration": "batch_size",
        }.items()
    },
    **{
        f"{source}.{row}_{name}": f"{section}.crf.{name}"
        for source in FILES
        for row, section in (("crf", "segmentation.test"), ("pseudo_crf", "pseudo_labels"))
        for name in (*CRF.split(), "bilateral_weight")
    },
    "clip_es_coco.low_confidence_ignored": "pseudo_labels.confidence",
    "clip_es_coco.box_threshold": "base.clip_es.box_threshold",
}
"""Rows whose value stands in keys of the configuration; those that are no rows do not count."""

Settings = Mapping[str, Any]


def keys(**expected: Any) -> Callable[[Settings], bool]:
    """Return a check that keys of the segmentation have values.

    ``test__flip`` is ``segmentation.test.flip``, ``labels__crf__iterations`` is
    ``pseudo_labels.crf.iterations``.
    """

    def check(settings: Settings) -> bool:
        sections = settings["segmentation"] | {"labels": settings["pseudo_labels"]}
        found = {name: at(sections, name.replace("__", ".")) for name in expected}
        return found == expected

    return check


def at(settings: Any, path: str) -> Any:
    for key in path.split("."):
        settings = settings[key]
    return settings


@cache
def network(source: str, backbone: str = "") -> DeepLab:
    """Return the network of a configuration, or one with another backbone, without values."""
    section = settings_of(source)["segmentation"]
    names = DeepLabNetwork.__dataclass_fields__
    chosen = {name: section[name] for name in names if name in section} | {"weights": "none"}
    chosen |= {"backbone": backbone, "layout": "torchvision"} if backbone else {}
    with torch.device("meta"):
        return build_deeplab(DeepLabNetwork(**chosen), 21, load=False)


def learns_at(multiples: Mapping[int, float]) -> Callable[[Settings], bool]:
    """Return a check of the groups: multiple of the learning rate -> share of the decay.

    A ResNet's convolutions have no biases; those of the MobileNet that stands in for it have.
    """

    def check(settings: Settings) -> bool:
        groups = network(settings["name"], "mobilenetv3_small_050").parameter_groups(1.0, 1.0)
        return {group["lr"]: group["weight_decay"] for group in groups} == multiples

    return check


def norms_in_no_group(settings: Settings) -> bool:
    one = network(settings["name"])
    held = {id(value) for group in one.parameter_groups(1, 0) for value in group["params"]}
    norms = [module for module in one.modules() if isinstance(module, _BatchNorm)]
    affine = {id(value) for norm in norms for value in norm.parameters()}
    return len(norms) > 100 and not held & affine


def momentum_of_norms(settings: Settings) -> bool:
    backbone = network(settings["name"]).backbone
    return {norm.momentum for norm in backbone.modules() if isinstance(norm, _BatchNorm)} == {0.1}


def dilated(first: tuple[int, int], others: tuple[int, int]) -> Callable[[Settings], bool]:
    """Return a check of the dilations of stages 3 and 4: of their first block and of the others."""

    def check(settings: Settings) -> bool:
        layers = network(settings["name"]).backbone.network
        for name, start, rest in zip(("layer3", "layer4"), first, others, strict=True):
            found = [block.conv2.dilation[0] for block in layers[name]]
            if found != [start, *[rest] * (len(found) - 1)]:
                return False
        return True

    return check


def stride_in_first(settings: Settings) -> bool:
    block = network(settings["name"]).backbone.network["layer2"][0]
    return (block.conv1.stride, block.conv2.stride) == ((2, 2), (1, 1))


def pools_up(settings: Settings) -> bool:
    pool = network(settings["name"]).backbone.network["maxpool"]
    return (pool.kernel_size, pool.stride, pool.ceil_mode) == (3, 2, True)


def starts_by_fan_out(_: Settings) -> bool:
    torch.manual_seed(0)
    head = AsppHead(32, 21, (6, 12, 18, 24), 256, 0.1)
    layers = [module for module in head.modules() if isinstance(module, nn.Conv2d)]
    fans = [layer.out_channels * layer.kernel_size[0] ** 2 for layer in layers]
    stds = [layer.weight.std().item() for layer in layers]
    spread = [abs(std * (fan / 2) ** 0.5 - 1) for std, fan in zip(stds, fans, strict=True)]
    return len(layers) == 7 and max(spread) < 0.05


def starts_small(_: Settings) -> bool:
    torch.manual_seed(0)
    head = AtrousHead(256, 21, (6, 12, 18, 24))
    layers = [module for module in head.modules() if isinstance(module, nn.Conv2d)]
    spread = [abs(layer.weight.std().item() / 0.01 - 1) for layer in layers]
    return len(layers) == 4 and max(spread) < 0.05 and not any(one.bias.any() for one in layers)


def drops_half_twice(_: Settings) -> bool:
    head = AsppHead(4, 3, (1,), 8, 0.1)
    return [one.p for one in head.modules() if isinstance(one, nn.Dropout)] == [0.5, 0.5]


def crops_anywhere(_: Settings) -> bool:
    image = np.arange(64, dtype=np.uint8).reshape(8, 8, 1).repeat(3, 2)
    rng = np.random.default_rng(0)
    crops = [random_crop_or_pad(Sample.of(image), rng, 6).image[0, 0, 0] for _ in range(200)]
    return len(set(crops)) == 9


def labels_as_pillow(_: Settings) -> bool:
    torch.manual_seed(0)
    labels, logits = torch.randint(0, 5, (1, 97, 97)), torch.randn(1, 5, 13, 13)
    picture = Image.fromarray(labels[0].numpy().astype(np.uint8))
    reduced = np.asarray(picture.resize((13, 13), Image.Resampling.NEAREST)).astype(np.int64)
    expected = segmentation_loss(logits, torch.from_numpy(reduced)[None])
    return torch.equal(multi_scale_loss([logits], labels), expected)


def masks_as_pillow(_: Settings) -> bool:
    mask = np.random.default_rng(0).integers(0, 21, (50, 71), dtype=np.uint8)
    sample = Sample.of(np.zeros((50, 71, 3), np.uint8), mask=mask)
    sizes = [(25, 36), (38, 53), (62, 89), (88, 124)]
    return all(
        np.array_equal(
            resize(sample, size).mask,
            np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST)),
        )
        for size in sizes
    )


FOUR_LOSSES = keys(loss_scales=[0.5, 0.75], balanced_loss=False, head="aspp_sum")
PHRASES: dict[str, tuple[str, Callable[[Settings], bool]]] = {
    "hsc_voc.network": ("deeplabv2", keys(head="aspp_concat")),
    "hsc_voc.test_crf": ("True", keys(test__crf__iterations=10)),
    "hsc_voc.head_image_mean": ("True", keys(head="aspp_concat")),
    "hsc_voc.flip": ("0.5", keys(flip=True)),
    "hsc_voc.hsv_jitter": ("10 10 10", keys(hsv=10)),
    "hsc_voc.loss": (
        "one cross entropy, mean over labelled pixels, ignore 255",
        keys(loss_scales=[], balanced_loss=False),
    ),
    "hsc_voc.learning_rate_multiples": (
        "convolutions 1, their biases 2, head weights 10, head biases 20 (biases without decay)",
        learns_at({1: 1, 2: 0, 10: 1, 20: 0}),
    ),
    "hsc_voc.schedule": (
        "lr (1 - step/(iterations + 1))^power, every step",
        keys(schedule_every=1, schedule_beyond=1),
    ),
    "hsc_voc.bn_statistics": (
        "follow the batches (nothing calls eval)",
        keys(frozen_batch_norm=False),
    ),
    "hsc_voc.bn_affine": (
        "in no parameter group: keeps its initial scale and shift",
        norms_in_no_group,
    ),
    "hsc_voc.logits": (
        "enlarged to the crop before the loss, bilinear, align_corners True",
        keys(loss_scales=[], align_corners=True),
    ),
    "hsc_voc.dropout": ("0.5 in the head, 0.5 before the classifier", drops_half_twice),
    "hsc_voc.head_start": ("kaiming normal, fan_out", starts_by_fan_out),
    "hsc_voc.bn_momentum_backbone": ("0.1", momentum_of_norms),
    "hsc_voc.dilations": ("stage 3: 1 then 2; stage 4: 2 then 4", dilated((1, 2), (2, 4))),
    "hsc_voc.image_interpolation": (
        "bicubic (scale, test scales)",
        keys(interpolation="bicubic", test__interpolation="bicubic"),
    ),
    "hsc_voc.padding": (
        "0 after normalisation, mask 255, at a random side",
        keys(padding="random"),
    ),
    "hsc_voc.crop_place": ("random", crops_anywhere),
    "hsc_voc.low_confidence_ignored": (
        "no: masks are used as they are",
        keys(labels__confidence=0),
    ),
    "hsc_voc.test_merge": ("mean of logits, then softmax", keys(test__merge="mean")),
    "hsc_voc.test_size": ("each scale enlarged to the image", keys(test__long_side=None)),
    "clip_es_coco.code": ("its step 3 trains with kazuto1011/deeplab-pytorch", FOUR_LOSSES),
    "clip_es_coco.network": (
        "DeepLabV2_ResNet101_MSC",
        keys(backbone="resnet101", head="aspp_sum"),
    ),
    "clip_es_coco.loss": (
        " ".join(
            (
                "sum of four cross entropies (scale 1, 0.5, 0.75, maximum), each on its own grid,",
                "ignore 255; divided by iter_size",
            )
        ),
        FOUR_LOSSES,
    ),
    "clip_es_coco.learning_rate_multiples": (
        "convolutions of the backbone 1, head weights 10, head biases 20 (no decay)",
        learns_at({1: 1, 2: 0, 10: 1, 20: 0}),
    ),
    "clip_es_coco.labels_to_grid": ("PIL nearest", labels_as_pillow),
    "clip_es_coco.bn_affine": ("in no parameter group", norms_in_no_group),
    "clip_es_coco.colour_jitter": ("none", keys(hsv=0)),
    "clip_es_coco.flip": ("0.5", keys(flip=True)),
    "clip_es_coco.padding": ("mean colour, mask 255, right and below", keys(padding="after")),
    "clip_es_coco.crop_place": ("random", crops_anywhere),
    "clip_es_coco.image_interpolation": (
        "bilinear",
        keys(interpolation="bilinear", test__interpolation="bilinear", align_corners=False),
    ),
    "clip_es_coco.mask_interpolation": ("PIL nearest", masks_as_pillow),
    "clip_es_coco.scale_choice": (
        "one of the list",
        keys(scales=[0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]),
    ),
    "clip_es_coco.test_merge": ("max of logits", keys(test__merge="max")),
    "clip_es_coco.max_pooling": ("3x3, stride 2, ceil_mode", pools_up),
    "clip_es_coco.stride_place": ("first 1x1 convolution of a stage", stride_in_first),
    "clip_es_coco.dilations": (
        "stage 3: 2, stage 4: 4, first block included",
        dilated((2, 4), (2, 4)),
    ),
    "clip_es_coco.head": (
        "sum of four 3x3 convolutions",
        keys(head="aspp_sum", rates=[6, 12, 18, 24]),
    ),
    "clip_es_coco.head_start": ("normal 0.01, bias 0", starts_small),
    "clip_es_coco.low_confidence_rule": (
        "after the CRF, pixels whose largest probability is below it become 255",
        keys(labels__confidence=0.95, labels__crf__iterations=10, labels__refine="crf"),
    ),
}
"""Rows in words, the words -> whether the configuration or the code is so."""


@cache
def settings_of(source: str) -> dict[str, Any]:
    """Return the resolved settings of the configuration that follows a code base."""
    texts = [(CONFIG / f"{file}.yaml").read_text() for file in FILES[source]]
    given = merged(*map(yaml.safe_load, texts)) if len(texts) > 1 else yaml.safe_load(texts[0])
    return complete(reread(given, load_schema()), load_schema()) | {"name": source}


def value_of(text: str) -> list[Any]:
    """Read the words of a row as numbers, truth values and names, sorted as their order is free."""
    words: list[Any] = [{"True": True, "False": False}.get(word, word) for word in text.split()]
    return sorted(float(word) if is_number(word) else word for word in words)


def is_number(word: Any) -> bool:
    return isinstance(word, str) and word.replace(".", "", 1).isdigit()


@pytest.mark.parametrize("row", COMPARED)
def test_every_setting_is_equal_or_explained(row: str) -> None:
    tables = [table for table in (KEYS, PHRASES, EXPLAINED) if row in table]
    assert len(tables) == 1, "neither equal nor explained" if not tables else "told twice"
    settings = settings_of(row.split(".")[0])
    if row in KEYS:
        found = [at(settings, key) for key in KEYS[row].split()]
        values = found[0] if isinstance(found[0], list) else found
        assert sorted(values) == value_of(ROWS[row])
    elif row in PHRASES:
        words, check = PHRASES[row]
        assert ROWS[row] == words and check(settings)
    else:
        assert len(EXPLAINED[row]) > 20


def test_every_explanation_belongs_to_a_row() -> None:
    assert set(EXPLAINED) | set(PHRASES) <= set(COMPARED)


def test_caffes_colours_are_those_of_caffes_weights() -> None:
    mean = [float(word) for word in ROWS["clip_es_coco.mean_subtracted"].split()]
    assert list(CAFFE_MEAN) == mean
