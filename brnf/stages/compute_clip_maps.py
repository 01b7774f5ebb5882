"""Base maps of one shard of images from CLIP, without any training: CLIP-ES (`docs/method.md`
section 3).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brnf.base.clip_es import clip_maps
from brnf.base.clip_model import load_clip
from brnf.config.sections.cam import ClipEs, StoredMaps
from brnf.config.words import prompts, read_words, words_file
from brnf.data.index import ImageRecord, Index
from brnf.data.tensors import map_size
from brnf.engine.map_shards import write_map_shard
from brnf.engine.runtime import Runtime
from brnf.stages._cli import run_stage


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    index: Path
    """Folder of the image index."""
    images: Path
    """The shard in the index."""
    packed: tuple[Path, ...] = ()
    """Packs of these images, where no disk is shared (`docs/storage.md`)."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    maps: Path
    """HDF5 file with Grad-CAM before (`classifier`) and after (`prototype`) its refinement by
    attention.
    """


@dataclass(frozen=True)
class Options:
    """How maps are made (`docs/method.md` section 3, clip_es)."""

    clip_es: ClipEs = ClipEs()
    """What CLIP is asked for, its weights, and how its maps are refined."""
    cam: StoredMaps = StoredMaps()
    """At which size images are seen and maps stored."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Compute CLIP-ES's maps."""
    device = runtime.torch_device()
    index = Index.of_list(inputs.index, inputs.images, inputs.packed)
    clip_es = options.clip_es
    words = read_words(words_file(clip_es.words))
    clip = load_clip(clip_es.model, clip_es.weights, device)
    classes = clip.directions(prompts(clip_es.prompt, index.classes, words))
    things = [thing for thing in words.background if thing not in index.classes]
    background = clip.directions(prompts(clip_es.prompt, things, words)) if things else classes[:0]

    def maps_of(record: ImageRecord, image: Tensor) -> dict[str, NDArray[np.float32]]:
        labels = [label - 1 for label in record.labels]
        present = classes[torch.tensor(labels, dtype=torch.int64, device=device)]
        size = map_size(record, options.cam.map_stride)
        maps = clip_maps(clip, image, present, background, size, clip_es)
        products = {"classifier": maps.classifier, "prototype": maps.prototype}
        return {name: values.cpu().numpy() for name, values in products.items()}

    write_map_shard(
        outputs.maps,
        index,
        maps_of,
        long_side=options.cam.image_long_side,
        device=device,
        name="compute CLIP maps",
        runtime=runtime,
    )


if __name__ == "__main__":
    run_stage(run)
