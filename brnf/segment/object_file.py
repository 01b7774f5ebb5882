"""Load machine code from an ELF object file of x86-64 Linux, without LLVM.

Only what LLVM makes of :mod:`brnf.segment.kernels` has to be understood: code and constants, never
written to, that refer to each other and to the C library's functions that fill and copy memory.
Anything else raises :class:`ObjectFileError`, and the caller has LLVM load the file. aarch64 is
left to LLVM altogether: there, new code also needs the instruction cache to be flushed.

References:
    System V Application Binary Interface, chapter 4 (object files); its AMD64 supplement,
    section 4.4 (relocation).
"""

import ctypes
import mmap
import os
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["MachineCode", "ObjectFile", "ObjectFileError", "load"]

ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
IDENTITY = b"\x7fELF\x02\x01\x01" + bytes(9)
"""64 bits, little endian, version 1, System V."""
RELOCATABLE, X86_64 = 1, 62
PROGRAM_BITS, SYMBOL_TABLE, STRING_TABLE, RELOCATIONS = 1, 2, 3, 4
"""Types of sections."""
ALLOCATED, EXECUTABLE = 0x2, 0x4
UNDERSTOOD = ALLOCATED | EXECUTABLE | 0x10 | 0x20 | 0x10000000
"""Flags of sections that are loaded; also those of constants and strings that may be merged with
equal ones, and of sections that may lie far from others. Writable ones are not understood."""
GLOBAL = 1
"""How symbols are bound that other files may use."""
LARGEST_SYMBOL_TYPE = 3
"""No type, data, function or section; thread-local data and others have higher numbers."""
ABSOLUTE_64, RELATIVE_32, CALL_32 = 1, 2, 4
"""``R_X86_64_64``, ``R_X86_64_PC32`` and ``R_X86_64_PLT32``."""
PAGE = 4096
"""Largest alignment of a section, bytes: where a mapping begins."""


class ObjectFileError(Exception):
    """The file is damaged, or holds what is not understood here, or may not be run here."""


class Section(NamedTuple):
    """An entry of the table of sections."""

    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


class Symbol(NamedTuple):
    """An entry of the table of symbols."""

    name: int
    info: int
    other: int
    section: int
    value: int
    size: int


class Relocation(NamedTuple):
    """An address that has to be written into a section."""

    offset: int
    info: int
    addend: int


@dataclass(frozen=True)
class MachineCode:
    """Loaded functions."""

    addresses: Mapping[str, int]
    """Address of each function, as long as ``memory`` lives."""
    memory: mmap.mmap


def load(content: bytes, names: Iterable[str]) -> MachineCode:
    """Load an object file into memory that can be executed.

    Arguments:
        content: the file.
        names: functions that are looked up in it.

    Raises:
        ObjectFileError: the file is damaged, holds what is not understood or not all functions; or
            this system is another one or lets no memory be executed.
    """
    _require(sys.platform == "linux", f"not loaded on {sys.platform}")
    _require(os.uname().machine == "x86_64" and sys.maxsize > 2**32, "another processor's code")
    file = ObjectFile(content)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    try:
        memory = mmap.mmap(-1, file.size, flags, mmap.PROT_READ | mmap.PROT_WRITE)
    except OSError as error:
        raise ObjectFileError(f"no memory for it: {error}") from error
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    memory[:] = file.linked(start)
    addresses = {name: start + file.function(name) for name in names}
    # Never writable and executable at once: hardened systems forbid it, rightly.
    access = ctypes.c_int(mmap.PROT_READ | mmap.PROT_EXEC)
    library = ctypes.CDLL(None, use_errno=True)
    if library.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(file.size), access):
        raise ObjectFileError(f"may not be executed: {os.strerror(ctypes.get_errno())}")
    return MachineCode(addresses, memory)


