"""Products held against their stamps while the workflow is planned, whoever made them and when."""

import os
import shlex
import sys
from collections.abc import Callable, Collection, ItemsView, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import SimpleNamespace

from brnf.errors import UserError
from brnf.store.stamps import (
    Stamp,
    by_flag,
    compare,
    content_of,
    listing_of,
    read_stamp,
    refresh,
    stamp_file,
    unchanged,
    versions,
    write_stamp,
)
from brnf.weights import weights_named
from brnf.workflow.kept_digests import kept_digest

__all__ = ["Expected", "Provenance", "Verdict", "Wildcards"]

MATTER = ("torch", "torchvision", "timm", "FrEIA", "numpy", "opencv-python-headless", "numba")
"""Packages whose version may change a result."""
UNSTAMPED = "no stamp says what made it"
MOST_SAID = 8
"""Products that are named."""


class Wildcards(SimpleNamespace):
    """The wildcards of a path, as the functions of the rules take them."""

    def items(self) -> ItemsView[str, str]:
        """Return names and values."""
        return vars(self).items()


@dataclass(frozen=True)
class Expected:
    """What would make a product now.

    Attributes:
        stage: name of its module.
        options: as the command line has them.
        code: fingerprint of the stage.
        only_told: whether the product is not worth making anew; see :meth:`Provenance.tell`.
    """

    stage: str
    options: str
    code: str
    only_told: bool = False

    def words(self) -> dict[str, list[str]]:
        """Return the words that follow each flag."""
        return by_flag(shlex.split(self.options))


@dataclass(frozen=True)
class Verdict:
    """What is known of a file.

    Attributes:
        digest: of its content; of a product that was removed, what it held.
        fault: why it must be made anew, or None.
        own: whether the fault is its own, not that of something that it was made from.
        stamped: whether a stamp says what made it.
    """

    digest: str | None = None
    fault: str | None = None
    own: bool = True
    stamped: bool = True


@dataclass
class Provenance:
    """Tell which products are what the workflow would make now.

    Arguments:
        expected: returns what would make the product at a path; None for other files.
        unstamped: what happens to products without a stamp: refuse, adopt or remake.
        other_versions: what happens to those that other versions have made: keep or remake.
        write: whether adopted products get a stamp; not in a dry run.
    """

    expected: Callable[[str], Expected | None]
    unstamped: str = "refuse"
    other_versions: str = "keep"
    write: bool = True
    _known: dict[str, Verdict] = field(default_factory=dict)
    _faults: dict[str, Verdict] = field(default_factory=dict)
    _jobs: int = 0
    _said: int = 0
    _told_versions: bool = False
    _told: set[str] = field(default_factory=set)

    def forget_after(self, jobs: int) -> None:
        """Look at every product again if further jobs have ended, of which there were ``jobs``."""
        if jobs != self._jobs:
            self._jobs = jobs
            self._known.clear()

    def mark(
        self,
        path: str,
        forced: set[str],
        read: Collection[str] | None = None,
        *,
        may_go: bool = False,
    ) -> None:
        """Enter a product that must be made anew into a set of such files, or take it out again.

        Arguments:
            path: of the product; Snakemake makes one that was never there.
            forced: Snakemake's own; files that a user has put there stay.
            read: all files that it would be made from, None where they are not known yet.
            may_go: whether the product may be removed when everything is made that reads it.

        Raises:
            UserError: nobody knows what made it, and such products are refused; or it is a link to
                nothing.
        """
        if os.path.islink(path) and not os.path.exists(path):
            raise UserError(
                f"{path}: is a link to nothing, which Snakemake cannot replace; remove it"
            )
        if os.path.exists(path):
            verdict = self.verdict(path)
            if not verdict.fault and read is not None and (other := _other_inputs(path, read)):
                verdict = replace(verdict, fault=other)
        else:
            gone = not may_go and stamp_file(path).exists()
            verdict = Verdict(fault="is missing") if gone else Verdict()
        if verdict.fault == UNSTAMPED and self.unstamped == "refuse":
            raise UserError(
                f"{path}: no stamp says what made it, as an earlier version left it or somebody "
                "copied it without its hidden files; run with --config unstamped=adopt to take all "
                "such results for what this configuration would make, or with unstamped=remake"
            )
        if verdict.fault and path not in forced:
            self._faults[path] = verdict
            self._say(path, verdict)
            forced.add(path)
        elif not verdict.fault and path in self._faults:
            del self._faults[path]
            forced.discard(path)

    def tell(self, path: str, rule: str) -> None:
        """Say that a product is damaged which is not worth the work of making it anew.

        What else stands in its stamp stands in those of the other products of its stage, too.

        Arguments:
            path: of the product.
            rule: that would make it.
        """
        stamp = read_stamp(path)
        if path in self._told or (stamp is None and not stamp_file(path).exists()):
            return
        if not (stamp and stamp.content and unchanged(Path(path), stamp.content)):
            self._told.add(path)
            hint = f"--forcerun {rule} makes it anew, and what follows"
            print(f"note: {path}: was changed after it was made; {hint}", file=sys.stderr)

    def _say(self, path: str, verdict: Verdict) -> None:
        """Say on the standard error why a product is made anew; only a few are named, none that
        merely follows from others.
        """
        if verdict.own and self._said <= MOST_SAID:
            named = f"{path}: {verdict.fault}" if self._said < MOST_SAID else "and others"
            print(f"made anew: {named}", file=sys.stderr)
            self._said += 1

    def verdict(self, path: str) -> Verdict:
        """Hold a file against its stamp, and what it was made from against theirs."""
        if path not in self._known:
            self._known[path] = Verdict()  # an input of its own ends here
            try:
                self._known[path] = self._look(path)
            except BaseException:  # Snakemake asks again when a checkpoint hides nothing any more
                del self._known[path]
                raise
        return self._known[path]

    def _look(self, path: str) -> Verdict:
        stamp = read_stamp(path)
        if stamp is None:
            return self._unstamped(path)
        digest = stamp.content.digest if stamp.content else None
        expected = self.expected(path)
        if own := _own_fault(path, stamp, expected, self.write) or self._other_versions(
            path, stamp
        ):
            return Verdict(digest, own)
        if not stamp.adopted:
            for source, then in stamp.inputs.items():
                now = self.verdict(source)
                if now.fault:
                    return Verdict(digest, f"{source} is made anew", own=False)
                if now.digest not in (None, then):
                    return Verdict(digest, f"{source} is another one", own=now.stamped is False)
        return Verdict(digest)

    def _other_versions(self, path: str, stamp: Stamp) -> str | None:
        """Return which packages had other versions, if such products are made anew; else tell it
        once.
        """
        then, now = stamp.versions, _versions()
        others = [
            f"{name} {then[name]} (is {now.get(name, 'missing')})"
            for name in MATTER
            if name in then and then[name] != now.get(name)
        ]
        if not others:
            return None
        made = f"was made with {', '.join(others)}"
        if self.other_versions == "remake":
            return made
        if not self._told_versions:
            hint = "--config other_versions=remake makes such results anew"
            print(f"note: {path} and perhaps others: {made}; {hint}", file=sys.stderr)
            self._told_versions = True
        return None

    def _unstamped(self, path: str) -> Verdict:
        product = Path(path)
        if not product.exists():
            return Verdict(stamped=False)
        if expected := self.expected(path):
            if self.unstamped == "adopt":
                return Verdict(_adopted(path, expected, self.write))
            damaged = stamp_file(path).exists()
            fault = "its stamp is damaged" if damaged else UNSTAMPED
            if not expected.only_told:
                return Verdict(None, fault, stamped=damaged)
        return Verdict(
            listing_of(product) if product.is_dir() else kept_digest(product), stamped=False
        )


