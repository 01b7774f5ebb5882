"""Ask the package index for a wheel of every pinned version, for each Python and processor.

Nothing is installed, and pip reads a wheel's metadata only. `make check-install` runs it, for fewer
Pythons with ARGS='--pythons 3.11 3.14'. Ends with 1 where a package that the project needs has no
wheel and is no known exception, is not pinned, or is pinned at a version that is too old or new.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
MACHINES = ("x86_64", "aarch64")
GLIBC = 28  # the newest glibc that a wheel may ask for is 2.28: Debian 10, RHEL 8, Ubuntu 20.04

# Packages without a wheel that installs all the same where there is no compiler, and why.
EXCEPTIONS = {
    "freia": "pure Python",
    "connection-pool": "pure Python",
    "immutables": "works without its C part, which envs/install.sh leaves out",
}


@dataclass(frozen=True)
class Target:
    """One version of Python on one processor."""

    python: str
    machine: str

    def options(self) -> list[str]:
        """Return pip's options that ask for this target's wheels."""
        platforms = [f"manylinux_2_{minor}_{self.machine}" for minor in range(GLIBC, 4, -1)]
        platforms += [
            f"{name}_{self.machine}"
            for name in ("manylinux2014", "manylinux2010", "manylinux1", "linux")
        ]
        words = ["--python-version", self.python, "--implementation", "cp"]
        return words + [word for platform in platforms for word in ("--platform", platform)]

    def environment(self) -> dict[str, str]:
        """Return what environment markers see on this target."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }


@dataclass
class Wheels:
    """What the index has for one target."""

    found: dict[str, dict[str, Any]] = field(
        default_factory=dict
    )  # name to an entry of pip's report
    missing: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Verdict:
    """The packages a target needs, each in one of these."""

    wheels: list[str]
    exceptions: list[str]
    problems: list[str]


def read_pins(path: Path) -> dict[str, str]:
    """Return the version of each package in a file of constraints, by its canonical name."""
    lines = (line.strip() for line in path.read_text().splitlines())
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def read_requirements(path: Path) -> list[Requirement]:
    """Return what a pyproject.toml asks for: to build, to run, and for every extra."""
    content = tomllib.loads(path.read_text())
    project = content["project"]
    extras = (line for listed in project["optional-dependencies"].values() for line in listed)
    return [
        Requirement(line)
        for line in (*content["build-system"]["requires"], *project["dependencies"], *extras)
    ]


def ask_index(target: Target, pins: Mapping[str, str]) -> Wheels:
    """Ask pip for the wheels of all pins; one that pip lacks is left out of the next try.

    Raises:
        RuntimeError: if pip fails for another reason.
    """
    wheels = Wheels()
    while left := {name: version for name, version in pins.items() if name not in wheels.missing}:
        with tempfile.TemporaryDirectory() as folder:
            asked, report = Path(folder, "asked.txt"), Path(folder, "report.json")
            suspects_first = sorted(
                left, key=lambda name: (name not in EXCEPTIONS, name)
            )  # pip stops at the first it lacks
            asked.write_text("".join(f"{name}=={left[name]}\n" for name in suspects_first))
            words = [
                "install",
                "--dry-run",
                "--no-deps",
                "--ignore-installed",
                "--only-binary=:all:",
            ]
            words += [
                "--use-feature=fast-deps",
                "--quiet",
                "--target",
                folder,
                "--report",
                str(report),
                "--requirement",
                str(asked),
            ]
            command = [sys.executable, "-m", "pip", *words, *target.options()]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                entries = json.loads(report.read_text())["install"]
                wheels.found = {
                    canonicalize_name(entry["metadata"]["name"]): entry for entry in entries
                }
                return wheels
        lacking = re.search(r"No matching distribution found for ([\w.-]+)==", done.stderr)
        if lacking is None:
            raise RuntimeError(
                f"pip failed for Python {target.python} on {target.machine}: {done.stderr.strip()}"
            )
        wheels.missing.add(canonicalize_name(lacking[1]))
    return wheels


def of_any_target(wheels: Wheels, target: Target) -> dict[str, dict[str, Any]]:
    """Return the entries whose wheel is pure Python and fit for the target's Python too."""
    return {
        name: entry
        for name, entry in wheels.found.items()
        if entry["download_info"]["url"].endswith("-none-any.whl")
        and SpecifierSet(entry["metadata"].get("requires_python", "")).contains(
            f"{target.python}.0"
        )
    }


