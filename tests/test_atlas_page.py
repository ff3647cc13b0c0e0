"""The atlas in a real browser: every control, by mouse and by keyboard, light and dark, wide and narrow."""

import random
import re
from pathlib import Path

import polars as pl
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from benchmarks.chromium import chromium, installed, settled
from conftest import write_config
from gradatlas.charts import listing
from gradatlas.charts.names import label, statistic_label
from gradatlas.claims.tables import CLAIMS
from gradatlas.core.tables import write_table
from gradatlas.data.tables import RESPONSES
from gradatlas.figures import gallery, tables
from gradatlas.page.page import write_atlas
from synthetic import statistic_rows, write_statistics
from test_atlas import HOSTILE, claim_rows, response_rows, sample_rows, second_study

pytestmark = pytest.mark.skipif(
    not installed(), reason="needs Chromium and chromedriver: apt-get install chromium chromium-driver"
)

TITLES = {"gsm8k": "GSM8K", "odd": HOSTILE}
TWIN = statistic_rows(models=("twin",), layers=20)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Two models, of 6 and of 20 layers, and two datasets; the second has one layer, one model and no texts."""
    base = tmp_path_factory.mktemp("page")
    shapes = {
        "gsm8k": {name: rows + TWIN[name] for name, rows in statistic_rows(layers=6).items()},
        "odd": statistic_rows(dataset="odd", layers=1, relations=("correct",), purpose="pipeline check"),
    }
    for key, rows in shapes.items():
        write_statistics(base / key, {**rows, "per_sample_layers": sample_rows(rows)})
        gallery.draw(base / key, key, TITLES[key], base / "figures" / key, ["svg"])
    write_table(RESPONSES, response_rows(sample_rows(shapes["gsm8k"])), base / "responses.parquet", {})
    # As many datasets and models as the default study has.
    claims = claim_rows(("mini", "twin", "random"))
    for i in range(4):
        claims += claim_rows(("mini", "mini_instruct", "mini_random"), f"biographies_{i}", ("length",))
    write_table(CLAIMS, claims, base / "claims.parquet", {})
    for kind in ("mad", "rd"):
        tables.write_tables(kind, [base / key for key in shapes], base)
    write_config(base / "config.yaml")
    write_atlas(
        [base / "figures" / key for key in shapes],
        [base / key / "cells.parquet" for key in shapes],
        [base / "mad.csv", base / "rd.csv"],
        base / "config.yaml",
        base / "index.html",
        curves=[base / key / "curves.parquet" for key in shapes],
        sample_layers=[base / key / "per_sample_layers.parquet" for key in shapes],
        responses=[base / "responses.parquet"],
        claims=base / "claims.parquet",
        **second_study(base),
    )
    return base / "index.html"


@pytest.fixture(scope="module")
def wide(page):
    """A desktop's browser, for the whole module: starting one for each test would take longer than the tests."""
    with chromium() as browser:
        yield browser
        quiet(browser)


@pytest.fixture
def browser(wide, page):
    """That browser with the page afresh; at the end nothing was complained of and nothing fetched."""
    wide.get(page.as_uri())
    settled(wide)
    yield wide
    quiet(wide)


def quiet(browser):
    """No message on the console, and no request but for files beside the page and what the page itself holds."""
    assert browser.get_log("browser") == []
    messages = [entry["message"] for entry in browser.get_log("performance")]
    sent = [message for message in messages if "requestWillBeSent" in message]
    urls = [url for message in sent for url in re.findall(r'"url":"(\w+):', message)]
    assert set(urls) <= {"file", "data", "blob"}, set(urls)


def find(browser, css):
    return browser.find_element(By.CSS_SELECTOR, css)


def all_of(browser, css):
    return browser.find_elements(By.CSS_SELECTOR, css)


def choose(browser, name, titles):
    """Tick exactly these of one row of choices."""
    for chip in all_of(browser, f"#choices label.chip:has([name={name}])"):
        if find(chip, "input").is_selected() != (chip.text in titles):
            chip.click()


