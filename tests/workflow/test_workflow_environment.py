"""What the shell lines find in their environment, however often Snakemake calls itself."""

import os
import shlex
import sys
from pathlib import Path

import tyro

from brnf.config.experiment import RUNTIME_KEYS, read_experiments
from brnf.config.generate import load_schema
from brnf.config.schema import complete
from brnf.engine.runtime import Runtime
from brnf.workflow.environment import set_environment

SETTINGS = read_experiments(
    {
        "name": "x",
        "device": "cuda:1",
        "workers": 3,
        "threads": 2,
        "progress": "lines",
        "dataset": {"kind": "scenes", "train": "train", "eval_split": "train"},
    }
)["x"].settings


def test_own_interpreter_and_source_come_first_and_once(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin"}
    for _ in range(2):
        set_environment(tmp_path, SETTINGS, environment)
    assert environment["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), "/usr/bin"]
    assert environment["PYTHONPATH"] == str(tmp_path)
    set_environment(tmp_path / "newer", SETTINGS, environment)
    assert environment["PYTHONPATH"].split(os.pathsep) == [str(tmp_path / "newer"), str(tmp_path)]


def test_settings_of_the_machine_reach_a_stage_as_the_shell_splits_them(tmp_path: Path) -> None:
    environment: dict[str, str] = {}
    set_environment(tmp_path, SETTINGS, environment)
    assert environment["BRNF_TRAIN"] == "python -m"
    words = environment[
        "BRNF_RUNTIME"
    ].split()  # an unquoted variable is split at blanks, its quotes stay
    assert words == shlex.split(environment["BRNF_RUNTIME"])
    config = (tyro.conf.FlagConversionOff,)  # as for every stage
    assert tyro.cli(Runtime, args=words, config=config) == Runtime(
        device="cuda:1", threads=2, workers=3, progress="lines"
    )


def test_defaults_of_the_machine_are_those_of_the_schema() -> None:
    settings = complete({}, load_schema())
    found = {key: getattr(Runtime(), key) for key in RUNTIME_KEYS}
    assert found == {key: settings[key] for key in RUNTIME_KEYS}


def test_a_training_on_several_devices_is_several_processes(tmp_path: Path) -> None:
    environment: dict[str, str] = {}
    set_environment(tmp_path, {**SETTINGS, "devices": 2}, environment)
    assert environment["BRNF_TRAIN"] == "python -m brnf.workflow.torchrun 2"


def test_an_installed_package_leaves_the_path_of_modules_alone() -> None:
    environment = {"PYTHONPATH": "/mine"}
    set_environment(None, SETTINGS, environment)
    assert environment["PYTHONPATH"] == "/mine"
