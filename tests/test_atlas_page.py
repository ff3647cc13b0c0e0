"""The atlas in a real browser: every control, by mouse and by keyboard, light and dark, wide and narrow."""

import json
import random
import re
import time
from pathlib import Path
from urllib.parse import urlencode

import polars as pl
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from benchmarks.chromium import chromium, installed, settled
from conftest import ROOT, write_config
from gradatlas.charts import listing
from gradatlas.charts.names import TERMS, terms
from gradatlas.claims.tables import CLAIMS
from gradatlas.core.tables import write_table
from gradatlas.data.tables import RESPONSES
from gradatlas.figures import gallery, tables
from gradatlas.miniature.tables import ACCURACY
from gradatlas.page.glossary import read_glossary
from gradatlas.page.page import write_atlas
from synthetic import statistic_rows, write_statistics
from test_atlas import HOSTILE, claim_rows, response_rows, sample_rows, second_study

pytestmark = pytest.mark.skipif(
    not installed(), reason="needs Chromium and chromedriver: apt-get install chromium chromium-driver"
)

TITLES = {"gsm8k": "GSM8K", "odd": HOSTILE}
MODELS = {"mini": "Miniature", "twin": "Partner"}
TWIN = statistic_rows(models=("twin",), layers=20)
GLOSSARY = ROOT / "docs/glossary.md"
MEANINGS = read_glossary(GLOSSARY).meanings
NONE, PUBLISHED = TERMS["none"], TERMS["published"]


def finding(study, key, effect, **given):
    """A finding of two tests, one of them on a network whose number untrained is known."""
    test = {"model": "Mini", "data": "GSM8K", "responses": "correct", "verdict": "holds", "untrained": None}
    ends = {"effect": effect, "low": effect and effect - 1, "high": effect and effect + 1}
    row = {"study": study, "key": key, "statement": f"None has a larger MAD than Detailed: {HOSTILE}",
           "as_claimed": f"The study claims the same: {HOSTILE}", "one_training": False,
           "unit": "MAD ratio", "models": ["Mini"], "data": ["GSM8K"], "verdict": "holds", "untrained": "also",
           "untrained_tests": [1, 1], "claims": [key],
           "more": f"Holds in 2 of 2 tests. {HOSTILE}", "bounds": [10.0],
           "tests": [test | ends, test | ends | {"untrained": 4.0}]}  # fmt: skip
    return row | ends | given


def findings():
    """Of two studies: one that holds, one without an effect, and one that is unclear."""
    rows = [
        finding("gradients", "mad_none_detailed", 12.5),
        finding("gradients", "separable_detailed", None, untrained="unmeasured", verdict="unclear"),
        finding("quality", "length", -3.0, untrained="not", verdict="fails", unit="difference", bounds=[-1.0, 1.0]),
    ]
    return {"sentences": [f"One of three: {HOSTILE}", "Squeezing was not seen."], "findings": rows,
            "left_out": [f"Not tested: {HOSTILE}"]}  # fmt: skip


def sheet_claims():
    """A verdict on every claim of the three sheets: as many lines as a full study has."""
    row = claim_rows(("mini",))[0]
    sheets = {"claims": "layer_gradients", "claims_dynamics": "learning_dynamics", "claims_quality": "data_quality"}
    for sheet, study in sheets.items():
        for claim, status, title in (
            pl.read_csv(ROOT / f"config/{sheet}.tsv", separator="\t", infer_schema=False, quote_char=None)
            .filter(~pl.col("claim").is_in(["mad_none_detailed", "separable_detailed"]))
            .select("claim", "status", "title")
            .iter_rows()
        ):
            yield row | {"claim": claim, "study": study, "title": title, "status": status, "claim_status": status}


