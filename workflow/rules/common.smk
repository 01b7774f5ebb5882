# What all rules share - the checked configuration, the wildcards, the hooks of a run, and what goes
# into `params` and `resources`.
import gc
import sys
from collections import Counter
from functools import cache
from shutil import rmtree, which

sys.path.insert(0, str(Path(workflow.basedir).parent))

from brnf.config.words import words_file
from brnf.data.contents import data_state
from brnf.errors import UserError
from brnf.weights import clip_identity, identity
from brnf.config.experiment import read_experiments
from brnf.engine.controller import announce, is_alone
from brnf.workflow.exit_messages import SHELL_PREFIX
from brnf.planning.disk import check_run
from brnf.planning.jobs import Job
from brnf.workflow.environment import set_environment
from brnf.planning.estimate import estimate, seconds_by_rule
from brnf.evaluate.finished import measured_experiments
from brnf.fingerprint import fingerprint
from brnf.workflow.params import command_line, input_names, option_names, stage_options
from brnf.workflow.idle import without_idle
from brnf.config.protocol import differences
from brnf.workflow.slurm import begin, end
from brnf.config.studies import (
    ABLATION,
    ABLATION_MODELS,
    BASE_MODELS,
    BASELINES,
    POINT_PATTERN,
    XIS,
    fit_settings,
    full_models,
    kind_of,
)
from brnf.workflow.targets import (
    ablation,
    evaluated_files,
    evaluations,
    export_tree,
    exported_predictions,
    figure_words,
    figures,
    full_sensitivity,
    map_product,
    shards,
    sweeps,
)

try:
    EXPERIMENTS = read_experiments(config)
except UserError as error:
    sys.exit(f"error: {error}")
MAIN = next(iter(EXPERIMENTS.values()))

# What is imported by now stays: while jobs are planned, Python need not look for garbage in it
# again and again.
gc.freeze()

# The stages run in the interpreter of Snakemake and in this very source, wherever the workflow is
# called from.
set_environment(Path(sys.path[0]), MAIN.settings)
shell.prefix(SHELL_PREFIX)

# While this Snakemake lives, nobody else will take its lock for a stale one.
if workflow.is_main_process:
    announce(Path.cwd())

THREADS = MAIN.settings["threads"]
CPUS = (
    THREADS + MAIN.settings["workers"]
)  # what a cluster reserves for a job with workers, that read images or refine labels
DEVICES = MAIN.settings["devices"]  # of one training
DOWNLOADS = MAIN.settings["download"]
ENVIRONMENT = "../../envs/brnf.yaml"
BRNF_MODELS = sorted(
    {
        model
        for chosen in EXPERIMENTS.values()
        for model in ("brnf", *ABLATION, *chosen.settings["variants"])
    }
)
CHAIN = (
    1  # priority of what the longest chain of jobs waits for, over pseudo-labels and segmentation
)
RUN = "results/{name}/{model}/seed{seed}"
FIGURE_FLAGS = {"ablation": "examples"}  # figures that are drawn by the flag of another


wildcard_constraints:
    name="|".join(EXPERIMENTS),
    model=f"({'|'.join([*BASE_MODELS, *BRNF_MODELS])}){POINT_PATTERN}",
    seed="[0-9]+",
    split="[A-Za-z0-9_]+",
    shard="[0-9]+",
    product="[a-z_]+",
    figure="examples|scores|bias|curves|ablation",
    fit="|".join([r"own|tau-[\d.]+-[\d.]+", *BASELINES]),


def say_estimate(workflow):
    """Print how long the planned jobs will take; those without a benchmark file take no time."""
    jobs = Counter(job.rule.name for job in workflow.dag.needrun_jobs() if job.rule.benchmark)
    seconds = seconds_by_rule(Path("results"), MAIN.name)
    print(estimate(jobs, seconds, jobs_at_once(workflow)), file=sys.stderr)


def jobs_at_once(workflow):
    """Return how many jobs run at a time: of a machine, or of a cluster."""
    return workflow.resource_settings.cores or workflow.resource_settings.nodes or 1


