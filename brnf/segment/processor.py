"""The processor of this machine, as Linux describes it: machine code is kept by this description.

LLVM asks an x86 processor itself and may find instructions that ``/proc/cpuinfo`` does not show,
since the kernel hides them or is older than they are. Two machines could then have the same
description and yet not run the same code. So code is compiled without such instructions.
"""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["describe_processor", "shown_features"]

CPUINFO = Path("/proc/cpuinfo")
X86, ARM = "x86_64", "aarch64"
FEATURES = {X86: "flags", ARM: "Features"}
"""The field that lists the instruction sets, by machine."""
KIND = {
    X86: ("vendor_id", "cpu family", "model", "model name", "stepping"),
    ARM: ("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision"),
}
"""The fields that name a kind of processor, by machine."""
LINUX_NAMES = {
    "64bit": "lm",
    "bmi": "bmi1",
    "crc32": "sse4_2",
    "lzcnt": "abm",
    "pclmul": "pclmulqdq",
    "prfchw": "3dnowprefetch",
    "rdrnd": "rdrand",
    "sahf": "lahf_lm",
    "sha": "sha_ni",
    "sse3": "pni",
}
"""Flags of x86 by LLVM's names, where more than the punctuation differs."""


def describe_processor() -> str | None:
    """Return what decides which machine code runs here; None where Linux does not tell it.

    Where a machine has processors of several kinds, all are described.
    """
    machine = os.uname().machine
    bits = sys.maxsize.bit_length() + 1  # of Python, which may run under a system of more
    fields = (FEATURES[machine], *KIND[machine]) if machine in KIND else ()
    kinds = {
        "\n".join(f"{field}: {processor.get(field, '')}" for field in fields)
        for processor in _processors()
    }
    return "\n\n".join([f"{machine}, {bits} bits", *sorted(kinds)]) if kinds else None


def shown_features(features: Mapping[str, bool]) -> str:
    """Return the processor's features for LLVM, without those that its description does not show.

    On aarch64 LLVM itself goes by what Linux tells, so all remain there.

    Arguments:
        features: LLVM's own list, whether the processor has each.

    Returns:
        such as ``+avx2,-avx512f``, in the order of their names.
    """
    usable = {name for name, present in features.items() if present}
    processors = _processors()
    if os.uname().machine == X86 and processors:
        shown = [set(map(_plain, each[FEATURES[X86]].split())) for each in processors]
        everywhere = set.intersection(*shown)
        usable = {name for name in usable if _plain(LINUX_NAMES.get(name, name)) in everywhere}
    return ",".join(f"{'+' if name in usable else '-'}{name}" for name in sorted(features))


def _processors() -> list[dict[str, str]]:
    """Return the fields of each processor whose instruction sets are listed."""
    listed = FEATURES.get(os.uname().machine)
    if sys.platform != "linux" or listed is None:
        return []
    try:
        blocks = CPUINFO.read_text(errors="replace").split("\n\n")
    except OSError:
        return []
    lines = [[line.partition(":") for line in block.splitlines()] for block in blocks]
    found = [{name.strip(): value.strip() for name, _, value in each} for each in lines]
    return [each for each in found if each.get(listed)]


def _plain(name: str) -> str:
    return re.sub("[._-]", "", name)
