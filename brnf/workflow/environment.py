"""What the shell lines of the rules find in their environment: this interpreter, this source, the
settings of the machine.
"""

import os
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from brnf.config.experiment import RUNTIME_KEYS
from brnf.workflow.params import command_line

__all__ = ["set_environment"]


def set_environment(
    root: Path, settings: Mapping[str, Any], environment: MutableMapping[str, str] = os.environ
) -> None:
    """Set what the shell lines rely on: what stands in no shell line and in no ``params`` reruns
    nothing when it changes.

    ``BRNF_TRAIN`` begins the call of a training, which may be one of several processes.
    ``BRNF_RUNTIME`` holds the flags of the runtime keys, which the shell splits into words.
    ``BRNF_BY_WORKFLOW`` lets a stage that meets a damaged product set it aside, since the next run
    can make it anew. Every Snakemake process does it while it reads the Snakefile, also the one
    inside a cluster job, which therefore depends on nothing that the scheduler passes on.

    Arguments:
        root: folder that holds the package.
        settings: of the experiment.
        environment: to change.
    """
    for name, first in (("PATH", str(Path(sys.executable).parent)), ("PYTHONPATH", str(root))):
        others = [
            entry
            for entry in environment.get(name, "").split(os.pathsep)
            if entry and entry != first
        ]
        environment[name] = os.pathsep.join([first, *others])
    environment["BRNF_BY_WORKFLOW"] = "1"
    environment["BRNF_TRAIN"] = (
        "python -m"
        if settings["devices"] == 1
        else f"python -m brnf.workflow.torchrun {settings['devices']}"
    )
    environment["BRNF_RUNTIME"] = command_line({key: settings[key] for key in RUNTIME_KEYS})