def accuracy_rows():
    """Both models do the task with Detailed; with None one guesses. On the other dataset one knows nothing."""
    for model, dataset, test, shares in (
        ("mini", "gsm8k", "answer", {"none": 0.07, "simplified": 0.8, "detailed": 0.9}),
        ("twin", "gsm8k", "answer", {"none": 0.8, "simplified": 0.8, "detailed": 0.9}),
        ("mini", "odd", "recall", {"none": 0.1}),
    ):
        for variant, right in shares.items():
            values = (model, dataset, "all", test, variant, 100, round(100 * right), right, right - 0.05, right + 0.05)
            yield dict(zip(ACCURACY.names, (*values, 0.1), strict=True))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Two models, of 6 and of 20 layers, and two datasets; the second has one layer, one model and no texts."""
    base = tmp_path_factory.mktemp("page")
    shapes = {
        "gsm8k": {name: rows + TWIN[name] for name, rows in statistic_rows(layers=6).items()},
        "odd": statistic_rows(
            dataset="odd", layers=1, relations=("correct",), variants=("none", "length_100"), purpose="pipeline check"
        ),
    }
    for key, rows in shapes.items():
        write_statistics(base / key, {**rows, "per_sample_layers": sample_rows(rows)})
        gallery.draw(base / key, key, TITLES[key], base / "figures" / key, ["svg"])
    write_table(RESPONSES, response_rows(sample_rows(shapes["gsm8k"])), base / "responses.parquet", {})
    # As many datasets and models as the default study has.
    claims = claim_rows(("mini", "twin", "random"))
    for i in range(4):
        claims += claim_rows(("mini", "mini_instruct", "mini_random"), f"biographies_{i}", ("length",))
    write_table(CLAIMS, [*claims, *sheet_claims()], base / "claims.parquet", {})
    (base / "findings.json").write_text(json.dumps(findings()))
    for kind in ("mad", "rd"):
        tables.write_tables(kind, [base / key for key in shapes], base)
    write_config(base / "config.yaml")
    write_table(ACCURACY, list(accuracy_rows()), base / "accuracy.parquet", {})
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
        findings=base / "findings.json",
        glossary=GLOSSARY,
        titles=MODELS,
        accuracy=[base / "accuracy.parquet"],
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


def unfold(browser, css):
    """Click the summary of every closed part that an element is in, from the outside in."""
    script = """
      const found = [];
      for (let one = document.querySelector(arguments[0]); one; one = one.parentElement)
        if (one.tagName === "DETAILS" && !one.open) found.unshift(one);
      return found;
    """
    for part in browser.execute_script(script, css):
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", part)
        find(part, "summary").click()


def press(browser, css):
    """Open what an element is in, and click it."""
    unfold(browser, css)
    find(browser, css).click()


def choose(browser, name, titles):
    """Tick exactly these of one list of choices, then close it."""
    unfold(browser, f"#choices [name={name}]")
    for chip in all_of(browser, f"#choices label.chip:has([name={name}])"):
        if find(chip, "input").is_selected() != (chip.text in titles):
            chip.click()
    find(browser, f"#choices details:has([name={name}]) > summary").click()


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
    """Chosen by the page's address; a cell is a value with its interval, or a sample's value over some layers."""
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
            layers = [row["layer"]] if name == "curves" else range(len(row[metric]))
            ends = sorted(chance.choices(layers, k=2))
            go(browser, row, metric, ends)
            if name == "curves":
                (found,) = rows_of(browser, "#values")
                assert number(found["Value"]) == float(f"{row['value']:.3e}")
                ends = [number(text) for text in found["95 % interval"].split(" to ")]
                assert ends == [float(f"{row[end]:.3e}") for end in ("low", "high")]
                assert number(found["n"]) == row["n"]
                assert found["Model"] == MODELS[row["model"]] and found["Dataset"] == TITLES[row["dataset"]]
            else:
                (found,) = (r for r in rows_of(browser, "#sample-list") if r["Sample"] == row["sample_id"])
                titles = {"nuclear_norm": "Nuclear norm", "effective_rank": "Effective rank"}
                near(number(found[titles.get(metric, "σ max / nuclear norm")]), layers_mean(row[metric], ends))
                assert number(found["Loss"]) == float(f"{row['loss']:.2e}")
                assert number(found["Tokens"]) == row["response_tokens"]


def go(browser, row, metric, layers):
    """Draw one cell of a table, over some layers."""
    names = ("dataset", "model", "variant", "relation", "projection")
    parts = [(f"{name}s", row[name]) for name in names] + [("metrics", metric), *(("layers", end) for end in layers)]
    script = """
      const [hash, done] = arguments;
      addEventListener("hashchange", () => done(), { once: true });
      location.hash = hash;
    """
    browser.execute_async_script(script, f"#explorer?{urlencode(parts)}")
    settled(browser)


def layers_mean(values, ends):
    """The mean over the groups of layers that these layers touch: 20 layers are 4 groups of 3 and 4 of 2."""
    groups = [[i] for i in range(6)] if len(values) <= 8 else [list(range(3 * i, 3 * i + 3)) for i in range(4)]
    groups += [[12 + 2 * i, 13 + 2 * i] for i in range(4)] if len(values) > 8 else []
    inside = [layer for group in groups for layer in group if ends[0] <= group[-1] and group[0] <= ends[1]]
    taken = [values[layer] for layer in inside if layer < len(values)]
    return sum(taken) / len(taken)


def near(shown, wanted):
    """The three digits of a number that is off by no more than rounding its parts to three digits allows."""
    low, high = (float(f"{wanted * (1 + side * 0.005):.2e}") for side in (-1, 1))
    assert low <= shown <= high, (shown, wanted)


def test_two_responses_of_a_sample_are_shown_as_a_difference(browser):
    press(browser, "[aria-label='Read sample gsm8k/0']")
    assert find(browser, "#detail-title").text == "Sample gsm8k/0"
    sides = {side: Select(find(browser, f"#text-{side}")) for side in "ab"}
    wanted = {name: f"Answer {HOSTILE} {key}" for name, key in (
        (f"{NONE}, correct", "none correct"), (f"Detailed, {PUBLISHED.lower()}", "detailed published"),
    )}  # fmt: skip
    assert len(sides["a"].options) == 6
    for side, name in zip(sides.values(), wanted, strict=True):
        side.select_by_visible_text(name)
    instruction, *texts = all_of(browser, "#detail blockquote")
    assert [quote.get_property("textContent") for quote in texts] == [*wanted.values()]
    assert instruction.get_property("textContent") == f"Question gsm8k/0: {HOSTILE}"
    assert not all_of(browser, "#detail script")
    assert all(quote.get_attribute("dir") == "auto" for quote in (instruction, *texts))
    differing = [[part.text for part in all_of(browser, f"#detail {tag}")] for tag in ("del", "ins")]
    assert differing == [["none", "correct"], ["detailed", "published"]]
    sides["b"].select_by_visible_text(f"{NONE}, correct")
    assert not all_of(browser, "#detail :is(del, ins)")
    numbers = rows_of(browser, "#detail table")
    assert {"Loss", "Tokens", "Nuclear norm"} < set(numbers[0]) and len(numbers) == 6


def test_differences_are_the_longest_common_words(browser):
    """Against Python's own longest common subsequence, on random texts; each side still is its text."""
    chance = random.Random(5)
    for _ in range(30):
        one, other = (" ".join(chance.choices("abcd", k=chance.randrange(12))) for _ in "ab")
        sides = browser.execute_script("return differences(...arguments)", one, other)
        assert ["".join(word for word, _ in side) for side in sides] == [one, other]
        common = [[word for word, shared in side if shared] for side in sides]
        assert common[0] == common[1] and len(common[0]) == longest(
            *(re.findall(r"\s+|\S+", text) for text in (one, other))
        )


