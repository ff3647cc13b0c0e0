"""The further kinds of charts on synthetic statistics: golden records, known numbers, partial input."""

import itertools
import json
import math
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from conftest import call, user_error
from gradatlas.charts import scales, theme
from gradatlas.charts.listing import read_index
from gradatlas.charts.panel import of
from gradatlas.charts.save import as_json
from gradatlas.core.errors import InputError
from gradatlas.figures import family, gallery, heatmaps, layers, panels, relations
from gradatlas.figures import samples as by_sample
from gradatlas.figures.data import Data
from gradatlas.figures.heading import known_intervals
from gradatlas.figures.jobs import Dataset, FigureSettings, OverviewSettings
from gradatlas.statistics import paired
from synthetic import frames, statistic_rows, write_statistics

GOLDEN = Path(__file__).with_name("golden")
SMALL = {"layers": 2, "variants": ("none", "detailed"), "projections": ("q", "v"), "n": 20}
DATASETS = (
    Dataset("gsm8k", "GSM8K"),
    Dataset("popular", "Wiki (popular)", "wiki", "Popular", 25),
    Dataset("unpopular", "Wiki (unpopular)", "wiki", "Unpopular"),
)
LENGTHS = ("length_100", "length_500")


def of_model(tables: dict[str, pl.DataFrame], model: str) -> dict[str, pl.DataFrame]:
    return {name: table.filter(pl.col("model") == model) for name, table in tables.items()}


def across(**options) -> dict[str, pl.DataFrame]:
    """Three datasets' tables, two of them a family."""
    options = {**SMALL, **options}
    variants = {"gsm8k": options.pop("variants"), "popular": LENGTHS, "unpopular": ("natural",)}
    parts = [frames(dataset=name, variants=names, **options) for name, names in variants.items()]
    return {name: pl.concat([part[name] for part in parts]) for name in parts[0]}


def drawn(tables: dict[str, pl.DataFrame], paper_axes: bool = False) -> dict[tuple[str, str], tuple]:
    return {about[:2]: about[2:] for about in gallery.figures_over(Data(tables, datasets=DATASETS), paper_axes)}


def beside(partner: dict[str, pl.DataFrame], own: dict[str, pl.DataFrame], prompts=("", "")) -> list[tuple]:
    """The figures of a model beside its partner."""
    data = Data(own, "GSM8K", partner=partner, prompts=prompts, draws=50)
    return [figure for figure in gallery.figures(Data(own, "GSM8K"), data) if figure[1] == "instructed"]


def specifications() -> dict[str, dict]:
    """One small chart of each kind, checked against the schema of Vega-Lite."""
    tables = frames(**SMALL, relations=("correct", "published", "shuffled"))
    listed = {about[:2]: about[3] for about in gallery.figures(Data(tables, "GSM8K"))}
    pair = frames(**SMALL, models=("mini", "random"), relations=("correct",))
    instructed_ = beside(of_model(pair, "mini"), of_model(pair, "random"))
    heat = drawn(across())
    charts_ = {
        "samples": listed["published", "samples"],
        "relations": listed["all", "relations"],
        "instructed": instructed_[0][3],
        "mad": heat["correct", "mad"][1],
        "steps": heat["correct", "steps"][1],
        "rd": heat["published", "rd"][1],
        "differences": heat["published", "differences"][1],
    }
    return {kind: chart().to_dict() for kind, chart in charts_.items()}


def test_charts_are_their_golden_records():
    """`UPDATE_GOLDEN=1 pytest tests/test_charts_kinds.py` rewrites the records; look at the charts before a commit."""
    for kind, specification in specifications().items():
        golden = GOLDEN / f"{kind}.vl.json"
        if os.environ.get("UPDATE_GOLDEN"):
            golden.write_text(as_json(specification), encoding="utf-8")
        assert as_json(specification) == golden.read_text(encoding="utf-8"), kind


# Base against instructed ---------------------------------------------------------------------------------------------


