"""Stage: write the rendered scenes as a data set in the layout of PASCAL VOC."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from brnf.config.sections.data import Scenes
from brnf.data.masks import write_palette_png
from brnf.data.scene_layout import SCENE_CLASSES
from brnf.data.scenes import Scene, draw_scene
from brnf.engine.runtime import Progress, Runtime
from brnf.stages._cli import run_stage
from brnf.store.files import atomic_directory, locked

__all__ = ["Options", "Outputs", "run"]

FOLDERS = (
    "JPEGImages",
    "SegmentationClass",
    "ContextClass",
    "Annotations",
    "ImageSets/Segmentation",
)
JPEG_QUALITY = 95


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    scenes: Path
    """Folder to write; it will hold VOC2012/ with images, object masks, context masks, annotations,
    splits and classes.txt.
    """


@dataclass(frozen=True)
class Options:
    """What the scenes look like (docs/method.md section 12)."""

    scenes: Scenes = Scenes()
    """How many, how large, and how often contexts accompany objects and stand alone."""


def run(outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Render the scenes with context bias as a data set in VOC layout."""
    chosen = options.scenes
    numbers = [("train", number) for number in range(chosen.train)] + [
        ("val", number) for number in range(chosen.val)
    ]
    with locked(outputs.scenes), atomic_directory(outputs.scenes) as folder:
        root = folder / "VOC2012"
        for name in FOLDERS:
            (root / name).mkdir(parents=True)
        for split, number in Progress(numbers, "render scenes", runtime, unit="scene"):
            rho, nu = (
                (chosen.rho, chosen.nu) if split == "train" else (chosen.val_rho, chosen.val_nu)
            )
            scene = draw_scene(chosen.seed, split, number, size=chosen.size, rho=rho, nu=nu)
            _write(root, _name(split, number), scene)
        for split in ("train", "val"):
            names = [_name(*item) + "\n" for item in numbers if item[0] == split]
            (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("".join(names))
        (root / "classes.txt").write_text("".join(name + "\n" for name in SCENE_CLASSES))


def _name(split: str, number: int) -> str:
    return f"{split}_{number:05d}"


def _write(root: Path, name: str, scene: Scene) -> None:
    """Write image, masks and annotation of one scene."""
    Image.fromarray(scene.image).save(
        root / "JPEGImages" / f"{name}.jpg", format="JPEG", quality=JPEG_QUALITY, subsampling=0
    )
    write_palette_png(root / "SegmentationClass" / f"{name}.png", scene.objects)
    write_palette_png(root / "ContextClass" / f"{name}.png", scene.contexts)
    height, width = scene.objects.shape
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    objects = "".join(
        f"\t<object><name>{SCENE_CLASSES[label - 1]}</name></object>\n" for label in scene.labels
    )
    text = (
        f"<annotation>\n\t<folder>VOC2012</folder>\n\t<filename>{name}.jpg</filename>\n"
        f"\t{size}\n{objects}</annotation>\n"
    )
    (root / "Annotations" / f"{name}.xml").write_text(text)


if __name__ == "__main__":
    run_stage(run)
