"""What a change reruns, written down by hand, apart from the code that decides it. Prints
``docs/invalidation.md``.

A job is called by its rule and its wildcards, without shard and seed: ``denoise_seeds brnf``,
``evaluate base seeds``, ``draw curves``.
"""

import fnmatch
from collections import Counter
from collections.abc import Iterable
from typing import Any

from brnf.weights import WEIGHTS_OF

INTRODUCTION = """\
# What a change reruns

Printed by `make invalidation-table` from the table of the tests (`tests/workflow/invalidation.py`),
which is written by hand; `make test-invalidation` changes every key and every module and lets
Snakemake plan over a finished run of `config/tiny.yaml`.

**Configuration.** Every key that can change a result is a `params` of the rules whose stages read
it; `config.yaml` beside the results and the report are written anew for every key but those of the
first row. Keys without effect are ignored: `flow.components` reruns nothing as long as
`flow.density` is the flow.

**Code.** A rule knows a fingerprint of the modules that its stage reaches by its imports: the
syntax trees, without comments and docstrings. Editing a module reruns the stages that reach it and
what follows. Comments, touched files and sources checked out anew beside kept results rerun
nothing.

**Stamps.** Snakemake keeps its records of parameters in `.snakemake`, beside the call and not
beside the results. So every stage writes a stamp, `.<name>.stamp`, beside each product: its
options, the fingerprint of the code that ran, digests of its inputs, of initial weights and of the
product itself, versions of packages, machine and time. While the workflow is planned, each product
is held against its stamp, and what it was made from against theirs. What was made by other options
or code, from other, more or fewer files, by a stage that was interrupted, or was changed since, is
made anew, with a line that says why: whatever the clock says, whether `.snakemake` is there, and
whoever made it. Without `.snakemake` an index that is made again reruns all that follows from it,
also where it comes out equal. Products are read again only where size or time are others. Results
can be moved and copied with their hidden files; `brnf provenance <result>` tells what made one.

| product | what happens |
|---|---|
| without a stamp, as version 0.1 left it | refused in one line; `--config unstamped=adopt` takes \
all such for what the configuration would make, `unstamped=remake` makes them anew |
| made with other versions of torch, timm, FrEIA, numpy, OpenCV, numba | told in one line; \
`--config other_versions=remake` makes it anew |
| deleted, its stamp left | made anew; pixel stores only when something reads them |
| the history of a training, damaged or deleted | told in one line that says what to do: hours of \
training are not repeated for a curve |

**Data.** The index stage writes down the hash of every file of the data set, in
`results/<name>/index.files.csv`. At each call files whose size or time changed are hashed again;
where contents differ, the index is made again, and only the lists that changed rerun something. An
image's row is in the list of its split, for what is trained or measured on it, and in that of its
shard; masks are in lists of their own, which only evaluation and figures read; the index decodes
every mask to check it. So

| change of the data | what runs again |
|---|---|
| a training image is added, removed or changed | everything that is trained on the split, and \
what follows |
| an evaluation image is added, removed or changed | its shard, the evaluations of its split, \
tables, figures, report |
| a mask is added, removed or changed | the evaluations of its split, tables, figures, report |
| outlines of COCO change | as a mask; where the labels of an image change by it, as the image |
| a file is touched | nothing, or the index alone |
| the data set moves to another folder | the index, `write_config` and the report |

A dry run cannot look past the index: when that is to be made again, what follows is listed only by
the run itself.

**Weights.** A training has the tag of the weights that it starts from in its `params`, with the
hash by which they were published where that is known, the version of a package, or the SHA-256 of a
file, taken at each call where its size, its time of change or its inode is another one
(`.snakemake/brnf_weights.json` keeps the last). So

| change of the weights | what runs again |
|---|---|
| `backbone.weights` names another tag, or its file holds something else | `train_base`, \
`train_brnf`, `train_boundaries` and what follows |
| the same of `segmentation.weights` | `train_segmentation` and what follows |
| the same of `base.clip_es.weights`, where CLIP makes the base seeds | `compute_clip_maps` and \
what follows |
| a file of weights is touched, or written anew with the same content | nothing |
"""

MODELS = ("base", "brnf")
PRODUCTS = (
    "cam_classifier",
    "cam_prototype",
    "seeds",
    "seeds_bsdnf",
    "pseudo_labels",
    "segmentation",
)

