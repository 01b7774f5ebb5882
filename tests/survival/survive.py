"""Kill the tiny run at random moments, go on, and compare with an unbroken run to the byte: `make
test-survival`.
"""

import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import tyro

sys.path.insert(0, str(Path(__file__).parents[2]))

from runs import RESUME, SNAKEMAKE, Job, TinyRun, differences
from trainings import STAGES, survive_training

KINDS = ("kill controller", "kill group")
ENDS = ("terminate controller", "terminate group")
HUNG_AFTER = 180.0
"""Seconds for Snakemake to end after SIGTERM, its last jobs included. Its handler waits for a lock
that the very thread which it interrupts may hold (snakemake 9.27, ``exit_gracefully``): then it
hangs, and what is left to a user is SIGKILL and ``make resume``."""
EVERY_STEP = "checkpoint_seconds=0"
NETWORK = "results/tiny/brnf/seed0/network/network.pt"
HEAD = ("run", "moment", "kind", "running jobs", "lost", "outputs", "result")
WIDTHS = (4, 9, 26, 44, 8, 14, 8)


@dataclass(frozen=True)
class Options:
    """What to try."""

    moments: int = 20
    """Random moments of SIGKILL, half of them at the controller alone, half at the whole process
    group.
    """
    per_run: int = 5
    """Moments in one run."""
    trainings: tuple[str, ...] = STAGES
    """Trainings that are killed on their own."""
    settings: tuple[str, ...] = ()
    """Words for Snakemake's `--config`, such as `shards=1 companions=null` for a shorter run."""
    seed: int = 0
    """Of the moments."""


@dataclass
class Moment:
    """One signal and what it cost.

    Attributes:
        kind: of signal, and at whom.
        jobs: that were running.
        struck: time of the clock.
        after: seconds since the first job after the (re)start.
        lost: seconds of their work since it was last kept.
        whole: outputs that stood under their final name, all equal to the reference.
        hung: whether Snakemake did not end after SIGTERM and was killed.
        faults: what was wrong.
    """

    kind: str
    jobs: list[Job]
    struck: float = 0.0
    after: float = 0.0
    lost: float = 0.0
    whole: int = 0
    hung: bool = False
    faults: list[str] = field(default_factory=list)

    def row(self, run: int) -> tuple[str, ...]:
        """Return the words of its line in the tally."""
        stages = ", ".join(sorted(job.stage for job in self.jobs)) or "none"
        numbers = f"{self.lost:.1f} s", f"{self.whole} whole"
        kind = f"{self.kind}, hung" if self.hung else self.kind
        return (
            str(run),
            f"{self.after:.1f} s",
            kind,
            stages,
            *numbers,
            "FAILED" if self.faults else "equal",
        )


def show(words: tuple[str, ...]) -> None:
    """Print a line of the tally."""
    print(
        "  ".join(word.ljust(width) for word, width in zip(words, WIDTHS, strict=True)).rstrip(),
        flush=True,
    )


def told(faults: list[str]) -> list[str]:
    """Print the first faults and return all."""
    for fault in faults[:5]:
        print(f"fault: {fault}", flush=True)
    return faults


def strike(run: TinyRun, kind: str) -> Moment:
    """Send a signal and look at once whether an output stands half written under its final name;
    what is lost is known later.
    """
    moment = Moment(kind, run.jobs())
    run.signal(signal.SIGKILL if kind in KINDS else signal.SIGTERM, kind.endswith("group"))
    moment.struck = time.time()
    return moment


def settle(moment: Moment, run: TinyRun) -> None:
    """Find out how much work of the jobs that ran was lost, when they have ended."""
    if moment.kind == "kill group":
        moment.lost = sum(job.lost(moment.struck) for job in moment.jobs)
        return
    while any(job.lives() for job in moment.jobs):
        time.sleep(0.02)
    if moment.kind != "terminate controller":  # which lets its jobs end and believes them
        moment.lost = sum(job.lost(time.time()) for job in moment.jobs)


