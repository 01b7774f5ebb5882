# From maps to a trained segmenter: the same rules for the base and for every BRNF network.


use rule stage as make_pseudo_labels with:
    input:
        indexed(),
        images=shard_of_index,
        packed=packed_shard(),
        maps=lambda wildcards: f"{RUN}/{labelled(wildcards)[0]}/{{split}}/{{shard}}.h5",
    output:
        masks=directory(f"{RUN}/pseudo_labels/{{split}}/{{shard}}"),
        probabilities=f"{RUN}/pseudo_labels/{{split}}/{{shard}}.h5",
    log:
        f"{RUN}/logs/make_pseudo_labels/{{split}}-{{shard}}.log",
    benchmark:
        f"{RUN}/benchmarks/make_pseudo_labels/{{split}}-{{shard}}.tsv"
    resources:
        gpu=1,
        cpus_per_task=CPUS,
        mem_mb=memory(8000),
        runtime=480,
    params:
        **stage("make_pseudo_labels", product=lambda wildcards: labelled(wildcards)[1]),


use rule stage as train_segmentation with:
    input:
        indexed_split("train", "splits"),
        packed=packs_of("images", split_of("train")),
        masks=segmenter_masks,
    output:
        network=f"{RUN}/segmentation/network.pt",
        history=f"{RUN}/segmentation/history.csv",
    log:
        f"{RUN}/logs/train_segmentation.log",
    benchmark:
        f"{RUN}/benchmarks/train_segmentation.tsv"
    threads: THREADS * DEVICES
    resources:
        cpus_per_task=CPUS * DEVICES,
        gpu=DEVICES,
        mem_mb=memory(16000 * DEVICES),
        runtime=2880,
    params:
        **stage(
            "train_segmentation",
            program="$BRNF_TRAIN",
            split=split_of("train"),
            all_masked=lambda wildcards: wildcards.model != SUPERVISED,
        ),
        weights=weights("segmentation"),


use rule stage as predict_segmentation with:
    input:
        indexed(),
        images=shard_of_index,
        packed=packed_shard(),
        network=f"{RUN}/segmentation/network.pt",
    output:
        masks=directory(f"{RUN}/predictions/{{split}}/{{shard}}"),
        probabilities=f"{RUN}/predictions/{{split}}/{{shard}}.h5",
        confidences=f"{RUN}/predictions/{{split}}/{{shard}}.csv",
    log:
        f"{RUN}/logs/predict_segmentation/{{split}}-{{shard}}.log",
    benchmark:
        f"{RUN}/benchmarks/predict_segmentation/{{split}}-{{shard}}.tsv"
    resources:
        gpu=1,
        cpus_per_task=CPUS,
        mem_mb=memory(8000),
        runtime=480,
    params:
        **stage("predict_segmentation"),


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
        "(test -n ''{params.split:q} ||"
        " {{ echo 'error: configuration: dataset.test: is null;"
        " name the split without ground truth'; exit 2; }})"
        " > >(tee {log:q} >&2)"


use rule stage as export_predictions with:
    input:
        indexed_split("test", "splits"),
        masks=sharded(f"{RUN}/predictions/{{split}}/{{shard}}", "test"),
    output:
        predictions=directory(f"{RUN}/test_predictions"),
    log:
        f"{RUN}/logs/export_predictions.log",
    benchmark:
        f"{RUN}/benchmarks/export_predictions.tsv"
    resources:
        mem_mb=memory(2000),
        runtime=60,
    params:
        **stage(
            "export_predictions",
            split=split_of("test"),
            tree=lambda wildcards: export_tree(experiment(wildcards)),
        ),
