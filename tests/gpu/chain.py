"""Every stage that computes on a GPU, on a few rendered scenes: how it is called."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from brnf.config.experiment import Experiment, merged, read_experiments
from brnf.engine.runtime import Runtime
from brnf.stages import (
    index_images,
    make_pseudo_labels,
    render_scenes,
)
from brnf.weights import PACKAGED
from tests.stage_options import options_of
from tests.tiny_clip import make_tiny_clip

__all__ = ["CALLS", "TRAININGS", "Call", "Chain"]

ROOT = Path(__file__).parents[2]
SLOW = {"learning_rate": 0.01, "head_learning_rate": 0.1}
"""Smaller steps than the default's, in which rounding does not grow."""
CHANGES: dict[str, Any] = {
    "companions": {},
    "shards": 1,
    "scenes": {"train": 12, "val": 4},
    "backbone": {"trainable_stages": 2},
    "cam": {"scales": [0.5, 1.0]},
    "base": {"steps": 4, **SLOW},
    "brnf": {"steps": 6, **SLOW},
    "segmentation": {"head": "aspp_concat", "head_width": 16, "frozen_batch_norm": False},
    "random_walk": {"crop": 96, "batch_size": 4, "steps": 3, "exponent": 4},
}
"""What differs from config/tiny.yaml: a backbone that learns, the head of VOC's segmentation."""
AS_COCO: dict[str, Any] = {
    "segmentation": {
        "head": "aspp_sum",
        "frozen_batch_norm": True,
        "accumulate": 2,
        "loss_scales": [0.5, 0.75],
        # Without the CRF, behind which all probabilities are close to 0 or 1.
        "test": {"scales": [0.5, 1.0], "merge": "max", "crf": {"iterations": 0}},
    }
}


def packaged_weights() -> str:
    """Return the weights of the package index where they are installed, else none."""
    return "efficientnet_lite0" if find_spec(PACKAGED["efficientnet_lite0"].package) else "none"


@dataclass(frozen=True)
class Call:
    """How a stage is called.

    Attributes:
        name: shown; the stage's unless it is called twice.
        stage: module in :mod:`brnf.stages`.
        inputs: from the chain to its inputs by name.
        outputs: names of its outputs and of their files.
        judged: names of outputs and the kinds of their comparison (see ``tests/gpu/compare.py``).
        options: of the stage, which the workflow's rule gives.
        model: whose options it takes.
        settings: which of the chain's experiments.
    """

    name: str
    stage: str
    inputs: Callable[["Chain"], Mapping[str, Any]]
    outputs: Mapping[str, str]
    judged: Mapping[str, str]
    options: Mapping[str, Any]
    model: str = "base"
    settings: str = "voc"


