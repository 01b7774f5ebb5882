"""What the shell lines of the rules find in their environment: this interpreter, this source, the
settings of the machine.
"""

import os
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from brnf.config.experiment import RUNTIME_KEYS
from brnf.engine.watching import check_tensorboard
from brnf.workflow.exit_messages import EXIT_MESSAGES
from brnf.workflow.params import command_line

__all__ = ["set_environment"]


def set_environment(
    source: Path | None,
    settings: Mapping[str, Any],
    environment: MutableMapping[str, str] = os.environ,
    *,
    stamps: bool = True,
) -> None:
    """Set what the shell lines rely on: what stands in no shell line and in no ``params`` reruns
    nothing when it changes.

    ``BRNF_TRAIN`` begins the call of a training, which may be one of several processes.
    ``PYTHONSAFEPATH`` keeps Python from importing what lies in the folder in which Snakemake runs,
    ``PYTHONUTF8`` makes texts UTF-8 whatever the user's locale,
    ``BRNF_SOURCE`` lets a stage refuse to run in another source than this one, and
    ``BRNF_RUNTIME`` holds the flags of the runtime keys, which the shell splits into words.
    ``BRNF_BY_WORKFLOW`` lets a stage that meets a damaged product set it aside, since the next run
    can make it anew. Every Snakemake process does it while it reads the Snakefile, also the one
    inside a cluster job, which therefore depends on nothing that the scheduler passes on. The
    :data:`~brnf.workflow.exit_messages.EXIT_MESSAGES` are for the end of each.

    Arguments:
        source: folder that holds the package; None where the interpreter has it installed.
        settings: of the experiment.
        environment: to change.
        stamps: whether products have stamps beside them; copies of what is stored have none.

    Raises:
        UserError: TensorBoard is wanted and not installed.
    """
    check_tensorboard(settings["tensorboard"])
    _put_first("PATH", Path(sys.executable).parent, environment)
    if source:
        _put_first("PYTHONPATH", source, environment)
        environment["BRNF_SOURCE"] = str(source)
    environment["PYTHONSAFEPATH"] = environment["PYTHONUTF8"] = "1"
    environment["BRNF_BY_WORKFLOW"] = "1"
    environment["BRNF_STAMPS"] = "yes" if stamps else "no"
    environment.update(EXIT_MESSAGES)
    environment["BRNF_TRAIN"] = (
        "python -m"
        if settings["devices"] == 1
        else f"python -m brnf.workflow.torchrun {settings['devices']}"
    )
    environment["BRNF_RUNTIME"] = command_line({key: settings[key] for key in RUNTIME_KEYS})


def _put_first(name: str, folder: Path, environment: MutableMapping[str, str]) -> None:
    """Let a list of folders begin with one of them, which it then holds once."""
    entries = environment.get(name, "").split(os.pathsep)
    others = [entry for entry in entries if entry and entry != str(folder)]
    environment[name] = os.pathsep.join([str(folder), *others])
