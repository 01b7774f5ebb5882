"""The line that is printed for a stage that could not print one itself: it was killed, or crashed
within a library.
"""

import signal

__all__ = ["EXIT_MESSAGES", "SHELL_PREFIX"]

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
EXIT_MESSAGES = {
    f"BRNF_EXIT_{128 + number}": f"error: the stage {told}" for number, told in TOLD.items()
}
"""Environment variables, named after the exit status that each explains. They stand in no shell
command, since Snakemake shows the command of every job that fails.
"""
SHELL_PREFIX = "set -euo pipefail; trap 'printenv BRNF_EXIT_$? >&2 || true' EXIT;"
"""Begins the shell command of every rule, in bash's strict mode, as Snakemake's own prefix does."""
