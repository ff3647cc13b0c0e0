"""Numbers of the docs are those of the tables that they came from."""

import csv
import os
import re
from pathlib import Path

import polars as pl
import pytest

from benchmarks import dynamics, rates
from conftest import ROOT
from gradatlas.charts.numbers import three_digits

RATES = ROOT / "benchmarks" / "results" / "rates.csv"
SEEDS = ROOT / "benchmarks" / "results" / "dynamics.csv"
PAGE = ROOT / "docs" / "learning_dynamics_seeds.md"
NUMBERS = ROOT / "docs" / "learning_dynamics_numbers.md"


def table_of(page, first):
    """The lines of a page's table whose head begins so."""
    lines = page.read_text().splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith(f"| {first} |"))
    end = next(place for place in range(start, len(lines) + 1) if place == len(lines) or lines[place][:1] != "|")
    return lines[start:end]


def test_the_table_of_learning_rates_is_of_the_sweep():
    assert table_of(ROOT / "docs" / "learning_rates.md", "Loss") == rates.markdown(pl.read_csv(RATES))


def test_the_table_of_long_runs_is_of_their_responses():
    shares = pl.read_csv(ROOT / "benchmarks" / "results" / "rates_long.csv")
    assert table_of(ROOT / "docs" / "learning_rates.md", "Updates") == rates.by_step_markdown(shares)


def test_the_runs_take_the_largest_rate_that_the_rule_accepts():
    accepted = pl.read_csv(RATES).group_by("loss", "learning_rate").agg(pl.col("passes").all()).filter("passes")
    largest = dict(accepted.group_by("loss").agg(pl.col("learning_rate").max()).iter_rows())
    with open(ROOT / "config" / "runs.tsv") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["run"][:1] not in "#"]
    named = {row["run"]: row for row in rows}
    for row in rows:
        sweep = re.search(r"_\de\d$", row["run"])
        if (row["run"].startswith(("hh_", "smoke", "base")) and row["run"] != "base_dpo") or sweep:
            continue
        factor = 10 if row["parameters"] == "lora" else 1
        wanted = factor * largest["dpo" if row["loss"] else "sft"]
        assert float(row["learning_rate"]) == pytest.approx(wanted), row["run"]
    assert named["sft_1e5"]["steps"] == named["sft"]["steps"]


def test_the_table_over_seeds_is_of_the_run():
    assert table_of(NUMBERS, "Claim") == dynamics.markdown(pl.read_csv(SEEDS, infer_schema_length=None))


def test_the_page_over_seeds_counts_its_verdicts():
    found = dynamics.counts(pl.read_csv(SEEDS, infer_schema_length=None))
    words = f"{found['holds']} tests hold, {found['fails']} fail, {found['inconclusive']} are inconclusive"
    assert words in " ".join(PAGE.read_text().split())


@pytest.mark.parametrize(
    "page", ["README.md", "docs/findings.md", "docs/learning_dynamics_seeds.md", "docs/learning_rates.md"]
)
def test_numbers_named_by_their_claim_are_those_of_the_run(page):
    """A number in prose is followed by a comment, invisible to readers, that names its row: claim, runs and place."""
    rows = {(row["claim"], row["relation"]): row for row in csv.DictReader(SEEDS.open())}
    text = (ROOT / page).read_text()
    found = re.findall(r"(−?[\d.]+)<!--(\w+) ([^ ]+)(?: (low|high|seed\d))?-->", text)
    for number, claim, relation, end in found:
        row = rows[claim, relation]
        row |= {f"seed{place}": value for place, value in enumerate(row["by_seed"].split())}
        assert number == three_digits(float(row[end or "value"])), (page, claim, relation)
    assert found or page != "docs/learning_dynamics_seeds.md"


@pytest.mark.skipif(
    "DEFAULT_STUDY" not in os.environ, reason="set DEFAULT_STUDY to the folder of a finished default study"
)
def test_readme_and_findings_state_what_the_default_study_finds():
    path = Path(os.environ["DEFAULT_STUDY"]) / "results/claims.csv"
    claims = pl.read_csv(path, infer_schema_length=None).filter(study="layer_gradients", projection="all")
    claims = claims.filter(claim_status="stands")
    untrained = pl.col("model") == "mini_random"
    trained = claims.filter(~untrained).join(
        claims.filter(untrained), on=["claim", "dataset", "relation"], how="left", suffix="_untrained"
    )
    size = trained.filter(claim="size_none_detailed")
    rd = trained.filter(claim="separable_detailed", relation="derangement")
    unpopular = trained.filter(claim="unpopular_larger")
    assert {*size["verdict"], *rd["verdict"], *unpopular["verdict"]} == {"holds"}
    jumps = trained.filter(claim="mad_none_detailed")["verdict"].to_list()
    holds, fails, unclear = map(jumps.count, ("holds", "fails", "inconclusive"))
    times = 1 + rd["value"]
    ratio = unpopular["value"]
    sentences = [
        f"{size['value'].min():.1f} to {size['value'].max():.0f} times as large as Detailed's. "
        f"They are also {size['untrained'].mean():.0f} times as large in an untrained network",
        f"holds in {holds} of these {len(jumps)} tests, fails in {fails}, and is unclear in {unclear}.",
        f"gradients {times.min():.0f} to {times.max():.0f} times as large as the right answer, "
        f"but only {1 + rd['untrained'].mean():.2f} times in the untrained network.",
        f"gradients {ratio.min():.2f} to {ratio.max():.2f} times as large as those of popular ones, "
        f"and {unpopular['untrained'].mean():.2f} times in the untrained network.",
    ]
    page = " ".join((ROOT / "docs/findings.md").read_text().split())
    assert [sentence for sentence in sentences if sentence not in page] == []
    first = (
        f"None's gradients are {size['value'].min():.1f} to {size['value'].max():.0f} times as large as Detailed's "
        f"({size['untrained'].mean():.0f} times in an untrained network)."
    )
    assert first in (ROOT / "README.md").read_text()
