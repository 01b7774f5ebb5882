"""Machine code by the small loader: results as by LLVM, and no file that it does not know."""

import ctypes
import gc
import os
import struct
import subprocess
import sys
import weakref
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brnf.config.sections.segmentation import Crf
from brnf.segment import compiled, crf, lattice, object_file
from brnf.segment.object_file import ObjectFile, ObjectFileError, load

ROOT = Path(__file__).parents[2]
HERE = sys.platform == "linux" and os.uname().machine == "x86_64"
pytestmark = pytest.mark.skipif(not HERE, reason="only code for x86-64 Linux is loaded so")
CONTENT = compiled._kept() or compiled.compile_object() if HERE else b""
SECTIONS = slice(0x28, 0x30)
"""Where the ELF header tells the offset of the table of sections."""
FAR = """
@numbers = internal constant [4 x i32] [i32 2, i32 3, i32 5, i32 7]
define internal i32 @nth(i64 %n) noinline nounwind section ".text.other" {
  %place = getelementptr [4 x i32], ptr @numbers, i64 0, i64 %n
  %number = load volatile i32, ptr %place
  ret i32 %number
}
define i32 @next(i64 %n) {
  %number = call i32 @nth(i64 %n)
  %more = add i32 %number, 1
  ret i32 %more
}
"""
NOT_UNDERSTOOD = {
    "flags": "@x = global i32 1\ndefine ptr @f() {\n ret ptr @x\n}",
    "needs expf": "declare float @expf(float)\n"
    "define float @f(float %x) {\n %y = call float @expf(float %x)\n ret float %y\n}",
    "type 1879048193": "define i32 @f() uwtable {\n ret i32 1\n}",
    "no function f": "define i32 @g() {\n ret i32 1\n}",
    "needs x": "@x = common global i32 0\ndefine ptr @f() {\n ret ptr @x\n}",
    "no function [f]": "define internal i32 @f() {\n ret i32 1\n}",
}
"""What an object file may hold, by words of the refusal."""


def object_of(assembly: str, model: str = "large", relocation: str = "static") -> bytes:
    """Compile LLVM's assembly language; functions that raise nothing have no tables for that."""
    assembly = assembly.replace(") {", ") nounwind {")
    llvm = compiled._llvm()
    compiled._target()
    target = llvm.Target.from_default_triple().create_target_machine(
        codemodel=model, reloc=relocation
    )
    code: bytes = target.emit_object(llvm.parse_assembly(assembly))
    return code


def refined(functions: Mapping[str, compiled.Code], shape: tuple[int, int, int]) -> bytes:
    """Return the marginals by the given functions as bytes; shape is labels, height, width."""
    labels, height, width = shape
    random = np.random.default_rng(labels)
    image = random.integers(0, 256, (height, width, 3), np.uint8)
    image[height // 2 :] //= 16  # areas of similar colours have neighbours in the lattice
    probability = random.dirichlet(np.ones(labels), (height, width)).transpose(2, 0, 1)
    lattice.smoothness_lattice.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crf, "kernels", lambda: functions)
        patch.setattr(lattice, "kernels", lambda: functions)
        found = crf.dense_crf(image, probability.astype(np.float32), Crf())
    lattice.smoothness_lattice.cache_clear()
    return found.tobytes()


def by_loader() -> Mapping[str, compiled.Code]:
    loaded = load(CONTENT, compiled.SIGNATURES)
    return compiled._callable(loaded.addresses, loaded.memory)


@pytest.mark.parametrize(
    "shape", [(2, 1, 1), (3, 1, 37), (2, 53, 71), (4, 47, 64), (7, 65, 33), (21, 31, 57)]
)
def test_results_are_those_by_llvm(shape: tuple[int, int, int]) -> None:
    assert refined(by_loader(), shape) == refined(compiled._by_llvm(CONTENT), shape)


@pytest.mark.parametrize("model", ["small", "large"])
def test_functions_and_constants_find_each_other(model: str) -> None:
    """Relocations by relative and by absolute addresses; functions in two sections."""
    content = object_of(FAR, model, "pic" if model == "small" else "static")
    kinds = {relocation.info & 0xFF for _, relocation in ObjectFile(content)._relocations()}
    assert kinds == ({2, 4} if model == "small" else {1})
    loaded = load(content, ["next"])
    function = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int64)(loaded.addresses["next"])
    assert [function(n) for n in range(4)] == [3, 4, 6, 8]


