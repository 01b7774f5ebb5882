# Images: rendered when the data set is scenes, indexed always.
from functools import cache


def rendered(wildcards):
    """Return what must be rendered first. A data set that is there already is no input: its state is known in other ways."""
    scenes = experiment(wildcards).settings["dataset"]["kind"] == "scenes"
    return [f"results/{wildcards.name}/data"] if scenes else []


def image_source(wildcards):
    """Return where the data set is, for the command line."""
    dataset = experiment(wildcards).settings["dataset"]
    root = f"results/{wildcards.name}/data" if dataset["kind"] == "scenes" else dataset["root"]
    return command_line({"table": dataset["table"]} if dataset["kind"] == "table" else {"root": root})


@cache
def state_of(name):
    """Return the state of an experiment's data, looked at once a call of the workflow."""
    return data_state(Path(f"results/{name}/index"))


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
        rendered,
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
        source=image_source,
        options=options(
            "index_images",
            splits=lambda wildcards: experiment(wildcards).splits(),
            state=lambda wildcards: state_of(wildcards.name),
        ),
        code=code("index_images"),
    shell:
        "python -m brnf.stages.index_images {params.source} --index {output.index} {params.options} {config[runtime]} 2> >(tee {log} >&2)"
