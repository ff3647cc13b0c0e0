"""The page of scores in a real browser: its numbers, every control by mouse and keyboard, hostile texts, no scripts."""

import base64
import gzip
import itertools
import json
import random
import re

import polars as pl
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from benchmarks.chromium import chromium, installed, settled
from gradatlas.charts.numbers import three_digits
from gradatlas.core.errors import InputError
from gradatlas.page.score_parts import STEPS, histogram
from gradatlas.page.scores import NUMBERS, write_page
from synthetic_scores import score_folder
from test_atlas_page import OUTLINED, WATCH, all_of, contrast, drag, find, mark_at, offset, quiet, rows_of, wait_for

needs_browser = pytest.mark.skipif(
    not installed(), reason="needs Chromium and chromedriver: apt-get install chromium chromium-driver"
)
SCRIPT = "</script><script>window.hacked = 1</script><img src=http://x.invalid/a onerror='window.hacked = 1'>"
TITLE = f"mine.jsonl {SCRIPT}"
TEXTS = {
    0: ["Say ", "it: ", "<script>", "window.hacked = 1", "</script>", SCRIPT],
    1: ["Say ", "it: ", "שלום", " עולם", "\u202e", "مرحبا"],
    2: ["Say ", "it: ", "", "🦜", "\ufffd", "👩‍👩‍👧"],
    3: ["Say ", "it: ", "x" * 100_000, *["y" * 100] * 700],
    4: ["Say ", "it: ", "a\0b", "\r", "\n\n", "unique-needle"],
}
IDS = {0: SCRIPT, 1: "\u202eid\0", 2: "i" * 100_000, 3: "long", 4: "NUL"}
GROUPS = ("web", SCRIPT, "שלום")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("scores")
    score_folder(base, 130, groups=GROUPS, texts=TEXTS, ids=IDS, part=50, metadata={"settings": {"shape": SCRIPT}})
    write_page(base, base / "scores.html", title=TITLE)
    return base


@pytest.fixture(scope="module")
def scores(folder):
    return pl.read_parquet(folder / "scores.parquet")


@pytest.fixture(scope="module")
def wide(folder):
    with chromium() as browser:
        yield browser


@pytest.fixture
def browser(wide, folder):
    """The page afresh; at the end no message, no request and no hostile text that ran."""
    wide.get((folder / "scores.html").as_uri())
    settled(wide)
    yield wide
    assert wide.execute_script("return window.hacked") is None
    quiet(wide)


def packed(page, name):
    (text,) = re.findall(rf'id="piece-{name}">([^<]*)<', page)
    return json.loads(gzip.decompress(base64.b64decode(text)))


def listed(browser):
    settled(browser)
    return rows_of(browser, "#table")


def open_sample(browser, row):
    """Show the sample of a row of the file, by the search and the row's button."""
    find(browser, "#search").clear()
    find(browser, "#search").send_keys(str(row))
    settled(browser)
    find(browser, f"#table button[aria-label^='Show sample s{row}']").click()
    wait_for(lambda: find(browser, "#detail").get_attribute("open"))


def open_first(browser, search):
    find(browser, "#search").clear()
    find(browser, "#search").send_keys(search)
    settled(browser)
    find(browser, "#table tbody button").click()
    wait_for(lambda: find(browser, "#detail").get_attribute("open"))


# What the file holds -------------------------------------------------------------------------------------------------


def test_the_page_holds_the_ends_and_a_draw(folder, scores, tmp_path):
    write_page(folder, tmp_path / "a.html", title="a", samples=40)
    write_page(folder, tmp_path / "b.html", title="a", samples=40)
    page = (tmp_path / "a.html").read_text()
    assert page == (tmp_path / "b.html").read_text()
    ranks = packed(page, "samples")["numbers"]["rank"][:40]
    assert ranks[:10] == list(range(1, 11)) and ranks[-10:] == list(range(121, 131))
    # The others are a draw of all between, not the next ones.
    assert ranks == sorted(set(ranks)) and ranks[10:30] != list(range(11, 31)) and max(ranks[10:30]) > 90
    assert "This page holds 40 of 130 samples" in page and "seed 17" in page
    # Percentiles and histograms are of all samples.
    place = packed(page, "samples")["percentiles"]["loss"]
    ok = scores.filter(status="ok").sort("loss")["row"].to_list()
    for row, percent in zip(packed(page, "samples")["row"][:40], place[:40], strict=True):
        assert percent == pytest.approx(100 * (ok.index(row) + 0.5) / 130, abs=0.51)
    index = json.loads(re.search(r'id="scores-index">(.*?)</script>', page)[1])
    for name in ("nuclear_norm", "response_tokens", "quality", "gradient_norm"):
        found = index["histograms"][name]
        values = scores.filter(status="ok")[name]
        edges = found["edges"]
        assert edges[0] <= values.min() and edges[-1] >= values.max() and sum(map(sum, found["counts"])) == 130
        inside = values.is_between(edges[1], edges[2], closed="left").sum()
        assert inside == sum(counts[1] for counts in found["counts"])


