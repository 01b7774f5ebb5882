# From maps and masks to tables, figures and the report.


use rule stage as evaluate with:
    input:
        indexed("splits/{split}.csv", "masks/{split}.csv"),
        unpack(measured),
        packed=packs_of("masks", lambda wildcards: wildcards.split),
    output:
        evaluation=f"{RUN}/evaluation/{{product}}-{{split}}.json",
    log:
        f"{RUN}/logs/evaluate/{{product}}-{{split}}.log",
    benchmark:
        f"{RUN}/benchmarks/evaluate/{{product}}-{{split}}.tsv"
    priority: CHAIN  # seconds each; piled up, Snakemake would look at all their files at each start
    resources:
        mem_mb=memory(4000),
        runtime=240,
    params:
        **stage(
            "evaluate",
            split=lambda wildcards: wildcards.split,
            product=lambda wildcards: map_product(
                experiment(wildcards), wildcards.model, wildcards.product
            ),
            product_name=lambda wildcards: wildcards.product,
            model=lambda wildcards: wildcards.model,
            labels=lambda wildcards: "none" if wildcards.product == "segmentation" else "given",
        ),


use rule stage as tabulate with:
    input:
        after_index,
        evaluations=evaluated,
    output:
        results_csv="results/{name}/tables/results.csv",
        results_md="results/{name}/tables/results.md",
        by_seed_csv="results/{name}/tables/by_seed.csv",
        seeds_csv="results/{name}/tables/seeds.csv",
        seeds_md="results/{name}/tables/seeds.md",
    log:
        "results/{name}/logs/tabulate.log",
    benchmark:
        "results/{name}/benchmarks/tabulate.tsv"
    params:
        **stage("tabulate"),


use rule stage as draw with:
    input:
        pictured,
        lambda wildcards: [
            word.split(":")[-1] for words in drawn(wildcards).values() for word in words
        ],
        packed=packed_pictures,
    output:
        figure="results/{name}/figures/{figure}.png",
    log:
        "results/{name}/logs/draw/{figure}.log",
    benchmark:
        "results/{name}/benchmarks/draw/{figure}.tsv"
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        **stage("draw")
        | {
            "files": lambda wildcards, input, output: command_line(
                {
                    "index": here(f"results/{wildcards.name}/index"),
                    **in_short(drawn_here(wildcards)),
                    **in_short({"packed": input.packed}),
                    FIGURE_FLAGS.get(wildcards.figure, wildcards.figure): output.figure,
                }
            ),
            "options": drawing_options,
        },


# Beside `all`: what has been measured in results/, of this experiment and others, beside the
# paper's main table.
rule comparison:
    input:
        f"results/{MAIN.name}/tables/comparison.csv",


use rule stage as tabulate_comparison with:
    output:
        csv="results/{name}/tables/comparison.csv",
        runs_csv="results/{name}/tables/comparison_runs.csv",
        markdown="results/{name}/tables/comparison.md",
    log:
        "results/{name}/logs/tabulate_comparison.log",
    benchmark:
        "results/{name}/benchmarks/tabulate_comparison.tsv"
    resources:
        mem_mb=memory(2000),
        runtime=10,
    params:
        **stage(
            "tabulate_comparison",
            inputs=lambda wildcards: {"experiments": list(measured_experiments(Path("results")))},
        ),
        measured=lambda wildcards: list(measured_experiments(Path("results")).values()),


# Beside `all`: the runs in results/ and what differs between them, on the terminal.
rule runs:
    log:
        f"results/{MAIN.name}/logs/runs.log",
    localrule: True
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=5,
    shell:
        "python -m brnf.use.cli runs results 2> >(tee {log:q} >&2)"


# Beside `all`: what the experiment will take, from two miniatures of it. It has no declared output,
# so it looks anew each time.
rule plan:
    input:
        configs=expand("results/{name}/config.yaml", name=EXPERIMENTS),
    log:
        f"results/{MAIN.name}/logs/plan.log",
    conda:
        ENVIRONMENT
    threads: THREADS * DEVICES
    resources:
        cpus_per_task=CPUS * DEVICES,
        gpu=DEVICES,
        mem_mb=memory(16000 * DEVICES),
        runtime=240,
    params:
        csv=f"results/{MAIN.name}/tables/plan.csv",
        markdown=f"results/{MAIN.name}/tables/plan.md",
        options=lambda wildcards: command_line(
            stage_options(
                "plan", MAIN, "base", {"at_once": max(1, jobs_at_once(workflow) // THREADS)}
            )
        ),
        code=code("plan"),
    shell:
        "python -m brnf.stages.plan --configs {input.configs:q} --csv {params.csv:q}"
        " --markdown {params.markdown:q} {params.options} $BRNF_RUNTIME 2> >(tee {log:q} >&2)"


rule write_config:
    output:
        "results/{name}/config.yaml",
    log:
        "results/{name}/logs/write_config.log",
    localrule: True
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(200),
        runtime=5,
    params:
        text=lambda wildcards: experiment(wildcards).yaml(),
    shell:
        "printf %s {params.text:q} > {output:q}.part 2> >(tee {log:q} >&2)"
        " && mv {output:q}.part {output:q}"


use rule stage as report with:
    input:
        index_summaries,
        beside_tables,
        expand("results/{name}/config.yaml", name=EXPERIMENTS),
        tables=tables,
        figures=drawn_figures,
    output:
        report=f"results/{MAIN.name}/report.html",
    log:
        f"results/{MAIN.name}/logs/report.log",
    benchmark:
        f"results/{MAIN.name}/benchmarks/report.tsv"
    resources:
        mem_mb=memory(2000),
        runtime=10,
    params:
        **stage(
            "report",
            inputs=lambda wildcards: {
                "experiments": [here(f"results/{name}") for name in EXPERIMENTS]
            },
        ),
        differences=lambda wildcards: [
            str(differences(chosen.settings)) for chosen in EXPERIMENTS.values()
        ],
