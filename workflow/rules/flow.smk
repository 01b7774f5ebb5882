# The density of pixel features per class, and the denoising of seeds with it: the same rules for
# the base and for every BRNF network.


use rule stage as train_flow with:
    input:
        pixels=sharded("{features}/pixels/{split}/{shard}.h5", "train"),
    output:
        flow=f"{RUN}/flow/flow.pt",
        history=f"{RUN}/flow/history.csv",
    log:
        f"{RUN}/logs/train_flow.log",
    benchmark:
        f"{RUN}/benchmarks/train_flow.tsv"
    priority: CHAIN
    threads: THREADS * DEVICES
    resources:
        cpus_per_task=THREADS * DEVICES,
        gpu=DEVICES,
        mem_mb=memory(16000 * DEVICES),
        runtime=240,
    params:
        **stage("train_flow", program="$BRNF_TRAIN"),


use rule stage as denoise_seeds with:
    input:
        pixels=lambda wildcards: f"{features_of(wildcards)}/pixels/{{split}}/{{shard}}.h5",
        maps=lambda wildcards: f"{features_of(wildcards)}/cams/{{split}}/{{shard}}.h5",
        flow=lambda wildcards: f"{flow_of(wildcards)}/flow/flow.pt",
    output:
        denoised=f"{RUN}/denoised/{{split}}/{{shard}}.h5",
    log:
        f"{RUN}/logs/denoise_seeds/{{split}}-{{shard}}.log",
    benchmark:
        f"{RUN}/benchmarks/denoise_seeds/{{split}}-{{shard}}.tsv"
    priority: CHAIN
    resources:
        gpu=1,
        mem_mb=memory(8000),
        runtime=120,
    params:
        **stage(
            "denoise_seeds",
            product=lambda wildcards: experiment(wildcards).seed_map(wildcards.model),
        ),
