"""Figures and report: chosen images, overlays, completeness, no reference to the network."""

import io
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from msgspec import structs
from PIL import Image

from brnf.config.sections.evaluation import Figures
from brnf.data.index import ImageRecord, Index, MaskRecord, write_masks
from brnf.data.masks import colour_map, write_palette_png
from brnf.engine.runtime import Runtime
from brnf.errors import UserError
from brnf.evaluate.example_figures import Example, examples_figure, overlay
from brnf.evaluate.figures import History, bias_figure, curves_figure
from brnf.evaluate.palettes import class_palette, seen_by
from brnf.evaluate.study_figures import failures_figure
from brnf.stages import draw, evaluate, report, tabulate
from brnf.store.maps import write_maps
from brnf.store.stamps import Stamp, content_of, digest_of, write_stamp

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
            with write_maps(root / model / f"{seed}.h5", 20) as writer:
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
        "name: demo\nprotocol: scenes\nrandom_seeds: [0, 1]\ndataset: {kind: scenes}\n"
        "backbone: {stride: 8, weights: resnet50.a1_in1k}\n"
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
        "CAM": draw.Panel("classifier", [experiment / "base" / "0.h5"]),
        "prediction": draw.Panel("mask", [experiment / "masks"]),
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


def test_without_ground_truth_the_column_is_left_out_and_confidence_is_written(
    experiment: Path, tmp_path: Path
) -> None:
    shown = Example(np.zeros((8, 8, 3), np.uint8), None, {"net": np.ones((8, 8), np.uint8)})
    sure = replace(shown, confidences={"net": 0.456})
    known = replace(shown, truth=np.full((8, 8), 2, np.uint8))
    found = [examples_figure(rows, ["net"], ("cat", "dog")) for rows in ([shown, sure], [known])]
    titles = [[axes.get_title() for axes in figure.axes if axes.get_title()] for figure in found]
    assert titles == [["image", "net"], ["image", "ground truth", "net"]]
    texts = [text.get_text() for axes in found[0].axes for text in axes.texts]
    assert texts == ["cat", "cat", "confidence 0.46"], "large classes are named in the picture"
    legends = [[text.get_text() for text in figure.legends[0].get_texts()] for figure in found]
    assert legends == [["cat"], ["cat", "dog"]], "colours of predictions are named, too"
    index = tmp_path / "index"
    shutil.copytree(experiment / "index", index)
    (index / "masks" / "train.csv").write_text("id,mask,context,digest\n")
    (tmp_path / "sure.csv").write_text("image,confidence\nimage0,0.5\n")
    draw.run(
        draw.Inputs(
            index,
            (f"CAM:classifier:{experiment / 'base' / '0.h5'}",),
            confidences=(f"CAM:{tmp_path / 'sure.csv'}",),
        ),
        draw.Outputs(predictions=tmp_path / "predictions.png"),
        draw.Options("train", Figures(images=("image0", "image4"))),
        QUIET,
    )
    assert (tmp_path / "predictions.png").stat().st_size > 5000


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