class Chain:
    """The files of a run on the CPU, from which each stage is run again on a device.

    Arguments:
        folder: to write to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        settings = yaml.safe_load((ROOT / "config" / "tiny.yaml").read_text())
        weights = {"weights": packaged_weights()}
        settings = merged(settings, {"backbone": weights, "segmentation": weights})
        voc = merged(settings, CHANGES)
        self._experiments = {
            name: read_experiments(one)["tiny"]
            for name, one in (("voc", voc), ("coco", merged(voc, AS_COCO)))
        }

    def experiment(self, name: str = "voc") -> Experiment:
        """Return the settings that follow VOC's or COCO's."""
        return self._experiments[name]

    def file(self, name: str) -> Path:
        """Return a file of the run on the CPU."""
        return self.folder / "cpu" / name

    @property
    def index(self) -> Path:
        """Return the folder of the image index."""
        return self.file("index")

    def shard(self, split: str = "train") -> Path:
        """Return the only shard of a split."""
        return self.index / "shards" / split / "0.csv"

    @cached_property
    def clip(self) -> tuple[str, Path]:
        """Return name and weights of a small CLIP."""
        return make_tiny_clip(self.folder)

    def prepare(self) -> None:
        """Render scenes and list them."""
        quiet = Runtime(device="cpu", workers=0, progress="none")
        self.file("").mkdir(parents=True, exist_ok=True)
        scenes = self.file("scenes")
        render_scenes.run(
            render_scenes.Outputs(scenes),
            options_of("render_scenes", self.experiment(), "base"),
            quiet,
        )
        options = options_of("index_images", self.experiment(), "base", splits=["train", "val"])
        index_images.run(
            index_images.Inputs(root=scenes), index_images.Outputs(self.index), options, quiet
        )

    def label(self) -> None:
        """Make pseudo-labels from the maps, which no GPU has a part in."""
        options = options_of("make_pseudo_labels", self.experiment(), "base", product="classifier")
        make_pseudo_labels.run(
            make_pseudo_labels.Inputs(self.index, self.shard(), self.file("compute_cams.h5")),
            make_pseudo_labels.Outputs(self.file("labels"), self.file("labels.h5")),
            options,
            Runtime(device="cpu", workers=0, progress="none"),
        )

    def run(self, call: Call, folder: Path, runtime: Runtime, precision: str = "fp32") -> None:
        """Run a stage from the files of the CPU.

        Arguments:
            call: how.
            folder: of its outputs.
            runtime: where, and how.
            precision: of its network, where it has one.
        """
        module = import_module(f"brnf.stages.{call.stage}")
        folder.mkdir(parents=True, exist_ok=True)
        outputs = {name: folder / file for name, file in call.outputs.items()}
        module.run(
            module.Inputs(**call.inputs(self)),
            module.Outputs(**outputs),
            self.options(call, precision),
            runtime,
        )

    def options(self, call: Call, precision: str = "fp32") -> Any:
        """Return the options of a call."""
        experiment = self.experiment(call.settings)
        options = options_of(call.stage, experiment, call.model, seed=0, **call.options)
        if call.stage == "compute_clip_maps":
            model, weights = self.clip
            chosen = replace(options.clip_es, model=model, weights=str(weights))
            options = replace(options, clip_es=chosen)
        return replace(options, precision=precision) if hasattr(options, "precision") else options


def _network(name: str) -> dict[str, str]:
    return {"network": f"{name}.pt", "history": f"{name}.csv"}


LOSS = {"history": "loss"}


def _segmentation(name: str, settings: str) -> tuple[Call, Call]:
    """Return training and prediction with the settings of a data set."""
    trained, predicted = f"train_segmentation ({name})", f"predict_segmentation ({name})"
    outputs = {"masks": f"{predicted}", "probabilities": f"{predicted}.h5"}
    return (
        Call(
            trained,
            "train_segmentation",
            lambda chain: {"index": chain.index, "masks": (chain.file("labels"),)},
            _network(trained),
            LOSS,
            {"split": "train"},
            settings=settings,
        ),
        Call(
            predicted,
            "predict_segmentation",
            lambda chain: {
                "index": chain.index,
                "images": chain.shard("val"),
                "network": chain.file(f"{trained}.pt"),
            },
            {**outputs, "confidences": f"{predicted}.csv"},
            {"masks": "masks", "probabilities": "probability"},
            {},
            settings=settings,
        ),
    )


def _images(chain: Chain, **more: Any) -> dict[str, Any]:
    return {"index": chain.index, "images": chain.shard(), **more}


CALLS = (
    Call(
        "train_base",
        "train_base",
        lambda chain: {"index": chain.index},
        _network("train_base"),
        LOSS,
        {"split": "train", "method": "sipe"},
    ),
    Call(
        "train_base (SFC)",
        "train_base",
        lambda chain: {"index": chain.index},
        _network("train_base (SFC)"),
        LOSS,
        {"split": "train", "method": "sfc"},
    ),
    Call(
        "compute_cams",
        "compute_cams",
        lambda chain: _images(chain, network=chain.file("train_base.pt")),
        {"maps": "compute_cams.h5"},
        {"maps": "classifier prototype"},
        {},
    ),
    Call(
        "compute_cams (SFC)",
        "compute_cams",
        lambda chain: _images(chain, network=chain.file("train_base (SFC).pt")),
        {"maps": "compute_cams (SFC).h5"},
        {"maps": "classifier prototype"},
        {},
    ),
    Call(
        "compute_clip_maps",
        "compute_clip_maps",
        lambda chain: _images(chain),
        {"maps": "compute_clip_maps.h5"},
        {"maps": "classifier prototype"},
        {},
    ),
    Call(
        "store_pixels",
        "store_pixels",
        lambda chain: _images(
            chain, network=chain.file("train_base.pt"), maps=chain.file("compute_cams.h5")
        ),
        {"pixels": "store_pixels.h5"},
        {"pixels": "rows"},
        {"product": "classifier"},
    ),
    Call(
        "train_flow",
        "train_flow",
        lambda chain: {"pixels": (chain.file("store_pixels.h5"),)},
        {"flow": "train_flow.pt", "history": "train_flow.csv"},
        {"history": "loss"},
        {},
    ),
    Call(
        "denoise_seeds",
        "denoise_seeds",
        lambda chain: {
            "pixels": chain.file("store_pixels.h5"),
            "maps": chain.file("compute_cams.h5"),
            "flow": chain.file("train_flow.pt"),
        },
        {"denoised": "denoise_seeds.h5"},
        {"denoised": "seeds"},
        {"product": "classifier"},
    ),
    Call(
        "sweep_denoising",
        "sweep_denoising",
        lambda chain: {
            "index": chain.index,
            "pixels": (chain.file("store_pixels.h5"),),
            "maps": (chain.file("compute_cams.h5"),),
            "flow": chain.file("train_flow.pt"),
            "history": chain.file("train_flow.csv"),
        },
        {"sweep": "sweep.json"},
        {"sweep": "figures"},
        {"split": "train", "product": "classifier"},
    ),
    Call(
        "train_brnf",
        "train_brnf",
        lambda chain: {
            "index": chain.index,
            "base": chain.file("train_base.pt"),
            "seeds": (chain.file("denoise_seeds.h5"),),
        },
        _network("train_brnf"),
        LOSS,
        {"split": "train", "seed_product": "seeds"},
        model="brnf",
    ),
    *_segmentation("VOC", "voc"),
    *_segmentation("COCO", "coco"),
    Call(
        "train_boundaries",
        "train_boundaries",
        lambda chain: {"index": chain.index, "masks": (chain.file("labels"),)},
        _network("train_boundaries"),
        LOSS,
        {"split": "train"},
    ),
    Call(
        "walk_pseudo_labels",
        "walk_pseudo_labels",
        lambda chain: _images(
            chain,
            maps=chain.file("compute_cams.h5"),
            network=chain.file("train_boundaries.pt"),
        ),
        {"masks": "walked", "probabilities": "walked.h5"},
        {"masks": "masks"},
        {"product": "classifier"},
    ),
)
"""In the order of the workflow."""
TRAININGS = tuple(call for call in CALLS if call.stage.startswith("train_"))
