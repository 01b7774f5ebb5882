# Base maps that no network of this workflow makes, and maps for other code. They take the place of
# compute_cams for the model base.


ruleorder: import_maps > compute_cams
ruleorder: compute_clip_maps > compute_cams


rule import_maps:
    input:
        indexed(),
        images=shard_of_index,
        folder=lambda wildcards: experiment(wildcards).settings["base"]["import"]["folder"],
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
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        mem_mb=memory(4000),
        runtime=120,
    params:
        options=options("import_maps"),
        code=code("import_maps"),
    shell:
        "python -m brnf.stages.import_maps --index results/{wildcards.name}/index"
        " --folder {input.folder:q} --images {input.images}"
        " --maps {output.maps} {params.options} $BRNF_RUNTIME 2> >(tee {log} >&2)"


rule compute_clip_maps:
    input:
        indexed(),
        images=shard_of_index,
    output:
        maps=f"{RUN}/cams/{{split}}/{{shard}}.h5",
    log:
        f"{RUN}/logs/compute_clip_maps/{{split}}-{{shard}}.log",
    benchmark:
        f"{RUN}/benchmarks/compute_clip_maps/{{split}}-{{shard}}.tsv"
    wildcard_constraints:
        name=experiments_with("base", "method", "clip_es"),
        model="base",
    priority: CHAIN
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        gpu=1,
        mem_mb=memory(8000),
        runtime=480,
    params:
        options=options("compute_clip_maps"),
        words=lambda wildcards: words_file(
            experiment(wildcards).settings["base"]["clip_es"]["words"]
        ).read_text(),
        weights=weights("base.clip_es"),
        code=code("compute_clip_maps"),
    shell:
        "python -m brnf.stages.compute_clip_maps --index results/{wildcards.name}/index"
        " --images {input.images}"
        " --maps {output.maps} {params.options} $BRNF_RUNTIME 2> >(tee {log} >&2)"


rule export_maps:
    input:
        indexed(),
        maps=all_shards(f"{RUN}/cams/{{split}}/{{shard}}.h5"),
    output:
        folder=directory(f"{RUN}/exported"),
    log:
        f"{RUN}/logs/export_maps.log",
    benchmark:
        f"{RUN}/benchmarks/export_maps.tsv"
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        mem_mb=memory(4000),
        runtime=120,
    params:
        code=code("export_maps"),
    shell:
        "python -m brnf.stages.export_maps --index results/{wildcards.name}/index"
        " --maps {input.maps}"
        " --folder {output.folder} $BRNF_RUNTIME 2> >(tee {log} >&2)"
