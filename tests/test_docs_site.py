"""The documentation's site: strictly built, complete, readable from the disk without a network."""

import csv
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By

from benchmarks.chromium import chromium, installed
from conftest import ROOT
from gradatlas.__main__ import JOBS
from gradatlas.gradients.tables import SPECTRA

PLACES = ("*.md", "docs/**/*.md", "config/*.md", "benchmarks/**/*.md", "resources/miniature/*.md", "workflow/**/*.md")
PAGES = sorted(str(path.relative_to(ROOT)) for place in PLACES for path in ROOT.glob(place))
PAGES.remove("CHANGELOG.md")
PROSE = {page: re.sub(r"```.*?```|`[^`]*`", "", (ROOT / page).read_text(), flags=re.DOTALL) for page in PAGES}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built with warnings as errors (a missing page, link or heading), and a study's page as the example."""
    folder = tmp_path_factory.mktemp("site")
    results = folder / "results"
    (results / "figures").mkdir(parents=True)
    (results / "figures/a.svg").write_text("<svg/>")
    (results / "index.html").write_text('<a href="figures/a.svg">A figure</a> <a href="https://arxiv.org">arXiv</a>')
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder / "site"],
        cwd=ROOT, env={**os.environ, "RESULTS": str(results)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "site"


def headings(site, page):
    return set(re.findall(r'<h2 id="[^"]*">(?:<code>)?([\w -]+)', (site / page).read_text()))


def test_reference_pages_are_made_of_the_code(site):
    assert headings(site, "reference/commands.html") == set(JOBS)
    assert {"spectra", "claims", "scores", "curves", "training_spectra"} <= headings(site, "reference/tables.html")
    columns = (site / "reference/tables.html").read_text()
    assert all(f"<code>{name}</code>" in columns for name in SPECTRA.names)
    assert "K and V under grouped queries" in columns  # a comment above a column
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    shown = (site / "reference/rules.html").read_text()
    assert all(f"<code>{name}</code>" in shown for name in re.findall(r"^ *rule (\w+):\n +\"\"\"", rules, re.MULTILINE))
    claims = (site / "reference/claims.html").read_text()
    for sheet in ("claims", "claims_dynamics", "claims_quality"):
        lines = [line for line in (ROOT / f"config/{sheet}.tsv").read_text().splitlines() if line[:1] != "#"]
        assert all(f"<code>{row['claim']}</code>" in claims for row in csv.DictReader(lines, delimiter="\t"))


def test_the_example_is_the_page_of_a_finished_study(site):
    assert 'href="results/index.html"' in (site / "example.html").read_text()
    assert (site / "results/figures/a.svg").read_text() == "<svg/>"


def test_no_page_loads_anything_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"?(https?:[^\" >]+)", page.read_text())
        assert not loaded, (page, loaded)


@pytest.mark.skipif(not installed(), reason="needs Chromium and chromedriver: apt-get install chromium chromium-driver")
def test_search_works_from_the_disk(site):
    with chromium() as browser:
        browser.get((site / "index.html").as_uri())
        browser.find_element(By.CSS_SELECTOR, "input.md-search__input").send_keys("derangement")
        links, end = [], time.monotonic() + 300
        while not links and time.monotonic() < end:
            links = browser.find_elements(By.CSS_SELECTOR, "a.md-search-result__link")
        assert any("glossary" in link.get_attribute("href") for link in links)
        asked = [each["message"] for each in browser.get_log("performance") if "requestWillBeSent" in each["message"]]
    assert asked and not any(re.search(r'"url":"https?:', each) for each in asked)


@pytest.mark.parametrize("page", ["README.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/*.md"))])
def test_links_of_pages_lead_somewhere_in_the_repository_too(page):
    """On the site, reference pages exist that are no files."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        assert target.startswith("http") or (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"


def test_the_readme_is_short():
    assert len(Path(ROOT / "README.md").read_bytes()) <= 8192


def test_pages_are_in_plain_words():
    unusual = re.compile(r"\b(told|said|mend|mends|hangs on|lacking|whilst|thereof|nought|lest)\b", re.IGNORECASE)
    assert {page: found for page, text in PROSE.items() if (found := unusual.findall(text))} == {}


def test_a_list_has_an_empty_line_before_it():
    """Without one, the site shows it as part of the paragraph."""
    for page, text in PROSE.items():
        assert not re.search(r"^(?![-*|#]|\d+\. | ).+\n(- |1\. )", text, re.MULTILINE), page
