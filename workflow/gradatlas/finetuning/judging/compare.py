"""Judging runs against their baselines, generation by generation."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_table, write_table
from gradatlas.data.tables import PAIRS
from gradatlas.finetuning.judging.judges import Answer, Contest, Judge, verdict_of
from gradatlas.finetuning.judging.scores import read_generations
from gradatlas.finetuning.tables import GENERATION_SCORES, JUDGEMENTS

#: As in the study: prompts that no run was trained on.
SPLIT = "held_out"


def judge_generations(
    runs: Mapping[str, str],
    steps: Mapping[str, int],
    baselines: Mapping[str, Sequence[str]],
    scores: str,
    pairs: str,
    judge: Judge,
    output: str | Path,
) -> None:
    """Write the ``judgements`` table: every run against its `baselines` among `runs`.

    `runs`: ``generations`` tables by name. `steps`: the number of updates of each run. Two runs are compared at equal
    shares of their steps: at the same step for runs of the same length, and at the end for all. Prompts without a
    response in one of the two are not judged but counted in the metadata. Raises `InputError` for `scores` of other
    generations.
    """
    prompts = {pair["pair_id"]: pair["prompt"] for pair in read_table(PAIRS, pairs).to_pylist()}
    scored = {_place(row): row for row in read_table(GENERATION_SCORES, scores).to_pylist()}
    responses = {name: _at(name, path, steps[name]) for name, path in runs.items()}
    rows, contests, missing = [], [], 0
    for name, against in baselines.items():
        for other in (other for other in against if other in runs):
            for share in sorted(responses[name].keys() & responses[other].keys()):
                ours, theirs = responses[name][share], responses[other][share]
                missing += len(ours.keys() ^ theirs.keys())
                for key in (key for key in ours if key in theirs):
                    rows.append(_row(ours[key], theirs[key], judge.name))
                    answers = [_answer(row, scored, scores) for row in (ours[key], theirs[key])]
                    contests.append(Contest(prompts[key[0]], *answers))
    for row, preference in zip(rows, judge.prefer(contests), strict=True):
        verdict = verdict_of(preference)
        row |= {"forward": preference[0], "backward": preference[1], "verdict": verdict}
        row["status"] = "unreadable" if verdict is None else "ok"
    unreadable = sum(row["status"] == "unreadable" for row in rows)
    progress(
        f"{len(rows)} contests judged, {unreadable} without a readable verdict; {missing} not judged, as a response is "
        "missing"
    )
    facts = {"judge": dict(judge.facts), "unreadable": unreadable, "without_response": missing}
    write_table(JUDGEMENTS, rows, output, facts)


def _at(name: str, path: str, steps: int) -> dict[Fraction, dict[tuple[str, int], dict[str, Any]]]:
    """A run's responses to held-out prompts by share of its steps, prompt and draw."""
    found: dict[Fraction, dict[tuple[str, int], dict[str, Any]]] = {}
    for row in read_generations(name, path):
        if row["split"] == SPLIT and row["status"] == "ok":
            found.setdefault(Fraction(row["step"], steps), {})[row["pair_id"], row["draw"]] = row
    return found


def _row(ours: Mapping[str, Any], theirs: Mapping[str, Any], judge: str) -> dict[str, Any]:
    same = {key: ours[key] for key in ("run", "seed", "step", "examples", "pair_id", "draw")}
    return {**same, "baseline": theirs["run"], "baseline_step": theirs["step"], "judge": judge}


def _answer(row: Mapping[str, Any], scored: Mapping[tuple, Mapping[str, Any]], scores: str) -> Answer:
    if _place(row) not in scored:
        raise InputError(f"{scores}: has no run '{row['run']}', step {row['step']}; score the same generations")
    score = scored[_place(row)]
    return Answer(row["response"], row["finished"], score["repetition"], score["correct"])


def _place(row: Mapping[str, Any]) -> tuple:
    return tuple(row[key] for key in ("run", "step", "pair_id", "draw"))
