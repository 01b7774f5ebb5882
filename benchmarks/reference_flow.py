"""The flow as the research code of the field writes it, from the equations of docs/method.md
section 5.

The structure is that of DDFP: FrEIA's graph of couplings and permutations over one whole batch; a
    mixture that repeats every
point for every class; a loop over the classes in the loss.
"""

import math

import torch
from FrEIA.framework import GraphINN, InputNode, Node, OutputNode
from FrEIA.modules import AffineCouplingOneSided, GLOWCouplingBlock, PermuteRandom
from torch import Tensor, nn

from brnf.flow.density import FlowDensity

__all__ = ["ReferenceFlow", "repeated_log_prob"]


class ReferenceFlow(nn.Module):
    """The same density as a flow of this project, with a copy of its parameters."""

    def __init__(self, flow: FlowDensity) -> None:
        super().__init__()
        options = flow.options
        kind = {"one_sided": AffineCouplingOneSided, "glow": GLOWCouplingBlock}[options.coupling]

        def subnet(inputs: int, outputs: int) -> nn.Module:
            return nn.Sequential(
                nn.Linear(inputs, options.hidden), nn.ReLU(), nn.Linear(options.hidden, outputs)
            )

        nodes = [InputNode(flow.dimension)]
        for block in range(options.blocks):
            nodes.append(
                Node(nodes[-1], kind, {"subnet_constructor": subnet, "clamp": options.clamp})
            )
            nodes.append(Node(nodes[-1], PermuteRandom, {"seed": block}))
        self.network = GraphINN([*nodes, OutputNode(nodes[-1])])
        for own, theirs in zip(flow.network.module_list, self.network.module_list, strict=True):
            theirs.load_state_dict(own.state_dict())
        self.means = nn.Parameter(flow.mixture.means.detach().clone())
        self.options, self.dimension, self.classes = options, flow.dimension, flow.classes
        self.mean, self.std = flow.mean.clone(), flow.std.clone()
        self.to(flow.mean.dtype)

    def fit_standardisation(self, mean: Tensor, std: Tensor) -> None:
        """Set the mean and the deviation [D] of the features."""
        self.mean, self.std = mean.to(self.mean), std.to(self.std)

    def in_std(self, noise: Tensor, unit: str) -> Tensor:
        """Return noise [N, D] of a unit as what is added to standardised features."""
        return noise / self.std if unit == "feature" else noise

    def latent(self, features: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return z [N, D] and the log-determinant [N] of a whole batch."""
        standardised = (features - self.mean) / self.std
        if noise is not None:
            standardised = standardised + noise
        z, log_determinant = self.network(standardised)
        return z, log_determinant - self.std.log().sum()

    def log_prob(self, features: Tensor) -> Tensor:
        """Return log p(v|k), [N, K] nats."""
        z, log_determinant = self.latent(features)
        return repeated_log_prob(z, self.means) + log_determinant.unsqueeze(1)

    @torch.no_grad()
    def sample(
        self, classes: Tensor, std: float, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw features [N, D] around the means of classes [N], with this standard deviation in the
        latent space.
        """
        z = self.means[classes] + std * torch.randn(
            len(classes), self.dimension, generator=generator
        )
        features: Tensor = self.network(z, rev=True)[0] * self.std + self.mean
        return features

    def loss(self, features: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Return the mean negative log-likelihood of labelled and unlabelled pixels."""
        z, log_determinant = self.latent(features, noise)
        every = repeated_log_prob(z, self.means)
        chosen = torch.zeros_like(log_determinant)
        unlabelled = targets == -1
        chosen[unlabelled] += torch.logsumexp(every - math.log(len(self.means)), 1)[unlabelled]
        for k in range(len(self.means)):
            members = targets == k
            chosen[members] += every[:, k][members]
        return -(chosen + log_determinant).mean()


def repeated_log_prob(z: Tensor, means: Tensor) -> Tensor:
    """Return ``log N(z; mu_k, I)``, [N, K], from differences [N, K, D]."""
    difference = z.unsqueeze(1).repeat(1, len(means), 1) - means.unsqueeze(0)
    distance = torch.sum(difference**2, dim=2)
    return -0.5 * (z.shape[1] * math.log(2 * math.pi) + distance)