@pytest.mark.parametrize("eyes", ["normal", "protanope", "deuteranope", "tritanope"])
def test_the_safe_palette_is_told_apart_by_all_eyes(eyes: str) -> None:
    """Of VOC's 20 colours the nearest two are 1 to 9 apart."""
    seen = seen_by(class_palette("safe")[1:21], eyes)
    away = np.linalg.norm(seen[:, None] - seen, axis=2)[np.triu_indices(20, 1)]
    assert away.min() > 15
    labels, image = np.full((8, 8), 7, np.uint8), np.zeros((8, 8, 3), np.uint8)
    drawn = [overlay(image, labels, palette=name)[0, 0] for name in ("voc", "safe")]
    assert [colour.tolist() for colour in drawn] == [
        (0.9 * class_palette(name)[7]).astype(np.uint8).tolist() for name in ("voc", "safe")
    ]
    assert (drawn[0] != drawn[1]).any()


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
    likelihood = "flow:\nnegative log-likelihood"
    assert list(titled) == ["CAM network:\nwhole loss", "CAM network:\nheld out", likelihood]
    assert titled[likelihood].get_ylabel() == "nats per dimension"
    assert [line.get_ydata().tolist() for line in titled["CAM network:\nwhole loss"].lines] == [
        [3, 2, 1],
        [2, 1.5],
    ]
    assert titled["CAM network:\nheld out"].lines[0].get_xdata().tolist() == [2]


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
    with pytest.raises(UserError, match="'sure' is not of the form title:path"):
        draw.run(
            draw.Inputs(index, confidences=("sure",)),
            draw.Outputs(predictions=somewhere),
            draw.Options("train"),
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


def all_of(experiment: Path) -> report.Inputs:
    """Return the inputs of a report in which everything was measured and drawn."""
    figures = sorted((experiment / "figures").glob("*.png"))
    return report.Inputs((experiment,), (experiment / "tables" / "results.csv",), tuple(figures))


def test_report_holds_everything_and_refers_to_nothing_elsewhere(experiment: Path) -> None:
    page = experiment / "report.html"
    report.run(all_of(experiment), report.Outputs(page), report.Options(title="A <title>"), QUIET)
    text = page.read_text()
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    for reference in checker.references:
        assert (
            reference.startswith(("data:image/png;base64,", "#"))
            or (experiment / reference).is_file()
        ), reference
    assert "url(" not in text and "@import" not in text
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)
    assert sum(reference.startswith("data:") for reference in checker.references) == 4
    assert "<title>A &lt;title&gt;</title>" in text
    assert "rail&lt;way&gt;" in text, "names are escaped"
    results = pd.read_csv(experiment / "tables" / "results.csv")
    for value in results.miou:
        assert f">{value:.1f}</td>" in text
    heads = re.findall(r"<th scope=\"col\"[^>]*>(.*?)</th>", text)
    assert {"mIoU (%)", "bias, fire@70 (%)", "rail&lt;way&gt;"} <= set(heads)
    assert not [head for head in heads if "_" in head]
    assert "<td>BRNF</td>" in text and "cam_classifier" not in text
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


def test_report_shows_only_what_follows_from_what_is_there(
    experiment: Path, tmp_path: Path
) -> None:
    """Figures of other settings, damaged tables and studies of other evaluations stay out."""
    folder = tmp_path / "demo"
    shutil.copytree(experiment, folder)
    (folder / "figures" / "bias.png").rename(folder / "figures" / "ablation.png")
    (folder / "tables" / "results.csv.damaged").write_text("rubbish")
    study, source = folder / "tables" / "sensitivity.csv", folder / "sweep.json"
    page = folder / "report.html"

    def shown() -> str:
        results = (folder / "tables" / "results.csv",)
        inputs = report.Inputs((folder,), results, (folder / "figures" / "scores.png",))
        report.run(inputs, report.Outputs(page), report.Options(), QUIET)
        return page.read_text()

    for text in ("1", "2"):
        source.write_text(text)
        study.write_text("xi,miou\n")
        inputs = {str(source): digest_of(source)}
        write_stamp(study, Stamp("tabulate_sweeps", {}, "c", inputs, content=content_of(study)))
        assert "sensitivity.csv" in shown()
    text = shown()
    assert text.count("data:image/png") == 1 and "damaged" not in text
    study.write_text("varied,xi,miou,miou_std\nxi,0.8,41.25,\n")
    write_stamp(study, Stamp("tabulate_sweeps", {}, "c", inputs, content=content_of(study)))
    _, _, text = shown().partition("<h3>Sensitivity to thresholds</h3>")
    heads = re.findall(r"<th [^>]*>(.*?)</th>", text.partition("</table>")[0])
    assert heads == ["varied", "ξ", "mIoU (%)"], "an empty column is left out"
    source.write_text("3")
    assert "sensitivity.csv" not in shown()


def test_report_says_when_and_by_what_it_was_made(experiment: Path, tmp_path: Path) -> None:
    """From stamps alone: a report made again from the same files is equal to the byte."""
    folder = tmp_path / "demo"
    shutil.copytree(experiment, folder)
    network = folder / "network.pt"
    network.write_text("weights")
    made = Stamp("train_brnf", {}, "c", content=content_of(network), versions={"brnf": "1.2"})
    made = structs.replace(made, made="2026-01-02T03:04:05+00:00", seconds=7200.0, commit="abc123")
    write_stamp(network, made)
    write_stamp(folder / "history.csv", made)
    for table in (folder / "tables").glob("*.csv"):
        inputs = {str(network): digest_of(network), str(folder / "history.csv"): "d"}
        later = Stamp("tabulate", {}, "c", inputs, content=content_of(table))
        later = structs.replace(later, made="2026-01-03T00:00:00+00:00", seconds=2.0)
        write_stamp(table, later)
    pages = [folder / "a.html", folder / "b.html"]
    for page in pages:
        report.run(all_of(folder), report.Outputs(page), report.Options(), QUIET)
    text = pages[0].read_text()
    assert text == pages[1].read_text()
    assert "2026-01-03 00:00:00 UTC · brnf 1.2 · commit abc123 · 2 h of computing" in text
    rows = re.findall(r"<tr><td>(.*?)</td><td class=.number.>(\d+)</td>.*?>([\d.]+)</td>", text)
    assert rows == [("training of BRNF", "1", "7200.0"), ("tables", "1", "2.0")]


