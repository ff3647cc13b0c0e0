"""Verdicts over all tests of a run: one rule, corrected for the number of tests."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gradatlas.charts.numbers import as_given, three_digits
from gradatlas.claims.ability import Ability, before_a_run
from gradatlas.claims.estimates import EXACT, NOT_REQUESTED, ONE_TRAINING, SCALES, Student, p_value
from gradatlas.claims.sheet import OVERALL, Claim
from gradatlas.claims.tables import CLAIMS, EVIDENCE
from gradatlas.core.errors import InputError
from gradatlas.core.files import write_text
from gradatlas.core.spreadsheets import csv_of
from gradatlas.core.tables import read_table, write_table
from gradatlas.statistics.bootstrap import LEVEL
from gradatlas.statistics.corrections import holm
from gradatlas.statistics.counts import FEWEST_SAMPLES

ALPHA = 1 - LEVEL
NO_ABILITY = "no measure of ability: nothing tells right answers from wrong"
# With fewer seeds there is no verdict over seeds.
FEWEST_SEEDS = 3
VERDICTS = ("holds", "fails", "inconclusive")


def decide(
    evidence: Sequence[str | Path],
    claims: Sequence[Claim],
    abilities: Mapping[tuple[str, str], Ability],
    output: str | Path,
    prompts: Mapping[str, str] | None = None,
) -> pl.DataFrame:
    """Write the claims table as ``{output}.parquet``, ``.csv`` and ``.json``, and return it.

    `evidence`: tables of `gather`; `prompts`: by model, the form of its prompts. A claim holds where the whole 95 %
    interval lies on the claimed side of its threshold and the p-value, by Holm's method over all tests of that claim in
    this run, is below .05; it fails where the same is true of the other side; else it is inconclusive, and `reason`
    states why. No verdict on a task that the model cannot do with the slowest variant that the claim uses, nor on fewer
    than 20 samples, nor where no effect could show (`_no_headroom`): those rows are no tests, and correct no other's
    p-value. An untrained network needs no ability: its rows are controls, corrected among themselves, and its number is
    beside those of the models that were trained from it (`untrained`).

    A claim on trainings has its verdict over seeds; the reason of one seed states what its probes alone would give. An
    exact number has no p-value: it lies where it is claimed, or does not.
    """
    known = {claim.claim: claim for claim in claims}
    found = pl.concat([pl.from_arrow(read_table(EVIDENCE, path)) for path in evidence]).to_dicts()
    for row in found:
        if row["claim"] not in known:
            raise InputError(f"evidence for '{row['claim']}', which is no row of config/claims.tsv; make it again")
    rows = [_judgeable(row, known[row["claim"]], abilities) for row in found]
    _beside_untrained(rows)
    over_seeds = _over_seeds(rows, known)
    _of_one_training(rows, known)
    rows += over_seeds
    for row in rows:
        row["reason"] = row["reason"] or _no_headroom(row)
    place = {name: rank for rank, name in enumerate(known)}
    for claim in claims:
        for untrained in (False, True):
            tested = [
                row
                for row in rows
                if row["claim"] == claim.claim and not row["reason"] and (row["kind"] == "random") == untrained
            ]
            for row, adjusted in zip(tested, holm([row["p_value"] for row in tested]), strict=True):
                row["p_adjusted"] = adjusted
    table = [_finished(row, known[row["claim"]], prompts or {}) for row in rows]
    table.sort(key=lambda row: (place[row["claim"]], *_order(row), row["projection"] != OVERALL))
    write_table(CLAIMS, table, f"{output}.parquet", {"alpha": ALPHA, "fewest": FEWEST_SAMPLES})
    frame = pl.from_arrow(read_table(CLAIMS, f"{output}.parquet"))
    write_text(f"{output}.csv", csv_of(frame))
    write_text(f"{output}.json", json.dumps(frame.to_dicts(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return frame


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """By dataset, model and responses; numbers in a name by their size."""
    parts = re.split(r"(\d+)", row["relation"])
    return row["dataset"], row["model"], [int(part) if part.isdigit() else part for part in parts]


def _judgeable(row: dict[str, Any], claim: Claim, abilities: Mapping[tuple[str, str], Ability]) -> dict[str, Any]:
    """The row with what the model can do beside it; `reason`, where that or the samples forbid a verdict."""
    # Of two datasets, the task is that of the one compared with.
    dataset = row["reference_dataset"] or row["dataset"]
    ability, variants = abilities.get((row["model"], dataset)), row["variants"].split()
    needed = claim.ability_of if row["kind"] != "random" else "free"
    reason = row["reason"]
    if not reason and not all(map(_finite, (row["value"], row["low"], row["high"], row["p_value"]))):
        reason = "cannot be computed on these curves"
    elif not reason and row["n"] < FEWEST_SAMPLES and row["test"] != EXACT:
        reason = f"only {row['n']} sample{'s' * (row['n'] > 1)}; {FEWEST_SAMPLES} are needed"
    elif not reason and needed != "free":
        models = [row["model"], *([row["reference_model"]] if needed != "own" else [])]
        found = {model: abilities[model, dataset] for model in models if (model, dataset) in abilities}
        used = () if needed == "task" else variants
        reason = next((f"{model} {each.unable(used)}" for model, each in found.items() if each.unable(used)), "")
    known = _known(ability, claim, variants, needed) if ability else {}
    before, unable = before_a_run(row)
    if needed != "free" and not reason:
        reason = unable
    decided = {"reason": reason, "p_adjusted": None, "untrained": None, "one_of_several": False, "probes_alone": ""}
    return _NOTHING_KNOWN | row | known | before | decided


# Of what the model can do, where that was not measured.
_NOTHING_KNOWN = {"accuracies": "", "ability_test": "", "remark": ""} | dict.fromkeys(
    ("accuracy", "chance", "mastered")
)


def _known(ability: Ability, claim: Claim, variants: Sequence[str], needed: str) -> dict[str, Any]:
    """What the model can do; `remark`: on variants of which the claim needs no mastery."""
    judged = ability.slowest(() if claim.ability_of == "task" else variants)
    guessed = [name for name in ability.guessed if name in variants] if needed == "task" else []
    guesses = f"answers no better than chance: {ability.accuracies(guessed)} (chance {ability.chance:.2f})"
    return {
        "accuracies": ability.accuracies([*variants, judged]),
        "ability_test": ability.test,
        "accuracy": ability.shares[judged][0],
        "chance": ability.chance,
        "mastered": ability.masters(judged),
        "remark": guesses if guessed else "",
    }


def _beside_untrained(rows: Sequence[dict[str, Any]]) -> None:
    """Put the number of the untrained network beside each row of a model that was trained from one."""
    keys = ("claim", "dataset", "reference_dataset", "relation", "projection")
    values = {(row["model"], *(row[key] for key in keys)): row["value"] for row in rows if row["kind"] == "random"}
    for row in rows:
        row["untrained"] = values.get((row["untrained_model"], *(row[key] for key in keys)))


def _over_seeds(rows: Sequence[dict[str, Any]], claims: Mapping[str, Claim]) -> list[dict[str, Any]]:
    """One row more where models of a kind differ in their seed alone: the mean over them, Student's t over seeds."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if row["seed"] is not None and row["projection"] == OVERALL:
            # Of a claim on trainings, the seed is the training's, not the model's.
            alike = row["model"] if claims[row["claim"]].over_seeds else row["kind"]
            key = (row["claim"], alike, row["dataset"], row["reference_dataset"], row["relation"])
            groups.setdefault(key, []).append(row)
    return [
        _of_seeds(group, claims[key[0]], key[1])
        for key, group in groups.items()
        if len({row["seed"] for row in group}) > 1
    ]


