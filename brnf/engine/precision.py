"""In which precision networks compute, the same on every device.

Only networks are meant: losses, flows, prototypes and maps are float32. On a GPU TF32 is therefore
allowed to convolutions, of which networks consist, and never to matrix products, which the flow and
the losses take. torch's own default is that of tf32.
"""

import os
from typing import Any

from brnf.config.sections.bounds import Precision
from brnf.errors import UserError

__all__ = ["ask_for_equal_bytes", "computing", "described", "needs_scaling", "use_precision"]

TF32_CAPABILITY = 8
"""First generation of GPUs that has TF32, and bfloat16: Ampere."""


def use_precision(precision: Precision, device: Any) -> None:
    """Let this process compute in a precision from now on, as far as that is not up to
    :func:`computing`.

    Arguments:
        precision: of the networks.
        device: a ``torch.device``.

    Raises:
        UserError: the device cannot compute in it.
    """
    import torch

    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = False
    if precision == "fp16" and device.type == "cpu" and (reason := _half_fault()):
        raise UserError(
            f"precision: fp16 cannot be computed on this CPU ({reason}); set it to bf16 or fp32"
        )


def computing(precision: Precision, device: Any) -> Any:
    """Return a context, a ``torch.autocast``, within which a network computes in a precision.

    Arguments:
        precision: of the network.
        device: a ``torch.device``.
    """
    import torch

    kind = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, kind, enabled=precision in ("bf16", "fp16"))


def needs_scaling(precision: Precision) -> bool:
    """Return whether a training has to scale its loss: float16 has no small gradients."""
    return precision == "fp16"


def described(precision: Precision, device: Any) -> str:
    """Return what a log says of a precision: what is computed where it is not what was asked for.

    Arguments:
        precision: of the networks.
        device: a ``torch.device``.
    """
    import torch

    if precision != "tf32":
        return precision
    if device.type == "cpu":
        return "tf32 (fp32 on a CPU)"
    if torch.cuda.get_device_capability(device)[0] < TF32_CAPABILITY:
        return "tf32 (fp32 on a GPU of this capability)"
    return precision


def ask_for_equal_bytes() -> None:
    """Let torch take no way on a GPU that gives other bytes each time, and refuse what has no other
    way; to be called before CUDA starts.
    """
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it once
    torch.use_deterministic_algorithms(True)


def _half_fault() -> str:
    """Return why a convolution cannot be trained in float16 on this CPU, "" where it can."""
    import torch

    try:
        layer = torch.nn.Conv2d(1, 1, 3, device="cpu")
        with torch.autocast("cpu", torch.float16):
            layer(torch.ones(1, 1, 4, 4)).float().sum().backward()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return ""