def enter(browser, css, value):
    """Type a value and leave the field."""
    find(browser, css).send_keys(Keys.CONTROL, "a", Keys.NULL, str(value), Keys.TAB)
    settled(browser)


def rows_of(browser, css):
    """A table's rows as dicts of text by column."""
    script = """
      const table = document.querySelector(arguments[0]), text = (cells) => [...cells].map((cell) => cell.textContent);
      return [text(table.tHead.rows[0].cells), [...table.tBodies[0].rows].map((row) => text(row.cells))];
    """
    header, rows = browser.execute_script(script, css)
    return [dict(zip(header, row, strict=True)) for row in rows]


def number(text):
    return float(text.replace(",", "").replace("−", "-"))


def body(browser):
    return find(browser, "#detail-body").text


# What it shows -------------------------------------------------------------------------------------------------------


def test_fifty_random_cells_are_those_of_the_tables(browser, page):
    """Chosen by the page's own controls; a cell is a value with its interval, or a sample's value over some layers."""
    chance = random.Random(20261121)
    frames = {
        name: pl.concat([pl.read_parquet(page.parent / key / f"{name}.parquet") for key in TITLES]).sort(
            pl.col(pl.Utf8)
        )
        for name in ("curves", "per_sample_layers")
    }
    for name, count in (("curves", 25), ("per_sample_layers", 25)):
        frame = frames[name]
        for _ in range(count):
            row = frame.row(chance.randrange(frame.height), named=True)
            metric = row.get("statistic") or chance.choice(["nuclear_norm", "sigma_ratio", "effective_rank"])
            choose(browser, "datasets", [TITLES[row["dataset"]]])
            choose(browser, "models", [row["model"]])
            choose(browser, "variants", [label(row["variant"])])
            choose(browser, "relations", [label(row["relation"])])
            choose(browser, "projections", [label(row["projection"])])
            Select(find(browser, "[name=metric]")).select_by_visible_text(statistic_label(metric))
            settled(browser)
            if name == "curves":
                enter(browser, "#layer-from", row["layer"])
                enter(browser, "#layer-to", row["layer"])
                (found,) = rows_of(browser, "#values")
                assert number(found["Value"]) == float(f"{row['value']:.3e}")
                ends = [number(text) for text in found["95 % interval"].split(" to ")]
                assert ends == [float(f"{row[end]:.3e}") for end in ("low", "high")]
                assert number(found["n"]) == row["n"]
                assert found["Model"] == row["model"] and found["Dataset"] == TITLES[row["dataset"]]
            else:
                ends = sorted(chance.choices(range(len(row[metric])), k=2))
                enter(browser, "#layer-from", ends[0])
                enter(browser, "#layer-to", ends[1])
                (found,) = (r for r in rows_of(browser, "#sample-list") if r["Sample"] == row["sample_id"])
                titles = {"nuclear_norm": "Nuclear norm", "effective_rank": "Effective rank"}
                near(number(found[titles.get(metric, "σ max / nuclear norm")]), layers_mean(row[metric], ends))
                assert number(found["Loss"]) == float(f"{row['loss']:.2e}")
                assert number(found["Tokens"]) == row["response_tokens"]


def layers_mean(values, ends):
    """The mean over the groups of layers that these layers touch: 20 layers are 4 groups of 3 and 4 of 2."""
    groups = [[i] for i in range(6)] if len(values) <= 8 else [list(range(3 * i, 3 * i + 3)) for i in range(4)]
    groups += [[12 + 2 * i, 13 + 2 * i] for i in range(4)] if len(values) > 8 else []
    inside = [layer for group in groups for layer in group if ends[0] <= group[-1] and group[0] <= ends[1]]
    taken = [values[layer] for layer in inside if layer < len(values)]
    return sum(taken) / len(taken)


def near(shown, wanted):
    """The page's three digits of a number that is off by less than .1 %."""
    low, high = (float(f"{wanted * (1 + side * 0.001):.2e}") for side in (-1, 1))
    assert low <= shown <= high, (shown, wanted)


