"""One way to save and load a trained network: what it is, what rebuilds it, and its weights."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from brnf.errors import DamagedProduct, UserError
from brnf.store.tensors import read_tensors, write_tensors

__all__ = ["NetworkKind", "load_network", "read_network", "rebuilding", "save_network"]

FORMAT = 1
"""Version of the layout of the file."""

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class NetworkKind:
    """What a file holds.

    Attributes:
        name: stands in the file and in messages, such as ``segmentation network``.
        stage: that trains it, as in "run train_flow again".
    """

    name: str
    stage: str


def save_network(
    path: Path,
    kind: NetworkKind,
    network: nn.Module,
    options: Mapping[str, Any],
    classes: Sequence[str] = (),
) -> None:
    """Write a network, whole or not at all; equal networks give equal bytes.

    Arguments:
        path: the file.
        kind: what it is.
        network: whose state is written.
        options: plain values and tensors that rebuild it and that it is used with.
        classes: names of the foreground classes, where the network knows them.
    """
    state = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in network.state_dict().items()
    }
    content = {
        "format": FORMAT,
        "kind": kind.name,
        "options": dict(options),
        "classes": list(classes),
        "state": state,
    }
    write_tensors(path, content)


def read_network(
    path: Path, *kinds: NetworkKind, classes: Sequence[str] | None = None
) -> dict[str, Any]:
    """Read what a file of a network holds, without building it.

    Arguments:
        path: the file.
        kinds: one of which it must hold.
        classes: names that the network must have been trained for; None takes any.

    Raises:
        UserError: the file is missing, damaged, of another version, holds another kind of network,
            or one of other classes.
    """
    stage = " or ".join(kind.stage for kind in kinds)
    content = read_tensors(path, f"run {stage} first", stage)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        fault = "no network file, or one of another version of this program"
        raise DamagedProduct(path, fault, stage)
    if (found := content.get("kind")) not in [kind.name for kind in kinds]:
        wanted = " or ".join(kind.name for kind in kinds)
        raise UserError(
            f"{path}: holds a {str(found)[:40]}, not a {wanted}; give the file of {stage}"
        )
    try:
        trained = [str(name) for name in content["classes"]]
    except (LookupError, TypeError) as error:
        fault = f"damaged, holds no {content['kind']} (names no classes)"
        raise DamagedProduct(path, fault, stage) from error
    if classes is not None and list(classes) != trained:
        raise UserError(
            f"{path}: trained for the classes {', '.join(trained)}, not those of the index; run "
            f"{stage} again"
        )
    return content


def load_network(
    path: Path,
    kind: NetworkKind,
    build: Callable[[dict[str, Any], int], Network],
    classes: Sequence[str] | None = None,
) -> tuple[Network, dict[str, Any]]:
    """Read what :func:`save_network` wrote.

    Arguments:
        path: the file.
        kind: what it must hold.
        build: from the options and the number of foreground classes to a network that the state
            fits.
        classes: names that the network must have been trained for; None takes any.

    Returns:
        The network on the CPU, in evaluation mode, and the options.

    Raises:
        UserError: the file is missing, damaged, of another version, holds another kind of network,
            or one of other classes.
    """
    content = read_network(path, kind, classes=classes)
    with rebuilding(path, kind):
        options = content["options"]
        network = build(options, len(content["classes"]))
        network.load_state_dict(content["state"])
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        raise DamagedProduct(path, "holds values that are not finite", kind.stage)
    return network.eval(), options


@contextmanager
def rebuilding(path: Path, kind: NetworkKind) -> Iterator[None]:
    """Report whatever goes wrong while a network is rebuilt as damage of its file.

    Arguments:
        path: the file.
        kind: what it should hold.

    Raises:
        DamagedProduct: the block failed.
    """
    try:
        yield
    except Exception as error:  # whatever stands in the place of sizes, options and names
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        fault = f"damaged, holds no {kind.name} ({reason[:120]})"
        raise DamagedProduct(path, fault, kind.stage) from error
