"""The command line of a stage, and how its errors are told."""

import inspect
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import fields, is_dataclass, make_dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, get_origin, get_type_hints

import tyro

from brnf.config.fields import plain, schema_of
from brnf.config.schema import violation
from brnf.engine.memory import tell_peak
from brnf.engine.runtime import FIRST
from brnf.engine.stamping import set_aside, stamped
from brnf.engine.torchrun_numbers import torchrun_number
from brnf.errors import DamagedProduct, UserError
from brnf.store.file_lists import expanded
from brnf.store.files import FULL

__all__ = ["BY_WORKFLOW", "run_stage"]

TOGETHER = torchrun_number("WORLD_SIZE", 1) > 1
"""Whether there are others that train with this process."""
ANSWER = timedelta(seconds=10)
"""That torchrun takes at most to say how many processes have told a mistake."""
LEGEND = "[P] printed by the paper, [B] from its code bases, [D] our decision: docs/method.md"
"""Explains the marks of origin on every help page."""
HUNG_UP = ("closed by peer", "reset by peer", "Broken pipe", "remote process exited")
PARTNER_LOST = (
    "another of the processes that train together has ended; look for its error above and run again"
)
NO_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "STATUS_ALLOC_FAILED",  # of cuBLAS and cuDNN
    "Cannot allocate memory",
    "Unable to allocate",
)
BY_WORKFLOW = "BRNF_BY_WORKFLOW"
"""Environment variable that the workflow sets: its rules can make every product of a stage again.
"""
SOURCE = "BRNF_SOURCE"
"""Environment variable that the workflow sets: the folder of the package whose code it knows."""


def run_stage(run: Callable[..., None]) -> None:
    """Run a stage from the command line that its signature describes.

    Arguments:
        run: ``run(inputs, outputs, options, runtime)``, each a dataclass; their fields become the
            flags.

    Ends with a line on the standard error of the most memory that the process has held. Exits with
    status 2 and one line there for a mistake of the user or a lack of the machine, with status 143
    after SIGTERM; temporary files are removed first.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + signal.SIGTERM))
    if not FIRST:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, it stays open to the end
    module = sys.modules[run.__module__].__spec__
    prog = f"python -m {module.name}" if module else None
    try:
        arguments = _arguments(run)
        words = _without_ranges(sys.argv[1:], get_type_hints(run).get("inputs"))
        given: Any = tyro.cli(
            arguments,
            prog=prog,
            description=f"{inspect.getdoc(run) or ''}\n\n{LEGEND}",
            config=(tyro.conf.FlagConversionOff,),
            args=words,
        )
        if hasattr(given, "options"):
            _check_bounds(given.options)
        if hasattr(given, "inputs") and hasattr(given, "outputs"):
            _check_apart(given.inputs, given.outputs)
        _check_source()
        stamps = stamped(module.name, words, given) if FIRST and module else nullcontext()
        with stamps:
            run(**vars(given))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        line = _told(error)
        if line is None:
            raise
        signal.signal(
            signal.SIGTERM, signal.SIG_DFL
        )  # all is unwound; torchrun may end this process while it ends
        if _speaks():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
    if FIRST:
        tell_peak()


def _arguments(run: Callable[..., None]) -> type:
    """Return a class with the arguments of a stage, whose fields are flags without a prefix.

    Those of a section of the configuration keep the section's name: ``--flow.blocks``.
    """
    hints = get_type_hints(run)
    fields = [
        (name, Annotated[hints[name], tyro.conf.arg(name="")])
        for name in inspect.signature(run).parameters
    ]
    return make_dataclass("Arguments", fields)


def _without_ranges(words: Sequence[str], inputs: type | None) -> list[str]:
    """Return a command line with the ranges written out by which the workflow names many inputs."""
    lists = {
        f"--{field.name.replace('_', '-')}"
        for field in (fields(inputs) if inputs else ())
        if get_origin(field.type) is tuple
    }
    found: list[str] = []
    flag = ""
    for word in words:
        flag = word if word.startswith("--") else flag
        found += expanded(word) if flag in lists else [word]
    return found


def _check_bounds(options: Any) -> None:
    """Hold the sections of the configuration among a stage's options to their bounds.

    Raises:
        UserError: names the key.
    """
    for field in fields(options):
        section = getattr(options, field.name)
        if not is_dataclass(section) or isinstance(section, type):
            continue
        if fault := violation(plain(section), schema_of(type(section))):
            raise UserError(f"{field.name}.{fault[0]}: {fault[1]}")


def _check_apart(inputs: Any, outputs: Any) -> None:
    """Refuse an output that is an input, or a folder with an input in it: it would be replaced.

    Raises:
        UserError: names the output.
    """
    read, written = (
        [
            path
            for value in vars(part).values()
            for path in (value if isinstance(value, tuple) else (value,))
            if isinstance(path, Path)
        ]
        for part in (inputs, outputs)
    )
    for path in written:
        place = path.resolve()
        if found := [one for one in read if place in (one.resolve(), *one.resolve().parents)]:
            raise UserError(f"{path}: would replace the input {found[0]}; name another output")


def _check_source() -> None:
    """Hold this source to the one whose fingerprint the workflow took.

    Raises:
        UserError: it is another one.
    """
    source = os.environ.get(SOURCE)
    own = Path(__file__).parents[1]
    if source is not None and own.resolve() != Path(source, "brnf").resolve():
        raise UserError(
            f"{own}: is run in the place of {Path(source, 'brnf')}, whose code the workflow knows; "
            "remove it, or take its folder off PYTHONPATH"
        )


def _speaks() -> bool:
    """Return whether this process is to tell its mistake: of those that train together the first to
    meet one, for most meet it all.
    """
    if not TOGETHER:
        return True
    # Not above: a stage without a network does without torch.
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    try:
        counter = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            timeout=ANSWER,
        )
        return counter.add("brnf mistakes", 1) == 1
    except RuntimeError:  # torchrun has ended
        return True


def _told(error: Exception) -> str | None:
    """Return the line that a user is told, or None for a fault of the program."""
    if isinstance(error, DamagedProduct):
        return _set_aside(error) if os.environ.get(BY_WORKFLOW) else str(error)
    if isinstance(error, UserError):
        return str(error)
    if TOGETHER and (type(error).__name__.startswith("Dist") or "gloo" in str(error)):
        if any(words in str(error) for words in HUNG_UP):
            return PARTNER_LOST
        return (
            "the devices of this training cannot work together "
            f"({str(error).splitlines()[0]}); set devices: 1"
        )
    if isinstance(error, OSError) and error.errno in FULL:
        place = error.filename or tempfile.gettempdir()
        return f"{place}: cannot be written ({error.strerror}); {FULL[error.errno]} and run again"
    if isinstance(error, FileNotFoundError) and "No usable temporary directory" in str(error):
        return "no folder for temporary files can be written; free space, or set TMPDIR to another"
    if isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY):
        return "out of memory; lower batch_size, image_long_side or workers, or ask for more memory"
    return None


def _set_aside(error: DamagedProduct) -> str:
    """Rename a damaged product, so that the workflow's next run makes it anew, and return what the
    user is told.
    """
    aside = set_aside(error.path)
    try:
        if aside.is_dir():
            shutil.rmtree(aside)
        error.path.replace(aside)
    except FileNotFoundError:
        pass  # another job that reads it was faster
    except OSError:
        return str(error)
    return (
        f"{error.path}: {error.fault}; it is now {aside.name}, run the workflow again: "
        f"{error.stage} makes it anew"
    )