def test_a_sample_shows_its_text_as_text(browser):
    find(browser, "[aria-label='Read sample gsm8k/0']").click()
    assert find(browser, "#detail-title").text == "Sample gsm8k/0"
    texts = [quote.get_property("textContent") for quote in all_of(browser, "#detail blockquote")]
    assert texts[0] == f"Question gsm8k/0: {HOSTILE}"
    assert f"Answer {HOSTILE} detailed published" in texts and len(texts) == 7
    assert all(quote.get_attribute("dir") == "auto" for quote in all_of(browser, "#detail blockquote"))
    assert not all_of(browser, "#detail script")
    assert "loss " in body(browser) and "tokens" in body(browser)


def test_a_sample_without_a_text_says_where_it_stands(browser):
    choose(browser, "datasets", [HOSTILE])
    settled(browser)
    assert "pipeline check" in find(browser, "#curves-about").text
    all_of(browser, "#sample-list button")[0].click()
    assert "results/responses/odd.parquet" in body(browser)
    find(browser, "#detail form button").click()
    # Its other model was not measured.
    choose(browser, "models", ["twin"])
    settled(browser)
    assert "Nothing was measured for this choice" in find(browser, "#curves-about").text
    assert rows_of(browser, "#values") == []


def test_verdicts_open_with_their_numbers(browser):
    links = all_of(browser, "a.verdict")
    words = {link: link.get_property("textContent") for link in links}
    assert sorted(set(words.values())) == ["? inconclusive", "✓ holds", "✗ fails"]
    assert all(link.get_attribute("title") in words[link] for link in links)
    next(link for link in links if "inconclusive" in words[link]).click()
    for words in ("12.3 [10.1, 14.8]", "0.0456", "the interval reaches over 10", "section 4", "MAD ratio", "200"):
        assert words.casefold() in body(browser).casefold(), words
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert find(browser, "#detail").get_attribute("open") is None
    assert "MAD none detailed" in find(browser, "#claims").text


# Each control --------------------------------------------------------------------------------------------------------


def test_choices_draw_what_they_say(browser):
    assert len(rows_of(browser, "#values")) == 12
    choose(browser, "models", ["mini", "twin"])
    choose(browser, "relations", ["Correct", "Published"])
    choose(browser, "projections", ["V"])
    choose(browser, "variants", ["None", "Detailed"])
    settled(browser)
    rows = rows_of(browser, "#values")
    assert len(rows) == 2 * 2 * 2
    assert {(r["Model"], r["Variant"], r["Responses"], r["Projection"]) for r in rows} == {
        (model, variant, relation, "V")
        for model in ("mini", "twin")
        for variant in ("None", "Detailed")
        for relation in ("Correct", "Published")
    }
    assert [option.text for option in Select(find(browser, "#panel")).options] == [
        "GSM8K · mini · V",
        "GSM8K · twin · V",
    ]
    for name in ("datasets", "models", "variants", "relations", "projections"):
        choose(browser, name, [])
        settled(browser)
        assert "Choose at least one" in find(browser, "#curves-about").text
        chips = all_of(browser, f"#choices label.chip:has([name={name}])")
        chips[0].click()
        settled(browser)
        assert rows_of(browser, "#values")


def test_layers_by_number_and_by_brush(browser, page):
    enter(browser, "#layer-from", 2)
    enter(browser, "#layer-to", 3)
    found = next(row for row in rows_of(browser, "#values") if (row["Projection"], row["Variant"]) == ("Q", "None"))
    table = pl.read_parquet(page.parent / "gsm8k/curves.parquet").filter(
        model="mini", relation="correct", variant="none", projection="q", statistic="nuclear_norm"
    )
    mean = table.filter(pl.col("layer").is_between(2, 3))["value"].mean()
    assert number(found["Value"]) == pytest.approx(mean, rel=1e-3) and found["95 % interval"] == "–"
    # The end that was typed wins, and none leaves the model.
    enter(browser, "#layer-from", 99)
    assert [find(browser, f"#layer-{end}").get_property("value") for end in ("from", "to")] == ["5", "5"]
    find(browser, "#all-layers").click()
    settled(browser)
    assert [find(browser, f"#layer-{end}").get_property("value") for end in ("from", "to")] == ["0", "5"]
    canvas = find(browser, "#curves-chart canvas")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    width = canvas.size["width"]
    # Within the first panel, from its middle to the right.
    drag(browser, canvas, (-0.36 * width, 0), (0.06 * width, 0))
    wait_for(lambda: find(browser, "#layer-from").get_property("value") != "0")
    ends = [int(find(browser, f"#layer-{end}").get_property("value")) for end in ("from", "to")]
    assert 0 < ends[0] <= ends[1] < 6
    assert f"{ends[0]}" in find(browser, "#values caption").text


