"""The options of a stage as the workflow gives them, without a process for it."""

import shlex
from importlib import import_module
from typing import Any

import tyro

from brnf.config.experiment import Experiment
from brnf.workflow.params import command_line, option_names, stage_options

__all__ = ["options_of", "words_of"]


def options_of(stage: str, experiment: Experiment, model: str, **given: Any) -> Any:
    """Return the ``Options`` of a stage.

    Arguments:
        stage: name of its module in :mod:`brnf.stages`.
        experiment: whose settings they are.
        model: ``base``, ``brnf`` or a variant.
        given: what the rule knows; names that the stage lacks are left out.
    """
    words = words_of(stage, experiment, model, **given)
    options = import_module(f"brnf.stages.{stage}").Options
    return tyro.cli(options, args=words, config=(tyro.conf.FlagConversionOff,))


def words_of(stage: str, experiment: Experiment, model: str, **given: Any) -> list[str]:
    """Return the same options as words of a stage's command line."""
    known = {name: given[name] for name in option_names(stage) if name in given}
    return shlex.split(command_line(stage_options(stage, experiment, model, known)))
