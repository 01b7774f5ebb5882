# What all rules share - the checked configuration, the wildcards, the hooks of a run, and what goes
# into `params` and `resources`.
import gc
import os
import sys
from collections import Counter
from contextlib import suppress
from functools import cache, wraps
from shutil import rmtree, which

from snakemake.common.configfile import load_configfile
from snakemake.logging import logger

# The package stands beside the workflow in the repository; elsewhere Snakemake's Python has it.
if (Path(workflow.basedir).parent / "brnf" / "__init__.py").is_file():
    sys.path.insert(0, str(Path(workflow.basedir).parent))

from brnf.config.checks import is_address
from brnf.config.words import words_file
from brnf.data.contents import data_state
from brnf.data.index import has_images, has_masks
from brnf.data.voc import has_voc
from brnf.errors import UserError
from brnf.shipped import SNAKEFILE, SOURCE
from brnf.weights import clip_identity, identity
from brnf.config.experiment import read_experiments
from brnf.engine.controller import MINIATURE, announce, is_alone
from brnf.workflow.exit_messages import SHELL_PREFIX
from brnf.store.files import keep_foreign
from brnf.workflow.terminal import name_jobs
from brnf.planning.disk import check_run
from brnf.planning.jobs import Job, hidden_jobs
from brnf.workflow.environment import set_environment
from brnf.workflow.gpus import check_paper, gpu_jobs, gpu_line
from brnf.planning.estimate import estimate, seconds_by_rule
from brnf.evaluate.finished import measured_experiments
from brnf.fingerprint import fingerprint, keep_fingerprints
from brnf.workflow.params import command_line, input_names, option_names, stage_options
from brnf.workflow.idle import without_idle
from brnf.workflow.provenance import Expected, Provenance, Wildcards
from brnf.store.file_lists import condensed
from brnf.store.stamps import refresh
from brnf.config.protocol import differences
from brnf.config.recorded import replacement
from brnf.workflow.slurm import begin, end
from brnf.config.studies import (
    ABLATION,
    ABLATION_MODELS,
    BASE_MODELS,
    BASELINES,
    POINT_PATTERN,
    SUPERVISED,
    XIS,
    fit_settings,
    full_models,
    kind_of,
)
from brnf.workflow.measurements import ablation, evaluations, full_sensitivity, sweeps
from brnf.workflow.targets import (
    evaluated_files,
    export_tree,
    exported_predictions,
    figure_words,
    figures,
    map_product,
    models,
    predicted_split,
    shards,
    unmeasured_files,
)


def in_one_line(function):
    """Return a function by which a mistake of the user ends the workflow in one line."""

    @wraps(function)
    def checked(*words, **options):
        try:
            return function(*words, **options)
        except UserError as error:
            sys.exit(f"error: {error}")

    return checked


def literal(text):
    """Return a path or text in which Snakemake, which fills in wildcards, finds none."""
    return str(text).replace("{", "{{").replace("}", "}}")


# Snakemake calls these while it plans jobs, and would print a traceback.
ablation, full_sensitivity, sweeps = map(in_one_line, (ablation, full_sensitivity, sweeps))
evaluations, figures, unmeasured_files = map(in_one_line, (evaluations, figures, unmeasured_files))
evaluated_files, figure_words, shards = map(in_one_line, (evaluated_files, figure_words, shards))
clip_identity, data_state, identity = map(in_one_line, (clip_identity, data_state, identity))


@cache
def sources():
    """Return what Snakemake merges the configuration from: the files, then `--config`."""
    given = workflow.config_settings
    return [*map(load_configfile, given.configfiles), given.config]


EXPERIMENTS = in_one_line(read_experiments)(config, data=False, sources=sources)
MAIN = next(iter(EXPERIMENTS.values()))

# What is imported by now stays: while jobs are planned, Python need not look for garbage in it
# again and again.
gc.freeze()

# The stages run in the interpreter of Snakemake and in this very source, wherever the workflow is
# called from.
in_one_line(set_environment)(
    SOURCE,
    MAIN.settings,
    stamps=workflow.storage_settings.default_storage_provider is None,
)
shell.prefix(SHELL_PREFIX)

# Jobs are named on the terminal by experiment, model and seed.
name_jobs(
    logger,
    {part.name.lower() for part in workflow.output_settings.quiet or ()},
    workflow.output_settings.dryrun,
)

# While this Snakemake lives, nobody else will take its lock for a stale one.
if workflow.is_main_process:
    announce(Path.cwd())

THREADS = MAIN.settings["threads"]
CPUS = (
    THREADS + MAIN.settings["workers"]
)  # what a cluster reserves for a job with workers, that read and compress images or refine labels
DEVICES = MAIN.settings["devices"]  # of one training
DOWNLOADS = MAIN.settings["download"]

# On this machine no more GPU jobs run at once than there are GPUs, unless --resources or a profile
# says how many; a cluster counts them itself.
COUNTS_GPUS = (
    workflow.is_main_process and workflow.local_exec and "gpu" not in workflow.global_resources
)
GPU_JOBS = gpu_jobs(MAIN.settings["device"]) if COUNTS_GPUS else None
if GPU_JOBS is not None:
    workflow.register_resource("gpu", GPU_JOBS)

ENVIRONMENT = literal(SNAKEFILE.parents[1] / "envs" / "brnf.yaml")
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
    model=f"({'|'.join([*BASE_MODELS, *BRNF_MODELS, SUPERVISED])}){POINT_PATTERN}",
    seed="[0-9]+",
    split="[A-Za-z0-9_]+",
    shard="[0-9]+",
    product="[a-z_]+",
    figure="predictions|examples|scores|bias|curves|ablation",
    fit="|".join([r"own|tau-[\d.]+-[\d.]+", *BASELINES]),


