# What all rules share - the checked configuration, the wildcards, and what goes into `input`, `params` and `resources`.
import sys
from collections import Counter
from functools import cache
from shutil import rmtree, which

sys.path.insert(0, str(Path(workflow.basedir).parent))

from brnf.base.clip_words import words_file
from brnf.data.contents import data_state
from brnf.errors import UserError
from brnf.workflow.configuration import read_experiments
from brnf.workflow.controller import announce, is_alone
from brnf.workflow.deaths import SHELL_PREFIX
from brnf.workflow.disk import check_disk, planned_shares
from brnf.workflow.environment import set_environment
from brnf.workflow.estimate import estimate, seconds_by_rule
from brnf.workflow.finished import measured_experiments
from brnf.workflow.fingerprint import fingerprint
from brnf.workflow.flags import command_line, option_names, stage_options
from brnf.workflow.idle import without_idle
from brnf.workflow.schema import leaves, load_schema
from brnf.workflow.slurm import begin, end
from brnf.workflow.studies import ABLATION, ABLATION_MODELS, BASE_MODELS, BASELINES, POINT_PATTERN, XIS, fit_settings, full_models, kind_of
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

# The stages run in the interpreter of Snakemake and in this very source, wherever the workflow is called from.
set_environment(Path(sys.path[0]), MAIN.settings)
shell.prefix(SHELL_PREFIX)

# While this Snakemake lives, nobody else will take its lock for a stale one.
if workflow.is_main_process:
    announce(Path.cwd())

THREADS = MAIN.settings["threads"]
CPUS = THREADS + MAIN.settings["workers"]  # what a cluster reserves for a job with workers, that read images or refine labels
DEVICES = MAIN.settings["devices"]  # of one training
DOWNLOADS = MAIN.settings["download"]
ENVIRONMENT = "../../envs/brnf.yaml"
BRNF_MODELS = sorted({model for chosen in EXPERIMENTS.values() for model in ("brnf", *ABLATION, *chosen.settings["variants"])})
CHAIN = 1  # priority of what the longest chain of jobs waits for, over pseudo-labels and segmentation
RUN = "results/{name}/{model}/seed{seed}"


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
    """Print how long the planned jobs will take."""
    jobs = Counter(job.rule.name for job in workflow.dag.needrun_jobs() if job.output)
    at_once = workflow.resource_settings.cores or workflow.resource_settings.nodes or 1  # of a machine, or of a cluster
    print(estimate(jobs, seconds_by_rule(Path("results"), MAIN.name), at_once), file=sys.stderr)


def begin_run(workflow):
    """End a run whose jobs would start beside those that a killed run left in the queue of a cluster."""
    try:
        begin(Path.cwd(), EXPERIMENTS, workflow.executor_plugin.name in ("slurm", "cluster-generic") and which("squeue"))
    except UserError as error:
        sys.exit(f"error: {error}")


def end_run():
    """Note that a run has ended by itself, well or not."""
    end(Path.cwd(), EXPERIMENTS)


def remove_kept():
    """Remove what trainings of a run have shared, unless another run lives here; after an error it stays for the next run."""
    for name in EXPERIMENTS if is_alone(Path.cwd()) else ():
        rmtree(f"results/{name}/.kept", ignore_errors=True)


def refuse_full_disk(workflow):
    """End a run whose products the disk cannot hold."""
    jobs = [(job.rule.name, dict(job.wildcards.items()), list(job.output)) for job in workflow.dag.needrun_jobs()]
    everything = any(rule.name == "all" for rule in workflow.dag.targetrules)
    shares = planned_shares(EXPERIMENTS, jobs, Path("results"), everything)
    try:
        check_disk({name: (EXPERIMENTS[name], found) for name, found in shares.items()}, Path("results"))
    except UserError as error:
        sys.exit(f"error: {error}")


def kept_features(file):
    """Return an output that stays, or is removed when nothing needs it any more."""
    return file if MAIN.settings["keep_features"] else temp(file)


def experiment(wildcards):
    """Return the experiment that a job belongs to, with the values of its model's point."""
    return EXPERIMENTS[wildcards.name].at(getattr(wildcards, "model", ""))


def features_of(wildcards):
    """Return the run whose network, maps and pixels a job uses: a base at a point has those of the base itself."""
    kind = kind_of(wildcards.model)
    return RUN.format(name=wildcards.name, model=kind if kind in BASE_MODELS else wildcards.model, seed=wildcards.seed)


