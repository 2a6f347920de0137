"""The page on a workspace in the real formats: what it says first, what it leaves out, and that it stands alone."""

import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from markupsafe import escape

from alberti.errors import DataError
from alberti.files import write_json
from alberti.metrics.labels import METRICS
from alberti.report.charts import constraint_panels, curve_panels
from alberti.report.forest import depth_chart, straightness_chart
from alberti.report.gallery import build_gallery, choose_samples, paint_depth
from alberti.report.inputs import ReportInputs, Result
from alberti.report.page import build_report
from alberti.report.summary import summarise

VOID = {"meta", "img", "path", "circle", "br", "hr", "input", "use", "line", "link"}


class Page(HTMLParser):
    """Text, ids, what points at ids, every address that the page would load, and the tables' captions."""

    def __init__(self, text: str):
        super().__init__()
        self.words: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.open: list[str] = []
        self.images_without_text = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset") and value]
        self.ids += [value for name, value in attrs if name == "id" and value]
        for name in ("aria-describedby", "aria-labelledby"):
            self.references += (known.get(name) or "").split()
        self.references += [value[1:] for name, value in attrs if name == "href" and value and value.startswith("#")]
        self.images_without_text += tag == "img" and not known.get("alt")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())  # a space that does not break is a space here


@pytest.fixture(scope="session")
def page(inputs: ReportInputs, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("report") / "index.html"
    return build_report(inputs, out).read_text(encoding="utf-8")


def test_page_stands_alone(page: str) -> None:
    parsed = Page(page)
    outside = [address for address in parsed.addresses if not address.startswith(("data:image/", "#"))]
    assert outside == []
    assert not re.search(r"@import|url\((?!#)|fetch\(", page)
    assert sum(address.startswith("data:image/") for address in parsed.addresses) == 3 * (3 + 4)
    assert not parsed.open, "every element is closed"


def test_ids_are_unique_and_everything_that_is_referred_to_is_there(page: str) -> None:
    parsed = Page(page)
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert set(parsed.references) <= set(parsed.ids)
    assert parsed.images_without_text == 0
    headings = [int(level) for level in re.findall(r"<h([1-6])", page)]
    assert headings[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(headings)), "no level is skipped"


def test_the_verdict_comes_first_then_bare_pictures_then_numbers(page: str, inputs: ReportInputs) -> None:
    places = [page.index(f'id="{name}"') for name in ("verdict", "pictures", "measured", "depth-1", "constraint")]
    assert places == sorted(places)
    text = Page(page).text
    for line in summarise(inputs)["verdict"]:
        assert line["answer"].removeprefix(line["short"]) in text
    assert 'body data-overlay="none"' in page, "lines are drawn on request"
    assert 'data-overlay="none" aria-pressed="true"' in page


def test_real_test_sets_come_first_and_rendered_ones_are_called_so(page: str) -> None:
    text = Page(page).text
    assert text.index("Depth on real frames: kitti") < text.index("Depth on rendered frames: test")
    assert "kitti: 12 real frames of 5 scenes, protocol eigen_garg, ground truth lidar_forward, alignment median" in text
    assert "test: 40 rendered frames" in text
    assert "The data of train and condition are streets rendered by alberti itself" in text
    assert "12 images; published numbers of eigen_garg have 697" in text


def test_every_table_names_its_control(page: str) -> None:
    tables = page.count("<table")
    assert tables == 2 + 2 * 4, "heads and all metrics, of the pictures and of each model on each test set"
    assert page.count("Changes are against “unconstrained”") == tables
    assert len(re.findall(r'<tr class="control">', page)) == tables


def test_better_and_worse_are_words_with_a_key(page: str) -> None:
    assert re.search(r'<small class="change better" data-tip="95 % interval [^"]+"><b>better</b> \+', page)
    assert re.search(r'<span class="change better">better</span> <span class="change worse">worse</span>', page)


def test_metrics_and_arms_are_explained(page: str) -> None:
    for metric in (METRICS["consistency_2"], METRICS["abs_rel"]):
        assert f'<div id="metric-{metric.key}"><dt>{escape(metric.label)}</dt><dd>{escape(metric.meaning)}' in page
        assert f'aria-describedby="metric-{metric.key}"' in page
    assert "Fine-tuned with the published perspective loss; compared with “unconstrained”." in page
    assert ", lower is better</span>" in page, "an arrow says nothing to a screen reader"


def test_page_without_pictures_or_depth_or_a_constraint(inputs: ReportInputs, tmp_path: Path) -> None:
    bare = {"stand_ins": (), "curves": {}, "annotation": None, "params": ""}
    arms = {name: arm for name, arm in inputs.arms.items() if not arm.treated}
    text = build_report(
        replace(inputs, arms=arms, depth={}, real_test_sets=(), references={}, **bare), tmp_path / "pictures.html"
    ).read_text()
    assert "Not asked" in text
    assert "depth-1" not in Page(text).ids
    assert "Changes are against" not in text
    depth = replace(inputs, images={}, generated={}, condition=None, references={}, **bare)
    text = build_report(depth, tmp_path / "depth.html").read_text()
    assert {"pictures", "measured", "profiles", "constraint", "training"}.isdisjoint(Page(text).ids), "nothing is empty"


def test_charts_take_the_page_s_colours(page: str) -> None:
    assert "var(--arm-2)" in page
    assert not re.search(r"#0[123]00[0-9a-f]{2}|#010101|#020202|#040404", page), "a stand-in colour was left"


def test_same_inputs_same_bytes(inputs: ReportInputs, page: str, tmp_path: Path) -> None:
    assert build_report(inputs, tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_text_from_outside_is_escaped(inputs: ReportInputs, tmp_path: Path) -> None:
    arms = {**inputs.arms, "base": replace(inputs.arms["base"], note="<b>&")}
    evil = replace(inputs, params="<script>alert(1)</script>", arms=arms, facts={"profile": "<i>"}, pictures=1, curves={})
    text = build_report(evil, tmp_path / "index.html").read_text()
    assert "<script>alert(1)" not in text
    assert "&lt;b&gt;&amp;" in text
    assert "<i>" not in re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)


def table(**columns: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"step": range(len(next(iter(columns.values())))), **columns})


