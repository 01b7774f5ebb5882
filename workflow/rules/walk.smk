# Pseudo-labels by a random walk instead of the dense CRF; pixels whose class is sure teach where
# classes end.


ruleorder: walk_pseudo_labels > make_pseudo_labels


rule make_boundary_labels:
    input:
        indexed(),
        images=shard_of_index,
        maps=lambda wildcards: f"{RUN}/{labelled(wildcards)[0]}/{{split}}/{{shard}}.h5",
    output:
        masks=directory(f"{RUN}/boundaries/labels/{{split}}/{{shard}}"),
    log:
        f"{RUN}/logs/make_boundary_labels/{{split}}-{{shard}}.log",
    benchmark:
        f"{RUN}/benchmarks/make_boundary_labels/{{split}}-{{shard}}.tsv"
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        cpus_per_task=CPUS,
        mem_mb=memory(4000),
        runtime=480,
    params:
        options=options("make_boundary_labels", product=lambda wildcards: labelled(wildcards)[1]),
        code=code("make_boundary_labels"),
    shell:
        "python -m brnf.stages.make_boundary_labels --index results/{wildcards.name}/index"
        " --images {input.images}"
        " --maps {input.maps}"
        " --masks {output.masks} {params.options} $BRNF_RUNTIME 2> >(tee {log} >&2)"


rule train_boundaries:
    input:
        indexed_split("train", "splits"),
        masks=sharded(f"{RUN}/boundaries/labels/{{split}}/{{shard}}", "train"),
    output:
        network=f"{RUN}/boundaries/network.pt",
        history=f"{RUN}/boundaries/history.csv",
    log:
        f"{RUN}/logs/train_boundaries.log",
    benchmark:
        f"{RUN}/benchmarks/train_boundaries.tsv"
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        cpus_per_task=CPUS,
        gpu=1,
        mem_mb=memory(16000),
        runtime=720,
    params:
        options=options("train_boundaries", split=split_of("train")),
        weights=weights("backbone"),
        code=code("train_boundaries"),
    shell:
        "python -m brnf.stages.train_boundaries --index results/{wildcards.name}/index"
        " --masks {input.masks}"
        " --network {output.network}"
        " --history {output.history} {params.options} $BRNF_RUNTIME 2> >(tee {log} >&2)"


rule walk_pseudo_labels:
    input:
        indexed(),
        images=shard_of_index,
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
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        gpu=1,
        mem_mb=memory(8000),
        runtime=480,
    params:
        options=options("walk_pseudo_labels", product=lambda wildcards: labelled(wildcards)[1]),
        code=code("walk_pseudo_labels"),
    shell:
        "python -m brnf.stages.walk_pseudo_labels --index results/{wildcards.name}/index"
        " --images {input.images} --maps {input.maps}"
        " --network {input.network} --masks {output.masks} --probabilities {output.probabilities}"
        " {params.options} $BRNF_RUNTIME 2> >(tee {log} >&2)"
