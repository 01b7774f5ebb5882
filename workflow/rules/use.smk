# Trained networks together with all that their use outside the workflow needs: `brnf predict`.


use rule stage as write_segmentation_model with:
    input:
        indexed(),
        network=f"{RUN}/segmentation/network.pt",
    output:
        model=f"{RUN}/segmentation/model.pt",
    log:
        f"{RUN}/logs/write_segmentation_model.log",
    benchmark:
        f"{RUN}/benchmarks/write_segmentation_model.tsv"
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        **stage("write_segmentation_model"),


use rule stage as write_cam_model with:
    input:
        indexed(),
        network=f"{RUN}/network/network.pt",
    output:
        model=f"{RUN}/network/model.pt",
    log:
        f"{RUN}/logs/write_cam_model.log",
    benchmark:
        f"{RUN}/benchmarks/write_cam_model.tsv"
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        **stage(
            "write_cam_model",
            product=lambda wildcards: experiment(wildcards).seed_map(wildcards.model),
        ),