def test_a_ratio_and_its_interval_are_those_of_the_two_curves():
    tables = frames(layers=3, models=("mini", "random"), relations=("correct",), projections=("q",))
    base, other = (of_model(tables, name)["curves"] for name in ("mini", "random"))
    for row in paired.ratios(base, other).to_dicts():
        key = [pl.col(name) == row[name] for name in ("variant", "projection", "statistic", "layer")]
        one, two = base.filter(*key).row(0, named=True), other.filter(*key).row(0, named=True)
        assert row["value"] == pytest.approx(two["value"] / one["value"])
        errors = [math.log(each["high"] / each["low"]) / 2 for each in (one, two)]
        assert math.log(row["high"] / row["value"]) == pytest.approx(math.hypot(*errors))
        assert math.log(row["value"] / row["low"]) == pytest.approx(math.hypot(*errors))


def test_an_end_that_is_not_positive_gives_no_interval():
    tables = frames(layers=2, models=("mini", "random"), relations=("correct",), projections=("q",))
    base, other = (of_model(tables, name)["curves"] for name in ("mini", "random"))
    found = paired.ratios(base.with_columns(pl.lit(-0.1).alias("low")), other)
    assert found["low"].null_count() == found["high"].null_count() == found.height > 0
    assert found["value"].null_count() == 0


def test_a_pair_is_called_by_its_models_and_different_prompts_are_in_the_title():
    tables = frames(layers=3, models=("mini", "random"), relations=("correct",), projections=("q",), n=30)
    pair = of_model(tables, "mini"), of_model(tables, "random")
    found = {}
    for forms in (("plain", "plain"), ("plain", "chat"), ("chat", "plain")):
        ((*_, heading, chart),) = beside(*pair, forms)
        found[forms] = heading.title, " ".join(heading.paragraphs)
        assert "nstructed" not in json.dumps(chart().to_dict(), ensure_ascii=False)
    assert found["plain", "plain"][0].startswith("Mean gradients of random against mini: larger in ")
    assert "prompts" not in " ".join(found["plain", "plain"])
    assert found["plain", "chat"][0].startswith("Mean gradients of random (chat prompts) against mini (plain prompts):")
    assert "random chat ones and mini plain ones" in found["plain", "chat"][1]
    assert "random (plain prompts) against mini (chat prompts)" in found["chat", "plain"][0]


def test_models_of_one_title_are_distinguished(tmp_path):
    rows = statistic_rows(models=("a", "b"), layers=3, relations=("correct",), projections=("q",), n=25)
    folder = write_statistics(tmp_path / "statistics", rows)
    titles = {"a": "Mine", "b": "Mine"}
    gallery.draw(
        folder,
        "gsm8k",
        "GSM8K",
        tmp_path / "out",
        ["vl.json"],
        FigureSettings(model_titles=titles, partners={"b": "a"}),
    )
    figures = read_index(tmp_path / "out")["figures"]
    (beside,) = (each for each in figures if each["kind"] == "instructed")
    assert beside["title"].startswith("Mean gradients of Mine (b) and Mine (a): no clear difference")


def test_paired_intervals_know_that_the_samples_are_the_same():
    """Each sample's gradient is 1.3 times as large: the paired interval is a point, whatever the spread."""
    tables = frames(layers=2, models=("mini", "random"), relations=("correct",), projections=("q", "v"), n=30)
    base, other = (of_model(tables, name)["per_sample"] for name in ("mini", "random"))
    rows = paired.relative_differences(base, other, 100, 0)
    for name in ("value", "low", "high"):
        assert rows[name].to_list() == pytest.approx([0.3] * 6)
    shifted = other.with_columns(pl.col("nuclear_norm").reverse().over("variant", "projection"))
    apart = paired.relative_differences(base, shifted, 100, 0)
    assert (apart["high"] - apart["low"]).min() > 0.05
    few = paired.relative_differences(base.filter(pl.col("sample_id") < "s2"), other, 100, 0)
    assert set(few["n"]) == {base.filter(pl.col("sample_id") < "s2")["sample_id"].n_unique()}


