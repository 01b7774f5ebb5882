"""A small share of the spoilt files; `make test-fuzz` reads all."""

import subprocess
import sys
from pathlib import Path

SHARE = 0.02


def test_spoilt_files_end_in_a_clean_result_or_one_line() -> None:
    command = [
        sys.executable,
        "-m",
        "tests.fuzz",
        "--share",
        str(SHARE),
        "--jobs",
        "1",
        "--seed",
        "5",
    ]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    last = done.stdout.splitlines()[-1] if done.stdout else ""
    assert done.returncode == 0 and last.endswith(" 0 failed"), done.stdout + done.stderr
    lines = done.stdout.splitlines()[:-2]
    head = next(
        i for i, line in enumerate(lines) if line.startswith("kind ")
    )  # libraries may print
    kinds = [line.split() for line in lines[head + 1 :]]
    assert len(kinds) >= 25 and all(
        int(clean) > 0 and int(errors) > 0 for *_, clean, _, errors, _ in kinds
    ), done.stdout
