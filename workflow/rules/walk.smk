# Pseudo-labels by a random walk instead of the dense CRF; pixels whose class is sure teach where
# classes end.


ruleorder: walk_pseudo_labels > make_pseudo_labels


use rule stage as make_boundary_labels with:
    input:
        indexed(),
        images=shard_of_index,
        packed=packed_shard(),
        maps=lambda wildcards: f"{RUN}/{labelled(wildcards)[0]}/{{split}}/{{shard}}.h5",
    output:
        masks=directory(f"{RUN}/boundaries/labels/{{split}}/{{shard}}"),
    log:
        f"{RUN}/logs/make_boundary_labels/{{split}}-{{shard}}.log",
    benchmark:
        f"{RUN}/benchmarks/make_boundary_labels/{{split}}-{{shard}}.tsv"
    resources:
        cpus_per_task=CPUS,
        mem_mb=memory(4000),
        runtime=480,
    params:
        **stage("make_boundary_labels", product=lambda wildcards: labelled(wildcards)[1]),


use rule stage as train_boundaries with:
    input:
        indexed_split("train", "splits"),
        packed=packs_of("images", split_of("train")),
        masks=sharded(f"{RUN}/boundaries/labels/{{split}}/{{shard}}", "train"),
    output:
        network=f"{RUN}/boundaries/network.pt",
        history=f"{RUN}/boundaries/history.csv",
    log:
        f"{RUN}/logs/train_boundaries.log",
    benchmark:
        f"{RUN}/benchmarks/train_boundaries.tsv"
    resources:
        cpus_per_task=CPUS,
        gpu=1,
        mem_mb=memory(16000),
        runtime=720,
    params:
        **stage("train_boundaries", split=split_of("train")),
        weights=weights("backbone"),


use rule stage as walk_pseudo_labels with:
    input:
        indexed(),
        images=shard_of_index,
        packed=packed_shard(),
        maps=lambda wildcards: f"{RUN}/{labelled(wildcards)[0]}/{{split}}/{{shard}}.h5",
        network=f"{RUN}/boundaries/network.pt",
    output:
        masks=directory(f"{RUN}/pseudo_labels/{{split}}/{{shard}}"),
        probabilities=f"{RUN}/pseudo_labels/{{split}}/{{shard}}.h5",
    log:
        f"{RUN}/logs/walk_pseudo_labels/{{split}}-{{shard}}.log",
    benchmark:
        f"{RUN}/benchmarks/walk_pseudo_labels/{{split}}-{{shard}}.tsv"
    wildcard_constraints:
        name=experiments_with("pseudo_labels", "refine", "random_walk"),
    resources:
        gpu=1,
        mem_mb=memory(8000),
        runtime=480,
    params:
        **stage("walk_pseudo_labels", product=lambda wildcards: labelled(wildcards)[1]),
