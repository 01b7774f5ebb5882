# From maps and masks to tables, figures and the report.


rule evaluate:
    input:
        indexed("splits/{split}.csv", "masks/{split}.csv"),
        unpack(measured),
    output:
        evaluation=f"{RUN}/evaluation/{{product}}-{{split}}.json",
    log:
        f"{RUN}/logs/evaluate/{{product}}-{{split}}.log",
    benchmark:
        f"{RUN}/benchmarks/evaluate/{{product}}-{{split}}.tsv"
    priority: CHAIN  # seconds each; piled up, Snakemake would look at all their files at each start
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        mem_mb=memory(4000),
        runtime=240,
    params:
        options=options(
            "evaluate",
            split=lambda wildcards: wildcards.split,
            product=lambda wildcards: map_product(
                experiment(wildcards), wildcards.model, wildcards.product
            ),
            product_name=lambda wildcards: wildcards.product,
            model=lambda wildcards: wildcards.model,
        ),
        code=code("evaluate"),
        measured=lambda wildcards, input: command_line(
            {
                key: input[key]
                for key in ("maps", "masks", "probabilities", "truth")
                if key in input.keys()
            }
        ),
    shell:
        "python -m brnf.stages.evaluate --index results/{wildcards.name}/index {params.measured}"
        " --evaluation {output.evaluation} {params.options} $BRNF_RUNTIME 2> >(tee {log} >&2)"


rule tabulate:
    input:
        after_index,
        evaluations=lambda wildcards: evaluations(
            experiment(wildcards), f"{RUN}/evaluation/{{product}}-{{split}}.json"
        ),
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
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        options=options("tabulate"),
        code=code("tabulate"),
    shell:
        "python -m brnf.stages.tabulate --evaluations {input.evaluations}"
        " --results-csv {output.results_csv} --results-md {output.results_md}"
        " --by-seed-csv {output.by_seed_csv} --seeds-csv {output.seeds_csv}"
        " --seeds-md {output.seeds_md}"
        " {params.options} $BRNF_RUNTIME 2> >(tee {log} >&2)"


rule draw:
    input:
        pictured,
        drawn=lambda wildcards: [
            word.split(":")[-1] for words in drawn(wildcards).values() for word in words
        ],
    output:
        figure="results/{name}/figures/{figure}.png",
    log:
        "results/{name}/logs/draw/{figure}.log",
    benchmark:
        "results/{name}/benchmarks/draw/{figure}.tsv"
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        options=drawing_options,
        code=code("draw"),
        drawn=lambda wildcards: command_line(drawn(wildcards)),
        kind=lambda wildcards: "examples" if wildcards.figure == "ablation" else wildcards.figure,
    shell:
        "python -m brnf.stages.draw --index results/{wildcards.name}/index {params.drawn}"
        " --{params.kind} {output.figure} {params.options} $BRNF_RUNTIME 2> >(tee {log} >&2)"


# Beside `all`: what has been measured in results/, of this experiment and others, beside the
# paper's main table.
rule comparison:
    input:
        f"results/{MAIN.name}/tables/comparison.csv",


rule tabulate_comparison:
    output:
        csv="results/{name}/tables/comparison.csv",
        runs_csv="results/{name}/tables/comparison_runs.csv",
        markdown="results/{name}/tables/comparison.md",
    log:
        "results/{name}/logs/tabulate_comparison.log",
    benchmark:
        "results/{name}/benchmarks/tabulate_comparison.tsv"
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        mem_mb=memory(2000),
        runtime=10,
    params:
        experiments=lambda wildcards: command_line(
            {"experiments": list(measured_experiments(Path("results")))}
        ),
        measured=lambda wildcards: list(measured_experiments(Path("results")).values()),
        code=code("tabulate_comparison"),
    shell:
        "python -m brnf.stages.tabulate_comparison {params.experiments} --csv {output.csv}"
        " --runs-csv {output.runs_csv}"
        " --markdown {output.markdown} $BRNF_RUNTIME 2> >(tee {log} >&2)"


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
        options=command_line(
            stage_options(
                "plan", MAIN, "base", {"at_once": max(1, jobs_at_once(workflow) // THREADS)}
            )
        ),
        code=code("plan"),
    shell:
        "python -m brnf.stages.plan --configs {input.configs} --csv {params.csv}"
        " --markdown {params.markdown} {params.options} $BRNF_RUNTIME 2> >(tee {log} >&2)"


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
        "printf %s {params.text:q} > {output}.part 2> >(tee {log} >&2) && mv {output}.part {output}"


rule report:
    input:
        after_index,
        configs=expand("results/{name}/config.yaml", name=EXPERIMENTS),
        tables=expand("results/{name}/tables/results.csv", name=EXPERIMENTS),
        figures=[
            f"results/{chosen.name}/figures/{figure}.png"
            for chosen in EXPERIMENTS.values()
            for figure in figures(chosen)
        ],
    output:
        report=f"results/{MAIN.name}/report.html",
    log:
        f"results/{MAIN.name}/logs/report.log",
    benchmark:
        f"results/{MAIN.name}/benchmarks/report.tsv"
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        mem_mb=memory(2000),
        runtime=10,
    params:
        experiments=expand("results/{name}", name=EXPERIMENTS),
        differences=lambda wildcards: [
            str(differences(chosen.settings)) for chosen in EXPERIMENTS.values()
        ],
        code=code("report"),
    shell:
        "python -m brnf.stages.report --experiments {params.experiments}"
        " --report {output.report} $BRNF_RUNTIME 2> >(tee {log} >&2)"
