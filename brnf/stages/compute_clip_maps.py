"""Base maps of one shard of images from CLIP, without any training: CLIP-ES (`docs/method.md`
section 3).
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from brnf.base.clip_es import RefinementOptions, clip_maps
from brnf.base.clip_model import load_clip
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

    words: str = "voc"
    """What CLIP is asked for: voc, coco (config/clip_es), or a YAML file with names and background.
    """
    prompt: str = "a clean origami {name}."
    """What CLIP is asked for; {name} stands for the class or the thing."""
    model: str = "ViT-B-16-quickgelu"
    """Architecture of open_clip; OpenAI's weights need quick-GELU."""
    weights: str = "openai"
    """A tag that open_clip downloads, or a file: a state dictionary or OpenAI's own archive."""
    box_threshold: float = 0.4
    """Share of a map's maximum above which a region gets a box: 0.4 for VOC, 0.7 for COCO."""
    attention_maps: int = 8
    """Last blocks whose attention is averaged."""
    image_long_side: int | None = None
    """Long side of the image in pixels; None keeps its own size."""
    map_stride: int = 1
    """Maps are stored at the image's size divided by this."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Compute CLIP-ES's maps."""
    device = runtime.torch_device()
    index = Index.of_list(inputs.index, inputs.images)
    words = read_words(words_file(options.words))
    clip = load_clip(options.model, options.weights, device)
    classes = clip.directions(prompts(options.prompt, index.classes, words))
    things = [thing for thing in words.background if thing not in index.classes]
    background = clip.directions(prompts(options.prompt, things, words)) if things else classes[:0]
    refinement = RefinementOptions(options.box_threshold, options.attention_maps)
    with locked(outputs.maps), write_maps(outputs.maps) as writer:
        for record in Progress(index.images, "compute CLIP maps", runtime, unit="image"):
            image = load_image(record, options.image_long_side, device)
            present = classes[
                torch.tensor(
                    [label - 1 for label in record.labels], dtype=torch.int64, device=device
                )
            ]
            maps = clip_maps(
                clip, image, present, background, map_size(record, options.map_stride), refinement
            )
            products = {"classifier": maps.classifier, "prototype": maps.prototype}
            writer.write(
                record.id,
                record.labels,
                {name: values.cpu().numpy() for name, values in products.items()},
            )


if __name__ == "__main__":
    run_stage(run)