def test_a_page_of_few_samples_without_groups(tmp_path):
    """Too few for outlier scores; all numbers alike; no sample without scores."""
    score_folder(tmp_path, 2, groups=(), failed=0, layers=1)
    table = pl.read_parquet(tmp_path / "scores.parquet")
    write_page(tmp_path, tmp_path / "scores.html", title="two")
    page = (tmp_path / "scores.html").read_text()
    assert "all 2 samples" in page and 'id="group"' not in page and 'id="status"' not in page and len(table) == 2
    assert "Samples without scores" not in page
    assert (
        "no outlier scores: they need 10 samples with scores, and it has\n  2." in page
        and "highest outlier" not in page
    )


def test_a_pair_is_two_samples(tmp_path):
    score_folder(tmp_path, 20, pairs=True)
    write_page(tmp_path, tmp_path / "scores.html", title="pairs")
    page = (tmp_path / "scores.html").read_text()
    samples, texts = packed(page, "samples"), packed(page, "text-0")
    parts = pl.read_parquet(tmp_path / "measured/00000.parquet")
    for i, key in enumerate(zip(samples["row"][:20], samples["response"][:20], strict=True)):
        assert texts[i]["tokens"] == parts.filter(row=key[0], response=key[1])["tokens"].item().to_list()
    index = json.loads(re.search(r'id="scores-index">(.*?)</script>', page)[1])
    assert "response" in index["columns"] and '<th scope="col">Response</th>' in page
    assert all(samples["group"]) and "all groups" in page and ">no group</option>" not in page


@pytest.mark.parametrize(
    ("values", "edges", "log"),
    [
        ([1.0, None, 1.0], [0.5, 1.5], False),
        ([2.5, 2.5], [1.25, 3.75], False),
        ([0.0, 3.0, 1.0], [-0.5, 0.5, 1.5, 2.5, 3.5], False),
        ([1.5, 2.5], [1.5, 1.75, 2.0, 2.25, 2.5], False),
        ([0.01, 1.0], [0.01, 0.0316, 0.1, 0.316, 1], True),
        ([-1e308, 1e308], None, None),
        ([None], None, None),
    ],
)
def test_the_bins_of_a_histogram(values, edges, log):
    frame = pl.DataFrame({"group": ["a"] * len(values), "x": values}, schema={"group": pl.String, "x": pl.Float64})
    found = histogram(frame, "x", ["a"])
    if edges is None:
        assert found is None
    else:
        assert found["edges"] == pytest.approx(edges, rel=2e-3) and found["log"] == log
        assert sum(found["counts"][0]) == sum(value is not None for value in values) and sum(found["counts"][1]) == 0


def test_a_sample_that_no_part_holds_is_an_error(folder, tmp_path):
    score_folder(tmp_path, 60, part=20)
    (tmp_path / "measured/00001.parquet").unlink()
    with pytest.raises(InputError, match=r"measured: row 20 of scores.parquet is in no part; run `gradatlas score`"):
        write_page(tmp_path, tmp_path / "scores.html", title="gap")
    assert not (tmp_path / "scores.html").exists()


# What it shows -------------------------------------------------------------------------------------------------------


@needs_browser
def test_twenty_random_cells_are_those_of_the_table(browser, scores):
    chance = random.Random(20261126)
    shown = {}
    while True:
        shown |= {int(row["Row"]): row for row in listed(browser)}
        if not find(browser, "#next").is_enabled():
            break
        find(browser, "#next").click()
    assert sorted(shown) == list(range(133))
    names = ["rank", "outlier", "loss", "nuclear_norm", "effective_rank", "gradient_norm", "response_tokens"]
    titles = {name: NUMBERS[name][0] for name in names} | {"quality": "quality", 'count "<b>"': 'count "<b>"'}
    for _ in range(20):
        row, (name, title) = chance.randrange(130), chance.choice(list(titles.items()))
        wanted = scores[row, name]
        assert shown[row][title] == (str(wanted) if isinstance(wanted, int) else three_digits(wanted)), (row, name)
    assert {shown[row]["Status"] for row in range(130)} == {"ok"}
    assert [shown[131][title] for title in ("Status", "Loss", "Outlier rank")] == ["no_response", "–", "–"]
    assert [shown[row]["Group"] for row in range(3)] == ["web", SCRIPT[:79] + "…", "שלום"]


