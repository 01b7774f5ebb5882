"""CLIP-ES against plain rewritings: tokens and attention, Grad-CAM, boxes and the walk, prompts,
weights.
"""

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from brnf.base.clip_es import (
    attention_walk,
    box_mask,
    clip_maps,
    gradient_maps,
    refined_map,
    unit_range,
)
from brnf.base.clip_model import Clip, _state, finish_block, load_clip
from brnf.config.sections.cam import ClipRefinement
from brnf.config.words import ClipWords, prompts, read_words
from brnf.errors import UserError

CONFIG = Path(__file__).parents[2] / "config" / "clip_es"
IMAGE = torch.randint(
    0, 256, (3, 64, 64), generator=torch.Generator().manual_seed(3), dtype=torch.uint8
)


@pytest.fixture(scope="module")
def clip(tiny_clip: tuple[str, Path]) -> Clip:
    return load_clip(tiny_clip[0], str(tiny_clip[1]), torch.device("cpu"))


def test_the_default_architecture_has_quick_gelu() -> None:
    config = open_clip.get_model_config("ViT-B-16-quickgelu")
    assert (
        config["quick_gelu"]
        and config["vision_cfg"]["patch_size"] == 16
        and config["vision_cfg"]["layers"] == 12
    )


def test_all_blocks_together_are_clips_own_transformer(clip: Clip) -> None:
    encoded = clip.encode(IMAGE)
    block = clip.visual.transformer.resblocks[-1]
    with torch.no_grad():
        tokens, _ = finish_block(block, encoded.tokens, block.ln_1(encoded.tokens))
        colours = (
            IMAGE[None] / 255 - torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(1, 3, 1, 1)
        ) / torch.tensor(open_clip.OPENAI_DATASET_STD).view(1, 3, 1, 1)
        expected = clip.model.encode_image(colours)  # pooled from the class token
        torch.testing.assert_close(
            clip.visual.ln_post(tokens)[:, 0] @ clip.visual.proj, expected, atol=1e-4, rtol=1e-4
        )
        patches = (clip.visual.ln_post(tokens)[0, 1:].mean(0) @ clip.visual.proj)[None]
    torch.testing.assert_close(clip.image_direction(tokens), patches / patches.norm())


def test_attention_is_what_multi_head_attention_says(clip: Clip) -> None:
    encoded = clip.encode(IMAGE)
    assert encoded.grid == (4, 4) and len(encoded.attention) == 3
    block, normalised = clip.visual.transformer.resblocks[-1], None
    with torch.no_grad():
        normalised = block.ln_1(encoded.tokens)
        _, found = finish_block(block, encoded.tokens, normalised)
        weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
        query, key, _ = (normalised[0] @ weight.T + bias).chunk(3, dim=1)
        heads = [
            (query[:, part] @ key[:, part].T / 4).softmax(1)
            for part in (slice(0, 16), slice(16, 32))
        ]  # two heads of 16 dimensions
    torch.testing.assert_close(found[0], (heads[0] + heads[1]) / 2, atol=1e-5, rtol=1e-4)
    assert found.std() > 0.01
    for attention in encoded.attention:
        torch.testing.assert_close(attention.sum(1), torch.ones(17))


def test_other_sizes_stretch_the_positions(clip: Clip) -> None:
    assert clip.encode(IMAGE[:, :50, :33]).grid == (4, 3)
    grid = clip._positions((4, 4))
    torch.testing.assert_close(grid, clip.visual.positional_embedding)
    large = clip._positions((8, 4))
    assert large.shape == (33, 32)
    torch.testing.assert_close(large[0], clip.visual.positional_embedding[0])
    own = clip.visual.positional_embedding[1:].view(4, 4, 32)
    torch.testing.assert_close(large[1:].view(8, 4, 32)[1], own[0] * 0.75 + own[1] * 0.25)


