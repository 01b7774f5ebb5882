"""A folder to run the workflow in: its configuration, its profiles, and a Snakefile that finds the
installed workflow.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from brnf.errors import UserError
from brnf.shipped import CONFIG, PROFILES
from brnf.store.files import atomic_file

__all__ = ["KINDS", "make_folder"]


@dataclass(frozen=True)
class Kind:
    """What an experiment starts from.

    Attributes:
        config: its configuration among those of the workflow.
        first: what to do before the workflow runs, as lines of a shell or comments.
    """

    config: str
    first: tuple[str, ...] = ()


KINDS = {
    "demo": Kind("demo.yaml"),
    "own": Kind(
        "custom.yaml",
        (
            "# name your table of photographs in config/custom.yaml (dataset.table)",
            "# without a GPU add: --configfile config/custom.yaml config/machines/cpu.yaml",
        ),
    ),
    "voc12": Kind("voc12.yaml", ("snakemake --cores 1 download_sbd    # VOC 2012 and SBD",)),
    "coco14": Kind("coco14.yaml", ("snakemake --cores 1 download_coco14",)),
}
ADDED = ("machines/cpu.yaml", "bases/sfc.yaml", "bases/clip_es.yaml", "bases/clip_es_coco.yaml")
"""Configurations to add to that of a kind."""
SNAKEFILE = """\
# `snakemake --cores all` runs {config} by the workflow of the installed package.
#
# The workflow is included by its import, so that no path of the package stands here: it may be
# updated, and its environment may move. A profile with `snakefile:` would name a path, and would
# be lost beside another `--workflow-profile`; `module` would leave out what the workflow does when
# a run begins and ends. Jobs of a cluster read this file, too.
from brnf.shipped import SNAKEFILE

if not workflow.overwrite_configfiles:

    configfile: "{config}"


# As Snakemake itself includes a main Snakefile: `include:` would leave the run without a target.
workflow.include(SNAKEFILE, overwrite_default_target=True)
"""
FOUND_FIRST = ("Snakefile", "snakefile")
"""Names that Snakemake takes before workflow/Snakefile."""


def make_folder(folder: Path, kind: str) -> str:
    """Write a folder that Snakemake runs in, and return the commands that come next.

    Arguments:
        folder: may hold other things, such as photographs.
        kind: one of :data:`KINDS`.

    Raises:
        UserError: one of the files is there already, or cannot be written.
    """
    chosen = KINDS[kind]
    files = dict(_files(chosen))
    for name in (*FOUND_FIRST, *files):
        if (folder / name).exists():
            raise UserError(f"{folder / name}: is there already, and stays; name another folder")
    for name, text in files.items():
        with atomic_file(folder / name) as temporary:
            temporary.write_text(text)
    return "\n".join([f"cd {quote(str(folder))}", *chosen.first, "snakemake --cores all"])


def _files(kind: Kind) -> Iterator[tuple[str, str]]:
    """Yield the files of a folder and their texts, last the one by which Snakemake finds all."""
    for name in (kind.config, *ADDED):
        yield f"config/{name}", (CONFIG / name).read_text()
    for path in sorted(PROFILES.glob("*/config.yaml")):
        yield f"workflow/profiles/{path.parent.name}/config.yaml", path.read_text()
    yield "workflow/Snakefile", SNAKEFILE.format(config=f"config/{kind.config}")
