"""Figures and report: chosen images, overlays, completeness, no reference to the network."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from brnf.config.sections.evaluation import Figures
from brnf.data.index import ImageRecord, Index, MaskRecord, write_masks
from brnf.data.masks import colour_map, write_palette_png
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.evaluate.figures import History, bias_figure, curves_figure, overlay
from brnf.stages import draw, evaluate, report, tabulate
from brnf.store.maps import write_maps

QUIET = Runtime(workers=0, progress="none")
SIDE = 24
NAMES = [f"image{i}" for i in range(5)]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an experiment of five images with context, two models, all tables and figures."""
    root = tmp_path_factory.mktemp("results") / "demo"
    index = root / "index"
    random = np.random.default_rng(0)
    truth, context = np.zeros((2, SIDE, SIDE), np.uint8)
    truth[6:14, 6:18] = 1
    context[14:20, 6:18] = 1
    truth[0] = 255
    records, masks = [], []
    for name in NAMES:
        files = [root / "data" / f"{name}{kind}.png" for kind in ("", "-mask", "-context")]
        files[0].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(files[0])
        write_palette_png(files[1], truth)
        write_palette_png(files[2], context)
        records.append(ImageRecord(name, files[0], SIDE, SIDE, (1,)))
        masks.append(MaskRecord(name, files[1] if name != NAMES[4] else None, files[2]))
    Index(("rail<way>", "boat"), (1, 2), tuple(records)).write(index, "train")
    write_masks(index, "train", masks)
    evaluations = []
    for model, leak in (("base", 0.8), ("brnf", 0.3)):
        for seed in (0, 1):
            with write_maps(root / model / f"{seed}.h5") as writer:
                for name in NAMES:
                    foreground = np.clip(
                        (truth == 1) + leak * (context == 1) + 0.1 * random.random((1, SIDE, SIDE)),
                        0,
                        1,
                    )
                    writer.write(
                        name,
                        np.array([1]),
                        {"classifier": np.concatenate([1 - foreground, foreground])},
                    )
            evaluations.append(root / model / f"{seed}.json")
            evaluate.run(
                evaluate.Inputs(index, maps=(root / model / f"{seed}.h5",)),
                evaluate.Outputs(evaluations[-1]),
                evaluate.Options(
                    "train",
                    "classifier",
                    "cam_classifier",
                    model=model,
                    seed=seed,
                    protocol="scenes",
                ),
                QUIET,
            )
    steps = pd.DataFrame(
        {"step": range(1, 61), "loss": np.linspace(2, 1, 60), "L_nce": [np.nan] * 30 + [1.0] * 30}
    )
    steps.to_csv(root / "history.csv", index=False)
    (root / "masks").mkdir()
    write_palette_png(root / "masks" / f"{NAMES[2]}.png", truth)
    panels = (
        *(f"{model} CAM:classifier:{root / model / '0.h5'}" for model in ("base", "brnf")),
        f"prediction:mask:{root / 'masks'}",
    )
    figures = draw.Outputs(
        *(root / "figures" / f"{name}.png" for name in ("examples", "scores", "bias", "curves"))
    )
    histories = (f"base:network:{root / 'history.csv'}",)
    draw.run(
        draw.Inputs(index, panels, tuple(evaluations), histories),
        figures,
        draw.Options("train", Figures(count=2)),
        QUIET,
    )
    tables = (
        root / "tables" / name
        for name in ("results.csv", "results.md", "by_seed.csv", "seeds.csv", "seeds.md")
    )
    tabulate.run(
        tabulate.Inputs(tuple(evaluations)), tabulate.Outputs(*tables), tabulate.Options(), QUIET
    )
    (root / "config.yaml").write_text(
        "name: demo\nprotocol: scenes\nseeds: [0, 1]\ndataset: {kind: scenes}\nbackbone: {stride: "
        "8, weights: resnet50.a1_in1k}\n"
    )
    return root


def test_figures_have_their_size(experiment: Path) -> None:
    for name, wide in (("examples", 500), ("scores", 500), ("bias", 500), ("curves", 500)):
        with Image.open(experiment / "figures" / f"{name}.png") as image:
            assert wide < image.width < 2500
            assert 200 < image.height < 2500
            assert len(np.unique(np.array(image.convert("L")))) > 20, f"{name} is not blank"


def test_examples_prefer_images_with_all_panels_and_do_not_change(experiment: Path) -> None:
    index = Index.of_split(experiment / "index", "train")
    panels = {
        "CAM": draw.Panel("classifier", [experiment / "base" / "0.h5"], 2),
        "prediction": draw.Panel("mask", [experiment / "masks"], 2),
    }
    truth = draw.GroundTruth(index, experiment / "index", "train")
    chosen = [
        image.id
        for image in draw._choose(index, panels, truth, draw.Options("train", Figures(count=9)))
    ]
    assert chosen[0] == NAMES[2], "the only one with a prediction"
    assert sorted(chosen) == NAMES[:4], "the image without a mask is left out"
    fewer = Index(
        index.classes,
        index.mask_values,
        tuple(image for image in index.images if image.id != chosen[1]),
    )
    again = [
        image.id
        for image in draw._choose(fewer, panels, truth, draw.Options("train", Figures(count=9)))
    ]
    assert again == [name for name in chosen if name != chosen[1]], (
        "the order of the others does not change"
    )
    named = draw._choose(
        index, panels, truth, draw.Options("train", Figures(images=(NAMES[3], NAMES[1])))
    )
    assert [image.id for image in named] == [NAMES[3], NAMES[1]]