def ask_for_all(targets: Iterable[Target], pins: Mapping[str, str]) -> dict[Target, Wheels]:
    """Ask for every target's wheels; for those of pure Python only once."""
    first, *others = targets
    asked = {first: ask_index(first, pins)}

    def ask(target: Target) -> tuple[Target, Wheels]:
        common = of_any_target(asked[first], target)
        wheels = ask_index(
            target, {name: version for name, version in pins.items() if name not in common}
        )
        wheels.found |= common
        return target, wheels

    with ThreadPoolExecutor(4) as pool:  # they wait for the index
        return asked | dict(pool.map(ask, others))


def judge(
    target: Target, wheels: Wheels, pins: Mapping[str, str], requirements: Iterable[Requirement]
) -> Verdict:
    """Follow the requirements whose markers hold on the target, and name what is wrong."""
    seen: set[tuple[str, str]] = set()
    problems: set[str] = set()
    left = [(requirement, "") for requirement in requirements]
    while left:
        requirement, extra = left.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate(
            {**target.environment(), "extra": extra}
        ):
            continue
        if name not in pins:
            problems.add(f"{name} is not in constraints.txt")
        elif not requirement.specifier.contains(pins[name], prereleases=True):
            problems.add(f"{name}=={pins[name]} is pinned, but {requirement} is needed")
        for part in {"", *requirement.extras} - {
            known for package, known in seen if package == name
        }:
            seen.add((name, part))
            lines = wheels.found.get(name, {}).get("metadata", {}).get("requires_dist", [])
            left += [(Requirement(line), part) for line in lines]
    needed = {name for name, _ in seen}
    lacking = needed & wheels.missing
    problems |= {f"{name}=={pins[name]} has no wheel" for name in lacking - EXCEPTIONS.keys()}
    return Verdict(
        sorted(needed & wheels.found.keys()), sorted(lacking & EXCEPTIONS.keys()), sorted(problems)
    )


def table(verdicts: Mapping[Target, Verdict]) -> str:
    """Lay out one row a Python and one column a processor."""
    machines = list(dict.fromkeys(target.machine for target in verdicts))
    rows = [["Python", *machines], ["---"] * (1 + len(machines))]
    for python in dict.fromkeys(target.python for target in verdicts):
        of_row = [verdicts[Target(python, machine)] for machine in machines]
        cells = [
            f"{len(one.wheels)} wheels, without: {', '.join(one.exceptions + one.problems) or '-'}"
            for one in of_row
        ]
        rows.append([python, *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows)


def idle_exceptions(verdicts: Mapping[Target, Verdict]) -> list[str]:
    """Return the exceptions that no target needs any longer."""
    used = {name for verdict in verdicts.values() for name in verdict.exceptions}
    return sorted(EXCEPTIONS.keys() - used)


def main() -> int:
    """Print the table, the exceptions and the problems; return 1 if there are any of the last."""
    parser = argparse.ArgumentParser(
        description="Ask the package index for a wheel of every pinned version."
    )
    parser.add_argument(
        "--pythons", nargs="+", choices=PYTHONS, default=PYTHONS, help="versions to ask for"
    )
    parser.add_argument(
        "--machines", nargs="+", choices=MACHINES, default=MACHINES, help="processors to ask for"
    )
    chosen = parser.parse_args()
    pins, requirements = (
        read_pins(ROOT / "constraints.txt"),
        read_requirements(ROOT / "pyproject.toml"),
    )
    targets = [Target(python, machine) for python in chosen.pythons for machine in chosen.machines]
    try:
        wheels = ask_for_all(targets, pins)
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    verdicts = {target: judge(target, wheels[target], pins, requirements) for target in targets}
    print(table(verdicts))
    for name in sorted({name for verdict in verdicts.values() for name in verdict.exceptions}):
        print(f"no wheel of {name}: {EXCEPTIONS[name]}")
    if len(targets) == len(PYTHONS) * len(MACHINES):
        for name in idle_exceptions(verdicts):
            print(f"{name} has wheels everywhere: it need be no exception in envs/check_install.py")
    for target, verdict in verdicts.items():
        for problem in verdict.problems:
            print(f"error: Python {target.python} on {target.machine}: {problem}", file=sys.stderr)
    return int(any(verdict.problems for verdict in verdicts.values()))


if __name__ == "__main__":
    sys.exit(main())
