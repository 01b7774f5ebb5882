# The base: a CAM network whose seeds the rest improves on; base_long is the same, trained for as
# long as base and BRNF together.


rule train_base:
    input:
        indexed_split("train", "splits"),
    output:
        network=f"{RUN}/network/network.pt",
        history=f"{RUN}/network/history.csv",
    log:
        f"{RUN}/logs/train_base.log",
    benchmark:
        f"{RUN}/benchmarks/train_base.tsv"
    wildcard_constraints:
        model="|".join(BASE_MODELS),
    priority: CHAIN
    conda:
        ENVIRONMENT
    threads: THREADS * DEVICES
    resources:
        cpus_per_task=CPUS * DEVICES,
        gpu=DEVICES,
        mem_mb=memory(16000 * DEVICES),
        runtime=720,
    params:
        options=options(
            "train_base",
            split=split_of("train"),
            method=lambda wildcards: experiment(wildcards).trained_base,
        ),
        weights=weights("backbone"),
        code=code("train_base"),
    shell:
        "$BRNF_TRAIN brnf.stages.train_base --index results/{wildcards.name}/index"
        " --network {output.network} --history {output.history} {params.options} $BRNF_RUNTIME"
        " --kept results/{wildcards.name}/.kept 2> >(tee {log} >&2)"