def test_overlay_colours_classes_and_outlines_the_truth() -> None:
    image = np.full((40, 40, 3), 100, np.uint8)
    labels = np.zeros((40, 40), np.uint8)
    labels[:, 20:30] = 3
    labels[:, 30:] = 255
    truth = np.zeros((40, 40), np.uint8)
    truth[10:20, 2:12] = 1
    drawn = overlay(image, labels, truth)
    assert drawn[30, 5].tolist() == [130, 130, 130], "background stays gray"
    assert drawn[30, 25].tolist() == [int(0.9 * colour + 35) for colour in colour_map()[3].tolist()]
    assert drawn[30, 35].tolist() == [255, 255, 255]
    assert drawn[10, 5].tolist() == [255, 255, 255], "outline"
    assert drawn[15, 7].tolist() == [130, 130, 130], "inside of the outline"


def test_a_training_of_no_steps_has_no_curve(tmp_path: Path) -> None:
    (tmp_path / "none.csv").write_text("step\n")
    pd.DataFrame({"step": [1, 2], "loss": [2.0, 1.0]}).to_csv(tmp_path / "some.csv", index=False)
    histories = tuple(
        f"{model}:network:{tmp_path / file}.csv"
        for model, file in (("base", "none"), ("brnf", "some"))
    )
    draw.run(
        draw.Inputs(tmp_path, histories=histories),
        draw.Outputs(curves=tmp_path / "curves.png"),
        draw.Options("train"),
        QUIET,
    )
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_curves_leave_out_what_is_no_loss_and_missing_values() -> None:
    table = pd.DataFrame(
        {
            "step": [1, 2, 3],
            "loss": [3.0, 2.0, 1.0],
            "learning_rate": [1.0, 0.5, 0.1],
            "held_out": [np.nan, 1.0, np.nan],
        }
    )
    other = pd.DataFrame({"step": [1, 2], "loss": [2.0, 1.5]})
    figure = curves_figure(
        [
            History("base", "network", table),
            History("brnf", "network", other),
            History("brnf", "flow", other),
        ]
    )
    titled = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    assert list(titled) == ["network: loss", "network: held_out", "flow: loss"]
    assert [line.get_ydata().tolist() for line in titled["network: loss"].lines] == [
        [3, 2, 1],
        [2, 1.5],
    ]
    assert titled["network: held_out"].lines[0].get_xdata().tolist() == [2]


def test_missed_recall_is_drawn_hollow() -> None:
    row = {"model": "base", "split": "train", "fire70": 30.0, "miou70": 40.0}
    table = pd.DataFrame(
        [
            {**row, "product": "seeds", "recall": 70.4},
            {**row, "product": "seeds_bsdnf", "recall": 55.0},
        ]
    )
    marks = bias_figure(table, 70.0).axes[0].collections
    assert [len(mark.get_facecolor()) for mark in marks] == [1, 0]


def test_mistakes_of_draw_are_named(experiment: Path) -> None:
    index = experiment / "index"
    somewhere = experiment / "other.png"
    with pytest.raises(UserError, match="no figure asked for"):
        draw.run(draw.Inputs(index), draw.Outputs(), draw.Options("train"), QUIET)
    with pytest.raises(UserError, match="title:product:path"):
        draw.run(
            draw.Inputs(index, panels=("base:x.h5",)),
            draw.Outputs(examples=somewhere),
            draw.Options("train"),
            QUIET,
        )
    with pytest.raises(UserError, match=r"nothing\.csv: no such file"):
        draw.run(
            draw.Inputs(index, histories=("a:b:nothing.csv",)),
            draw.Outputs(curves=somewhere),
            draw.Options("train"),
            QUIET,
        )
    with pytest.raises(UserError, match="image4: has no ground-truth mask"):
        draw.run(
            draw.Inputs(index),
            draw.Outputs(examples=somewhere),
            draw.Options("train", Figures(images=("image4",))),
            QUIET,
        )
    assert not somewhere.exists()


class Checker(HTMLParser):
    """Collect tags that stay open and everything that is referred to."""

    EMPTY = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_report_holds_everything_and_refers_to_nothing_elsewhere(experiment: Path) -> None:
    page = experiment / "report.html"
    report.run(
        report.Inputs((experiment,)), report.Outputs(page), report.Options(title="A <title>"), QUIET
    )
    text = page.read_text()
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    for reference in checker.references:
        assert (
            reference.startswith(("data:image/png;base64,", "#"))
            or (experiment / reference).is_file()
        ), reference
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)
    assert sum(reference.startswith("data:") for reference in checker.references) == 4
    assert "<title>A &lt;title&gt;</title>" in text
    assert "rail&lt;way&gt;" in text, "names are escaped"
    results = pd.read_csv(experiment / "tables" / "results.csv")
    for value in results.miou:
        assert f">{value:.1f}</td>" in text
    assert "<code>backbone.stride</code></td><td><code>16</code></td><td><code>8</code>" in text
    assert "resnet50.a1_in1k (published as 14fe96d1)" in text
    assert (
        "<code>dataset.kind</code></td><td><code>&#34;voc&#34;</code></td><td>"
        "<code>&#34;scenes&#34;</code>" in text
    )
    assert (
        "What differs from the paper's setting (3 keys)" in text
        and "<code>config/voc12.yaml</code>" in text
    )
    assert "protocol: scenes" in text, "the configuration"


def test_report_of_two_experiments_has_two_sections(experiment: Path) -> None:
    page = experiment / "both.html"
    report.run(
        report.Inputs((experiment, experiment)), report.Outputs(page), report.Options(), QUIET
    )
    assert page.read_text().count('<section id="demo">') == 2
    with pytest.raises(UserError, match=r"config\.yaml: no such file"):
        report.run(
            report.Inputs((experiment / "index",)), report.Outputs(page), report.Options(), QUIET
        )
    with pytest.raises(UserError, match="no experiment"):
        report.run(report.Inputs(()), report.Outputs(page), report.Options(), QUIET)
