# Public data sets, on request only: `snakemake --cores 1 download_voc12`. Nothing else asks for
# these targets.


rule download_voc12:
    output:
        record=local(f"{DOWNLOADS['voc12']['folder']}/voc12.unpacked.json"),
    log:
        "results/logs/download_voc12.log",
    benchmark:
        "results/benchmarks/download_voc12.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=1440,
    params:
        folder=lambda wildcards, output: str(Path(output.record).parent),
        archives=archives("voc12"),
        code=code("download_archives"),
        note="the split train_aug needs SBD: snakemake --cores 1 download_sbd",
    shell:
        "python -m brnf.stages.download_archives --folder {params.folder:q}"
        " --record {output.record:q} {params.archives}"
        " $BRNF_RUNTIME 2> >(tee {log:q} >&2) && echo {params.note:q}"


use rule download_voc12 as download_voc12_test with:
    output:
        record=local(f"{DOWNLOADS['voc12_test']['folder']}/voc12_test.unpacked.json"),
    log:
        "results/logs/download_voc12_test.log",
    benchmark:
        "results/benchmarks/download_voc12_test.tsv"
    params:
        folder=lambda wildcards, output: str(Path(output.record).parent),
        archives=archives("voc12_test"),
        code=code("download_archives"),
        note="set dataset.test to test, then ask for the target test_predictions",


rule download_sbd:
    input:
        ancient(fetched_voc12),
    output:
        record=local(f"{DOWNLOADS['sbd']['folder']}/sbd.unpacked.json"),
        masks=local(f"{DOWNLOADS['sbd']['folder']}/sbd.masks.json"),
    log:
        "results/logs/download_sbd.log",
    benchmark:
        "results/benchmarks/download_sbd.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=1440,
    params:
        folder=lambda wildcards, output: str(Path(output.record).parent),
        voc=lambda wildcards: DOWNLOADS["voc12"]["folder"],
        archives=archives("sbd"),
        code=code("download_archives"),
        converter=code("convert_sbd"),
    shell:
        "(python -m brnf.stages.download_archives --folder {params.folder:q}"
        " --record {output.record:q} {params.archives} $BRNF_RUNTIME &&"
        " python -m brnf.stages.convert_sbd --sbd {params.folder:q} --voc {params.voc:q}"
        " --masks {output.masks:q} $BRNF_RUNTIME) 2> >(tee {log:q} >&2)"


use rule download_voc12 as download_coco14 with:
    output:
        record=local(f"{DOWNLOADS['coco14']['folder']}/coco14.unpacked.json"),
    log:
        "results/logs/download_coco14.log",
    benchmark:
        "results/benchmarks/download_coco14.tsv"
    params:
        folder=lambda wildcards, output: str(Path(output.record).parent),
        archives=archives("coco14"),
        code=code("download_archives"),
        note=f"COCO 2014 lies in {DOWNLOADS['coco14']['folder']}: "
        "that is the dataset.root of config/coco14.yaml",
