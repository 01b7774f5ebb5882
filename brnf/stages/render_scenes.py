"""Stage: write the rendered scenes as a data set in the layout of PASCAL VOC."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from brnf.data.masks import write_palette_png
from brnf.data.scene_layout import SCENE_CLASSES
from brnf.data.scenes import Scene, draw_scene
from brnf.engine.runtime import Progress, Runtime
from brnf.errors import UserError
from brnf.stages._cli import run_stage
from brnf.store.files import locked, whole_directory

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

    train: int = 240
    """Number of training scenes."""
    val: int = 80
    """Number of validation scenes."""
    size: int = 224
    """Width and height in pixels; objects scale with it."""
    rho: float = 0.9
    """Probability that an object has its class's context beside it (training scenes)."""
    nu: float = 0.6
    """Probability that 1-3 contexts of absent classes are added (training scenes)."""
    val_rho: float = 0.5
    """The same as rho for validation scenes."""
    val_nu: float = 0.6
    """The same as nu for validation scenes."""
    seed: int = 0
    """Seed of all scenes; each depends on it, its split and its number only."""


def run(outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Render the scenes with context bias as a data set in VOC layout."""
    _check(options)
    numbers = [("train", number) for number in range(options.train)] + [
        ("val", number) for number in range(options.val)
    ]
    with locked(outputs.scenes), whole_directory(outputs.scenes) as folder:
        root = folder / "VOC2012"
        for name in FOLDERS:
            (root / name).mkdir(parents=True)
        for split, number in Progress(numbers, "render scenes", runtime, unit="scene"):
            rho, nu = (
                (options.rho, options.nu) if split == "train" else (options.val_rho, options.val_nu)
            )
            scene = draw_scene(options.seed, split, number, size=options.size, rho=rho, nu=nu)
            _write(root, _name(split, number), scene)
        for split in ("train", "val"):
            names = [_name(*item) + "\n" for item in numbers if item[0] == split]
            (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("".join(names))
        (root / "classes.txt").write_text("".join(name + "\n" for name in SCENE_CLASSES))


def _name(split: str, number: int) -> str:
    return f"{split}_{number:05d}"


def _check(options: Options) -> None:
    for key in ("rho", "nu", "val_rho", "val_nu"):
        if not 0 <= getattr(options, key) <= 1:
            raise UserError(
                f"scenes.{key}: {getattr(options, key)} is no probability; choose a value from 0 "
                "to 1"
            )
    for key, least in (("train", 1), ("val", 1), ("size", 32), ("seed", 0)):
        if getattr(options, key) < least:
            raise UserError(
                f"scenes.{key}: {getattr(options, key)} is too small; choose at least {least}"
            )


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