def test_brushed_layers_reach_the_samples(browser, page):
    """By the mouse over a panel of curves: the distribution, its table and a sample's text are those layers' means."""
    frame = pl.read_parquet(page.parent / "gsm8k/per_sample_layers.parquet").filter(
        model="mini", relation="correct", projection="q"
    )
    before = {(r["Sample"], r["Responses"]): r["Nuclear norm"] for r in rows_of(browser, "#sample-list")}
    assert "means over all layers" in find(browser, "#sample-list caption").text
    enter(browser, "#value-from", 0)
    canvas = find(browser, "#curves-chart canvas")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    width = canvas.size["width"]
    drag(browser, canvas, (-0.36 * width, 0), (0.06 * width, 0))
    wait_for(lambda: find(browser, "#layer-from").get_property("value") != "0")
    settled(browser)
    ends = [int(find(browser, f"#layer-{end}").get_property("value")) for end in ("from", "to")]
    layers = f"layer {ends[0]}" if ends[0] == ends[1] else f"layers {ends[0]} to {ends[1]}"
    assert f"means over {layers}" in find(browser, "#sample-list caption").text
    assert f"mean over {layers}: a dot" in find(browser, "#samples-about").text
    # A range of other layers' values was let go.
    assert find(browser, "#value-from").get_property("value") == ""
    wanted = {
        (row["sample_id"], f"{label(row['variant'])}, correct"): layers_mean(row["nuclear_norm"], ends)
        for row in frame.to_dicts()
    }
    rows = rows_of(browser, "#sample-list")
    assert len(rows) == 90
    for row in rows:
        near(number(row["Nuclear norm"]), wanted[row["Sample"], row["Responses"]])
    changed = sum(before[row["Sample"], row["Responses"]] != row["Nuclear norm"] for row in rows)
    assert changed > 80
    find(browser, "#sample-list button").click()
    assert f"means over {layers}." in body(browser) and rows[0]["Nuclear norm"] in body(browser)


def test_a_deep_model_by_groups_of_layers(browser):
    """A model's last layer may be another's sixth; values stored by groups of layers are marked."""
    choose(browser, "models", ["mini", "twin"])
    settled(browser)
    enter(browser, "#layer-from", 7)
    enter(browser, "#layer-to", 13)
    assert "no layer (this model’s last is 5)" in find(browser, "#samples-about").text
    assert rows_of(browser, "#sample-list") == []
    Select(find(browser, "#panel")).select_by_visible_text("GSM8K · twin · Q")
    settled(browser)
    about = find(browser, "#samples-about").text
    assert "mean over layers 6 to 13: " in about and "stored by groups of layers" in about
    enter(browser, "#layer-from", 6)
    assert "stored by groups" not in find(browser, "#samples-about").text


def drag(browser, element, start, by):
    moves = ActionChains(browser).move_to_element_with_offset(element, *map(int, start)).click_and_hold()
    moves.move_by_offset(*map(int, by)).move_by_offset(1, 0).release().perform()


def wait_for(condition, tries=100):
    import time

    for _ in range(tries):
        if condition():
            return
        time.sleep(0.03)
    raise AssertionError("did not come to pass")


