"""Time a call of the workflow that has nothing to do, at the size of VOC 2012: `make scale`.

The images are hard links to a few files of one colour, the products are empty files that Snakemake
is told to take for finished ones, with stamps that name their inputs; the index is real, so that a
call looks at the state of all images as it would.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
from PIL import Image

from brnf.data.voc import VOC_CLASSES
from brnf.planning.jobs import read_jobs
from brnf.store.files import MARK
from brnf.store.stamps import digest_of, read_stamp, write_stamp
from brnf.weights import weights_named

__all__ = ["TRAIN", "TRAIN_AUG", "VAL", "finish", "no_op_seconds", "write_voc"]

ROOT = Path(__file__).parents[1]
TRAIN, TRAIN_AUG, VAL = 1464, 10_582, 1449
SMALL = "cam={map_stride: 16, side_widths: [1, 1, 1, 1]}"
"""The run must not be refused for products that the disk could not hold; as many files follow."""
WORDS = (
    "--cores",
    "1",
    "--configfile",
    str(ROOT / "config" / "voc12.yaml"),
    "--config",
    "dataset={root: voc, verify: false}",
    SMALL,
)


def write_voc(root: Path, train: int, train_aug: int, val: int) -> None:
    """Write a data set with VOC's layout.

    Arguments:
        root: gets the folder ``VOC2012``.
        train: images of the official split train.
        train_aug: images to train on, these among them.
        val: images to evaluate on.
    """
    top = root / "VOC2012"
    for folder in (
        "JPEGImages",
        "Annotations",
        "SegmentationClass",
        "SegmentationClassAug",
        "ImageSets/Segmentation",
    ):
        (top / folder).mkdir(parents=True)
    Image.new("RGB", (500, 375), (90, 120, 60)).save(root / "image.jpg")
    mask = Image.new("P", (500, 375), 1)
    mask.putpalette([0, 0, 0, 128, 0, 0])
    mask.save(root / "mask.png")
    random = np.random.default_rng(0)
    ids = [f"2008_{number:06d}" for number in range(train_aug + val)]
    for number, image in enumerate(ids):
        (top / "JPEGImages" / f"{image}.jpg").hardlink_to(root / "image.jpg")
        (top / "SegmentationClassAug" / f"{image}.png").hardlink_to(root / "mask.png")
        if number < train or number >= train_aug:
            (top / "SegmentationClass" / f"{image}.png").hardlink_to(root / "mask.png")
        names = random.choice(VOC_CLASSES, random.integers(1, 4), replace=False)
        objects = "".join(f"<object><name>{name}</name></object>" for name in names)
        size = "<size><width>500</width><height>375</height><depth>3</depth></size>"
        (top / "Annotations" / f"{image}.xml").write_text(
            f"<annotation>{size}{objects}</annotation>"
        )
    for split, listed in (("train", ids[:train]), ("val", ids[train_aug:])):
        (top / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(listed) + "\n")


def snakemake(folder: Path, *given: str, words: tuple[str, ...] = WORDS) -> str:
    """Call the workflow in a folder, in its own process, and return what it prints."""
    command = (
        sys.executable,
        "-m",
        "snakemake",
        *given,
        "--snakefile",
        str(ROOT / "workflow" / "Snakefile"),
        *words,
    )
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"error: snakemake failed: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout + done.stderr


def finish(folder: Path) -> int:
    """Index the images, make every other product an empty file that counts as finished, and return
    the number of files.
    """
    snakemake(folder, "--until", "index_images", "write_config")
    listed = snakemake(folder, "--summary").splitlines()
    files = [folder / line.split("\t")[0] for line in listed if line.startswith("results/")]
    for path in files:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _fill(path, folder) if not path.suffix else path.touch()
    snakemake(folder, "--touch", words=(*WORDS, "unstamped=adopt"))
    _stamp(folder)
    return len(files)


def _fill(product: Path, folder: Path) -> None:
    """Make a folder of masks, with an empty file for each image of its shard."""
    product.mkdir()
    (product / MARK).touch()
    shards = folder / "results" / "voc12" / "index" / "shards"
    listed = shards / product.parent.name / f"{product.name}.csv"
    for row in listed.read_text().splitlines()[1:] if listed.is_file() else ():
        (product / f"{row.partition(',')[0]}.png").touch()


def _stamp(folder: Path) -> None:
    """Let the stamps of the adopted products name the inputs that their jobs would have read."""
    begun = ("train_base", "write_config")  # with all that follows: a forced index would hide it
    plan = snakemake(folder, "--dry-run", "--forcerun", *begun, "--quiet", "host")
    for job in read_jobs(plan):
        inputs = {
            path: stamp.content.digest
            if (stamp := read_stamp(folder / path)) and stamp.content
            else digest_of(folder / path)
            for path in job.inputs
            if (folder / path).exists()
        }
        for output in job.outputs:
            if stamp := read_stamp(folder / output):
                weights = weights_named(stamp.options)
                made = msgspec.structs.replace(stamp, inputs=inputs, weights=weights, adopted=False)
                write_stamp(folder / output, made)


def no_op_seconds(folder: Path, repeats: int) -> list[float]:
    """Return the wall times of calls that find everything finished, seconds."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        said = snakemake(folder)
        found.append(time.perf_counter() - start)
        assert "Nothing to be done" in said, said
    return found


def main() -> None:
    """Write the data set into a temporary folder and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="timed calls")
    parser.add_argument("--folder", type=Path, help="where the temporary folder goes")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=words.folder) as name:
        folder = Path(name)
        write_voc(folder / "voc", TRAIN, TRAIN_AUG, VAL)
        print(f"{TRAIN_AUG} + {VAL} images, {finish(folder)} files of results", flush=True)
        seconds = no_op_seconds(folder, words.repeats)
        spread = f"{min(seconds):.2f} to {max(seconds):.2f} of {words.repeats} calls"
        print(f"nothing to be done: {median(seconds):.2f} s ({spread}), goal < 5 s")


if __name__ == "__main__":
    main()