def test_sections_are_aligned_and_apart() -> None:
    content = object_of(
        "@a = constant [3 x i8] [i8 1, i8 2, i8 3], align 1\n"
        '@b = constant [8 x i64] zeroinitializer, align 256, section ".rodata.b"\n'
        "define ptr @f() {\n ret ptr @b\n}\ndefine ptr @g() {\n ret ptr @a\n}"
    )
    file = ObjectFile(content)
    places = [(place, file._sections[number]) for number, place in file._places.items()]
    assert {256, 1} <= {section.alignment for _, section in places}
    assert all(place % section.alignment == 0 for place, section in places)
    assert all(one + a.size <= other for (one, a), (other, _) in pairwise(places))
    loaded = load(content, ["f", "g"])
    pointers = {
        name: ctypes.CFUNCTYPE(ctypes.c_void_p)(address)()
        for name, address in loaded.addresses.items()
    }
    assert pointers["f"] % 256 == 0
    assert ctypes.string_at(pointers["g"], 3) == b"\1\2\3"


@pytest.mark.parametrize("words", NOT_UNDERSTOOD)
def test_what_is_not_understood_is_refused(words: str) -> None:
    with pytest.raises(ObjectFileError, match=words):
        load(object_of(NOT_UNDERSTOOD[words]), ["f"])


def test_a_relocation_that_is_not_known_is_refused() -> None:
    content = object_of(
        "@x = external constant i32\ndefine ptr @f() {\n ret ptr @x\n}", "small", "pic"
    )
    with pytest.raises(ObjectFileError, match=r"relocation of type 4[12]"):
        load(content, ["f"])


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [
        (4, b"\1", "64 bits"),  # 32 bits
        (5, b"\2", "64 bits"),  # big endian
        (16, b"\3\0", "type 3"),  # a shared library
        (18, b"\xb7\0", "machine 183"),  # aarch64
        (58, b"\x28\0", "sections of 40 bytes"),
        (60, b"\xff\xff", "too early"),
    ],
)
def test_another_kind_of_file_is_refused(offset: int, value: bytes, words: str) -> None:
    spoilt = CONTENT[:offset] + value + CONTENT[offset + len(value) :]
    with pytest.raises(ObjectFileError, match=words):
        load(spoilt, compiled.SIGNATURES)


@pytest.mark.parametrize(
    ("kind", "place", "form", "value", "words"),
    [
        (2, 40, "<I", 99, "no section 99"),
        (2, 40, "<I", 0, "symbols without names"),
        (2, 32, "<Q", 25, "half an entry"),
        (3, 32, "<Q", 1, "name outside its section"),
        (3, 32, "<Q", 2**64 - 1, "too early"),
        (4, 40, "<I", 0, "another table of symbols"),
        (4, 4, "<I", 9, "REL section"),
        (1, 48, "<Q", 3, "alignment 3"),
        (1, 48, "<Q", 8192, "alignment 8192"),
    ],
)
def test_a_damaged_table_of_sections(
    kind: int, place: int, form: str, value: int, words: str
) -> None:
    (start,) = struct.unpack("<Q", CONTENT[SECTIONS])
    sections = ObjectFile(CONTENT)._sections
    number = next(n for n, each in enumerate(sections) if each.kind == kind and each.size)
    spoilt = bytearray(CONTENT)
    struct.pack_into(form, spoilt, start + 64 * number + place, value)
    with pytest.raises(ObjectFileError, match=words):
        load(bytes(spoilt), compiled.SIGNATURES)


@pytest.mark.parametrize(
    ("place", "form", "value", "words"),
    [
        (0, "<Q", 2**40, "outside its section"),
        (12, "<I", 10**6, "not there"),
        (8, "<I", 10, "relocation of type 10"),
        (8, "<I", 2, "too far away"),
    ],
)
def test_a_damaged_relocation(place: int, form: str, value: int, words: str) -> None:
    sections = ObjectFile(CONTENT)._sections
    table = next(each for each in sections if each.kind == 4)
    spoilt = bytearray(CONTENT)
    struct.pack_into("<q", spoilt, table.offset + 16, 2**40)
    struct.pack_into(form, spoilt, table.offset + place, value)
    with pytest.raises(ObjectFileError, match=words):
        load(bytes(spoilt), compiled.SIGNATURES)


