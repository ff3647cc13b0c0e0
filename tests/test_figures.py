"""Charts, their words, the tables and the page, on synthetic statistics whose numbers are known."""

import itertools
import json
import math
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import altair as alt
import numpy as np
import polars as pl
import pytest

from conftest import script, settings, write_config
from gradatlas.charts import listing, names, scales, theme
from gradatlas.charts.numbers import three_digits, two_digits
from gradatlas.charts.panel import VALUES, variant_palette
from gradatlas.charts.save import as_json, save, size_of_svg
from gradatlas.charts.tables import write_table
from gradatlas.charts.theme import Heading
from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_table
from gradatlas.figures import compared, gallery, layers, panels, tables
from gradatlas.figures.data import Data
from gradatlas.figures.heading import CHECK
from gradatlas.statistics.tables import TABLES
from synthetic import frames, statistic_rows, write_statistics

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).with_name("golden")


@pytest.fixture(scope="module")
def statistics(tmp_path_factory) -> Path:
    """The tables of one dataset with two kinds of responses."""
    return write_statistics(tmp_path_factory.mktemp("statistics"), statistic_rows(layers=12))


@pytest.fixture(scope="module")
def gallery_folder(statistics, tmp_path_factory) -> Path:
    """That dataset's figures, without the slow PNG."""
    folder = tmp_path_factory.mktemp("figures")
    gallery.draw(statistics, "gsm8k", "GSM8K", folder, ["vl.json", "svg"])
    return folder


def specification_of(tables: dict[str, pl.DataFrame], relation: str, kind: str, title: str = "GSM8K") -> dict:
    """One chart's specification, checked against the schema of Vega-Lite."""
    drawn = {(about[0], about[1]): about[3] for about in gallery.figures(Data(tables, title))}
    return drawn[relation, kind]().to_dict()


def headings(tables: dict[str, pl.DataFrame], title: str = "GSM8K") -> dict[tuple[str, str], Heading]:
    """Headings of every chart of one model, by relation and kind."""
    return {(relation, kind): heading for relation, kind, heading, _ in gallery.figures(Data(tables, title))}


# Charts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["panels", "variants", "compared"])
def test_a_chart_is_its_golden_record(kind):
    """`UPDATE_GOLDEN=1 pytest tests/test_figures.py` rewrites the records; look at the charts before a commit."""
    tables = frames(layers=2, variants=("none", "detailed"), projections=("q", "v"), n=20)
    text = as_json(specification_of(tables, "published", kind))
    golden = GOLDEN / f"{kind}.vl.json"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_the_record_is_the_chart():
    """The line-per-row layout is still the same JSON, with its rows."""
    specification = specification_of(frames(layers=3), "correct", "panels")
    assert json.loads(as_json(specification)) == specification
    assert as_json({"mark": "bar"}) == '{\n "mark": "bar"\n}\n'


NOT_MASTERED = (
    "NOT MASTERED by this model: Miniature biographies (unpopular) (does not know these), Miniature biographies "
    "(unseen) (does not know these)."
)


@pytest.mark.parametrize("columns", range(1, 8))
def test_a_heading_is_broken_to_the_width_of_its_panels(columns):
    """The title into lines; below it one line of the facts that fit, and the caption has all of them."""
    room = max(theme.panel_width(columns) * columns + theme.GAP * (columns - 1), 430)
    for facts in ((NOT_MASTERED,), ("one", NOT_MASTERED * 3, "two"), ("one", "two")):
        made = Heading(NOT_MASTERED, facts, ("RIGHT LABELS AMONG THE WRONG: some.", "SFT is none."))
        title, caption = theme.headed(made, columns).values()
        (line,) = title.subtitle
        assert theme.width_of(line, theme.SUBTITLE_SIZE) <= room and line.startswith("RIGHT LABELS AMONG THE WRONG")
        assert ("two" in line) == (facts == ("one", "two"))
        assert max(theme.width_of(each, theme.TITLE_SIZE) for each in title.text) <= room
        assert " ".join(title.text) == NOT_MASTERED
        assert caption.split("\n\n") == made.paragraphs and all(fact in made.paragraphs[1] for fact in facts)
    long = Heading("A", (NOT_MASTERED * 3,))
    (line,) = theme.headed(long, columns)["title"].subtitle
    assert line.endswith("…") and 0.7 * room < theme.width_of(line, theme.SUBTITLE_SIZE) <= room


