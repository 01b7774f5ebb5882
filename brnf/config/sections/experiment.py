"""All keys of an experiment."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from msgspec import Meta

from brnf.config.sections.bounds import (
    Count,
    Name,
    NotNegative,
    Precision,
    SomeDistinct,
    Whole,
)
from brnf.config.sections.cam import BackboneOptions, Base, Brnf, Cam
from brnf.config.sections.data import Dataset, Download, Scenes
from brnf.config.sections.evaluation import Evaluate, Figures
from brnf.config.sections.flow import Bsdnf, Flow
from brnf.config.sections.segmentation import PseudoLabels, RandomWalk, Segmentation

Product = Literal[
    "cam_classifier", "cam_prototype", "seeds", "seeds_bsdnf", "pseudo_labels", "segmentation"
]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """How the work is done; none of these changes a result."""

    device: Annotated[str, Meta(pattern=r"^[a-z]+(:[0-9]+)?$(?!\n)")] = "auto"
    """auto (a GPU that no other job of this program has, else the CPU), cpu, cuda or cuda:1;
    changing it reruns nothing.
    """
    threads: Count = 1
    """CPU threads of a job, whatever --cores says; results are equal to the byte for equal
    counts; changing it reruns nothing.
    """
    workers: Whole = 2
    """Processes of a job that read, prepare and compress images, or run the dense CRF (0 where
    Snakemake already runs a job a core); changing it reruns nothing.
    """
    progress: Literal["auto", "bar", "lines", "none"] = "auto"
    """How long work is shown; changing it reruns nothing."""
    checkpoint_seconds: NotNegative = 300
    """Seconds between the checkpoints of a training, the most work that is lost when it is
    killed; 0 writes one every step; changing it reruns nothing.
    """
    deterministic: bool = False
    """Equal bytes for equal seeds on a GPU, too: slower, and an operation that has no such way ends
    the job (docs/gpu.md); on a CPU they are always equal; changing it reruns nothing.
    """
    tensorboard: bool = False
    """Write curves and pictures of each training for TensorBoard, into the folder tensorboard
    beside its network (pip install tensorboard); changing it reruns nothing.
    """


@dataclass(frozen=True, kw_only=True)
class Experiment(Machine):
    """Configuration of one experiment."""

    name: Name
    """Name of the experiment; its results stand in results/<name>."""
    protocol: Literal["auto", "paper", "bench", "scenes"] = "auto"
    """Printed beside every number; rows of different protocols are never ranked together. auto
    is scenes for rendered scenes, paper where no key that a number depends on differs from the
    paper's setting, and bench otherwise; paper is refused where it is not true.
    """
    random_seeds: SomeDistinct[Whole] = (0,)
    """The whole experiment runs once for each; the tables show the mean."""
    models: SomeDistinct[Name] = (
        "base",
        "brnf",
    )
    """base, brnf, names of variants, and supervised: the segmenter trained on the true masks of the
    training split, the upper bound.
    """
    products: SomeDistinct[Product] = get_args(Product)
    """What is evaluated for each model; only what these need is computed."""
    model_products: dict[Name, tuple[Product, ...]] = field(default_factory=dict)
    """model -> the products to evaluate for it, when not all of them."""
    shards: Annotated[int, Meta(ge=1, le=10000)] = 8
    """Jobs into which work over images is cut."""
    keep_features: bool = True
    """Keep the pixel stores; without, each is removed once its flow has denoised the maps, and
    a new threshold makes it again; changing it reruns nothing.
    """
    devices: Count = 1
    """Processes of one training, each with a GPU of its own (or on the CPU), as torchrun starts
    them; they take the steps of one process up to rounding (docs/cluster.md), so changing it
    reruns nothing. A batch with fewer images leaves some of them idle.
    """
    unstamped: Literal["refuse", "adopt", "remake"] = "refuse"
    """What happens to results without a stamp, which an earlier version left or somebody copied
    without their hidden files: refuse ends the run in one line, adopt takes them for what this
    configuration would make, remake makes them anew; changing it reruns nothing.
    """
    other_versions: Literal["keep", "remake"] = "keep"
    """What happens to results that other versions of torch, timm and their like have made: keep
    says so in one line, remake makes them anew; changing it reruns nothing else.
    """
    precision: Precision = "fp32"
    """In which networks compute; losses, flows and maps are always float32. fp32 is float32 without
    TF32; tf32 rounds what convolutions multiply to 10 binary digits on GPUs that have it, and is
    fp32 on CPUs; bf16 is faster on GPUs and new CPUs, with 7 digits; fp16 has 10, and a training
    scales its loss (docs/gpu.md).
    """
    companions: dict[Name, dict[str, Any]] = field(default_factory=dict)
    """Other experiments that run beside this one: name -> what differs; their tables stand in
    this one's report.
    """
    variants: dict[Name, dict[str, Any]] = field(
        default_factory=lambda: {"control": {"ccnf": False, "fscl": False, "bsdnf": False}}
    )
    """Other BRNF networks: name -> what differs from the section brnf; control is always among
    them.
    """
    dataset: Dataset = Dataset()
    download: Download = Download()
    scenes: Scenes = Scenes()
    backbone: BackboneOptions = BackboneOptions()
    cam: Cam = Cam()
    base: Base = Base()
    flow: Flow = Flow()
    bsdnf: Bsdnf = Bsdnf()
    brnf: Brnf = Brnf()
    pseudo_labels: PseudoLabels = PseudoLabels()
    random_walk: RandomWalk = RandomWalk()
    segmentation: Segmentation = Segmentation()
    evaluate: Evaluate = Evaluate()
    figures: Figures = Figures()