def longest(a, b):
    """The length of the longest common subsequence, by its definition row by row."""
    above = [0] * (len(b) + 1)
    for word in a:
        row = [0]
        for j, other in enumerate(b):
            row.append(above[j] + 1 if word == other else max(above[j + 1], row[-1]))
        above = row
    return above[-1]


def test_a_sample_without_a_text_says_where_it_stands(browser):
    choose(browser, "datasets", [HOSTILE])
    settled(browser)
    assert "pipeline check" in find(browser, "#curves-about").text
    press(browser, "#sample-list button")
    assert "results/responses/odd.parquet" in body(browser)
    find(browser, "#detail form button").click()
    # Its other model was not measured.
    choose(browser, "models", ["Partner"])
    settled(browser)
    assert "Nothing was measured for this choice" in find(browser, "#curves-about").text
    assert rows_of(browser, "#values") == []


def test_findings_are_the_first_screen(browser):
    assert all_of(browser, "main > section")[0].get_attribute("id") == "findings"
    first = find(browser, "#findings .sentence")
    assert first.text == findings()["sentences"][0] and first.location["y"] < 400
    rows = all_of(browser, ".findings details")
    assert len(rows) == 3 and rows[0].location["y"] < 780
    assert not all_of(browser, "#findings script")
    # A finding's tests as dots, the untrained network as a ring, and the claimed bound.
    marks = [{mark: len(all_of(row, f".{mark}")) for mark in ("dot", "interval", "ring", "bound")} for row in rows]
    assert marks == [{"dot": 2, "interval": 2, "ring": 1, "bound": 1}, dict.fromkeys(marks[0], 0),
                     {"dot": 2, "interval": 2, "ring": 1, "bound": 2}]  # fmt: skip
    places = [
        float(find(rows[0], f".{mark}").get_attribute("style").split()[1][:-2]) for mark in ("ring", "bound", "dot")
    ]
    assert places == sorted(places)
    assert "12.5 [11.5, 13.5] MAD ratio" in rows[0].text and "–" in find(rows[1], ".effect").text
    assert [find(row, ".random").text for row in rows] == ["shows it too", "not measured", "does not show it"]
    assert [find(row, ".verdict").get_attribute("title") for row in rows] == ["holds", "unclear", "fails"]
    find(rows[0], "summary").click()
    assert "Holds in 2 of 2 tests" in rows[0].text
    left_out = all_of(browser, "#findings > details")[-1]
    find(left_out, "summary").click()
    assert find(left_out, "li").text == f"Not tested: {HOSTILE}"
    find(rows[0], "a").click()
    wait_for(lambda: find(browser, "#claim-mad_none_detailed").get_attribute("open"))
    wait_for(
        lambda: (
            0
            <= browser.execute_script(
                "return document.getElementById('claim-mad_none_detailed').getBoundingClientRect().y"
            )
            < 780
        )
    )