def test_the_constraint_has_its_own_curve_and_constants_have_none() -> None:
    falling = [3.0, 2.0, 1.0]
    runs = {
        "plain-0": table(mse=falling, loss=falling, constraint=[0.0] * 3, mse_t0=falling),
        "a-0": table(mse=falling, loss=falling, constraint=falling, lr=[1.0, 2.0, 3.0]),
        "a-1": table(mse=falling, loss=falling, constraint=falling),
        "b-0": table(mse=falling, constraint=[9.0, 8.0, 7.0]),
    }
    arms = ["plain", "a", "b"]
    assert [panel.title for panel in constraint_panels(runs, arms)] == ["a", "b"], "each in its own units"
    assert [panel.title for panel in curve_panels(runs, arms)] == ["denoising loss"]
    two_seeds = constraint_panels(runs, arms)[0].svg
    assert two_seeds.count("var(--arm-1)") == 2
    assert curve_panels({"x": table(loss=[1.0, 1.0])}, []) == []
    assert curve_panels({"x": pd.DataFrame({"loss": [1.0, 2.0]})}, []) == []


def test_charts_of_means(inputs: ReportInputs) -> None:
    summary = summarise(inputs)
    chart = straightness_chart(summary)
    assert chart is not None
    assert [bar.arm for bar in chart.bars] == ["base", "unconstrained", "constrained", "guided"]
    assert all(
        0 <= bar.low <= bar.mean <= bar.high <= 100 for bar in chart.bars if bar.low is not None and bar.high is not None
    )
    assert {mark.name for mark in chart.marks} == {"through the autoencoder", "reference pictures"}
    assert max(at for at, _ in chart.ticks) <= 100
    depth = depth_chart(summary, "kitti", "dpt")
    assert depth is not None
    assert [bar.arm for bar in depth.bars] == ["kitti", "base", "unconstrained", "constrained", "guided"]
    only = {**summary, "images": {}, "original_arm": "nothing"}
    assert straightness_chart(only) is None
    assert depth_chart(only, "kitti", "dpt") is None


def test_gallery_colours_lines_by_vanishing_point(inputs: ReportInputs) -> None:
    ids = choose_samples(inputs)
    assert ids == ["000000", "000002", "000004"]
    scene = build_gallery(inputs, ids[:1])[0]
    assert [picture.label for picture in scene.pictures] == ["depth", "reference", "reconstruction", *inputs.generated]
    reference = scene.pictures[1]
    assert all(name != "vp-none" for name, _ in reference.lines), "a straight drawing's lines all meet a point"
    assert inputs.condition is not None
    points = np.array(inputs.condition.by_id(ids[0]).vanishing_points)
    for name, path in reference.rays:
        point = points[int(name.removeprefix("vp-"))]
        for x1, y1, x2, y2 in re.findall(r"M(-?[\d.]+) (-?[\d.]+)L(-?[\d.]+) (-?[\d.]+)", path):
            line = np.cross([float(x1), float(y1), 1], [float(x2), float(y2), 1])
            away = line / np.hypot(*line[:2]) @ point
            assert abs(away) < 0.06 * max(abs(point[2]), np.hypot(*point[:2]) / 96), "tenths of a pixel, or of a direction"


def test_depth_painting_is_bright_near_and_black_where_unknown() -> None:
    painted = paint_depth(np.array([[2.0, 4.0, 50.0, 0.0]], np.float32)).astype(int).sum(axis=2)[0]
    assert painted[0] > painted[1] > painted[2] > painted[3] == 0
    assert paint_depth(np.zeros((2, 2), np.float32)).max() == 0


def test_bad_inputs(inputs: ReportInputs, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="depth maps is missing"):
        replace(inputs, condition=None)
    with pytest.raises(DataError, match="nothing to report"):
        replace(inputs, images={}, depth={}, real_test_sets=())
    with pytest.raises(DataError, match="no evaluation on it"):
        replace(inputs, real_test_sets=("diode",))
    with pytest.raises(DataError, match="no seed"):
        replace(inputs, seeds=())
    write_json(tmp_path / "a.json", {"n": 1})
    with pytest.raises(DataError, match=r"a\.csv: no such table"):
        Result.read(tmp_path / "a.json")
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(DataError, match="not a table"):
        Result.read(tmp_path / "a.json")
    (tmp_path / "a.csv").write_text("name\nx\n")
    with pytest.raises(DataError, match="no column 'id'"):
        Result.read(tmp_path / "a.json")
