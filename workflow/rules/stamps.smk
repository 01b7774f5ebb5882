# What made a product stands in its stamp. A product whose stamp tells of other options, code or
# inputs than the workflow has now, or that was damaged, is made anew - whatever the clock, the
# folder .snakemake and whoever made it say.
from snakemake.io import apply_wildcards

PRODUCERS = [
    one for one in workflow.rules if one.output and {"options", "code"} <= set(one.params.keys())
]


def expected_of(path):
    """Return what would make a product now; None for a file that no stage makes."""
    # Of several rules the one that names its experiments comes last.
    for one in reversed(PRODUCERS):
        if one.is_producer(path):
            return expectation(one, path, Wildcards(**one.get_wildcards(path)))
    return None


def expectation(producer, path, wildcards):
    """Return what would make one of the products of a job."""
    chosen, history = producer.params.options, getattr(producer.output, "history", None)
    return Expected(
        stage=getattr(producer.params, "stage", producer.name),
        options=chosen(wildcards) if callable(chosen) else chosen,
        code=producer.params.code,
        only_told=history is not None
        and str(apply_wildcards(history, dict(wildcards.items()))) == path,
    )


INDICES = {f"results/{name}/index" for name in EXPERIMENTS}
ASKED = []
"""The rules whose inputs are being asked for by a check of their own."""


def inputs_of(producer, wildcards):
    """Return what a job reads now; None as long as a checkpoint hides it."""
    ASKED.append(producer)
    try:
        found = {str(path) for path in producer.expand_input(wildcards)[0]}
    finally:
        ASKED.remove(producer)
    # In place of what a checkpoint hides, Snakemake names the index itself.
    return None if found & INDICES else found


PROVENANCE = Provenance(
    in_one_line(expected_of),
    MAIN.settings["unstamped"],
    MAIN.settings["other_versions"],
)


def held_against_stamps(producer):
    """Return a function for `input` that names no file, and marks products to be made anew."""

    @in_one_line
    def check(wildcards):
        if producer in ASKED:
            return []
        # The state of the data tells what an index was made from.
        read = None if producer.is_checkpoint else inputs_of(producer, wildcards)
        PROVENANCE.write = not workflow.dryrun  # not known while the Snakefile is read
        PROVENANCE.forget_after(len(set(workflow.dag.finished_jobs)))
        for pattern in producer.output:
            path = str(apply_wildcards(pattern, wildcards))
            if pattern == getattr(producer.output, "history", None):
                PROVENANCE.tell(path, producer.name)
                continue
            may_go = producer.name == "store_pixels"
            PROVENANCE.mark(path, workflow.dag.forcefiles, read, may_go=may_go)
        return []

    return check


def held_against_settings(wildcards):
    """Return no file for `input`, and mark the record of settings if it is another one."""
    path = Path(f"results/{wildcards.name}/config.yaml")
    with suppress(OSError, UnicodeDecodeError):  # missing: it is written anyway
        if (record := path.read_text()) != experiment(wildcards).yaml():
            workflow.dag.forcefiles.add(str(path))
            say_replacement(wildcards.name, record)
    return []


@cache
def say_replacement(name, record):
    """Say once that a run replaces results of other settings."""
    if said := replacement(record, EXPERIMENTS[name].record()):
        print(f"results/{name}: {said}; another name= keeps both", file=sys.stderr)


# In a storage nothing of it is to be seen from here: Snakemake's own records have to do.
if workflow.is_main_process and not STORED:
    for one in PRODUCERS:
        one.set_input(held_against_stamps(one))
    workflow.get_rule("write_config").set_input(held_against_settings)