def test_terms_have_their_meaning_as_a_tooltip(browser, page):
    explained = {part.text: part.get_attribute("title") for part in all_of(browser, "#findings abbr")}
    assert explained == {
        name: MEANINGS[key]
        for name, key in (
            ("Squeezing", "squeeze"),
            ("None", "none"),
            ("MAD", "mad"),
            ("Detailed", "detailed"),
            ("MAD ratio", "MAD ratio"),
        )
    }
    unfold(browser, "#choices [name=variants]")
    assert find(browser, "#choices label:has([name=variants])").get_attribute("title") == MEANINGS["none"]
    # Labels are the glossary's terms.
    names = {key: term.name for term in read_glossary(GLOSSARY).terms for key in term.keys}
    assert {key: names[key] for key in TERMS} == TERMS
    browser.get((page.parent / "more.html").as_uri())
    assert [each.text for each in all_of(browser, "#terms dd")] == [
        term.meaning for term in read_glossary(GLOSSARY).terms
    ]


def test_a_claim_opens_with_its_numbers(browser):
    lines = all_of(browser, ".claim")
    titles = [find(line, "summary > span").get_property("textContent") for line in lines]
    assert len(titles) == len(set(titles)) > 100 and "MAD none detailed" in titles
    line = find(browser, "#claim-mad_none_detailed")
    counts = [part.text.split() for part in all_of(line, ".counts .verdict")]
    assert counts == [["✓", "2", "holds"], ["✗", "2", "fails"], ["?", "2", "inconclusive"]]
    find(line, "summary").click()
    wait_for(lambda: all_of(line, ".numbers table"))
    rows = rows_of(browser, "#claim-mad_none_detailed table")
    assert len(rows) == 6 and {row["Verdict"] for row in rows} == {"✓ holds", "✗ fails", "? inconclusive"}
    assert {row["Remarks"] for row in rows if row["Verdict"] == "? inconclusive"} == {"the interval contains 10"}
    for words in ("12.3 [10.1, 14.8]", "0.0456", "section 4", "MAD ratio", "200"):
        assert words in line.text, words
    # One test alone is a list.
    name = "#claim-" + next(sheet_claims())["claim"]
    unfold(browser, f"{name} .numbers")
    wait_for(lambda: "12.3 [10.1" in find(browser, name).text)
    assert not all_of(browser, f"{name} table")


# Each control --------------------------------------------------------------------------------------------------------


def test_choices_draw_what_they_say(browser):
    assert len(rows_of(browser, "#values")) == 12
    choose(browser, "models", ["Miniature", "Partner"])
    choose(browser, "relations", ["Correct", PUBLISHED])
    choose(browser, "projections", ["V"])
    choose(browser, "variants", [NONE, "Detailed"])
    settled(browser)
    rows = rows_of(browser, "#values")
    assert len(rows) == 2 * 2 * 2
    assert {(r["Model"], r["Variant"], r["Responses"], r["Projection"]) for r in rows} == {
        (model, variant, relation, "V")
        for model in ("Miniature", "Partner")
        for variant in (NONE, "Detailed")
        for relation in ("Correct", PUBLISHED)
    }
    assert [option.text for option in Select(find(browser, "#panel")).options] == [
        "GSM8K · Miniature · V",
        "GSM8K · Partner · V",
    ]
    for name in ("datasets", "models", "variants", "relations", "projections"):
        choose(browser, name, [])
        settled(browser)
        assert "Choose at least one" in find(browser, "#curves-about").text
        press(browser, f"#choices label.chip:has([name={name}])")
        settled(browser)
        assert rows_of(browser, "#values")
        find(browser, f"#choices details:has([name={name}]) > summary").click()


def test_what_a_model_does_not_master_is_said_beside_its_curves(browser):
    line = find(browser, "#not-mastered")
    assert line.text == f"Not mastered: Miniature on GSM8K with {NONE} .07 right (chance .10). All accuracies"
    # Of what is drawn alone: not of other variants, nor of other models.
    choose(browser, "variants", ["Detailed"])
    settled(browser)
    assert not line.is_displayed()
    choose(browser, "variants", [NONE])
    choose(browser, "models", ["Partner"])
    settled(browser)
    assert not line.is_displayed()
    choose(browser, "models", ["Miniature", "Partner"])
    choose(browser, "datasets", ["GSM8K", HOSTILE])
    settled(browser)
    both = f"Not mastered: Miniature on GSM8K with {NONE} .07 right (chance .10); Miniature on {HOSTILE}, .10 right"
    assert line.text == f"{both} (chance .10). All accuracies"


def test_keys_of_models_are_where_they_are_typed_alone(browser, page):
    """Readers see titles; keys are in the address, in files, and beside the titles in the table of models."""
    opened = """
      for (const part of document.querySelectorAll("main details")) part.open = true;
      return [...document.querySelectorAll("main section:not(#config)")].map((part) => part.innerText).join("\\n");
    """
    for path in (page, page.with_name("more.html")):
        browser.get(path.as_uri())
        wait_for(lambda: not all_of(browser, "[aria-busy=true]"))
        lines = browser.execute_script(opened).splitlines()
        # The title that a folder of figures gives itself.
        lines = [line.replace("Learning dynamics: mini, seed 0", "") for line in lines]
        with_keys = [line for line in lines if re.search(r"\b(mini|twin)\b", line)]
        in_table = [line for line in with_keys if line.startswith(("Miniature\tmini\t", "Partner\ttwin\t"))]
        assert with_keys == in_table and len(in_table) == (0 if path == page else 2)


