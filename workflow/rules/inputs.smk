# What rules read: lists of the image index, shards, maps, flows, ground truth - functions for
# `input`, and options that follow them.


def index_of(name):
    """Return the folder of an experiment's image index, once that is there.

    The index is a checkpoint: when it is made again, files that stay equal to the byte rerun
    nothing.
    """
    index = checkpoints.index_images.get(name=name).output.index
    return copy_of_index(name) if STORED else Path(index)


def index_folder(wildcards):
    """Return the folder of the image index of a job."""
    return index_of(wildcards.name)


def data_set(wildcards):
    """Return what must be rendered or fetched first; a data set that is there is known in other
    ways.
    """
    in_one_line(experiment(wildcards).check_data)()
    scenes = experiment(wildcards).settings["dataset"]["kind"] == "scenes"
    if scenes:
        return [f"results/{wildcards.name}/data"]
    place = address_of(wildcards)
    return [storage(place)] if place else []


def image_source(wildcards):
    """Return where the data set is, for the command line."""
    dataset = experiment(wildcards).settings["dataset"]
    if dataset["kind"] == "scenes":
        return command_line({"root": here(f"results/{wildcards.name}/data")})
    key = "table" if dataset["kind"] == "table" else "root"
    if place := address_of(wildcards):
        return command_line(
            {key: f"{storage(place)}{dataset[key].rstrip('/').removeprefix(place)}"}
        )
    return command_line({key: dataset[key]})


@cache
def state_of(name):
    """Return the state of an experiment's data, looked at once a call of the workflow.

    Snakemake asks in each job on a cluster, too, whatever its rule. There the state is what the
    index was made from: many jobs must not look at all files of the data set at once.
    """
    index = Path(f"results/{name}/index")
    own = workflow.dag_settings.allowed_rules or []  # rules of a job
    if not workflow.is_main_process and "index_images" not in own:
        with suppress(OSError):
            return (index / "state.txt").read_text().strip()
    return data_state(index)


def after_index(wildcards):
    """Return no file for `input`, but not before the indices are there.

    What only follows jobs that read the index would otherwise run whenever the index was made
    again, although none of them ran: Snakemake asks anew only for jobs that waited for the
    checkpoint themselves.
    """
    for name in [wildcards.name] if hasattr(wildcards, "name") else EXPERIMENTS:
        checkpoints.index_images.get(name=name)
    return []


def index_summaries(wildcards):
    """Return what is said about the data of every experiment, once their indices are there."""
    after_index(wildcards)
    return [f"results/{name}/index/summary.md" for name in EXPERIMENTS]


def indexed(*names):
    """Return a function for `input`: the classes and other index files that a stage reads."""

    def of(wildcards):
        index_folder(wildcards)
        words = dict(wildcards.items())
        return [
            f"results/{wildcards.name}/index/{name.format(**words)}"
            for name in ("classes.csv", *names, *(["root.txt"] if STORED else []))
        ]

    return of


def indexed_split(key, *folders):
    """Return a function for `input`: the classes, and the lists of a split by its dataset key."""
    return lambda wildcards: indexed(
        *(f"{folder}/{split_of(key)(wildcards)}.csv" for folder in folders)
    )(wildcards)


def shard_of_index(wildcards):
    """Return the list of a shard in the image index."""
    index_folder(wildcards)
    return f"results/{wildcards.name}/index/shards/{wildcards.split}/{wildcards.shard}.csv"


def flow_of(wildcards):
    """Return the run whose flow denoises: a base at another xi has the base's own."""
    return (
        features_of(wildcards)
        if "@xi" in wildcards.model
        else RUN.format(**dict(wildcards.items()))
    )


def sharded(pattern, *keys):
    """Return a function for `input`: a file for every shard of splits, by their dataset keys.

    Besides the wildcards the pattern may hold {features}, the run of `features_of`. The shards of a
    split that the training split contains are those of that. The validation split may be missing.
    """

    def of(wildcards):
        chosen = experiment(wildcards)
        dataset, words = chosen.settings["dataset"], dict(wildcards.items())
        if "{features}" in pattern:
            words["features"] = features_of(wildcards)
        index = index_folder(wildcards)
        splits = [
            chosen.computed_split(dataset[key])
            for key in keys
            if dataset[key] and (key != "val" or has_images(index, dataset[key]))
        ]
        return [
            file.format(**words)
            for split in dict.fromkeys(splits)
            for file in shards(index, pattern, split)
        ]

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


def true_masks_of_eval_split(wildcards):
    """Return the same of the split on which seeds are evaluated."""
    return true_masks(wildcards, split_of("eval_split")(wildcards))


def evaluated(wildcards):
    """Return the evaluations that the tables of an experiment gather."""
    found = evaluations(
        experiment(wildcards),
        index_folder(wildcards),
        f"{RUN}/evaluation/{{product}}-{{split}}.json",
    )
    if not found:
        sys.exit(
            f"error: results/{wildcards.name}/tables: no image that results are measured on has a "
            "mask; add masks, or ask for `all`, which makes what needs none"
        )
    return found


