# Base maps that no network of this workflow makes, and maps for other code. They take the place of
# compute_cams for the model base.


ruleorder: import_maps > compute_cams
ruleorder: compute_clip_maps > compute_cams


use rule stage as import_maps with:
    input:
        indexed(),
        images=shard_of_index,
        folder=imported_folder,
    output:
        maps=f"{RUN}/cams/{{split}}/{{shard}}.h5",
    log:
        f"{RUN}/logs/import_maps/{{split}}-{{shard}}.log",
    benchmark:
        f"{RUN}/benchmarks/import_maps/{{split}}-{{shard}}.tsv"
    wildcard_constraints:
        name=experiments_with("base", "method", "import"),
        model="base",
    priority: CHAIN
    resources:
        mem_mb=memory(4000),
        runtime=120,
    params:
        **stage("import_maps"),


use rule compute_cams as compute_clip_maps with:
    input:
        indexed(),
        images=shard_of_index,
        packed=packed_shard(),
    log:
        f"{RUN}/logs/compute_clip_maps/{{split}}-{{shard}}.log",
    benchmark:
        f"{RUN}/benchmarks/compute_clip_maps/{{split}}-{{shard}}.tsv"
    wildcard_constraints:
        name=experiments_with("base", "method", "clip_es"),
        model="base",
    params:
        **stage("compute_clip_maps"),
        words=lambda wildcards: words_file(
            experiment(wildcards).settings["base"]["clip_es"]["words"]
        ).read_text(),
        weights=weights("base.clip_es"),


use rule stage as export_maps with:
    input:
        indexed(),
        maps=sharded(f"{RUN}/cams/{{split}}/{{shard}}.h5", "train", "eval_split", "val", "test"),
    output:
        folder=directory(f"{RUN}/exported"),
    log:
        f"{RUN}/logs/export_maps.log",
    benchmark:
        f"{RUN}/benchmarks/export_maps.tsv"
    resources:
        mem_mb=memory(4000),
        runtime=120,
    params:
        **stage("export_maps"),