def test_a_dataset_offers_and_chooses_its_own_variants(browser):
    def offered(name):
        unfold(browser, f"#choices [name={name}]")
        chips = all_of(browser, f"label.chip:has([name={name}]):not([hidden])")
        return {chip.text: find(chip, "input").is_selected() for chip in chips}

    assert offered("variants") == dict.fromkeys((NONE, "Simplified", "Detailed"), True)
    choose(browser, "relations", [PUBLISHED])
    choose(browser, "datasets", [HOSTILE])
    settled(browser)
    assert offered("variants") == dict.fromkeys((NONE, "Length 100"), True)
    # It has no such responses: the first that it has are drawn in their place.
    assert offered("relations") == {"Correct": True}
    assert {row["Variant"] for row in rows_of(browser, "#values")} == {NONE, "Length 100"}
    # What was left out stays out when a dataset is added that brings nothing new.
    choose(browser, "variants", [NONE])
    choose(browser, "datasets", [HOSTILE, "GSM8K"])
    settled(browser)
    assert offered("variants") == {NONE: True, "Simplified": True, "Detailed": True, "Length 100": False}
    assert find(browser, "#choices details:has([name=variants]) b").text == f"{NONE}, Simplified, Detailed"


def test_a_list_of_choices_closes_by_escape_and_by_a_click_elsewhere(browser):
    part = find(browser, "#choices details")
    for leave in (
        lambda: ActionChains(browser).send_keys(Keys.ESCAPE).perform(),
        lambda: find(browser, "#explorer-title").click(),
    ):
        find(part, "summary").click()
        assert part.get_attribute("open")
        leave()
        assert not part.get_attribute("open")


def test_the_address_is_the_state(browser, page, tmp_path):
    """What was chosen comes back from a copied link, in another browser, panel and ranges too."""
    assert "#" not in browser.current_url
    choose(browser, "models", ["Miniature", "Partner"])
    choose(browser, "variants", [NONE, "Detailed"])
    choose(browser, "relations", [PUBLISHED])
    Select(find(browser, "[name=metric]")).select_by_visible_text("effective rank")
    settled(browser)
    enter(browser, "#layer-from", 2)
    Select(find(browser, "#panel")).select_by_visible_text("GSM8K · Partner · V")
    settled(browser)
    enter(browser, "#value-from", 20)
    shown = [rows_of(browser, css) for css in ("#values", "#sample-list")]
    assert all(shown)
    browser.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    find(browser, "#copy-link").click()
    wait_for(lambda: find(browser, "#copied").text == "Link copied.")
    copied = browser.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert copied == browser.current_url and copied.startswith(page.as_uri() + "#explorer?")
    with chromium() as other:
        other.get(copied)
        settled(other)
        assert [rows_of(other, css) for css in ("#values", "#sample-list")] == shown
        assert Select(find(other, "#panel")).first_selected_option.text == "GSM8K · Partner · V"
        assert abs(other.execute_script("return document.getElementById('explorer').getBoundingClientRect().y")) < 100
        # Another address in the same page, with keys that this page does not have.
        other.execute_script(
            "location.hash = '#explorer?datasets=gone&models=mini&projections=q&layers=x&variants=none'"
        )
        wait_for(lambda: len(rows_of(other, "#values")) == 1)
        assert rows_of(other, "#values")[0]["Projection"] == "Q"
        quiet(other)


def test_what_is_drawn_downloads_as_csv(browser, page, tmp_path):
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    choose(browser, "variants", [NONE])
    settled(browser)
    enter(browser, "#value-from", 0)
    for name in ("curves", "samples"):
        find(browser, f"#{name}-csv").click()
        wait_for(lambda name=name: (tmp_path / f"{name}.csv").exists())
    curves = pl.read_csv(tmp_path / "curves.csv")
    wanted = pl.read_parquet(page.parent / "gsm8k/curves.parquet").filter(
        model="mini", variant="none", relation="correct", statistic="nuclear_norm"
    )
    key = ["dataset", "model", "projection", "variant", "relation", "statistic", "layer"]
    both = curves.join(wanted, on=key, suffix="_wanted")
    assert both.height == curves.height == wanted.height == 24
    for name in ("value", "low", "high", "n"):
        assert ((both[name] / both[f"{name}_wanted"] - 1).abs() < 1e-3).all()
    samples = pl.read_csv(tmp_path / "samples.csv")
    shown = rows_of(browser, "#sample-list")
    assert samples["sample_id"].to_list() == [row["Sample"] for row in shown]
    assert samples["value"].to_list() == [number(row["Nuclear norm"]) for row in shown]
    assert set(samples["layers"]) == {"all layers"} and set(samples["projection"]) == {"q"}


