"""Networks for other programs: ONNX, and torch.export's own format.

The graph sees one image at one scale; several scales, mirroring and the dense CRF are the business
of ``brnf predict``.
"""

import json
import math
import operator
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from timm.layers import Conv2dSame  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import Node

from brnf.cam.network import CamNetwork
from brnf.errors import UserError
from brnf.segment.deeplab import DeepLab
from brnf.segment.loss import enlarged
from brnf.store.files import atomic_file
from brnf.use.load import load

__all__ = ["export"]

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
SIZES = {1: ((97, 130), (160, 96)), 32: ((96, 128), (160, 96))}
"""Step of the sizes that a graph takes -> height and width that it is made from, and others at
which it is held against the network.
"""
TOLERANCE = 1e-3
"""Largest difference, where probabilities and maps lie in 0..1."""
INPUT = "image"


class Probabilities(nn.Module):
    """A segmenter whose output has the image's size.

    Arguments:
        network: in evaluation mode.
    """

    output = "probabilities"

    def __init__(self, network: DeepLab) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Return [1, 1 + C, H, W] of an image [1, 3, H, W] float32 RGB in 0..255."""
        logits = self.network(image)
        return enlarged(logits, image.shape[2:], self.network.options.align_corners).softmax(1)


class Maps(nn.Module):
    """A CAM network's classifier maps at the image's size, each divided by its maximum.

    Arguments:
        network: in evaluation mode.
    """

    output = "maps"

    def __init__(self, network: CamNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Return [1, C, H, W] in 0..1 of an image [1, 3, H, W] float32 RGB in 0..255."""
        maps = enlarged(self.network(image).logits.relu(), image.shape[2:], False)
        return maps / (maps.amax((2, 3), keepdim=True) + 1e-5)


def export(network: Path, target: Path) -> str:
    """Write a network for other programs and return what was written and how exact it is.

    The file appears only when it gives the network's own numbers at several sizes: ONNX run by
    onnxruntime, torch.export's by torch.

    Arguments:
        network: ``model.pt`` or ``network.pt``.
        target: ``.onnx``, or ``.pt2`` for ``torch.export``.

    Raises:
        UserError: the network cannot be read or exported, a package is missing, the ending is
            another one, or the numbers differ.
    """
    if target.suffix not in (".onnx", ".pt2"):
        raise UserError(f"{target}: ends with neither .onnx nor .pt2; name the file so")
    if target.suffix == ".onnx" and (missing := [name for name in PACKAGES if not find_spec(name)]):
        raise UserError(f"ONNX needs {', '.join(missing)}; run pip install {' '.join(missing)}")
    model = load(network, "cpu")
    seen = (
        Probabilities(model.network) if isinstance(model.network, DeepLab) else Maps(model.network)
    ).eval()
    step = 32 if _fix_padding(seen) else 1
    multiples = f", multiples of {step}" if step > 1 else ""
    told = {
        "classes": json.dumps(model.classes),
        "mask_values": json.dumps(model.file.mask_values),
        "input": f"RGB in 0..255, float32 [1, 3, height, width]{multiples}",
        "output": f"{seen.output}, one scale, without the dense CRF",
    }
    try:
        with warnings.catch_warnings(), atomic_file(target) as temporary:
            warnings.simplefilter("ignore")  # of the exporters, about their own ways
            program = _program(seen, SIZES[step][0])
            if target.suffix == ".onnx":
                run = _write_onnx(program, temporary, seen.output, told)
            else:
                run = _write_program(program, temporary, told)
            difference = _largest_difference(seen, run, SIZES[step])
            if not difference <= TOLERANCE:
                raise UserError(
                    f"{network}: the exported graph differs by {difference:.2g} from the network; "
                    "try another version of torch"
                )
    except UserError:
        raise
    except Exception as error:  # exporters meet what they cannot do with all kinds of errors
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"{network}: cannot be exported ({reason}); try another backbone"
        ) from error
    return (
        f"{target}: input {INPUT} [1, 3, height, width]{multiples}, output {seen.output}; differs "
        f"by at most {difference:.1g}"
    )