@needs_browser
def test_search_sort_and_filter(browser, scores):
    find(browser, "#search").send_keys("UNIQUE-needle")
    assert [row["Row"] for row in listed(browser)] == ["4"]
    assert find(browser, "#found").text == "1 of 133 samples"
    find(browser, "#search").clear()
    find(browser, "#search").send_keys("s12")
    assert {row["Id"] for row in listed(browser)} == {"s12", *(f"s12{i}" for i in range(10))}
    find(browser, "#search").send_keys(Keys.BACKSPACE * 3)
    settled(browser)
    for title, name, first in (("Loss", "loss", False), ("Loss", "loss", True), ("Outlier rank", "rank", True)):
        button = next(each for each in all_of(browser, "#table thead button") if each.text == title)
        button.click()
        # By the number as it is shown; equal ones in their former order, that of the outlier score.
        rounded = scores.filter(status="ok").sort("rank").with_columns(pl.col(name).round_sig_figs(3))
        ordered = rounded.sort(name, descending=not first, maintain_order=True)["row"].head(50).to_list()
        assert [int(row["Row"]) for row in listed(browser)] == ordered, (title, first)
        sorts = [cell.get_attribute("aria-sort") for cell in all_of(browser, "#table th[aria-sort]")]
        assert sorts == ["ascending" if first else "descending"]
    Select(find(browser, "#group")).select_by_visible_text(" ".join(SCRIPT[:79].split()) + "…")
    settled(browser)
    assert find(browser, "#found").text == f"{len(scores.filter(group=SCRIPT))} of 133 samples"
    Select(find(browser, "#group")).select_by_index(0)
    Select(find(browser, "#status")).select_by_visible_text("no_response")
    assert [row["Row"] for row in listed(browser)] == ["130", "131", "132"]
    find(browser, "#table tbody button").click()
    assert "its last message is not the assistant's <b>" in find(browser, "#detail-body").text


@needs_browser
def test_dots_ranges_and_the_chosen_number(browser, scores):
    browser.execute_script(WATCH)
    Select(find(browser, "#number")).select_by_visible_text("quality")
    settled(browser)
    assert "quality: a dot is one of 130" in find(browser, "#relations-about").text
    canvas = find(browser, "#by-loss canvas")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    point = mark_at(browser, "by-loss", None)
    ActionChains(browser).move_to_element_with_offset(canvas, *offset(canvas, point)).click().perform()
    wait_for(lambda: find(browser, "#detail").get_attribute("open"))
    assert find(browser, "#detail-title").text.startswith("Sample ")
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    drag(browser, canvas, (-60, -70), (140, 120))
    wait_for(lambda: find(browser, "[name=loss-from]").get_property("value"))
    settled(browser)
    ends = [
        [find(browser, f"[name={name}-{end}]").get_property("valueAsNumber") for end in ("from", "to")]
        for name in ("loss", "number")
    ]
    wanted = scores.filter(pl.col("loss").is_between(*ends[0]) & pl.col("quality").is_between(*ends[1]), status="ok")
    assert 0 < len(wanted) < 130
    assert int(find(browser, "#found").text.split()[0]) == pytest.approx(len(wanted), abs=1)
    find(browser, "#ranges button").click()
    settled(browser)
    assert find(browser, "#found").text == "133 of 133 samples"
    find(browser, "[name=response_tokens-from]").send_keys("40", Keys.TAB)
    settled(browser)
    assert find(browser, "#found").text == f"{len(scores.filter(pl.col('response_tokens') >= 40))} of 133 samples"