FOLLOWING = """
render_scenes -> index_images
train_base base -> compute_cams base; train_brnf brnf; draw curves
train_brnf brnf -> compute_cams brnf; draw curves
compute_cams MODEL -> store_pixels MODEL; denoise_seeds MODEL; draw examples
compute_cams MODEL -> evaluate MODEL cam_classifier; evaluate MODEL cam_prototype; evaluate \
MODEL seeds
compute_cams base -> make_pseudo_labels base
store_pixels MODEL -> train_flow MODEL; denoise_seeds MODEL
train_flow MODEL -> denoise_seeds MODEL; draw curves
denoise_seeds MODEL -> evaluate MODEL seeds_bsdnf; draw examples
denoise_seeds base -> train_brnf brnf
denoise_seeds brnf -> make_pseudo_labels brnf
make_pseudo_labels MODEL -> train_segmentation MODEL; evaluate MODEL pseudo_labels
make_pseudo_labels brnf -> draw examples
train_base base -> write_cam_model base
train_brnf brnf -> write_cam_model brnf
train_segmentation MODEL -> predict_segmentation MODEL; draw curves; write_segmentation_model MODEL
predict_segmentation MODEL -> evaluate MODEL segmentation; draw predictions
evaluate MODEL PRODUCT -> tabulate; draw scores; draw bias
tabulate -> report
draw FIGURE -> report
write_config -> report
"""
"""Job -> what reads its results; pseudo-labels of the base are made of its raw maps."""

ORDER = [
    "train_base",
    "compute_cams",
    "store_pixels",
    "train_flow",
    "denoise_seeds",
    "train_brnf",
    "make_pseudo_labels",
    "train_segmentation",
    "predict_segmentation",
    "write_cam_model",
    "write_segmentation_model",
    "evaluate",
    "tabulate",
    "draw",
    "write_config",
    "report",
]
"""Rules as the table lists them."""

SHARDED = (
    "compute_cams",
    "store_pixels",
    "denoise_seeds",
    "make_pseudo_labels",
    "predict_segmentation",
)
"""Rules with a job for each of the two shards."""

COMPANION = (
    "train_base base",
    "compute_cams base",
    "write_cam_model base",
    "evaluate base cam_classifier",
    "tabulate",
    "draw scores",
    "draw bias",
    "draw curves",
)
"""Jobs of ``tiny-inseparable`` beside its configuration; the report is shared."""

BOTH_TRAININGS = "train_base base; train_brnf brnf"
FLOWS = "train_flow MODEL"
EFFECTS: dict[str, str | None] = {
    "device devices workers threads progress checkpoint_seconds deterministic tensorboard "
    "keep_features unstamped other_versions": None,
    "protocol": "evaluate MODEL PRODUCT",
    "precision": f"{BOTH_TRAININGS}; compute_cams MODEL; store_pixels MODEL; "
    "train_segmentation MODEL; predict_segmentation MODEL; write_cam_model MODEL; "
    "write_segmentation_model MODEL",
    "backbone.* cam.side_widths": BOTH_TRAININGS,
    "cam.background_over cam.background_weight cam.seed_rule": f"{BOTH_TRAININGS}; "
    "compute_cams MODEL; write_cam_model MODEL",
    "cam.detach_sides": "",
    "cam.image_long_side": "compute_cams MODEL; store_pixels MODEL; write_cam_model MODEL",
    "cam.scales cam.map_stride": "compute_cams MODEL; write_cam_model MODEL",
    "base.epochs brnf.epochs": "",
    "flow.ridge flow.components": "",
    "segmentation.head_width segmentation.norm_momentum": "",
    "base.sfc.* base.clip_es.* base.import.* random_walk.*": "",
    "base.seed_map": "store_pixels base; denoise_seeds base; make_pseudo_labels base; "
    "write_cam_model base; evaluate base seeds; draw examples",
    "base.*": "train_base base",
    "flow.density flow.steps flow.held_out flow.balanced": FLOWS,
    "flow.*": f"{FLOWS}; train_brnf brnf",
    "bsdnf.base.*": "denoise_seeds base",
    "bsdnf.final.*": "denoise_seeds brnf",
    "brnf.*": "train_brnf brnf",
    "pseudo_labels.seed_map": "store_pixels brnf; denoise_seeds brnf; evaluate brnf seeds; "
    "write_cam_model brnf; draw examples",
    "pseudo_labels.bsdnf": "make_pseudo_labels brnf",
    "pseudo_labels.*": "make_pseudo_labels MODEL; write_cam_model MODEL",
    "segmentation.test.*": "predict_segmentation MODEL; write_segmentation_model MODEL",
    "segmentation.*": "train_segmentation MODEL",
    "evaluate.recall": "evaluate MODEL PRODUCT",
    "figures.images": "draw examples",
    "figures.*": "draw examples; draw predictions",
}
"""Patterns of keys, the first that fits counts -> jobs that read them, beside the record
``config.yaml``; None: not even that.

Empty where another key makes one meaningless: epochs beside steps, detached sides of a frozen
backbone, settings of the Gaussian baselines beside the flow, of the 256-channel head beside the sum
of convolutions, of other bases beside SIPE, of the random walk beside the CRF.
"""


