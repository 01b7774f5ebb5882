"""The flow that learns inside the network's training loop: CCNF (docs/method.md section 7)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from brnf.config.sections.cam import Online
from brnf.config.sections.flow import FlowInTraining
from brnf.engine import distributed
from brnf.engine.schedule import decay
from brnf.engine.trainer import Descent
from brnf.flow.density import FlowDensity, RunningMoments
from brnf.flow.loss import add_gradient
from brnf.flow.posterior import fit_temperature, search_temperature, tempered_posterior

__all__ = ["OnlineFlow"]


class OnlineFlow:
    """A flow with its optimiser, running standardisation and temperature.

    Arguments:
        dimension: D, even.
        classes: K, background included.
        options: architecture, optimiser, temperature and rows.
        online: how standardisation and temperature follow the features.
        updates: length of the training that it learns along with: the rate has fallen after so
            many.
        seed: of the noise, the choice of rows and the samples.
        device: where it lives.

    Attributes:
        temperature: of the posterior; a scalar of the device where that has found it, which the
            host does not wait for.
    """

    def __init__(
        self,
        dimension: int,
        classes: int,
        options: FlowInTraining,
        online: Online,
        *,
        updates: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.options, self.online = options, online
        self.flow = FlowDensity(dimension, classes, options, seed).to(device)
        self.updates = 0
        auto = options.temperature == "auto"
        self.temperature: float | Tensor = 1.0 if auto else float(options.temperature)
        self._device = torch.device(device)
        moments = RunningMoments(dimension, online.online_window, options.std_floor)
        self._moments = moments.to(device)
        optimiser = torch.optim.Adam(
            [parameter for parameter in self.flow.parameters() if parameter.requires_grad],
            lr=options.learning_rate,
            betas=(options.beta1, options.beta2),
            fused=True,
        )
        self._descent = Descent(
            optimiser,
            lambda update: decay(options.decay, update, updates, options.final_rate),
            "lower brnf.flow.learning_rate",
            clip_norm=options.clip_norm,
            name="the online flow's update",
        )
        self._generator = torch.Generator(device).manual_seed(seed)
        self._recent_features = torch.zeros(0, dimension, device=device)
        self._recent_allowed = torch.zeros(0, classes, dtype=torch.bool, device=device)

    def update(self, features: Tensor, targets: Tensor, allowed: Tensor) -> float:
        """Take one step on the features of a batch: of those that all processes that train together
        have, the same in each.

        Arguments:
            features: [N, D] raw features of valid positions; detached here.
            targets: [N] int64 three-way labels, -1 for unlabelled.
            allowed: [N, K] bool, background and the labels of each row's image: the temperature is
                fitted on the set that :meth:`posterior` uses.

        Returns:
            The loss, nats per dimension.

        Raises:
            UserError: loss or gradient is not finite.
        """
        features, targets, allowed = (
            distributed.all_gather(rows) for rows in (features.detach().float(), targets, allowed)
        )
        if not len(features):
            raise ValueError("an update needs at least one row")
        self._moments.update(features)
        self.flow.fit_standardisation(self._moments.mean, self._moments.std())
        if len(features) > self.options.batch_rows:
            chosen = torch.randperm(len(features), generator=self._generator, device=self._device)[
                : self.options.batch_rows
            ]
            features, targets, allowed = features[chosen], targets[chosen], allowed[chosen]
        drawn = torch.randn(features.shape, generator=self._generator, device=self._device)
        own = self.flow.options
        noise = self.flow.in_std(own.noise * drawn, own.noise_unit)
        self._descent.begin(self.updates)
        loss = add_gradient(self.flow, features, noise, targets)
        found = self._descent.finish(self.updates, {"loss": loss, "labelled": (targets >= 0).sum()})
        self.updates += 1
        self._remember(features, targets, allowed, int(found["labelled"]))
        due = self.updates == 1 or self.updates % self.online.online_refit_interval == 0
        if self.options.temperature == "auto" and due:
            self._refit()
        return found["loss"] / self.flow.dimension

    def posterior(self, features: Tensor, allowed: Tensor) -> Tensor:
        """Return G = p(k|v), tempered, over the allowed classes, [N, K] without gradient.

        Arguments:
            features: [N, D] raw.
            allowed: [N, K] bool, background and the image's labels.
        """
        return tempered_posterior(self.flow.log_prob(features.detach()), allowed, self.temperature)

    def sample(self, classes: Tensor, std: float) -> Tensor:
        """Draw raw features [N, D] of classes [N] int64; they are not normalised."""
        return self.flow.sample(classes, std, self._generator)

    def ready(self, warmup: int) -> bool:
        """Return whether the flow has taken at least ``warmup`` steps."""
        return self.updates >= warmup

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed run needs to go on as if it had not stopped."""
        return {
            "flow": self.flow.state_dict(),
            "optimiser": self._descent.optimiser.state_dict(),
            "moments": self._moments.state_dict(),
            "generator": self._generator.get_state(),
            "updates": self.updates,
            "temperature": float(self.temperature),
            "recent_features": self._recent_features,
            "recent_allowed": self._recent_allowed,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self.flow.load_state_dict(state["flow"])
        self._descent.optimiser.load_state_dict(state["optimiser"])
        self._moments.load_state_dict(state["moments"])
        self._generator.set_state(state["generator"].cpu())
        self.updates = int(state["updates"])
        self.temperature = float(state["temperature"])
        self._recent_features = state["recent_features"].to(self._device)
        self._recent_allowed = state["recent_allowed"].to(self._device)

    def _remember(
        self, features: Tensor, targets: Tensor, allowed: Tensor, number_labelled: int
    ) -> None:
        """Keep a random share of the labelled rows, so that the memory spans the updates since the
        last fit.
        """
        # In their order, as by nonzero, which would have to ask the device how many there are.
        labelled = (targets < 0).to(torch.uint8).argsort(stable=True)[:number_labelled]
        most, interval = self.online.online_refit_rows, self.online.online_refit_interval
        drawn = torch.randperm(number_labelled, generator=self._generator, device=self._device)
        chosen = labelled[drawn[: -(-most // interval)]]
        self._recent_features = torch.cat([self._recent_features, features[chosen]])[-most:]
        self._recent_allowed = torch.cat([self._recent_allowed, allowed[chosen]])[-most:]

    def _refit(self) -> None:
        if len(self._recent_features):
            fit = fit_temperature if self._device.type == "cpu" else search_temperature
            log_prob = self.flow.log_prob(self._recent_features)
            self.temperature = fit(log_prob, self._recent_allowed, self.options.target)
