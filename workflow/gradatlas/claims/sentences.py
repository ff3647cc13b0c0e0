"""The findings as a reader meets them: three sentences made from them by a rule, and findings.json and findings.md."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import polars as pl

from gradatlas.charts.numbers import with_interval
from gradatlas.charts.tables import Section, escaped, markdown
from gradatlas.claims.rows import STUDIES
from gradatlas.claims.summary import NAMES, Finding, read_findings
from gradatlas.core.files import write_text

# The verdict on what the study claims, by symbol; by what untrained networks show, the words of the table.
SYMBOLS = {"holds": "✓", "fails": "✗", "unclear": "?"}
UNTRAINED = {
    "also": "shows it too",
    "part": "shows it in {} of {} tests",
    "not": "does not show it",
    "unmeasured": "not measured",
    "open": "not compared: the claim is open",
}
NOTE = """\
How to read a row:

- *Found*: what the tests on all models and data of this run show.
- *The claim*: ✓, it holds in more than half of these tests and fails in none. ✗, it fails in more than half and holds
  in none. ?, it stays open: neither is so. One test decides only if its whole 95 % interval lies on one side of the
  claim's bound, and its p-value, corrected for the number of tests, is below .05.
- *Effect*: that of the test closest to the bound, among the tests with this verdict (among all, if the claim is open).
  The interval of one training (one seed) is over probes, not over trainings.
