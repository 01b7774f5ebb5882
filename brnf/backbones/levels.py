"""Which of a network's modules belong to which of its four stages."""

from typing import Any

from torch import nn

from brnf.backbones.intermediates import Intermediates

__all__ = ["feature_levels", "stages_of_modules"]


def feature_levels(network: nn.Module) -> Any:
    """Return timm's description of the feature levels."""
    return network.feature_info


def stages_of_modules(network: nn.Module) -> list[tuple[nn.Module, int]]:
    """Pair each module with the output (0 = stem, 1..4 = stages) on whose way it lies."""
    if isinstance(network, Intermediates):
        return _by_number(network)
    return _by_order(network)


def _by_number(network: Intermediates) -> list[tuple[nn.Module, int]]:
    """Look at the number of a module in the list of blocks or stages; before that list lies the
    stem, after it what the last output passes.
    """
    names = [str(name) for name in feature_levels(network).module_name()]
    whole = names[0].rpartition(".")[0]
    last_of_stages = [int(name.rpartition(".")[2]) for name in names]
    pairs, output = [], 0
    for name, module in network.network.named_modules():
        if name.startswith(f"{whole}."):
            number = int(name.removeprefix(f"{whole}.").split(".")[0])
            output = 1 + sum(last < number for last in last_of_stages)
        pairs.append((module, output))
    return pairs


def _by_order(network: nn.Module) -> list[tuple[nn.Module, int]]:
    """Look at the order of definition, where each module but a stem's follows the level before."""
    names = [str(name) for name in feature_levels(network).module_name()]
    flat = {name for name, _ in network.named_children()}
    ends = [name if name.split(".")[0] in flat else name.replace(".", "_") for name in names]
    pairs, output, reached = [], 0, False
    for name, module in network.named_modules():
        inside = f"{name}.".startswith(f"{ends[output]}.")
        if reached and not inside and output < len(ends) - 1:
            output += 1
            inside = reached = f"{name}.".startswith(f"{ends[output]}.")
        reached = reached or inside
        pairs.append((module, output))
    return pairs