def tables(wildcards):
    """Return the main table of every experiment in which something is measured."""
    return [
        f"results/{name}/tables/results.csv"
        for name, chosen in EXPERIMENTS.items()
        if evaluations(chosen, index_of(name), "")
    ]


def beside_tables(wildcards):
    """Return what the report reads beside the main tables: tables, and which split has masks."""
    found = [
        str(Path(table).with_name(name))
        for table in tables(wildcards)
        for name in ("results.md", "by_seed.csv", "seeds.csv", "seeds.md")
    ]
    for name, chosen in EXPERIMENTS.items() if STORED else ():
        index = index_of(name)
        found += [
            f"results/{name}/index/masks/{split}.csv"
            for split in chosen.measured_splits()
            if has_images(index, split)
        ]
    return found


def drawn_figures(wildcards):
    """Return the figures of all experiments."""
    return [
        f"results/{name}/figures/{figure}.png"
        for name, chosen in EXPERIMENTS.items()
        for figure in figures(chosen, index_of(name))
    ]


def results_of(name):
    """Return a function for `input`: what `all` makes of an experiment, beside the report.

    Each experiment has a function of its own, so that none waits for the index of another.
    """
    chosen, table = EXPERIMENTS[name], f"results/{name}/tables/results.csv"

    def of(wildcards):
        index = index_of(name)
        measured = [table] if evaluations(chosen, index, "") else []
        return measured + models(chosen, RUN) + unmeasured_files(chosen, index, RUN)

    return of


def drawn(wildcards):
    """Return what a figure is drawn from, as flags and their words."""
    words = figure_words(experiment(wildcards), wildcards.figure, index_folder(wildcards), RUN)
    return words | true_masks(wildcards, pictured_split(wildcards)) if "panels" in words else words


def drawn_here(wildcards):
    """Return the same words with each file where the stage finds it."""
    return {
        flag: [":".join([*word.split(":")[:-1], here(word.split(":")[-1])]) for word in words]
        for flag, words in drawn(wildcards).items()
    }


def packed_pictures(wildcards):
    """Return packs of the images and masks that a figure shows."""
    if not STORED or "panels" not in drawn(wildcards):
        return []
    return [
        pack for kind in ("images", "masks") for pack in packs_of(kind, pictured_split)(wildcards)
    ]


def drawing_options(wildcards):
    """Return a figure's options: the images shown, or the order of models and products."""
    found = stage_options(
        "draw", experiment(wildcards), "base", {"split": pictured_split(wildcards)}
    )
    if wildcards.figure not in ("predictions", "examples", "ablation"):
        return command_line({name: found[name] for name in ("models", "products")})
    named = found["split"] == split_of("eval_split")(wildcards)  # whose images figures.images are
    names = (
        *("split", *(["figures.images"] if named else [])),
        *("figures.count", "figures.palette"),
    )
    return command_line({name: found[name] for name in names})


def pictured_split(wildcards):
    """Return the split whose images a figure shows."""
    if wildcards.figure == "predictions":
        return predicted_split(experiment(wildcards), index_folder(wildcards))
    return split_of("eval_split")(wildcards)


def pictured(wildcards):
    """Return the lists of the split whose images a figure shows; none for numbers only."""
    split = pictured_split(wildcards)
    lists = indexed(f"splits/{split}.csv", f"masks/{split}.csv")
    return lists(wildcards) if "panels" in drawn(wildcards) else []


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
    return chosen.seeds_of(wildcards.model, denoised=chosen.labels_denoised(wildcards.model))


def segmenter_masks(wildcards):
    """Return what a segmenter is trained on: pseudo-labels, or true masks."""
    if wildcards.model != SUPERVISED:
        return sharded(f"{RUN}/pseudo_labels/{{split}}/{{shard}}", "train")(wildcards)
    split = split_of("train")(wildcards)
    if not has_masks(index_folder(wildcards), split):
        sys.exit(
            f"error: configuration: models: '{SUPERVISED}' is trained on masks, and no image of "
            f"split '{split}' has one; take it off, or add masks"
        )
    return sharded("results/{name}/true_masks/{split}/{shard}", "train")(wildcards)


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


def first_store(wildcards):
    """Return the pixel store that BRNF's flow is trained on, of the first seed."""
    run = f"results/{{name}}/brnf/seed{experiment(wildcards).settings['random_seeds'][0]}"
    return sharded(f"{run}/pixels/{{split}}/{{shard}}.h5", "train")(wildcards)


def archives(key):
    """Return a function for `params`: the archives of a data set."""
    listed = DOWNLOADS[key]["archives"]
    return lambda wildcards: command_line(
        {
            "addresses": [entry["address"] for entry in listed],
            "md5s": [entry["md5"] for entry in listed],
        }
    )


def fetched_voc12(wildcards):
    """Return the record of VOC 2012, which SBD's masks go into, unless VOC is there from
    elsewhere."""
    folder = Path(DOWNLOADS["voc12"]["folder"])
    record = folder / "voc12.unpacked.json"
    return [] if has_voc(folder) and not record.exists() else [local(str(record))]
