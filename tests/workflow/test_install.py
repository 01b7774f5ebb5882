"""`make install` and `make wheels`, with stand-ins for Python and pip."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = (
    "bash",
    "chmod",
    "cp",
    "env",
    "expand",
    "flock",
    "grep",
    "make",
    "mkdir",
    "mktemp",
    "mv",
    "rm",
    "sed",
    "touch",
    "xargs",
)

# Answers what envs/install.sh asks a Python, and notes what its pip is told to do.
PYTHON = """#!{bash}
case "$*" in
    *version_info*) echo {minor} ;;
    *ensurepip*) exit {no_venv} ;;
    *"venv --clear"*)
        mkdir -p .venv/bin
        cp "$0" .venv/bin/python
        rm -f .venv/unfinished .venv/installed ;;
    *"-m venv "*) mkdir -p "${{@: -1}}/bin"; cp "$0" "${{@: -1}}/bin/python" ;;
    *tomllib*) echo setuptools ;;
    *"pip freeze"*)
        printf '%s\\n' nvidia-cublas==1 triton==3 cuda-bindings==13 numpy==2
        [[ ! -e {home}/index ]] || echo torch==2+cpu ;;
    *"uv pip compile"*)
        [[ -e {home}/index ]] || exit 2
        printf '%s\\n' torch==2+cpu '    # from INDEX' torchvision==1+cpu '    # from INDEX' ;;
    *"pip --version"*) ;;
    *"pip "*)
        echo "${{CC:-}}" "$@" >>{home}/told
        [[ ! -e {home}/broken || "$*" != *"$(<{home}/broken)"* ]] ;;
esac
"""


class Machine:
    """A folder with a copy of what installs, and a PATH of stand-ins."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.programs = home / "programs"
        self.project = home / "project"
        self.programs.mkdir()
        (self.project / "envs").mkdir(parents=True)
        for name in TOOLS:
            found = shutil.which(name)
            assert found, name
            (self.programs / name).symlink_to(found)
        for name in ("Makefile", "pyproject.toml", "constraints.txt", "envs/install.sh"):
            shutil.copy(ROOT / name, self.project / name)

    def python(self, name: str, minor: int, *, venv: bool = True) -> Path:
        """Add a Python of a version to PATH, with or without the module venv."""
        path = self.programs / name
        words = {"bash": self.programs / "bash", "minor": minor, "home": self.home}
        path.write_text(PYTHON.format(**words, no_venv=int(not venv)))
        path.chmod(0o755)
        return path

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start make, quiet about itself."""
        command = [
            str(self.programs / "make"),
            "--silent",
            f"SHELL={self.programs / 'bash'}",
            *words,
        ]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command,
            cwd=self.project,
            env={"PATH": str(self.programs)},
            stdout=pipe,
            stderr=pipe,
            text=True,
        )

    def make(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Call make and wait for its end."""
        with self.start(*words) as started:
            said, complaints = started.communicate()
        return subprocess.CompletedProcess(words, started.returncode, said, complaints)

    def change_packages(self) -> None:
        """Make what is installed older than the list of packages."""
        os.utime(self.project / ".venv" / "installed", (0, 0))

    def told(self) -> list[str]:
        """Return, and forget, what pip was told since the last time."""
        notes = self.home / "told"
        lines = notes.read_text().splitlines() if notes.exists() else []
        notes.unlink(missing_ok=True)
        return lines


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return the only line that is not make's own, once make has failed."""
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert done.returncode == 2 and len(said) == 1 and said[0].startswith("error: "), done.stderr
    return said[0]


@pytest.mark.parametrize(
    ("pythons", "words", "remedy"),
    [
        ({}, (), "no Python 3.11 to 3.14 found; apt-get install python3 python3-venv"),
        ({"python3": 9}, (), "no Python 3.11 to 3.14 found (python3 is 3.9)"),
        ({"python3": 15}, (), "no Python 3.11 to 3.14 found (python3 is 3.15)"),
        ({"python3": 12}, ("PYTHON=python3.13",), "PYTHON=python3.13 is no Python that runs"),
        (
            {"python3": 12, "other": 10},
            ("PYTHON=other",),
            "other is Python 3.10; 3.11 to 3.14 are supported",
        ),
        ({"python3": 12}, ("TORCH=gpu",), "TORCH=gpu: cpu is the only word it takes"),
        ({"python3": 12}, ("WHEELS=missing",), "WHEELS=missing is no folder"),
        (
            {"python3": 12},
            ("WHEELS=.",),
            "has no wheels for Python 3.12; make wheels PYTHON=python3.12",
        ),
        ({"python3": 12}, ("WHEELS=.", "TORCH=cpu"), "TORCH has no effect beside WHEELS"),
    ],
)
def test_one_line_says_what_is_wrong(
    machine: Machine,
    pythons: dict[str, int],
    words: tuple[str, ...],
    remedy: str,
) -> None:
    for name, minor in pythons.items():
        machine.python(name, minor)
    assert remedy in error_of(machine.make("install", *words))
    assert machine.told() == [] and not (machine.project / ".venv").exists()


@pytest.mark.parametrize("words", [(), ("PYTHON=python3",)])
def test_python_without_venv_is_refused(machine: Machine, words: tuple[str, ...]) -> None:
    machine.python("python3", 12, venv=False)
    remedy = "cannot make virtual environments; apt-get install python3-venv"
    assert remedy in error_of(machine.make("install", *words))


def test_newest_supported_python_is_taken_and_named(machine: Machine) -> None:
    machine.python("python3", 12)
    machine.python("python3.11", 11)
    machine.python("python3.13", 13)
    machine.python("python3.14", 14, venv=False)
    machine.python("python3.15", 15)
    done = machine.make("install")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout == "Python 3.13 (python3.13) makes .venv\n"
    assert (machine.project / ".venv" / "installed").read_text() == "3.13 default\n"
    assert machine.told()[-1].endswith("--constraint constraints.txt --editable .[test]")