def test_models_without_a_common_variant_are_not_compared():
    base = frames(**{**SMALL, "variants": ("none",)}, relations=("correct",))
    other = frames(**{**SMALL, "variants": ("detailed",)}, relations=("correct",), models=("random",))
    assert beside(base, other) == []


# Distributions -------------------------------------------------------------------------------------------------------


def test_a_density_is_the_plain_sum_of_kernels():
    values = np.sort(np.random.default_rng(0).normal(size=40))
    grid, density = by_sample.kernel_density(values)
    quartiles = np.quantile(values, [0.25, 0.75])
    bandwidth = 0.9 * min(values.std(), (quartiles[1] - quartiles[0]) / 1.34) * 40**-0.2
    plain = [sum(math.exp(-(((x - value) / bandwidth) ** 2) / 2) for value in values) for x in grid]
    assert density == pytest.approx(np.array(plain) / max(plain))
    assert (grid[0], grid[-1], density.max()) == (values[0], values[-1], 1)
    assert np.isfinite(by_sample.kernel_density(np.zeros(20))[1]).all()


def test_the_title_counts_the_samples_whose_wrong_response_has_the_larger_gradient():
    tables = frames(**{**SMALL, "n": 40}, relations=("correct", "published"))
    samples = tables["per_sample"]
    leans = known_intervals(paired.leans(samples, "published"))
    assert leans.height == 4 and (leans["low"] > 0).all()
    title = by_sample.heading(Data(tables, "GSM8K", "published")).title
    assert title.endswith("against correct ones: larger in 4 of 4 variants and projections")
    # Half of them turned around in None: no lean.
    half = pl.col("sample_id").str.slice(1).cast(pl.Int32) < 20
    turned = (pl.col("variant") == "none") & (pl.col("relation") == "published") & half
    samples = samples.with_columns(pl.when(turned).then(1e-3).otherwise("nuclear_norm").alias("nuclear_norm"))
    title = by_sample.heading(Data(tables | {"per_sample": samples}, "GSM8K", "published")).title
    assert title.endswith("larger in 2 of 4 variants and projections")


def test_few_samples_are_drawn_one_by_one_and_claimed_nothing_of():
    data = Data(frames(**{**SMALL, "n": 5}, relations=("correct", "published")), "GSM8K", "published")
    heading = by_sample.heading(data)
    assert (
        heading.title == "Gradients sample by sample"
        and "n = 5" in heading.line
        and "None (answer only) 5, Detailed 5." in heading.caption[0]
    )
    text = as_json(by_sample.chart(data, heading).to_dict())
    assert '"tick"' in text and '"area"' not in text


def test_values_that_a_log_axis_cannot_hold_are_counted():
    tables = frames(**SMALL, relations=("correct",))
    samples = tables["per_sample"].with_columns(
        pl.when(pl.col("sample_id") == "s0").then(0.0).otherwise("nuclear_norm").alias("nuclear_norm")
    )
    data = Data(tables | {"per_sample": samples}, "GSM8K", "correct")
    heading = by_sample.heading(data)
    assert "4 values are not positive and are left out." in " ".join(heading.paragraphs)
    by_sample.chart(data, heading).to_dict()
    nothing = samples.with_columns(pl.lit(0.0).alias("nuclear_norm"))
    data = Data(tables | {"per_sample": nothing}, "GSM8K", "correct")
    assert "no samples" in as_json(by_sample.chart(data, heading).to_dict())


# All relations -------------------------------------------------------------------------------------------------------


def test_the_overview_of_relations_says_which_differ_clearly():
    tables = frames(**SMALL, relations=("correct", "published", "shuffled"))
    rd = tables["rd"]
    same = pl.col("relation") == "shuffled"
    rd = rd.with_columns(pl.when(same).then(-0.1).otherwise("low").alias("low"))
    title = relations.heading(Data(tables | {"rd": rd}, "GSM8K")).title
    assert title.endswith("against correct ones: larger in 4 of 8 kinds, variants and projections")
    few = rd.with_columns(pl.lit(5).alias("n"))
    assert relations.heading(Data(tables | {"rd": few}, "GSM8K")).title == "Kinds of responses against correct ones"