@needs_browser
def test_tokens_have_their_losses_and_terms(browser, folder):
    open_sample(browser, 77)
    part = pl.read_parquet(folder / "measured/00001.parquet").row(27, named=True)
    spans = all_of(browser, ".tokens .token")
    texts = browser.execute_script("return arguments[0].map((span) => span.textContent)", spans)
    assert texts == part["tokens"]
    index = browser.execute_script("return JSON.parse(document.getElementById('scores-index').textContent)")
    # Row 3 is cut.
    others = pl.concat(map(pl.read_parquet, sorted(folder.glob("measured/*")))).filter(pl.col("row") != 3)
    losses = others["token_losses"].explode().drop_nulls()
    assert index["steps"][0] == 0
    assert index["steps"][1:] == pytest.approx([losses.quantile(share) for share in STEPS], rel=0.06)
    largest = max(part["token_terms"])
    steps = {"losses": index["steps"], "terms": [largest * share for share in (0, 1 / 16, 1 / 8, 1 / 4, 1 / 2)]}
    for name, column in (("losses", "token_losses"), ("terms", "token_terms")):
        find(browser, f"[name=colour][value={name}]").click()
        classes = [span.get_attribute("class").split() for span in spans]
        for found, loss, value in zip(classes, part["token_losses"], part[column], strict=True):
            assert ("prompt" in found) == (loss is None)
            colours = [each for each in found if re.fullmatch("s[0-4]", each)]
            if value is None:
                assert colours == []
            elif all(abs(value - step) > 0.01 * steps[name][-1] for step in steps[name]):
                assert colours == [f"s{sum(value >= step for step in steps[name]) - 1}"]
    # One that is not broken between lines.
    lines = browser.execute_script("return arguments[0].map((span) => span.getClientRects().length)", spans)
    at = next(t for t in range(5, len(spans)) if lines[t] == 1 and part["tokens"][t].strip())
    ActionChains(browser).move_to_element(spans[at]).perform()
    words = find(browser, "#token").text
    loss, term = part["token_losses"][at], part["token_terms"][at]
    assert words.startswith(f"Token {at + 1} {json.dumps(part['tokens'][at])}: loss {loss:.2f} (probability ")
    shown = float(re.search(r"term ([\d.]+),", words)[1])
    assert shown == pytest.approx(term, abs=max(part["token_terms"]) / 500)
    box = find(browser, ".tokens")
    browser.execute_script("arguments[0].focus()", box)
    ActionChains(browser).send_keys(Keys.ARROW_LEFT * (at - 2)).perform()
    assert find(browser, "#token").text.startswith("Token 3 ") and "no loss; term" in find(browser, "#token").text
    # The curves of both metrics, in this order.
    labels = [canvas.get_attribute("aria-label") for canvas in all_of(browser, "#detail canvas")]
    assert [label.split(" by ")[0] for label in labels] == ["Nuclear norm", "Effective rank"]


@needs_browser
def test_a_sample_has_its_numbers_curves_and_neighbours(browser, folder, scores):
    browser.execute_script(
        WATCH.replace(
            "views[place.id]", "views[[...place.parentNode.children].indexOf(place) + place.textContent.length * 0]"
        )
    )
    first, second = (int(row["Row"]) for row in listed(browser)[:2])
    find(browser, "#table tbody button").click()
    wait_for(lambda: len(all_of(browser, "#detail canvas")) == 2)
    table = {row["Number"]: row for row in rows_of(browser, "#detail table")}
    assert table["Nuclear norm"]["Value"] == three_digits(scores[first, "nuclear_norm"])
    ok = scores.filter(status="ok")
    below = (ok["nuclear_norm"] < scores[first, "nuclear_norm"]).sum()
    assert table["Nuclear norm"]["Percentile"] == f"{round(100 * (below + 0.5) / 130)} %"
    assert table["Outlier rank"] == {"Number": "Outlier rank", "Value": "1", "Percentile": "–"}
    assert not find(browser, "#detail .tools button").is_enabled()
    all_of(browser, "#detail .tools button")[1].click()
    wait_for(lambda: f"Row {second} ·" in find(browser, "#detail-body").text)
    # Of the layers, what is drawn is what was measured.
    curves = packed((folder / "scores.html").read_text(), "curves-0")[1]
    part = pl.read_parquet(folder / f"measured/{second // 50:05}.parquet").filter(row=second)
    values = part["values"].to_numpy()[0].reshape(6, 4, 4)
    for metric in range(2):
        for projection in range(4):
            assert curves[metric][projection] == pytest.approx(values[:, projection, metric].tolist(), rel=6e-3)


# Hostile texts, keyboard, screens, no scripts ------------------------------------------------------------------------


@needs_browser
@pytest.mark.parametrize("row", range(5))
def test_hostile_texts_are_shown_and_inert(browser, row):
    open_first(browser, ["window.hacked", "עולם", "🦜", "yyyyy", "unique-needle"][row])
    texts = [span.get_property("textContent") for span in all_of(browser, ".tokens .token")]
    assert all_of(browser, "#detail script") == [] and all_of(browser, "#detail img") == []
    assert find(browser, ".tokens").get_attribute("dir") == "auto"
    if row == 3:
        assert texts[2] == "x" * 119 + "…" and sum(map(len, texts)) <= 6000
        assert f"The first {len(texts)} of 703 tokens." in find(browser, "#detail-body").text
    else:
        assert texts == [text.replace("\0", "␀").replace("\r", "␍")[:120] for text in TEXTS[row]]
    if row == 2:
        assert all_of(browser, ".tokens .token")[2].get_attribute("data-mark") == "▯"
        assert len(find(browser, "#detail-title").text) < 100
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 1280