def test_layers_by_number_and_by_brush(browser, page):
    enter(browser, "#layer-from", 2)
    enter(browser, "#layer-to", 3)
    found = next(row for row in rows_of(browser, "#values") if (row["Projection"], row["Variant"]) == ("Q", NONE))
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
    assert f"{ends[0]}" in find(browser, "#values caption").get_property("textContent")


def test_brushed_layers_reach_the_samples(browser, page):
    """By the mouse over a panel of curves: the distribution, its table and a sample's text are those layers' means."""
    frame = pl.read_parquet(page.parent / "gsm8k/per_sample_layers.parquet").filter(
        model="mini", relation="correct", projection="q"
    )
    before = {(r["Sample"], r["Responses"]): r["Nuclear norm"] for r in rows_of(browser, "#sample-list")}
    assert "means over all layers" in find(browser, "#sample-list caption").get_property("textContent")
    enter(browser, "#value-from", 0)
    canvas = find(browser, "#curves-chart canvas")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    width = canvas.size["width"]
    drag(browser, canvas, (-0.36 * width, 0), (0.06 * width, 0))
    wait_for(lambda: find(browser, "#layer-from").get_property("value") != "0")
    settled(browser)
    ends = [int(find(browser, f"#layer-{end}").get_property("value")) for end in ("from", "to")]
    layers = f"layer {ends[0]}" if ends[0] == ends[1] else f"layers {ends[0]} to {ends[1]}"
    assert f"means over {layers}" in find(browser, "#sample-list caption").get_property("textContent")
    assert f"mean over {layers}: a dot" in find(browser, "#samples-about").text
    # A range of other layers' values was let go.
    assert find(browser, "#value-from").get_property("value") == ""
    wanted = {
        (row["sample_id"], f"{terms([row['variant']])[row['variant']]}, correct"): layers_mean(
            row["nuclear_norm"], ends
        )
        for row in frame.to_dicts()
    }
    rows = rows_of(browser, "#sample-list")
    assert len(rows) == 90
    for row in rows:
        near(number(row["Nuclear norm"]), wanted[row["Sample"], row["Responses"]])
    changed = sum(before[row["Sample"], row["Responses"]] != row["Nuclear norm"] for row in rows)
    assert changed > 80
    press(browser, "#sample-list button")
    assert f"means over {layers}." in body(browser) and rows[0]["Nuclear norm"] in body(browser)


def test_a_deep_model_by_groups_of_layers(browser):
    """A model's last layer may be another's sixth; values stored by groups of layers are marked."""
    choose(browser, "models", ["Miniature", "Partner"])
    settled(browser)
    enter(browser, "#layer-from", 7)
    enter(browser, "#layer-to", 13)
    assert "no layer (this model’s last is 5)" in find(browser, "#samples-about").text
    assert rows_of(browser, "#sample-list") == []
    Select(find(browser, "#panel")).select_by_visible_text("GSM8K · Partner · Q")
    settled(browser)
    about = find(browser, "#samples-about").text
    assert "mean over layers 6 to 13: " in about and "stored by groups of layers" in about
    enter(browser, "#layer-from", 6)
    assert "stored by groups" not in find(browser, "#samples-about").text


def drag(browser, element, start, by):
    moves = ActionChains(browser).move_to_element_with_offset(element, *map(int, start)).click_and_hold()
    moves.move_by_offset(*map(int, by)).move_by_offset(1, 0).release().perform()


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
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
    wait_for(lambda: Select(find(browser, "#panel")).first_selected_option.text == "GSM8K · Miniature · V")
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
    press(browser, "[aria-label='Samples of GSM8K · Miniature · K']")
    settled(browser)
    assert Select(find(browser, "#panel")).first_selected_option.text == "GSM8K · Miniature · K"
    Select(find(browser, "#panel")).select_by_visible_text("GSM8K · Miniature · O")
    settled(browser)
    assert "GSM8K · Miniature · O" in find(browser, "#samples-about").text
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


def test_figures_are_thumbnails_that_open_and_are_filtered(browser, page):
    count = find(browser, "#filters output")
    every = count.text
    assert every == f"{len(all_of(browser, '#gallery figure'))} figures"
    groups = all_of(browser, "#gallery > details")
    assert [bool(group.get_attribute("open")) for group in groups] == [True] + [False] * (len(groups) - 1)
    for name, text in (
        ("group", "GSM8K"),
        ("model", "Partner"),
        ("relation", PUBLISHED),
        ("kind", "Variants overlaid"),
    ):
        Select(find(browser, f"#filters [name={name}]")).select_by_visible_text(text)
    assert count.text.startswith("1 of ")
    [shown] = [figure for figure in all_of(browser, "#gallery figure") if figure.is_displayed()]
    assert shown.get_attribute("data-kind") == "variants" and shown.size["width"] < 400
    assert not find(shown, ".about").is_displayed()
    listed = listing.read_index(page.parent / "figures/gsm8k")["figures"]
    key = ("twin", "published", "variants")
    entry = next(each for each in listed if (each["model"], each["relation"], each["kind"]) == key)
    find(shown, "a.thumbnail").click()
    assert find(browser, "#detail-title").text == entry["title"]
    wait_for(lambda: find(browser, "#detail img").get_property("naturalWidth") > 300)
    assert find(browser, "#detail img").size["width"] > 800 and all(line in body(browser) for line in entry["subtitle"])
    assert [link.text for link in all_of(browser, "#detail a")] == ["SVG"]
    find(browser, "#detail form button").click()
    find(browser, "#filters button").click()
    wait_for(lambda: count.text == every)
    Select(find(browser, "#filters [name=kind]")).select_by_visible_text("Win rate")
    assert [find(each, "figcaption b").text for each in all_of(browser, "#gallery figure") if each.is_displayed()] == [
        "Win rate"
    ]