def jobs_of(text: str) -> list[str]:
    """Fill ``MODEL``, ``PRODUCT`` and ``FIGURE`` into jobs that are separated by semicolons."""
    found = [part.strip() for part in text.split(";") if part.strip()]
    for word, values in (
        ("MODEL", MODELS),
        ("PRODUCT", PRODUCTS),
        ("FIGURE", ("examples", "scores", "bias", "curves")),
    ):
        found = [
            job.replace(word, value)
            for job in found
            for value in (values if word in job else ("",))
        ]
    return found


def edges() -> set[tuple[str, str]]:
    """Return pairs of a job and one that follows it."""
    found = set()
    for line in FOLLOWING.strip().splitlines():
        for model in MODELS if "MODEL" in line else ("",):
            job, followers = line.replace("MODEL", model).split(" -> ")
            found |= {(before, after) for before in jobs_of(job) for after in jobs_of(followers)}
    return found


ALL_JOBS = sorted({job for pair in edges() for job in pair})
"""Every kind of job of the tiny run."""


def closure(direct: Iterable[str], known: set[str] | None = None) -> set[str]:
    """Return jobs and all that follow them, within the known ones."""
    pairs = edges()
    found: set[str] = set()
    waiting = {job for job in direct if known is None or job in known}
    while waiting:
        found |= waiting
        waiting = {
            after
            for before, after in pairs
            if before in waiting and (known is None or after in known)
        } - found
    return found


def direct(key: str) -> list[str] | None:
    """Return the jobs that read a key; None for a key that is not even recorded."""
    for patterns, text in EFFECTS.items():
        if any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns.split()):
            return None if text is None else [*jobs_of(text), "write_config"]
    raise LookupError(f"{key}: its effect is not written down")


def expected(jobs: Iterable[str] | None) -> Counter[str]:
    """Return how many jobs of each kind rerun in the tiny experiment and its companion when some
    jobs do.
    """
    if jobs is None:
        return Counter()
    jobs = list(jobs)
    counts = Counter({job: 2 if job.split()[0] in SHARDED else 1 for job in closure(jobs)})
    for job in closure(jobs, {*COMPANION, "write_config"}):
        counts[job] += 2 if job.split()[0] in SHARDED else 1
    return counts


def planned(output: str) -> Counter[str]:
    """Read the jobs that a dry run prints."""
    found: Counter[str] = Counter()
    rule, wildcards = "", {}

    def add() -> None:
        if rule and rule != "all":
            found[
                " ".join(
                    [
                        rule,
                        *(
                            wildcards[key]
                            for key in ("model", "product", "figure")
                            if key in wildcards
                        ),
                    ]
                )
            ] += 1

    for line in output.splitlines():
        words = line.split()
        if (
            len(words) == 2
            and words[0] in ("rule", "checkpoint", "localrule", "localcheckpoint")
            and words[1].endswith(":")
        ):
            add()
            rule, wildcards = words[1][:-1], {}
        elif words[:1] == ["wildcards:"]:
            wildcards = dict(part.rstrip(",").split("=", 1) for part in words[1:])
        elif words[:2] == ["Job", "stats:"]:
            add()
            rule = ""
    add()
    return found


BY_HAND = {
    "name": "another experiment, in a folder of its own",
    "random_seeds": "adds the jobs of the new seeds, and draws and tabulates again",
    "models": "adds the jobs of the new models, and draws and tabulates again",
    "products": "adds the jobs that new products need, and draws and tabulates again",
    "model_products": "as products",
    "variants": "what belongs to the variant: its network and what follows",
    "companions": "adds the jobs of the new experiments; report",
    "brnf.bsdnf": "the network, and pseudo-labels of the other maps",
    "base.method": "the maps of the base, for sfc its network too, and what follows",
    "pseudo_labels.refine": "the pseudo-labels, by other jobs, and what follows",
    "evaluate.val_products": "adds the jobs that they need on unseen images, "
    "and draws and tabulates again",
    "dataset.kind": "everything",
    "dataset.root": "the index; what follows only where contents differ",
    "dataset.table": "the index; what follows only where rows or contents differ",
    "dataset.classes": "everything",
    "dataset.train": "everything",
    "dataset.eval_split": "adds the jobs that the split needs, and draws and tabulates again",
    "dataset.val": "adds the jobs that the split needs, and draws and tabulates again",
    "dataset.limit": "the index, and what follows where images come or go",
    "dataset.verify": "the index, and nothing after it",
    "dataset.skip_bad": "the index; what follows only where an image comes or goes",
    "dataset.negatives": "the index; what follows only where an image comes or goes",
    "dataset.val_share": "the index; where it makes the split, everything",
    "dataset.val_seed": "the index; where it makes the split, everything",
    "dataset.mask_contradictions": "the index, and nothing after it",
    "dataset.overlap": "COCO's masks and what is measured on them; "
    "the index where its labels are read off them",
    "dataset.crowds": "COCO's masks and what is measured on them; the index, "
    "and what follows where labels differ",
    "dataset.labels_from": "COCO's index; what follows only where labels differ",
    "dataset.test": "the index; adds the split that `test_predictions` asks for",
    "download.*": "nothing: only the targets that fetch data read it",
    "scenes.val*": "the scenes and the index; what is computed and measured on unseen images",
    "scenes.*": "everything",
    "shards": "the index and all that is cut into shards, "
    "which is everything but the training of the base",
}
"""Keys that change which jobs there are, or that act through the index, whose lists decide what
follows.
"""


