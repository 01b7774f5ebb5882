"""Training of the BRNF network: guidance, CCNF and FSCL with an online flow (`docs/method.md`
section 7).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from brnf.cam.batch import Batch
from brnf.cam.contrast import ContrastBank
from brnf.cam.crops import TrainingSource
from brnf.cam.network import CamOutput, load_cam_network
from brnf.cam.objective import BrnfObjective, BrnfOptions
from brnf.cam.options import CamTrainingOptions
from brnf.cam.training import CamTrainer, train_and_save
from brnf.data.index import Index
from brnf.engine.checkpoint import Checkpoint, only_training, training_device, training_stamp
from brnf.engine.runtime import Runtime
from brnf.engine.schedule import total_steps
from brnf.flow.density import DEVIATION_FLOOR, FlowOptions
from brnf.flow.online import OnlineFlow, OnlineOptions
from brnf.stages._cli import run_stage
from brnf.store.maps import MapReader


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    index: Path
    """Folder of the image index."""
    base: Path
    """Trained base network; its weights are used with `--init base`."""
    seeds: tuple[Path, ...]
    """Base seed maps of the training split, refined by BSDNF or raw."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    network: Path
    """Trained BRNF network."""
    history: Path
    """CSV with the terms of the loss of each step."""


@dataclass(frozen=True)
class Options(CamTrainingOptions, BrnfOptions):
    """The network, its loss, its online flow and its training (`docs/method.md` section 7)."""

    seed_product: Literal["seeds", "classifier", "prototype"] = "seeds"
    """Which maps of the seed files are the base seeds."""
    init: Literal["imagenet", "base"] = "imagenet"
    """Start from the backbone's weights and a fitted classifier, or from the trained base."""
    online_warmup: int = 100
    """Steps the online flow takes before it is used, at least; it is never used in the first epoch
    [D].
    """
    online_refit_interval: int = 20
    """Steps between fits of the temperature auto [D]."""
    online_refit_rows: int = 4096
    """Labelled rows of recent steps that the temperature auto is fitted on [D]."""
    online_window: int = 1_000_000
    """Rows after which the online flow's standardisation begins to forget [D]."""
    bank_region: int = 500
    """Region features that the bank keeps of each class [D]."""
    bank_sampled: int = 100
    """Flow samples that the bank keeps of each class [D]."""
    flow_coupling: Literal["one_sided", "glow"] = "one_sided"
    """Coupling of the online flow."""
    flow_blocks: int = 8
    """Coupling blocks of the online flow."""
    flow_hidden: int = 256
    """Hidden width of its subnets."""
    flow_clamp: float = 2.0
    """Clamp of its log scales."""
    flow_noise: float = 0.05
    """Standard deviation of the noise added to the features."""
    flow_noise_unit: Literal["feature", "deviation"] = "feature"
    """Unit of the noise: of the features as they are (DDFP), or their standard deviation."""
    flow_deviation_floor: float = DEVIATION_FLOOR
    """Least deviation in the standardisation, as a share of the root mean square over all."""
    flow_learn_means: bool = True
    """Whether the latent means learn."""
    flow_batch_rows: int = 20480
    """Most pixels of a step of the online flow."""
    flow_learning_rate: float = 1e-3
    """Of the online flow's Adam, at the first step."""
    flow_decay: Literal["exponential", "cosine"] = "exponential"
    """How its learning rate falls: by the same factor each step (DDFP), or along a half cosine."""
    flow_final_rate: float = 0.01
    """Share of its learning rate that is left at the last step (DDFP: 0.01); 1 keeps it."""
    flow_beta1: float = 0.5
    """Of the online flow's Adam."""
    flow_beta2: float = 0.9
    """Of the online flow's Adam."""
    flow_clip_norm: float = 50.0
    """Largest norm of the flow's gradient."""
    flow_temperature: str = "auto"
    """Temperature of the posterior, or auto: fitted to the target as the flow moves."""
    flow_target: float = 0.9
    """Mean largest posterior that auto aims at [D]."""

    def fits_classifier(self) -> bool:
        """Tell whether the training begins with a fit of the classifier; the trained base brings
        its own.
        """
        return self.fit_classifier and self.init == "imagenet"

    def flow_options(self) -> FlowOptions:
        """Return the architecture of the online flow and its noise."""
        return FlowOptions(
            coupling=self.flow_coupling,
            blocks=self.flow_blocks,
            hidden=self.flow_hidden,
            clamp=self.flow_clamp,
            noise=self.flow_noise,
            noise_unit=self.flow_noise_unit,
            learn_means=self.flow_learn_means,
            seed=self.seed,
        )

    def online_options(self, steps: int) -> OnlineOptions:
        """Return how the online flow learns along with a training of so many steps."""
        return OnlineOptions(
            learning_rate=self.flow_learning_rate,
            decay=self.flow_decay,
            final_rate=self.flow_final_rate,
            updates=steps,
            beta1=self.flow_beta1,
            beta2=self.flow_beta2,
            clip_norm=self.flow_clip_norm,
            batch_rows=self.flow_batch_rows,
            temperature=self.flow_temperature,
            target=self.flow_target,
            refit_interval=self.online_refit_interval,
            refit_rows=self.online_refit_rows,
            window=self.online_window,
            deviation_floor=self.flow_deviation_floor,
            seed=self.seed,
        )


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Train the BRNF network."""
    device = training_device(runtime)
    index = Index.of_split(inputs.index, options.split)
    seeds = MapReader(inputs.seeds, options.seed_product)
    network = options.new_network(len(index.classes), device)
    if options.init == "base":
        network = load_cam_network(inputs.base, device, index.classes)
        network.affinity = None  # BRNF's maps are not propagated, whatever the base is
    per_epoch, steps = total_steps(
        len(index.images), options.batch_size, options.epochs, options.steps
    )
    objective = build_objective(options, network.dimension, len(index.classes) + 1, steps, device)

    def loss(output: CamOutput, batch: Batch, step: int) -> dict[str, Tensor]:
        assert batch.seeds is not None
        use_flow = (
            objective.flow is not None
            and step >= per_epoch
            and objective.flow.ready(options.online_warmup)
        )
        return objective(output, batch.labels, batch.valid, batch.seeds, use_flow)

    with (
        only_training(outputs.network),
        TrainingSource(
            network, index, seeds, options.crop_options(), outputs.network.parent, device, runtime
        ) as source,
    ):
        trainer = CamTrainer(network, loss, steps, options.optimiser_options(), objective)
        loaded = network.backbone.loaded
        stamp = training_stamp(
            "train_brnf",
            options,
            device,
            index.classes,
            index.images,
            loaded,
            inputs.base,
            *inputs.seeds,
        )
        checkpoint = Checkpoint(outputs.network, stamp, device, runtime.checkpoint_seconds)
        files = (outputs.network, outputs.history)
        train_and_save(
            "train BRNF",
            trainer,
            source,
            lambda done: source.batches(steps, done),
            checkpoint,
            options,
            index.classes,
            files,
            runtime,
        )


def build_objective(
    options: Options, dimension: int, classes: int, steps: int, device: torch.device
) -> BrnfObjective:
    """Return the loss with the online flow and the bank it needs.

    Arguments:
        options: of the stage.
        dimension: D of the pixel features.
        classes: K with the background.
        steps: of the training: the online flow's learning rate falls over them.
        device: where the flow learns.
    """
    flow = bank = None
    if options.ccnf or options.fscl:
        online = options.online_options(steps)
        flow = OnlineFlow(dimension, classes, options.flow_options(), online, device)
    if options.fscl:
        bank = ContrastBank(classes, dimension, options.bank_region, options.bank_sampled).to(
            device
        )
    return BrnfObjective(options, options.map_rules(), flow, bank)


if __name__ == "__main__":
    run_stage(run)
