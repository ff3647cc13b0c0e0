"""What a figure of finetuning runs is drawn from, and which runs of a config answer which question.

`runs`: rows of config/runs.tsv by name, of the watched runs alone, each after the one that it starts from.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from gradatlas.core.tables import Table
from gradatlas.study.runs import lineage

_MOST = 5

Runs = Mapping[str, Mapping[str, Any]]
# What two runs share that differ in their start alone.
_SAME = ("loss", "target", "probed", "negatives", "parameters", "optimiser", "learning_rate", "steps", "batch_size",
         "beta", "label_smoothing", "reference_free")  # fmt: skip


@dataclass(frozen=True)
class Chain:
    """Runs that lead to one another; `title`: the last one's; `exposure`: how many chosen responses were shown before
    the last run began."""

    runs: tuple[str, ...]
    title: str
    exposure: int = 0

    @property
    def last(self) -> str:
        """The run whose changes are reported."""
        return self.runs[-1]


@dataclass(frozen=True)
class RunData:
    """The curves of one model's runs (of one seed, or of several), and what single kinds of figures need besides."""

    frame: pl.DataFrame
    runs: Runs
    title: str = ""
    """the model, or model and seed, as readers see it"""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """the curves' metadata"""
    table: Callable[[Table, str], pl.DataFrame] | None = None
    """a table of one run, by its kind and the run's name"""
    one_step: str | Path | None = None
    followed: Sequence[str] = ()
    """runs with a budget and kernels"""
    published: Sequence[Mapping[str, Any]] = ()
    """rows of config/published_dynamics.tsv"""


def each_run(data: RunData) -> list[list[Chain]]:
    """Every run by itself."""
    return [[Chain((name,), row["title"] or name)] for name, row in data.runs.items()]


def in_groups(chains: Sequence[Chain]) -> list[list[Chain]]:
    """As many chains to a figure as its lines can be told apart."""
    return [list(chains[first : first + _MOST]) for first in range(0, len(chains), _MOST)]


def chains_of(runs: Runs) -> list[Chain]:
    """Runs that are not on the probed prompts alone, up to those that no other starts from."""
    runs = {name: row for name, row in runs.items() if not row["probed"]}
    taken = {row["init"] for row in runs.values()}
    return [_chain(name, runs) for name in runs if name not in taken]


def lengths(runs: Runs) -> list[Chain]:
    """Off-policy DPO after SFT of different lengths, the shortest first; nothing where there is one length alone."""
    found = [chain for chain in _preferences(runs) if all(runs[name]["target"] == "chosen" for name in chain.runs[:-1])]
    alike = [chain for chain in found if _settings(runs[chain.last]) == _settings(runs[found[0].last])]
    by_length = {chain.exposure: chain for chain in sorted(alike, key=lambda chain: chain.exposure)}
    return list(by_length.values()) if len(by_length) > 1 else []


def extended(runs: Runs) -> list[Chain]:
    """DPO after SFT on the chosen responses and after SFT on both, and the control that sees as many chosen ones.

    In the order baseline (as many updates), control, extend; what is missing is left out, and without an extend run or
    anything beside it, all.
    """
    chains = [chain for chain in _preferences(runs) if len(chain.runs) > 1]
    extends = [chain for chain in chains if runs[chain.runs[0]]["target"] == "extend"]
    if not extends:
        return []
    extend = extends[0]
    size = _seen(runs[extend.runs[0]])
    others = [chain for chain in chains if runs[chain.runs[0]]["target"] == "chosen"]
    beside = [chain for seen in (size, size // 2) for chain in others if chain.exposure == seen]
    return [*beside, extend] if beside else []


def losses(runs: Runs) -> list[Chain]:
    """Losses of preference on the probed pairs."""
    found = [_chain(name, runs) for name, row in runs.items() if row["probed"] and row["loss"] != "sft"]
    return found if len(found) > 1 else []


def negatives(runs: Runs) -> list[Chain]:
    """DPO from one start on the data's pairs, and on those with the model's own responses."""
    keys = ["init", *(key for key in _SAME if key != "negatives")]
    for name, row in runs.items():
        alike = [other for other in runs if all(runs[other][key] == row[key] for key in keys)]
        own = [other for other in alike if runs[other]["negatives"] != "off_policy"]
        if row["negatives"] == "off_policy" and own and not row["probed"]:
            return [_chain(each, runs) for each in (name, *own)]
    return []


def rates(runs: Runs) -> list[list[Chain]]:
    """Runs that differ in their learning rate alone, the smallest rate first; one run for each rate."""
    groups: dict[tuple[Any, ...], dict[float, Chain]] = {}
    keys = [key for key in ("init", "probed", *_SAME) if key != "learning_rate"]
    for name, row in runs.items():
        groups.setdefault(tuple(row[key] for key in keys), {}).setdefault(row["learning_rate"], _chain(name, runs))
    return [[chain for _, chain in sorted(group.items())] for group in groups.values() if len(group) > 1]


def learnt(runs: Runs) -> dict[str, tuple[str, str]]:
    """Runs on the probed prompts that learn one type, by SFT, or the pairs, by DPO: the pulled and pushed type.

    In the order of the sheet; nothing without SFT on two types at least.
    """
    probed = {name: row for name, row in runs.items() if row["probed"]}
    targets = {name: (row["target"], "") for name, row in probed.items() if row["loss"] == "sft"}
    pairs = {name: ("chosen", "rejected") for name, row in probed.items() if row["loss"] == "dpo"}
    return targets | pairs if len(targets) > 1 else {}


def _preferences(runs: Runs) -> list[Chain]:
    """Off-policy DPO of all parameters on all prompts, at once or after one run of SFT."""
    found = []
    for name, row in runs.items():
        chain = _chain(name, runs)
        plain = all(runs[each]["parameters"] == "full" and not runs[each]["probed"] for each in chain.runs)
        tuned = [runs[each]["loss"] for each in chain.runs[:-1]]
        if row["loss"] == "dpo" and row["negatives"] == "off_policy" and plain and tuned in ([], ["sft"]):
            found.append(chain)
    return found


def _chain(name: str, runs: Runs) -> Chain:
    names = lineage(name, runs)[::-1]
    exposure = sum(_seen(runs[each]) // (2 if runs[each]["target"] == "extend" else 1) for each in names[:-1])
    return Chain(tuple(names), runs[name]["title"] or name, exposure)


def _seen(row: Mapping[str, Any]) -> int:
    return row["steps"] * row["batch_size"]


def _settings(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in _SAME)
