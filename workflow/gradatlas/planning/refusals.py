"""Why a run would stop before its end, and what to know before it starts."""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gradatlas.models.snapshots import config_of
from gradatlas.planning.checks import fault_of
from gradatlas.planning.costs import weight_bytes
from gradatlas.planning.estimates import Estimate, in_bytes, total
from gradatlas.planning.known import Model
from gradatlas.study.config import Study
from gradatlas.study.notes import missing_files
from gradatlas.study.runs import Plan
from gradatlas.study.sources import is_address, is_hub_id


@dataclass(frozen=True)
class Machine:
    """What jobs have: visible GPUs, bytes of the smallest one's memory (None: unknown), of main memory, and free on the
    disk, and whether there is a token of the hub. `elsewhere`: jobs run on other machines, whose GPUs and memory are
    not known here."""

    gpus: int
    gpu_memory: int | None
    memory: int
    disk: int
    token: bool
    elsewhere: bool = False


def this_machine(gpus: int, elsewhere: bool) -> Machine:
    """The machine of this process; the disk is that of the working directory."""
    from huggingface_hub import get_token

    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        gpus, _gpu_memory() if gpus else None, memory, shutil.disk_usage(".").free, bool(get_token()), elsewhere
    )


def _gpu_memory() -> int | None:
    import torch

    try:
        sizes = [torch.cuda.get_device_properties(index).total_memory for index in range(torch.cuda.device_count())]
    # A GPU that CUDA cannot open.
    except RuntimeError:
        return None
    return min(sizes, default=None)


def refusals(
    study: Study, plan: Plan, models: Mapping[str, Model], rows: Sequence[Estimate], machine: Machine
) -> list[str]:
    """Lines of what makes the run stop before its end, each with what to do."""
    found = _together((reason, name) for name, model in models.items() for reason in _of_model(model, machine))
    found += _memory(rows, models, machine)
    found += _unpinned_data(study, plan)
    mirror = os.path.expanduser(study.config["mirror"])
    if mirror and not is_address(mirror):
        lines = missing_files(study, mirror, ("resources/sources", mirror))
        found += [line.removeprefix("warning: ") for line in lines]
    needed = sum((row.kept or 0) + (row.temporary or 0) for row in rows)
    if needed > machine.disk:
        found.append(
            f"at least {in_bytes(needed)} will be on the disk, and {in_bytes(machine.disk)} are free in {Path.cwd()}; "
            "free some space, or run in another folder (--directory)"
        )
    return found


def _together(found: Iterable[tuple[str, str]]) -> list[str]:
    """A line for each reason, with the names of all models that it is about in the place of {names} and {list}."""
    names: dict[str, list[str]] = {}
    for reason, name in found:
        names.setdefault(reason, []).append(name)
    return [reason.format(names=", ".join(each), list=" ".join(each)) for reason, each in names.items()]


def _of_model(model: Model, machine: Machine) -> Iterator[str]:
    row = model.row
    pin = "run gradatlas pin --model {list} on a machine with a network"
    if is_hub_id(row["source"]) and model.folder is None:
        if not row["revision"]:
            yield f"{{names}}: no revision in config/models.tsv; {pin}"
        if row["gated"] and not machine.token:
            yield (
                "{names}: their pages on huggingface.co ask to accept a licence, and there is no token; accept it and "
                "set HF_TOKEN to a token of that account"
            )
    if is_hub_id(row["adapter"]) and not row["adapter_revision"]:
        yield f"{{names}}: no adapter_revision in config/models.tsv; {pin}"
    if fault := fault_of(model, elsewhere=machine.elsewhere):
        # Braces in a path are no place for names.
        yield "{names}: " + fault.replace("{", "{{").replace("}", "}}")
    if machine.elsewhere:
        return
    if row["gpus"] > machine.gpus and (row["device"] == "cuda" or row["gpus"] > 1):
        yield (
            f"{{names}}: {row['gpus']} GPU needed (columns device and gpus), {machine.gpus} visible; run where there "
            "are enough, or change the row"
        )
    if _is_heavy(model, machine):
        yield (
            f"{{names}}: more weights than this machine has memory ({in_bytes(machine.memory)}); run elsewhere, or "
            "change dtype or quantise"
        )


def _is_heavy(model: Model, machine: Machine) -> bool:
    """Whether its weights alone need more than the main memory."""
    return weight_bytes(model.parameters or 0, model.row["dtype"], model.row["quantise"]) > machine.memory


