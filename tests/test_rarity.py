"""The sweep of `rejected_rarity`: measures by prompt, and their differences by rarity."""

import polars as pl
import pytest
import yaml

from benchmarks.rarity import compared, measured
from conftest import ROOT
from gradatlas.core.errors import InputError
from gradatlas.study.runs import read_plan

DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())


def evaluations(rise):
    """Two prompts, chosen and rejected, before and after DPO; a held-out one that takes no part."""
    rows = []
    for step in (0, 20, 30):
        for pair, split in (("a", "train"), ("b", "train"), ("c", "held_out")):
            for kind in ("chosen", "rejected"):
                at = {"probe_id": f"{pair}/{kind}", "split": split, "type": kind, "step": step, "status": "ok"}
                values = {"log_prob_sum": -8.0 - step, "argmax_log_prob": -4.0 + rise[pair] * step / 30, "tokens": 4}
                rows.append(at | values)
    return pl.DataFrame(rows)


def test_measures_are_levels_before_and_changes_to_the_end():
    found = measured(evaluations({"a": 2.0, "b": 4.0, "c": 99.0}))
    assert found["rejected_start"] == {"a": -2.0, "b": -2.0}
    assert found["argmax"] == {"a": 0.5, "b": 1.0}
    assert found["chosen"] == found["rejected"] == {"a": -30.0, "b": -30.0}


def test_rarities_are_held_against_the_least_prompt_by_prompt():
    found = {(q, 0): measured(evaluations({"a": a, "b": a + 4, "c": 0.0})) for q, a in ((1.0, 3.0), (0.0, 1.0))}
    rows = {(row["rarity"], row["measure"]): row for row in compared(found)}
    # The prompts lie apart, their differences do not.
    rare = rows[1.0, "argmax"]
    assert (rare["value"], rare["more_value"], rare["more_low"], rare["more_high"]) == (1.25, 0.5, 0.5, 0.5)
    assert rare["low"] < rare["high"] and rows[0.0, "argmax"]["more_value"] == 0
    found[1.0, 0]["argmax"]["d"] = 1.0
    with pytest.raises(InputError, match="other prompts"):
        compared(found)


def test_only_the_rejected_answers_differ():
    dynamics = DEFAULT["dynamics"] | yaml.safe_load((ROOT / "config/rarity.yaml").read_text())["dynamics"]
    assert list(read_plan(dynamics, ROOT).runs) == ["base", "sft", "dpo"]
