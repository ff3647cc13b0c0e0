"""What a run found, in plain words: the claims that have a `finding` in their sheet, at most six of each study.

A finding puts the verdicts of one claim's tests together; it decides nothing from the numbers anew.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from gradatlas.charts.numbers import three_digits, with_interval
from gradatlas.charts.tables import Section, escaped, markdown
from gradatlas.claims.rows import DYNAMICS, GRADIENTS, QUALITY, STUDIES, rows
from gradatlas.claims.sheet import OVERALL
from gradatlas.core.files import write_text

# More of one study are no summary.
MOST = 6
NAMES = {GRADIENTS: "gradients", DYNAMICS: "dynamics", QUALITY: "quality"}
# By verdict and by what an untrained network shows, the words of the table.
AS_CLAIMED = {"holds": "yes", "fails": "no, the opposite", "unclear": "unclear"}
UNTRAINED = {"also": "shows it too", "not": "does not show it", "unmeasured": "not measured"}
NOTE = (
    "A finding is a claim of a study on all models and data of this run that it can be tested on. *As claimed*: yes, "
    "where it holds in more than half of these tests and fails in none; no, the same of the opposite; else unclear. *Effect*: the "
    "number of the test that comes closest to the bound of the claim, of those with the finding's verdict, with its 95 % interval. "
    "An *untrained network* shows a finding too where the same rule gives the same verdict on networks before training: then the "
    "finding says nothing of what a model has learnt. All numbers: [tables/claims.md](tables/claims.md), `claims.csv`."
)
UNTESTED = "not tested"
# As many are named in one sentence.
_NAMED = 2
_CHOICE = re.compile(r"\{([^{}|]+)\|([^{}|]+)\}")


@dataclass(frozen=True)
class Tested:
    """One test of a claim, as a figure draws it."""

    model: str
    data: str
    responses: str
    effect: float | None
    low: float | None
    high: float | None
    verdict: str
    untrained: float | None


@dataclass(frozen=True)
class Finding:
    """A claim over all of its tests; the key `findings` of findings.json holds a list of them.

    `verdict`: holds, fails or unclear; `statement` follows it. `effect`, `low` and `high`: of the weakest of the tests
    with this verdict; `untrained`: also, not or unmeasured. `bounds`: what the effect is claimed to lie above or below,
    or between.
    """

    study: str
    key: str
    statement: str
    effect: float | None
    low: float | None
    high: float | None
    unit: str
    models: list[str]
    data: list[str]
    verdict: str
    untrained: str
    claims: list[str]
    more: str
    bounds: list[float]
    tests: list[Tested]


def write_findings(
    claims: pl.DataFrame | None,
    output: str | Path,
    titles: Mapping[str, str],
    measured: Sequence[tuple[str, str]],
    figure: str | Path | None = None,
) -> list[Finding]:
    """Write ``{output}.json`` and ``{output}.md``, and return the findings.

    `claims`: the claims table; None where nothing of this run has claims. `titles`: of models and datasets, by key.
    `measured`: the model and the dataset, by key, of everything that this run measures. `figure`: the findings drawn,
    shown in the Markdown.
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
    """Three sentences on the findings: how many hold, what an untrained network shows, what is the opposite."""
    by = {verdict: [each for each in found if each.verdict == verdict] for verdict in AS_CLAIMED}
    decided = [each for each in found if each.verdict != "unclear"]
    counts = f"Of {len(found)} findings {len(by['holds'])} hold as claimed, {len(by['fails'])} are the opposite, and "
    return [f"{counts}{len(by['unclear'])} are unclear.", _on_untrained(decided), _on_opposites(found, by["fails"])]


def _on_untrained(decided: Sequence[Finding]) -> str:
    also, learnt = ([each for each in decided if each.untrained == word] for word in ("also", "not"))
    beside = len(also) + len(learnt)
    if not decided:
        return "Nothing was decided, so there is nothing that an untrained network could show too."
    if not beside:
        return "No untrained network was measured beside them, so nothing tells which of them come of training."
    if not learnt:
        return f"An untrained network shows all {beside} that were tested on one too: they do not come of training."
    shown = f"An untrained network shows {len(also)} of the {beside} that were tested on one too"
    return f"{shown}; trained models alone show {_named(learnt, 'that ', ', and ')}."