def test_a_curve_leads_to_its_samples_and_a_dot_to_its_text(browser):
    browser.execute_script(WATCH)
    find(browser, "#all-layers").click()
    settled(browser)
    canvas = find(browser, "#curves-chart canvas")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    point = mark_at(browser, "curves-chart", "V")
    ActionChains(browser).move_to_element_with_offset(canvas, *offset(canvas, point)).click().perform()
    wait_for(lambda: Select(find(browser, "#panel")).first_selected_option.text == "GSM8K · mini · V")
    settled(browser)
    canvas = find(browser, "#samples-chart canvas")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    point = mark_at(browser, "samples-chart", None)
    ActionChains(browser).move_to_element_with_offset(canvas, *offset(canvas, point)).click().perform()
    wait_for(lambda: find(browser, "#detail").get_attribute("open"))
    assert find(browser, "#detail-title").text.startswith("Sample gsm8k/")


def offset(canvas, point):
    return round(point[0] - canvas.size["width"] / 2), round(point[1] - canvas.size["height"] / 2)


WATCH = """
  const embed = vegaEmbed;
  window.views = {};
  window.vegaEmbed = async (place, ...rest) => {
    const made = await embed(place, ...rest);
    views[place.id] = made.view;
    return made;
  };
"""


def mark_at(browser, chart, panel):
    """Where on a chart's canvas the last point of a panel is drawn."""
    script = """
      const view = views[arguments[0]], found = [];
      (function walk(item, x, y) {
        if (item.marktype === "symbol" && item.role === "mark") for (const one of item.items) {
          if (one.datum.layer !== undefined || one.datum.i !== undefined) found.push([one, x + one.x, y + one.y]);
        } else for (const part of item.items ?? [])
          walk(part, x + (item.marktype ? part.x ?? 0 : 0), y + (item.marktype ? part.y ?? 0 : 0));
      })(view.scenegraph().root, view.origin()[0] + view.padding().left, view.origin()[1] + view.padding().top);
      const fits = found.filter(([one]) => !arguments[1] || one.datum.panel === arguments[1]);
      return fits.at(-1).slice(1);
    """
    return browser.execute_script(script, chart, panel)


def test_samples_by_panel_range_and_text(browser):
    all_of(browser, "[aria-label='Samples of GSM8K · mini · K']")[0].click()
    settled(browser)
    assert Select(find(browser, "#panel")).first_selected_option.text == "GSM8K · mini · K"
    Select(find(browser, "#panel")).select_by_visible_text("GSM8K · mini · O")
    settled(browser)
    assert "GSM8K · mini · O" in find(browser, "#samples-about").text
    rows = rows_of(browser, "#sample-list")
    assert len(rows) == 90
    values = sorted(number(row["Nuclear norm"]) for row in rows)
    enter(browser, "#value-from", values[20])
    enter(browser, "#value-to", values[40])
    found = [number(row["Nuclear norm"]) for row in rows_of(browser, "#sample-list")]
    assert sorted(found) == [value for value in values if values[20] <= value <= values[40]]
    find(browser, "#all-values").click()
    settled(browser)
    assert len(rows_of(browser, "#sample-list")) == 90
    canvas = find(browser, "#samples-chart canvas")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    drag(browser, canvas, (0, 0), (0.2 * canvas.size["width"], 0))
    wait_for(lambda: find(browser, "#value-from").get_property("value"))
    assert 0 < len(rows_of(browser, "#sample-list")) < 90
    find(browser, "#all-values").click()
    settled(browser)
    find(browser, "label.chip:has(#with-text)").click()
    assert len(rows_of(browser, "#sample-list")) == 90
    choose(browser, "datasets", [HOSTILE])
    settled(browser)
    assert rows_of(browser, "#sample-list") == []


def test_figures_are_filtered(browser):
    count = find(browser, "#filters output")
    every = count.text
    for name, text in (
        ("dataset", "GSM8K"),
        ("model", "twin"),
        ("relation", "Published"),
        ("kind", "Variants overlaid"),
    ):
        Select(find(browser, f"#filters [name={name}]")).select_by_visible_text(text)
    assert count.text.startswith("1 of ")
    assert [
        shown.get_attribute("data-kind") for shown in all_of(browser, "#gallery figure") if shown.is_displayed()
    ] == ["variants"]
    find(browser, "#filters button").click()
    wait_for(lambda: count.text == every)