def _of_one_training(rows: Sequence[dict[str, Any]], claims: Mapping[str, Claim]) -> None:
    """Give the rows of one training, of claims that need several, their reason; `one_of_several`, where more were made.

    The verdict over its probes alone is by the same rule, corrected among the rows of this claim and seed.
    """
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    seeds: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        if claims[row["claim"]].over_seeds and row["seed"] is not None:
            seeds[_training(row)] += 1
            groups.setdefault((row["claim"], row["seed"]), []).append(row)
    for (name, _), group in groups.items():
        for row in group:
            row["one_of_several"] = seeds[_training(row)] > 1
        usable = [row for row in group if not row["reason"]]
        for row, adjusted in zip(usable, holm([row["p_value"] for row in usable]), strict=True):
            alone, _ = _verdict(row | {"p_adjusted": adjusted, "reason": _no_headroom(row)}, claims[name])
            count = f" of {seeds[_training(row)]}" if row["one_of_several"] else ""
            row["probes_alone"] = alone if row["test"] != ONE_TRAINING else ""
            probes = f"; over its probes alone: {alone}" if row["probes_alone"] else ""
            row["reason"] = f"1 seed{count}{probes}"


def _no_headroom(row: Mapping[str, Any]) -> str:
    """Why an effect could not show, where not even the largest possible one is as large as the interval's half."""
    if row["headroom"] is None or not all(map(_finite, (row["low"], row["high"]))):
        return ""
    half = (row["high"] - row["low"]) / 2
    if row["headroom"] >= half:
        return ""
    return f"no headroom: {_short(row['headroom'])} at most, less than half the interval, {_short(half)}"