def test_gradient_maps_equal_differences_of_the_probabilities(clip: Clip) -> None:
    """Move every channel of the activation a little at all patches at once: the probability follows
    the channel's weight.
    """
    encoded = clip.encode(IMAGE)
    classes, background = (
        clip.directions(["a cat", "a dog"]),
        clip.directions(["grass", "sky", "sea"]),
    )
    maps, _ = gradient_maps(clip, encoded, classes, background)
    block = clip.visual.transformer.resblocks[-1]

    def probability(activation: torch.Tensor, place: int) -> torch.Tensor:
        tokens, _ = finish_block(block, encoded.tokens, activation)
        direction = clip.visual.ln_post(tokens)[0, 1:].mean(0) @ clip.visual.proj
        direction = direction / direction.norm()
        logits = clip.model.logit_scale.exp() * torch.stack(
            [direction @ text for text in torch.cat([classes, background])]
        )
        return logits.softmax(0)[place]

    with torch.no_grad():
        activation = block.ln_1(encoded.tokens)
        for place in range(2):
            weights = []
            for channel in range(32):
                step = torch.zeros_like(activation)
                step[0, 1:, channel] = 1e-2
                ahead, behind = (
                    probability(activation + step, place),
                    probability(activation - step, place),
                )
                weights.append((ahead - behind) / 2e-2 / 16)  # the mean over 16 patches
            plain = (activation[0, 1:] @ torch.stack(weights)).relu().view(4, 4)
            plain = (plain - plain.min()) / (plain.max() - plain.min() + 1e-7)
            torch.testing.assert_close(maps[place], plain, atol=0.02, rtol=0.02)
    assert maps.amax((1, 2)).tolist() == pytest.approx([1, 1], abs=1e-3)


def plain_walk(attention: list[np.ndarray], last: int) -> np.ndarray:
    mean = sum(attention[-last:]) / len(attention[-last:])
    steps = mean[1:, 1:].copy()
    size = len(steps)
    for _ in range(3):
        for j in range(size):
            steps[:, j] /= steps[:, j].sum()
        for i in range(size):
            steps[i] /= steps[i].sum()
    symmetric = np.array(
        [[(steps[i, j] + steps[j, i]) / 2 for j in range(size)] for i in range(size)]
    )
    return symmetric @ symmetric


def test_the_walk_equals_loops() -> None:
    generator = np.random.default_rng(0)
    attention = [generator.random((7, 7)) for _ in range(10)]
    walk = attention_walk(
        tuple(torch.from_numpy(one) for one in attention), ClipRefinement().attention_maps
    )
    np.testing.assert_allclose(walk.numpy(), plain_walk(attention, 8))
    np.testing.assert_allclose(walk.numpy(), walk.numpy().T)
    np.testing.assert_allclose(walk.sum(0).numpy(), 1, atol=0.02)  # nearly doubly stochastic


def plain_boxes(values: np.ndarray, threshold: float) -> np.ndarray:
    """Fill the box of every 8-connected region but its last row and column, by flooding."""
    steps = np.floor(values * 255).astype(int)
    above = steps > np.floor(threshold * steps.max())
    mask, seen = np.zeros_like(above), np.zeros_like(above)
    for start in zip(*np.nonzero(above), strict=True):
        if seen[start]:
            continue
        region, waiting = [], [start]
        seen[start] = True
        while waiting:
            y, x = waiting.pop()
            region.append((y, x))
            for other in [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
                inside = 0 <= other[0] < above.shape[0] and 0 <= other[1] < above.shape[1]
                if inside and above[other] and not seen[other]:
                    seen[other] = True
                    waiting.append(other)
        rows, columns = zip(*region, strict=True)
        bottom, right = (
            min(max(rows) + 1, above.shape[0] - 1),
            min(max(columns) + 1, above.shape[1] - 1),
        )
        mask[min(rows) : bottom, min(columns) : right] = True
    return mask


@given(st.integers(0, 500), st.sampled_from([0.0, 0.4, 0.7]))
def test_boxes_surround_every_region(seed: int, threshold: float) -> None:
    values = np.random.default_rng(seed).random((6, 7)) ** 3
    np.testing.assert_array_equal(
        box_mask(torch.from_numpy(values), threshold).numpy(), plain_boxes(values, threshold)
    )


def test_maps_are_compared_in_whole_steps() -> None:
    """0.402 > 0.4, but both are 102 of 255 steps; the box has no last row and column."""
    values = torch.full((3, 4), 0.402)
    values[0, 0] = 1.0
    assert box_mask(values, 0.4).nonzero().tolist() == [[0, 0]]
    assert not box_mask(values.flip(0, 1), 0.4).any()  # in the corner, its box is empty


def test_a_map_flows_out_of_its_boxes_only() -> None:
    values = torch.tensor([[1.0, 0.9, 0.3, 0.8], [0.0, 0.0, 0.0, 0.5]])
    walk = torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    # 0.3 is below 0.4 of the maximum; 0.8 and 0.5 lie in the last column, which no box reaches.
    plain = (walk @ torch.tensor([1.0, 0.9, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])).view(2, 4)
    expected = (plain - plain.min()) / (plain.max() - plain.min())
    torch.testing.assert_close(refined_map(values, walk, 0.4), expected)
    assert refined_map(torch.zeros(2, 4), walk, 0.4).tolist() == [[0, 0, 0, 0]] * 2
    assert unit_range(torch.tensor([[[2.0, 4.0], [3.0, 2.0]]])).flatten().tolist() == pytest.approx(
        [0, 1, 0.5, 0]
    )


def test_both_maps_of_an_image(clip: Clip) -> None:
    classes, background = clip.directions(["a cat", "a dog"]), clip.directions(["grass"])
    options = ClipRefinement(attention_maps=2)
    maps = clip_maps(clip, IMAGE[:, :, :48], classes, background, (64, 48), options)
    encoded = clip.encode(IMAGE[:, :, :48])
    grids, attention = gradient_maps(clip, encoded, classes, background)
    walk = attention_walk((*encoded.attention, attention), options.attention_maps)
    refined = torch.stack([refined_map(grid, walk, 0.4) for grid in grids])
    for found, grid in ((maps.classifier, grids), (maps.prototype, refined)):
        assert found.shape == (3, 64, 48)
        torch.testing.assert_close(
            found[1:], F.interpolate(grid[None], (64, 48), mode="bilinear")[0]
        )
        torch.testing.assert_close(found[0], 1 - found[1:].amax(0))
    nothing = clip_maps(clip, IMAGE, classes[:0], background, (8, 8), options)
    assert nothing.prototype.shape == (1, 8, 8) and nothing.classifier.min() == 1


def test_prompts_take_the_words_of_ambiguous_classes() -> None:
    words = ClipWords({"bird": "bird avian"}, ("grass",))
    assert prompts("a {name}.", ["bird", "platypus"], words) == ["a bird avian.", "a platypus."]
    with pytest.raises(UserError, match=r"lacks \{name\}"):
        prompts("a thing", ["bird"], words)


@pytest.mark.parametrize(
    ("name", "count", "asked"), [("voc", 25, "person"), ("coco", 23, "baseball glove")]
)
def test_the_word_lists_can_be_read(name: str, count: int, asked: str) -> None:
    words = read_words(CONFIG / f"{name}.yaml")
    assert asked in words.names and len(set(words.background)) == len(words.background) == count
    assert ("keyboard" in words.background) == (name == "voc")  # a class of COCO


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("background: [", "cannot be read"),
        ("[sky]", "holds no words"),
        ("names: {}", "holds no words"),
        ("background: []", "holds no words"),
        ("background: [sky, 3]", "3 is no word"),
        ("names: {a: yes}\nbackground: [sky]", "True is no word"),
    ],
)
def test_bad_words_are_one_line(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "words.yaml").write_text(content)
    with pytest.raises(UserError, match=rf"words\.yaml: .*{said}") as caught:
        read_words(tmp_path / "words.yaml")
    assert "\n" not in str(caught.value)


