"""What a run found, in plain words: the claims that have a `finding` in their sheet, at most six of each study.

A finding puts the verdicts of one claim's tests together; it decides nothing from the numbers anew.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from gradatlas.charts.numbers import three_digits
from gradatlas.claims.rows import DYNAMICS, GRADIENTS, QUALITY, STUDIES, rows
from gradatlas.claims.sheet import OVERALL

# More of one study are no summary.
MOST = 6
NAMES = {GRADIENTS: "gradients", DYNAMICS: "dynamics", QUALITY: "quality"}
UNTESTED = "not tested"
ONE_SEED = "one seed alone"
ONE_TRAINING = "One seed cannot decide it."
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

    `verdict`: holds, fails or unclear, of what the study claims; `statement`: what was found, and `as_claimed`: what
    that means for the claim. `one_training`: its tests are of one seed each, which decides no claim. `effect`, `low`
    and `high`: of the weakest of the tests with this verdict; `untrained`: also, part, not, unmeasured, or open (of an
    unclear one), and `untrained_tests`: how many of how many tests on untrained networks have this verdict. `bounds`:
    what the effect is claimed to lie above or below, or between.
    """

    study: str
    key: str
    statement: str
    as_claimed: str
    one_training: bool
    effect: float | None
    low: float | None
    high: float | None
    unit: str
    models: list[str]
    data: list[str]
    verdict: str
    untrained: str
    untrained_tests: tuple[int, int]
    claims: list[str]
    more: str
    bounds: list[float]
    tests: list[Tested]


def read_findings(claims: pl.DataFrame, titles: Mapping[str, str]) -> tuple[list[Finding], list[str]]:
    """The findings of a claims table in the order of the sheets, tested ones first, and why others are left out.

    `titles`: of models and datasets, by key.
    """
    overall = claims.filter(pl.col("projection") == OVERALL)
    shown = rows(claims, titles).select("model_title", "dataset_title", "responses", "group", "requested", "remark")
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
                    f"{_filled(tests['finding'][0])}: {tests['remark'][0] or 'no trained model was measured'}"
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
    seen = [row for row in untrained if _tested(row)]
    bounds = [first["threshold"]]
    if first["margin"] is not None:
        bounds = [first["threshold"] - first["margin"], first["threshold"] + first["margin"]]
    # What the probes of single trainings say, where nothing else was tested.
    single = [row for row in trained if row["probes_alone"]] if not tested else []
    found = _together_of([row["probes_alone"] for row in single]) if single else verdict
    shown = [row for row in single if row["probes_alone"] == found]
    shown = shown or [row for row in tested if row["verdict"] == verdict] or single or tested or trained
    measured = [row for row in shown if row["value"] is not None]
    weakest = min(measured, key=lambda row: min(abs(row["value"] - bound) for bound in bounds), default=first)
    text, claimed = _filled(first["finding"], found), _filled(first["finding"])
    if found == "unclear":
        mixed = counts["holds"] and counts["fails"]
        text = f"{'it depends on model and data' if mixed else 'it is unclear'} whether {text}"
    elif single:
        text = f"in one training (one seed) {text}"
    return Finding(
        study=NAMES[first["study"]],
        key=first["claim"],
        statement=text[:1].upper() + text[1:],
        as_claimed=_as_claimed(found, claimed, bool(single)),
        one_training=bool(single),
        **{name: weakest[key] for name, key in (("effect", "value"), ("low", "low"), ("high", "high"))},
        unit=first["statistic"],
        models=_unique(row["model_title"] for row in tested or trained),
        data=_unique(row["dataset_title"] for row in tested or trained),
        verdict=verdict,
        untrained=_untrained(verdict, seen),
        untrained_tests=(sum(row["verdict"] == verdict for row in seen), len(seen)),
        claims=[first["claim"]],
        more=_more(trained, tested, single, counts, seen),
        bounds=bounds,
        tests=[_as_test(row) for row in trained],
    )


def _as_claimed(found: str, claimed: str, one_training: bool) -> str:
    """What a finding means for the study's claim; it follows the symbol of the verdict."""
    words = {
        "holds": "The study claims the same",
        "fails": f"The study claims the opposite: {claimed}",
        "unclear": "The study claims that it is so",
    }[found]
    return f"{words}. {ONE_TRAINING}" if one_training else f"{words}."


def _untrained(verdict: str, tests: Sequence[Mapping[str, Any]]) -> str:
    """Whether untrained networks show what a finding states, by the same rule, or in some tests at least."""
    if not tests:
        return "unmeasured"
    if verdict == "unclear":
        return "open"
    if _together(tests) == verdict:
        return "also"
    return "part" if any(row["verdict"] == verdict for row in tests) else "not"


def _tested(row: Mapping[str, Any]) -> bool:
    """Whether a row is a test: it has a verdict, or a p-value that was corrected for the others."""
    return row["verdict"] != "inconclusive" or row["p_adjusted"] is not None


def _together(tests: Sequence[Mapping[str, Any]]) -> str:
    """The verdict of several tests: that of more than half of them, where none has the opposite one."""
    return _together_of([row["verdict"] for row in tests])


def _together_of(verdicts: Sequence[str]) -> str:
    counts = Counter(verdicts)
    for verdict, opposite in (("holds", "fails"), ("fails", "holds")):
        if 2 * counts[verdict] > len(verdicts) and not counts[opposite]:
            return verdict
    return "unclear"


def _more(
    trained: Sequence[dict[str, Any]],
    tested: Sequence[dict[str, Any]],
    single: Sequence[dict[str, Any]],
    counts: Mapping[str, int],
    untrained: Sequence[dict[str, Any]],
) -> str:
    """How many tests have which verdict, how far the effects reach, what was not tested, and untrained networks."""
    parts = []
    if tested:
        parts.append(_counted(counts, "test"))
        open_ones = Counter(row["remark"] for row in tested if row["verdict"] == "inconclusive" and row["remark"])
        parts += [f"why inconclusive: {reason}" for reason, _ in open_ones.most_common(1)]
        parts += [f"effects: {_span(tested)}"] if len(tested) > 1 else []
    if single:
        alone = Counter(row["probes_alone"] for row in single)
        parts += ["one seed", f"over its probes alone: {_counted(alone, 'number')}"]
        parts += [f"effects: {_span(single)}"] if len(single) > 1 else []
    without = [row["remark"] for row in trained if not (_tested(row) or row in single)]
    if without:
        (reason, _), *_ = Counter(without).most_common(1)
        parts.append(f"{len(without)} {'more ' * bool(tested or single)}not tested ({reason})")
    if untrained:
        parts.append(f"in untrained networks: {_span(untrained)}")
    return " ".join(f"{part[:1].upper()}{part[1:]}." for part in parts)


def _counted(counts: Mapping[str, int], what: str) -> str:
    each = [f"{name} in {counts[name]}" for name in ("holds", "fails", "inconclusive") if counts[name]]
    total = sum(counts.values())
    return f"{', '.join(each)} of {total} {what}{'s' * (total > 1)}"


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
        verdict=row["verdict"] if _tested(row) else ONE_SEED if row["probes_alone"] else UNTESTED,
        untrained=row["untrained"],
    )


def _filled(finding: str, verdict: str = "holds") -> str:
    """A sheet's finding with the words of the verdict."""
    return _CHOICE.sub(lambda found: found.group(2 if verdict == "fails" else 1), finding)


def _unique(names: Any) -> list[str]:
    return list(dict.fromkeys(names))
