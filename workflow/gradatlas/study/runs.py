"""Which finetuning runs a config asks for, from which start, on which pairs: checked, at every start of Snakemake."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradatlas.core.errors import InputError, nearest
from gradatlas.core.sheets import Row, check_case, read_sheet
from gradatlas.study.mappings import FORMATS, read_pairs
from gradatlas.study.probe_types import REPHRASED
from gradatlas.study.sheets import RunRow
from gradatlas.study.sources import is_address


@dataclass(frozen=True)
class Plan:
    """`runs` by name, each after the one it starts from. `start`: the unwatched run whose model the watched ones start
    from, whose samples are probes; empty, the model itself. `mapping`: of pairs that are not the miniature's.
    `rephrases`: where those of the probes come from, ``grammar``, ``file``, ``written`` by a model, files of all
    ``probes``, or empty: nowhere.
    `notes`: what was decided for pairs of a user's own, a line each."""

    runs: dict[str, Row]
    start: str
    mapping: Row | None
    rephrases: str = ""
    notes: tuple[str, ...] = ()

    @property
    def watched(self) -> list[str]:
        """The runs with probes."""
        return [name for name, row in self.runs.items() if row["watched"]]

    @property
    def is_file(self) -> bool:
        """Whether the pairs are read from files here, and not from the hub."""
        return self.mapping is not None and Path(self.mapping["source"]).suffix.lower() in FORMATS

    @property
    def probe_files(self) -> list[Row]:
        """The files that have the probes' texts, train and held out: path, url (empty of one here) and sha256.

        The path of one that is fetched is the end of its address.
        """
        probes = (self.mapping or {}).get("probes")
        found = []
        for split in ("train", "held_out") if probes else ():
            place, remote = probes[split], is_address(probes[split])
            path, url = ("/".join(place.split("/")[-2:]), place) if remote else (place, "")
            found.append({"path": path, "url": url, "sha256": probes[f"{split}_sha256"]})
        return found


def read_plan(dynamics: Mapping[str, Any], root: str | Path, writer: str = "") -> Plan:
    """The plan of a checked `dynamics` config; without runs, an empty one. `writer`: the model that writes texts.

    Pairs that are not the miniature's have no documents for a warm start: runs that would start from one start from the
    model itself. Raises `InputError` for an unknown run, a circle of starts, runs whose probes would come from
    different models, a run that learns what the pairs do not have or ranks samples without a judge, and a mapping of
    pairs that is missing or contradicts itself.
    """
    root = Path(root)
    if not dynamics["runs"]:
        return Plan({}, "", None)
    sheet = read_sheet(root / "config/runs.tsv", RunRow, "run")
    runs: dict[str, Row] = {}
    for name in dynamics["runs"]:
        _add(name, "config key 'dynamics.runs'", sheet, runs, ())
    check_case(runs, "config key 'dynamics.runs'")
    runs = {name: row | _shortened(row, dynamics) for name, row in runs.items()}
    pairs = dynamics["pairs"]
    mapping = read_pairs(root, pairs)
    runs, notes = _without_warm_start(runs, dynamics) if mapping else (runs, [])
    _check_judge(runs, dynamics["judge"], mapping is None)
    rephrases = "file" if dynamics["rephrases"] else "grammar" if mapping is None else "written" if writer else ""
    if mapping and "probes" in mapping:
        if rephrases == "file":
            raise InputError(
                f"config key 'dynamics.rephrases': config/pairs/{pairs}.yaml names files of probes, which have the "
                "rephrases; remove either"
            )
        rephrases = "probes"
    if not rephrases:
        _check_targets(runs, pairs)
        notes.append(
            f"no rephrases of pairs '{pairs}' (dynamics.rephrases, or generate.model to write them): "
            f"probes of the types {', '.join(REPHRASED)} are left out"
        )
    watched = [name for name, row in runs.items() if row["watched"]]
    for name in dynamics["kernels"]["runs"]:
        if name not in sheet or not sheet[name]["watched"]:
            known = [each for each, row in sheet.items() if row["watched"]]
            raise InputError(f"config key 'dynamics.kernels.runs': no watched run '{name}': {nearest(name, known)}")
    if idle := [name for name in dynamics["kernels"]["runs"] if name not in runs]:
        notes.append(f"no budget and kernels of {', '.join(idle)}: not among the runs of this config")
    # The first run without probes that each starts from; or the model itself, without a name.
    starts = {next((each for each in lineage(name, runs) if not runs[each]["watched"]), "") for name in watched}
    if not starts:
        raise InputError("config key 'dynamics.runs': no run among them is watched by probes; add one, such as sft")
    if len(starts) > 1:
        found = " and ".join(sorted(start or "the model itself" for start in starts))
        raise InputError(
            f"config key 'dynamics.runs': runs start from {found}, and probes are made by one model; "
            "request one of them at a time"
        )
    return Plan(runs, starts.pop(), mapping, rephrases, tuple(notes))