def test_missing_words_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: words for CLIP cannot be read"):
        read_words(tmp_path / "none.yaml")


def test_weights_come_from_the_file(
    tiny_clip: tuple[str, Path], clip: Clip, tmp_path: Path
) -> None:
    state = torch.load(tiny_clip[1], weights_only=True)
    torch.save(
        {"state_dict": {f"module.{key}": value.half() for key, value in state.items()}},
        tmp_path / "half.pt",
    )
    other = load_clip(tiny_clip[0], str(tmp_path / "half.pt"), torch.device("cpu"))
    for name, parameter in clip.model.named_parameters():
        assert torch.equal(parameter, state[name])
    torch.testing.assert_close(
        other.directions(["a cat"]), clip.directions(["a cat"]), atol=1e-2, rtol=1e-2
    )


def test_what_cannot_be_loaded_is_one_line(tiny_clip: tuple[str, Path], tmp_path: Path) -> None:
    device, (name, file) = torch.device("cpu"), tiny_clip
    (tmp_path / "broken.pt").write_bytes(b"nothing")
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pt")
    for model, weights, said in [
        ("no-such", str(file), "no-such' is no architecture"),
        ("ViT-B-16", "openai", "need quick-GELU"),
        (name, str(tmp_path / "broken.pt"), "broken.pt: damaged"),
        (name, str(tmp_path / "other.pt"), "other.pt: does not fit tiny-clip"),
        (name, "no-such-tag", "'no-such-tag' of tiny-clip cannot be had"),
        ("RN50-quickgelu", "no-such-tag", "cannot be had"),
    ]:
        with pytest.raises(UserError, match=said) as caught:
            load_clip(model, weights, device)
        assert "\n" not in str(caught.value)


def test_openais_own_archive_is_read(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 3).half()
    model.register_buffer("context_length", torch.tensor(77))
    torch.jit.save(torch.jit.script(model), tmp_path / "archive.pt")
    state = _state(tmp_path / "archive.pt")
    assert set(state) == {"weight", "bias"} and all(
        value.dtype == torch.float32 for value in state.values()
    )
    torch.testing.assert_close(state["weight"], model.weight.float())
