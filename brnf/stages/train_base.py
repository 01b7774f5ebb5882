"""Training of the base CAM network, SIPE (`method.md` sections 2 and 3)."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from brnf.cam.network import CamOutput
from brnf.cam.objective import base_loss
from brnf.cam.training import Batch, CamTrainer, total_steps
from brnf.data.index import Index
from brnf.stages.cam_training import CamTrainingOptions, train_and_save
from brnf.stages.checkpoints import Checkpoint, training_stamp
from brnf.stages.common import Runtime, run_stage
from brnf.stages.training_data import TrainingSource
from brnf.store.files import locked


@dataclass(frozen=True)
class Inputs:
    """What the stage reads."""

    index: Path
    """Folder of the image index."""


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    network: Path
    """Trained CAM network."""
    history: Path
    """CSV with the loss of each step."""


@dataclass(frozen=True)
class Options(CamTrainingOptions):
    """The network, its training images and its optimiser (`method.md` section 2)."""


def run(inputs: Inputs, outputs: Outputs, options: Options, runtime: Runtime) -> None:
    """Train the base CAM network."""
    device = runtime.torch_device()
    index = Index.of_split(inputs.index, options.split)
    network = options.new_network(len(index.classes), device)
    rules = options.map_rules()
    _, steps = total_steps(len(index.images), options.batch_size, options.epochs, options.steps)

    def loss(output: CamOutput, batch: Batch, step: int) -> dict[str, Tensor]:
        return base_loss(output, batch.labels, batch.valid, rules)

    with (
        locked(outputs.network),
        TrainingSource(network, index, None, options.crop_options(), outputs.network.parent, device, runtime) as source,
    ):
        trainer = CamTrainer(network, loss, steps, options.optimiser_options())
        stamp = training_stamp("train_base", options, device, index.classes, index.images)
        checkpoint = Checkpoint(outputs.network, stamp, device, runtime.checkpoint_seconds)
        files = (outputs.network, outputs.history)
        train_and_save("train base", trainer, source, steps, checkpoint, options, index.classes, files, runtime)


if __name__ == "__main__":
    run_stage(run)