def test_two_relations_need_no_overview():
    kinds = {about[1] for about in gallery.figures(Data(frames(**SMALL), "GSM8K"))}
    assert "relations" not in kinds and "compared" in kinds


# Across datasets -----------------------------------------------------------------------------------------------------


def test_steps_are_the_differences_whose_mean_is_mad():
    tables = across(layers=5)
    steps = heatmaps.curve_steps(tables["curves"].filter(pl.col("statistic") == "nuclear_norm"))
    keys = ["dataset", "variant", "relation", "projection"]
    means = steps.group_by(keys).agg(pl.col("value").mean().alias("mean"), pl.len())
    mad = tables["mad"].filter((pl.col("segment") == "all") & (pl.col("statistic") == "nuclear_norm"))
    both = mad.join(means, on=keys)
    assert both.height == mad.height and set(both["len"]) == {4}
    assert both["mean"].to_list() == pytest.approx(both["value"].to_list())


def test_datasets_of_a_family_or_with_a_common_variant_are_together():
    data = Data({}, datasets=DATASETS)
    mad = across()["mad"]
    groups = heatmaps.groups_of(mad, data)
    assert groups == [(["gsm8k"], ["none", "detailed"]), (["popular", "unpopular"], ["natural", *LENGTHS])]
    alone = Data({}, datasets=tuple(Dataset(each.key, each.title) for each in DATASETS))
    assert [keys for keys, _ in heatmaps.groups_of(mad, alone)] == [["gsm8k"], ["popular"], ["unpopular"]]


def test_heatmaps_count_what_is_clear():
    figures = drawn(across())
    assert figures["correct", "mad"][0].title == (
        "MAD of None against Detailed: larger in 2 of 2 datasets and projections"
    )
    assert figures["published", "rd"][0].title.endswith("against correct ones: larger in 10 of 10 cells")
    text = as_json(figures["published", "rd"][1]().to_dict())
    assert '"text": "+' in text and '"text": "(' not in text


def test_numbers_whose_interval_holds_zero_are_in_brackets():
    tables = across()
    tables["rd"] = tables["rd"].with_columns(pl.lit(-0.5).alias("low"), pl.lit(9.0).alias("high"))
    heading, chart = drawn(tables)["published", "rd"]
    assert heading.title.endswith("correct ones: no clear difference")
    assert '"text": "(+' in as_json(chart().to_dict())


def test_a_dataset_that_is_missing_is_named():
    tables = {name: table.filter(pl.col("dataset") != "unpopular") for name, table in across().items()}
    figures = drawn(tables)
    assert "Not measured: Wiki (unpopular)." in " ".join(figures["correct", "mad"][0].paragraphs)
    # One of a family alone is no family.
    assert ("correct", "wiki_panels") not in figures


def test_one_layer_has_no_steps_and_no_mad():
    figures = drawn(across(layers=1))
    assert ("correct", "steps") not in figures and ("correct", "mad") not in figures and figures
    for _, draw in figures.values():
        draw().to_dict()


@pytest.mark.parametrize("unfit", [{"purpose": "pipeline check"}, {"n": 19}], ids=["pipeline check", "handful"])
def test_no_title_claims_anything_without_ground(unfit):
    for key, (heading, _) in drawn(across(**unfit)).items():
        assert not any(letter.isdigit() for letter in heading.title), (key, heading.title)
        checked = any("PIPELINE CHECK" in line for line in heading.paragraphs)
        assert checked == ("purpose" in unfit), key


