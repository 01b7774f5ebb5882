# Studies: targets of their own beside `all`. `snakemake ablation` tells what each component gains.


rule ablation:
    input:
        f"results/{MAIN.name}/tables/ablation.csv",
        f"results/{MAIN.name}/figures/ablation.png",


use rule stage as compare_models with:
    input:
        after_index,
        evaluations=lambda wildcards: ablation(
            experiment(wildcards),
            index_folder(wildcards),
            f"{RUN}/evaluation/{{product}}-{{split}}.json",
        ),
    output:
        csv="results/{name}/tables/ablation.csv",
        markdown="results/{name}/tables/ablation.md",
    log:
        "results/{name}/logs/compare_models.log",
    benchmark:
        "results/{name}/benchmarks/compare_models.tsv"
    params:
        **stage(
            "compare_models",
            models=lambda wildcards: ABLATION_MODELS,
            references=lambda wildcards: ("base_long", "brnf"),
        ),


# Sensitivity in scope `denoise`: network and pixel store stay as they are, only densities are
# fitted again. In scope `full` a value enters both rounds and the training of BRNF, so the networks
# are trained again, for the first seed.
rule sensitivity:
    input:
        f"results/{MAIN.name}/tables/sensitivity.csv",
        f"results/{MAIN.name}/figures/sensitivity.png",


rule sensitivity_full:
    input:
        f"results/{MAIN.name}/tables/sensitivity_full.csv",


use rule compare_models as compare_points with:
    input:
        after_index,
        evaluations=lambda wildcards: full_sensitivity(
            experiment(wildcards),
            index_folder(wildcards),
            f"{RUN}/evaluation/{{product}}-{{split}}.json",
        ),
    output:
        csv="results/{name}/tables/sensitivity_full.csv",
        markdown="results/{name}/tables/sensitivity_full.md",
    log:
        "results/{name}/logs/compare_points.log",
    benchmark:
        "results/{name}/benchmarks/compare_points.tsv"
    params:
        options=options(
            "compare_models",
            models=lambda wildcards: ["brnf", *full_models(experiment(wildcards).settings)],
            references=lambda wildcards: ("brnf",),
            paper=lambda wildcards: [
                f"{model}={miou}"
                for model, miou in full_models(experiment(wildcards).settings).items()
            ],
        ),


rule density:
    input:
        f"results/{MAIN.name}/tables/density.csv",
        f"results/{MAIN.name}/figures/margins.png",
        f"results/{MAIN.name}/figures/scaling.png",


use rule train_flow as fit_density with:
    output:
        flow=f"{RUN}/fits/{{fit}}/flow.pt",
        history=f"{RUN}/fits/{{fit}}/history.csv",
    log:
        f"{RUN}/logs/fit_density/{{fit}}.log",
    benchmark:
        f"{RUN}/benchmarks/fit_density/{{fit}}.tsv"
    priority: 0
    params:
        options=options(
            "train_flow",
            **{key: of_fit(key) for key in ("flow.density", "flow.tau.low", "flow.tau.high")},
        ),


use rule stage as sweep_denoising with:
    input:
        indexed_split("eval_split", "splits", "masks"),
        unpack(true_masks_of_eval_split),
        packed=packs_of("masks", split_of("eval_split")),
        pixels=sharded(f"{RUN}/pixels/{{split}}/{{shard}}.h5", "eval_split"),
        maps=sharded(f"{RUN}/cams/{{split}}/{{shard}}.h5", "eval_split"),
        flow=lambda wildcards: fit_file(wildcards, "flow.pt"),
        history=lambda wildcards: fit_file(wildcards, "history.csv"),
    output:
        sweep=f"{RUN}/fits/{{fit}}/sweep.json",
    log:
        f"{RUN}/logs/sweep_denoising/{{fit}}.log",
    benchmark:
        f"{RUN}/benchmarks/sweep_denoising/{{fit}}.tsv"
    resources:
        gpu=1,
        mem_mb=memory(8000),
        runtime=240,
    params:
        **stage(
            "sweep_denoising",
            split=split_of("eval_split"),
            product=lambda wildcards: experiment(wildcards).seed_map(wildcards.model),
            model=lambda wildcards: wildcards.model,
            density=of_fit("flow.density"),
            **{"tau.low": of_fit("flow.tau.low"), "tau.high": of_fit("flow.tau.high")},
            xis=lambda wildcards: sorted({*XIS, own_round(wildcards)["xi"]}),
            shown_rule=lambda wildcards: own_round(wildcards)["rule"],
            shown_xi=lambda wildcards: own_round(wildcards)["xi"],
        ),


use rule stage as tabulate_sweeps with:
    input:
        after_index,
        sweeps=lambda wildcards: sweeps(
            experiment(wildcards),
            index_folder(wildcards),
            wildcards.study,
            f"{RUN}/fits/{{fit}}/sweep.json",
        ),
    output:
        csv="results/{name}/tables/{study}.csv",
        markdown="results/{name}/tables/{study}.md",
    log:
        "results/{name}/logs/tabulate_sweeps/{study}.log",
    benchmark:
        "results/{name}/benchmarks/tabulate_sweeps/{study}.tsv"
    wildcard_constraints:
        study="sensitivity|density",
    params:
        **stage(
            "tabulate_sweeps",
            study=lambda wildcards: wildcards.study,
            rule=lambda wildcards: final_round(wildcards)["rule"],
            xi=lambda wildcards: final_round(wildcards)["xi"],
        ),


use rule stage as draw_sensitivity with:
    input:
        after_index,
        table="results/{name}/tables/sensitivity.csv",
    output:
        sensitivity="results/{name}/figures/sensitivity.png",
    log:
        "results/{name}/logs/draw_studies/sensitivity.log",
    benchmark:
        "results/{name}/benchmarks/draw_sensitivity.tsv"
    resources:
        mem_mb=memory(2000),
        runtime=10,
    params:
        **stage("draw_studies"),


use rule draw_sensitivity as draw_density with:
    input:
        after_index,
        sweeps=lambda wildcards: [
            f"{RUN}/fits/own/sweep.json".format(
                name=wildcards.name,
                model=model,
                seed=experiment(wildcards).settings["random_seeds"][0],
            )
            for model in ("base", "brnf")
        ],
    output:
        margins="results/{name}/figures/margins.png",
        failures="results/{name}/figures/failures.png",
    log:
        "results/{name}/logs/draw_studies/density.log",
    benchmark:
        "results/{name}/benchmarks/draw_density.tsv"


# Measured in processes of its own, one after the other; on a busy machine the times mean little.
use rule stage as measure_scaling with:
    input:
        pixels=first_store,
    output:
        csv="results/{name}/tables/scaling.csv",
        markdown="results/{name}/tables/scaling.md",
    log:
        "results/{name}/logs/measure_scaling.log",
    benchmark:
        "results/{name}/benchmarks/measure_scaling.tsv"
    resources:
        mem_mb=memory(16000),
        runtime=240,
    params:
        **stage("measure_scaling"),


use rule draw_sensitivity as draw_scaling with:
    input:
        after_index,
        table="results/{name}/tables/scaling.csv",
    output:
        scaling="results/{name}/figures/scaling.png",
    log:
        "results/{name}/logs/draw_studies/scaling.log",
    benchmark:
        "results/{name}/benchmarks/draw_scaling.tsv"
