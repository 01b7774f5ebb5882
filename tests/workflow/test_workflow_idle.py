"""Options that others make meaningless."""

import fnmatch

import pytest

from brnf.config.experiment import Experiment, merged
from brnf.config.generate import load_schema
from brnf.config.schema import complete
from brnf.workflow.idle import IDLE, without_idle
from brnf.workflow.params import stage_options

DEFAULTS = complete({"name": "x", "dataset": {}}, load_schema())
PAIRWISE = {
    f"crf.{term}"
    for term in (
        "gaussian_sigma",
        "gaussian_weight",
        "bilateral_sigma_xy",
        "bilateral_sigma_rgb",
        "bilateral_weight",
    )
}


@pytest.mark.parametrize(
    ("stage", "field", "section", "more"),
    [
        ("make_pseudo_labels", "pseudo_labels", "pseudo_labels", {"unary"}),
        ("write_cam_model", "pseudo_labels", "pseudo_labels", {"unary"}),
        ("make_boundary_labels", "random_walk", "random_walk", set()),
        ("predict_segmentation", "test", "segmentation.test", {"crf.minimum"}),
        ("write_segmentation_model", "test", "segmentation.test", {"crf.minimum"}),
    ],
)
def test_a_crf_without_iterations_has_no_other_options(
    stage: str, field: str, section: str, more: set[str]
) -> None:
    def names(iterations: int) -> set[str]:
        changes: dict[str, object] = {"crf": {"iterations": iterations}}
        for part in reversed(section.split(".")):
            changes = {part: changes}
        experiment = Experiment(merged(DEFAULTS, changes))
        return set(without_idle(stage, stage_options(stage, experiment, "base", {})))

    assert names(1) - names(0) == {f"{field}.{name}" for name in PAIRWISE | more}
    assert f"{field}.crf.iterations" in names(0)


@pytest.mark.parametrize("stage", sorted({stage for row in IDLE for stage in row[0].split()}))
def test_every_pattern_belongs_to_an_option(stage: str) -> None:
    model = "brnf" if stage == "train_brnf" else "base"
    options = stage_options(stage, Experiment(DEFAULTS), model, {})
    patterns = [
        pattern for stages, _, names in IDLE if stage in stages.split() for pattern in names.split()
    ]
    assert [pattern for pattern in patterns if not fnmatch.filter(options, pattern)] == []
