# Images: rendered when the data set is scenes, indexed always.


def image_sources(wildcards):
    """Return the files that say which images there are."""
    dataset = experiment(wildcards).settings["dataset"]
    if dataset["kind"] == "scenes":
        return f"results/{wildcards.name}/data"
    if dataset["kind"] == "table":
        return dataset["table"]
    folders = (Path(dataset["root"], inside) for inside in ("", "VOC2012", "VOCdevkit/VOC2012"))
    return sorted(str(path) for folder in folders for path in folder.glob("ImageSets/Segmentation/*.txt"))


def image_source_flag(wildcards):
    """Return the same for the command line."""
    dataset = experiment(wildcards).settings["dataset"]
    root = f"results/{wildcards.name}/data" if dataset["kind"] == "scenes" else dataset["root"]
    return command_line({"table": dataset["table"]} if dataset["kind"] == "table" else {"root": root})


rule render_scenes:
    output:
        scenes=directory("results/{name}/data"),
    log:
        "results/{name}/logs/render_scenes.log",
    benchmark:
        "results/{name}/benchmarks/render_scenes.tsv"
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        options=options("render_scenes"),
        code=code("render_scenes"),
    shell:
        "python -m brnf.stages.render_scenes --scenes {output.scenes} {params.options} {config[runtime]} 2> >(tee {log} >&2)"


checkpoint index_images:
    input:
        image_sources,
    output:
        index=directory("results/{name}/index"),
    log:
        "results/{name}/logs/index_images.log",
    benchmark:
        "results/{name}/benchmarks/index_images.tsv"
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        source=image_source_flag,
        options=options("index_images", splits=lambda wildcards: experiment(wildcards).splits()),
        code=code("index_images"),
    shell:
        "python -m brnf.stages.index_images {params.source} --index {output.index} {params.options} {config[runtime]} 2> >(tee {log} >&2)"
