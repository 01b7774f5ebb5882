"""All keys of an experiment."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from msgspec import Meta

from brnf.config.sections.bounds import (
    Count,
    NotNegative,
    SomeDistinct,
    Whole,
)
from brnf.config.sections.cam import BackboneOptions, Base, Brnf, Cam
from brnf.config.sections.data import Dataset, Download, Scenes
from brnf.config.sections.evaluation import Evaluate, Figures
from brnf.config.sections.flow import Bsdnf, Flow
from brnf.config.sections.segmentation import PseudoLabels, RandomWalk, Segmentation

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Product = Literal[
    "cam_classifier", "cam_prototype", "seeds", "seeds_bsdnf", "pseudo_labels", "segmentation"
]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """How the work is done; none of these changes a result."""

    device: Annotated[str, Meta(pattern=r"^[a-z]+(:[0-9]+)?$")] = "auto"
    """auto (a GPU that no other job of this program has, else the CPU), cpu, cuda or cuda:1;
    changing it reruns nothing.
    """
    threads: Count = 1
    """CPU threads of a job, whatever --cores says; results are equal to the byte for equal
    counts; changing it reruns nothing.
    """
    workers: Whole = 2
    """Processes of a job that read and prepare images, or run the dense CRF (0 where Snakemake
    already runs a job a core); changing it reruns nothing.
    """
    progress: Literal["auto", "bar", "lines", "none"] = "auto"
    """How long work is shown; changing it reruns nothing."""
    checkpoint_seconds: NotNegative = 300
    """Seconds between the checkpoints of a training, the most work that is lost when it is
    killed; 0 writes one every step; changing it reruns nothing.
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
    seeds: SomeDistinct[Whole] = (0,)
    """The whole experiment runs once for each; the tables show the mean."""
    models: SomeDistinct[Name] = (
        "base",
        "brnf",
    )
    """base, brnf, and names of variants."""
    products: SomeDistinct[Product] = get_args(Product)
    """What is evaluated for each model; only what these need is computed."""
    model_products: dict[str, tuple[Product, ...]] = field(default_factory=dict)
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
    reruns nothing.
    """
    amp: bool = False
    """Compute networks in bfloat16, which is faster on GPUs and new CPUs and less exact."""
    companions: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Other experiments that run beside this one: name -> what differs; their tables stand in
    this one's report.
    """
    variants: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {"control": {"ccnf": False, "fscl": False, "bsdnf": False}}
    )
    """Other BRNF networks: name -> what differs from the section brnf."""
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