def _on_opposites(found: Sequence[Finding], opposite: Sequence[Finding]) -> str:
    if opposite:
        return f"The opposite of a claim: {_named(opposite, '', '; ')}."
    holds = [each for each in found if each.verdict == "holds"]
    if holds:
        most = max(holds, key=lambda each: sum(test.verdict == "holds" for test in each.tests))
        return f"No claim turned out the opposite; in most tests it holds that {_inside(most.statement)}."
    return f"What they lack: {found[0].more[:1].lower()}{found[0].more[1:]}"


def without_findings(measured: Sequence[str]) -> list[str]:
    """The same where no claim was tested: what stands then."""
    some = "; ".join(measured[:3]) + (f"; {len(measured) - 3} more" if len(measured) > 3 else "")
    return [
        "No claim of the three studies is about the models and data of this run.",
        f"Measured: {some}." if measured else "Nothing was measured.",
        "The numbers stand in index.html and tables/ without a verdict: claims need answers with and without reasoning, "
        "wrong responses, or samples of high and of low quality, and a model that is meant for the data.",
    ]


def _named(found: Sequence[Finding], before: str, between: str) -> str:
    """The first findings of different studies, in one sentence."""
    several = list({each.study: each for each in reversed(found)}.values())[::-1]
    shown = [*several, *(each for each in found if each not in several)][:_NAMED]
    more = f" ({len(found) - len(shown)} more)" if len(found) > len(shown) else ""
    return between.join(before + _inside(each.statement) for each in shown) + more


def _inside(statement: str) -> str:
    """A statement within a sentence: with a small letter, unless it begins with an abbreviation."""
    return statement if statement[1:2].isupper() else statement[:1].lower() + statement[1:]