def test_no_line_of_the_heading_makes_a_figure_wider_than_its_panels(tmp_path):
    """Drawn: the widths that lines are broken by are those of the type."""
    data = Data(frames(layers=3), relation="correct")
    widths = []
    for facts in ((), (NOT_MASTERED * 3,)):
        save(layers.chart(data, Heading("Of note", facts)), tmp_path / "chart", ["svg"])
        widths.append(size_of_svg(tmp_path / "chart.svg")[0])
    assert widths[0] == widths[1]


def test_two_runs_write_the_same_bytes(statistics, gallery_folder, tmp_path):
    """In another process, too."""
    command = ["--statistics", str(statistics), "--dataset", "gsm8k", "--title", "GSM8K", "--output", str(tmp_path)]
    done = script("draw_figures", *command, "--formats", "svg", "vl.json")
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in gallery_folder.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir())
    listed = listing.read_index(gallery_folder)["figures"]
    assert len(names) == sum(len(each["files"]) + 1 for each in listed) + 1
    for each in listed:
        text = (gallery_folder / each["files"]["svg"].replace(".svg", ".caption.md")).read_text(encoding="utf-8")
        assert text.startswith(f"**{each['title']}") and len(each["caption"]) > 100 and len(each["subtitle"]) == 1
    for name in names:
        assert (tmp_path / name).read_bytes() == (gallery_folder / name).read_bytes(), name


SHAPES = {
    "usual": {},
    "one layer": {"layers": 1},
    "two layers": {"layers": 2},
    "deep": {"layers": 42},
    "no none": {"variants": ("simplified", "detailed")},
    "lengths": {"variants": ("length_100", "length_500", "length_1000")},
    "natural alone": {"variants": ("natural",)},
    "one sample": {"n": 1},
    "queries only": {"projections": ("q",)},
}


@pytest.mark.parametrize("kind", ["panels", "variants", "compared"])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_value_leaves_its_axis(shape, kind):
    tables = frames(**{"layers": 12, **SHAPES[shape]})
    specification = specification_of(tables, "published", kind)
    assert specification["concat"]
    checked = 0
    for panel in specification["concat"]:
        for layer in panel["layer"]:
            rows = specification["datasets"].get({**panel, **layer}["data"].get("name"))
            checked += assert_inside(layer, rows) if rows else 0
    # At least x (unless it is a single layer's) and y of a band and of a curve or its points, in every panel.
    assert checked >= (2 if shape == "one layer" else 4) * len(specification["concat"])


def assert_inside(layer: dict, rows: list[dict]) -> int:
    """Every value that a layer draws lies within the domain of its axes; returns how many axes were looked at."""
    checked = 0
    for channel in ("x", "y"):
        encoding = layer["encoding"].get(channel, {})
        domain = encoding.get("scale", {}).get("domain")
        if domain is None:
            continue
        checked += 1
        fields = [encoding["field"], *([layer["encoding"]["y2"]["field"]] if "y2" in layer["encoding"] else [])]
        values = [row[field] for row in rows for field in (fields if channel == "y" else fields[:1])]
        values = [value for value in values if value is not None]
        assert not values or (domain[0] <= min(values) and max(values) <= domain[1])
        ticks = encoding["axis"].get("values", [])
        assert all(domain[0] <= tick <= domain[1] for tick in ticks) and ticks == sorted(set(ticks))
    return checked


