"""Old names of keys are accepted for one version, each with a line that tells the new one."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from brnf.config.experiment import merged, read_experiments
from brnf.config.generate import load_schema
from brnf.config.renamed import GONE, RENAMED, SWITCHED, VALUES, with_new_names
from brnf.config.schema import leaves
from brnf.errors import UserError

CONFIG = Path(__file__).parents[2] / "config"
SCENES: dict[str, Any] = {
    "name": "x",
    "dataset": {"kind": "scenes", "train": "train"},
}
KEYS = [".".join(path) for path, _ in leaves(load_schema())]
FILES = sorted(file for file in CONFIG.rglob("*.yaml") if file.parent.name != "clip_es")
SECTIONS = sorted({key.rpartition(".")[0] for key in [*RENAMED, *SWITCHED] if "." in key})


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


def other(key: str, second: bool = False) -> Any:
    """Return one of two values that the key has not by default."""
    kind = {"seeds": ([7], [3, 4]), "dataset.seeds": ("val", "train")}
    default = (7, 8) if key.endswith("iterations") else (0.625, 0.875)
    return kind.get(key, default)[second]


def text(value: Any) -> Any:
    """Return a value as Snakemake reads it from the command line."""
    return [str(part) for part in value] if isinstance(value, list) else str(value)


def beside(old: str) -> bool:
    """Return whether the old name stands in the section of the new one."""
    return old.rpartition(".")[0] == RENAMED[old].rpartition(".")[0]


def test_every_old_name_has_a_new_one_and_is_none_itself() -> None:
    assert set(RENAMED.values()) <= set(KEYS) and not set(RENAMED) & set(KEYS)
    assert set(VALUES) <= set(KEYS)
    assert all(f"{key}.iterations" in KEYS for key in SWITCHED)


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_name_sets_its_key_and_tells_it(
    old: str, capsys: pytest.CaptureFixture[str]
) -> None:
    new, value = RENAMED[old], other(old)
    plain = settings_of()
    assert capsys.readouterr().err == "" and at(plain, new) != value
    for given_value in (value, text(value)):
        found = settings_of(nested(old, given_value))
        assert found == merged(plain, nested(new, value))
        assert capsys.readouterr().err == f"configuration: {old} is now {new}\n"


@pytest.mark.parametrize("old", [key for key in RENAMED if key.startswith(("brnf.", "flow."))])
def test_an_old_name_where_a_network_or_variant_has_its_own(
    old: str, capsys: pytest.CaptureFixture[str]
) -> None:
    section, _, rest = old.partition(".")
    places = ["variants.v."] if section == "brnf" else ["brnf.flow.", "variants.v.flow."]
    for place in (*places, *(f"companions.y.{place}" for place in places)):
        before, now = f"{place}{rest}", f"{place}{RENAMED[old].partition('.')[2]}"
        found, expected = (
            read_experiments(merged({**SCENES, "companions": {"y": {}}}, nested(key, other(old))))
            for key in (before, now)
        )
        assert {name: one.settings for name, one in found.items()} == {
            name: one.settings for name, one in expected.items()
        }
        assert capsys.readouterr().err == f"configuration: {before} is now {now}\n"


@pytest.mark.parametrize(
    ("key", "old", "new"), [(key, *pair) for key in VALUES for pair in VALUES[key].items()]
)
def test_an_old_value_is_the_new_one(
    key: str, old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [key, f"companions.y.{key}"]
    if key.startswith("flow."):
        places += [f"{place}.{key}" for place in ("brnf", "variants.v", "companions.y.variants.v")]
    for place in places:
        config = merged({"companions": {"y": {}}, "variants": {"v": {}}}, nested(place, new))
        expected = {
            name: one.settings for name, one in read_experiments(merged(SCENES, config)).items()
        }
        config = merged(config, nested(place, old))
        found = read_experiments(merged(SCENES, config))
        assert {name: one.settings for name, one in found.items()} == expected
        assert capsys.readouterr().err == f"configuration: {place}: {old} is now {new}\n"


@pytest.mark.parametrize(("amp", "precision"), [(True, "bf16"), ("False", "fp32")])
def test_amp_is_a_precision_now(
    amp: object, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert settings_of({"amp": amp})["precision"] == precision
    assert capsys.readouterr().err == f"configuration: amp is now precision ({precision})\n"
    assert settings_of({"amp": amp, "precision": "tf32"})["precision"] == "tf32"


@pytest.mark.parametrize("old", GONE)
def test_a_key_that_is_gone_is_ignored_with_a_line(
    old: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert old not in KEYS
    companion = {"companions": {"y": nested(old, [0.1])}}
    assert settings_of(nested(old, [0.1, 0.2])) == settings_of()
    assert settings_of(companion, name="y") == settings_of({"companions": {"y": {}}}, name="y")
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" is ignored: ")[0] for line in lines] == [
        f"configuration: {old}",
        f"configuration: companions.y.{old}",
    ]


@pytest.mark.parametrize("old", RENAMED)
def test_the_new_name_has_precedence(old: str, capsys: pytest.CaptureFixture[str]) -> None:
    new, value = RENAMED[old], other(old)
    found = settings_of(nested(old, other(old, second=True)), nested(new, value))
    assert at(found, new) == value
    assert old in capsys.readouterr().err


@pytest.mark.parametrize("old", filter(beside, RENAMED))
@pytest.mark.parametrize("inside", ["", "companions.y."])
def test_an_old_name_in_a_later_source_has_precedence(old: str, inside: str) -> None:
    """As of ``--config seeds=[1]`` beside a file that holds random_seeds."""
    first = nested(f"{inside}{RENAMED[old]}", other(old))
    then, last = (nested(f"{inside}{old}", value) for value in (other(old), other(old, True)))
    expected = other(old, second=True)
    for sources in ([first, last], [then, first, last], [first, {}, last, {}]):
        config = SCENES
        for source in sources:
            config = merged(config, source)
        found = read_experiments(config, sources=lambda sources=sources: sources)
        assert at(found["y" if inside else "x"].settings, RENAMED[old]) == expected
    mixed = [last, first]
    found = read_experiments(merged(merged(SCENES, last), first), sources=lambda: mixed)
    assert at(found["y" if inside else "x"].settings, RENAMED[old]) == other(old)


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_name_in_a_companion(old: str, capsys: pytest.CaptureFixture[str]) -> None:
    new, value = RENAMED[old], other(old)
    companion = {"companions": {"y": nested(old, value)}}
    assert at(settings_of(companion), new) != value == at(settings_of(companion, name="y"), new)
    line = f"configuration: companions.y.{old} is now companions.y.{new}\n"
    assert capsys.readouterr().err == 2 * line
    main = nested(new, other(old, second=True))
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
        if not section or section == "dataset":  # which is never empty
            continue
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


def test_nothing_is_printed_of_a_record(capsys: pytest.CaptureFixture[str]) -> None:
    record = {"seeds": [1], "evaluate": {"thresholds": [0.1]}, "pseudo_labels": {"crf": False}}
    found = with_new_names(record, quiet=True)
    assert found["random_seeds"] == [1] and "seeds" not in found
    assert capsys.readouterr().err == ""


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