def test_the_second_study_has_its_runs_and_figures(browser):
    rows = rows_of(browser, "#dynamics table[class]")
    assert [row["Run"] for row in rows] == ["Warm start", HOSTILE, "DPO at once"]
    assert rows[1]["Starts from"] == "Warm start" and rows[1]["Trained on"] == "chosen and rejected"
    assert rows[2]["Ended (model, seed)"] == "ok: mini 0; diverged at step 7: mini 1"
    assert "DPO at once (mini, seed 1: diverged at step 7)" in find(browser, "#dynamics .note").text
    assert [each.text for each in all_of(browser, "#dynamics h3")] == ["mini, seed 0", HOSTILE]
    assert not all_of(browser, "#dynamics script")
    shown = [each for each in all_of(browser, "#dynamics figure, #toys figure") if each.is_displayed()]
    assert [find(each, "figcaption span").text for each in shown] == [
        "Length of SFT and squeezing", "Win rate", "The squeezing effect in a softmax"
    ]  # fmt: skip
    assert HOSTILE in find(shown[0], "img").get_attribute("alt")
    # Changes of each run, and figures of single runs, can be opened. The first study's filters change nothing.
    moved, summary = all_of(browser, "#dynamics summary")
    moved.click()
    assert "mini, seed 0" in moved.text
    assert rows_of(browser, "#dynamics details table") == [
        {"Probe": "chosen", **dict.fromkeys((HOSTILE, "DPO at once"), "−2.00 [−4.00, 0.00]")},
        {"Probe": "rejected", HOSTILE: "−2.00 [−4.00, 0.00]", "DPO at once": "–"},
        {"Probe": "likeliest token along chosen", **dict.fromkeys((HOSTILE, "DPO at once"), "−5.00 [−7.00, −3.00]")},
    ]
    assert "2 figures" in summary.text
    browser.execute_script("arguments[0].focus()", summary)
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    Select(find(browser, "#filters [name=model]")).select_by_visible_text("twin")
    shown = [each for each in all_of(browser, "#dynamics figure, #toys figure") if each.is_displayed()]
    assert len(shown) == 5
    for image in all_of(browser, "#dynamics img, #toys img"):
        browser.execute_script("arguments[0].scrollIntoView()", image)
        wait_for(lambda image=image: image.get_property("naturalWidth") == 300)


def test_details_open_and_links_of_the_contents_lead_to_sections(browser):
    for part in all_of(browser, "details"):
        browser.execute_script("arguments[0].open = false; arguments[0].scrollIntoView()", part)
        find(part, "summary").click()
        assert part.get_attribute("open")
    links = all_of(browser, "header nav a")
    sections = ["What was run", "How to read it", "What holds", "Which conclusions survive the fixed data", "Explore"]
    assert [link.text for link in links][:5] == sections
    for link in links:
        assert find(browser, link.get_attribute("hash")).tag_name == "section"


# By keyboard, in the dark, on a phone, without scripts, on paper ------------------------------------------------------


def test_everything_is_reached_and_used_by_keyboard(browser):
    script = """
      const shown = (one) => one.checkVisibility({ contentVisibilityAuto: false }) && !one.disabled;
      return [...document.querySelectorAll("a, button, input, select, summary, [tabindex='0']")].filter(shown).length;
    """
    wanted = browser.execute_script(script)
    seen = set()
    for _ in range(wanted + 5):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        focused = browser.switch_to.active_element
        if focused.tag_name == "body" or focused.id in seen:
            break
        seen.add(focused.id)
        assert browser.execute_script(OUTLINED, focused), focused.get_attribute("outerHTML")[:200]
    assert len(seen) == wanted
    # A choice by the space bar, a sample by Enter, and back by Escape.
    chip = find(browser, "#choices [name=models][value='1']")
    browser.execute_script("arguments[0].focus()", chip)
    ActionChains(browser).send_keys(Keys.SPACE).perform()
    settled(browser)
    assert {row["Model"] for row in rows_of(browser, "#values")} == {"mini", "twin"}
    for css in ("#sample-list button", "a.verdict"):
        opener = find(browser, css)
        browser.execute_script("arguments[0].focus()", opener)
        ActionChains(browser).send_keys(Keys.ENTER).perform()
        assert find(browser, "#detail").get_attribute("open")
        ActionChains(browser).send_keys(Keys.ESCAPE).perform()
        assert not find(browser, "#detail").get_attribute("open")
        assert browser.switch_to.active_element == opener


