"""Long lists of numbered files as short words: a command line holds 128 KiB a word, and the files
of 10,000 shards take more.
"""

import re
from collections.abc import Iterable

__all__ = ["condensed", "expanded"]

RANGE = re.compile(r"(?s)(.*)\{([0-9]+)\.\.([0-9]+)\}(.*)\Z")
NUMBERED = re.compile(r"(?s)((?:.*/)?)([0-9]+)((?:\.[^/]*)?)\Z")
"""A path whose name is a number, perhaps with an ending."""


def condensed(paths: Iterable[str]) -> list[str]:
    """Return paths with those that count on, one after the other, as one word.

    >>> condensed(["cams/0.h5", "cams/1.h5", "cams/2.h5", "flow.pt", "cams/7.h5"])
    ['cams/{0..2}.h5', 'flow.pt', 'cams/7.h5']

    A path that holds such a range itself stays as it is, as a range of its own number would.
    """
    runs: list[tuple[str, int, int, str, str]] = []
    for path in paths:
        found = NUMBERED.match(path)
        if found is None or str(int(found[2])) != found[2] or "{" in path:
            runs.append((path, -1, -1, "", path))
            continue
        before, number, after = found[1], int(found[2]), found[3]
        last = runs[-1] if runs else None
        if last and (last[0], last[2] + 1, last[3]) == (before, number, after):
            runs[-1] = (before, last[1], number, after, last[4])
        else:
            runs.append((before, number, number, after, path))
    return [
        path if first == last else f"{before}{{{first}..{last}}}{after}"
        for before, first, last, after, path in runs
    ]


def expanded(word: str) -> list[str]:
    """Return the paths that a word of :func:`condensed` stands for.

    >>> expanded("cams/{0..2}.h5")
    ['cams/0.h5', 'cams/1.h5', 'cams/2.h5']
    """
    found = RANGE.match(word)
    if found is None:
        return [word]
    return [f"{found[1]}{i}{found[4]}" for i in range(int(found[2]), int(found[3]) + 1)]
