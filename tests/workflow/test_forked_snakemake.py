"""The process that runs Snakemake for the tests ends with them, whatever else they have forked."""

import os
import signal
from pathlib import Path

from forked_snakemake import forked_snakemake


def test_a_fork_that_lives_on_does_not_keep_it_alive(tmp_path: Path) -> None:
    fork = 0
    try:
        with forked_snakemake(package=False) as run:
            assert run(tmp_path, "--version")[0] == 0  # it has loaded what it needs
            fork = os.fork()
            if fork == 0:
                signal.pause()  # holds the pipe until it is killed
                os._exit(0)
        # Without an end of its own, the block would have raised TimeoutExpired.
        assert run.status == 0 and os.waitpid(fork, os.WNOHANG) == (0, 0)
    finally:
        os.kill(fork, signal.SIGKILL)
        os.waitpid(fork, 0)
