# From maps to a trained segmenter: the same rules for the base and for every BRNF network.


rule make_pseudo_labels:
    input:
        indexed(),
        images=shard_of_index,
        maps=lambda wildcards: f"{RUN}/{labelled(wildcards)[0]}/{{split}}/{{shard}}.h5",
    output:
        masks=directory(f"{RUN}/pseudo_labels/{{split}}/{{shard}}"),
        probabilities=f"{RUN}/pseudo_labels/{{split}}/{{shard}}.h5",
    log:
        f"{RUN}/logs/make_pseudo_labels/{{split}}-{{shard}}.log",
    benchmark:
        f"{RUN}/benchmarks/make_pseudo_labels/{{split}}-{{shard}}.tsv"
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        cpus_per_task=CPUS,
        mem_mb=memory(4000),
        runtime=480,
    params:
        options=options("make_pseudo_labels", product=lambda wildcards: labelled(wildcards)[1]),
        code=code("make_pseudo_labels"),
    shell:
        "python -m brnf.stages.make_pseudo_labels --index results/{wildcards.name}/index"
        " --images {input.images} --maps {input.maps}"
        " --masks {output.masks}"
        " --probabilities {output.probabilities} {params.options} $BRNF_RUNTIME 2> >(tee {log} >&2)"


rule train_segmentation:
    input:
        indexed_split("train", "splits"),
        masks=sharded(f"{RUN}/pseudo_labels/{{split}}/{{shard}}", "train"),
    output:
        network=f"{RUN}/segmentation/network.pt",
        history=f"{RUN}/segmentation/history.csv",
    log:
        f"{RUN}/logs/train_segmentation.log",
    benchmark:
        f"{RUN}/benchmarks/train_segmentation.tsv"
    conda:
        ENVIRONMENT
    threads: THREADS * DEVICES
    resources:
        cpus_per_task=CPUS * DEVICES,
        gpu=DEVICES,
        mem_mb=memory(16000 * DEVICES),
        runtime=2880,
    params:
        options=options("train_segmentation", split=split_of("train")),
        weights=weights("segmentation"),
        code=code("train_segmentation"),
    shell:
        "$BRNF_TRAIN brnf.stages.train_segmentation --index results/{wildcards.name}/index"
        " --masks {input.masks}"
        " --network {output.network}"
        " --history {output.history} {params.options} $BRNF_RUNTIME 2> >(tee {log} >&2)"


rule predict_segmentation:
    input:
        indexed(),
        images=shard_of_index,
        network=f"{RUN}/segmentation/network.pt",
    output:
        masks=directory(f"{RUN}/predictions/{{split}}/{{shard}}"),
        probabilities=f"{RUN}/predictions/{{split}}/{{shard}}.h5",
    log:
        f"{RUN}/logs/predict_segmentation/{{split}}-{{shard}}.log",
    benchmark:
        f"{RUN}/benchmarks/predict_segmentation/{{split}}-{{shard}}.tsv"
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        gpu=1,
        cpus_per_task=CPUS,
        mem_mb=memory(8000),
        runtime=480,
    params:
        options=options("predict_segmentation"),
        code=code("predict_segmentation"),
    shell:
        "python -m brnf.stages.predict_segmentation --index results/{wildcards.name}/index"
        " --network {input.network} --images {input.images}"
        " --masks {output.masks}"
        " --probabilities {output.probabilities} {params.options} $BRNF_RUNTIME 2> >(tee {log} >&2)"


# Masks of a split without ground truth, in the tree that an evaluation server takes: a target of
# its own beside `all`.
rule test_predictions:
    input:
        exported_predictions(MAIN, f"{RUN}/test_predictions"),
    log:
        f"results/{MAIN.name}/logs/test_predictions.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(200),
        runtime=5,
    params:
        split=MAIN.settings["dataset"]["test"] or "",
    shell:
        "(test -n '{params.split}' ||"
        " {{ echo 'error: configuration: dataset.test: is null;"
        " name the split without ground truth'; exit 2; }})"
        " > >(tee {log} >&2)"


rule export_predictions:
    input:
        indexed_split("test", "splits"),
        masks=sharded(f"{RUN}/predictions/{{split}}/{{shard}}", "test"),
    output:
        predictions=directory(f"{RUN}/test_predictions"),
    log:
        f"{RUN}/logs/export_predictions.log",
    benchmark:
        f"{RUN}/benchmarks/export_predictions.tsv"
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        mem_mb=memory(2000),
        runtime=60,
    params:
        options=options(
            "export_predictions",
            split=split_of("test"),
            tree=lambda wildcards: export_tree(experiment(wildcards)),
        ),
        code=code("export_predictions"),
    shell:
        "python -m brnf.stages.export_predictions --index results/{wildcards.name}/index"
        " --masks {input.masks}"
        " --predictions {output.predictions} {params.options} $BRNF_RUNTIME 2> >(tee {log} >&2)"