# A control, or the chip that shows for it, has an outline.
OUTLINED = """
  const [one] = arguments, styles = [one, one.nextElementSibling].filter(Boolean).map((part) => getComputedStyle(part));
  return styles.some((style) => style.outlineStyle !== "none" && style.outlineWidth !== "0px");
"""


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_screen_and_text_stands_out(page, width, dark):
    with chromium(width, 780, dark=dark, mobile=width < 500) as browser:
        browser.get(page.as_uri())
        settled(browser)
        choose(browser, "relations", ["Correct", "Published"])
        settled(browser)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        over = "const box = document.querySelector('.scroll:has(.matrix)'); return box.scrollWidth - box.clientWidth"
        assert width < 500 or browser.execute_script(over) <= 0
        find(browser, "[aria-label='Read sample gsm8k/0']").click()
        box = find(browser, "#detail").rect
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        for css in ("#detail-body .hint", "#choices label.chip span", "a.verdict", ".lead", "#values td", "caption"):
            assert contrast(browser, css) >= 4.5, css
        paper = luminance(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
        assert (paper < 0.1) == dark
        quiet(browser)


def contrast(browser, css):
    """The contrast of an element's text with the nearest colour behind it (WCAG 2.1)."""
    script = """
      let part = document.querySelector(arguments[0]);
      const ink = getComputedStyle(part).color;
      const clear = (colour) => colour === "rgba(0, 0, 0, 0)" || colour.startsWith("color(");
      while (clear(getComputedStyle(part).backgroundColor)) part = part.parentElement;
      return [ink, getComputedStyle(part).backgroundColor];
    """
    one, other = sorted(map(luminance, browser.execute_script(script, css)))
    return (other + 0.05) / (one + 0.05)


def luminance(colour):
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_charts_follow_the_scheme(browser):
    """The curves are drawn anew when the reader's screen turns dark."""
    before = browser.execute_script("return document.querySelector('#curves-chart canvas').toDataURL()")
    scheme = {"name": "prefers-color-scheme", "value": "dark"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    wait_for(lambda: browser.execute_script("return matchMedia('(prefers-color-scheme: dark)').matches"))
    settled(browser)
    after = browser.execute_script("return document.querySelector('#curves-chart canvas').toDataURL()")
    assert before != after
    scheme["value"] = "light"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def test_without_scripts_all_but_the_explorer_is_there(page):
    with chromium(scripts=False) as browser:
        browser.get(page.as_uri())
        assert "needs JavaScript" in find(browser, "#explorer").text
        assert not find(browser, "#explore").is_displayed() and not find(browser, "#filters").is_displayed()
        drawn = sum(len(listing.read_index(page.parent / "figures" / key)["figures"]) for key in TITLES)
        assert len([shown for shown in all_of(browser, "#gallery figure") if shown.is_displayed()]) == drawn
        assert find(browser, "#run table").is_displayed()
        link = find(browser, "a.verdict")
        link.click()
        assert find(browser, link.get_attribute("hash")).is_displayed()
        quiet(browser)


def test_on_paper_controls_are_left_out(browser):
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    shown = {
        css: find(browser, css).is_displayed() for css in ("#choices", "#filters", "#values", "#curves-chart", "figure")
    }
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert shown == {"#choices": False, "#filters": False, "#values": True, "#curves-chart": True, "figure": True}


def test_the_page_is_one_file(page, tmp_path):
    """Away from its figures the explorer and the verdicts still work; only figures are files of their own."""
    alone = tmp_path / "alone.html"
    alone.write_bytes(Path(page).read_bytes())
    with chromium() as browser:
        browser.get(alone.as_uri())
        settled(browser)
        assert len(rows_of(browser, "#values")) == 12 and len(rows_of(browser, "#sample-list")) == 90