def _memory(rows: Sequence[Estimate], models: Mapping[str, Model], machine: Machine) -> Iterator[str]:
    """Lines of jobs that need more memory than there is."""
    light = [row for row in rows if row.memory and not _is_heavy(models[row.what.partition(", ")[0]], machine)]
    if needed := _above(light, "memory", machine.memory, machine):
        yield (
            f"jobs need more memory than this machine has ({in_bytes(machine.memory)}): {needed}; run elsewhere, or "
            "lower batch_tokens, max_length or dynamics.processes, or change dtype or quantise"
        )
    if needed := _above(light, "gpu_least", machine.gpu_memory, machine):
        yield (
            f"jobs need more memory than a GPU here has ({in_bytes(machine.gpu_memory)}), with batches of one sample: "
            f"{needed}; run elsewhere, or change dtype, quantise or gpus, or lower max_length"
        )


def _above(rows: Sequence[Estimate], name: str, most: int | None, machine: Machine) -> str:
    """Models and stages whose jobs need more than `most` bytes of a kind, each with the most that a job needs."""
    if machine.elsewhere or most is None:
        return ""
    needed: dict[str, float] = {}
    for row in rows:
        what = f"{row.what.partition(', ')[0]} ({row.stage})"
        needed[what] = max(needed.get(what, 0), getattr(row, name) or 0)
    return ", ".join(f"{what} {in_bytes(size)}" for what, size in needed.items() if size > most)


def _unpinned_data(study: Study, plan: Plan) -> Iterator[str]:
    mappings = {f"config/mappings/{name}.yaml": row.get("mapping") for name, row in study.datasets.items()}
    mappings[f"config/pairs/{study.config['dynamics']['pairs']}.yaml"] = plan.mapping
    for path, mapping in mappings.items():
        if mapping and is_hub_id(mapping["source"]) and not mapping["revision"]:
            yield f"{path}: {mapping['source']} has no revision; run gradatlas pin --mapping {path}"


def notes(
    study: Study, models: Mapping[str, Model], rows: Sequence[Estimate], machine: Machine, on_gpu: Mapping[str, bool]
) -> list[str]:
    """Lines of what does not stop the run."""
    found = _together(
        (reason, name) for name, model in models.items() for reason in _remarks(study, name, model, on_gpu[name])
    )
    if any(row.jobs for row in rows):
        found.append(
            "not counted: jobs on tables and figures, probes, judging, and the hours of measure_accuracy, check_step "
            "and generate_detailed"
        )
    if any(row.bound and row.stage != "finetune" for row in rows):
        found.append("<= marks upper bounds: tokens are counted once snakemake -- responses models has run")
    if needed := _above(rows, "gpu_memory", machine.gpu_memory, machine):
        found.append(
            f"full batches need more memory than a GPU here has ({in_bytes(machine.gpu_memory)}): {needed}; halves are "
            "tried where samples are measured or scored, and finetuning may stop"
        )
    key = study.config["generate"]["key_variable"]
    if total(rows).requests and not os.environ.get(key):
        found.append(f"an endpoint will be asked, and {key} is not set; some need no key")
    return found


def _remarks(study: Study, name: str, model: Model, on_gpu: bool) -> Iterator[str]:
    row, shape = model.row, model.shape
    for place, used in ((study.config, study.models), (study.config["dynamics"], study.learners)):
        if name in used and model.window(place["max_length"]) < place["max_length"]:
            yield f"{{names}}: {shape.positions} positions, max_length is {place['max_length']}; texts are cut there"
    if row["device"] == "auto" and not on_gpu:
        yield "{names}: device is auto and no GPU is visible; counted as on the CPU"
    if row["gated"] and not model.complete:
        yield "{names}: licences to accept, each on its page on huggingface.co"
    if row["adapter"]:
        yield "{names}: an adapter's files are not counted"
    config = config_of(model.folder) if model.folder else {}
    if any(config.get(key) for key in ("num_experts", "num_local_experts")):
        yield "{names}: FLOP are of all experts, more than of those that a token takes"
    if model.parameters is None:
        yield "{names}: size unknown; fill in columns parameters and shape of config/models.tsv, or fetch it first"
    elif shape is None:
        yield "{names}: shape unknown; fill in column shape of config/models.tsv, or fetch the model first"
    if row["parameters"] and row["parameters"] != model.parameters:
        yield f"{{names}}: column parameters is {row['parameters']:,}, its files have {model.parameters:,}"
