"""Snakemake, loaded once and forked for each command line.

Each run is Snakemake's own command line in a process of its own; only the time of its imports is
saved, so that hundreds of dry runs are affordable. Reads one request a line from the standard
input, answers with one line each, ends at an empty one.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

SNAKEFILE = Path(__file__).parents[2] / "workflow" / "Snakefile"
SECONDS_TO_END = 60


class ForkedSnakemake:
    """Run command lines in forks of one process.

    Arguments:
        package: also load this project's package and hash its modules beforehand; not for copies of
            the sources elsewhere.
    """

    def __init__(self, package: bool = True) -> None:
        words = [sys.executable, __file__, *(["package"] if package else [])]
        self._server = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._owed = 0

    def __call__(self, folder: Path, *words: str, snakefile: Path = SNAKEFILE) -> tuple[int, str]:
        """Run Snakemake in a folder and return its exit status and what it prints."""
        assert self._server.stdin and self._server.stdout
        request = {
            "folder": str(folder),
            "words": ["--snakefile", str(snakefile), "--cores", "2", *words],
        }
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        self._owed += 1
        while self._owed:  # more than one when a call before was broken off by its timeout
            line = self._server.stdout.readline()
            self._owed -= 1
        reply = json.loads(line)
        return reply["status"], reply["output"]

    @property
    def status(self) -> int | None:
        """Return the exit status of the process, None while it lives."""
        return self._server.poll()

    def close(self) -> None:
        """End the process.

        It is told to end: a closed pipe would not tell it while a loading process that this one has
            forked still holds the pipe too.
        """
        assert self._server.stdin
        try:
            self._server.stdin.write("\n")
            self._server.stdin.flush()
            self._server.wait(SECONDS_TO_END)
        finally:
            self._server.kill()
            self._server.wait()


@contextlib.contextmanager
def forked_snakemake(package: bool = True) -> Iterator[ForkedSnakemake]:
    """Start the process and end it with the block."""
    run = ForkedSnakemake(package)
    try:
        yield run
    finally:
        run.close()


def main() -> None:
    """Answer requests until there is an empty line or the input ends."""
    import snakemake.cli
    import snakemake.dag
    import snakemake.scheduling.job_scheduler
    import snakemake.workflow

    with contextlib.redirect_stderr(io.StringIO()):
        snakemake.cli.parse_args(["--cores", "1"])  # loads its plugins
    if sys.argv[1:] == ["package"]:
        sys.path.insert(0, str(SNAKEFILE.parents[1]))
        from brnf.config.generate import load_schema
        from brnf.fingerprint import fingerprint
        from brnf.workflow.params import STAGES

        load_schema()
        for stage in STAGES:
            fingerprint(f"brnf.stages.{stage}")
    while line := sys.stdin.readline().strip():
        request = json.loads(line)
        with tempfile.TemporaryFile("w+") as output:
            child = os.fork()
            if child == 0:
                _become_snakemake(output.fileno(), request["folder"], request["words"])
            _, status = os.waitpid(child, 0)
            output.seek(0)
            print(
                json.dumps({"status": os.waitstatus_to_exitcode(status), "output": output.read()}),
                flush=True,
            )


def _become_snakemake(output: int, folder: str, words: list[str]) -> None:
    from snakemake.cli import main as snakemake

    status = 1
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(folder)
        sys.argv = ["snakemake", *words]
        snakemake(words)
    except SystemExit as end:
        status = _status(end.code)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _status(code: str | int | None) -> int:
    """Do with what a program exits with as the interpreter does: words are an error message."""
    if isinstance(code, str):
        print(code, file=sys.stderr)
    return code if isinstance(code, int) else 0 if code is None else 1


if __name__ == "__main__":
    main()
