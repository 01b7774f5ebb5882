"""The density of pixel features, and BSDNF."""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from brnf.config.sections.bounds import (
    BelowOne,
    Count,
    Momentum,
    NotNegative,
    Positive,
    Probability,
    Share,
)

Coupling = Literal["one_sided", "glow"]
Decay = Literal["exponential", "cosine"]
NoiseUnit = Literal["feature", "std"]
"""In what a noise is measured: units of the raw features, or their standard deviations."""
Population = Literal["predicted", "above_low", "above_high"]
Upsample = Literal["bilinear", "nearest"]
Rule = Literal["quantile", "likelihood", "posterior", "ratio"]


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The noise that a density is fitted under."""

    noise: NotNegative = 0.05
    """Standard deviation of the noise added to the features in training (DDFP: 0.05)."""
    noise_unit: NoiseUnit = "feature"
    """Unit of the noise: the features as they are (DDFP), or their standard deviation."""


@dataclass(frozen=True, kw_only=True)
class FlowArchitecture(Noise):
    """A flow, and the noise that it is trained under."""

    coupling: Coupling = "one_sided"
    """Which halves a block changes: one_sided (the paper) or glow (DDFP)."""
    blocks: Count = 8
    """Number of coupling blocks."""
    hidden: Count = 256
    """Hidden width of a subnet."""
    clamp: Positive = 2.0
    """Bound of the log-scale."""
    learn_means: bool = True
    """Whether the latent means learn."""


@dataclass(frozen=True, kw_only=True)
class Adam:
    """The optimiser of a flow."""

    learning_rate: Positive = 0.001
    """Of Adam, at the first step."""
    decay: Decay = "exponential"
    """How the learning rate falls: by the same factor each step (DDFP), or along a half cosine."""
    final_rate: Annotated[float, Meta(gt=0, le=1)] = 0.01
    """Share of the learning rate that is left at the last step (DDFP: 0.01); 1 keeps it."""
    beta1: Momentum = 0.5
    """Of Adam."""
    beta2: Momentum = 0.9
    """Of Adam."""
    clip_norm: Positive = 50.0
    """Largest norm of the gradient."""


@dataclass(frozen=True, kw_only=True)
class FlowTraining(Adam):
    """The training of a flow on a pixel store."""

    steps: Count = 2000
    """Of training."""
    balanced: bool = False
    """Draw labelled rows so that every class comes equally often."""


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """The temperature of the posterior."""

    temperature: Positive | Literal["auto"] = "auto"
    """Of the posterior: a number, or auto to reach the target."""
    target: Probability = 0.9
    """Mean largest posterior that auto reaches on held-out labelled rows."""


@dataclass(frozen=True, kw_only=True)
class Tau:
    """Section flow.tau: the scores between which pixels are unlabelled."""

    low: Share = 0.3
    """Scores up to here are background (the paper)."""
    high: Share = 0.7
    """Scores from here on are their class (the paper)."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a fit, and their labels."""

    batch_rows: Count = 20480
    """Pixels of a step."""
    std_floor: BelowOne = 0.01
    """Least standard deviation of a dimension in the standardisation, a share of the root mean
    square over all.
    """
    tau: Tau = Tau()
    """Scores below and above which pixels have a label."""


@dataclass(frozen=True, kw_only=True)
class Baseline(Noise):
    """The Gaussian baselines of a flow."""

    ridge: NotNegative | None = None
    """Added to the variances of the Gaussian baselines, in the square of the noise's unit; null is
    the noise's variance.
    """
    components: Count = 8
    """Gaussians per class of the baseline gmm."""


@dataclass(frozen=True, kw_only=True)
class FlowInTraining(FlowArchitecture, Adam, Temperature, Rows):
    """What a flow that learns along with a network takes of section flow."""


@dataclass(frozen=True, kw_only=True)
class Flow(FlowInTraining, FlowTraining, Baseline):
    """Section flow."""

    density: Literal["flow", "gaussian_diagonal", "gaussian_full", "gmm"] = "flow"
    """The flow, or per class a Gaussian or a mixture of them."""
    held_out: BelowOne = 0.05
    """Share of the images whose rows choose the state and the temperature."""


@dataclass(frozen=True, kw_only=True)
class ScalingFlow(FlowArchitecture, Rows, Baseline):
    """What the study of fits to ever more rows takes of section flow."""


@dataclass(frozen=True, kw_only=True)
class DenoisedMaps:
    """How noise is suppressed in maps."""

    factor: Share = 0.0
    """That foreground scores of noise are multiplied by."""
    population: Population = "predicted"
    """Pixels over which quantiles are taken."""
    upsample: Upsample = "bilinear"
    """How the decision on the grid reaches the map."""


@dataclass(frozen=True, kw_only=True)
class Denoising(DenoisedMaps):
    """Sections bsdnf.base and bsdnf.final: one denoising."""

    rule: Rule = "quantile"
    """Which foreground pixels are noise."""
    xi: Share = 0.9
    """The higher the fewer pixels are noise."""


@dataclass(frozen=True, kw_only=True)
class Bsdnf:
    """Section bsdnf."""

    base: Denoising = Denoising(rule="posterior")
    """Denoising of the base seeds."""
    final: Denoising = Denoising()
    """Denoising before the pseudo-labels."""
