# Images: rendered when the data set is scenes, indexed always.


use rule stage as render_scenes with:
    output:
        scenes=directory("results/{name}/data"),
    log:
        "results/{name}/logs/render_scenes.log",
    benchmark:
        "results/{name}/benchmarks/render_scenes.tsv"
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        **stage("render_scenes"),


checkpoint index_images:
    input:
        data_set,
    output:
        index=directory("results/{name}/index"),
    log:
        "results/{name}/logs/index_images.log",
    benchmark:
        "results/{name}/benchmarks/index_images.tsv"
    conda:
        ENVIRONMENT
    threads: CPUS
    resources:
        cpus_per_task=CPUS,
        mem_mb=memory(4000),
        runtime=240,
    params:
        source=image_source,
        options=options(
            "index_images",
            splits=lambda wildcards: experiment(wildcards).splits(),
            val=split_of("val"),
            measured=lambda wildcards: experiment(wildcards).measured_splits(),
            state=lambda wildcards: state_of(wildcards.name),
        ),
        code=code("index_images"),
    shell:
        "BRNF_INPUTS={input:q} python -m brnf.stages.index_images {params.source}"
        " --index {output.index:q} {params.options} $BRNF_RUNTIME 2> >(tee {log:q} >&2)"


# Images and masks by shard, where jobs see no shared disk: each fetches its own. Elsewhere nothing
# asks for it.
checkpoint pack_images:
    input:
        data_set,
        index="results/{name}/index",
    output:
        packed=directory("results/{name}/packed"),
    log:
        "results/{name}/logs/pack_images.log",
    benchmark:
        "results/{name}/benchmarks/pack_images.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=240,
    params:
        read=lambda wildcards, input: "\t".join(input),
        options=options("pack_images", splits=lambda wildcards: experiment(wildcards).splits()),
        code=code("pack_images"),
    shell:
        "BRNF_INPUTS={params.read:q} python -m brnf.stages.pack_images --index {input.index:q}"
        " --packed {output.packed:q} {params.options} $BRNF_RUNTIME 2> >(tee {log:q} >&2)"


# Ground truth of COCO, which has no files of it. Evaluation and figures ask for it, and the model
# supervised; no other training does.
use rule stage as draw_masks with:
    input:
        indexed("masks/{split}.csv"),
        annotations,
        images=shard_of_index,
    output:
        masks=directory("results/{name}/masks/{split}/{shard}"),
    log:
        "results/{name}/logs/draw_masks/{split}-{shard}.log",
    benchmark:
        "results/{name}/benchmarks/draw_masks/{split}-{shard}.tsv"
    resources:
        mem_mb=memory(2000),
        runtime=60,
    params:
        **stage("draw_masks", split=lambda wildcards: wildcards.split),


# True masks as class indices, for the model supervised.
use rule stage as collect_masks with:
    input:
        indexed("masks/{split}.csv"),
        unpack(lambda wildcards: true_masks(wildcards, wildcards.split)),
        images=shard_of_index,
        packed=packed_shard("masks"),
    output:
        masks=directory("results/{name}/true_masks/{split}/{shard}"),
    log:
        "results/{name}/logs/collect_masks/{split}-{shard}.log",
    benchmark:
        "results/{name}/benchmarks/collect_masks/{split}-{shard}.tsv"
    resources:
        mem_mb=memory(2000),
        runtime=60,
    params:
        **stage("collect_masks", split=lambda wildcards: wildcards.split),