def test_another_machine_loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    system = os.uname()
    other = os.uname_result((*system[:4], "aarch64"))
    monkeypatch.setattr(os, "uname", lambda: other)
    with pytest.raises(ObjectFileError, match="another processor"):
        load(CONTENT, compiled.SIGNATURES)


def tables() -> list[range]:
    """Return where the file has its headers: its own, the sections', symbols and relocations."""
    (start,) = struct.unpack("<Q", CONTENT[SECTIONS])
    file = ObjectFile(CONTENT)
    parts = [section for section in file._sections if section.kind in (2, 3, 4)]
    found = [range(each.offset, each.offset + each.size) for each in parts]
    return [range(64), range(start, len(CONTENT)), *found]


def try_to_link(content: bytes) -> None:
    """Link without running anything: either the file is refused, or all stays within bounds."""
    try:
        file = ObjectFile(content)
        memory = file.linked(2**46)
        places = [file.function(name) for name in compiled.SIGNATURES]
    except ObjectFileError:
        return
    assert len(memory) == file.size <= len(content) * len(file._sections) + 2**20
    assert all(0 <= place < file.size for place in places)


@given(end=st.integers(0, max(0, len(CONTENT) - 1)))
@settings(deadline=None, max_examples=50)
def test_a_file_cut_short_is_refused(end: int) -> None:
    with pytest.raises(ObjectFileError):  # its last part is the table of sections
        load(CONTENT[:end], compiled.SIGNATURES)


@given(data=st.data())
@settings(deadline=None, max_examples=150)
def test_damaged_tables_are_refused_or_harmless(data: st.DataObject) -> None:
    spoilt = bytearray(CONTENT)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.sampled_from(tables()).flatmap(st.sampled_from))
        spoilt[place] = data.draw(st.integers(0, 255))
    try_to_link(bytes(spoilt))


@given(content=st.binary(max_size=300))
@settings(deadline=None, max_examples=50)
def test_any_bytes_are_refused(content: bytes) -> None:
    for head in (b"", CONTENT[:20], CONTENT[:64]):
        with pytest.raises(ObjectFileError):
            load(head + content, compiled.SIGNATURES)


def test_where_the_loader_gives_up_llvm_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = refined(compiled.kernels(), (3, 20, 30))
    monkeypatch.setattr(object_file, "ABSOLUTE_64", 99)  # so that it does not know the file's
    with pytest.raises(ObjectFileError, match="relocation of type 1"):
        load(CONTENT, compiled.SIGNATURES)
    functions = compiled.kernels.__wrapped__()
    assert "engine" in type(functions["step"].owner).__name__.lower()
    assert refined(functions, (3, 20, 30)) == expected


def test_the_memory_is_executable_never_writable_and_lives_with_its_functions() -> None:
    loaded = load(CONTENT, compiled.SIGNATURES)
    functions = compiled._callable(loaded.addresses, loaded.memory)
    for address in loaded.addresses.values():
        assert access(address) == "r-xp"
    memory, blur = weakref.ref(loaded.memory), functions["blur_one"]
    del loaded, functions
    gc.collect()
    assert memory() is not None
    blur(0, np.zeros((0, 1), np.int32), np.ones(1, np.float32))
    del blur
    gc.collect()
    assert memory() is None


def access(address: int) -> str:
    """Return how this process may use the memory at an address, as /proc/self/maps shows it."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, shown, *_ = line.split()
        start, end = (int(edge, 16) for edge in place.split("-"))
        if start <= address < end:
            return shown
    return "no memory"


FORBIDDEN = """
import ctypes, sys
from brnf.segment import compiled
from brnf.segment.object_file import ObjectFileError, load
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE: nothing becomes executable any more
    sys.exit(3)
try:
    load(compiled._kept() or compiled.compile_object(), compiled.SIGNATURES)
except ObjectFileError as error:
    print(error)
"""


def test_a_system_that_forbids_new_code() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORBIDDEN],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if done.returncode == 3:
        pytest.skip("this kernel cannot forbid it (Linux 6.3 can)")
    assert done.stdout.startswith("may not be executed: "), done.stderr