def say_estimate(workflow):
    """Print how long jobs will take, also those that the missing index of `all` hides; those
    without a benchmark file take no time."""
    planned = [
        Job(job.rule.name, dict(job.wildcards.items()), benchmark="yes")
        for job in workflow.dag.needrun_jobs()
        if job.rule.benchmark
    ]
    jobs = {job.identity: job for job in planned}
    whole = not any(job.rule == "index_images" for job in planned)
    if not whole and asks_for_all(workflow) and MINIATURE not in os.environ:
        with suppress(UserError):  # the run itself will say what is wrong
            hidden = hidden_jobs(EXPERIMENTS, Path("results"))
            jobs |= {job.identity: job for job in hidden if job.benchmark}
            whole = True
    counts = Counter(job.rule for job in jobs.values())
    seconds = seconds_by_rule(Path("results"), MAIN.name)
    print(estimate(counts, seconds, jobs_at_once(workflow), whole), file=sys.stderr)


def asks_for_all(workflow):
    """Return whether a run makes everything."""
    return any(rule.name == "all" for rule in workflow.dag.targetrules)


def jobs_at_once(workflow):
    """Return how many jobs run at a time: of a machine, or of a cluster."""
    return workflow.resource_settings.cores or workflow.resource_settings.nodes or 1


@in_one_line
def begin_run(workflow):
    """End a run whose jobs would start beside those that a killed run left in a queue, or would
    overwrite the companion of another experiment.
    """
    written = {getattr(job.wildcards, "name", "") for job in workflow.dag.needrun_jobs()}
    for name in written & EXPERIMENTS.keys():
        EXPERIMENTS[name].check_owner(Path("results"))
    submits = workflow.executor_plugin.name in ("slurm", "cluster-generic")
    if submits and workflow.group_settings.overwrite_groups:
        raise UserError(
            "--groups: after a checkpoint, such as the image index, Snakemake submits the jobs of "
            "a group again and again; set a smaller `shards` for fewer jobs"
        )
    begin(Path.cwd(), EXPERIMENTS, submits and which("squeue"))


def end_run():
    """Note that a run has ended by itself, well or not, and what its products look like now."""
    for job in workflow.dag.finished_jobs:
        for product in job.output:
            refresh(Path(product))
    end(Path.cwd(), EXPERIMENTS)


def remove_feature_caches():
    """Remove what trainings of a run shared, unless another run lives; it stays after errors."""
    for name in EXPERIMENTS if is_alone(Path.cwd()) else ():
        for folder in (".feature_cache", ".kept"):  # as an earlier version called it
            rmtree(f"results/{name}/{folder}", ignore_errors=True)


@in_one_line
def look_for_gpus(workflow):
    """Say how many GPUs were found, and end a run of the paper's setting on this machine that needs
    one and has none; the target plan may measure it on a CPU.
    """
    if COUNTS_GPUS and (line := gpu_line(MAIN.settings["device"], GPU_JOBS)):
        print(line, file=sys.stderr)
    planned = [job for job in workflow.dag.needrun_jobs() if job.rule.name != "plan"]
    hidden = asks_for_all(workflow) and any(job.rule.name == "index_images" for job in planned)
    if workflow.local_exec and MINIATURE not in os.environ:
        if hidden or any(job.resources.get("gpu") for job in planned):
            for chosen in EXPERIMENTS.values():
                check_paper(chosen.settings)


@in_one_line
def keep_foreign_folders(workflow):
    """End a run that would replace a folder of somebody else: before its job, Snakemake removes
    whatever stands in the place of an output."""
    if STORED:
        return  # what stands there are copies
    record = workflow.persistence
    for job in workflow.dag.needrun_jobs():
        for file in job.output:
            if file.is_directory and not record.metadata(file):
                keep_foreign(Path(file))


@in_one_line
def refuse_full_disk(workflow):
    """End a run whose products the disk cannot hold."""
    if STORED:
        return
    jobs = [
        Job(job.rule.name, dict(job.wildcards.items()), tuple(job.output))
        for job in workflow.dag.needrun_jobs()
    ]
    check_run(EXPERIMENTS, jobs, asks_for_all(workflow), Path("results"))


def lasting_features(file):
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


def in_short(named):
    """Return named files with lists of numbered ones in short, and without packs where there are
    none: a word has its largest length.
    """
    return {
        flag: paths if isinstance(paths, str) else condensed(paths)
        for flag, paths in named.items()
        if paths or flag != "packed"
    }


def stage(name, program="python -m", feature_cache=False, inputs=None, **given):
    """Return what the shared rule needs in `params` to run a stage.

    Named input and output files are what the stage's arguments are called; `inputs` gives further
    arguments as a function of the wildcards. Without files of the index among its inputs a rule
    still names the index where its stage takes one: only what it reads there reruns it.
    """
    takes_index = "index" in input_names(name)

    def files(wildcards, input, output):
        index = {"index": here(f"results/{wildcards.name}/index")} if takes_index else {}
        shared = {}
        if feature_cache:
            shared["feature_cache"] = f"results/{wildcards.name}/.feature_cache"
        others = inputs(wildcards) if inputs else {}
        return command_line(
            {**index, **in_short(input), **others, **dict(output.items()), **shared}
        )

    return {
        "program": program,
        "stage": name,
        "files": files,
        "read": lambda wildcards, input: "\t".join(condensed(input)),
        "options": options(name, **given),
        "code": code(name),
    }
