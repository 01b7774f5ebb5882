# The density of pixel features per class, and the denoising of seeds with it: the same rules for
# the base and for every BRNF network.


rule train_flow:
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
    conda:
        ENVIRONMENT
    threads: THREADS * DEVICES
    resources:
        cpus_per_task=THREADS * DEVICES,
        gpu=DEVICES,
        mem_mb=memory(16000 * DEVICES),
        runtime=240,
    params:
        options=options("train_flow"),
        code=code("train_flow"),
    shell:
        "$BRNF_TRAIN brnf.stages.train_flow --pixels {input.pixels}"
        " --flow {output.flow}"
        " --history {output.history} {params.options} $BRNF_RUNTIME 2> >(tee {log} >&2)"


rule denoise_seeds:
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
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        gpu=1,
        mem_mb=memory(8000),
        runtime=120,
    params:
        options=options(
            "denoise_seeds",
            product=lambda wildcards: experiment(wildcards).seed_map(wildcards.model),
        ),
        code=code("denoise_seeds"),
    shell:
        "python -m brnf.stages.denoise_seeds --pixels {input.pixels} --maps {input.maps}"
        " --flow {input.flow}"
        " --denoised {output.denoised} {params.options} $BRNF_RUNTIME 2> >(tee {log} >&2)"
