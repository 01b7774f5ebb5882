"""No text of a configuration is taken for a command, a flag, a wildcard or another folder."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from brnf.config.experiment import read_experiments
from brnf.config.generate import load_schema
from brnf.config.schema import merged
from brnf.errors import UserError
from brnf.workflow.params import STAGES

ROOT = Path(__file__).parents[2]
HARMFUL = "a 'b' \"c\" $(touch pwned) `touch pwned`; touch pwned & {d} {{e}} * \\ é"
TEXTS = (
    "own\n",
    "a\nb",
    "\r",
    "a\x1b[2J",
    "\x00",
    "-rf",
    "--help",
    HARMFUL,
    "{name}",
    "",
    ".",
    "..",
)
WORDS = {"program", "stage", "files", "options", "source", "archives"}
"""Parameters that are words for the shell already."""
VOC = {"name": "x", "dataset": {"kind": "voc", "root": HARMFUL, "train": "train"}}


def text_keys(schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the place of every key that takes text, and what makes a value of a text."""
    types = schema.get("type", "object")
    if "string" in types and "enum" not in schema:
        yield path, lambda text: text
    if "items" in schema:
        for place, make in text_keys(schema["items"], path):
            yield place, lambda text, make=make: [make(text)]
    if path and types == "object" and "properties" not in schema:
        yield path, lambda text: {text: {} if "items" not in schema else []}
    if path and path[-1] == "archives":
        entry = {"address": "http://a/b.tar", "md5": 32 * "0"}
        for key in entry:
            yield path, lambda text, key=key: [entry | {key: text}]
        return
    for key, part in schema.get("properties", {}).items():
        yield from text_keys(part, (*path, key))


@pytest.mark.parametrize("text", TEXTS)
def test_every_key_takes_a_text_or_refuses_it_in_one_line(text: str) -> None:
    keys = list(text_keys(load_schema()))
    assert len(keys) > 30
    for path, make in keys:
        changes: Any = make(text)
        for key in reversed(path):
            changes = {key: changes}
        try:
            read = read_experiments(merged(VOC, changes), data=False)
        except UserError as error:
            assert str(error).isprintable() and path[0] in str(error)
        else:
            assert all(re.fullmatch(r"[\w-]+", name) for name in read), path
            held = [one for chosen in read.values() for one in _texts(chosen.settings)]
            assert all(map(str.isprintable, held)), path


def test_no_name_ends_in_a_line_break() -> None:
    """Python's ``$`` also matches before one."""
    schema = (ROOT / "workflow" / "schemas" / "config.schema.yaml").read_text()
    patterns = [str(found) for found in _values(yaml.safe_load(schema), "pattern")]
    for file in (ROOT / "brnf").rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            text = ast.unparse(call) if isinstance(call, ast.Call) else ""
            if text.startswith("re.") and "MULTILINE" not in text:
                patterns += [
                    part.value
                    for part in ast.walk(call)
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                ]
    assert len(patterns) > 20
    assert [pattern for pattern in patterns if re.search(r"(?<!\\)\$(?!\(\?!\\n\))", pattern)] == []