def experiments_with(section, key, value):
    """Return a constraint of the wildcard name: the experiments whose configuration says so."""
    return "|".join(name for name, chosen in EXPERIMENTS.items() if chosen.settings[section][key] == value) or "(?!)"


def options(stage, **given):
    """Return a function for `params`: the command line of a stage's options.

    Given options are values, or functions of the wildcards.
    """

    def of(wildcards):
        model = getattr(wildcards, "model", "base")
        values = {name: value(wildcards) if callable(value) else value for name, value in given.items()}
        if hasattr(wildcards, "seed") and "seed" in option_names(stage):
            values["seed"] = wildcards.seed
        return command_line(without_idle(stage, stage_options(stage, experiment(wildcards), model, values)))

    return of


def memory(megabytes):
    """Return a function for `resources`: main memory in MB, that much more at each retry."""
    return lambda wildcards, attempt: megabytes * attempt


def code(stage):
    """Return the fingerprint of a stage for `params`."""
    return fingerprint(f"brnf.stages.{stage}")


def index_folder(wildcards):
    """Return the folder of the image index, once that is there.

    The index is a checkpoint: when it is made again, files that stay equal to the byte rerun nothing.
    """
    return Path(checkpoints.index_images.get(name=wildcards.name).output.index)


def rendered(wildcards):
    """Return what must be rendered first. A data set that is there already is no input: its state is known in other ways."""
    scenes = experiment(wildcards).settings["dataset"]["kind"] == "scenes"
    return [f"results/{wildcards.name}/data"] if scenes else []


def image_source(wildcards):
    """Return where the data set is, for the command line."""
    dataset = experiment(wildcards).settings["dataset"]
    root = f"results/{wildcards.name}/data" if dataset["kind"] == "scenes" else dataset["root"]
    return command_line({"table": dataset["table"]} if dataset["kind"] == "table" else {"root": root})


@cache
def state_of(name):
    """Return the state of an experiment's data, looked at once a call of the workflow."""
    return data_state(Path(f"results/{name}/index"))


def after_index(wildcards):
    """Return no file for `input`, but not before the indices are there.

    What only follows jobs that read the index would otherwise run whenever the index was made again, although none of them ran:
    Snakemake asks anew only for jobs that waited for the checkpoint themselves.
    """
    for name in [wildcards.name] if hasattr(wildcards, "name") else EXPERIMENTS:
        checkpoints.index_images.get(name=name)
    return []


def indexed(*names):
    """Return a function for `input`: the classes and other files of the image index, which hold no more than the stage reads."""
    return lambda wildcards: [f"{index_folder(wildcards)}/{name.format(**dict(wildcards.items()))}" for name in ("classes.csv", *names)]


def indexed_split(key, *folders):
    """Return a function for `input`: the classes, and the lists of a split given by its key in section dataset."""
    return lambda wildcards: indexed(*(f"{folder}/{split_of(key)(wildcards)}.csv" for folder in folders))(wildcards)


def shard_of_index(wildcards):
    """Return the list of a shard in the image index."""
    return f"{index_folder(wildcards)}/shards/{wildcards.split}/{wildcards.shard}.csv"


def flow_of(wildcards):
    """Return the run whose flow denoises: xi enters after the fit, so a base at a xi has the flow of the base itself."""
    return features_of(wildcards) if "@xi" in wildcards.model else RUN.format(**dict(wildcards.items()))


def sharded(pattern, key):
    """Return a function for `input`: a file for every shard of a split, given by its key in section dataset.

    Besides the wildcards the pattern may hold {features}, the run of `features_of`.
    """

    def of(wildcards):
        files = shards(index_folder(wildcards), pattern, experiment(wildcards).settings["dataset"][key])
        return [file.format(features=features_of(wildcards), **dict(wildcards.items())) for file in files]

    return of


def all_shards(pattern):
    """Return a function for `input`: a file for every shard of every split that maps are computed for."""

    def of(wildcards):
        chosen = experiment(wildcards)
        splits = dict.fromkeys(chosen.computed_split(split) for split in chosen.splits())
        files = [file for split in splits for file in shards(index_folder(wildcards), pattern, split)]
        return [file.format(**dict(wildcards.items())) for file in files]

    return of