def _training(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(row[name] for name in ("claim", "model", "dataset", "relation"))


def _of_seeds(group: Sequence[dict[str, Any]], claim: Claim, alike: str) -> dict[str, Any]:
    usable = [row for row in group if not row["reason"]]
    scale = SCALES[group[0]["scale"]]
    values = scale.to(np.array([row["value"] for row in usable]))
    k = len(values)
    value = float(scale.back(values.mean())) if k else math.nan
    low = high = p = math.nan
    if k >= FEWEST_SEEDS:
        student = Student.of_values(values, scale)
        low, high = student.interval
        p = p_value(claim, value, student.tails)
    why = "; ".join(dict.fromkeys(row["reason"] for row in group if row["reason"]))
    left_out = f"{len(group) - k} of {len(group)} seeds left out: {why}" if why else ""
    reason = "" if k >= FEWEST_SEEDS else f"{k} usable seeds of {len(group)}; {FEWEST_SEEDS} are needed"
    reason += f" ({why})" if reason and why else ""
    known, remarks = _NOTHING_KNOWN, [left_out]
    if claim.over_seeds:
        # Of the seed whose start can do least.
        least = min(usable or group, key=lambda row: math.inf if row["accuracy"] is None else row["accuracy"])
        known = {name: least[name] for name in _NOTHING_KNOWN}
        unknown = claim.ability_of != "free" and known["mastered"] is None
        remarks += [NO_ABILITY] if unknown else []
    headrooms = [row["headroom"] for row in usable if row["headroom"] is not None]
    return group[0] | {
        "model": f"{alike}, over seeds",
        "reference_model": "",
        "seed": None,
        "value": value,
        "low": low,
        "high": high,
        "n": k,
        "p_value": p,
        "test": f"t over seeds{f', {len(group) - k} left out' if k < len(group) else ''}",
        "headroom": float(np.mean(headrooms)) if headrooms else None,
        "untrained": None,
        "reason": reason,
        "probes_alone": "",
        "p_adjusted": None,
        **known,
        "remark": "; ".join(filter(None, remarks)),
    }


def _finished(row: dict[str, Any], claim: Claim, prompts: Mapping[str, str]) -> dict[str, Any]:
    verdict, reason = _verdict(row, claim)
    published = claim.published_number(row)
    if row["test"] in (EXACT, ONE_TRAINING):
        row = row | dict.fromkeys(("low", "high", "p_value", "p_adjusted"))
    carried = {name: value for name, value in row.items() if name in CLAIMS.names}
    numbers = {name: None for name, value in carried.items() if isinstance(value, float) and not math.isfinite(value)}
    return {
        **carried,
        **numbers,
        **{name: getattr(claim, name) for name in _OF_CLAIM},
        # On an untrained network no claim of the study is tested: the others are compared with it.
        "status": _status(row, claim),
        "claim_status": claim.status,
        "published": None if published is None else float(published),
        "verdict": verdict,
        "reason": reason,
        "statement": _statement(row, claim, published) + _forms(row, prompts),
    }


_OF_CLAIM = ("study", "source", "title", "finding", "statistic", "direction", "threshold", "margin")


def _status(row: Mapping[str, Any], claim: Claim) -> str:
    if row["test"] == NOT_REQUESTED:
        return "not_asked"
    return "seed" if row["one_of_several"] else "control" if row["kind"] == "random" else claim.status


def _verdict(row: Mapping[str, Any], claim: Claim) -> tuple[str, str]:
    if row["reason"]:
        return "inconclusive", row["reason"]
    low, high = row["low"], row["high"]
    if claim.claimed(low) and claim.claimed(high):
        verdict = "holds"
    elif _against(claim, low, high):
        verdict = "fails"
    else:
        why = f"the interval contains {' or '.join(map(as_given, claim.bounds))}"
        return "inconclusive", "; ".join(filter(None, (why, row["remark"])))
    if claim.claimed(row["value"]) != (verdict == "holds") or row["p_adjusted"] >= ALPHA:
        why = f"p = {row['p_adjusted']:.2g} after correction for the number of tests"
        return "inconclusive", "; ".join(filter(None, (why, row["remark"])))
    needed = claim.ability_of != "free" and row["kind"] != "random" and not row["test"].startswith("t over seeds")
    return verdict, "what the model can do was not measured" if needed and row["mastered"] is None else row["remark"]


def _against(claim: Claim, low: float, high: float) -> bool:
    """Whether the whole interval lies on the side that is not claimed."""
    if claim.direction == "within":
        return high < claim.bounds[0] or low > claim.bounds[1]
    return high < claim.threshold if claim.direction == "above" else low > claim.threshold


def _statement(row: Mapping[str, Any], claim: Claim, published: str | None) -> str:
    number = _short(row["value"])
    if _finite(row["low"]) and _finite(row["high"]):
        number += f" [{_short(row['low'])}, {_short(row['high'])}]"
    bound = as_given(claim.threshold)
    within = claim.direction == "within"
    wanted = f"within {as_given(claim.margin)} of {bound}" if within else f"{claim.direction} {bound}"
    beside = f"; published{claim.published_of}: {published}" if published else ""
    return f"{claim.statement.format(number)}{claim.place(row)}; claimed: {wanted}{beside}"


def _forms(row: Mapping[str, Any], prompts: Mapping[str, str]) -> str:
    """The forms of the prompts of two models that are compared, where they differ."""
    own, other = (prompts.get(row[name]) for name in ("model", "reference_model"))
    return f"; prompts: {own} against {other}" if own and other and own != other else ""


def _short(value: float) -> str:
    """Three significant digits without trailing zeros: 0.0512, 21.7, 1,230, 2."""
    text = three_digits(value)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
