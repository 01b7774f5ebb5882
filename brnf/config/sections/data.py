"""What the data are, where they come from, and how scenes are rendered."""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from brnf.config.sections.bounds import Count, Distinct, Folder, Share, SplitName, Whole, Word

Overlap = Literal["smallest_on_top", "later_on_top"]
Crowds = Literal["object", "background", "ignore"]
LabelSource = Literal["masks", "annotations"]


@dataclass(frozen=True, kw_only=True)
class Masks:
    """How COCO's annotations become masks; the defaults are coco2voc's (docs/data.md)."""

    overlap: Overlap = "smallest_on_top"
    """Which of COCO's annotations lies on top in masks, the one of smaller area as in coco2voc,
    or the later one of the file.
    """
    crowds: Crowds = "object"
    """What COCO's groups of objects (iscrowd 1) are in masks: objects like others as in
    coco2voc, background, or 255 (ignored) where no object lies on them.
    """


@dataclass(frozen=True, kw_only=True)
class CocoLabels(Masks):
    """What labels an image of COCO."""

    labels_from: LabelSource = "masks"
    """What labels an image of COCO, the classes that its drawn mask shows, or those of all its
    annotations (of groups only where they are objects).
    """


@dataclass(frozen=True, kw_only=True)
class IndexedImages(CocoLabels):
    """What the image index takes of section dataset."""

    kind: Literal["voc", "coco", "table", "scenes"] = "voc"
    """VOC folders, COCO 2014 as downloaded, a CSV table of own images, or scenes that the
    workflow renders.
    """
    classes: Distinct[Word] = ()
    """The classes to use, in this order, none with - in front; empty means all of the data set."""
    limit: Count | None = None
    """At most so many images of each split, always the same ones, whose classes come as evenly as
    they can; null takes all.
    """
    negatives: bool = True
    """Keep images without any label, which show none of the classes."""
    verify: bool = True
    """Decode every image once while the index is made."""
    skip_bad: bool = False
    """Leave out images that cannot be read, whose mask cannot, or whose row or annotation has a
    fault, and list them in the index's summary; otherwise they stop the run.
    """
    val_share: Annotated[float, Meta(gt=0, lt=1)] = 0.2
    """Share of a table's images with a mask that become the split of dataset.val where the table
    names none; at least one does, and none where no image has a mask.
    """
    val_seed: Whole = 0
    """Of the hash of their ids by which they are chosen."""
    mask_contradictions: Share = 0.2
    """Share of the masks that may show other classes than their image's labels name; more end the
    run.
    """


@dataclass(frozen=True, kw_only=True)
class Dataset(IndexedImages):
    """Section dataset."""

    root: str | None = None
    """Folder that holds VOC2012 or VOCdevkit/VOC2012 (kind voc), or annotations, train2014 and
    val2014 (kind coco); or its address in a storage, such as s3://bucket/folder (docs/storage.md).
    """
    table: str | None = None
    """CSV file with the columns image, labels and optionally mask, split (kind table), or its
    address in a storage.
    """
    train: SplitName = "train_aug"
    """Split that everything is trained on."""
    eval_split: SplitName = "train"
    """Split on which maps, seeds and pseudo-labels are evaluated."""
    val: SplitName = "val"
    """Split on which the segmentation is evaluated; of a table that names none it is made of images
    with a mask (val_share), and does without where there are none.
    """
    test: SplitName | None = None
    """Split without ground truth; the target test_predictions writes its masks as an evaluation
    server takes them.
    """


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A file to download."""

    address: str
    """Its URL."""
    md5: Annotated[str, Meta(min_length=32, max_length=32)]
    """Its checksum."""


@dataclass(frozen=True, kw_only=True)
class Archives:
    """What a download target fetches."""

    folder: Folder = "data"
    """Where the archives are unpacked."""
    archives: Annotated[tuple[Archive, ...], Meta(min_length=1)]
    """Addresses and checksums; an archive that lies in the folder already is not fetched."""


VOC12 = Archives(
    archives=(
        Archive(
            address="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            md5="6cd6e144f989b92b3379bac3b3de84fd",
        ),
    )
)
# The server asks for a registration: fetch it with a browser and put it into the folder.
VOC12_TEST = Archives(
    archives=(
        Archive(
            address="http://host.robots.ox.ac.uk:8080/eval/downloads/VOC2012test.tar",
            md5="9065beb292b6c291fad82b2725749fda",
        ),
    )
)
SBD = Archives(
    folder="data/sbd",
    archives=(
        Archive(
            address="https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
            "semantic_contours/benchmark.tgz",
            md5="82b4d87ceb2ed10f6038a1cba92111cb",
        ),
    ),
)
COCO14 = Archives(
    folder="data/coco14",
    archives=(
        Archive(
            address="http://images.cocodataset.org/annotations/annotations_trainval2014.zip",
            md5="0a379cfc70b0e71301e0f377548639bd",
        ),
        Archive(
            address="http://images.cocodataset.org/zips/val2014.zip",
            md5="a3d79f5ed8d289b7a7554ce06a5782b3",
        ),
        Archive(
            address="http://images.cocodataset.org/zips/train2014.zip",
            md5="0da8c0bd3d6becc4dcb32757491aca88",
        ),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Download:
    """Section download."""

    voc12: Archives = VOC12
    """PASCAL VOC 2012, for the target download_voc12."""
    voc12_test: Archives = VOC12_TEST
    """Its test images, for download_voc12_test."""
    sbd: Archives = SBD
    """SBD's segmentations of VOC's photographs, for download_sbd."""
    coco14: Archives = COCO14
    """MS COCO 2014, for download_coco14."""


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """Section scenes: what the renderer draws."""

    train: Count = 240
    """Training scenes."""
    val: Count = 80
    """Validation scenes."""
    size: Annotated[int, Meta(ge=32)] = 224
    """Pixels of a side."""
    rho: Share = 0.9
    """Probability that an object has its class's context beside it (train)."""
    nu: Share = 0.6
    """Probability that contexts of absent classes are added (train)."""
    val_rho: Share = 0.5
    """Rho of the validation scenes."""
    val_nu: Share = 0.6
    """Nu of the validation scenes."""
    seed: Whole = 0
    """Of the renderer."""
