# What rules read: lists of the image index, shards, maps, flows, ground truth - functions for
# `input`, and options that follow them.


def index_folder(wildcards):
    """Return the folder of the image index, once that is there.

    The index is a checkpoint: when it is made again, files that stay equal to the byte rerun
    nothing.
    """
    return Path(checkpoints.index_images.get(name=wildcards.name).output.index)


def rendered(wildcards):
    """Return what must be rendered first; a data set that is there is known in other ways."""
    scenes = experiment(wildcards).settings["dataset"]["kind"] == "scenes"
    return [f"results/{wildcards.name}/data"] if scenes else []


def image_source(wildcards):
    """Return where the data set is, for the command line."""
    dataset = experiment(wildcards).settings["dataset"]
    root = f"results/{wildcards.name}/data" if dataset["kind"] == "scenes" else dataset["root"]
    return command_line(
        {"table": dataset["table"]} if dataset["kind"] == "table" else {"root": root}
    )


@cache
def state_of(name):
    """Return the state of an experiment's data, looked at once a call of the workflow."""
    return data_state(Path(f"results/{name}/index"))


def after_index(wildcards):
    """Return no file for `input`, but not before the indices are there.

    What only follows jobs that read the index would otherwise run whenever the index was made
    again, although none of them ran: Snakemake asks anew only for jobs that waited for the
    checkpoint themselves.
    """
    for name in [wildcards.name] if hasattr(wildcards, "name") else EXPERIMENTS:
        checkpoints.index_images.get(name=name)
    return []


def indexed(*names):
    """Return a function for `input`: the classes and other index files that a stage reads."""
    return lambda wildcards: [
        f"{index_folder(wildcards)}/{name.format(**dict(wildcards.items()))}"
        for name in ("classes.csv", *names)
    ]


def indexed_split(key, *folders):
    """Return a function for `input`: the classes, and the lists of a split by its dataset key."""
    return lambda wildcards: indexed(
        *(f"{folder}/{split_of(key)(wildcards)}.csv" for folder in folders)
    )(wildcards)


def shard_of_index(wildcards):
    """Return the list of a shard in the image index."""
    return f"{index_folder(wildcards)}/shards/{wildcards.split}/{wildcards.shard}.csv"


def flow_of(wildcards):
    """Return the run whose flow denoises: a base at another xi has the base's own."""
    return (
        features_of(wildcards)
        if "@xi" in wildcards.model
        else RUN.format(**dict(wildcards.items()))
    )


def sharded(pattern, key):
    """Return a function for `input`: a file for every shard of a split, by its dataset key.

    Besides the wildcards the pattern may hold {features}, the run of `features_of`.
    """

    def of(wildcards):
        files = shards(
            index_folder(wildcards), pattern, experiment(wildcards).settings["dataset"][key]
        )
        return [
            file.format(features=features_of(wildcards), **dict(wildcards.items()))
            for file in files
        ]

    return of


def all_shards(pattern):
    """Return a function for `input`: a file for every shard of every split that has maps."""

    def of(wildcards):
        chosen = experiment(wildcards)
        splits = dict.fromkeys(chosen.computed_split(split) for split in chosen.splits())
        files = [
            file for split in splits for file in shards(index_folder(wildcards), pattern, split)
        ]
        return [file.format(**dict(wildcards.items())) for file in files]

    return of


def measured(wildcards):
    """Return the `input` of an evaluation: maps, or masks with probabilities, and drawn truth."""
    split = experiment(wildcards).computed_split(wildcards.split)
    files = evaluated_files(
        index_folder(wildcards), wildcards.product, split, RUN.format(**dict(wildcards.items()))
    )
    return files | true_masks(wildcards, wildcards.split)


def true_masks(wildcards, split):
    """Return the ground truth of a split if a rule draws it, for `input` and the command line."""
    if experiment(wildcards).settings["dataset"]["kind"] != "coco":
        return {}
    return {
        "truth": shards(
            index_folder(wildcards), f"results/{wildcards.name}/masks/{{split}}/{{shard}}", split
        )
    }


def true_masks_of_seeds(wildcards):
    """Return the same of the split on which seeds are evaluated."""
    return true_masks(wildcards, split_of("seeds")(wildcards))


def drawn(wildcards):
    """Return what a figure is drawn from, as flags and their words."""
    words = figure_words(experiment(wildcards), wildcards.figure, index_folder(wildcards), RUN)
    return words | true_masks_of_seeds(wildcards) if "panels" in words else words


def drawing_options(wildcards):
    """Return a figure's options: the images shown, or the order of models and products."""
    found = stage_options(
        "draw", experiment(wildcards), "base", {"split": split_of("seeds")(wildcards)}
    )
    names = (
        ("split", "figures.images", "figures.count")
        if wildcards.figure in ("examples", "ablation")
        else ("models", "products")
    )
    return command_line({name: found[name] for name in names})


def pictured(wildcards):
    """Return the lists of the split whose images a figure shows; none for numbers only."""
    return (
        indexed_split("seeds", "splits", "masks")(wildcards) if "panels" in drawn(wildcards) else []
    )


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
    base = (
        f"base{wildcards.model.removeprefix(kind_of(wildcards.model))}"
        if folder == "denoised"
        else "base"
    )
    return sharded(
        f"results/{{name}}/{base}/seed{{seed}}/{folder}/{{split}}/{{shard}}.h5", "train"
    )(wildcards)


def labelled(wildcards):
    """Return what becomes pseudo-labels: the folder of the model's maps and the product in them."""
    chosen = experiment(wildcards)
    return chosen.seeds_of(wildcards.model, denoised=chosen.denoises(wildcards.model))


def final_round(wildcards):
    """Return the settings of the last denoising."""
    return experiment(wildcards).settings["bsdnf"]["final"]


def own_round(wildcards):
    """Return the settings of the denoising that a model's maps go through."""
    return (
        experiment(wildcards).settings["bsdnf"]["base"]
        if kind_of(wildcards.model) in BASE_MODELS
        else final_round(wildcards)
    )


def of_fit(key):
    """Return a function for `options`: what the density of a study is made of."""
    return lambda wildcards: fit_settings(experiment(wildcards).settings, wildcards.fit)[key]


def fit_file(wildcards, name):
    """Return a file of a density: fitted for a study, or the run's own."""
    folder = "flow" if wildcards.fit == "own" else f"fits/{wildcards.fit}"
    return f"{RUN}/{folder}/{name}".format(**dict(wildcards.items()))


def seed_shards(folder):
    """Return a function for `input`: the shards of the images that seeds are evaluated on."""

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
    return shards(
        index_folder(wildcards),
        f"{run}/pixels/{{split}}/{{shard}}.h5",
        chosen.settings["dataset"]["train"],
    )


def archives(key):
    """Return the options of a download: the archives of a data set."""
    listed = DOWNLOADS[key]["archives"]
    return command_line(
        {
            "addresses": [entry["address"] for entry in listed],
            "md5s": [entry["md5"] for entry in listed],
        }
    )