def test_scales_hold_their_values_and_read_well():
    rng = np.random.default_rng(0)
    for _ in range(500):
        count, spread = rng.integers(1, 30), rng.uniform(0, 9)
        values = (rng.choice([-1, 1], count) * 10 ** rng.uniform(-spread, spread, count)).tolist()
        for height in (80, 190):
            for scale in (scales.linear(values), scales.log_if_decades(list(map(abs, values)), height // 14)):
                drawn = values if scale.low < 0 or min(values) >= 0 else list(map(abs, values))
                if scale.kind == "log":
                    drawn = list(map(abs, values))
                assert scale.low <= min(drawn) and max(drawn) <= scale.high
                assert len(scale.ticks) <= 16 and all(scale.low <= tick <= scale.high for tick in scale.ticks)


def test_scales_at_the_edges():
    assert scales.linear([]) == scales.linear([None, math.nan, math.inf]) == scales.Scale("linear", 0, 1)
    assert scales.linear([0.0]) == scales.Scale("linear", 0, 1)
    assert scales.log_if_decades([0, 100], 13).kind == "linear"
    assert scales.log_if_decades([1, 10], 13).kind == "linear"
    assert scales.log_if_decades([1, 10.1], 13).kind == "log"
    assert scales.log_if_decades([0.004, 3], 13).ticks[:3] == (0.005, 0.01, 0.02)
    assert scales.log_if_decades([0.004, 3e5], 5).ticks == (0.01, 1, 100, 1e4)


def test_a_missing_layer_leaves_a_gap():
    tables = frames(layers=5, relations=("correct",))
    tables["curves"] = tables["curves"].filter(pl.col("layer") != 2)
    specification = specification_of(tables, "correct", "panels")
    rows = [row for table in specification["datasets"].values() for row in table if row.get("layer") == 2]
    assert rows and all(row["value"] is None and row["low"] is None for row in rows)


def test_what_is_not_finite_is_left_out_and_reported():
    tables = frames(layers=5, relations=("correct",))
    bad = (pl.col("layer") == 1) & (pl.col("projection") == "q")
    values = [pl.when(bad).then(math.nan).otherwise(pl.col(name)).alias(name) for name in ("value", "low", "high")]
    tables["curves"] = tables["curves"].with_columns(values)
    assert "9 of 180 means are not finite" in " ".join(headings(tables)["correct", "variants"].paragraphs)
    as_json(specification_of(tables, "correct", "panels"))
    tables["curves"] = tables["curves"].with_columns(pl.lit(math.inf).alias("value"))
    chart = specification_of(tables, "correct", "panels")
    assert "no finite values" in as_json(chart)
    assert headings(tables)["correct", "panels"].title == "Nuclear norm of the gradient, by layer"


def test_panels_share_a_scale_unless_it_flattens_one():
    curves = frames(layers=12, relations=("correct",))["curves"]
    assert panels.own_scales(curves)
    assert not panels.own_scales(curves.filter(pl.col("variant") == "none"))
    assert not panels.own_scales(curves.filter(pl.col("value") < 0))


# Words ---------------------------------------------------------------------------------------------------------------


def test_titles_count_where_the_intervals_lie_apart():
    tables = frames(layers=12)
    norms = tables["curves"].filter((pl.col("statistic") == "nuclear_norm") & (pl.col("relation") == "correct"))
    ends = {row[:3]: row[3:] for row in norms.select("variant", "projection", "layer", "low", "high").iter_rows()}
    clear = [ends["none", q, i][0] > ends["detailed", q, i][1] for variant, q, i in ends if variant == "none"]
    found = headings(tables)
    assert found["correct", "variants"].title == (
        f"Mean gradients of None against Detailed: larger in {sum(clear)} of {len(clear)} layers and projections"
    )
    rd = tables["rd"].filter((pl.col("statistic") == "nuclear_norm") & (pl.col("measure") == "signed"))
    assert found["published", "compared"].title == (
        "Mean gradients of the paper’s wrong answers against correct ones: larger in "
        f"{(rd['low'] > 0).sum()} of {rd.height} variants and projections"
    )


def test_titles_claim_no_difference_that_the_intervals_do_not_show():
    tables = frames(layers=12)
    wide = [pl.lit(-9.0).alias("low"), pl.lit(900.0).alias("high")]
    tables = {name: frame.with_columns(wide) if "low" in frame.columns else frame for name, frame in tables.items()}
    found = headings(tables)
    assert found["correct", "variants"].title == "Mean gradients of None and Detailed: no clear difference"
    assert found["published", "compared"].title.endswith("no clear difference")


def test_a_comparison_counts_what_is_smaller_too():
    tables = frames(layers=4)
    none, detailed = pl.col("variant") == "none", pl.col("variant") == "detailed"
    ends = {"low": (-0.3, -0.1), "high": (-0.2, 0.1)}
    tables["rd"] = tables["rd"].with_columns(
        pl.when(none).then(value[0]).when(detailed).then(value[1]).otherwise(pl.col(name)).alias(name)
        for name, value in ends.items()
    )
    title = headings(tables)["published", "compared"].title
    assert title.endswith("larger in 4, smaller in 4 of 12 variants and projections")


def test_without_intervals_or_a_second_variant_a_title_is_what_is_drawn():
    assert headings(frames(layers=1, variants=("natural",)))["correct", "variants"].title == layers.TITLE
    alone = headings(frames(layers=4, n=1))
    assert alone["correct", "variants"].title == layers.TITLE
    assert "Too few samples for intervals." in " ".join(alone["correct", "panels"].paragraphs)


def test_differences_that_span_decades_are_on_a_log_axis_of_multiples():
    tables = frames(layers=4)
    drawn = specification_of(tables, "published", "compared")
    assert "Dashed − solid" in json.dumps(drawn, ensure_ascii=False)
    ends = [pl.when(pl.col("variant") == "detailed").then(300.0).otherwise(name).alias(name) for name in VALUES]
    tables["rd_layers"] = tables["rd_layers"].with_columns(ends)
    drawn = specification_of(tables, "published", "compared")
    assert "Dashed / solid," in json.dumps(drawn) and "on a log axis" in drawn["description"]
    axes = [layer["encoding"]["y"] for panel in drawn["concat"][4:8] for layer in panel["layer"][1:]]
    # A small difference beside one of 301 times is seen: it has its place on the same axis.
    for axis in axes:
        assert axis["scale"]["type"] == "log" and axis["scale"]["domain"][0] <= 1 and axis["scale"]["domain"][1] >= 301
    # No log axis holds a multiple of zero.
    zero = tables["rd_layers"].with_columns(pl.lit(-1.0).alias("low"))
    assert compared.by_decades(tables["rd_layers"]) and not compared.by_decades(zero)


@pytest.mark.parametrize("purpose", ["study", "pipeline check"])
def test_a_pipeline_check_is_marked(purpose):
    for key, heading in headings(frames(layers=3, purpose=purpose)).items():
        assert (heading.caption[0] == CHECK) == (purpose == "pipeline check"), key
        assert (heading.facts[0] == "PIPELINE CHECK") == (purpose == "pipeline check"), key
    drawn = as_json(specification_of(frames(layers=3, purpose=purpose), "correct", "panels"))
    assert ("PIPELINE CHECK" in drawn) == (purpose == "pipeline check")


@pytest.mark.parametrize("unfit", [{"purpose": "pipeline check"}, {"n": 19}], ids=["pipeline check", "handful"])
def test_titles_claim_nothing_without_ground(unfit):
    """No number is in a title where the data cannot carry a finding; with the same data that can, one does."""
    for key, heading in headings(frames(layers=4, **unfit)).items():
        assert not any(letter.isdigit() for letter in heading.title), (key, heading.title)
    assert any(letter.isdigit() for letter in headings(frames(layers=4))["correct", "variants"].title)


def test_numbers_read_well():
    shown = [two_digits(value) for value in (27.3, 1.62, 312, 0.99, 9.96, 0)]
    assert shown == ["27", "1.6", "310", "0.99", "10", "0"]
    assert [two_digits(value, "+") for value in (81, -0.42, 12345)] == ["+81", "−0.42", "+12,000"]
    shown = [three_digits(value) for value in (4.4249, 12345.6, 0.00123, -0.5, 0, 1e-9, 0.9997, None, math.nan)]
    assert shown == ["4.42", "12,300", "0.00123", "−0.500", "0", "1.00e−09", "1.00", "–", "–"]


def test_variants_are_ordered_from_fast_to_slow():
    keys = ["natural", "length_1000", "detailed", "length_100", "none", "other", "simplified", "length_500"]
    ordered = ["none", "simplified", "detailed", "natural", "length_100", "length_500", "length_1000", "other"]
    assert names.variants_in_order(keys) == ordered
    assert names.variants_in_order(["length_long", "length_short", "length_medium"])[0] == "length_short"


# Style ---------------------------------------------------------------------------------------------------------------

# Colour blindness as linear-light matrices (Machado, Oliveira and Fernandes 2009, severity 1).
VISION = {
    "usual": np.eye(3),
    "deuteranopia": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    "protanopia": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
}


def lab(colour: str, vision: str) -> np.ndarray:
    """CIE L*a*b* (D65) of a colour as seen with `vision`."""
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(VISION[vision] @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ linear / np.array([0.9505, 1, 1.089]))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize(
    "colours",
    [[theme.COLOURS["projection"][key] for key in "qkvo"], theme.VARIANT_COLOURS[:3]],
    ids=["projections", "variants"],
)
def test_colours_differ_for_every_reader_and_in_grey(colours, vision):
    for one, other in itertools.combinations(colours, 2):
        assert np.linalg.norm(lab(one, vision) - lab(other, vision)) > 20, (one, other)
        assert abs(lab(one, "usual")[0] - lab(other, "usual")[0]) > 10, (one, other)
    assert max(lab(colour, "usual")[0] for colour in colours) < 70


def test_a_variant_keeps_its_look_where_another_is_missing():
    whole, part, other = (
        variant_palette(keys)
        for keys in (["none", "simplified", "detailed"], ["simplified", "detailed"], ["simplified", "natural"])
    )
    assert (part.colours, part.shapes) == (whole.colours[1:], whole.shapes[1:])
    # Another variant has none of their colours.
    assert other.colours == (whole.colours[1], theme.COLOURS["series"]["1"])


def test_fast_to_slow_runs_from_dark_to_light():
    lightness = [lab(colour, "usual")[0] for colour in theme.VARIANT_COLOURS[:3]]
    assert lightness == sorted(lightness)


# Tables --------------------------------------------------------------------------------------------------------------


def test_tables_hold_every_estimate_in_full(statistics, tmp_path):
    dataset = {"key": "gsm8k", "title": "GSM8K", "task": "math"}
    sheets = settings(datasets=[dataset], models=[{"key": "mini", "kind": "base"}])
    done = script("write_tables", "--statistics", str(statistics), *sheets, "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr
    for kind in ("mad", "rd"):
        source = pl.from_arrow(read_table(TABLES[kind], statistics / f"{kind}.parquet"))
        found, csv = tables.read_estimates(tmp_path / f"{kind}.csv")
        assert found == kind and csv.height == source.height
        assert sorted(csv["value"]) == sorted(source["value"])
    assert pl.read_csv(tmp_path / "rd.csv")["top_layers"][0].split(" ")[0].isdigit()
    markdown = (tmp_path / "mad.md").read_text(encoding="utf-8")
    mad = pl.read_csv(tmp_path / "mad.csv").row(0, named=True)
    cell = f"{tables.three_digits(mad['value'])} [{tables.three_digits(mad['low'])}, "
    assert f"| None | Q | {cell}" in markdown
    assert "| Variant | Projection | Early (0–2) | Middle (3–8) | Last (9–11) | All (0–11) | n |" in markdown


def test_missing_numbers_are_empty_or_a_dash(tmp_path):
    rows = statistic_rows(layers=2, n=1)
    rows["mad"] = [{**row, "value": math.nan} for row in rows["mad"]]
    tables.write_tables("mad", [write_statistics(tmp_path / "s", rows)], tmp_path)
    assert "NaN" not in (tmp_path / "mad.csv").read_text()
    assert "| None | Q | – | 1 |" in (tmp_path / "mad.md").read_text()


def test_a_study_without_irrelevant_responses_has_an_empty_rd_table(tmp_path):
    folder = write_statistics(tmp_path / "s", statistic_rows(layers=2, relations=("correct",)))
    tables.write_tables("rd", [folder], tmp_path)
    assert "Nothing to show." in (tmp_path / "rd.md").read_text()
    assert tables.read_estimates(tmp_path / "rd.csv")[1].is_empty()


# The page ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> tuple[Path, str, str]:
    """A page of two datasets: one a study, one a pipeline check with names that try to be markup."""
    base = tmp_path_factory.mktemp("page")
    shapes = {
        "gsm8k": ("GSM8K", statistic_rows(layers=4)),
        "odd": (HOSTILE, statistic_rows(models=("mini", "x&y"), dataset="odd", layers=2, purpose="pipeline check")),
    }
    for key, (title, rows) in shapes.items():
        write_statistics(base / "statistics" / key, rows)
        gallery.draw(base / "statistics" / key, key, title, base / "figures" / key, ["svg"])
    folders = [base / "statistics" / key for key in shapes]
    for kind in ("mad", "rd"):
        tables.write_tables(kind, folders, base)
    write_config(base / "config.yaml", f"title: {HOSTILE}\n\nseed: 0\n")
    arguments = ["--figures", *(str(base / "figures" / key) for key in shapes)]
    arguments += ["--cells", *(str(folder / "cells.parquet") for folder in folders)]
    arguments += ["--tables", str(base / "mad.csv"), str(base / "rd.csv"), "--config", str(base / "config.yaml")]
    done = script("write_atlas", *arguments, "--output", str(base / "index.html"))
    assert done.returncode == 0, done.stderr
    return base, *((base / f"{name}.html").read_text(encoding="utf-8") for name in ("index", "more"))


HOSTILE = """<script>alert("1")</script> & 'x'"""


def test_the_page_escapes_every_text(page):
    for text in page[1:]:
        assert "<script>alert" not in text
        assert text.count("<script>") == 1
        assert "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt; &amp; &#39;x&#39;" in text
        parser = Page()
        parser.feed(text)
        assert HOSTILE in parser.text


def test_the_page_is_whole_and_needs_no_network(page):
    base, text, more = page
    parser, second = Page(), Page()
    parser.feed(text)
    second.feed(more)
    assert not parser.open and not second.open
    images = [attributes for tag, attributes in parser.tags if tag == "img"]
    folders = [base / "figures" / key for key in ("gsm8k", "odd")]
    assert len(images) == sum(len(listing.read_index(folder)["figures"]) for folder in folders) > 20
    for attributes in images:
        assert (base / unquote(attributes["src"])).is_file()
        assert attributes["loading"] == "lazy" and attributes["alt"]
        assert int(attributes["width"]) > 300 and int(attributes["height"]) > 200
    tags = parser.tags + second.tags
    links = [attributes[name] for _, attributes in tags for name in ("src", "href") if name in attributes]
    for link in links:
        assert link.startswith(("#", "data:,")) or (base / unquote(link)).is_file(), link
    assert not re.search(r"url\(|@import|fetch\(", text + more)
    for one in (parser, second):
        ids = [attributes["id"] for _, attributes in one.tags if "id" in attributes]
        assert len(ids) == len(set(ids))


def test_the_page_says_what_was_run(page):
    base, text, more = page
    second = Page()
    second.feed(more)
    for words in ("1a2b3c4d5e6f", "float32", "seed: 0", "each interval: 1000", "No response tokens", "61.5"):
        assert words in second.text, words
    # The header's note, and each figure of the dataset that is a check.
    figures = len(listing.read_index(base / "figures/odd")["figures"])
    assert text.count('<span class="badge">pipeline check</span>') == 1 + figures


class Page(HTMLParser):
    """The tags of a page, its text, and the tags left open."""

    VOID = ("meta", "link", "img", "br", "input")

    def __init__(self):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open)
        self.open.pop()

    def handle_data(self, data):
        self.text += data


# Bad input -----------------------------------------------------------------------------------------------------------


def assert_one_line(call, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_users_error_is_one_line_and_exit_code_2(tmp_path):
    options = ["--dataset", "gsm8k", "--title", "GSM8K", "--formats", "svg", "--output", str(tmp_path / "out")]
    done = script("draw_figures", "--statistics", str(tmp_path / "none"), *options)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "curves.parquet: no such file" in done.stderr
    assert not (tmp_path / "out").exists()


def test_wrong_input_is_named(statistics, tmp_path):
    draw = gallery.draw
    assert_one_line(lambda: draw(statistics, "aqua", "AQuA", tmp_path, ["svg"]), "holds dataset 'gsm8k'")
    assert_one_line(lambda: draw(statistics, "gsm8k", "G", tmp_path, ["svgz"]), "svgz", "did you mean 'svg'")
    assert_one_line(lambda: listing.read_index(tmp_path), "index.json", "draw_figures")
    (tmp_path / "index.json").write_text("{")
    assert_one_line(lambda: listing.read_index(tmp_path), "not a list of figures")
    write_table(tmp_path / "a", pl.DataFrame({"a": [1], "b": [2]}), "A", "", [])
    assert_one_line(lambda: tables.read_estimates(tmp_path / "a.csv"), "neither a MAD nor an RD table")
    assert_one_line(lambda: tables.read_estimates(tmp_path / "b.csv"), "b.parquet: no such file", "write_tables")
    assert list(tmp_path.glob("*.svg")) == []


def test_a_long_title_of_wide_characters_is_drawn(tmp_path):
    """The renderer may cut a label within a character that takes two of its units."""
    chart = alt.Chart(pl.DataFrame({"x": ["\U0001f600" * 60, "b"], "y": [1, 2]})).mark_bar()
    chart = chart.encode(y=alt.Y("x:N").axis(labelLimit=100), x="y:Q").properties(description="Wide")
    files = save(chart, tmp_path / "wide", ["svg", "png"])
    assert set(files) == {"svg", "png"} and (tmp_path / "wide.svg").stat().st_size > 500
