"""The estimate before a run: from the times of jobs that ran before."""

from pathlib import Path

from brnf.planning.estimate import estimate, seconds_by_rule


def write_time(path: Path, seconds: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\n{seconds}\t0:00:01\n")


def test_own_times_are_preferred_and_averaged(tmp_path: Path) -> None:
    write_time(
        tmp_path / "mine" / "base" / "seed0" / "benchmarks" / "compute_cams" / "train-0.tsv", "10"
    )
    write_time(
        tmp_path / "mine" / "brnf" / "seed0" / "benchmarks" / "compute_cams" / "train-0.tsv", "20"
    )
    write_time(
        tmp_path / "other" / "base" / "seed0" / "benchmarks" / "compute_cams" / "train-0.tsv",
        "1000",
    )
    write_time(tmp_path / "other" / "base" / "seed0" / "benchmarks" / "train_base.tsv", "7")
    write_time(tmp_path / "mine" / "benchmarks" / "index_images.tsv", "cut")
    assert seconds_by_rule(tmp_path, "mine") == {"compute_cams": 15.0, "train_base": 7.0}
    assert seconds_by_rule(tmp_path / "nothing", "mine") == {}


def test_a_plan_is_worth_more_than_the_times_of_others_and_less_than_ones_own(
    tmp_path: Path,
) -> None:
    for name, rule, seconds in (
        ("other", "train_base", "7"),
        ("other", "train_flow", "8"),
        ("mine", "compute_cams", "9"),
    ):
        write_time(tmp_path / name / "base" / "seed0" / "benchmarks" / f"{rule}.tsv", seconds)
    plan = tmp_path / "mine" / "tables" / "plan.csv"
    plan.parent.mkdir(parents=True)
    plan.write_text("rule,jobs,seconds\ntrain_base,4,900\ncompute_cams,2,1800\ntrain_flow,1,\n")
    assert seconds_by_rule(tmp_path, "mine") == {
        "train_base": 900.0,
        "compute_cams": 9.0,
        "train_flow": 8.0,
    }
    plan.write_text("nothing\n")
    assert seconds_by_rule(tmp_path, "mine")["train_base"] == 7.0


def test_estimate_adds_what_is_known_and_names_what_is_not() -> None:
    seconds = {"train_flow": 120.0, "train_brnf": 180.0, "compute_cams": 15.0}
    text = estimate(
        {"fit_density": 9, "train_brnf": 2, "compute_cams": 8, "sweep_denoising": 10},
        seconds,
        cores=2,
    )
    known = (9 * 120 + 2 * 180 + 8 * 15) / 2 / 60
    assert text.splitlines() == [
        f"estimate: 19 jobs take about {known:.0f} min on 2 cores (9 fit_density 18 min, 2 "
        "train_brnf 6 min, 8 compute_cams 2 min)",
        "estimate: not known for 10 sweep_denoising: none of these has run here yet; the target "
        "`plan` measures what `all` needs",
    ]
    assert estimate({"index_images": 1, "draw": 3}, {}, cores=2).splitlines() == [
        "estimate: 4 jobs, whose time is not known: none of their kind has run here yet; the "
        "target `plan` measures what `all` needs"
    ]
    part = estimate({"train_flow": 1}, seconds, cores=2, whole=False).splitlines()
    assert len(part) == 2 and part[1].endswith("is planned, and counted, when that is there")
    assert "2 h on 1 cores" in estimate({"train_flow": 60}, seconds, cores=1)