def test_bias_of_photographs_has_no_column(experiment: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(experiment, folder)
    for name in ("results", "by_seed", "seeds"):
        path = folder / "tables" / f"{name}.csv"
        frame = pd.read_csv(path)
        empty = [column for column in frame if column.startswith(("bias", "fire70"))]
        frame.assign(**dict.fromkeys(empty, np.nan)).to_csv(path, index=False)
    report.run(all_of(folder), report.Outputs(folder / "report.html"), report.Options(), QUIET)
    heads = re.findall(r"<th [^>]*>(.*?)</th>", (folder / "report.html").read_text())
    assert heads and not [head for head in heads if "bias" in head]


def test_report_says_what_the_image_index_found(experiment: Path, tmp_path: Path) -> None:
    """Its lines stand between facts and tables, for they concern every number below."""
    found = [f"note {number} on <names>" for number in range(20)]
    lines = ["# Image index (table)", "", "| | train |", "|---|---|", "| images | 5 |", ""]
    lines += ["5 images, 2 classes. See below.", "", *(f"- {note}" for note in found), ""]
    summary = experiment / "index" / "summary.md"
    summary.write_text("\n".join([*lines, "Warning: masks and labels: 1 of 5 masks."]) + "\n")
    report.run(all_of(experiment), report.Outputs(tmp_path / "a.html"), report.Options(), QUIET)
    summary.unlink()
    text = (tmp_path / "a.html").read_text()
    said = re.findall(
        "<li>(.*?)</li>", text[text.index("as it was indexed") : text.index("<table")]
    )
    assert said[:2] == [
        "Warning: masks and labels: 1 of 5 masks.",
        "5 images, 2 classes. See below.",
    ]
    assert said[2] == "note 0 on &lt;names&gt;"
    assert said[-1] == "10 more lines in index/summary.md"


def test_report_shows_nothing_that_an_earlier_run_has_measured(
    experiment: Path, tmp_path: Path
) -> None:
    """Masks were taken away: tables and figures of before lie there still, and would pretend."""
    copy = tmp_path / "demo"
    shutil.copytree(experiment, copy)
    margins = copy / "figures" / "margins.png"
    margins.write_bytes((copy / "figures" / "bias.png").read_bytes())
    write_stamp(margins, Stamp("draw_studies", {}, "code", content=content_of(margins)))
    (copy / "index" / "masks" / "train.csv").write_text("id,mask,context,digest\na,,,\n")
    (copy / "config.yaml").write_text(
        "name: demo\ndataset: {kind: table, eval_split: train, val: train}\n"
    )
    given = report.Inputs((copy,), figures=(copy / "figures" / "curves.png",))
    report.run(given, report.Outputs(copy / "report.html"), report.Options(), QUIET)
    text = (copy / "report.html").read_text()
    assert re.findall('<figure id="demo-(.*?)">', text) == ["curves", "margins"]
    assert "<h3>Results</h3>" not in text and "results.csv" not in text and "scores.png" not in text
    assert text.count("<dd>nothing, for want of masks</dd>") == 2


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


@pytest.mark.parametrize("name", [r"$\foo$", "$5 to $6", r"\frac{", "a_b^c", "{0}", "%s", "é"])
def test_a_name_of_a_class_is_no_formula(name: str) -> None:
    mask = np.ones((8, 8), np.uint8)
    example = Example(np.zeros((8, 8, 3), np.uint8), mask, {"base": mask})
    sweep = {"classes": [name], "class_pixels": [10], "class_log_density": [1.0], "worst": []}
    for figure in (examples_figure([example], ["base"], [name]), failures_figure(sweep)):
        figure.savefig(io.BytesIO(), format="png")
        shown = [text.get_text() for text in figure.findobj(Text)]
        assert name in shown