- *Unit*: what it means is in the [glossary](more.html#terms), like all other terms.
- *Untrained network*: whether networks before training show the same, by the same rule. If they do, the finding says
  nothing of what a model has learnt.

All tests: [tables/claims.md](tables/claims.md) and claims.csv."""
# As many are named in one sentence.
_NAMED = 2


def write_findings(
    claims: pl.DataFrame | None,
    output: str | Path,
    titles: Mapping[str, str],
    measured: Sequence[tuple[str, str]],
    figure: str | Path | None = None,
) -> list[Finding]:
    """Write ``{output}.json`` and ``{output}.md``, and return the findings.

    `claims`: the claims table; None where nothing of this run has claims. `titles`: of models and datasets, by key.
    `measured`: the model and the dataset, by key, of everything that this run measures. `figure`: stem of the
    findings drawn, a figure a study, shown in the Markdown.
    """
    found, left_out = read_findings(claims, titles) if claims is not None else ([], [])
    about = set(claims.select("model", "dataset").iter_rows()) if claims is not None else set()
    name = lambda pair: " on ".join(titles.get(key, key) for key in pair)  # noqa: E731
    others = [name(pair) for pair in measured if tuple(pair) not in about]
    said = sentences(found) if found else without_findings(list(map(name, measured)))
    facts = {"sentences": said, "findings": [asdict(each) for each in found], "left_out": left_out, "no_claim": others}
    write_text(f"{output}.json", json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    picture = os.path.relpath(figure, Path(output).parent) if figure and found else ""
    write_text(f"{output}.md", _markdown(found, said, left_out, others, picture))
    return found


def sentences(found: Sequence[Finding]) -> list[str]:
    """On the findings: how many hold, what an untrained network shows, and what is the opposite, a text each."""
    by = {verdict: [each for each in found if each.verdict == verdict] for verdict in SYMBOLS}
    decided = [each for each in found if each.verdict != "unclear"]
    holds, fails, unclear = (len(by[verdict]) for verdict in SYMBOLS)
    counts = [
        f"{holds} hold{'s' * (holds == 1)} as claimed",
        f"{fails} {'is' if fails == 1 else 'are'} the opposite of a claim",
        f"and {unclear} {'is' if unclear == 1 else 'are'} unclear",
    ]
    said = f"Of {len(found)} finding{'s' * (len(found) > 1)}, {', '.join(counts)}."
    if single := sum(each.one_training for each in found):
        said += (
            f" {single} of the unclear ones {'is' if single == 1 else 'are'} of one training (one seed) alone, which"
        )
        said += " cannot decide a claim."
    return [said, _on_untrained(decided), _on_opposites(found, by["fails"])]


def untrained_words(word: str, tests: Sequence[int]) -> str:
    """What untrained networks show of a finding, as its `untrained` and `untrained_tests`."""
    return UNTRAINED[word].format(*tests)


def _on_untrained(decided: Sequence[Finding]) -> str:
    also, part, learnt = ([each for each in decided if each.untrained == word] for word in ("also", "part", "not"))
    beside = len(also) + len(part) + len(learnt)
    if not decided:
        return "Nothing was decided, so there is nothing that an untrained network could show too."
    if not beside:
        return "No untrained network was measured, so nothing tells which findings come from training."
    if len(also) == beside:
        return (
            f"An untrained network shows all {beside} decided findings that were tested on one too, so these need no "
            "training."
        )
    tested = f"{beside} of the decided findings were tested on an untrained network too"
    parts = [tested if beside > 1 else "One of the decided findings was tested on an untrained network too"]
    if also:
        parts.append(f"It shows {len(also)}, so training is not needed for them: {_named(also, 'that ', ', and ')}")
    parts += [f"It shows {len(part)} in some tests only"] if part else []
    parts += [f"It does not show {len(learnt)}, such as that {_inside(learnt[0].statement)}"] if learnt else []
    return f"{'. '.join(parts)}."


def _on_opposites(found: Sequence[Finding], opposite: Sequence[Finding]) -> str:
    if opposite:
        return f"Found, against a claim: {_named(opposite, '', '; ')}."
    holds = [each for each in found if each.verdict == "holds"]
    if holds:
        most = max(holds, key=lambda each: sum(test.verdict == "holds" for test in each.tests))
        return f"No claim turned out the opposite; in most tests it holds that {_inside(most.statement)}."
    return f"No claim holds, and none turned out the opposite. On the first finding: {found[0].more}"


def without_findings(measured: Sequence[str]) -> list[str]:
    """The same where no claim was tested: what stands then."""
    some = "; ".join(measured[:3]) + (f"; {len(measured) - 3} more" if len(measured) > 3 else "")
    return [
        "No claim of the three studies is about the models and data of this run.",
        f"Measured: {some}." if measured else "Nothing was measured.",
        "The numbers are in index.html and tables/, without a verdict: claims are about answers with and without "
        "reasoning, wrong responses, or samples of high and of low quality, on a model that is meant for the data.",
    ]


def _named(found: Sequence[Finding], before: str, between: str) -> str:
    """The first findings of different studies, in one sentence."""
    several = list({each.study: each for each in reversed(found)}.values())[::-1]
    shown = [*several, *(each for each in found if each not in several)][:_NAMED]
    more = f", and {len(found) - len(shown)} more" if len(found) > len(shown) else ""
    return between.join(before + _inside(each.statement) for each in shown) + more


def _inside(statement: str) -> str:
    """A statement within a sentence: with a small letter, unless it begins with an abbreviation."""
    return statement if statement[1:2].isupper() else statement[:1].lower() + statement[1:]


def _markdown(
    found: Sequence[Finding], said: Sequence[str], left_out: Sequence[str], others: Sequence[str], picture: str
) -> str:
    header = ("Found", "The claim", "Effect", "Unit", "Models", "Data", "Untrained network", "Tests")
    sections = [
        Section(
            title,
            header,
            [
                [
                    each.statement,
                    f"{SYMBOLS[each.verdict]} {each.as_claimed}",
                    with_interval(each.effect, each.low, each.high),
                    each.unit,
                    ", ".join(each.models),
                    ", ".join(each.data),
                    untrained_words(each.untrained, each.untrained_tests),
                    each.more,
                ]
                for each in found
                if each.study == NAMES[study]
            ],
            left=len(header),
        )
        for study, title in STUDIES.items()
        if any(each.study == NAMES[study] for each in found)
    ]
    notes = [" ".join(map(escaped, said))]
    shown = [(NAMES[study], title) for study, title in STUDIES.items() if any(f.study == NAMES[study] for f in found)]
    notes += [f"![{title}: effects with their intervals]({picture}_{name}.svg)" for name, title in shown if picture]
    notes += [NOTE] if found else []
    notes += [f"Not shown: {escaped('; '.join(left_out))}."] if left_out else []
    notes += [f"Measured, but no claim is about it: {escaped('; '.join(others))}."] if others and found else []
    if not sections:
        return "\n\n".join(["# Findings", *notes]) + "\n"
    return markdown("Findings", notes, sections)