def test_the_second_study_has_its_runs_and_figures(browser, page):
    groups = [find(each, "summary b").text for each in all_of(browser, "#gallery > details")]
    assert groups[-2:] == ["Learning dynamics: mini, seed 0", f"Learning dynamics: {HOSTILE}"]
    assert not all_of(browser, "#gallery script")
    captions = [
        each.get_property("textContent")
        for each in all_of(browser, "#gallery details:nth-last-of-type(2) figcaption b")
    ]
    assert captions == ["Length of SFT and squeezing", "Probes of one run", "Probes of one run"]
    assert HOSTILE in find(browser, "#gallery details:nth-last-of-type(2) img").get_attribute("alt")
    browser.get((page.parent / "more.html").as_uri())
    rows = rows_of(browser, "#dynamics table")
    assert [row["Run"] for row in rows] == ["Warm start", HOSTILE, "DPO at once"]
    assert rows[1]["Starts from"] == "Warm start" and rows[1]["Trained on"] == "chosen and rejected"
    assert rows[2]["Ended (model, seed)"] == "ok: Miniature 0; diverged at step 7: Miniature 1"
    assert "DPO at once (Miniature, seed 1: diverged at step 7)" in find(browser, "#dynamics .note").text
    moved = find(browser, "#dynamics summary")
    moved.click()
    assert "Miniature, seed 0" in moved.text
    assert rows_of(browser, "#dynamics details table") == [
        {"Probe": "chosen", **dict.fromkeys((HOSTILE, "DPO at once"), "−2.00 [−4.00, 0.00]")},
        {"Probe": "rejected", HOSTILE: "−2.00 [−4.00, 0.00]", "DPO at once": "–"},
        {"Probe": "likeliest token along chosen", **dict.fromkeys((HOSTILE, "DPO at once"), "−5.00 [−7.00, −3.00]")},
    ]
    image = find(browser, "#toys img")
    browser.execute_script("arguments[0].scrollIntoView()", image)
    wait_for(lambda: image.get_property("naturalWidth") == 300)
    find(browser, "#toys a.thumbnail").click()
    assert find(browser, "#detail-title").text == "Squeezed" and "A line." in body(browser)


def test_details_open_and_links_of_the_contents_lead_to_sections(browser, page):
    wanted = {
        "index": ["What was found", "Explore", "Verdicts", "Figures", "Data, glossary, tables, toys and settings"],
        "more": ["Back to the findings and figures", "What was run", "Glossary", "What the models can do",
                 "Samples and tables", "Finetuning runs", "Toys", "Settings and files"],
    }  # fmt: skip
    for name, titles in wanted.items():
        browser.get((page.parent / f"{name}.html").as_uri())
        # Of the claims, which are alike, only the first.
        for part in all_of(browser, "details:not(.claim ~ .claim)"):
            if not part.is_displayed():
                continue
            browser.execute_script("arguments[0].open = false; arguments[0].scrollIntoView({block: 'center'})", part)
            find(part, "summary").click()
            assert part.get_attribute("open")
        links = all_of(browser, "header nav a")
        assert [link.text for link in links] == titles
        for link in links:
            place = link.get_property("hash")
            assert find(browser, place).tag_name == "section" if place else link.get_property("href").endswith(".html")


# By keyboard, in the dark, on a phone, without scripts, on paper ------------------------------------------------------


