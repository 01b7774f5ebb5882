# Studies: targets of their own beside `all`. `snakemake ablation` tells what each component gains.


rule ablation:
    input:
        f"results/{MAIN.name}/tables/ablation.csv",


rule compare_models:
    input:
        evaluations=lambda wildcards: ablation(experiment(wildcards), f"{RUN}/evaluation/{{product}}-{{split}}.json"),
    output:
        csv="results/{name}/tables/ablation.csv",
        markdown="results/{name}/tables/ablation.md",
    log:
        "results/{name}/logs/compare_models.log",
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        options=options("compare_models", models=lambda wildcards: ABLATION_MODELS, references=lambda wildcards: ("base_long", "brnf")),
        code=code("compare_models"),
    shell:
        "python -m brnf.stages.compare_models --evaluations {input.evaluations} --csv {output.csv} --markdown {output.markdown}"
        " {params.options} {config[runtime]} 2> >(tee {log} >&2)"