def by_hand(key: str) -> bool:
    """Return whether the effect of a key is told in words."""
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in BY_HAND)


CHOSEN: dict[str, Any] = {
    "protocol": "bench",
    "device": "cpu",
    "devices": 2,
    "backbone.name": "mobilenetv3_small_050",
    "backbone.weights": "none",
    "cam.side_widths": [16, 16, 32, 48],
    "cam.background_weight": 0.4,
    "cam.image_long_side": 96,
    "cam.scales": [1.0, 1.5],
    "base.resize_low": 95,
    "base.clip_es.words": "coco",
    "base.clip_es.prompt": "a {name}.",
    "base.clip_es.model": "ViT-B-32-quickgelu",
    "base.clip_es.weights": "laion2b",
    "base.import.folder": "elsewhere",
    "random_walk.steps": 3,
    "brnf.resize_low": 95,
    "brnf.flow": {"blocks": 3},
    "flow.ridge": 0.01,
    "flow.temperature": 2.0,
    "segmentation.epochs": 1,
    "segmentation.backbone": "mobilenetv3_small_050",
    "segmentation.weights": "none",
    "segmentation.rates": [2, 6],
    "segmentation.scales": [1.0],
    "segmentation.loss_scales": [0.5],
    "segmentation.test.scales": [1.0, 1.25],
    "segmentation.test.long_side": 96,
    "figures.images": ["train_00001"],
}
"""Other values of keys for which :func:`changed` knows none."""


def changed(key: str, value: Any, part: dict[str, Any]) -> Any:
    """Return another value that a key of the schema may have.

    Arguments:
        key: with dots between its parts.
        value: that it has.
        part: its part of the schema.
    """
    if key in CHOSEN:
        return CHOSEN[key]
    if "enum" in part:
        return next(other for other in part["enum"] if other != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1 if value + 1 <= part.get("maximum", value + 1) else value - 1
    if isinstance(value, float):
        return value * 0.75 if value else 0.5
    raise LookupError(f"{key}: choose a value by hand")


def nested(key: str, value: Any) -> dict[str, Any]:
    """Return a configuration with one key; another network cannot have the first's weights."""
    for part in reversed(key.split(".")):
        value = {part: value}
    for weights, network in WEIGHTS_OF.items():
        if key == network:
            value[weights.split(".")[0]]["weights"] = "none"
    return dict(value)


def page() -> str:
    """Return the page of the documentation."""
    lines = [
        INTRODUCTION,
        "| key | read by | what runs again in `config/tiny.yaml` |",
        "|---|---|---|",
    ]
    for patterns in EFFECTS:
        key = patterns.split()[0].replace("*", "x")
        read = direct(key)
        counts: Counter[str] = Counter()
        for job, count in expected(read).items():
            counts[job.split()[0]] += count
        words = ", ".join(
            f"{rule} {count}"
            for rule, count in sorted(counts.items(), key=lambda item: ORDER.index(item[0]))
        )
        names = " ".join(f"`{pattern}`" for pattern in patterns.split())
        lines.append(f"| {names} | {_readers(read)} | {words or 'nothing'} |")
    lines += [
        "",
        "These keys change which jobs there are, or act through the index:",
        "",
        "| key | what runs again |",
        "|---|---|",
    ]
    lines += [f"| `{pattern}` | {text} |" for pattern, text in BY_HAND.items()]
    return "\n".join(lines) + "\n"


def _readers(jobs: list[str] | None) -> str:
    """Return the rules of jobs with their models, where these are not both."""
    models: dict[str, set[str]] = {}
    for job in jobs or ():
        rule, *rest = job.split()
        if rule != "write_config":
            models.setdefault(rule, set()).update(rest[:1] if rest[:1] != ["examples"] else ())
    return ", ".join(
        f"`{rule}`{f' ({min(found)})' if len(found) == 1 else ''}" for rule, found in models.items()
    )


if __name__ == "__main__":
    print(page(), end="")
