# BRNF networks: the section brnf of the configuration, and its variants.


use rule stage as train_brnf with:
    input:
        indexed_split("train", "splits"),
        packed=packs_of("images", split_of("train")),
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
    threads: THREADS * DEVICES
    resources:
        cpus_per_task=CPUS * DEVICES,
        gpu=DEVICES,
        mem_mb=memory(16000 * DEVICES),
        runtime=1440,
    params:
        **stage(
            "train_brnf",
            program="$BRNF_TRAIN",
            feature_cache=True,
            split=split_of("train"),
            seed_product=lambda wildcards: guide(wildcards)[1],
        ),
        weights=weights("backbone"),
