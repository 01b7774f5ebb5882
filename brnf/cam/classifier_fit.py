"""The classifier of a CAM network, fitted to the outputs of the untrained backbone."""

import torch
from torch import Tensor

from brnf.cam.crops import TrainingSource
from brnf.cam.network import CamNetwork

__all__ = ["fit_classifier"]


def fit_classifier(network: CamNetwork, source: TrainingSource, weight_decay: float) -> None:
    """Fit the classifier to the outputs of the untrained backbone, averaged over the image without
    its padding, to the optimum.

    On a few hundred images stochastic training of a new layer leaves the maps half random
    (`docs/method.md` section 11).

    Arguments:
        network: its classifier is replaced.
        source: of the images.
        weight_decay: weight of the squared weights in the multi-label soft margin loss.
    """
    pooled, labels = [], []
    device = network.classifier.weight.device
    with torch.inference_mode():
        for batch in source.whole_images():
            last = (
                batch.pixels[3]
                if isinstance(batch.pixels, list)
                else network.stages(batch.pixels.to(device))[3]
            )
            inside = batch.valid.to(device).float()
            pooled.append((last.to(device) * inside).sum((2, 3)) / inside.sum((2, 3)))
            labels.append(batch.labels.to(device))
    features, targets = torch.cat(pooled).clone(), torch.cat(labels).clone()
    weight = torch.zeros(targets.shape[1], features.shape[1], device=device, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weight], max_iter=500, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = (
            torch.nn.functional.multilabel_soft_margin_loss(features @ weight.T, targets)
            + weight_decay * weight.square().sum()
        )
        loss.backward()
        return loss

    optimiser.step(closure)
    with torch.no_grad():
        network.classifier.weight.copy_(weight[:, :, None, None])