def test_left_out_samples_are_reported_across_datasets():
    """Of two lost samples of each variant: in sum by dataset, and in a family by variant."""
    figures = drawn(across())
    for kind in ("mad", "steps"):
        stated = " ".join(figures["correct", kind][0].paragraphs)
        assert "Left out: GSM8K 4 of 44 (4 no response tokens); Wiki (popular) 4 of 44" in stated
    # A difference is of two relations.
    assert "GSM8K 8 of 88 (8 no response tokens)" in " ".join(figures["published", "rd"][0].paragraphs)
    for kind in ("wiki_panels", "wiki_variants"):
        stated = " ".join(figures["correct", kind][0].paragraphs)
        assert "Length 500 2 of 22 (2 no response tokens); Unpopular 2 of 22" in stated and "GSM8K" not in stated
    tables = across()
    tables["cells"] = tables["cells"].with_columns(n_ok="n", n_no_response_tokens=0)
    assert not any("Left out" in " ".join(heading.paragraphs) for heading, _ in drawn(tables).values())


def test_right_labels_are_reported_across_datasets():
    tables = across()
    right = (pl.col("relation") == "published") & (pl.col("dataset") == "popular")
    column = pl.when(right).then(pl.col("n_labelled")).otherwise("n_label_equals_gold")
    tables["cells"] = tables["cells"].with_columns(n_label_equals_gold=column.cast(pl.Int32))
    for (relation, kind), (heading, _) in drawn(tables).items():
        found = "RIGHT LABELS AMONG THE WRONG of Wiki (popular)." in heading.paragraphs
        assert found == (relation == "published"), kind


def test_a_family_is_named_and_ordered_by_its_members():
    tables = across()
    chart = drawn(tables)["correct", "wiki_panels"][1]().to_dict()
    titles = [panel["title"]["text"] for panel in chart["concat"] if "title" in panel]
    assert titles == ["Length 100", "Length 500", "Unpopular"]


def test_a_family_is_drawn_of_its_members_rows_as_one_dataset():
    tables = across()
    joined = family.families(Data(tables, relation="correct", datasets=DATASETS), False)["wiki"].of("curves")
    # Their records are those of panels and variants.
    assert family.PANELS.chart is panels.chart and family.VARIANTS.chart is layers.chart
    for name, dataset, variant in (
        ("Length 100", "popular", "length_100"),
        ("Length 500", "popular", "length_500"),
        ("Unpopular", "unpopular", "natural"),
    ):
        own = of(tables["curves"], dataset=dataset, variant=variant, relation="correct")
        assert own.height and of(joined, variant=name).drop("variant").equals(own.drop("variant"))
    assert joined["variant"].n_unique() == 3


def test_two_runs_write_the_same_bytes(tmp_path):
    folders = []
    for each, variants in zip(DATASETS, (SMALL["variants"], LENGTHS, ("natural",)), strict=True):
        rows = statistic_rows(**{**SMALL, "variants": variants}, dataset=each.key)
        folders.append(write_statistics(tmp_path / each.key, rows))
    for name in ("one", "two"):
        gallery.draw_overview(folders, OverviewSettings(list(DATASETS)), tmp_path / name, ["vl.json", "svg"])
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) == 3 * len(read_index(tmp_path / "one")["figures"]) + 1 and files == sorted(
        path.name for path in (tmp_path / "two").iterdir()
    )
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


# The study's own axes ------------------------------------------------------------------------------------------------


def test_paper_axes_are_the_studys_and_say_what_they_cut_off():
    assert panels.paper_tops(["none", "detailed"]) == {"none": 100, "detailed": 30}
    assert panels.paper_tops(["simplified"], 25) == {"simplified": 25}
    tables = frames(layers=4)
    tops = panels.paper_tops(["none", "simplified", "detailed"])
    figures = {about[:2]: about[2:] for about in gallery.figures(Data(tables, "GSM8K", tops=tops))}
    heading, draw = figures["correct", "panels"]
    values = tables["curves"].filter((pl.col("relation") == "correct") & (pl.col("statistic") != "effective_rank"))
    tops = {"none": 100, "simplified": 30, "detailed": 30}
    cut = sum(
        row["value"] > (0.6 if row["statistic"] == "sigma_ratio" else tops[row["variant"]]) for row in values.to_dicts()
    )
    assert cut > 0 and f"The study’s own axes: {cut} of {values.height} means lie beyond them" in " ".join(
        heading.paragraphs
    )
    drawn_panels = draw().to_dict()["concat"]
    ends = [layer["encoding"]["y"]["scale"]["domain"] for panel in drawn_panels for layer in panel["layer"]]
    assert {end[1] for end in ends} == {100, 30, 0.6}
    # Marks are left out beyond the axis and whole at its ends; curves and bands are cut.
    for layer in (layer for panel in drawn_panels for layer in panel["layer"]):
        top = layer["encoding"]["y"]["scale"]["domain"][1]
        if layer["mark"]["type"] == "point":
            assert layer["transform"] == [{"filter": f"datum.value >= 0 && datum.value <= {top}"}]
        else:
            assert layer["mark"]["clip"]
    plain = {about[:2]: about[2] for about in gallery.figures(Data(tables, "GSM8K"))}
    assert "own axes" not in " ".join(plain["correct", "panels"].paragraphs)


