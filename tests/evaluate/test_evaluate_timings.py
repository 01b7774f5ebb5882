"""Timings are summed over jobs and stages."""

from pathlib import Path

import pytest

from brnf.errors import UserError
from brnf.evaluate.timings import stage_timings

HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def write(path: Path, seconds: float, memory: str, cpu: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{HEADER}{seconds}\t0:00:01\t{memory}\t1\t1\t1\t0\t0\t50\t{cpu}\n")


def test_jobs_of_a_stage_are_summed_over_models_and_shards(tmp_path: Path) -> None:
    write(tmp_path / "base/seed0/benchmarks/compute_cams/train-0.tsv", 2.0, "100", 3.0)
    write(tmp_path / "brnf/seed0/benchmarks/compute_cams/train-1.tsv", 5.0, "300", 4.0)
    write(
        tmp_path / "benchmarks/index_images.tsv", 1.0, "-", 0.5
    )  # too short for Snakemake to measure its memory
    table = stage_timings(tmp_path).set_index("stage")
    assert list(table.index) == ["compute_cams", "index_images"]
    assert table.loc["compute_cams"].to_dict() == {
        "jobs": 2,
        "seconds": 7.0,
        "longest": 5.0,
        "cpu_seconds": 7.0,
        "peak_mb": 300.0,
    }


def test_the_peak_that_a_job_tells_counts_where_the_samples_have_missed_it(tmp_path: Path) -> None:
    for name, sampled, told in (
        ("missed", "11.5", "90.0"),
        ("unsampled", "-", "70.0"),
        ("several processes", "500", "80.0"),
    ):
        write(tmp_path / f"base/seed0/benchmarks/{name}/train-0.tsv", 1.0, sampled, 1.0)
        log = tmp_path / f"base/seed0/logs/{name}/train-0.log"
        log.parent.mkdir(parents=True)
        log.write_text(f"evaluate: 24/24 images\npeak memory: {told} MiB\n")
    peaks = stage_timings(tmp_path).set_index("stage").peak_mb
    assert peaks.to_dict() == {"missed": 90.0, "unsampled": 70.0, "several processes": 500.0}


def test_no_benchmarks_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no benchmark files"):
        stage_timings(tmp_path)
