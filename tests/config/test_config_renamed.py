"""Old names of keys are accepted for one version, each with a line that tells the new one."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from brnf.config.experiment import merged, read_experiments
from brnf.config.generate import load_schema
from brnf.config.renamed import RENAMED, SWITCHED, with_new_names
from brnf.config.schema import leaves
from brnf.errors import UserError

CONFIG = Path(__file__).parents[2] / "config"
SCENES: dict[str, Any] = {
    "name": "x",
    "dataset": {"kind": "scenes", "train": "train", "seeds": "train"},
}
KEYS = [".".join(path) for path, _ in leaves(load_schema())]
FILES = sorted(file for file in CONFIG.rglob("*.yaml") if file.parent.name != "clip_es")
SECTIONS = sorted({key.rpartition(".")[0] for key in [*RENAMED, *SWITCHED]})


def nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def at(settings: Any, key: str) -> Any:
    for part in key.split("."):
        settings = settings[part]
    return settings


def settings_of(*changes: dict[str, Any], name: str = "x") -> Any:
    config = SCENES
    for change in changes:
        config = merged(config, change)
    return read_experiments(config)[name].settings


def other(key: str) -> Any:
    """Return a value that no key of a CRF has by default."""
    return 7 if key.endswith("iterations") else 0.625


def test_every_old_name_has_a_new_one_and_is_none_itself() -> None:
    assert set(RENAMED.values()) <= set(KEYS) and not set(RENAMED) & set(KEYS)
    assert all(f"{key}.iterations" in KEYS for key in SWITCHED)


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_name_sets_its_key_and_tells_it(
    old: str, capsys: pytest.CaptureFixture[str]
) -> None:
    new, value = RENAMED[old], other(old)
    plain = settings_of()
    assert capsys.readouterr().err == "" and at(plain, new) != value
    for given_value in (value, str(value)):
        found = settings_of(nested(old, given_value))
        assert found == merged(plain, nested(new, value))
        assert capsys.readouterr().err == f"configuration: {old} is now {new}\n"


@pytest.mark.parametrize("old", RENAMED)
def test_the_new_name_has_precedence(old: str, capsys: pytest.CaptureFixture[str]) -> None:
    new, value = RENAMED[old], other(old)
    found = settings_of(nested(old, value + 0.25), nested(new, value))
    assert at(found, new) == value
    assert old in capsys.readouterr().err


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_name_in_a_companion(old: str, capsys: pytest.CaptureFixture[str]) -> None:
    new, value = RENAMED[old], other(old)
    companion = {"companions": {"y": nested(old, value)}}
    assert at(settings_of(companion), new) != value == at(settings_of(companion, name="y"), new)
    line = f"configuration: companions.y.{old} is now companions.y.{new}\n"
    assert capsys.readouterr().err == 2 * line
    main = nested(new, 3 if new.endswith("iterations") else 0.25)
    assert at(settings_of(companion, main, name="y"), new) == value  # whatever its name


@pytest.mark.parametrize("key", SWITCHED)
@pytest.mark.parametrize(
    ("value", "iterations"),
    [(False, 0), ("false", 0), ("False", 0), (" FALSE", 0), (True, 10), ("true", 10), ("True", 10)],
)
def test_a_truth_value_is_a_crf_or_none(
    key: str, value: bool | str, iterations: int, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = merged(settings_of(), nested(f"{key}.iterations", iterations))
    assert settings_of(nested(key, value)) == expected
    line = f"{key} is now {key}.iterations (0 leaves the CRF out)"
    assert capsys.readouterr().err == f"configuration: {line}\n"
    companion = {"companions": {"y": nested(key, value)}}
    assert at(settings_of(companion, name="y"), key) == at(expected, key)


@pytest.mark.parametrize("key", SWITCHED)
@pytest.mark.parametrize(("value", "iterations"), [(False, 0), (True, 7)])
def test_a_truth_value_beside_old_iterations(key: str, value: bool, iterations: int) -> None:
    """No CRF has no iterations, whatever else is said about them."""
    changes = nested(key, value), nested(f"{key}_iterations", 7)
    assert at(settings_of(*changes), f"{key}.iterations") == iterations


@pytest.mark.parametrize("key", SWITCHED)
def test_a_companion_switches_on_what_the_experiment_leaves_out(key: str) -> None:
    main, companion = nested(key, False), {"companions": {"y": nested(key, True)}}
    old, new = nested(f"{key}_iterations", 7), nested(f"{key}.iterations", 7)
    found = [
        settings_of(main, companion, name="y"),
        settings_of(main, old, companion, name="y"),
        settings_of(main, companion, {"companions": {"y": old}}, name="y"),
        settings_of(new, companion, name="y"),
    ]
    assert [at(settings, f"{key}.iterations") for settings in found] == [10, 7, 7, 7]
    left_out = settings_of(main, old, companion, name="x")
    assert at(left_out, f"{key}.iterations") == 0


@pytest.mark.parametrize("empty", [None, "null", {}])
def test_an_old_name_beside_an_empty_section(empty: Any) -> None:
    for old, new in RENAMED.items():
        section, _, _ = new.rpartition(".")
        config = merged(nested(section, empty), nested(old, other(old)))
        assert at(settings_of(config), new) == other(old)


RUBBISH = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([1, {}])
)


@given(
    section=st.sampled_from([*SECTIONS, *(f"{section}.crf" for section in SECTIONS)]),
    rubbish=RUBBISH,
    old=st.sampled_from(sorted(RENAMED)),
    inside=st.sampled_from(["", "companions.y."]),
)
def test_rubbish_in_place_of_a_section_is_one_line(
    section: str, rubbish: Any, old: str, inside: str
) -> None:
    parts = [nested(f"{inside}{old}", 1), nested(f"{inside}{section}", rubbish)]
    for config in (merged(*parts), merged(*reversed(parts))):
        try:
            read_experiments(merged(SCENES, config))
        except UserError as error:
            assert "\n" not in str(error) and str(error).startswith("configuration: ")


@pytest.mark.parametrize("rubbish", [5, "all", [1], [{"crf": False}], {"y": 5}, {5: {"crf": 1}}])
def test_rubbish_in_place_of_companions_is_one_line(rubbish: Any) -> None:
    with pytest.raises(UserError, match=r"^configuration: companions"):
        settings_of({"companions": rubbish})


def test_the_configuration_given_stays_as_it_is() -> None:
    config = {"pseudo_labels": {"crf": False}, "companions": {"y": {"pseudo_labels": {"crf": 1}}}}
    before = yaml.safe_dump(config)
    with_new_names(config)
    assert yaml.safe_dump(config) == before


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONFIG)))
def test_shipped_files_have_new_names_only(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = yaml.safe_load(file.read_text())
    assert with_new_names(config) == config
    assert capsys.readouterr().err == ""