def test_everything_is_reached_and_used_by_keyboard(browser):
    script = """
      const shown = (one) => one.checkVisibility({ contentVisibilityAuto: false }) && !one.disabled;
      return [...document.querySelectorAll("a, button, input, select, summary, [tabindex='0']")].filter(shown).length;
    """
    section = "return arguments[0].closest('main > section')?.id"
    wanted = browser.execute_script(script)
    # A skip link leads to each section.
    skips = all_of(browser, ".skip")
    assert [skip.get_property("textContent") for skip in skips][-1] == "Skip to Figures" and len(skips) == 4
    browser.execute_script("arguments[0].focus()", skips[-1])
    assert skips[-1].location["x"] >= 0
    ActionChains(browser).send_keys(Keys.ENTER).send_keys(Keys.TAB).perform()
    assert browser.execute_script(section, browser.switch_to.active_element) == "figures"
    browser.execute_script("arguments[0].focus()", skips[0])
    seen, stops = {skips[0].id}, {}
    for count in range(2, wanted + 5):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        focused = browser.switch_to.active_element
        if focused.tag_name == "body" or focused.id in seen:
            break
        seen.add(focused.id)
        stops.setdefault(browser.execute_script(section, focused), count)
        assert browser.execute_script(OUTLINED, focused), focused.get_attribute("outerHTML")[:200]
    assert len(seen) == wanted
    # Every claim of the three sheets is on this page.
    assert {"findings", "explorer", "claims", "figures"} <= set(stops) and max(stops.values()) < 150
    # A choice by the space bar, a sample by Enter, and back by Escape.
    unfold(browser, "#choices [name=models]")
    chip = find(browser, "#choices [name=models][value='1']")
    browser.execute_script("arguments[0].focus()", chip)
    ActionChains(browser).send_keys(Keys.SPACE).perform()
    settled(browser)
    assert {row["Model"] for row in rows_of(browser, "#values")} == {"Miniature", "Partner"}
    for css in ("#sample-list button", "a.thumbnail"):
        unfold(browser, css)
        opener = find(browser, css)
        browser.execute_script("arguments[0].focus()", opener)
        ActionChains(browser).send_keys(Keys.ENTER).perform()
        assert find(browser, "#detail").get_attribute("open")
        ActionChains(browser).send_keys(Keys.ESCAPE).perform()
        assert not find(browser, "#detail").get_attribute("open")
        assert browser.switch_to.active_element == opener
    claim = find(browser, "#claim-mad_none_detailed")
    browser.execute_script("arguments[0].focus()", find(claim, "summary"))
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    wait_for(lambda: all_of(claim, "table"))


# A control, or the chip that shows for it, has an outline.
OUTLINED = """
  const [one] = arguments, styles = [one, one.nextElementSibling].filter(Boolean).map((part) => getComputedStyle(part));
  return styles.some((style) => style.outlineStyle !== "none" && style.outlineWidth !== "0px");
"""


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen_and_text_stands_out(page, width, dark):
    with chromium(width, 780, dark=dark, mobile=width < 500) as browser:
        browser.get(page.as_uri())
        settled(browser)
        choose(browser, "relations", ["Correct", PUBLISHED])
        settled(browser)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        press(browser, "[aria-label='Read sample gsm8k/0']")
        box = find(browser, "#detail").rect
        assert box["x"] >= 0 and box["x"] + box["width"] <= width
        for css in ("#detail-body .hint, #detail-body caption", "#choices summary b", ".verdict", ".lead", "#values td",
                    "caption", ".findings .random", "#detail del", "#detail ins", "figcaption"):  # fmt: skip
            assert contrast(browser, css) >= 4.5, css
        find(browser, "#detail form button").click()
        for name in ("index", "more") if width < 500 else ():
            if name == "more":
                browser.get((page.parent / "more.html").as_uri())
            browser.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
            wait_for(lambda: not all_of(browser, ".claim .numbers:empty"))
            assert browser.execute_script(SIDEWAYS) == []
        paper = luminance(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
        assert (paper < 0.1) == dark
        quiet(browser)


# What scrolls sideways: parts of the page, or all of it.
SIDEWAYS = """
  const over = (one) => one.checkVisibility() && one.scrollWidth > one.clientWidth + 1;
  const scrolls = (one) => ["auto", "scroll"].includes(getComputedStyle(one).overflowX);
  const found = [...document.querySelectorAll("*")].filter((one) => over(one) && scrolls(one));
  if (over(document.documentElement)) found.push(document.body);
  return found.map((one) => one.outerHTML.slice(0, 120));
"""


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
        figures = [shown for shown in all_of(browser, "#gallery figure") if shown.is_displayed()]
        assert len(figures) == drawn + 4 and find(figures[0], ".about a").is_displayed()
        assert find(browser, "#findings .sentence").is_displayed()
        find(browser, "#claim-mad_none_detailed summary").click()
        assert "section 4" in find(browser, "#claim-mad_none_detailed").text
        quiet(browser)


def test_on_paper_controls_are_left_out(browser):
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    shown = {
        css: find(browser, css).is_displayed() for css in ("#choices", "#filters", "#curves-chart", "figure", ".claim")
    }
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert shown == {"#choices": False, "#filters": False, "#curves-chart": True, "figure": True, ".claim": True}


def test_the_page_is_one_file(page, tmp_path):
    """Away from its figures the explorer and the verdicts still work; only figures are files of their own."""
    alone = tmp_path / "alone.html"
    alone.write_bytes(Path(page).read_bytes())
    with chromium() as browser:
        browser.get(alone.as_uri())
        settled(browser)
        assert len(rows_of(browser, "#values")) == 12 and len(rows_of(browser, "#sample-list")) == 90
