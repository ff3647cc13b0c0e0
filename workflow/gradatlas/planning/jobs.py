"""The job of the plan."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradatlas.core.jobs import Json


def plan(
    *, config: Sequence[Path] = (), settings: Json[dict[str, Any]] | None = None, output: Path, elsewhere: bool = False
) -> None:
    """Print what a study will take: work, memory, disk, downloads, requests, and what will stop it. It starts nothing.

    It downloads nothing and reads no weights. Tokens are counted where responses and tokenizers are here, and are upper
    bounds elsewhere. Ends with exit code 2, after the tables, where the study cannot run to its end.

    Parameters
    ----------
    config
        config files (.yaml), over config/config.yaml, as for Snakemake
    settings
        the config, as one JSON object; over the files
    output
        the same as JSON
    elsewhere
        jobs run on other machines, such as the nodes of a cluster, whose GPUs and memory are not known here
    """
    import json
    import os
    from dataclasses import asdict

    from gradatlas.core.device import visible_devices
    from gradatlas.core.errors import InputError
    from gradatlas.core.files import ROOT, write_text
    from gradatlas.planning.estimates import lines, time_lines, total
    from gradatlas.planning.files import merged
    from gradatlas.planning.known import known_model
    from gradatlas.planning.refusals import notes, refusals, this_machine
    from gradatlas.planning.stages import estimates
    from gradatlas.planning.throughput import rates
    from gradatlas.study.config import read_study
    from gradatlas.study.runs import read_plan

    study = read_study(merged(config, settings or {}), ROOT)
    runs = read_plan(study.config["dynamics"], ROOT, study.config["generate"]["model"])
    # Released statistics need no model; scores do.
    measured = study.config["gradients"] == "measured"
    read = {
        name: row
        for name, row in study.models.items()
        if measured or any(study.scores_on(name, dataset) for dataset in study.scored)
    }
    rows = {**study.miniatures, **study.writers, **study.judges, **study.learners, **read}
    models = {name: known_model(row, study.config["mirror"]) for name, row in rows.items()}
    machine = this_machine(len(visible_devices(os.environ)), elsewhere)
    on_gpu = {
        name: row["device"] == "cuda" or (row["device"] == "auto" and (elsewhere or machine.gpus > 0))
        for name, row in rows.items()
    }
    speeds = rates(study.config["throughput"])
    found = estimates(study, runs, models, speeds, on_gpu)
    stops = refusals(study, runs, models, found, machine)
    remarks = notes(study, models, found, machine, on_gpu)
    nothing = ["no job reads or downloads a model, or asks an endpoint"]
    print("\n".join([*lines(found), "", *time_lines(found, speeds)] if found else nothing))
    print("\n".join([*(f"note: {line}" for line in remarks), *(f"stop: {line}" for line in stops)]))
    facts: dict[str, Any] = {"rows": [asdict(row) for row in found], "total": asdict(total(found))}
    facts |= {"notes": remarks, "stops": stops}
    facts["throughput"] = {unit: asdict(rate) for unit, rate in speeds.items()}
    write_text(output, json.dumps(facts, indent=1) + "\n")
    if stops:
        more = f" (and {len(stops) - 1} more, above)" if stops[1:] else ""
        raise InputError(f"the study cannot run to its end: {stops[0]}{more}")
