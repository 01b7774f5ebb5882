"""What a change of a key, a module or the data reruns, and no other: told by Snakemake itself over
finished runs.

Run by ``make test-invalidation``.
"""

import ast
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import yaml
from forked_snakemake import SNAKEFILE, ForkedSnakemake, forked_snakemake
from invalidation import (
    ALL_JOBS,
    MODELS,
    PRODUCTS,
    by_hand,
    changed,
    direct,
    expected,
    nested,
    planned,
)

from brnf.config.experiment import read_experiments
from brnf.config.generate import load_schema
from brnf.config.schema import leaves
from brnf.fingerprint import reached_modules
from brnf.workflow.params import STAGES

ROOT = SNAKEFILE.parents[1]
TINY = ROOT / "config" / "tiny.yaml"
PARTS = {".".join(path): part for path, part in leaves(load_schema())}
KEYS = [key for key in PARTS if not by_hand(key)]
REACHED = {stage: reached_modules(f"brnf.stages.{stage}") for stage in STAGES}
MODULES = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "brnf").rglob("*.py"))]
STAGES_OF = {
    module: frozenset(stage for stage in STAGES if name in REACHED[stage])
    for module, name in (
        (path, path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        for path in MODULES
    )
}
"""Module -> the stages that reach it; ``test_workflow_invalidation.py`` compares them with what
Python loads.
"""
TEMPLATE = "brnf/evaluate/report.html.j2"
EDITED = [*{stages: module for module, stages in STAGES_OF.items()}.values(), TEMPLATE]
"""One module for each set of stages."""


def run_for_real(folder: Path, *words: str) -> str:
    """Run the workflow and return what it prints."""
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(SNAKEFILE),
        "--cores",
        "2",
        "--quiet",
        "host",
        "--configfile",
        str(TINY),
    ]
    done = subprocess.run(
        [*command, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run."""
    folder = tmp_path_factory.mktemp("tiny")
    run_for_real(folder)
    return folder


@pytest.fixture(scope="module", params=["records kept", "records lost"])
def folder(
    request: pytest.FixtureRequest, finished: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return that folder, or its results alone in another place, without Snakemake's records."""
    if request.param == "records kept":
        return finished
    moved = tmp_path_factory.mktemp("moved")
    shutil.copytree(finished / "results", moved / "results", symlinks=True)
    return moved


@pytest.fixture(scope="module")
def snakemakes() -> Iterator[SimpleQueue[ForkedSnakemake]]:
    """Start one process for each of two cores."""
    waiting: SimpleQueue[ForkedSnakemake] = SimpleQueue()
    with forked_snakemake() as first, forked_snakemake() as second:
        waiting.put(first)
        waiting.put(second)
        yield waiting


@pytest.fixture(scope="module")
def bare_snakemakes() -> Iterator[SimpleQueue[ForkedSnakemake]]:
    """Start as many that have not loaded this package, for copies of the sources."""
    waiting: SimpleQueue[ForkedSnakemake] = SimpleQueue()
    with forked_snakemake(package=False) as first, forked_snakemake(package=False) as second:
        waiting.put(first)
        waiting.put(second)
        yield waiting


def dry_run(
    snakemakes: SimpleQueue[ForkedSnakemake], folder: Path, *words: str, root: Path = ROOT
) -> Counter[str]:
    """Return the jobs that a dry run plans."""
    run = snakemakes.get()
    try:
        status, output = run(
            folder,
            "--configfile",
            str(TINY),
            "--dry-run",
            "--quiet",
            "host",
            *words,
            snakefile=root / "workflow" / "Snakefile",
        )
    finally:
        snakemakes.put(run)
    assert status == 0, output
    return planned(output)


def in_parallel(
    function: Callable[[str], Counter[str]], names: list[str]
) -> dict[str, Counter[str]]:
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(names, pool.map(function, names), strict=True))


@pytest.fixture(scope="module")
def plans(folder: Path, snakemakes: SimpleQueue[ForkedSnakemake]) -> dict[str, Counter[str]]:
    """Return what Snakemake plans after a change of each key."""
    settings = read_experiments(yaml.safe_load(TINY.read_text()))["tiny"].settings

    def plan(key: str) -> Counter[str]:
        value: Any = settings
        for part in key.split("."):
            value = value[part]
        section, other = next(iter(nested(key, changed(key, value, dict(PARTS[key]))).items()))
        return dry_run(snakemakes, folder, "--config", f"{section}={json.dumps(other)}")

    return in_parallel(plan, KEYS)


def test_nothing_is_to_be_done(folder: Path, snakemakes: SimpleQueue[ForkedSnakemake]) -> None:
    assert dry_run(snakemakes, folder) == Counter()


@pytest.mark.parametrize("key", KEYS)
def test_a_key_reruns_what_reads_it_and_what_follows(
    plans: dict[str, Counter[str]], key: str
) -> None:
    assert plans[key] == expected(direct(key))


def copy_of_sources(folder: Path) -> Path:
    """Copy package and workflow as a fresh checkout does, all newer than any result."""
    for name in ("brnf", "workflow", "config"):
        shutil.copytree(
            ROOT / name,
            folder / name,
            ignore=shutil.ignore_patterns("__pycache__"),
            copy_function=shutil.copyfile,
        )
    return folder


def test_sources_checked_out_anew_rerun_nothing(
    folder: Path, bare_snakemakes: SimpleQueue[ForkedSnakemake], tmp_path: Path
) -> None:
    assert dry_run(bare_snakemakes, folder, root=copy_of_sources(tmp_path)) == Counter()


def test_comments_and_docstrings_rerun_nothing(
    folder: Path, bare_snakemakes: SimpleQueue[ForkedSnakemake], tmp_path: Path
) -> None:
    root = copy_of_sources(tmp_path)
    for module in MODULES:
        path = root / module
        text = path.read_text()
        docstring = ast.parse(text).body[0]
        assert isinstance(docstring, ast.Expr) and docstring.end_lineno
        lines = text.splitlines()[docstring.end_lineno :]
        path.write_text(
            "\n".join(
                [
                    '"""Other words, that name report.html.j2 among others."""',
                    "# A remark.",
                    "",
                    *lines,
                    "# The end.",
                ]
            )
        )
    for path in (root / "workflow").rglob("*.smk"):
        path.write_text(path.read_text() + "\n# A remark.\n")
    assert dry_run(bare_snakemakes, folder, root=root) == Counter()


def jobs_of_stage(stage: str) -> list[str]:
    """Return the jobs of the tiny run that call a stage."""
    return [job for job in ALL_JOBS if job.split()[0] == stage]


@pytest.fixture(scope="module")
def plans_of_modules(
    folder: Path,
    bare_snakemakes: SimpleQueue[ForkedSnakemake],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Counter[str]]:
    """Return what Snakemake plans after an edit of each module."""
    roots: SimpleQueue[Path] = SimpleQueue()
    for _ in range(2):
        roots.put(copy_of_sources(tmp_path_factory.mktemp("sources")))

    def plan(module: str) -> Counter[str]:
        root = roots.get()
        path = root / module
        text = path.read_text()
        path.write_text(text + ("<!-- edited -->" if path.suffix == ".j2" else "\nEDITED = 1\n"))
        try:
            return dry_run(bare_snakemakes, folder, root=root)
        finally:
            path.write_text(text)
            roots.put(root)

    return in_parallel(plan, EDITED)


@pytest.mark.parametrize("module", EDITED)
def test_a_module_reruns_the_stages_that_load_it_and_what_follows(
    plans_of_modules: dict[str, Counter[str]], module: str
) -> None:
    stages = {"report"} if module == TEMPLATE else STAGES_OF[module]
    if stages & {"render_scenes", "index_images"}:
        hidden = (
            {"render_scenes": 2, "index_images": 2}
            if "render_scenes" in stages
            else {"index_images": 2}
        )
        assert {
            job: count for job, count in plans_of_modules[module].items() if job in hidden
        } == hidden
    else:
        assert plans_of_modules[module] == expected(
            job for stage in stages for job in jobs_of_stage(stage)
        )


TABLES = {"tabulate": 1, "draw scores": 1, "draw bias": 1, "report": 1}
RECORDS = {"write_config": 2}
PICTURED = ("draw curves", "draw examples", "draw predictions")


def everything() -> Counter[str]:
    """Return all jobs of the run but those of the data."""
    return expected(["train_base base", "write_config"])


@pytest.mark.parametrize(
    ("words", "jobs"),
    [
        (
            ["random_seeds=[0, 1]"],
            everything() - Counter(["draw examples", "draw predictions"]),
        ),  # which are of the first seed
        (
            ["models=[base]"],
            {"write_config": 1, **TABLES, **dict.fromkeys(PICTURED, 1)},
        ),  # the companion has its own models
        (
            ["products=[cam_classifier, seeds]"],
            {"write_config": 1, **TABLES, "draw curves": 1, "draw examples": 1},
        ),
        (
            ["model_products={base: [cam_classifier]}"],
            {**RECORDS, **TABLES, **dict.fromkeys(PICTURED, 1)},
        ),
        (["variants={other: {ccnf: false}}"], {**RECORDS, "report": 1}),
        (["companions=null"], {"report": 1}),
        (
            ["brnf={bsdnf: false}"],
            {
                **RECORDS,
                **TABLES,
                **dict.fromkeys(PICTURED, 1),
                "train_brnf brnf": 1,
                "compute_cams brnf": 2,
                "write_cam_model brnf": 1,
                "make_pseudo_labels brnf": 2,
                "train_segmentation brnf": 1,
                "write_segmentation_model brnf": 1,
                "predict_segmentation brnf": 2,
                **{
                    f"evaluate brnf {product}": 1
                    for product in PRODUCTS
                    if product != "seeds_bsdnf"
                },
            },
        ),
        (
            ["evaluate={val_products: [cam_classifier]}"],
            {
                **RECORDS,
                "compute_cams base": 4,
                "compute_cams brnf": 2,
                "evaluate base cam_classifier": 2,
                "evaluate brnf cam_classifier": 1,
                "tabulate": 2,
                "draw scores": 2,
                "draw bias": 2,
                "report": 1,
            },
        ),
    ],
    ids=lambda value: value[0].split("=")[0] if isinstance(value, list) else "",
)
def test_keys_that_change_which_jobs_there_are(
    folder: Path, snakemakes: SimpleQueue[ForkedSnakemake], words: list[str], jobs: dict[str, int]
) -> None:
    assert dry_run(snakemakes, folder, "--config", *words) == Counter(jobs)


@pytest.mark.parametrize(
    ("words", "jobs"),
    [
        (["dataset={verify: false}"], {"index_images": 2, **RECORDS, "report": 1}),
        (
            ["scenes={val: 9}"],
            {
                "render_scenes": 2,
                "index_images": 2,
                "predict_segmentation base": 1,
                "predict_segmentation brnf": 1,
                "evaluate base segmentation": 1,
                "evaluate brnf segmentation": 1,
                **RECORDS,
                **TABLES,
                "draw predictions": 1,
            },
        ),
        (
            ["dataset={eval_split: val}"],
            Counter(
                {
                    f"{rule} {model}": 2
                    for model in MODELS
                    for rule in (
                        "compute_cams",
                        "store_pixels",
                        "denoise_seeds",
                        "make_pseudo_labels",
                    )
                }
            )
            + Counter(
                {
                    f"evaluate {model} {product}": 1
                    for model in MODELS
                    for product in PRODUCTS
                    if product != "segmentation"
                }
            )
            + Counter(
                {"index_images": 2, **RECORDS, **TABLES, "draw examples": 1, "draw predictions": 1}
            )
            + Counter(
                {
                    "compute_cams base": 2,
                    "evaluate base cam_classifier": 1,
                    "tabulate": 1,
                    "draw scores": 1,
                    "draw bias": 1,
                }
            ),
        ),
    ],
    ids=["dataset.verify", "scenes.val", "dataset.eval_split"],
)
def test_keys_that_act_through_the_index(
    request: pytest.FixtureRequest,
    folder: Path,
    tmp_path: Path,
    words: list[str],
    jobs: dict[str, int],
) -> None:
    """Without records Snakemake has no digests of an index that is made again, and makes all."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, symlinks=True)
    lost = request.node.callspec.params["folder"] == "records lost"
    found = planned(run_for_real(copy, "--config", *words))
    missing = Counter(jobs) - found
    assert not missing and (lost or found == Counter(jobs)), (missing, found)