def _texts(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif isinstance(part, Mapping):
        for key, value in part.items():
            yield from (*_texts(key), *_texts(value))
    elif isinstance(part, list | tuple):
        for value in part:
            yield from _texts(value)


def _values(part: Any, key: str) -> Iterator[Any]:
    entries = part.items() if isinstance(part, dict) else enumerate(part)
    for name, value in entries if isinstance(part, dict | list) else ():
        if name == key and isinstance(value, str):
            yield value
        yield from _values(value, key) if isinstance(value, dict | list) else ()


def test_every_value_of_a_shell_line_is_quoted() -> None:
    found = 0
    for file in (ROOT / "workflow" / "rules").glob("*.smk"):
        for shell in re.findall(r"^    shell:\n((?:        .*\n)+)", file.read_text(), re.M):
            for value in re.findall(r"(?<!\{)\{([^{}]+)\}", shell):
                found += 1
                assert value.endswith(":q") or value.removeprefix("params.") in WORDS, value
    assert found > 20


@pytest.fixture
def spoken(workflow: Any, tmp_path: Path) -> Callable[..., list[list[str]]]:
    """Return what stages would be called with, as bash hands it over."""
    stub = tmp_path / "bin" / "python"
    stub.parent.mkdir()
    stub.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    stub.with_name("tee").write_text("#!/bin/sh\nexec cat > /dev/null\n")
    for program in stub.parent.iterdir():
        program.chmod(0o755)

    def words(settings: Any, *targets: str) -> list[list[str]]:
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
        output = workflow(
            *("--dry-run", "--printshellcmds", "--quiet", "host", "reason", "--cores", "4"),
            *("--configfile", str(tmp_path / "config.yaml"), "--", *targets),
        )
        assert "Traceback" not in output
        shell = re.findall(r"^ *(?:Shell command: )?(.*brnf\.stages\..*)$", output, re.MULTILINE)
        done = subprocess.run(
            ["bash"],
            input="\n".join(shell),
            cwd=tmp_path,
            env={"PATH": f"{stub.parent}:/usr/bin:/bin", "BRNF_TRAIN": "python -m"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert list(tmp_path.rglob("pwned")) == []
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]

    return words


def test_all_rules_hand_on_the_texts_of_a_configuration_as_they_are(
    workflow: Any, spoken: Callable[..., list[list[str]]], tmp_path: Path
) -> None:
    folder = re.sub(r"[{}]", "", HARMFUL)  # of a rule's files
    for path in (f"{HARMFUL}/VOC2012", f"{HARMFUL}/annotations", folder):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / HARMFUL / "words.yaml").write_text("names: {}\nbackground: []\n")
    (tmp_path / HARMFUL / "table.csv").touch()
    dashed = {"backbone": {"weights": "none"}}
    free = {"figures": {"images": [HARMFUL]}, "base": {"clip_es": {"prompt": "-{name}"}}}
    main = merged(VOC | {"companions": None}, merged(dashed, free))
    own = {"dataset": {"kind": "table", "table": f"{HARMFUL}/table.csv", "classes": [HARMFUL]}}
    imported = {"base": {"method": "import", "import": {"folder": folder}}}
    clip = {"base": {"method": "clip_es", "clip_es": {"words": f"{HARMFUL}/words.yaml"}}}
    walk = {"pseudo_labels": {"refine": "random_walk"}, "dataset": {"test": "test"}}
    scenes = {"dataset": {"kind": "scenes", "train": "train"}}
    archives = [{"address": HARMFUL, "md5": "'" * 32}]
    fetched = {"download": {"voc12": {"folder": folder, "archives": archives}}}

    said = spoken(merged(main, own), "results/x/index")
    said += spoken(merged(main, scenes), "results/x/index", "results/x/data")
    said += spoken(merged(main, fetched), "download_voc12", "download_sbd", "download_coco14")
    workflow.pretend_index("x", {"train": 1, "val": 1, "test": 1}, scenes=False)
    studies = ("ablation", "sensitivity", "sensitivity_full", "density", "comparison", "plan")
    said += spoken(merged(main, walk), "all", "test_predictions", "results/x/packed", *studies)
    said += spoken(merged(main, imported), "all", "results/x/base/seed0/exported")
    said += spoken(merged(main, clip), "all")
    coco = {"models": ["base", "supervised"], "dataset": {"kind": "coco", "test": None}}
    coco["dataset"] |= {"train": "train"}
    said += spoken(merged(main, coco), "all")

    called = {words[1].removeprefix("brnf.stages.") for words in said if words[0] == "-m"}
    assert called == set(STAGES)
    heard = {word for words in said for word in words}
    assert heard >= {HARMFUL, f"{HARMFUL}/table.csv", folder, f"{HARMFUL}/words.yaml"}
    assert heard >= {"--clip-es.prompt=-{name}", "'" * 32}
    assert not heard & {"pwned", "touch", "-rf", "d"}
