"""The rows of the plan: every stage that takes time on a model, disk, the network, or an endpoint."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gradatlas.planning import costs, dynamics
from gradatlas.planning.estimates import Estimate
from gradatlas.planning.known import Model
from gradatlas.planning.shapes import WIDTHS
from gradatlas.planning.throughput import Rate
from gradatlas.planning.work import Load, gradient_load, pair_length, score_load
from gradatlas.study.config import Study
from gradatlas.study.runs import Plan

#: A pass of `score`, with one more forward pass over the responses.
SCORING = 1.5


def estimates(
    study: Study, plan: Plan, models: Mapping[str, Model], rates: Mapping[str, Rate], on_gpu: Mapping[str, bool]
) -> list[Estimate]:
    """All rows. `models`: what is known of each that the study uses; `on_gpu`: which ones run on a GPU."""
    rows = [*_downloads(models)]
    measured = study.config["gradients"] == "measured"
    for name in (name for name in study.models if name in models):
        for dataset in study.datasets if measured else ():
            load = gradient_load(study, models[name], dataset)
            rows.append(_measuring(study, models[name], dataset, load, rates, on_gpu[name]))
        for dataset in study.scored:
            if study.scores_on(name, dataset):
                load = score_load(study, models[name], dataset)
                rows.append(_scoring(study, models[name], dataset, load, rates, on_gpu[name]))
    rows += _writing(study, models)
    rows += _accuracies(study, models)
    for name in study.learners:
        rows.append(_training(study, plan, models[name], rates, on_gpu[name]))
        rows += _checks(study, plan, models[name])
    known = {name: model.parameters for name, model in models.items() if model.parameters}
    return rows + dynamics.estimate(study.config, plan, study.learners, known)


def _downloads(models: Mapping[str, Model]) -> Iterator[Estimate]:
    for name, model in models.items():
        if model.is_twin:
            size = model.parameters and model.parameters * 4
            yield Estimate(stage="write_untrained", what=name, jobs=1, count=1, kept=size, written=size)
        elif not model.complete:
            size = model.download
            yield Estimate(stage="download_model", what=name, jobs=1, count=1, download=size, kept=size, written=size)


def _measuring(
    study: Study, model: Model, dataset: str, load: Load | None, rates: Mapping[str, Rate], on_gpu: bool
) -> Estimate:
    shards, extras = study.config["shards"], sum(bool(study.config[name]) for name in ("cosines", "tokens"))
    measured = model.measured(study.config["projections"])
    row = _passes("measure_gradients", study, model, dataset, load, rates, on_gpu, 1, measured)
    if load is None or model.shape is None:
        return Estimate(**{**row, "jobs": shards, "kept": None, "written": None})
    projections = len(measured)
    tables, journal = costs.gradients_disk(load.rows, model.shape.layers, projections)
    if study.config["singular_values"]:
        tables += 8 * model.shape.layers * projections * load.tokens
    size = tables + journal + extras * tables
    if row["memory"]:
        row["memory"] += costs.RECORD * load.rows * model.shape.layers * projections / shards
    return Estimate(**{**row, "jobs": shards, "kept": size, "written": size})


def _scoring(
    study: Study, model: Model, dataset: str, load: Load | None, rates: Mapping[str, Rate], on_gpu: bool
) -> Estimate:
    measured = model.measured(study.config["projections"])
    row = _passes("score_samples", study, model, dataset, load, rates, on_gpu, SCORING, measured)
    # Scores, their CSV, measured parts and the page: each token's loss and text; each row's numbers of a layer.
    size = None
    if load and model.shape:
        size = load.tokens * 20 + load.rows * (2000 + model.shape.layers * 100)
    return Estimate(**{**row, "kept": size, "written": size})


def _passes(
    stage: str,
    study: Study,
    model: Model,
    dataset: str,
    load: Load | None,
    rates: Mapping[str, Rate],
    on_gpu: bool,
    times: float,
    projections: Sequence[str],
) -> dict[str, Any]:
    """Work, time and memory of a job of passes and spectra; None where anything that they depend on is unknown."""
    name, unit = model.row["model"], "gpu" if on_gpu else "core"
    row = {"stage": stage, "what": f"{name}, {dataset}", "jobs": 1, "unit": unit}
    memory = job_memory(model, study.config["max_length"], study.config["batch_tokens"], projections, on_gpu)
    row |= dict(zip(("memory", "gpu_memory"), memory, strict=True))
    # Where a batch does not fit into a GPU, its halves are tried, down to one sample.
    longest = load.longest if load and not load.bound else 0
    row["gpu_least"] = job_memory(model, longest, 0, projections, on_gpu)[1]
    if load is None:
        return row | dict.fromkeys(("count", "tokens", "passes", "spectra", "hours"))
    row |= {"count": load.rows, "tokens": load.tokens, "bound": load.bound}
    passes = times * costs.pass_flop(model.parameters, model.shape, load.lengths) if model.parameters else None
    if passes is None or model.shape is None:
        return row | {"passes": passes, "spectra": None, "hours": None}
    core, entries = costs.spectra_flop(model.shape, load.lengths, projections)
    work = ((passes + entries, rates[unit].passes), (core, rates[unit].spectra))
    seconds = costs.seconds(work, load.samples, model.shape.layers, 1)
    return row | {"passes": passes, "spectra": core + entries, "hours": seconds / 3600}


def job_memory(
    model: Model, max_length: int, batch_tokens: int, projections: Sequence[str], on_gpu: bool
) -> tuple[float | None, float | None]:
    """Bytes of main memory, and of a GPU (0 where it takes none), of a job of passes; None where unknown."""
    if not model.parameters or not model.shape:
        return None, None if on_gpu else 0
    dtype = model.row["dtype"]
    weights = costs.weight_bytes(model.parameters, dtype, model.row["quantise"])
    work = costs.pass_bytes(model.shape, model.window(max_length), batch_tokens, dtype, projections)
    if projections and dtype in ("bfloat16", "float16") and not on_gpu:
        # Some samples are measured in float32 too; a GPU without room for that goes on without.
        work += costs.weight_bytes(model.parameters, "float32")
    return costs.host_bytes(weights, on_gpu, work), (weights + work) / model.row["gpus"] if on_gpu else 0


def _training(study: Study, plan: Plan, model: Model, rates: Mapping[str, Rate], on_gpu: bool) -> Estimate:
    settings, unit = study.config["dynamics"], "gpu" if on_gpu else "core"
    jobs = len(settings["seeds"]) * len(plan.runs)
    row = {"stage": "finetune", "what": model.row["model"], "jobs": jobs, "unit": unit, "bound": True}
    length = pair_length(study, plan, model)
    tokens = len(settings["seeds"]) * sum(dynamics.tokens_of(study.config, each, length) for each in plan.runs.values())
    row |= {"count": len(settings["seeds"]) * sum(each["steps"] for each in plan.runs.values()), "tokens": tokens}
    if not model.parameters:
        return Estimate(**row, passes=None, hours=None, memory=None, gpu_memory=None if on_gpu else 0)
    longest = min(model.window(settings["max_length"]), length or settings["max_length"])
    passes = costs.pass_flop(model.parameters, model.shape, {longest: tokens / longest})
    seconds = costs.seconds([(passes, rates[unit].passes)], 0, 0, 1) + (jobs - 1) * costs.START
    memory = training_memory(model, plan.runs.values(), study.config, on_gpu)
    row["gpu_least"] = costs.TRAINING * costs.weight_bytes(model.parameters, model.row["dtype"]) if on_gpu else 0
    return Estimate(**row, passes=passes, hours=seconds / 3600, memory=memory[0], gpu_memory=memory[1])


def _accuracies(study: Study, models: Mapping[str, Model]) -> Iterator[Estimate]:
    """Exams of miniatures, each of some minutes at most: without hours."""
    questions = study.config["miniature"]["accuracy_questions"]
    for name in study.miniatures if study.datasets else ():
        if name in study.models:
            memory = job_memory(models[name], study.config["max_length"], study.config["batch_tokens"], (), False)[0]
            yield Estimate(stage="measure_accuracy", what=name, jobs=1, count=questions, memory=memory)


def _checks(study: Study, plan: Plan, model: Model) -> Iterator[Estimate]:
    """The check of one step: in float64 on the CPU, of some minutes at most on small models; without hours."""
    settings = study.config["dynamics"]
    if plan.watched and (updates := settings["one_step"]["updates"]):
        precise = replace(model, row={**model.row, "dtype": "float64"})
        memory = training_memory(precise, [{"batch_size": 1, "loss": "dpo"}], study.config, False)[0]
        seeds = len(settings["seeds"])
        yield Estimate(stage="check_step", what=model.row["model"], jobs=seeds, count=seeds * updates, memory=memory)


def training_memory(
    model: Model, runs: Sequence[Mapping[str, Any]], config: Mapping[str, Any], on_gpu: bool
) -> tuple[float | None, float | None]:
    """Bytes of main memory, and of each GPU, of a job that trains: the most of any of the `runs`."""
    if not model.parameters or not model.shape:
        return None, None if on_gpu else 0
    settings, dtype = config["dynamics"], model.row["dtype"]
    window = model.window(settings["max_length"])
    # Pairs have two responses. Probes are evaluated without gradients: of a batch, logits count.
    most = max(row["batch_size"] * (1 if row["loss"] == "sft" else 2) for row in runs) * window
    logits = config["batch_tokens"] * model.shape.vocabulary * WIDTHS[dtype]
    work = max(costs.pass_bytes(model.shape, window, most, dtype, ()), logits)
    weights = costs.TRAINING * costs.weight_bytes(model.parameters, dtype)
    host = costs.host_bytes(weights, on_gpu, work)
    return host * settings["processes"], weights + work if on_gpu else 0


def _writing(study: Study, models: Mapping[str, Model]) -> Iterator[Estimate]:
    """Detailed responses that a model writes."""
    generate = study.config["generate"]
    for dataset in generate["datasets"]:
        wanted = study.config["samples"]
        stated = study.datasets[dataset]["samples"]
        count = stated if wanted == "all" else min(wanted, stated or wanted)
        if generate["endpoint"]:
            tokens = (study.config["max_length"], generate["max_tokens"])
            yield dynamics.requested(generate, "generate_detailed", dataset, count or 0, tokens)
        else:
            yield Estimate(stage="generate_detailed", what=f"{generate['model']}, {dataset}", jobs=1, count=count)
