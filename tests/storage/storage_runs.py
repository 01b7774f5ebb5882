"""Snakemake on the tiny configuration: on a disk, and with each storage that the tests know."""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SNAKEMAKE = (str(Path(sys.executable).with_name("snakemake")), "--snakefile")
SNAKEFILE = str(ROOT / "workflow" / "Snakefile")
TINY = str(ROOT / "config" / "tiny.yaml")
KEYS = {"SNAKEMAKE_STORAGE_S3_ACCESS_KEY": "none", "SNAKEMAKE_STORAGE_S3_SECRET_KEY": "none"}
OTHERS = ("report.html", "index/root.txt", "index.files.csv", "index.masks.csv")
"""Files that tell where and how a run was made, and tables that only a disk keeps."""


def snakemake(folder: Path, *words: str, fails: bool = False, **environment: str) -> str:
    """Run Snakemake in a folder and return what it prints; it must succeed unless it ``fails``."""
    folder.mkdir(parents=True, exist_ok=True)
    ended = subprocess.run(
        [*SNAKEMAKE, SNAKEFILE, "--configfile", TINY, *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **KEYS, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert (ended.returncode != 0) == fails, ended.stdout
    return ended.stdout


def started(output: str) -> list[str]:
    """Return the jobs that a run says it has started."""
    return sorted(re.findall(r"^[\d:]+ starts (.+)$", output, re.MULTILINE))


def planned(output: str) -> dict[str, int]:
    """Return how many jobs of each rule a dry run plans."""
    if "Nothing to be done" in output:
        return {}
    table = re.search(r"^job +count\n[- ]+\n(.*?)^total", output, re.MULTILINE | re.DOTALL)
    assert table, output
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table[1], re.M)}


def is_product(path: str) -> bool:
    """Return whether a file of results/ must hold the same on a disk and in a storage."""
    parts = path.split("/")
    return (
        not {"logs", "benchmarks", "packed"} & set(parts)
        and not parts[-1].startswith(".")
        and not path.endswith(OTHERS)
    )


def digests(files: Iterator[tuple[str, bytes]]) -> dict[str, str]:
    """Return a digest of each product."""
    return {path: hashlib.sha256(held).hexdigest() for path, held in files if is_product(path)}


@dataclass(frozen=True)
class Disk:
    """A folder in which results/ stands.

    Attributes:
        place: the folder.
    """

    place: Path

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yield path and bytes of every file."""
        for path in sorted((self.place / "results").rglob("*")):
            if path.is_file():
                yield str(path.relative_to(self.place)), path.read_bytes()


@dataclass(frozen=True)
class FileStorage(Disk):
    """The same, where the plugin fs keeps it."""

    @property
    def words(self) -> tuple[str, ...]:
        """Return the words of a command line that name it."""
        return (
            *("--default-storage-provider", "fs"),
            *("--default-storage-prefix", str(self.place)),
        )


@dataclass(frozen=True)
class Bucket:
    """A bucket of a server that speaks S3, on this machine.

    Attributes:
        endpoint: address of the server.
        name: of the bucket.
        objects: boto3's.
    """

    endpoint: str
    name: str
    objects: Any = field(repr=False)

    @property
    def words(self) -> tuple[str, ...]:
        """Return the words of a command line that name it."""
        return (
            *("--default-storage-provider", "s3"),
            *("--default-storage-prefix", f"s3://{self.name}"),
            *("--storage-s3-endpoint-url", self.endpoint),
        )

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yield key and bytes of every object."""
        for found in self.objects.objects.all():
            yield found.key, found.get()["Body"].read()

    def put(self, key: str, held: bytes) -> None:
        """Write an object."""
        self.objects.put_object(Key=key, Body=held)
