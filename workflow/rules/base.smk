# The base: a CAM network whose seeds the rest improves on; base_long is the same, trained for as
# long as base and BRNF together.


use rule stage as train_base with:
    input:
        indexed_split("train", "splits"),
        packed=packs_of("images", split_of("train")),
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
    threads: THREADS * DEVICES
    resources:
        cpus_per_task=CPUS * DEVICES,
        gpu=DEVICES,
        mem_mb=memory(16000 * DEVICES),
        runtime=720,
    params:
        **stage(
            "train_base",
            program="$BRNF_TRAIN",
            feature_cache=True,
            split=split_of("train"),
            method=lambda wildcards: experiment(wildcards).trained_base,
        ),
        weights=weights("backbone"),