def _markdown(
    found: Sequence[Finding], said: Sequence[str], left_out: Sequence[str], others: Sequence[str], picture: str
) -> str:
    header = ("Finding", "As claimed", "Effect", "Unit", "Models", "Data", "Untrained network", "Tests")
    sections = [
        Section(
            title,
            header,
            [
                [
                    each.statement,
                    AS_CLAIMED[each.verdict],
                    with_interval(each.effect, each.low, each.high),
                    each.unit,
                    ", ".join(each.models),
                    ", ".join(each.data),
                    UNTRAINED[each.untrained],
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
    notes += [f"![Effects of the findings with their intervals]({picture})"] if picture else []
    notes += [NOTE] if found else []
    notes += [f"Not shown: {escaped('; '.join(left_out))}."] if left_out else []
    notes += [f"Measured, but no claim is about it: {escaped('; '.join(others))}."] if others and found else []
    if not sections:
        return "\n\n".join(["# Findings", *notes]) + "\n"
    return markdown("Findings", notes, sections)


def read_findings(claims: pl.DataFrame, titles: Mapping[str, str]) -> tuple[list[Finding], list[str]]:
    """The findings of a claims table in the order of the sheets, tested ones first, and why others are left out.

    `titles`: of models and datasets, by key.
    """
    overall = claims.filter(pl.col("projection") == OVERALL)
    shown = rows(claims, titles).select("model_title", "dataset_title", "responses", "group", "requested")
    frame = pl.concat([overall, shown], how="horizontal").filter(pl.col("finding").fill_null("") != "")
    found: list[Finding] = []
    left_out: list[str] = []
    for study in STUDIES:
        own = []
        for _, tests in frame.filter(pl.col("study") == study).group_by("claim", maintain_order=True):
            # Of several trainings the row over seeds counts.
            counted = tests.filter(pl.col("requested") & (pl.col("group") != "")).to_dicts()
            trained = [row for row in counted if row["kind"] != "random"]
            if trained:
                own.append(_finding(trained, [row for row in counted if row["kind"] == "random"]))
            else:
                left_out.append(
                    f"{_filled(tests['finding'][0])}: {tests['reason'][0] or 'no trained model was measured'}"
                )
        # A finding with a verdict is not displaced by one that this run could not test.
        own.sort(key=lambda each: all(test.verdict == UNTESTED for test in each.tests))
        found += own[:MOST]
        left_out += [f"{each.statement}: the study has {MOST} other findings" for each in own[MOST:]]
    return found, left_out


def _finding(trained: Sequence[dict[str, Any]], untrained: Sequence[dict[str, Any]]) -> Finding:
    """One claim's finding from its rows on trained models and on untrained networks."""
    first = trained[0]
    tested = [row for row in trained if _tested(row)]
    verdict, counts = _together(tested), Counter(row["verdict"] for row in tested)
    shown = [row for row in tested if row["verdict"] == verdict] or tested or trained
    # Untrained networks were tested by the same rule; of an unclear finding they may still show what is claimed.
    wanted = "fails" if verdict == "fails" else "holds"
    seen = [row for row in untrained if _tested(row)]
    also = "unmeasured" if not seen else "also" if _together(seen) == wanted else "not"
    bounds = [first["threshold"]]
    if first["margin"] is not None:
        bounds = [first["threshold"] - first["margin"], first["threshold"] + first["margin"]]
    measured = [row for row in shown if row["value"] is not None]
    weakest = min(measured, key=lambda row: min(abs(row["value"] - bound) for bound in bounds), default=first)
    text = _filled(first["finding"], verdict)
    if verdict == "unclear":
        mixed = counts["holds"] and counts["fails"]
        text = f"{'it depends on model and data' if mixed else 'it is unclear'} whether {text}"
    return Finding(
        study=NAMES[first["study"]],
        key=first["claim"],
        statement=text[:1].upper() + text[1:],
        **{name: weakest[key] for name, key in (("effect", "value"), ("low", "low"), ("high", "high"))},
        unit=first["statistic"],
        models=_unique(row["model_title"] for row in tested or trained),
        data=_unique(row["dataset_title"] for row in tested or trained),
        verdict=verdict,
        untrained=also,
        claims=[first["claim"]],
        more=_more(trained, tested, counts, seen),
        bounds=bounds,
        tests=[_as_test(row) for row in trained],
    )


def _tested(row: Mapping[str, Any]) -> bool:
    """Whether a row is a test: it has a verdict, or a p-value that was corrected for the others."""
    return row["verdict"] != "inconclusive" or row["p_adjusted"] is not None


def _together(tests: Sequence[Mapping[str, Any]]) -> str:
    """The verdict of several tests: that of more than half of them, where none has the opposite one."""
    counts = Counter(row["verdict"] for row in tests)
    for verdict, opposite in (("holds", "fails"), ("fails", "holds")):
        if 2 * counts[verdict] > len(tests) and not counts[opposite]:
            return verdict
    return "unclear"


def _more(
    trained: Sequence[dict[str, Any]],
    tested: Sequence[dict[str, Any]],
    counts: Mapping[str, int],
    untrained: Sequence[dict[str, Any]],
) -> str:
    """How many tests have which verdict, how far the effects reach, what was not tested, and untrained networks."""
    parts = []
    if tested:
        each = [f"{name} in {counts[name]}" for name in ("holds", "fails", "inconclusive") if counts[name]]
        parts.append(f"{', '.join(each)} of {len(tested)} test{'s' * (len(tested) > 1)}")
        parts += [f"effects {_span(tested)}"] if len(tested) > 1 else []
    without = [row["reason"] for row in trained if not _tested(row)]
    if without:
        (reason, _), *_ = Counter(without).most_common(1)
        parts.append(f"{len(without)} {'more ' * bool(tested)}not tested ({reason})")
    if untrained:
        parts.append(f"untrained {_span(untrained)}")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."


def _span(rows: Sequence[Mapping[str, Any]]) -> str:
    values = [row["value"] for row in rows]
    return " to ".join(dict.fromkeys(three_digits(end) for end in (min(values), max(values))))


def _as_test(row: Mapping[str, Any]) -> Tested:
    return Tested(
        model=row["model_title"],
        data=row["dataset_title"],
        responses=row["responses"],
        effect=row["value"],
        low=row["low"],
        high=row["high"],
        verdict=row["verdict"] if _tested(row) else UNTESTED,
        untrained=row["untrained"],
    )


def _filled(finding: str, verdict: str = "holds") -> str:
    """A sheet's finding with the words of the verdict."""
    return _CHOICE.sub(lambda found: found.group(2 if verdict == "fails" else 1), finding)


def _unique(names: Any) -> list[str]:
    return list(dict.fromkeys(names))
