"""When, by what and where the results of a report were made, from their stamps alone."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from brnf.evaluate.names import stage_name
from brnf.store.stamps import Stamp

__all__ = ["Making", "duration", "making"]

MINUTE, HOUR, DAY = 60, 3600, 86400


@dataclass(frozen=True)
class Making:
    """What the stamps of all products say together.

    Attributes:
        date: time of the last one's end, ISO 8601.
        versions: package -> version, or several where products differ.
        commits: of the checkouts that ran.
        machines: on which.
        seconds: of all jobs, one after the other.
        stages: name -> number of jobs, and seconds of all, longest first.
        adopted: number of products that a user vouched for.
    """

    date: str
    versions: dict[str, str]
    commits: tuple[str, ...]
    machines: tuple[str, ...]
    seconds: float
    stages: dict[str, tuple[int, float]]
    adopted: int

    @property
    def version(self) -> str:
        """Return that of this package."""
        return self.versions.get("brnf", "")


def making(stamps: Iterable[Stamp]) -> Making | None:
    """Gather stamps; None where there are none.

    Arguments:
        stamps: of products; several of one job count once.
    """
    known = [stamp for stamp in stamps if stamp.content is not None]
    if not known:
        return None
    versions: dict[str, set[str]] = defaultdict(set)
    for stamp in known:
        for package, version in stamp.versions.items():
            versions[package].add(version)
    jobs = {
        (stamp.stage, stamp.made, stamp.seconds, *sorted(stamp.inputs)): stamp
        for stamp in known
        if not stamp.adopted
    }
    counts: dict[str, int] = defaultdict(int)
    seconds: dict[str, float] = defaultdict(float)
    for job in jobs.values():
        counts[job.stage] += 1
        seconds[job.stage] += job.seconds
    longest = sorted(seconds, key=lambda stage: (-seconds[stage], stage))
    return Making(
        date=max(stamp.made for stamp in known),
        versions={package: ", ".join(sorted(versions[package])) for package in sorted(versions)},
        commits=tuple(sorted({stamp.commit for stamp in known} - {""})),
        machines=tuple(sorted({stamp.machine for stamp in known} - {""})),
        seconds=sum(seconds.values()),
        stages={stage_name(stage): (counts[stage], seconds[stage]) for stage in longest},
        adopted=sum(stamp.adopted for stamp in known),
    )


def duration(seconds: float) -> str:
    """Return a time as one says it.

    >>> [duration(seconds) for seconds in (4.2, 1300, 12000, 1036800)]
    ['4 s', '22 min', '3 h 20 min', '12 days']
    """
    if seconds < 1.5 * MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 1.5 * HOUR:
        return f"{seconds / MINUTE:.0f} min"
    if seconds < 2 * DAY:
        hours, minutes = divmod(round(seconds / MINUTE), 60)
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days = seconds / DAY
    return f"{days:.1f} days" if days < 10 else f"{days:.0f} days"
