"""CLIP-ES's own numbers on a small CLIP: prompts, tokens, attention, Grad-CAM, boxes, maps."""

import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from brnf.base.clip_es import (
    attention_walk,
    box_mask,
    clip_maps,
    gradient_maps,
    unit_range,
)
from brnf.base.clip_model import Clip, Encoded, load_clip
from brnf.config.sections.cam import ClipRefinement
from brnf.config.words import prompts, read_words, words_file
from brnf.data.voc import VOC_CLASSES
from tests.reference.recipe import FOLDER, integers, load, reference_value

STORED = load("clip_es")
THRESHOLD = float(STORED["box_threshold_f64"])
ARCHITECTURE = {
    "embed_dim": 64,
    "quick_gelu": True,
    "vision_cfg": {
        "image_size": 64,
        "layers": 9,
        "width": 128,
        "head_width": 64,
        "patch_size": 16,
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 64,
        "heads": 1,
        "layers": 3,
    },
}
CLASSES = ("bird", "person")
BACKGROUND = ("ground", "sky", "chair")
TEMPLATE = "a clean origami {name}."
IMAGE = integers("clip.image", (3, 80, 112), 256).to(torch.uint8)


@dataclass(frozen=True)
class Peer:
    """The small CLIP and what it makes of the image."""

    clip: Clip
    directions: Tensor
    encoded: Encoded
    maps: Tensor
    last_attention: Tensor

    @property
    def walk(self) -> Tensor:
        return attention_walk(
            (*self.encoded.attention, self.last_attention), ClipRefinement().attention_maps
        )


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Peer:
    """Build the network from the names of its weights, and load it as a user's file is loaded."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / "reference-clip.json").write_text(json.dumps(ARCHITECTURE))
    open_clip.add_model_config(folder / "reference-clip.json")
    shapes = open_clip.create_model("reference-clip", load_weights=False).state_dict()
    weights = {name: reference_value(name, tuple(one.shape)) for name, one in shapes.items()}
    torch.save(weights, folder / "weights.pt")
    clip = load_clip("reference-clip", str(folder / "weights.pt"), torch.device("cpu"))
    directions = clip.directions(texts())
    encoded = clip.encode(IMAGE)
    maps, attention = gradient_maps(clip, encoded, directions[:2], directions[2:])
    return Peer(clip, directions, encoded, maps, attention)


def texts() -> list[str]:
    return prompts(TEMPLATE, [*CLASSES, *BACKGROUND], read_words(words_file("coco")))


def relative(found: Tensor, expected: np.ndarray) -> float:
    """Return the largest difference as a share of the largest value."""
    assert tuple(found.shape) == expected.shape
    return float(np.abs(found.detach().numpy() - expected).max() / np.abs(expected).max())


def test_prompts_become_the_same_tokens() -> None:
    said = [
        "bird avian",
        "person with clothes,people,human",
        "ground",
        "sky",
        "chair seat",
    ]
    assert texts() == [f"a clean origami {words}." for words in said]
    tokens = open_clip.get_tokenizer("ViT-B-16-quickgelu")(texts())
    assert np.array_equal(tokens[:, : STORED["tokens"].shape[1]].numpy(), STORED["tokens"])
    assert not tokens[:, STORED["tokens"].shape[1] :].any()


@pytest.mark.parametrize(
    ("words", "classes", "background"),
    [
        ("coco", "cbe7cdb4da65dc9d", "3a62a50fccc5c610"),
        ("voc", "baf64c4d09e39e42", "bb063b8a0aaa19e5"),
    ],
)
def test_words_of_all_classes(words: str, classes: str, background: str) -> None:
    """The lists of CLIP-ES's clip_text.py, by the SHA-256 of their lines."""
    names = VOC_CLASSES
    if words == "coco":
        with gzip.open(FOLDER / "coco_annotations.json.gz", "rt") as file:
            categories = json.load(file)["categories"]
        names = tuple(one["name"] for one in sorted(categories, key=itemgetter("id")))
    lists = read_words(words_file(words))
    assert digest(prompts("{name}", names, lists)) == classes
    assert digest(lists.background) == background


def digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def test_text_directions(peer: Peer) -> None:
    assert relative(peer.directions, STORED["directions"]) < 1e-5


def test_tokens_before_the_last_block(peer: Peer) -> None:
    assert peer.encoded.grid == (5, 7)
    assert relative(peer.encoded.tokens[0], STORED["tokens_before_last_block"]) < 1e-5


def test_attention_of_every_block(peer: Peer) -> None:
    attention = torch.stack(peer.encoded.attention)
    assert relative(attention, STORED["attention"]) < 1e-5
    assert relative(peer.last_attention, STORED["last_attention"]) < 1e-5


def test_gradient_maps(peer: Peer) -> None:
    np.testing.assert_allclose(peer.maps.numpy(), STORED["grad_cam"], atol=1e-4, rtol=0)


def test_attention_walk(peer: Peer) -> None:
    assert relative(peer.walk, STORED["walk"]) < 1e-5


def test_boxes_end_before_the_last_row_and_column() -> None:
    """From the peer's own maps, so that no rounding can move a pixel over the threshold."""
    boxes = torch.stack([box_mask(one, THRESHOLD) for one in torch.from_numpy(STORED["grad_cam"])])
    assert np.array_equal(boxes.numpy(), STORED["box_masks"])


def test_refined_maps(peer: Peer) -> None:
    options = ClipRefinement(box_threshold=THRESHOLD)
    classes, background = peer.directions[:2], peer.directions[2:]
    maps = clip_maps(peer.clip, IMAGE, classes, background, (80, 112), options)
    for found, name in ((maps.classifier, "enlarged_grad_cam"), (maps.prototype, "refined")):
        np.testing.assert_allclose(found[1:].numpy(), STORED[name], atol=1e-4, rtol=0)


def test_refined_maps_without_boxes(peer: Peer) -> None:
    """The walk itself, where the boxes leave nothing out."""
    refined = unit_range((peer.walk @ peer.maps.flatten(1).T).T.view_as(peer.maps))
    enlarged = F.interpolate(refined[None], (80, 112), mode="bilinear", align_corners=False)[0]
    expected = STORED["refined_without_boxes"]
    np.testing.assert_allclose(enlarged.numpy(), expected, atol=1e-4, rtol=0)
    assert np.abs(STORED["refined"] - expected).max() > 0.1
