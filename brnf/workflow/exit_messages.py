"""The line that is printed for a stage that could not print one itself: it was killed, or crashed
within a library.
"""

import signal

__all__ = ["SHELL_PREFIX"]

TOLD = {
    signal.SIGKILL: "was killed, most likely since memory ran out; "
    "ask for more, or lower batch_size, image_long_side or workers",
    signal.SIGSEGV: "crashed within a library, most likely on a damaged input; "
    "remove the one that its log names last and run again",
    signal.SIGABRT: "was ended by a library, most likely since memory ran out; "
    "ask for more, or lower batch_size or workers",
    signal.SIGBUS: "lost the memory behind a file, most likely since the disk is full; "
    "free space and run again",
}


def _shell_prefix() -> str:
    cases = " ".join(
        f'{128 + number}) echo "error: the stage {told}" >&2 ;;' for number, told in TOLD.items()
    )
    return f"set -euo pipefail; trap 'case $? in {cases} esac' EXIT;"


SHELL_PREFIX = _shell_prefix()
"""Begins the shell command of every rule, in bash's strict mode, as Snakemake's own prefix does."""
