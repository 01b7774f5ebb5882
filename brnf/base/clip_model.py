"""CLIP's two towers, opened up: tokens, attention maps, text directions (`docs/method.md` section
3, clip_es).
"""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from brnf.errors import UserError
from brnf.store.tensors import read_tensors

__all__ = ["Clip", "Encoded", "finish_block", "load_clip"]

ARCHIVE_EXTRAS = ("input_resolution", "context_length", "vocab_size")
"""Entries of OpenAI's own archives that are no weights."""


@dataclass(frozen=True)
class Encoded:
    """An image before the last block.

    Attributes:
        tokens: [1, 1 + h * w, D], the class token first.
        attention: for each block so far the mean over its heads, [1 + h * w, 1 + h * w], rows sum
            to 1.
        grid: (h, w).
    """

    tokens: Tensor
    attention: tuple[Tensor, ...]
    grid: tuple[int, int]


class Clip:
    """Say what an image's patches and words are to CLIP.

    Arguments:
        model: open_clip's, with a vision transformer.
        tokenise: turns texts into token numbers.
        device: where to compute.
    """

    def __init__(self, model: Any, tokenise: Any, device: torch.device) -> None:
        self.model = model.to(device).eval().requires_grad_(False)
        self._tokenise, self._device = tokenise, device
        self.visual = model.visual
        self.patch: int = self.visual.patch_size[0]
        colours = (
            getattr(self.visual, "image_mean", None),
            getattr(self.visual, "image_std", None),
        )
        mean, std = (
            own or usual
            for own, usual in zip(
                colours, (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD), strict=True
            )
        )
        self._mean = torch.tensor(mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=device).view(1, 3, 1, 1)

    @torch.no_grad()
    def directions(self, texts: Sequence[str]) -> Tensor:
        """Return one unit vector a text, [T, E]."""
        return F.normalize(
            self.model.encode_text(self._tokenise(list(texts)).to(self._device)), dim=1
        )

    @torch.no_grad()
    def encode(self, image: Tensor) -> Encoded:
        """Send an image through all blocks but the last.

        Its sides are enlarged to multiples of the patch, and the position embedding is stretched to
        its grid.

        Arguments:
            image: [3, H, W] in 0..255 RGB.
        """
        grid = (-(-image.shape[1] // self.patch), -(-image.shape[2] // self.patch))
        patches = self.visual.conv1(self._prepare(image, grid)).flatten(2).transpose(1, 2)
        first = self.visual.class_embedding.view(1, 1, -1)
        tokens = self.visual.ln_pre(torch.cat([first, patches], 1) + self._positions(grid))
        attention = []
        for block in self.visual.transformer.resblocks[:-1]:
            tokens, weights = finish_block(block, tokens, block.ln_1(tokens))
            attention.append(weights[0])
        return Encoded(tokens, tuple(attention), grid)

    def image_direction(self, tokens: Tensor) -> Tensor:
        """Return the unit vector of an image, [1, E]: the mean of its patches after the last block,
        not the class token.
        """
        pooled = self.visual.ln_post(tokens)[:, 1:].mean(1) @ self.visual.proj
        return F.normalize(pooled, dim=1)

    def _prepare(self, image: Tensor, grid: tuple[int, int]) -> Tensor:
        size = (grid[0] * self.patch, grid[1] * self.patch)
        pixels = image[None].float().to(self._device)
        if image.shape[1:] != size:
            pixels = F.interpolate(
                pixels, size, mode="bicubic", align_corners=False, antialias=True
            ).clamp(0, 255)
        return (pixels / 255 - self._mean) / self._std

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        own = self.visual.positional_embedding
        maps = own[1:].T.unflatten(1, self.visual.grid_size)[None]
        return torch.cat(
            [
                own[:1],
                F.interpolate(maps, grid, mode="bilinear", align_corners=False)[0].flatten(1).T,
            ]
        )


def finish_block(block: Any, tokens: Tensor, normalised: Tensor) -> tuple[Tensor, Tensor]:
    """Compute a transformer block from the output of its first normalisation, and show where it
    attends.

    Arguments:
        block: open_clip's residual attention block.
        tokens: that enter it, [1, L, D].
        normalised: ``ln_1`` of them, [1, L, D].

    Returns:
        Tokens [1, L, D] and the mean attention of all heads [1, L, L].
    """
    attended, weights = block.attn(normalised, normalised, normalised, need_weights=True)
    tokens = tokens + block.ls_1(attended)
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens))), weights


def load_clip(name: str, weights: str, device: torch.device) -> Clip:
    """Build CLIP and load its weights.

    Arguments:
        name: of an open_clip architecture; OpenAI's weights need one with quick-GELU.
        weights: a tag that open_clip downloads, such as ``openai``, or a file: a state dictionary
            or OpenAI's own archive.
        device: where to compute.

    Raises:
        UserError: the architecture is unknown or no vision transformer, or the weights cannot be
            had or do not fit.
    """
    architecture = open_clip.get_model_config(name)
    if architecture is None:
        raise UserError(
            f"base.clip_es.model: '{name}' is no architecture of open_clip; see "
            "open_clip.list_models()"
        )
    if weights == "openai" and not architecture.get("quick_gelu", False):
        raise UserError(
            f"base.clip_es.model: OpenAI's weights need quick-GELU, which {name} lacks; take "
            "ViT-B-16-quickgelu"
        )
    if Path(weights).is_file():
        logging.disable(logging.WARNING)  # open_clip would warn that it has loaded no weights
        model = open_clip.create_model(name, load_weights=False)
        logging.disable(logging.NOTSET)
        try:
            model.load_state_dict(_state(Path(weights)))
        except RuntimeError as error:
            raise UserError(
                f"{weights}: does not fit {name} ({str(error).splitlines()[-1].strip()}); name its "
                "own architecture"
            ) from error
    else:
        try:
            model = open_clip.create_model(name, pretrained=weights, require_pretrained=True)
        except (
            Exception
        ) as error:  # open_clip's downloads fail in many ways: no network, no such tag, a full disk
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise UserError(
                f"base.clip_es.weights: '{weights}' of {name} cannot be had ({reason}); give a "
                "local file"
            ) from error
    if (
        not isinstance(model.visual, open_clip.transformer.VisionTransformer)
        or model.visual.attn_pool is not None
    ):
        raise UserError(
            f"base.clip_es.model: the image tower of {name} is no plain vision transformer; take "
            "ViT-B-16-quickgelu"
        )
    return Clip(model, open_clip.get_tokenizer(name), device)


def _state(path: Path) -> dict[str, Tensor]:
    """Read weights from a state dictionary, or from the TorchScript archive in which OpenAI
    published them.
    """
    try:
        with warnings.catch_warnings():  # torch would like archives to die out
            warnings.simplefilter("ignore")
            archive = torch.jit.load(path, map_location="cpu")
    except RuntimeError:
        state = read_tensors(
            path, "give base.clip_es.weights the file of a CLIP's state_dict, or openai"
        )
        state = state.get("state_dict", state)
    else:
        state = archive.state_dict()
    return {
        key.removeprefix("module."): value.float()
        for key, value in state.items()
        if key not in ARCHIVE_EXTRAS
    }
