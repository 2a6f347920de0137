"""The report on a workspace in the real formats: what it says, and that it stands alone."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from alberti.report.figures import curve_chart, interval_chart
from stages.curves import read_curves

from alberti.data.manifest import Dataset
from alberti.errors import DataError
from alberti.files import read_json, write_json
from alberti.report import ReportInputs, Result, build_report, headline_metrics
from alberti.report.comparison import Change, gap_closed, paired_change
from alberti.report.gallery import build_gallery, choose_samples, paint_depth
from alberti.report.summary import key_figures, sentences
from alberti.report.tables import DEPTH_METRICS, IMAGE_METRICS, metric_table

ARMS = ("base", "unconstrained", "constrained", "guided")
DEPTH_ARMS = ("original", "kitti", *ARMS)


@pytest.fixture(scope="session")
def inputs(workspace: Path) -> ReportInputs:
    metrics = workspace / "metrics"
    return ReportInputs(
        images={arm: Result.read(metrics / "images" / f"{arm}.json") for arm in ARMS},
        depth={
            model: {arm: Result.read(metrics / "depth" / f"{model}-{arm}.json") for arm in DEPTH_ARMS}
            for model in ("dpt", "pixelformer")
        },
        generated={arm: Dataset.open(workspace / "data" / "generated" / arm) for arm in ARMS},
        condition=Dataset.open(workspace / "data" / "condition"),
        control_arm="unconstrained",
        constrained_arms=("constrained",),
        variants={"guided": "unconstrained"},
        guided_arms=("guided",),
        references={name: Result.read(metrics / "references" / f"{name}.json") for name in ("renders", "reconstructions")},
        curves={"Fine-tuning": read_curves(workspace / "plots" / "finetune")},
        annotation=read_json(metrics / "annotate.json"),
        facts={"profile": "default", "seed": 0, "git revision": None},
        params="seed: 0\n",
        stand_ins=("train", "test"),
        pictures=3,
    )


class Page(HTMLParser):
    """Text, and every address that the page would load."""

    def __init__(self, text: str):
        super().__init__()
        self.words: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset") and value]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="session")
def page(inputs: ReportInputs, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("report") / "index.html"
    return build_report(inputs, out).read_text(encoding="utf-8")


def test_page_stands_alone(page: str) -> None:
    addresses = Page(page).addresses
    outside = [address for address in addresses if not address.startswith(("data:image/", "#"))]
    assert outside == []
    assert not re.search(r"@import|url\((?!#)|fetch\(", page)
    assert sum(address.startswith("data:image/") for address in addresses) == 3 * (2 + len(ARMS))


def test_page_says_what_ran_and_that_data_are_stand_ins(page: str) -> None:
    text = " ".join(" ".join(Page(page).words).split())
    assert "Rendered stand-ins." in text
    assert "The data of train, test in this run are streets rendered by alberti" in text
    for word in (
        "random_convolutions_256",
        "eigen_garg",
        "lidar_forward",
        "0123456789ab",
        "published numbers",
        "not FID",
    ):
        assert word in text
    assert "git revision" not in text, "a fact without a value is left out"


def test_page_without_stand_ins_or_constraint(inputs: ReportInputs, tmp_path: Path) -> None:
    plain = replace(
        inputs, stand_ins=(), control_arm=None, constrained_arms=(), variants={}, guided_arms=(), references={}, curves={},
        annotation=None, depth={},
    )  # fmt: skip
    text = build_report(plain, tmp_path / "index.html").read_text()
    assert "guidance" not in text
    assert "Rendered stand-ins" not in text
    assert "No arm was trained with a constraint" in text


def test_charts_take_the_pages_colours(page: str) -> None:
    assert "var(--arm-2)" in page
    assert not re.search(r"#0[123]00[0-9a-f]{2}|#010101|#020202", page), "a stand-in colour was left"


def test_same_inputs_same_bytes(inputs: ReportInputs, page: str, tmp_path: Path) -> None:
    assert build_report(inputs, tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_captions_are_escaped(inputs: ReportInputs, tmp_path: Path) -> None:
    evil = replace(inputs, params="<script>alert(1)</script>", arm_notes={"base": "<b>&"})
    text = build_report(evil, tmp_path / "index.html").read_text()
    assert "<script>alert(1)" not in text
    assert "&lt;b&gt;&amp;" in text


def rows_of(values: list[float], column: str = "consistency_2") -> pd.DataFrame:
    return pd.DataFrame({"id": [str(index) for index in range(len(values))], column: values})


def test_paired_change_pairs_by_id_and_leaves_out_missing_values() -> None:
    a = pd.DataFrame({"id": ["x", "y", "z"], "m": [2.0, 4.0, np.nan]})
    b = pd.DataFrame({"id": ["z", "y", "x", "w"], "m": [0.0, 1.0, 1.0, 9.0]})
    change = paired_change(a, b, "m", True)
    assert change is not None
    assert (change.value, change.n, change.verdict) == (2.0, 2, "better")
    assert paired_change(a.iloc[:1], b, "m", True) is None
    assert paired_change(a, b, "nothing", True) is None


@pytest.mark.parametrize(
    ("low", "high", "higher_is_better", "verdict"),
    [
        (0.1, 0.3, True, "better"),
        (0.1, 0.3, False, "worse"),
        (-0.3, -0.1, True, "worse"),
        (-0.3, -0.1, False, "better"),
        (-0.1, 0.3, True, "unclear"),
        (0.1, 0.3, None, "up"),
        (-0.3, -0.1, None, "down"),
    ],
)
def test_verdicts(low: float, high: float, higher_is_better: bool | None, verdict: str) -> None:
    assert Change((low + high) / 2, low, high, 10, higher_is_better).verdict == verdict


def results_with(shares: dict[str, np.ndarray]) -> dict[str, Result]:
    return {
        arm: Result({"n": len(values), "consistency_2": float(values.mean())}, rows_of(list(values)))
        for arm, values in shares.items()
    }


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        (0.2, "made the pictures straighter"),
        (-0.2, "made the pictures less straight"),
        (0.0, "did nothing to straightness"),
    ],
)
def test_sentences_follow_the_numbers(inputs: ReportInputs, shift: float, words: str) -> None:
    rng = np.random.default_rng(0)
    before = rng.uniform(0.4, 0.5, 40)
    after = before + shift + rng.normal(0, 0.02, 40) * (shift != 0) + rng.normal(0, 0.05, 40) * (shift == 0)
    images = results_with({"base": before, "unconstrained": before, "constrained": after})
    told = sentences(replace(inputs, images=images, depth={}, variants={}, guided_arms=(), references={}))
    assert told[0].startswith("In “constrained” the constraint " + words)
    assert f"{100 * after.mean():.1f} %" in told[0]
    assert f"{100 * before.mean():.1f} %" in told[0]


def test_guidance_is_judged_against_the_weights_that_it_draws_with(inputs: ReportInputs) -> None:
    rng = np.random.default_rng(0)
    shares = {"unconstrained": rng.uniform(0.3, 0.4, 40), "reconstructions": rng.uniform(0.7, 0.8, 40)}
    shares["guided"] = (shares["unconstrained"] + shares["reconstructions"]) / 2
    results = results_with(shares)
    through = {"reconstructions": results.pop("reconstructions")}
    told = " ".join(sentences(replace(inputs, images=results, references=through, depth={}, control_arm=None)))
    assert "In “guided” guidance while sampling made the pictures straighter" in told
    assert "in “unconstrained”, which has the same weights" in told
    assert "That is 50 % of the way from “unconstrained”" in told
    assert "close kin to the share" in told
    assert "one seed" in told
    plain = " ".join(sentences(replace(inputs, images=results, depth={}, guided_arms=(), references={})))
    assert "In “guided” another way of sampling made" in plain
    assert "close kin" not in plain
    assert "of the way" not in plain


def test_receding_lines_are_told_of_where_they_changed(inputs: ReportInputs) -> None:
    rng = np.random.default_rng(0)
    lengths = {"unconstrained": rng.uniform(400, 500, 40)}
    lengths |= {"guided": 2 * lengths["unconstrained"], "renders": 3 * lengths["unconstrained"]}
    results = results_with({name: np.full(40, 0.5) for name in lengths})
    results = {
        name: Result(
            {**result.summary, "level_line_length": lengths[name].mean()},
            result.rows.assign(level_line_length=lengths[name]),
        )
        for name, result in results.items()
    }
    references = {"renders": results.pop("renders")}
    rest = {"references": references, "depth": {}, "control_arm": None}
    means = [f"{values.mean():.0f} px" for values in lengths.values()]
    told = " ".join(sentences(replace(inputs, images=results, **rest)))
    assert f"{means[1]} in a picture of “guided”, {means[0]} in “unconstrained”, {means[2]} in the reference pictures" in told
    same = {"unconstrained": results["unconstrained"], "guided": results["unconstrained"]}
    assert "Receding" not in " ".join(sentences(replace(inputs, images=same, **rest)))


def test_share_of_the_gap() -> None:
    rng = np.random.default_rng(1)
    low, high = rng.uniform(0, 0.1, 30), rng.uniform(0.6, 0.7, 30)
    results = results_with({"low": low, "high": high, "between": low + 0.25 * (high - low)})
    share = gap_closed(results["between"], results["low"], results["high"], "consistency_2")
    assert share is not None
    assert (share.value, share.low, share.high, share.n) == (*[pytest.approx(0.25)] * 3, 30)
    assert gap_closed(results["between"], results["high"], results["low"], "consistency_2") is None, "no gap to close"


def test_key_figures_and_headline_keys(inputs: ReportInputs) -> None:
    figures = key_figures(inputs)
    assert [figure.label for figure in figures] == [
        f"{what}, {pair}"
        for what in ("line within 2° of a vanishing point", "AbsRel of dpt", "AbsRel of pixelformer")
        for pair in ("constrained against unconstrained", "guided against unconstrained")
    ]
    assert str(figures[0]).endswith(f"{figures[0].value} ({figures[0].interval})")
    assert figures[0].verdict == "better", "the fixture's constrained arm is bent least"
    summary = headline_metrics(inputs)
    assert set(summary["images"]["base"]) == {
        "consistency_2", "consistency_5", "line_length", "vp_auc_10", "frechet_distance", "kernel_distance",
    }  # fmt: skip
    gain = summary["images"]["constrained"]["consistency_2_gain"]
    shares = {arm: inputs.images[arm].summary["consistency_2"] for arm in ARMS}
    assert gain == pytest.approx(shares["constrained"] - shares["unconstrained"])
    assert summary["images"]["guided"]["consistency_2_gain"] == pytest.approx(shares["guided"] - shares["unconstrained"])
    assert summary["depth"]["dpt"]["kitti"]["abs_rel"] == inputs.depth["dpt"]["kitti"].summary["abs_rel"]


def test_tables_compare_with_the_original_and_mark_the_best(inputs: ReportInputs) -> None:
    table = metric_table(inputs.depth["dpt"], DEPTH_METRICS, "original")
    cells = {row.arm: row.cells[0] for row in table.rows}
    assert cells["original"].change == ""
    assert cells["kitti"].verdict == "better"
    assert cells["kitti"].change.startswith("\N{MINUS SIGN}0.0")
    assert [arm for arm, cell in cells.items() if cell.best] == ["kitti"]
    assert re.fullmatch(r"0\.\d{3}\N{EN DASH}0\.\d{3}", cells["base"].interval)


def test_means_over_different_pictures_have_no_best() -> None:
    results = {
        "a": Result({"n": 3, "vp_error": 1.0, "vp_error_n": 3}, rows_of([1.0] * 3, "vp_error")),
        "b": Result({"n": 3, "vp_error": 0.5, "vp_error_n": 1, "vp_error_low": 0.5, "vp_error_high": 0.5}, rows_of([])),
    }
    table = metric_table(results, IMAGE_METRICS, None)
    assert not any(cell.best for row in table.rows for cell in row.cells)
    assert table.rows[1].cells[0].interval.endswith("(n = 1)")


def test_gallery_colours_lines_by_vanishing_point(inputs: ReportInputs) -> None:
    ids = choose_samples(inputs)
    assert ids == ["000000", "000002", "000004"]
    scene = build_gallery(inputs, ids[:1])[0]
    assert [picture.label for picture in scene.pictures] == ["depth", "reference", *ARMS]
    reference = scene.pictures[1]
    assert all(line.point is not None for line in reference.segments), "a straight drawing's lines all meet a point"
    condition = inputs.condition.by_id(ids[0])
    points = np.array(condition.vanishing_points)
    for ray in reference.rays:
        line = np.cross([ray.x1, ray.y1, 1], [ray.x2, ray.y2, 1])
        assert abs(line / np.hypot(*line[:2]) @ points[ray.point]) < 1e-6


def test_depth_painting_is_bright_near_and_black_where_unknown() -> None:
    painted = paint_depth(np.array([[2.0, 4.0, 50.0, 0.0]], np.float32)).astype(int).sum(axis=2)[0]
    assert painted[0] > painted[1] > painted[2] > painted[3] == 0
    assert paint_depth(np.zeros((2, 2), np.float32)).max() == 0


def test_charts_without_anything_to_draw() -> None:
    assert interval_chart({"a": Result({"n": 1}, rows_of([]))}, "consistency_2", "x") is None
    assert curve_chart({"a": pd.DataFrame({"step": [1], "loss": [1.0]})}, ["a"]) is None
    assert curve_chart({"a": pd.DataFrame({"step": [1, 2], "lr": [1.0, 1.0]})}, ["a"]) is None


def test_bad_inputs(inputs: ReportInputs, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no generated pictures of the evaluated arm 'base'"):
        replace(inputs, generated={})
    with pytest.raises(DataError, match="nothing to report"):
        replace(inputs, images={}, depth={})
    write_json(tmp_path / "a.json", {"n": 1})
    with pytest.raises(DataError, match=r"a\.csv: no such table"):
        Result.read(tmp_path / "a.json")
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(DataError, match="not a table"):
        Result.read(tmp_path / "a.json")
    (tmp_path / "a.csv").write_text("name\nx\n")
    with pytest.raises(DataError, match="no column 'id'"):
        Result.read(tmp_path / "a.json")


def test_results_over_seeds_are_a_section_of_their_own(inputs: ReportInputs, workspace: Path) -> None:
    from alberti.report.seeds import SeedResults, summarise_seeds

    results = SeedResults((0, 1), {arm: [result] * 2 for arm, result in inputs.images.items()}, {}, resamples=200)
    facts = {
        "seeds": [0, 1],
        "pictures": 6,
        "profile": "smoke",
        "resamples": 200,
        "extractor": "x",
        "control_arm": "unconstrained",
    }
    picture = next((workspace / "data/condition/images").glob("*.png"))
    page = build_report(
        replace(inputs, over_seeds={**facts, **summarise_seeds(results)}, over_seeds_figures=(picture,)),
        workspace / "report/seeds.html",
    ).read_text()
    section = page.split('id="over-seeds"')[1].split("</section>")[0]
    assert "2 seeds (0, 1), 6 pictures an arm and seed" in section
    assert "constrained - unconstrained" in section
    assert section.count("data:image/png;base64") == 1
    assert 'id="over-seeds"' not in build_report(inputs, workspace / "report/one.html").read_text()


def test_a_file_that_is_no_result_over_seeds_is_refused(inputs: ReportInputs, workspace: Path) -> None:
    with pytest.raises(DataError, match=r"no 'seeds' in them; .*pipeline\.results"):
        build_report(replace(inputs, over_seeds={"images": {}}), workspace / "report/bad.html")


def test_depth_on_other_ground_truth_does_not_share_a_table(inputs: ReportInputs) -> None:
    other = inputs.depth["dpt"]["base"]
    mixed = {**inputs.depth["dpt"], "base": replace(other, summary={**other.summary, "ground_truth": "annotated"})}
    with pytest.raises(DataError, match=r"dpt-original and dpt-base .*ground_truth"):
        replace(inputs, depth={**inputs.depth, "dpt": mixed})
