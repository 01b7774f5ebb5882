"""Base maps of one shard of images from CLIP, without any training: CLIP-ES (`docs/method.md`
section 3).
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from brnf.base.clip_es import clip_maps
from brnf.base.clip_model import load_clip
from brnf.config.sections.cam import ClipEs, StoredMaps
from brnf.config.words import prompts, read_words, words_file
from brnf.data.index import Index
from brnf.data.tensors import load_image, map_size
from brnf.engine.runtime import Progress, Runtime
from brnf.stages._cli import run_stage
from brnf.store.files import locked
from brnf.store.maps import write_maps


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    index: Path
    """Folder of the image index."""
    images: Path
    """The shard in the index."""


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
    index = Index.of_list(inputs.index, inputs.images)
    clip_es = options.clip_es
    words = read_words(words_file(clip_es.words))
    clip = load_clip(clip_es.model, clip_es.weights, device)
    classes = clip.directions(prompts(clip_es.prompt, index.classes, words))
    things = [thing for thing in words.background if thing not in index.classes]
    background = clip.directions(prompts(clip_es.prompt, things, words)) if things else classes[:0]
    with locked(outputs.maps), write_maps(outputs.maps, len(index.classes)) as writer:
        for record in Progress(index.images, "compute CLIP maps", runtime, unit="image"):
            image = load_image(record, options.cam.image_long_side, device)
            present = classes[
                torch.tensor(
                    [label - 1 for label in record.labels], dtype=torch.int64, device=device
                )
            ]
            maps = clip_maps(
                clip, image, present, background, map_size(record, options.cam.map_stride), clip_es
            )
            products = {"classifier": maps.classifier, "prototype": maps.prototype}
            writer.write(
                record.id,
                record.labels,
                {name: values.cpu().numpy() for name, values in products.items()},
            )


if __name__ == "__main__":
    run_stage(run)
