"""Spoil files of every kind that the package reads, and count how reading them ends: ``python -m
tests.fuzz``.

Each must end in a clean result or a ``UserError`` of one line, within a time limit, without partial
output. The kinds ``meant ...`` are valid files with another meaning than their reader may take them
for: these must end in the right value, a warning or one line. The last line is ``N passed, M
failed``; the seed and the number that a failure names make the same file again: ``--case
KIND:NUMBER``.
"""

import argparse
import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch

from tests.fuzz.kinds import make_kinds
from tests.fuzz.runner import case, run


def main() -> int:
    """Run what the command line asks for and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--share", type=float, default=1.0, help="of the files of a full run")
    parser.add_argument("--seed", type=int, default=0, help="decides every spoilt byte")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--kinds", nargs="*", default=[], help="only these")
    parser.add_argument(
        "--case", help="KIND:NUMBER: run one case here, say how it ends and keep its files"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    folder = Path(tempfile.mkdtemp(prefix="brnf-fuzz."))
    kinds = [
        kind
        for kind in make_kinds(folder / "valid")
        if not arguments.kinds or kind.name in arguments.kinds
    ]
    if arguments.case:
        name, number = arguments.case.rsplit(":", 1)
        outcome, told = case(
            next(kind for kind in kinds if kind.name == name),
            arguments.seed,
            int(number),
            folder / "case",
        )
        print(f"{outcome}: {told}\nfiles: {folder / 'case'}")
        return outcome == "failure"
    start = time.monotonic()
    tallies = run(kinds, arguments.share, arguments.seed, arguments.jobs, folder)
    shutil.rmtree(folder)
    for tally in tallies.values():
        for failure in tally.failures:
            print(failure)
    print(f"{'kind':16}{'files':>8}{'clean':>8}{'warned':>8}{'errors':>8}{'failures':>10}")
    for name, tally in tallies.items():
        print(
            f"{name:16}{tally.outcomes.total():8}"
            + "".join(f"{tally.outcomes[key]:{width}}" for key, width in WIDTHS.items())
        )
    total, failed = (
        sum(count(tally) for tally in tallies.values())
        for count in (lambda t: t.outcomes.total(), lambda t: len(t.failures))
    )
    print(
        f"seed {arguments.seed}, {time.monotonic() - start:.0f} s\n{total - failed} passed, "
        f"{failed} failed"
    )
    return failed > 0


WIDTHS = {"clean": 8, "warned": 8, "error": 8, "failure": 10}

if __name__ == "__main__":
    sys.exit(main())