def test_nothing_outside_is_named(folder):
    """No address that a browser would fetch, and a policy that forbids it all the same."""
    page = (folder / "scores.html").read_text()
    without_texts = page.replace(SCRIPT, "")
    assert not re.findall(r"""<[^>]*\b(?:src|href)=["']?(?:https?:)?//""", without_texts)
    assert "default-src 'none'" in page and "\0" not in page
    assert "window.hacked = 1</script>" not in page


@needs_browser
def test_everything_is_reached_and_used_by_keyboard(browser):
    find(browser, "#search").send_keys("s12")
    settled(browser)
    script = """
      const shown = (one) => one.checkVisibility() && !one.disabled;
      return [...document.querySelectorAll("a, button, input, select, summary, [tabindex='0']")].filter(shown).length;
    """
    browser.execute_script("document.querySelector('.skip').focus()")
    wanted, seen = browser.execute_script(script), {browser.switch_to.active_element.id}
    for _ in range(wanted + 5):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        focused = browser.switch_to.active_element
        if focused.tag_name == "body" or focused.id in seen:
            break
        seen.add(focused.id)
        assert browser.execute_script(OUTLINED, focused), focused.get_attribute("outerHTML")[:200]
    assert len(seen) == wanted
    opener = find(browser, "#table tbody button")
    browser.execute_script("arguments[0].focus()", opener)
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    wait_for(lambda: find(browser, "#detail").get_attribute("open"))
    chip = find(browser, "[name=colour][value=losses]")
    browser.execute_script("arguments[0].focus()", chip)
    ActionChains(browser).send_keys(Keys.ARROW_RIGHT).perform()
    assert find(browser, "[name=colour][value=terms]").is_selected()
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert not find(browser, "#detail").get_attribute("open") and browser.switch_to.active_element == opener
    # Sorting keeps the focus on its button.
    header = all_of(browser, "#table thead button")[1]
    browser.execute_script("arguments[0].focus()", header)
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    settled(browser)
    assert browser.switch_to.active_element.text.startswith("Id")
    levels = [int(each.tag_name[1]) for each in all_of(browser, "main :is(h1, h2, h3, h4), header h1")]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels))


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(360, True), (1280, True), (360, False)])
def test_it_fits_the_screen_and_stands_out(folder, wide, width, dark):
    """In the module's browser, as another screen."""
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    wide.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wide.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    try:
        wide.get((folder / "scores.html").as_uri())
        settled(wide)
        assert wide.execute_script("return document.documentElement.scrollWidth") <= width
        find(wide, "#table tbody button").click()
        wait_for(lambda: len(all_of(wide, "#detail canvas")) == 2)
        box = find(wide, "#detail").rect
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
        for step in range(5):
            assert contrast(wide, f".key .s{step}") >= 4.5, step
        for css in (".tokens .prompt", "#token", "#detail td", ".lead", ".note", "#table td", "#table thead button"):
            assert contrast(wide, css) >= 4.5, css
        quiet(wide)
    finally:
        wide.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {**size, "width": 1280, "height": 900, "mobile": False}
        )
        wide.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{**scheme, "value": "light"}]})


@needs_browser
def test_without_scripts_head_statuses_and_the_first_rows_are_there(folder, scores):
    with chromium(scripts=False) as browser:
        browser.get((folder / "scores.html").as_uri())
        assert find(browser, "h1").text == TITLE
        assert "gives a better model was not measured" in find(browser, "#about").text
        assert "no_response\n3" in find(browser, ".statuses").text
        reasons = [cells.text for cells in all_of(browser, "#about tbody td:last-child")]
        assert reasons == [f"row {row}: its last message is not the assistant's <b>" for row in (130, 131, 132)]
        best = scores.sort("rank", nulls_last=True).head(20)
        assert [int(cell.text) for cell in all_of(browser, "#table td:first-child")] == best["row"].to_list()
        fourth = [cell.text for cell in all_of(browser, "#table tbody tr:nth-child(4) td")]
        assert three_digits(best[3, "nuclear_norm"]) in fourth and str(best[3, "response_tokens"]) in fourth
        assert "need JavaScript" in find(browser, "noscript").text
        assert not find(browser, "#search").is_displayed() and not find(browser, "#explore").is_displayed()
        quiet(browser)