def broken_run(
    run: TinyRun, reference: TinyRun, seconds: float, kinds: list[str], moments: random.Random
) -> list[Moment]:
    """Take a run to its end through several signals.

    Arguments:
        run: in a new folder.
        reference: the unbroken run.
        seconds: that it took.
        kinds: of the signals, in their order.
        moments: draws them over the length of the run.
    """
    marks = sorted(moments.uniform(0, 0.9 * seconds) for _ in kinds)
    found: list[Moment] = []
    run.start()
    for gap, kind in zip(
        [mark - before for mark, before in zip(marks, [0.0, *marks], strict=False)],
        kinds,
        strict=True,
    ):
        old = {job.process.pid for moment in found for job in moment.jobs}
        run.wait_until(lambda old=old: any(job.process.pid not in old for job in run.jobs()))
        due = time.monotonic() + gap
        run.wait_until(lambda due=due: time.monotonic() >= due)
        if run.controller.poll() is not None:
            break
        moment = strike(run, kind)
        moment.after = gap
        moment.hung = kind in ENDS and not run.ends(HUNG_AFTER)
        if moment.hung:
            run.signal(signal.SIGKILL, whole_group=True)
        if kind != "kill controller":
            run.finish()
        moment.faults = differences(run, reference, complete=False)
        moment.whole = len(run.outputs())
        if (
            kind in ENDS
            and not moment.hung
            and any((run.folder / ".snakemake" / "locks").glob("*.lock"))
        ):
            moment.faults.append("a lock was left")
        # After SIGTERM the ordinary call must go on.
        run.start(RESUME if kind in KINDS or moment.hung else SNAKEMAKE)
        settle(moment, run)
        found.append(moment)
    status = run.finish()
    wrong = (
        [f"exit status {status}: {run.said()[-500:]}"]
        if status
        else differences(run, reference, complete=True)
    )
    for moment in found:
        moment.faults += wrong
    return found


def another_lambda(folder: Path, reference: TinyRun) -> list[str]:
    """Kill the BRNF training after a checkpoint, change lambda, go on; return what differs from a
    run that was never killed.
    """
    other = (*reference.settings, "brnf={lambda_cal: 1}")
    runs = [
        TinyRun(folder / name, reference.settings, [NETWORK]) for name in ("never killed", "killed")
    ]
    for run in runs:
        shutil.copytree(reference.folder, run.folder, symlinks=True)
    fresh, killed = runs
    fresh.settings = other
    fresh.start()
    if fresh.finish():
        return ["the run with another lambda failed"]
    for file in ("network.pt", "history.csv"):
        (killed.folder / NETWORK).with_name(file).unlink()
    checkpoint = (killed.folder / NETWORK).with_name("network.checkpoint.pt")
    killed.start()
    if not killed.wait_until(checkpoint.exists, pause=0.002):
        return ["no checkpoint was seen"]
    killed.signal(signal.SIGKILL, whole_group=True)
    killed.finish()
    killed.settings = other
    killed.start(RESUME)
    faults = ["the resumption failed"] if killed.finish() else []
    if "made with other options, inputs or code; the training starts anew" not in killed.said():
        faults.append("the checkpoint was not discarded")
    if (killed.folder / NETWORK).read_bytes() != (fresh.folder / NETWORK).read_bytes():
        faults.append("the networks differ")
    if (fresh.folder / NETWORK).read_bytes() == (reference.folder / NETWORK).read_bytes():
        faults.append("lambda made no difference")
    return faults


def main(options: Options) -> None:
    """Print the tally; its last line tells how many trials passed."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    results: list[list[str]] = []
    moments = random.Random(options.seed)
    kinds = [KINDS[number % 2] for number in range(options.moments)]
    moments.shuffle(kinds)
    with tempfile.TemporaryDirectory(prefix="survival-") as temporary:
        folder = Path(temporary)
        settings = (EVERY_STEP, *options.settings)
        reference = TinyRun(folder / "reference", settings)
        begun = time.monotonic()
        reference.start()
        if reference.finish():
            sys.exit(f"the unbroken run failed:\n{reference.said()[-2000:]}")
        seconds = time.monotonic() - begun
        print(f"unbroken run: {seconds:.0f} s, {len(reference.outputs())} output files\n")
        show(HEAD)
        waiting, ends, number = list(kinds), list(ENDS), 0
        while waiting or ends:
            number += 1
            chosen = waiting[: options.per_run] + (ends if len(waiting) <= options.per_run else [])
            run = TinyRun(folder / f"run{number}", settings)
            for moment in broken_run(
                run, reference, seconds, moments.sample(chosen, len(chosen)), moments
            ):
                show(moment.row(number))
                (waiting if moment.kind in KINDS else ends).remove(moment.kind)
                results.append(told(moment.faults))
            shutil.rmtree(run.folder)
        print("\nkilled, lambda changed, resumed: ", end="", flush=True)
        results.append(told(another_lambda(folder, reference)))
        print(
            "FAILED" if results[-1] else "the network of a run that was never killed, to the byte",
            flush=True,
        )
        for stage in options.trainings:
            line, faults = survive_training(stage, reference.folder, folder / stage, moments)
            print(line, flush=True)
            results.append(told(faults))
    failed = sum(bool(faults) for faults in results)
    print(f"{len(results) - failed} passed, {failed} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main(tyro.cli(Options))