def _shortened(row: Row, dynamics: Mapping[str, Any]) -> Row:
    """The updates of a run, and those between its evaluations, as `dynamics.steps` and `.evaluations` have it."""
    steps, every = max(1, round(row["steps"] * dynamics["steps"])), row["evaluate_every"]
    if every and dynamics["evaluations"]:
        every *= max(1, math.ceil(steps / (every * dynamics["evaluations"])))
    return {"steps": steps, "evaluate_every": every}


def _without_warm_start(runs: Mapping[str, Row], dynamics: Mapping[str, Any]) -> tuple[dict[str, Row], list[str]]:
    """The runs without those on the miniature's documents, and a note of which start from the model itself instead."""
    pairs, warm = dynamics["pairs"], [name for name, row in runs.items() if row["split"] == "base"]
    for name in dynamics["runs"]:
        if name in warm:
            raise InputError(
                f"config key 'dynamics.runs': run '{name}' learns the miniature's documents (split base), which pairs "
                f"'{pairs}' do not have; leave it out"
            )
    kept = {name: row | {"init": "" if row["init"] in warm else row["init"]} for name, row in runs.items()}
    moved = [name for name, row in runs.items() if row["init"] in warm and name not in warm]
    note = f"pairs '{pairs}' have no documents for a warm start ({', '.join(warm)}): {', '.join(moved)} start from"
    return {name: row for name, row in kept.items() if name not in warm}, [f"{note} the model itself"] if moved else []


def _check_judge(runs: Mapping[str, Row], judge: str, miniature: bool) -> None:
    own = [name for name, row in runs.items() if row["negatives"] == "on_policy"]
    if own and (not judge or (judge == "oracle" and not miniature)):
        raise InputError(
            f"config key 'dynamics.judge' is '{judge}', but run '{own[0]}' needs a judge of these pairs; set it, or "
            "leave the run out"
        )


def _check_targets(runs: Mapping[str, Row], pairs: str) -> None:
    for name, row in runs.items():
        if row["loss"] == "sft" and row["target"] in REPHRASED:
            raise InputError(
                f"run '{name}' learns {row['target']}, and nobody writes rephrases of pairs '{pairs}'; name a file in "
                "dynamics.rephrases or a model in generate.model, or leave the run out"
            )


def _add(name: str, where: str, sheet: Mapping[str, Row], runs: dict[str, Row], above: tuple[str, ...]) -> None:
    if name not in sheet:
        raise InputError(f"{where}: unknown run '{name}': {nearest(name, sheet)}")
    if name in above:
        raise InputError(
            f"config/runs.tsv: run '{name}' starts from itself ({' from '.join([*above, name])}); correct init"
        )
    row = sheet[name]
    for other in row["baseline"]:
        if other not in sheet:
            where = f"config/runs.tsv, run '{name}', column 'baseline'"
            raise InputError(f"{where}: unknown run '{other}': {nearest(other, sheet)}")
    if row["init"]:
        _add(row["init"], f"config/runs.tsv, run '{name}', column 'init'", sheet, runs, (*above, name))
    runs.setdefault(name, row)


def due(steps: int, every: int) -> list[int]:
    """After how many of a run's `steps` something is made: before the first, after the last, and every so many."""
    return sorted({0, steps, *(range(every, steps, every) if every else ())})


def snapshots(row: Mapping[str, Any], kernels: Mapping[str, Any]) -> list[int]:
    """The steps of a run, between its first and its last, at which its weights are kept: evaluations of its probes."""
    if row["run"] not in kernels["runs"]:
        return []
    steps, parts = due(row["steps"], row["evaluate_every"]), kernels["intervals"]
    wanted = (row["steps"] * place / parts for place in range(1, parts))
    return sorted({min(steps, key=lambda step: (abs(step - each), step)) for each in wanted} - {0, row["steps"]})


def on_probes(probed: bool, target: str) -> bool:
    """Whether a run trains on the probed pairs only."""
    return probed or target not in ("chosen", "extend")


def trained_pairs(row: Mapping[str, Any], dynamics: Mapping[str, Any]) -> int:
    """How many pairs a run trains on, at most."""
    if row["split"] == "base":
        return dynamics["base_documents"]
    on_few = on_probes(row["probed"], row["target"])
    return min(dynamics["train"], dynamics["probes"]) if on_few else dynamics["train"]


def lineage(name: str, runs: Mapping[str, Row]) -> list[str]:
    """A run and the runs that it starts from, nearest first, as far as `runs` has them."""
    names = []
    while name in runs:
        names.append(name)
        name = runs[name]["init"]
    return names
