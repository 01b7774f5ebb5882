"""What differs between records of settings, and what a run says that it replaces."""

import pytest
import yaml

from brnf.config.experiment import read_experiments
from brnf.config.recorded import UNSET, Change, changes, flattened, replacement

SCENES = {"name": "own", "dataset": {"kind": "scenes", "train": "train"}}


def record(**changed: object) -> dict[str, object]:
    """Return what is recorded of an experiment."""
    (experiment,) = read_experiments({**SCENES, **changed}).values()
    return experiment.record()


def test_every_change_has_its_dotted_key() -> None:
    then = {"a": {"b": 1, "c": [1]}, "gone": None}
    now = {"a": {"b": 2, "c": [1]}, "new": {}}
    assert changes(then, now) == [Change("a.b", 1, 2), Change("gone", None, UNSET)]
    assert list(map(str, changes(then, now))) == ["a.b was 1, is 2", "gone was null, is not set"]
    assert flattened(then) == {"a.b": 1, "a.c": [1], "gone": None}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"bsdnf": {"final": {"xi": 0.8}}}, "bsdnf.final.xi was 0.9, is 0.8"),
        ({"brnf": {"fscl": False}, "random_seeds": [0, 1]}, "brnf.fscl was true, is false"),
        ({"brnf": {"flow": {"blocks": 3}}}, "brnf.flow.blocks was not set, is 3"),
    ],
)
def test_a_changed_key_replaces_what_depends_on_it(changed: dict[str, object], said: str) -> None:
    now = record(**changed)
    line = replacement(yaml.safe_dump(record()), now)
    assert line is not None and said in line and "replaced" in line and "\n" not in line
    assert replacement(yaml.safe_dump(now), now) is None


@pytest.mark.parametrize(
    "added",
    [
        {"random_seeds": [0, 1]},
        {"models": ["base", "brnf", "mine"], "variants": {"mine": {"ccnf": False}}},
        {"figures": {"count": 3}},
    ],
)
def test_what_only_adds_results_is_not_called_a_replacement(added: dict[str, object]) -> None:
    assert replacement(yaml.safe_dump(record()), record(**added)) is None


def test_a_record_of_an_earlier_version_has_no_changes_but_real_ones() -> None:
    earlier = record()
    earlier["seeds"] = earlier.pop("random_seeds")
    earlier["flow"] |= {"noise_unit": "deviation"}  # type: ignore[operator]
    now = record(flow={"noise_unit": "std"})
    assert replacement(yaml.safe_dump(earlier), now) is None
    earlier["segmentation"] |= {"head": "sum"}  # type: ignore[operator]
    line = replacement(yaml.safe_dump(earlier), now)
    assert line is not None
    assert line.startswith("segmentation.head was aspp_sum, is aspp_concat: what depends")


def test_of_many_changes_some_are_named() -> None:
    now = {f"key{number}": number for number in range(9)}
    line = replacement(yaml.safe_dump({key: -1 for key in now}), now)
    assert line is not None and "key3 was -1, is 3 and 5 others: " in line


@pytest.mark.parametrize("text", ["", "- 1", "{", "\t"])
def test_a_damaged_record_says_nothing(text: str) -> None:
    assert replacement(text, {"a": 1}) is None