@pytest.mark.parametrize("signed", [True, False])
def test_numbers_stand_out_from_every_colour_of_a_heatmap(signed):
    palette = theme.DIVERGING if signed else theme.SEQUENTIAL
    kind, ends = heatmaps.ramp(pl.Series([-0.95, 19.0] if signed else [0.01, 50.0]), signed)
    for value, code in zip(ends, palette, strict=True):
        white = abs(value) > heatmaps.dark_from(kind, ends, signed)
        one, other = sorted((luminance(code), luminance("#ffffff" if white else theme.INK)))
        assert (other + 0.05) / (one + 0.05) > 4, code


# Files ---------------------------------------------------------------------------------------------------------------


def test_a_pdf_is_one_and_pages_of_single_figures_are_gone(tmp_path):
    rows = statistic_rows(**SMALL, relations=("correct",))
    folder = write_statistics(tmp_path / "statistics", rows)
    arguments = ("--statistics", folder, "--dataset", "gsm8k", "--title", "</script>", "--output", tmp_path / "a/gsm8k")
    done = call("draw_figures", *arguments, "--formats", "svg", "html")
    assert "--formats html: no such format" in user_error(done) and not (tmp_path / "a").exists()
    done = call("draw_figures", *arguments, "--formats", "svg", "pdf")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a/gsm8k/mini.correct.panels.pdf").read_bytes().startswith(b"%PDF-")


def test_what_a_model_cannot_do_is_reported_across_datasets():
    tables, line = across(), "NOT ALL MASTERED by this model: GSM8K (cannot do this task)."
    for *_, heading, _ in gallery.figures_over(Data(tables, datasets=DATASETS, notes=(line,))):
        assert heading.paragraphs[-1] == line


def test_an_overview_of_nothing_is_an_error(tmp_path):
    rows = statistic_rows(**SMALL)
    folder = write_statistics(tmp_path, {**rows, "curves": []})
    with pytest.raises(InputError, match="nothing to draw"):
        gallery.draw_overview([folder], OverviewSettings([*DATASETS[:1]]), tmp_path / "out", ["svg"])


# Style ---------------------------------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return sum(part * weight for part, weight in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))


def test_ramps_darken_from_small_to_large_in_grey_too():
    ramps = [theme.SEQUENTIAL, theme.DIVERGING[3:], theme.DIVERGING[3::-1]]
    for ramp in ramps:
        for lighter, darker in itertools.pairwise(ramp):
            assert luminance(lighter) > luminance(darker)


def test_log_axes_of_any_values_hold_them():
    rng = np.random.default_rng(1)
    for _ in range(200):
        values = (10 ** rng.uniform(-4, 4, rng.integers(1, 9))).tolist()
        scale = scales.logarithmic(values, 5)
        assert scale.low <= min(values) and max(values) <= scale.high and scale.low < scale.high
        assert all(scale.low <= tick <= scale.high for tick in scale.ticks)
        # Within a decade the renderer's ticks are good.
        assert scale.ticks or scale.high / scale.low < scales.DECADE
    assert scales.logarithmic([], 5).kind == "log"
    alike = scales.logarithmic([0.3, 0.1 + 0.2], 5)
    assert alike.low < 0.2 and alike.high > 0.5
