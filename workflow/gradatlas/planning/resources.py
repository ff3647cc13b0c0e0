"""Memory and time of one job, for rules: from the cards of its models and the files that it reads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gradatlas.planning import costs
from gradatlas.planning.dynamics import MOMENTS, prompts_of, tokens_of
from gradatlas.planning.known import Model
from gradatlas.planning.stages import SCORING, job_memory, training_memory
from gradatlas.planning.throughput import Rate
from gradatlas.planning.work import gradient_load
from gradatlas.study.config import Study
from gradatlas.study.probe_types import TYPES
from gradatlas.study.runs import Plan, snapshots

#: Bytes of a token: fewer than in English text (4 to 5), as code, numbers and other scripts have fewer.
BYTES = 3
#: What a rule asks for over the estimate, which is exact to some percent where batches are full.
HEADROOM = 1.1
#: Bytes of Snakemake's own processes, which are part of a job on a cluster; 180 to 210 MB each, measured.
SNAKEMAKE = 400e6
#: Minutes of a job on a model whose shape is unknown.
UNKNOWN = 240


@dataclass(frozen=True)
class Work:
    """Samples by tokens, `passes` over each, and the `projections` whose spectra are taken."""

    lengths: Mapping[int, float]
    projections: Sequence[str] = ()
    passes: float = 1


def measuring(study: Study, model: Model, dataset: str, responses: str) -> Work:
    """The work of a job of gradients, from the bytes of its responses."""
    load = gradient_load(study, model, dataset, responses, BYTES)
    shards = study.config["shards"]
    lengths = {length: count / shards for length, count in load.lengths.items()} if load else {}
    return Work(lengths, model.measured(study.config["projections"]))


def scoring(paths: Sequence[str | Path], window: int, projections: Sequence[str]) -> Work:
    """The work of scoring training files, from their bytes, as if each sample filled the window."""
    tokens = sum(Path(path).stat().st_size for path in paths) // BYTES
    return Work({window: tokens // window + 1}, projections, SCORING)


def reading(config: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], model: Model) -> Work:
    """The work of training `runs`."""
    window = model.window(config["dynamics"]["max_length"])
    return Work({window: sum(tokens_of(config, row) for row in runs) / window})


def answering(config: Mapping[str, Any], plan: Plan, model: Model) -> Work:
    """The work of the free responses of the model that runs start from: half a pass over each token."""
    dynamics = config["dynamics"]
    window = model.window(dynamics["max_length"] + dynamics["max_new_tokens"])
    prompts = max((prompts_of(row, dynamics) for row in plan.runs.values()), default=0)
    return Work({window: prompts * dynamics["generate_draws"] / 2})


def following(dynamics: Mapping[str, Any], model: Model) -> Work:
    """The work of a budget or kernels along a run: a pass at each stage, and as much again for products."""
    kernels = dynamics["kernels"]
    responses = len(TYPES) * kernels["prompts"] + 2 * kernels["pairs"]
    return Work({model.window(dynamics["max_length"]): responses}, passes=2 * (kernels["intervals"] + 1))


def following_memory_mb(model: Model, config: Mapping[str, Any], on_gpu: Callable[[Mapping[str, Any]], bool]) -> int:
    """Main memory in MB of such a job: of a job that reads, four more copies of the weights, and 2 GB for factors."""
    read = memory_mb([model], config, config["dynamics"], config["batch_tokens"], [], on_gpu)
    return read + round((4 * costs.weight_bytes(model.parameters or 0, "float32") + 2e9) / 1e6)


def disk_mb(model: Model, work: Work) -> int:
    """Disk of a job of gradients in MB, at least 100."""
    layers = model.shape.layers if model.shape else 0
    tables = costs.gradients_disk(sum(work.lengths.values()), layers, len(work.projections))
    return 100 + round(sum(tables) / 1e6)


def training_disk_mb(model: Model, row: Mapping[str, Any], kernels: Mapping[str, Any]) -> int:
    """Disk of a run in MB: its model, its snapshots twice, and two checkpoints with an optimiser's moments."""
    weights = costs.weight_bytes(model.parameters or 0, model.row["dtype"])
    return 100 + round(weights * (1 + 2 * (len(snapshots(row, kernels)) + 1 + MOMENTS[row["optimiser"]])) / 1e6)


def minutes_of(model: Model, work: Work, rate: Rate, workers: int) -> int:
    """The time limit of a job on so many cores or GPUs."""
    if not model.parameters or not model.shape:
        return UNKNOWN
    core, entries = costs.spectra_flop(model.shape, work.lengths, work.projections)
    passes = work.passes * costs.pass_flop(model.parameters, model.shape, work.lengths)
    flop = ((passes + entries, rate.passes), (core, rate.spectra))
    samples = sum(work.lengths.values()) if work.projections else 0
    return costs.minutes(costs.seconds(flop, samples, model.shape.layers, workers))


def memory_mb(
    models: Sequence[Model],
    config: Mapping[str, Any],
    section: Mapping[str, Any],
    batch_tokens: int,
    runs: Sequence[Mapping[str, Any]],
    on_gpu: Callable[[Mapping[str, Any]], bool],
    dtype: str = "",
    work: Work | None = None,
) -> int:
    """Main memory in MB of a job on `models` (none: an endpoint's), which trains `runs` or only reads.

    `work`: of a job of gradients, which holds the numbers of all its samples. Of a model of unknown shape, three copies
    of its weights beside the libraries.
    """
    needed = 0.0
    for model in models:
        here = replace(model, row={**model.row, "dtype": dtype or model.row["dtype"]})
        if runs:
            found = training_memory(here, runs, config, on_gpu(model.row))[0]
        else:
            projections = model.measured(section.get("projections", ()))
            found = job_memory(here, section["max_length"], batch_tokens, projections, on_gpu(model.row))[0]
        if work and model.shape:
            gradients = sum(work.lengths.values()) * model.shape.layers * len(work.projections)
            needed += costs.RECORD * gradients
        needed += found or costs.LIBRARIES + costs.CUDA + 3 * 4 * (model.parameters or 0)
    return round((HEADROOM * (needed or costs.LIBRARIES) + SNAKEMAKE) / 1e6)