class ObjectFile:
    """The parsed file: where its sections go, and what has to be written into them.

    Arguments:
        content: the file.

    Raises:
        ObjectFileError: see :func:`load`.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._sections = self._read_sections()
        self._places: dict[int, int] = {}
        """Where a loaded section begins in memory, by its number, bytes from the start."""
        self.size = 0
        """Bytes of memory that all loaded sections take."""
        for number, section in enumerate(self._sections):
            if section.flags & ALLOCATED and section.size:
                self._place(number, section)
        _require(self.size > 0, "nothing to load")
        tables = [n for n, each in enumerate(self._sections) if each.kind == SYMBOL_TABLE]
        _require(len(tables) == 1, f"{len(tables)} tables of symbols")
        (self._table,) = tables
        table = self._sections[self._table]
        self._symbols = [Symbol(*each) for each in self._entries(table, "<IBBHQQ")]
        strings = self._section(table.link)
        _require(strings.kind == STRING_TABLE, "symbols without names")
        self._strings = self._bytes(strings.offset, strings.size)

    def linked(self, start: int) -> bytes:
        """Return the memory's content when it begins at an address."""
        memory = bytearray(self.size)
        for number, place in self._places.items():
            section = self._sections[number]
            memory[place : place + section.size] = self._bytes(section.offset, section.size)
        for number, relocation in self._relocations():
            kind, symbol = relocation.info & 0xFFFFFFFF, relocation.info >> 32
            _require(kind in (ABSOLUTE_64, RELATIVE_32, CALL_32), f"relocation of type {kind}")
            form = "<Q" if kind == ABSOLUTE_64 else "<i"
            last = self._sections[number].size - struct.calcsize(form)
            _require(relocation.offset <= last, "relocation outside its section")
            place = self._places[number] + relocation.offset
            value = self._address(symbol, start) + relocation.addend
            if kind == ABSOLUTE_64:
                value %= 2**64
            else:
                value -= start + place
                _require(-(2**31) <= value < 2**31, "relative address too far away")
            struct.pack_into(form, memory, place, value)
        return bytes(memory)

    def function(self, name: str) -> int:
        """Return where a function begins, bytes from the start of the memory."""
        for symbol in self._symbols:
            visible = symbol.info >> 4 == GLOBAL and symbol.section in self._places
            if visible and self._name(symbol) == name.encode():
                section = self._sections[symbol.section]
                _require(section.flags & EXECUTABLE, f"{name} is no function")
                _require(symbol.value < section.size, f"{name} outside its section")
                return self._places[symbol.section] + symbol.value
        raise ObjectFileError(f"no function {name}")

    def _read_sections(self) -> list[Section]:
        header = ELF_HEADER.unpack(self._bytes(0, ELF_HEADER.size))
        identity, kind, machine, version, _, _, offset, *_, entry_size, count, _ = header
        _require(identity == IDENTITY and version == 1, "no ELF object file of 64 bits")
        _require(kind == RELOCATABLE and machine == X86_64, f"type {kind} of machine {machine}")
        form = struct.Struct("<IIQQQQIIQQ")
        _require(entry_size == form.size, f"sections of {entry_size} bytes")
        return [Section(*each) for each in form.iter_unpack(self._bytes(offset, count * form.size))]

    def _place(self, number: int, section: Section) -> None:
        """Give a section its place behind those before it."""
        _require(section.kind == PROGRAM_BITS, f"loaded section of type {section.kind}")
        _require(not section.flags & ~UNDERSTOOD, f"section with flags {section.flags:#x}")
        alignment = max(1, section.alignment)
        _require(alignment <= PAGE and not alignment & alignment - 1, f"alignment {alignment}")
        self._bytes(section.offset, section.size)
        self._places[number] = -(-self.size // alignment) * alignment
        self.size = self._places[number] + section.size

    def _relocations(self) -> Iterator[tuple[int, Relocation]]:
        """Yield the relocations of all loaded sections, each with the section's number."""
        for section in self._sections:
            if section.kind == RELOCATIONS and section.info in self._places:
                _require(section.link == self._table, "relocations by another table of symbols")
                for each in self._entries(section, "<QQq"):
                    yield section.info, Relocation(*each)
            else:  # the older kind of table, without addends
                _require(section.kind != 9 or section.info not in self._places, "REL section")

    def _address(self, number: int, start: int) -> int:
        """Return the address that a symbol stands for."""
        _require(number < len(self._symbols), "relocation by a symbol that is not there")
        symbol = self._symbols[number]
        _require(symbol.info & 0xF <= LARGEST_SYMBOL_TYPE, f"symbol of type {symbol.info & 0xF}")
        if symbol.section in self._places:
            inside = symbol.value <= self._sections[symbol.section].size
            _require(inside, "symbol outside its section")
            return start + self._places[symbol.section] + symbol.value
        name = self._name(symbol)
        _require(symbol.section == 0 and name in _foreign(), f"needs {name.decode('latin-1')}")
        return _foreign()[name]

    def _name(self, symbol: Symbol) -> bytes:
        end = self._strings.find(b"\0", symbol.name)
        _require(end >= 0, "name outside its section")
        return self._strings[symbol.name : end]

    def _section(self, number: int) -> Section:
        _require(number < len(self._sections), f"no section {number}")
        return self._sections[number]

    def _entries(self, section: Section, form: str) -> Iterator[tuple[int, ...]]:
        _require(section.size % struct.calcsize(form) == 0, "table with half an entry")
        return struct.iter_unpack(form, self._bytes(section.offset, section.size))

    def _bytes(self, offset: int, size: int) -> bytes:
        """Return a part of the file that must be there."""
        _require(offset + size <= len(self._content), "file ends too early")
        return self._content[offset : offset + size]


def _foreign() -> dict[bytes, int]:
    """Return the addresses of the C library's functions that LLVM takes for granted.

    ``memmove`` does what ``memcpy`` does, and more.
    """
    functions = {b"memset": ctypes.memset, b"memcpy": ctypes.memmove, b"memmove": ctypes.memmove}
    found = {name: ctypes.cast(each, ctypes.c_void_p).value for name, each in functions.items()}
    return {name: address for name, address in found.items() if address}


def _require(condition: object, otherwise: str) -> None:
    if not condition:
        raise ObjectFileError(otherwise)