def measured(wildcards):
    """Return the `input` of an evaluation: maps, or masks with their probabilities, and ground truth that is drawn."""
    split = experiment(wildcards).computed_split(wildcards.split)
    files = evaluated_files(index_folder(wildcards), wildcards.product, split, RUN.format(**dict(wildcards.items())))
    return files | true_masks(wildcards, wildcards.split)


def true_masks(wildcards, split):
    """Return the ground truth of a split that a rule draws, for `input` and the command line; nothing where there are files of it."""
    if experiment(wildcards).settings["dataset"]["kind"] != "coco":
        return {}
    return {"truth": shards(index_folder(wildcards), f"results/{wildcards.name}/masks/{{split}}/{{shard}}", split)}


def true_masks_of_seeds(wildcards):
    """Return the same of the split on which seeds are evaluated."""
    return true_masks(wildcards, split_of("seeds")(wildcards))


def drawn(wildcards):
    """Return what a figure is drawn from, as flags and their words."""
    words = figure_words(experiment(wildcards), wildcards.figure, index_folder(wildcards), RUN)
    return words | true_masks_of_seeds(wildcards) if "panels" in words else words


def drawing_options(wildcards):
    """Return the options that a figure follows from: which images are shown, or the order of models and products."""
    found = stage_options("draw", experiment(wildcards), "base", {"split": split_of("seeds")(wildcards)})
    names = ("split", "images", "count") if wildcards.figure in ("examples", "ablation") else ("models", "products")
    return command_line({name: found[name] for name in names})


def pictured(wildcards):
    """Return the lists of the split whose images a figure shows; none when it shows numbers only."""
    return indexed_split("seeds", "splits", "masks")(wildcards) if "panels" in drawn(wildcards) else []


def split_of(key):
    """Return a function for `options`: the split of a key in section dataset."""
    return lambda wildcards: experiment(wildcards).settings["dataset"][key]


def guide(wildcards):
    """Return what guides a BRNF network: the folder of the base's maps and the product in them."""
    chosen = experiment(wildcards)
    return chosen.seeds_of("base", denoised=chosen.denoises(wildcards.model))


def guiding_maps(wildcards):
    """Return the files of `guide`, for the training split."""
    folder, _ = guide(wildcards)
    base = f"base{wildcards.model.removeprefix(kind_of(wildcards.model))}" if folder == "denoised" else "base"
    return sharded(f"results/{{name}}/{base}/seed{{seed}}/{folder}/{{split}}/{{shard}}.h5", "train")(wildcards)


def labelled(wildcards):
    """Return what becomes pseudo-labels: the folder of the model's maps and the product in them."""
    chosen = experiment(wildcards)
    return chosen.seeds_of(wildcards.model, denoised=chosen.denoises(wildcards.model))


def final_round(wildcards):
    """Return the settings of the last denoising."""
    return experiment(wildcards).settings["bsdnf"]["final"]


def of_fit(key):
    """Return a function for `options`: what the density of a study is made of."""
    return lambda wildcards: fit_settings(experiment(wildcards).settings, wildcards.fit)[key]


def fit_file(wildcards, name):
    """Return a file of a density: fitted for a study, or the run's own."""
    folder = "flow" if wildcards.fit == "own" else f"fits/{wildcards.fit}"
    return f"{RUN}/{folder}/{name}".format(**dict(wildcards.items()))


def seed_shards(folder):
    """Return a function for `input`: the shards that hold the images on which seeds are evaluated."""

    def of(wildcards):
        chosen = experiment(wildcards)
        split = chosen.computed_split(chosen.settings["dataset"]["seeds"])
        files = shards(index_folder(wildcards), f"{RUN}/{folder}/{{split}}/{{shard}}.h5", split)
        return [file.format(**dict(wildcards.items())) for file in files]

    return of


def first_store(wildcards):
    """Return the pixel store that BRNF's flow is trained on, of the first seed."""
    chosen = experiment(wildcards)
    run = RUN.format(name=chosen.name, model="brnf", seed=chosen.settings["seeds"][0])
    return shards(index_folder(wildcards), f"{run}/pixels/{{split}}/{{shard}}.h5", chosen.settings["dataset"]["train"])


def archives(key):
    """Return the options of a download: the archives of a data set."""
    listed = DOWNLOADS[key]["archives"]
    return command_line({"addresses": [entry["address"] for entry in listed], "md5s": [entry["md5"] for entry in listed]})
