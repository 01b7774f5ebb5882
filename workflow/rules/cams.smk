# Maps and pixel features of a trained CAM network: the same rules for the base and for every BRNF
# network.


rule compute_cams:
    input:
        indexed(),
        images=shard_of_index,
        network=f"{RUN}/network/network.pt",
    output:
        maps=f"{RUN}/cams/{{split}}/{{shard}}.h5",
    log:
        f"{RUN}/logs/compute_cams/{{split}}-{{shard}}.log",
    benchmark:
        f"{RUN}/benchmarks/compute_cams/{{split}}-{{shard}}.tsv"
    priority: CHAIN
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        gpu=1,
        mem_mb=memory(8000),
        runtime=480,
    params:
        options=options("compute_cams"),
        code=code("compute_cams"),
    shell:
        "python -m brnf.stages.compute_cams --index results/{wildcards.name}/index"
        " --network {input.network} --images {input.images}"
        " --maps {output.maps} {params.options} $BRNF_RUNTIME 2> >(tee {log} >&2)"


rule store_pixels:
    input:
        indexed(),
        images=shard_of_index,
        network=f"{RUN}/network/network.pt",
        maps=f"{RUN}/cams/{{split}}/{{shard}}.h5",
    output:
        pixels=kept_features(f"{RUN}/pixels/{{split}}/{{shard}}.h5"),
    log:
        f"{RUN}/logs/store_pixels/{{split}}-{{shard}}.log",
    benchmark:
        f"{RUN}/benchmarks/store_pixels/{{split}}-{{shard}}.tsv"
    priority: CHAIN
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        gpu=1,
        mem_mb=memory(8000),
        runtime=240,
    params:
        options=options(
            "store_pixels",
            product=lambda wildcards: experiment(wildcards).seed_map(wildcards.model),
        ),
        code=code("store_pixels"),
    shell:
        "python -m brnf.stages.store_pixels --index results/{wildcards.name}/index"
        " --network {input.network} --images {input.images}"
        " --maps {input.maps}"
        " --pixels {output.pixels} {params.options} $BRNF_RUNTIME 2> >(tee {log} >&2)"