def _fix_padding(network: nn.Module) -> bool:
    """Pad as TensorFlow does for sides that every stride divides, in place; return whether any
    layer does so. As a function of the size it would keep torch.export busy for minutes.
    """
    found = [
        (name, layer) for name, layer in network.named_modules() if isinstance(layer, Conv2dSame)
    ]
    for name, layer in found:
        sides: list[int] = []
        for axis in (1, 0):  # left and right first
            seen = (layer.kernel_size[axis] - 1) * layer.dilation[axis] + 1
            total = max(seen - layer.stride[axis], 0)
            sides += [total // 2, total - total // 2]
        plain = nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]
            layer.stride,  # type: ignore[arg-type]
            dilation=layer.dilation,  # type: ignore[arg-type]
            groups=layer.groups,
            bias=layer.bias is not None,
        )
        plain.load_state_dict(layer.state_dict())
        left, right, top, bottom = sides
        padding = nn.ZeroPad2d((left, right, top, bottom))
        parent, _, own = name.rpartition(".")
        setattr(
            network.get_submodule(parent),
            own,
            nn.Sequential(padding, plain),
        )
    return bool(found)


@torch.no_grad()
def _program(network: nn.Module, size: tuple[int, int]) -> ExportedProgram:
    """Return the graph of a network, for images of any size.

    What a layer asks about the size, as a pooling that rounds up does, is checked when the graph
    runs; torch would else allow only the sizes that answer as the traced one.
    """
    sides = {axis: Dim.DYNAMIC for axis in (2, 3)}
    images = torch.zeros(1, 3, *size)
    program = torch.export.export(
        network,
        (images,),
        dynamic_shapes=(sides,),
        prefer_deferred_runtime_asserts_over_guards=True,
    )
    _divide_upwards(program)
    return program


def _divide_upwards(program: ExportedProgram) -> None:
    """Write ``ceil(a / b)`` of sizes as ``(a + b - 1) // b``, in place: torch.export cannot save
    the first, by which timm pads as TensorFlow does.
    """
    graph = program.graph
    for node in graph.find_nodes(op="call_function", target=math.ceil):
        quotient = node.args[0]
        if not isinstance(quotient, Node) or quotient.target is not operator.truediv:
            continue
        size, divisor = quotient.args
        if not isinstance(size, Node) or not isinstance(divisor, int):
            continue
        with graph.inserting_before(node):
            raised = graph.call_function(operator.add, (size, divisor - 1))
            found = graph.call_function(operator.floordiv, (raised, divisor))
        raised.meta["val"] = size.meta["val"] + divisor - 1
        found.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(found)
        graph.erase_node(node)
        if not quotient.users:
            graph.erase_node(quotient)
    program.graph_module.recompile()


def _write_onnx(
    program: ExportedProgram, path: Path, output: str, told: dict[str, str]
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Write a graph as ONNX, and return the written file as a function."""
    import onnx
    import onnxruntime

    written = torch.onnx.export(
        program, input_names=[INPUT], output_names=[output], dynamo=True, verbose=False
    )
    assert written is not None
    content = written.model_proto
    onnx.helper.set_model_props(content, told)
    onnx.save(content, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda image: np.asarray(session.run(None, {INPUT: image})[0])


def _write_program(
    program: ExportedProgram, path: Path, told: dict[str, str]
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Write a graph as torch.export does, and return the written file as a function."""
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={"brnf.json": json.dumps(told)})
    with path.open("rb") as file:
        module = torch.export.load(file).module()
    return lambda image: np.asarray(module(torch.from_numpy(image)))


@torch.no_grad()
def _largest_difference(
    network: nn.Module,
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    sizes: Sequence[tuple[int, int]],
) -> float:
    """Return how far a written graph is from the network, over images of several sizes."""
    generator = torch.Generator().manual_seed(0)
    found = 0.0
    for size in sizes:
        image = 255 * torch.rand(1, 3, *size, generator=generator)
        difference = network(image).numpy() - run(image.numpy())
        found = max(found, float(np.abs(difference).max()))
    return found
