"""The process that runs Snakemake for the tests ends with them, whatever else they have forked."""

import os
import signal
import time

from forked_snakemake import SECONDS_TO_END, forked_snakemake


def test_a_fork_that_lives_on_does_not_keep_it_alive() -> None:
    fork = 0
    try:
        with forked_snakemake(package=False):
            fork = os.fork()
            if fork == 0:
                time.sleep(2 * SECONDS_TO_END)
                os._exit(0)
            start = time.monotonic()
        assert time.monotonic() - start < SECONDS_TO_END / 2
    finally:
        os.kill(fork, signal.SIGKILL)
        os.waitpid(fork, 0)
