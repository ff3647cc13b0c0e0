"""Which finetuning runs a config asks for, from which start, on which pairs: checked, at every start of Snakemake."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow.lib.corpora.partners import PARTNERS
from workflow.lib.errors import InputError, nearest
from workflow.lib.study import FORMATS, MINIATURE_PAIRS, Row, read_keys, read_sheet


@dataclass(frozen=True)
class Plan:
    """`runs` by name, each after the one it starts from. `start`: the unwatched run whose model the watched ones start
    from, whose samples are probes; empty, the model itself. `mapping`: of pairs that are not the miniature's."""

    runs: dict[str, Row]
    start: str
    mapping: Row | None

    @property
    def watched(self) -> list[str]:
        """The runs with probes."""
        return [name for name, row in self.runs.items() if row["watched"]]

    @property
    def is_file(self) -> bool:
        """Whether the pairs are read from files here, and not from the hub."""
        return self.mapping is not None and Path(self.mapping["source"]).suffix.lower() in FORMATS


def read_plan(dynamics: Mapping[str, Any], root: str | Path) -> Plan:
    """The plan of a checked `dynamics` config; without runs, an empty one.

    Raises `InputError` for an unknown run, a circle of starts, runs whose probes would come from different models, and
    a mapping of pairs that is missing or contradicts itself.
    """
    root = Path(root)
    if not dynamics["runs"]:
        return Plan({}, "", None)
    sheet = read_sheet(root / "config/runs.tsv", root / "workflow/schemas/runs.schema.yaml", "run")
    runs: dict[str, Row] = {}
    for name in dynamics["runs"]:
        _add(name, "config key 'dynamics.runs'", sheet, runs, ())
    starts = {_start(name, runs) for name, row in runs.items() if row["watched"]}
    if not starts:
        raise InputError("config key 'dynamics.runs': no run among them is watched by probes; add one, such as sft")
    if len(starts) > 1:
        said = " and ".join(sorted(start or "the model itself" for start in starts))
        raise InputError(
            f"config key 'dynamics.runs': runs start from {said}, and probes are made by one model; ask for them apart"
        )
    return Plan(runs, starts.pop(), _mapping(dynamics["pairs"], root))


def _add(name: str, where: str, sheet: Mapping[str, Row], runs: dict[str, Row], above: tuple[str, ...]) -> None:
    if name not in sheet:
        raise InputError(f"{where}: unknown run '{name}': {nearest(name, sheet)}")
    if name in above:
        raise InputError(
            f"config/runs.tsv: run '{name}' starts from itself ({' from '.join([*above, name])}); mend init"
        )
    row = sheet[name]
    for other in row["baseline"]:
        if other not in sheet:
            where = f"config/runs.tsv, run '{name}', column 'baseline'"
            raise InputError(f"{where}: unknown run '{other}': {nearest(other, sheet)}")
    if row["init"]:
        _add(row["init"], f"config/runs.tsv, run '{name}', column 'init'", sheet, runs, (*above, name))
    runs.setdefault(name, row)


def _start(name: str, runs: Mapping[str, Row]) -> str:
    while name and runs[name]["watched"]:
        name = runs[name]["init"]
    return name


def check_prompt(mapping: Mapping[str, Any], where: str) -> None:
    """`InputError` where a checked mapping of pairs has no column of prompts, or one that its format does not read."""
    if (mapping["format"] == "dialogue") == ("prompt" in mapping["columns"]):
        raise InputError(f"{where}: columns.prompt is needed, but for format dialogue, which has none; mend either")
    partner = next((part for part in PARTNERS if part in mapping["columns"]), None)
    if mapping["format"] == "dialogue" and partner:
        raise InputError(f"{where}: columns.{partner} cannot be used: format dialogue has no prompt to join it to")


def _mapping(pairs: str, root: Path) -> Row | None:
    if pairs == MINIATURE_PAIRS:
        return None
    where = f"config/pairs/{pairs}.yaml"
    known = [MINIATURE_PAIRS, *(path.stem for path in (root / "config/pairs").glob("*.yaml"))]
    missing = f"config key 'dynamics.pairs': no {where}: {nearest(pairs, known)}"
    mapping = read_keys(root, where, "workflow/schemas/pairs.schema.yaml", missing)
    check_prompt(mapping, where)
    if Path(mapping["source"]).suffix.lower() in FORMATS:
        for key in ("source", "held_out"):
            if not Path(mapping[key] or "-").is_file():
                raise InputError(f"{where}: '{key}': no file '{mapping[key]}' here; put it there, or mend the key")
    return mapping
