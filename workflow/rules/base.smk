# The base: a CAM network whose seeds the rest improves on.


rule train_base:
    input:
        indexed("classes.csv", "images.csv"),
    output:
        network="results/{name}/base/seed{seed}/network/network.pt",
        history="results/{name}/base/seed{seed}/network/history.csv",
    log:
        "results/{name}/base/seed{seed}/logs/train_base.log",
    benchmark:
        "results/{name}/base/seed{seed}/benchmarks/train_base.tsv"
    priority: CHAIN
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=720,
    params:
        options=options("train_base", split=split_of("train")),
        code=code("train_base"),
    shell:
        "python -m brnf.stages.train_base --index results/{wildcards.name}/index"
        " --network {output.network} --history {output.history} {params.options} {config[runtime]} 2> >(tee {log} >&2)"
