"""Curves of finetuning runs: means over probes at every step, with intervals over probes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_metadata, read_table, write_table
from gradatlas.finetuning.evaluate import MEASURES
from gradatlas.finetuning.tables import DYNAMICS
from gradatlas.statistics.bootstrap import interval, resampled_means
from gradatlas.statistics.tables import DYNAMICS_CURVES


def summarise_runs(
    model: str, runs: Mapping[str, str], starts: Mapping[str, str], output: str | Path, draws: int, seed: int
) -> None:
    """Write the ``dynamics_curves`` table of one model and seed.

    `runs`: the ``dynamics`` table of every run, by name. `starts`: the run that each run starts from, if any. Probes
    with another status than ok are left out; the metadata name runs that diverged. Raises `InputError` for a table of
    another run.
    """
    frames = {name: _read(name, path) for name, path in runs.items()}
    ends = {name: int(frame["examples"].max()) for name, frame in frames.items()}
    rows = []
    for name, frame in frames.items():
        before = sum(ends[each] for each in _above(name, starts) if each in ends)
        for (split, kind), part in frame.group_by("split", "type", maintain_order=True):
            steps = part.select("step", "examples").unique(maintain_order=True).sort("step")
            # (probes, steps, measures): a probe is drawn with its whole curve.
            part = part.sort("probe_id", "step")
            values = part.select(MEASURES).to_numpy().reshape(-1, len(steps), len(MEASURES))
            both = np.stack([values, values - values[:, :1]])
            means = resampled_means(np.moveaxis(both, 1, 0), draws, seed, f"{model} {name} {split} {kind}")
            bounds = np.stack(interval(means))
            for place, (step, examples) in enumerate(steps.iter_rows()):
                for which, measure in enumerate(MEASURES):
                    level, change = bounds[:, 0, place, which].tolist(), bounds[:, 1, place, which].tolist()
                    rows.append(
                        {"model": model, "seed": int(frame["seed"][0]), "run": name, "split": split, "type": kind}
                        | {"measure": measure, "step": step, "examples": examples, "before": before, "n": len(values)}
                        | dict(zip(("value", "low", "high"), level, strict=True))
                        | dict(zip(("change", "change_low", "change_high"), change, strict=True))
                    )
    stopped = [name for name, path in runs.items() if read_metadata(path, DYNAMICS).get("status") == "diverged"]
    write_table(DYNAMICS_CURVES, rows, output, {"draws": draws, "seed": seed, "diverged": stopped})


def _read(name: str, path: str) -> pl.DataFrame:
    frame = pl.from_arrow(read_table(DYNAMICS, path))
    if set(frame["run"]) != {name}:
        raise InputError(
            f"{path}: holds run {', '.join(sorted(set(frame['run']))) or 'none'}, not '{name}'; give the table of "
            f"'{name}'"
        )
    return frame.filter(pl.col("status") == "ok")


def _above(name: str, starts: Mapping[str, str]) -> Sequence[str]:
    found = []
    while name := starts.get(name, ""):
        found.append(name)
    return found
