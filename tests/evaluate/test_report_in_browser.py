"""The report in a real browser: three widths, light and dark, nothing on the console."""

import html
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from brnf.evaluate.captions import Caption
from brnf.evaluate.making import making
from brnf.evaluate.report import Override, Section, picture, render, table
from brnf.store.stamps import Content, Stamp

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
WIDTHS = (400, 800, 1300)
PROBE = """
<script>
addEventListener("load", () => {
  const page = document.documentElement, table = document.querySelector("table.sortable");
  const picture = document.querySelector("a.enlarge img"), body = getComputedStyle(document.body);
  const click = (n) => {
    table.tHead.rows[0].cells[n].querySelector("button").click();
    return [...table.tBodies[0].rows].map((row) => row.cells[n].textContent);
  };
  const wide = [...document.querySelectorAll("body *")].filter((part) =>
    part.getBoundingClientRect().right > innerWidth + 1
    && !part.closest(".scroll, .frame, pre, dialog"));
  const found = {
    width: innerWidth, wide: wide.map((part) => part.outerHTML.slice(0, 80)),
    scrolls: page.scrollWidth > innerWidth, sorted: [click(1), click(1), click(0)],
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    colours: [body.color, body.backgroundColor],
    chart: getComputedStyle(document.querySelector("img.chart")).filter,
    shown: picture.getBoundingClientRect().width,
  };
  picture.click();
  const viewer = document.getElementById("viewer");
  found.opened = viewer.open && viewer.querySelector("img").src === picture.src;
  viewer.click();
  found.closed = !viewer.open;
  parent.postMessage(JSON.stringify(found), "*");
});
</script>
"""
FRAMES = """<!DOCTYPE html><meta charset="utf-8"><meta name="color-scheme" content="light dark">
<script>addEventListener("message", (event) => {
  document.body.append(Object.assign(document.createElement("pre"), {textContent: event.data}));
});</script><body>"""


def page() -> str:
    """Return a report whose names, tables and pictures are as wide as they come."""
    scores = {f"class number {i}": [50.0, 40.0, 60.0] for i in range(40)}
    models = {"model": ["base", "brnf", "my_own_variant"], "miou": [9.5, 60.25, np.nan]}
    frame = pd.DataFrame(models | scores)
    content = io.BytesIO()
    Image.new("RGB", (1600, 900), "white").save(content, "PNG")
    long = "/a/path/without/a/single/space" * 8
    caption = Caption("A title", f"A caption with {long}")
    shown = picture("curves", caption, content.getvalue(), "curves.png", chart=True)
    section = Section(
        name="demo",
        protocol="scenes",
        facts={"a fact": long},
        index=[long],
        tables=[table(frame, caption), table(frame, Caption("Folded", "", folded=True))],
        pictures=[shown],
        reference="config/voc12.yaml",
        overrides=[Override("a.key", f'"{long}"', "1")],
        configuration=f"name: {long}\n",
        files={"curves.png": "1 KB"},
    )
    stamp = Stamp("train_brnf", {}, "c", content=Content("d", 1, "l"), made="2026-01-01T00:00:00")
    return render("A title", [section], {"scenes": "rendered"}, making([stamp]))


def browse(folder: Path, *flags: str) -> tuple[list[dict[str, Any]], str]:
    """Return what the probe found at each width, and what the console says."""
    (folder / "report.html").write_text(page().replace("</body>", f"{PROBE}</body>"))
    frames = "".join(
        f'<iframe src="report.html" width="{width}" height="900" style="border: 0"></iframe>'
        for width in WIDTHS
    )
    (folder / "frames.html").write_text(FRAMES + frames)
    words = [
        *(
            str(BROWSER),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--window-size=1400,950",
        ),
        *("--hide-scrollbars", "--no-first-run", f"--user-data-dir={folder / 'profile'}"),
        *("--enable-logging=stderr", "--virtual-time-budget=4000", "--dump-dom", *flags),
        (folder / "frames.html").as_uri(),
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=True)
    told = re.findall("<pre>(.*?)</pre>", done.stdout)
    found = [json.loads(html.unescape(line)) for line in told]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return sorted(found, key=lambda one: one["width"]), "\n".join(console)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here (Debian: apt-get install chromium)")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_report_works_at_every_width_in_both_schemes(tmp_path: Path, dark: bool) -> None:
    found, console = browse(tmp_path, *(["--force-dark-mode"] if dark else []))
    assert console == ""
    assert [one["width"] for one in found] == list(WIDTHS)
    for one in found:
        assert one["wide"] == [] and not one["scrolls"], one
        assert one["dark"] == dark
        bright = [sum(map(int, re.findall(r"\d+", colour)[:3])) / 3 for colour in one["colours"]]
        assert bright[0] > 200 and bright[1] < 60 if dark else bright[0] < 60 and bright[1] > 200
        assert (one["chart"] != "none") == dark, "charts are light on dark"
        assert one["shown"] > 600, "letters of a figure stay readable"
        falling, rising, by_name = one["sorted"]
        assert falling == ["60.2", "9.5", ""] and rising == ["9.5", "60.2", ""]
        assert by_name == ["base", "BRNF", "my_own_variant"]
        assert one["opened"] and one["closed"]
