# What the rules of stages share. They use it with inputs, outputs, and what is theirs of the rest.
rule stage:
    log:
        "results/logs/stage.log",
    conda:
        ENVIRONMENT
    threads: THREADS
    resources:
        mem_mb=memory(2000),
        runtime=30,
    shell:
        "BRNF_INPUTS={params.read:q} {params.program} brnf.stages.{params.stage} {params.files}"
        " {params.options} $BRNF_RUNTIME 2> >(tee {log:q} >&2)"
