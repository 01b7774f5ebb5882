# Maps and pixel features of a trained CAM network: the same rules for the base and for every BRNF
# network.


use rule stage as compute_cams with:
    input:
        indexed(),
        images=shard_of_index,
        packed=packed_shard(),
        network=f"{RUN}/network/network.pt",
    output:
        maps=f"{RUN}/cams/{{split}}/{{shard}}.h5",
    log:
        f"{RUN}/logs/compute_cams/{{split}}-{{shard}}.log",
    benchmark:
        f"{RUN}/benchmarks/compute_cams/{{split}}-{{shard}}.tsv"
    priority: CHAIN
    resources:
        gpu=1,
        cpus_per_task=CPUS,
        mem_mb=memory(8000),
        runtime=480,
    params:
        **stage("compute_cams"),


use rule stage as store_pixels with:
    input:
        indexed(),
        images=shard_of_index,
        packed=packed_shard(),
        network=f"{RUN}/network/network.pt",
        maps=f"{RUN}/cams/{{split}}/{{shard}}.h5",
    output:
        pixels=lasting_features(f"{RUN}/pixels/{{split}}/{{shard}}.h5"),
    log:
        f"{RUN}/logs/store_pixels/{{split}}-{{shard}}.log",
    benchmark:
        f"{RUN}/benchmarks/store_pixels/{{split}}-{{shard}}.tsv"
    priority: CHAIN
    resources:
        gpu=1,
        cpus_per_task=CPUS,
        mem_mb=memory(8000),
        runtime=240,
    params:
        **stage(
            "store_pixels",
            product=lambda wildcards: experiment(wildcards).seed_map(wildcards.model),
        ),
