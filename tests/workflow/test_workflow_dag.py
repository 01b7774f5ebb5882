"""The jobs that the shipped configurations ask for, and errors that end the parse."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from brnf.data.contents import FIRST, looked_at
from brnf.data.file_table import TableWriter
from brnf.workflow.params import STAGES

Config = Callable[[str], str]


def test_demo_is_what_runs_without_a_configuration(workflow: Any, config: Config) -> None:
    for name in ("demo", "demo-inseparable"):
        workflow.pretend_index(name, {"train": 1, "val": 1})
    jobs = workflow.jobs()
    assert jobs == {
        "write_config": 2,
        "train_base": 2,
        "train_brnf": 4,
        "compute_cams": 6 * 2,
        # base and brnf; of the companion only the base, whose denoised seeds guide brnf
        "store_pixels": 3,
        "train_flow": 3,
        "denoise_seeds": 3,
        "make_pseudo_labels": 2,  # base and brnf; the control is compared by its maps alone
        "collect_masks": 1,
        "train_segmentation": 3,  # and on true masks
        "predict_segmentation": 3,
        "write_cam_model": 6,
        "write_segmentation_model": 3,
        "evaluate": (8 + 4 + 8 + 1)
        + 3
        # all products and both unseen maps; both maps of the control; the segmentation of true
        # masks; the companion's classifier maps
        * 2,
        "tabulate": 2,
        "draw": 5 + 3,
        "report": 1,
    }


def test_everything_waits_for_the_index(workflow: Any, config: Config) -> None:
    jobs = workflow.jobs("--configfile", config("tiny"))
    assert jobs["index_images"] == jobs["render_scenes"] == 2 and "train_base" not in jobs


def test_a_job_on_a_cluster_does_not_look_at_the_data_set(workflow: Any, config: Config) -> None:
    """Snakemake starts again in each, and the data set may have 100,000 files on a shared disk."""
    workflow.pretend_index("tiny", {"train": 2, "val": 2})
    index = workflow.folder / "results" / "tiny" / "index"
    (index / "state.txt").write_text(f"{FIRST}\n")
    image, table = workflow.folder / "image.jpg", index.with_name("index.files.csv")
    image.write_bytes(b"image")
    writer = TableWriter(table)
    writer.add([(str(image), looked_at(str(image), None))])
    writer.close()
    os.utime(image, (0, 0))  # whoever looks enters the new time into the table
    before = table.read_bytes()
    words = ("--configfile", config("tiny"), "--config", "companions=null")
    job = ("--target-jobs", "collect_masks:name=tiny,split=train,shard=0", "--mode", "remote")
    call = (*job, "--allowed-rules", "collect_masks", "--force", "--dry-run", *words)
    assert "collect_masks" in workflow(*call) and table.read_bytes() == before
    workflow("--dry-run", *words)
    assert table.read_bytes() != before


def test_only_what_products_and_models_need_is_planned(workflow: Any, config: Config) -> None:
    workflow.pretend_index("tiny", {"train": 2, "val": 2})
    words = ("--configfile", config("tiny"), "--config", "models=[base]", "companions=null")
    expected = dict.fromkeys(
        ("write_config", "tabulate", "report", "train_base", "write_cam_model"), 1
    )
    assert workflow.jobs(*words, "products=[cam_prototype]") == expected | {
        "compute_cams": 2,
        "evaluate": 1,
        "draw": 3,
    }
    with_labels = workflow.jobs(*words, "products=[pseudo_labels]")
    assert with_labels == expected | {
        "compute_cams": 2,
        "make_pseudo_labels": 2,
        "evaluate": 1,
        "draw": 4,
    }  # no flow: the baseline
    with_flow = workflow.jobs(*words, "products=[seeds_bsdnf]")
    assert with_flow == expected | {
        "compute_cams": 2,
        "store_pixels": 2,
        "train_flow": 1,
        "denoise_seeds": 2,
        "evaluate": 1,
        "draw": 4,
    }


def test_without_the_last_denoising_pseudo_labels_need_no_flow_of_their_own_network(
    workflow: Any, config: Config
) -> None:
    workflow.pretend_index("tiny", {"train": 2, "val": 2})
    words = ("--configfile", config("tiny"), "--config", "models=[brnf]", "companions=null")
    products = "products=[seeds, pseudo_labels]"
    both = workflow.jobs(*words, products)
    assert both["train_flow"] == 2 and both["denoise_seeds"] == both["store_pixels"] == 4
    # The guiding seeds of the base are denoised as before.
    rest = workflow.jobs(*words, products, "pseudo_labels={bsdnf: false}")
    fewer = {"train_flow": 1, "denoise_seeds": 2, "store_pixels": 2}
    assert rest == both | fewer


def test_seeds_repeat_all_but_the_data(workflow: Any, config: Config) -> None:
    workflow.pretend_index("tiny", {"train": 2, "val": 2})
    words = ("--configfile", config("tiny"), "--config", "companions=null")
    once, twice = workflow.jobs(*words), workflow.jobs(*words, "random_seeds=[0,1]")
    assert workflow.jobs(*words, "seeds=[0,1]") == twice  # its name before
    shared = {"write_config", "tabulate", "draw", "report"}
    assert twice == {rule: count if rule in shared else 2 * count for rule, count in once.items()}


def test_ablation_shares_all_that_its_models_have_in_common(workflow: Any, config: Config) -> None:
    workflow.pretend_index("demo", {"train": 1, "val": 1})
    models, denoised = 11, 2  # base and brnf
    assert workflow.jobs(
        "--configfile", config("demo"), "--config", "companions=null", "--", "ablation"
    ) == {
        "train_base": 2,
        "train_brnf": 9,
        "compute_cams": models * 2,
        "store_pixels": denoised,
        "train_flow": denoised,
        "denoise_seeds": denoised,
        "evaluate": models * 4 + denoised,
        "compare_models": 1,
        "draw": 1,
        "ablation": 1,
    }


def test_studies_of_the_density_fit_and_sweep_only(workflow: Any, config: Config) -> None:
    workflow.pretend_index("demo", {"train": 1, "val": 1})
    words = ("--configfile", config("demo"), "--config", "companions=null", "--")
    network_and_store = {
        "train_base": 1,
        "train_brnf": 1,
        "compute_cams": 2,
        "store_pixels": 2,
        "train_flow": 2,
        "denoise_seeds": 1,
    }
    taus = workflow.jobs(*words, "sensitivity")
    assert taus == network_and_store | {
        "fit_density": 9,
        "sweep_denoising": 10,
        "tabulate_sweeps": 1,
        "draw_sensitivity": 1,
        "sensitivity": 1,
    }
    densities = workflow.jobs(*words, "density")
    assert densities == network_and_store | {
        "fit_density": 2 * 3,
        "sweep_denoising": 2 * 4,
        "tabulate_sweeps": 1,
        "measure_scaling": 1,
        "draw_scaling": 1,
        "draw_density": 1,
        "density": 1,
    }


def test_a_study_shows_each_model_the_denoising_that_its_own_maps_go_through(
    workflow: Any, config: Config
) -> None:
    workflow.pretend_index("demo", {"train": 1, "val": 1})
    rounds = "bsdnf={base: {rule: ratio, xi: 0.65}, final: {rule: quantile, xi: 0.9}}"
    words = (
        "--configfile",
        config("demo"),
        "--config",
        "companions=null",
        rounds,
        "--dry-run",
        "--printshellcmds",
        "--quiet",
        "host",
    )
    lines = [
        line
        for line in workflow(*words, "--", "density").splitlines()
        if "stages.sweep_denoising" in line
    ]
    commands = {line.split("--flow results/demo/")[1].partition("/")[0]: line for line in lines}
    assert (
        "--shown-rule ratio --shown-xi 0.65" in commands["base"]
        and " 0.65 0.7 " in commands["base"]
    )
    assert (
        "--shown-rule quantile --shown-xi 0.9" in commands["brnf"]
        and " 0.65 " not in commands["brnf"]
    )


def test_points_of_the_full_sensitivity_share_network_maps_and_store_of_the_base(
    workflow: Any, config: Config
) -> None:
    workflow.pretend_index("demo", {"train": 1, "val": 1})
    words = (
        "--configfile",
        config("demo"),
        "--config",
        "companions=null",
        "bsdnf={base: {xi: 0.9}, final: {xi: 0.9}}",
    )
    networks = 5  # tau (0.3, 0.7) and xi 0.9 are the experiment's own
    assert workflow.jobs(*words, "--", "sensitivity_full") == {
        "train_base": 1,
        "train_brnf": networks,
        "compute_cams": 1 + 2 * networks,  # of the base no unseen map is measured
        "store_pixels": 1 + networks,
        "train_flow": 3
        + networks,  # of the base at its own and both other tau; another xi needs no other flow
        "denoise_seeds": 5 + networks,
        "evaluate": 3 * networks,
        "compare_points": 1,
        "sensitivity_full": 1,
    }


def test_a_value_of_a_point_reaches_both_rounds_and_the_training(
    workflow: Any, config: Config
) -> None:
    workflow.pretend_index("demo", {"train": 1, "val": 1})
    words = (
        "--configfile",
        config("demo"),
        "--config",
        "companions=null",
        "--dry-run",
        "--printshellcmds",
        "--quiet",
        "host",
        "--",
    )
    run = "results/demo/{}/seed0"
    output = workflow(
        *words,
        *(
            f"{run.format(f'brnf@{point}')}/denoised/train/0.h5"
            for point in ("xi-0.8", "tau-0.6-0.7")
        ),
    )
    lines = {
        line.removeprefix("Shell command: ")
        for line in output.splitlines()
        if "brnf.stages." in line
    }
    found = [(re.search(r"brnf\.stages\.(\w+)", line)[1], line) for line in lines]  # type: ignore[index]
    denoising = [line for stage, line in found if stage == "denoise_seeds"]
    assert len(denoising) == 4 and sum("--bsdnf.xi 0.8" in line for line in denoising) == 2, lines
    fits = [line for stage, line in found if stage == "train_flow"]
    assert sum("--flow.tau.low 0.6" in line and "--flow.tau.high 0.7" in line for line in fits) == 2
    trainings = {
        line.split("--network ")[1].split()[0]: line
        for stage, line in found
        if stage == "train_brnf"
    }
    assert "--flow.tau.low 0.6" in trainings[f"{run.format('brnf@tau-0.6-0.7')}/network/network.pt"]
    assert (
        "base@xi-0.8/seed0/denoised" in trainings[f"{run.format('brnf@xi-0.8')}/network/network.pt"]
    )
    assert "base/seed0/pixels" in output and "base@xi-0.8/seed0/pixels" not in output


def test_the_comparison_reads_what_has_been_measured_and_starts_no_training(
    workflow: Any, config: Config
) -> None:
    words = ("--configfile", config("tiny"), "--", "comparison")
    assert workflow.jobs(*words) == {"tabulate_comparison": 1, "comparison": 1}


def test_voc12_computes_train_once_within_train_aug(workflow: Any, config: Config) -> None:
    (workflow.folder / "data" / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation").mkdir(
        parents=True
    )
    workflow.pretend_index("voc12", {"train_aug": 32, "train": 32, "val": 32}, scenes=False)
    jobs = workflow.jobs("--configfile", config("voc12"))
    assert jobs == {
        "write_config": 1,
        "train_base": 1,
        "train_brnf": 1,
        "compute_cams": 2 * 32,
        "store_pixels": 2 * 32,
        "train_flow": 2,
        "denoise_seeds": 2 * 32,
        "make_pseudo_labels": 2 * 32,
        "train_segmentation": 2,
        "predict_segmentation": 2 * 32,
        "write_cam_model": 2,
        "write_segmentation_model": 2,
        "evaluate": 2 * 6,
        "tabulate": 1,
        "draw": 4,
        "report": 1,
    }


def test_voc_animals_takes_its_root_from_the_command_line(workflow: Any, config: Config) -> None:
    assert "dataset.root: missing" in workflow("--configfile", config("voc-animals"), fails=True)
    workflow.pretend_index("voc-animals", {"train_aug": 4, "train": 4, "val": 4}, scenes=False)
    jobs = workflow.jobs("--configfile", config("voc-animals"), "--config", "dataset={root: .}")
    assert (jobs["train_brnf"], jobs["train_segmentation"], jobs["compute_cams"]) == (
        2,
        2,
        3 * (4 + 4),
    )


def test_a_run_that_the_disk_cannot_hold_is_refused_before_its_first_job(
    workflow: Any, config: Config
) -> None:
    words = (
        "--configfile",
        config("tiny"),
        "--config",
        "scenes={train: 1000000000}",
        "companions=null",
    )
    output = workflow(*words, fails=True)
    lines = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "cam.map_stride: 4" in lines[0] and "Traceback" not in output
    assert not (workflow.folder / "results" / "tiny" / "data").exists()
    workflow(
        *words, "--", "results/tiny/config.yaml"
    )  # what needs no room is made, and the folder is not left locked


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["flow={blok: 2}"],
            "error: configuration: flow.blok: unknown key; did you mean 'blocks'?",
        ),
        (
            ["bsdnf={final: {xi: 1.5}}"],
            "error: configuration: bsdnf.final.xi: is 1.5, must be at most 1",
        ),
        (["random_seeds=none"], "error: configuration: random_seeds: is 'none', must be a list"),
    ],
)
def test_configuration_errors_end_the_parse_in_one_line(
    workflow: Any, words: list[str], line: str
) -> None:
    output = workflow("--dry-run", "--quiet", "all", "--config", *words, fails=True)
    said = [
        text
        for text in output.splitlines()
        if text and not text.startswith(("Using workflow specific profile", "Config file "))
    ]
    assert said == [line]


def test_no_value_of_the_demo_reaches_another_experiment(workflow: Any) -> None:
    """An experiment that leaves everything out gets the schema's defaults, also when it lacks a
    data set.
    """
    (workflow.folder / "mine.yaml").write_text(
        "name: mine\ndataset: {kind: scenes, train: train, eval_split: train}\n"
    )
    workflow("--configfile", "mine.yaml", "--", "results/mine/config.yaml")
    record = yaml.safe_load((workflow.folder / "results" / "mine" / "config.yaml").read_text())
    assert (record["protocol"], record["backbone"]["name"], record["flow"]["steps"]) == (
        "scenes",
        "resnet50",
        2000,
    )
    (workflow.folder / "mine.yaml").write_text("name: mine\n")
    assert "dataset.root: missing" in workflow("--configfile", "mine.yaml", "--dry-run", fails=True)


def test_values_of_the_command_line_reach_the_record_with_their_types(
    workflow: Any, config: Config
) -> None:
    words = [
        "base={steps: 7, fit_classifier: false}",
        "bsdnf={final: {xi: 0.75}}",
        "cam={scales: [0.5, 1]}",
        "random_seeds=[3]",
        "protocol=bench",
    ]
    workflow("--configfile", config("tiny"), "--config", *words, "--", "results/tiny/config.yaml")
    record = yaml.safe_load((workflow.folder / "results" / "tiny" / "config.yaml").read_text())
    assert (
        record["base"]["steps"],
        record["base"]["fit_classifier"],
        record["base"]["seed_map"],
    ) == (7, False, "classifier")
    assert (record["bsdnf"]["final"]["xi"], record["bsdnf"]["base"]["xi"]) == (0.75, 0.5)
    assert (record["cam"]["scales"], record["random_seeds"], record["protocol"]) == (
        [0.5, 1.0],
        [3],
        "bench",
    )


def test_every_stage_of_the_package_has_a_rule() -> None:
    root = Path(__file__).parents[2]
    rules = "".join(path.read_text() for path in (root / "workflow" / "rules").glob("*.smk"))
    stages = [
        path.stem
        for path in (root / "brnf" / "stages").glob("*.py")
        if "class Options" in path.read_text()
    ]
    assert set(stages) == set(STAGES)
    for stage in stages:
        shared = re.search(rf'\*\*stage\(\s*"{stage}"', rules)
        own = f'=code("{stage}"),' in rules and f"python -m brnf.stages.{stage} " in rules
        assert shared or own, stage


def test_commands_stay_short_however_many_shards_there_are(workflow: Any, config: Config) -> None:
    """Linux takes at most 128 KiB a word, and a job that reads all shards comes last."""
    workflow.pretend_index("tiny", {"train": 300, "val": 1})
    words = ("--configfile", config("tiny"), "--config", "companions=null", "--")
    flow = "results/tiny/base/seed0/flow/flow.pt"
    said = workflow("--dry-run", "--printshellcmds", "--quiet", "host", *words, flow)
    lines = [line for line in said.splitlines() if "brnf.stages.train_flow" in line]
    assert len(lines) == 1 and len(lines[0]) < 3000
    assert "'results/tiny/base/seed0/pixels/train/{0..299}.h5'" in lines[0]
