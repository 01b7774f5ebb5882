"""Run a training in several processes of this machine as `torchrun` does, without its report on how
they ended.

python -m brnf.workflow.torchrun 2 brnf.stages.train_brnf --help
"""

import logging
import os
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

__all__ = ["train_together"]


def train_together(processes: int, module: str, words: Sequence[str]) -> int:
    """Run a module in several processes that find each other, end all when one fails, and return
    the exit status.

    Arguments:
        processes: how many.
        module: with a ``__main__``.
        words: its command line.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(
        logging.CRITICAL
    )  # each process tells its own mistakes in one line
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id="brnf",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),  # a folder of logs would stay behind
    )
    try:
        elastic_launch(config, sys.executable)("-m", module, *words)
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    except SignalException as error:
        return 128 + error.sigval
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 3 or not sys.argv[1].isdigit() or sys.argv[1] == "0":
        sys.exit("usage: python -m brnf.workflow.torchrun PROCESSES MODULE [WORD ...]")
    sys.exit(train_together(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