def begin_run(workflow):
    """End a run whose jobs would start beside those that a killed run left in a queue."""
    try:
        begin(
            Path.cwd(),
            EXPERIMENTS,
            workflow.executor_plugin.name in ("slurm", "cluster-generic") and which("squeue"),
        )
    except UserError as error:
        sys.exit(f"error: {error}")


def end_run():
    """Note that a run has ended by itself, well or not."""
    end(Path.cwd(), EXPERIMENTS)


def remove_kept():
    """Remove what trainings of a run shared, unless another run lives; it stays after errors."""
    for name in EXPERIMENTS if is_alone(Path.cwd()) else ():
        rmtree(f"results/{name}/.kept", ignore_errors=True)


def refuse_full_disk(workflow):
    """End a run whose products the disk cannot hold."""
    jobs = [
        Job(job.rule.name, dict(job.wildcards.items()), tuple(job.output))
        for job in workflow.dag.needrun_jobs()
    ]
    everything = any(rule.name == "all" for rule in workflow.dag.targetrules)
    try:
        check_run(EXPERIMENTS, jobs, everything, Path("results"))
    except UserError as error:
        sys.exit(f"error: {error}")


def kept_features(file):
    """Return an output that stays, or is removed when nothing needs it any more."""
    return file if MAIN.settings["keep_features"] else temp(file)


def experiment(wildcards):
    """Return the experiment that a job belongs to, with the values of its model's point."""
    name = getattr(wildcards, "name", MAIN.name)
    return EXPERIMENTS[name].at(getattr(wildcards, "model", ""))


def features_of(wildcards):
    """Return the run whose network, maps and pixels a job uses: at a point, those of the base."""
    kind = kind_of(wildcards.model)
    return RUN.format(
        name=wildcards.name,
        model=kind if kind in BASE_MODELS else wildcards.model,
        seed=wildcards.seed,
    )


def experiments_with(section, key, value):
    """Return a constraint of the wildcard name: the experiments whose configuration says so."""
    return (
        "|".join(
            name for name, chosen in EXPERIMENTS.items() if chosen.settings[section][key] == value
        )
        or "(?!)"
    )


def options(stage, **given):
    """Return a function for `params`: the command line of a stage's options.

    Given options are values, or functions of the wildcards.
    """

    def of(wildcards):
        model = getattr(wildcards, "model", "base")
        values = {
            name: value(wildcards) if callable(value) else value for name, value in given.items()
        }
        if hasattr(wildcards, "seed") and "seed" in option_names(stage):
            values["seed"] = wildcards.seed
        return command_line(
            without_idle(stage, stage_options(stage, experiment(wildcards), model, values))
        )

    return of


def weights(section):
    """Return a function for `params`: the tag of initial weights, or their file's content.

    A file that is overwritten has another content under the same name, and reruns what starts from
    it.
    """
    return lambda wildcards: weights_of(wildcards.name, section)


@cache
def weights_of(name, section):
    """Return what the weights of a section are, looked at once a call of the workflow."""
    settings = EXPERIMENTS[name].settings
    if section == "base.clip_es":
        chosen = settings["base"]["clip_es"]
        return clip_identity(chosen["model"], chosen["weights"])
    return identity(settings[section]["weights"])


def memory(megabytes):
    """Return a function for `resources`: main memory in MB, that much more at each retry."""
    return lambda wildcards, attempt: megabytes * attempt


def code(stage):
    """Return the fingerprint of a stage for `params`."""
    return fingerprint(f"brnf.stages.{stage}")


def stage(name, program="python -m", kept=False, inputs=None, **given):
    """Return what the shared rule needs in `params` to run a stage.

    Named input and output files are what the stage's arguments are called; `inputs` gives further
    arguments as a function of the wildcards. Without files of the index among its inputs a rule
    still names the index where its stage takes one: only what it reads there reruns it.
    """
    takes_index = "index" in input_names(name)

    def files(wildcards, input, output):
        index = {"index": f"results/{wildcards.name}/index"} if takes_index else {}
        shared = {"kept": f"results/{wildcards.name}/.kept"} if kept else {}
        others = inputs(wildcards) if inputs else {}
        return command_line(
            {**index, **dict(input.items()), **others, **dict(output.items()), **shared}
        )

    return {
        "program": program,
        "stage": name,
        "files": files,
        "options": options(name, **given),
        "code": code(name),
    }
