"""The same results for any number of shards, to the byte: real runs of the tiny configuration. Run
by ``make test-invalidation``.
"""

import hashlib
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from forked_snakemake import SNAKEFILE
from invalidation import SHARDED, closure, planned

from brnf.store.pixels import PixelStore

TINY = SNAKEFILE.parents[1] / "config" / "tiny.yaml"
MAPS = ("cams", "denoised", "pseudo_labels", "predictions")


def run(folder: Path, *words: str) -> Counter[str]:
    """Run the tiny experiment without its companion and return its jobs."""
    flags = [
        "--snakefile",
        str(SNAKEFILE),
        "--cores",
        "2",
        "--quiet",
        "host",
        "--configfile",
        str(TINY),
        "--config",
        "companions=null",
    ]
    command = [sys.executable, "-m", "snakemake", *flags, *words]
    done = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return planned(done.stdout)


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"|".join(parts)).hexdigest()


def held(model: Path) -> Iterator[tuple[str, str]]:
    """Yield what the folder of a model holds of each image, whatever shard it lies in."""
    for folder in MAPS:
        for path in (model / folder).glob("*/*.h5"):
            with h5py.File(path) as file:
                for image, group in file.items():
                    products = [
                        part
                        for name, values in sorted(group.items())
                        for part in (name.encode(), np.asarray(values).tobytes())
                    ]
                    yield (
                        f"{folder} {path.parent.name} {image}",
                        digest(np.asarray(group.attrs["classes"]).tobytes(), *products),
                    )
        for path in (model / folder).glob("*/*/*.png"):
            yield f"{folder} {path.parts[-3]} {path.name}", digest(path.read_bytes())
    for split in (model / "pixels").iterdir():
        store = PixelStore(list(split.glob("*.h5")))
        for image in store.images:
            rows = store.image_rows(image)
            columns = [
                np.asarray(getattr(rows, name)).tobytes()
                for name in ("feature", "score", "background", "label", "position")
            ]
            yield f"pixels {split.name} {image}", digest(*columns)


def contents(results: Path) -> dict[str, str]:
    """Return digests of everything that must not depend on the number of shards."""
    whole = [
        *results.glob("tables/*"),
        *results.glob("figures/*.png"),
        *results.glob("*/seed0/*/*.pt"),
        *results.glob("*/seed0/*/*.csv"),
        *results.glob("*/seed0/evaluation/*.json"),
    ]
    found = {
        str(path.relative_to(results)): digest(path.read_bytes())
        for path in whole
        if path.suffix != ".stamp"
    }
    for model in ("base", "brnf"):
        found |= {f"{model} {name}": value for name, value in held(results / model / "seed0")}
    return found


@pytest.fixture(scope="module")
def two_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    run(folder)
    return folder


@pytest.mark.parametrize("shards", [1, 3])
def test_the_number_of_shards_reruns_what_is_cut_and_changes_nothing(
    two_shards: Path, tmp_path: Path, shards: int
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(two_shards, copy, symlinks=True)
    for model in ("base", "brnf"):
        for folder in (*MAPS, "pixels"):
            shutil.rmtree(
                copy / "results" / "tiny" / model / "seed0" / folder
            )  # shards that are there no longer would stay
    jobs = closure(["compute_cams base"]) | {"index_images", "write_config"}
    ran = run(copy, f"shards={shards}")
    index = copy / "results" / "tiny" / "index" / "shards"
    filled = {
        split: len(list((index / split).glob("*.csv"))) for split in ("train", "val")
    }  # an empty shard has no job
    counts = {
        job: filled["val" if job.startswith("predict") else "train"]
        if job.split()[0] in SHARDED
        else 1
        for job in jobs
    }
    assert ran == Counter(counts) and filled["train"] == shards
    before, after = contents(two_shards / "results" / "tiny"), contents(copy / "results" / "tiny")
    assert len(before) > 300
    assert {
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    } == set()
