"""Machine code of the dense CRF: compiled once for a processor, kept, and loaded without numba.

numba takes half a second and 90 MiB to import, and more before it has loaded its own cache, which
is too much for the many short jobs of a workflow. So what LLVM makes of
:mod:`brnf.segment.kernels` is kept as an object file of some 30 KiB, which
:mod:`brnf.segment.object_file` loads within milliseconds. Where it cannot, llvmlite does, the part
of numba that holds LLVM: its import alone takes 40 to 100 MiB, as Linux maps large files.

The file lies in ``$NUMBA_CACHE_DIR``, ``$XDG_CACHE_HOME`` or ``~/.cache``, in the folder ``brnf``,
never beside the package, which may not be writable. Its name holds a hash of all that decides
about its content. Where it cannot be kept, each process compiles anew.
"""

import ctypes
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from brnf.engine.memory import release_code
from brnf.segment.object_file import ObjectFileError, load
from brnf.segment.processor import describe_processor, shown_features

__all__ = ["SIGNATURES", "cache_folder", "compile_object", "kernels"]

SIGNATURES = {
    "enter": "v iiLI",
    "simplices_2": "i iiiBFFLiiiLILLIFFFFII",
    "simplices_5": "i iiiBFFLiiiLILLIFFFFII",
    "chains": "i iiLiLIIBI",
    "blur_one": "v iIF",
    "blur": "v iIiF",
    "splat_one": "v iiIFF",
    "slice_one": "v iiIFFF",
    "step_two": "v iFFfIFFFfIFFFbbF",
    "step": "v iiiFFfIFFFfIFFFbbFF",
}
"""Result and arguments of each kernel: v nothing, i int64, f float32, b bool; pointers to B uint8,
I int32, L int64, F float32."""
LIBRARY = "libllvmlite"
"""Holds LLVM. At least 30 MiB of it are read, and are of no use once the kernels are loaded."""
SOURCES = ("compiled.py", "kernels.py", "processor.py")
"""Modules that decide about the machine code."""
HEADER = 32
"""Bytes of the checksum that a kept file begins with."""

Code = Callable[..., Any]


@cache
def kernels() -> Mapping[str, Code]:
    """Return the compiled kernels of this process by name; arguments are numbers and arrays.

    Raises:
        TypeError, ctypes.ArgumentError: an array has another type or is not in C order.
    """
    code = _kept() or _compiled()
    try:
        loaded = load(code, SIGNATURES)
    except ObjectFileError:
        return _by_llvm(code)
    return _callable(loaded.addresses, loaded.memory)


@cache
def _llvm() -> Any:
    """Import LLVM when it is needed."""
    import llvmlite.binding as llvm

    release_code(LIBRARY)
    return llvm


def cache_folder() -> Path | None:
    """Return the folder of kept machine code; None where no variable and no home tells one."""
    for variable, below in (("NUMBA_CACHE_DIR", ""), ("XDG_CACHE_HOME", ""), ("HOME", ".cache")):
        if os.environ.get(variable):
            return Path(os.environ[variable], below, "brnf")
    return None


def _file() -> Path | None:
    """Return the place of the machine code of these kernels for this processor."""
    folder = cache_folder()
    decides = [
        *(Path(__file__).with_name(name).read_bytes() for name in SOURCES),
        *(version(package).encode() for package in ("numba", "llvmlite")),
        (describe_processor() or _described_by_llvm()).encode(),
    ]
    name = hashlib.sha256(b"\0".join(decides)).hexdigest()[:20]
    return None if folder is None else folder / f"dense-crf-{name}.o"


def _described_by_llvm() -> str:
    llvm = _llvm()
    features = llvm.get_host_cpu_features().flatten()
    return "\n".join([llvm.get_process_triple(), llvm.get_host_cpu_name(), features])


def _kept() -> bytes | None:
    """Return kept machine code; None where there is none or where it is damaged."""
    path = _file()
    with suppress(OSError):
        content = path.read_bytes() if path else b""
        if hashlib.sha256(content[HEADER:]).digest() == content[:HEADER]:
            return content[HEADER:]
    return None


