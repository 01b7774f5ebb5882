"""The name of kept machine code: any difference between processors that matters changes it."""

import os
from pathlib import Path

import pytest

from brnf.segment import processor
from brnf.segment.processor import describe_processor, shown_features

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 85
model name\t: Some Processor @ 2.50GHz
stepping\t: 7
cpu MHz\t\t: 2499.998
flags\t\t: fpu lm sse sse2 pni sse4_2 avx avx2 bmi1 abm avx512_vnni
bogomips\t: 4999.99
"""
ARM = """processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd atomics sve
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd40
CPU revision\t: 1
"""


class Machine:
    """A machine with another /proc/cpuinfo."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self._file = folder / "cpuinfo"
        monkeypatch.setattr(processor, "CPUINFO", self._file)

    def describe(self, machine: str, *processors: str) -> str | None:
        system = os.uname_result(("Linux", "host", "6.1", "#1", machine))
        self._patch.setattr(os, "uname", lambda: system)
        self._file.write_text("\n".join(processors))
        return describe_processor()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def changes(cpuinfo: str) -> dict[str, str]:
    """Return the file with one field changed, by the field."""
    lines = {line.partition(":")[0].strip(): line for line in cpuinfo.splitlines()}
    return {name: cpuinfo.replace(line, f"{line}1") for name, line in lines.items()}


@pytest.mark.parametrize(
    ("name", "cpuinfo", "without_effect"),
    [
        ("x86_64", X86, {"processor", "cpu MHz", "bogomips"}),
        ("aarch64", ARM, {"processor", "BogoMIPS"}),
    ],
)
def test_what_tells_processors_apart(
    machine: Machine, name: str, cpuinfo: str, without_effect: set[str]
) -> None:
    known = machine.describe(name, cpuinfo)
    found = {field: machine.describe(name, other) for field, other in changes(cpuinfo).items()}
    assert {field for field, description in found.items() if description == known} == without_effect
    assert None not in found.values() and known is not None
    virtual = cpuinfo.replace(" avx512_vnni", "").replace(" sve", "")  # the same name, less inside
    assert machine.describe(name, virtual) not in {known, None}


def test_processors_of_two_kinds(machine: Machine) -> None:
    small = ARM.replace("0xd40", "0xd05")
    alone = [machine.describe("aarch64", kind) for kind in (ARM, small)]
    both = machine.describe("aarch64", ARM, small)
    assert len({*alone, both}) == 3
    assert machine.describe("aarch64", small, ARM, ARM) == both


def test_where_linux_tells_nothing(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, cpuinfo in (("x86_64", ""), ("x86_64", ARM), ("riscv64", X86), ("aarch64", X86)):
        assert machine.describe(name, cpuinfo) is None
    assert machine.describe("x86_64", X86) is not None
    monkeypatch.setattr("sys.platform", "freebsd14")
    assert describe_processor() is None
    monkeypatch.undo()
    monkeypatch.setattr(processor, "CPUINFO", Path("/nowhere/cpuinfo"))
    assert describe_processor() is None


def test_code_uses_no_instructions_that_the_description_hides(machine: Machine) -> None:
    asked = ("avx2", "avx512vnni", "sse4.2", "sse3", "lzcnt", "avxifma", "64bit", "bmi")
    present = dict.fromkeys(asked, True) | {"avx": False}
    machine.describe("x86_64", X86, X86)
    shown = "+64bit,-avx,+avx2,+avx512vnni,-avxifma,+bmi,+lzcnt,+sse3,+sse4.2"
    assert shown_features(present) == shown
    machine.describe("x86_64", X86, X86.replace(" avx2", ""))  # one of two processors lacks it
    assert shown_features(present) == shown.replace("+avx2", "-avx2")
    machine.describe("aarch64", ARM)
    assert shown_features({"sve": True, "neon": True, "sme": False}) == "+neon,-sme,+sve"
    machine.describe("x86_64", "")
    assert shown_features({"avx2": True, "avxifma": True, "avx": False}) == "-avx,+avx2,+avxifma"


def test_this_processor_hides_nothing_that_compilers_have_used_for_long() -> None:
    """A name of LLVM's that is missing in the table would switch its instructions off."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    old = {"64bit", "avx", "avx2", "avx512f", "bmi", "bmi2", "cmov", "cx16", "cx8", "f16c", "fma"}
    old |= {"fxsr", "lzcnt", "mmx", "movbe", "pclmul", "popcnt", "rdrnd", "sahf", "sse", "sse2"}
    old |= {"sse3", "sse4.1", "sse4.2", "ssse3", "crc32", "prfchw", "aes", "xsave"}
    shown = set(shown_features(features).split(","))
    assert {f"+{name}" for name in old & set(features) if features[name]} <= shown