def _adopted(path: str, expected: Expected, write: bool) -> str:
    """Return the digest of a product that a user vouches for, and write its stamp."""
    content = content_of(Path(path))
    if not write:
        return content.digest
    with suppress(UserError):  # where nobody may write they are adopted at each call
        options, made = expected.words(), datetime.now(UTC).isoformat(timespec="seconds")
        write_stamp(
            path,
            Stamp(expected.stage, options, expected.code, content=content, made=made, adopted=True),
        )
    return content.digest


def _own_fault(path: str, stamp: Stamp, expected: Expected | None, write: bool) -> str | None:
    """Return in which way a product is not what would be made now, apart from its inputs."""
    if stamp.content is None:
        return "its stage was interrupted"
    product = Path(path)
    if os.path.lexists(product):
        state = compare(product, stamp.content, kept_digest)
        if state == "changed":
            return "was changed after it was made"
        if state == "touched" and write:
            refresh(product)
    if expected is None:
        return None
    if stamp.stage != expected.stage:
        return f"was made by {stamp.stage}, not {expected.stage}"
    words = expected.words()
    if difference := _difference(words, stamp.options):
        return difference
    if stamp.code != expected.code:
        return f"the code of {expected.stage} is another one"
    if stamp.weights != (now := weights_named(words)) and not stamp.adopted:
        changed = next(flag for flag in {**now, **stamp.weights} if _differs(flag, now, stamp))
        return f"{changed} holds something else"
    return None


def _other_inputs(path: str, read: Collection[str]) -> str | None:
    """Say which file a product was not made from, or which one it would not be made from now."""
    stamp = read_stamp(path)
    if stamp is None or stamp.adopted:
        return None
    for known, others, fault in (
        (stamp.inputs, read, "was made without"),
        (read, stamp.inputs, "was made from"),
    ):
        if lacking := [other for other in others if other not in known]:
            more = f" and {len(lacking) - 1} others" if len(lacking) > 1 else ""
            return f"{fault} {lacking[0]}{more}"
    return None


def _differs(flag: str, now: Mapping[str, str], stamp: Stamp) -> bool:
    return now.get(flag) != stamp.weights.get(flag)


def _difference(now: Mapping[str, list[str]], then: Mapping[str, list[str]]) -> str | None:
    """Say which option differs, and how."""
    for flag in {**now, **then}:
        if now.get(flag) != then.get(flag):
            was, here = (
                " ".join(words[flag]) if flag in words else "not given" for words in (then, now)
            )
            return f"{flag} was {was[:60]}, is {here[:60]}"
    return None


@cache
def _versions() -> dict[str, str]:
    return versions()