def _compiled() -> bytes:
    """Compile, keep what came of it if possible, and tell it on the standard error."""
    began = time.monotonic()
    code = compile_object()
    path = _file()
    kept = "kept in no folder, as none is set"
    if path is not None:
        try:
            _keep(path, hashlib.sha256(code).digest() + code)
            kept = f"kept in {path.parent}"
        except OSError as error:
            kept = f"not kept in {path.parent} ({error.strerror}); NUMBA_CACHE_DIR names another"
    seconds = time.monotonic() - began
    print(f"dense CRF compiled in {seconds:.1f} s, {kept}", file=sys.stderr, flush=True)
    return code


def _keep(path: Path, content: bytes) -> None:
    """Write a file whole; of several processes that do so at once, the last one stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), 0o644)  # mkstemp's 0600 would shut out other users
            file.write(content)
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


def _target() -> Any:
    """Return LLVM's description of this processor, with numba's own settings."""
    llvm = _llvm()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=shown_features(llvm.get_host_cpu_features()),
        opt=3,
        reloc="static" if llvm.get_process_triple().startswith("x86") else "default",
        codemodel="jitdefault",
    )


def compile_object() -> bytes:
    """Compile all kernels into one object file, which needs nothing of Python and numba.

    numba does not vectorise straight-line code, so LLVM's passes run once more with that.
    """
    llvm, target = _llvm(), _target()
    module = llvm.parse_assembly("")
    module.triple = llvm.get_process_triple()
    module.data_layout = str(target.target_data)
    for text in _assembly():
        module.link_in(llvm.parse_assembly(text))
    for function in module.functions:
        if not function.is_declaration and function.name not in SIGNATURES:
            function.linkage = "internal"
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_vectorization = tuning.slp_vectorization = True
    builder = llvm.create_pass_builder(target, tuning)
    builder.getModulePassManager().run(module, builder)
    foreign = [each.name for each in module.functions if each.is_declaration]
    if any(not name.startswith("llvm.") for name in foreign):
        raise RuntimeError(f"the compiled CRF asks for {', '.join(foreign)}")
    code: bytes = target.emit_object(module)
    return code


def _assembly() -> list[str]:
    """Return LLVM's assembly language of every kernel, as numba translates it."""
    from numba import cfunc, types

    from brnf.segment.kernels import KERNELS

    pointed = {"B": types.uint8, "I": types.int32, "L": types.int64, "F": types.float32}
    numbers = {"v": types.void, "i": types.int64, "f": types.float32, "b": types.boolean}
    known = numbers | {letter: types.CPointer(kind) for letter, kind in pointed.items()}  # type: ignore[no-untyped-call]
    texts = []
    for name, signature in SIGNATURES.items():
        result, arguments = signature.split()
        typed = known[result](*(known[letter] for letter in arguments))
        kernel = cfunc(typed, error_model="numpy")(KERNELS[name])
        texts.append(kernel.inspect_llvm().replace(kernel.native_name, name))
    return texts


def _by_llvm(code: bytes) -> Mapping[str, Code]:
    """Load machine code by LLVM, which understands every object file that it writes."""
    llvm = _llvm()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    addresses = {name: engine.get_function_address(name) for name in SIGNATURES}
    release_code(LIBRARY)
    return _callable(addresses, engine)


def _callable(addresses: Mapping[str, int], owner: object) -> Mapping[str, Code]:
    """Make functions out of addresses, which are valid as long as their owner lives."""
    kinds: dict[str, Any] = {
        "v": None,
        "i": ctypes.c_int64,
        "f": ctypes.c_float,
        "b": ctypes.c_bool,
    }
    pointed = {"B": np.uint8, "I": np.int32, "L": np.int64, "F": np.float32}
    for letter, kind in pointed.items():
        kinds[letter] = np.ctypeslib.ndpointer(kind, flags="C_CONTIGUOUS")

    def callable_of(name: str, signature: str) -> Code:
        result, arguments = signature.split()
        prototype = ctypes.CFUNCTYPE(kinds[result], *(kinds[letter] for letter in arguments))
        code_of: Code = prototype(addresses[name])
        code_of.__dict__["owner"] = owner  # freed only with the last of its functions
        return code_of

    return {name: callable_of(name, signature) for name, signature in SIGNATURES.items()}


if __name__ == "__main__":
    kernels()
    print(f"dense CRF: {_file()}")
