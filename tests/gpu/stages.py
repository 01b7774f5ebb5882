"""Every stage on the device against the CPU, and twice; a training that was broken off."""

from collections.abc import Iterator
from contextlib import redirect_stdout
from os import devnull
from pathlib import Path
from unittest import mock

from brnf.engine.trainer import Trainer
from tests.gpu.chain import CALLS, TRAININGS, Call, Chain
from tests.gpu.compare import TOLERANCES, difference
from tests.gpu.draws import same_draws
from tests.gpu.result import Context, Result

__all__ = ["against_the_cpu", "broken_off", "prepare", "twice"]


class _BrokenOff(Exception):
    pass


def prepare(context: Context) -> Iterator[Result]:
    """Run all stages on the CPU; the others compare with these files."""
    chain = context.chain
    on_cpu = Context("cpu", context.folder, context.name)
    chain.prepare()
    with open(devnull, "w") as silence, redirect_stdout(silence), same_draws():
        for call in CALLS:
            if call.stage == "train_segmentation" and not chain.file("labels").exists():
                chain.label()
            chain.run(call, chain.file(""), on_cpu.runtime())
    yield Result("stages on the CPU", f"{len(CALLS)}")


def against_the_cpu(context: Context) -> Iterator[Result]:
    """Compare each stage, from the same files, with equal draws, in each precision."""
    chain = context.chain
    for precision in context.precisions:
        for call in CALLS:
            if precision == "fp32" or hasattr(chain.options(call), "precision"):
                yield _compared(context, chain, call, precision)


def _compared(context: Context, chain: Chain, call: Call, precision: str) -> Result:
    folder = context.own / precision
    with open(devnull, "w") as silence, redirect_stdout(silence), same_draws():
        chain.run(call, folder, context.runtime(), precision)
    told, passed = [], True
    for output, kind in call.judged.items():
        file = call.outputs[output]
        key, found = difference(kind, folder / file, chain.file(file))
        most = TOLERANCES[key][precision]
        told.append(f"{key} differ by {found:.1e} (at most {most:.0e})")
        passed = passed and found <= most
    return Result(f"{call.name}, {precision}", ", ".join(told), passed)


def twice(context: Context) -> Iterator[Result]:
    """Run each stage twice with ``deterministic``: equal bytes."""
    chain = context.chain
    for call in CALLS:
        for turn in ("first", "second"):
            with open(devnull, "w") as silence, redirect_stdout(silence):
                chain.run(call, context.own / turn, context.runtime(deterministic=True))
        yield Result(
            f"{call.name} twice", *_same(context.own / "first", context.own / "second", call)
        )


def broken_off(context: Context) -> Iterator[Result]:
    """Break each training off and let it go on, with ``deterministic``: equal bytes."""
    chain = context.chain
    runtime = context.runtime(deterministic=True, checkpoint_seconds=0)
    for call in TRAININGS:
        whole, broken = context.own / "whole", context.own / "broken"
        with open(devnull, "w") as silence, redirect_stdout(silence):
            chain.run(call, whole, runtime)
            try:
                with _breaking(after=2):
                    chain.run(call, broken, runtime)
            except _BrokenOff:
                pass
            left = list(broken.glob("*.checkpoint.pt"))
            chain.run(call, broken, runtime)
        told, passed = _same(whole, broken, call)
        found = f"{told}, {len(left)} checkpoint"
        yield Result(f"{call.name} broken off after step 2", found, passed and len(left) == 1)


def _breaking(after: int) -> "mock._patch[object]":
    """Let the step that follows so many others raise."""
    begin = Trainer.step

    def step(self: Trainer[object], batch: object) -> object:
        if len(self.history) == after:
            raise _BrokenOff
        return begin(self, batch)

    return mock.patch.object(Trainer, "step", step)


def _same(one: Path, other: Path, call: Call) -> tuple[str, bool]:
    """Say which outputs of a stage differ between two folders."""
    differ = []
    for file in call.outputs.values():
        ours, theirs = one / file, other / file
        names = sorted(path.name for path in ours.iterdir()) if ours.is_dir() else [""]
        if any((ours / name).read_bytes() != (theirs / name).read_bytes() for name in names):
            differ.append(file)
    return (f"{', '.join(differ)} differ" if differ else "equal bytes"), not differ
