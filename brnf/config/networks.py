"""Which networks of timm work, known by their names alone; this needs no torch.

``tests/backbones/test_backbones_families.py`` holds the table against timm.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "FAMILIES",
    "Family",
    "can_dilate",
    "family_of",
    "network_fault",
    "stage_strides",
    "stride_fault",
]

STRIDES = (4, 8, 16, 32)
"""Of the four stages, as networks have them."""


@dataclass(frozen=True)
class Family:
    """Networks that are treated alike.

    Attributes:
        title: as messages and documents call them.
        names: pattern that a whole name of timm matches.
        kind: ``levels`` have a stem and four stages, as ResNet; a ``pyramid`` has four stages only,
            the first at stride 4; a ``vit`` has one grid of patches at all depths.
        smallest_stride: to which the last stage can be brought without dilation, pixels.
        dilates: whether strides can be replaced by dilation.
        arguments: of timm, so that a pyramid takes images of any size.
    """

    title: str
    names: str
    kind: Literal["levels", "pyramid", "vit"] = "levels"
    smallest_stride: int = 8
    dilates: bool = True
    arguments: Mapping[str, Any] = field(default_factory=dict)


def _pyramid(title: str, names: str, smallest_stride: int = 8, **arguments: Any) -> Family:
    """Describe a pyramid whose strides cannot be replaced by dilation."""
    return Family(title, names, "pyramid", smallest_stride, False, arguments)


VIT = (
    r"(test_)?(vit\d?|flexivit|deit3?|eva(02)?|beit3|aimv2)"
    r"(?!_s?relpos|\w*_(mci|r\d*|resnet\d+d)_)(_\w+)?"
)
RESNETS = (
    r"(test_|wide_|eca_?|gc|se|sk|legacy_se|nf_(se|eca)?)?"
    r"(resnet|resnext|resnest|res2net|res2next)\w*|(legacy_)?senet154"
)
MOBILE = (
    r"(tf_|test_|gc_)?(efficientnet(v2)?_|mobilenetv[1-4]_|mobilenet_edgetpu_|mixnet_"
    r"|(sem|sp|m)nasnet_|fbnet(c|v3)_|lcnet_|tinynet_|rexnetr?_)\w+"
    r"|test_efficientnet|hardcorenas_\w+"
)
FAMILIES = (
    Family("ResNet, ResNeXt, SENet, ResNeSt, Res2Net", RESNETS),
    Family("EfficientNet, MobileNet, MNASNet, ReXNet", MOBILE),
    Family("RegNet", r"(nf_)?regnet\w+"),
    Family("NFNet", r"(dm_|eca_|test_)?nfnet(_\w+)?"),
    Family("RepVGG, GENet, MobileOne", r"(repvgg|gernet|mobileone)_\w+|test_byobnet"),
    Family("CSPNet", r"cs3\w+|cspres(net|next)50\w?"),
    Family("VoVNet", r"(eca_|ese_)?vovnet\w+", smallest_stride=32, dilates=False),
    Family("Xception", r"xception\d\w+", smallest_stride=32),
    Family("CSPNeXt", r"cspnext_\w+", smallest_stride=32),
    Family("MobileViT", r"mobilevit_\w+"),
    Family("DenseNet", r"densenet\w+", dilates=False),
    Family("DLA", r"dla\d\w+", dilates=False),
    Family("DPN", r"dpn\w+", dilates=False),
    Family("GhostNet", r"(rep)?ghostnet\w+", dilates=False),
    Family("SelecSLS", r"selecsls\w+", dilates=False),
    Family("ConvNeXt", r"(test_)?convnext\w*", "pyramid"),
    _pyramid("Swin", r"swin(v2)?_(?!cr_)\w+", strict_img_size=False),
    _pyramid("Swin V2 CR", r"swinv2_cr_\w+", 32, strict_img_size=False),
    _pyramid("PVT v2", r"pvt_v2_\w+"),
    _pyramid("MetaFormer", r"(ca|conv|pool)formerv?2?_\w+"),
    _pyramid("FocalNet", r"focalnet_\w+"),
    _pyramid("InceptionNeXt", r"inception_next_\w+"),
    _pyramid("MambaOut", r"(test_)?mambaout(_\w+)?"),
    _pyramid("EdgeNeXt", r"edgenext_\w+"),
    _pyramid("FasterNet", r"fasternet_\w+"),
    _pyramid("FastViT", r"fastvit_\w+"),
    _pyramid("HGNet", r"hgnet(v2)?_\w+"),
    _pyramid("iFormer", r"iformer_\w+"),
    _pyramid("RepViT", r"repvit_\w+"),
    _pyramid("SwiftFormer", r"swiftformer_\w+"),
    _pyramid("TinyViT", r"tiny_vit_\w+"),
    _pyramid("DaViT", r"davit_\w+", 32),
    _pyramid("EfficientViT (MIT)", r"efficientvit_[bl]\d", 32),
    _pyramid("Next-ViT", r"nextvit_\w+", 32),
    _pyramid("StarNet", r"starnet_\w+", 32),
    Family("ViT, DINOv2, DINOv3, CLIP, SigLIP, DeiT, EVA-02", VIT, "vit", dilates=False),
)


def family_of(name: str) -> Family | None:
    """Return the family of a network, None where it is not among those that work."""
    return next((family for family in FAMILIES if re.fullmatch(family.names, name)), None)


def network_fault(name: str) -> str | None:
    """Say in one line why a network cannot be taken, or return None."""
    if family_of(name):
        return None
    shown = name if name.isprintable() else repr(name)
    titles = ", ".join(family.title for family in FAMILIES)
    return f"'{shown}' is none of the networks that work (docs/backbones.md): {titles}"


def stride_fault(name: str, stride: int, dilated: bool) -> str | None:
    """Say in one line why the last stage of a network cannot be brought to a stride, or return
    None.

    Arguments:
        name: of the network.
        stride: of the last stage, pixels.
        dilated: whether strides are replaced by dilation.
    """
    family = family_of(name)
    if family is None or stride >= family.smallest_stride or (dilated and family.dilates):
        return None
    smallest = f"is {stride}, must be {family.smallest_stride} for {name}"
    return f"{smallest}, or backbone.dilated true" if family.dilates else smallest


def can_dilate(name: str) -> bool:
    """Return whether the strides of a network can be replaced by dilation."""
    family = family_of(name)
    return family is None or family.dilates


def stage_strides(name: str, stride: int) -> tuple[int, ...]:
    """Return the strides of the four stages, pixels.

    Arguments:
        name: of the network.
        stride: of the last stage.
    """
    family = family_of(name)
    if family is not None and family.kind == "vit":
        return (stride,) * len(STRIDES)
    return tuple(min(own, stride) for own in STRIDES)