def test_second_call_does_nothing_until_something_changes(machine: Machine) -> None:
    machine.python("python3", 12)
    machine.make("install")
    machine.told()
    assert machine.make("install").stdout == "" and machine.told() == []
    machine.change_packages()
    done = machine.make("install")
    assert done.stdout == "" and done.returncode == 0 and machine.told() != []


def remove_python(machine: Machine) -> None:
    (machine.project / ".venv" / "bin" / "python").unlink()


def interrupt(machine: Machine) -> None:
    machine.change_packages()
    (machine.home / "broken").write_text("--editable")
    assert "pip could not get everything" in error_of(machine.make("install"))
    (machine.home / "broken").unlink()


def nothing(machine: Machine) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "words", "why"),
    [
        (remove_python, (), "its Python 3.12 is gone"),
        (interrupt, (), "the last installation was interrupted"),
        (nothing, ("PYTHON=other",), "Python 3.12 made it"),
    ],
)
def test_spoilt_environment_is_made_anew(
    machine: Machine,
    spoil: Callable[[Machine], None],
    words: tuple[str, ...],
    why: str,
) -> None:
    machine.python("python3", 12)
    machine.python("other", 11)
    machine.make("install")
    spoil(machine)
    done = machine.make("install", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f".venv is made anew: {why}"
    assert not (machine.project / ".venv" / "unfinished").exists()
    assert machine.make("install", *words).stdout == ""


def test_an_interrupted_update_keeps_the_cpu_build(machine: Machine) -> None:
    machine.python("python3", 12)
    (machine.home / "index").touch()
    machine.make("install", "TORCH=cpu")
    (machine.project / ".venv" / "installed").rename(machine.project / ".venv" / "unfinished")
    done = machine.make("install")
    assert done.returncode == 0 and "the last installation was interrupted" in done.stdout
    assert (machine.project / ".venv" / "installed").read_text() == "3.12 cpu\n"


def test_an_environment_of_ones_own_is_kept(machine: Machine) -> None:
    own = machine.python("python3", 12)
    (machine.project / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(own, machine.project / ".venv" / "bin" / "python")
    done = machine.make("install")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (machine.project / ".venv" / "installed").read_text() == "3.12 default\n"


def test_cpu_build_comes_from_the_index_that_uv_knows(machine: Machine) -> None:
    machine.python("python3", 12)
    machine.make("install")
    machine.told()
    (machine.home / "index").touch()
    done = machine.make("install", "TORCH=cpu")
    assert done.returncode == 0 and done.stderr == ""
    told = machine.told()
    taken = " --no-deps --index-url=INDEX torch==2+cpu torchvision==1+cpu"
    removed = " uninstall --quiet --yes nvidia-cublas triton cuda-bindings"
    assert any(line.endswith(taken) for line in told)
    assert any(line.endswith(removed) for line in told)
    assert (machine.project / ".venv" / "installed").read_text() == "3.12 cpu\n"
    assert machine.make("install").stdout == "" and machine.told() == []
    machine.change_packages()
    machine.make("install")
    assert any(line.endswith(taken) for line in machine.told())


def test_default_build_is_taken_with_a_line_where_the_index_is_out_of_reach(
    machine: Machine,
) -> None:
    machine.python("python3", 12)
    done = machine.make("install", "TORCH=cpu")
    assert done.returncode == 0
    assert done.stderr.startswith("TORCH=cpu: torch's own index is out of reach; the default build")
    assert len(done.stderr.splitlines()) == 1
    assert (machine.project / ".venv" / "installed").read_text() == "3.12 default\n"


def test_wheels_fill_a_folder_that_installs_without_an_index(machine: Machine) -> None:
    machine.python("python3", 12)
    folder = machine.home / "wheels"
    assert "FOLDER=... names the folder" in error_of(machine.make("wheels"))
    done = machine.make("wheels", f"FOLDER={folder}")
    assert done.returncode == 0 and f"fills {folder}" in done.stdout, done.stderr
    assert f"--wheel-dir {folder}" in machine.told()[-1]
    (folder / "torch-2-cp312-cp312-linux.whl").touch()
    assert machine.make("install", f"WHEELS={folder}").returncode == 0
    told = machine.told()
    assert told and all(f"--no-index --find-links {folder}" in line for line in told)


def test_python_that_the_folder_has_wheels_for_is_taken(machine: Machine) -> None:
    machine.python("python3.12", 12)
    machine.python("python3.13", 13)
    (machine.project / "torch-2-cp312-cp312-linux.whl").touch()
    assert machine.make("install", "WHEELS=.").stdout == "Python 3.12 (python3.12) makes .venv\n"


def test_only_immutables_is_built_with_a_compiler_that_does_nothing(machine: Machine) -> None:
    machine.python("python3", 14)
    (machine.home / "broken").write_text("--only-binary immutables")
    assert machine.make("install").returncode == 0
    built = [line for line in machine.told() if line.startswith("true ")]
    assert [line.split()[-1] for line in built] == ["immutables"]


def test_two_installations_at_once_take_turns(machine: Machine) -> None:
    machine.python("python3", 12)
    with open(machine.project / "pyproject.toml") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with machine.start("install") as waiting:
            assert waiting.stdout
            assert waiting.stdout.readline() == "another installation is at work here: waiting\n"
            assert not (machine.project / ".venv").exists()
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert waiting.stdout.read() == "Python 3.12 (python3) makes .venv\n"
    assert waiting.returncode == 0
