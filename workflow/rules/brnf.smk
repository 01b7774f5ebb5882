# BRNF networks: the section brnf of the configuration, and its variants.


rule train_brnf:
    input:
        indexed_split("train", "splits"),
        base="results/{name}/base/seed{seed}/network/network.pt",
        seeds=guiding_maps,
    output:
        network=f"{RUN}/network/network.pt",
        history=f"{RUN}/network/history.csv",
    log:
        f"{RUN}/logs/train_brnf.log",
    benchmark:
        f"{RUN}/benchmarks/train_brnf.tsv"
    wildcard_constraints:
        model=f"({'|'.join(BRNF_MODELS)}){POINT_PATTERN}",
    priority: CHAIN
    conda:
        ENVIRONMENT
    threads: THREADS * DEVICES
    resources:
        cpus_per_task=CPUS * DEVICES,
        gpu=DEVICES,
        mem_mb=memory(16000 * DEVICES),
        runtime=1440,
    params:
        options=options(
            "train_brnf",
            split=split_of("train"),
            seed_product=lambda wildcards: guide(wildcards)[1],
        ),
        weights=weights("backbone"),
        code=code("train_brnf"),
    shell:
        "$BRNF_TRAIN brnf.stages.train_brnf --index results/{wildcards.name}/index"
        " --base {input.base} --seeds {input.seeds}"
        " --network {output.network} --history {output.history} {params.options} $BRNF_RUNTIME"
        " --kept results/{wildcards.name}/.kept 2> >(tee {log} >&2)"
