"""Budgets and kernels along a finetuning run, at its start, its snapshots and its end."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from gradatlas.core.command import progress
from gradatlas.core.digest import code_digest
from gradatlas.core.errors import InputError
from gradatlas.core.files import replacing, sha256_of
from gradatlas.core.machine import free_memory, libraries
from gradatlas.core.tables import write_table
from gradatlas.finetuning.finetune import stages
from gradatlas.finetuning.probes import read_probes
from gradatlas.finetuning.sequences import EncodedResponse, ResponseEncoder
from gradatlas.kernels.blocks import Block, Blocks
from gradatlas.kernels.budget import budgets, weights_of
from gradatlas.kernels.matrices import cost, cross_terms, kernels_by_block
from gradatlas.kernels.norms import squared_norms
from gradatlas.kernels.tables import BUDGET, ENTANGLEMENT, KERNEL_MEANS, KERNEL_NORMS, KERNELS
from gradatlas.models.loading import load, locate

#: What the sum over blocks is called.
ALL = "all"
SIDES = ("chosen", "rejected")
#: Gaussian vectors on each side of a norm.
DRAWS = 16


class Followed:
    """A run's models, `stages` as (step, card), and the responses that are followed along it, by probe."""

    def __init__(
        self, run: str, init: str, folder: str | Path, probes: str | Path, *, seed: int, prompts: int, pairs: int,
        norms: int = 0, max_length: int, truncation: str, device: str, dtype: str, trust_remote_code: bool,
    ):  # fmt: skip
        self.moment = {"run": run, "seed": seed}
        self.stages = stages(init, folder)
        self._how = {"dtype": dtype, "device": device, "trust_remote_code": trust_remote_code}
        self.model, tokenizer = load(locate(init, option="--init").path, **self._how)
        encoder = ResponseEncoder(tokenizer, max_length, self.model, truncation)
        self.responses, self.types = _chosen(read_probes(str(probes), encoder)[0], prompts, pairs)
        # Those whose kernels of logits have a norm.
        few = list(dict.fromkeys(map(prompt_of, self.responses)))[:norms]
        self.normed = [key for key, kind in self.types.items() if prompt_of(key) in few and kind in SIDES]
        self.facts = {**self.moment, "models": [locate(card).digest for _, card in self.stages], "dtype": dtype,
                      "device": device, "probes": sha256_of(probes), "prompts": prompts, "pairs": pairs,
                      "window": max_length, "truncation": truncation, **libraries()}  # fmt: skip
        progress(f"{run}: {len(self.responses)} responses at steps {', '.join(str(step) for step, _ in self.stages)}")

    def weights(self) -> Iterator[dict[str, Tensor]]:
        """The weights of each stage."""
        return (weights_of(model) for _, model in self.models())

    def models(self) -> Iterator[tuple[int, Any]]:
        """Step and model of each stage."""
        for place, (step, card) in enumerate(self.stages):
            yield step, load(locate(card).path, **self._how)[0] if place else self.model


def _chosen(
    usable: Mapping[str, tuple[Mapping[str, str], EncodedResponse]], prompts: int, pairs: int
) -> tuple[dict[str, EncodedResponse], dict[str, str]]:
    """Responses and types by probe, trained on: of `prompts` prompts all, of `pairs` more chosen and rejected."""
    train = {key: (row, each) for key, (row, each) in usable.items() if row["split"] == "train"}
    order = list(dict.fromkeys(prompt_of(key) for key in train))
    full, some = set(order[:prompts]), set(order[prompts : prompts + pairs])
    kept = {
        key: (row["type"], each)
        for key, (row, each) in train.items()
        if prompt_of(key) in full or (prompt_of(key) in some and row["type"] in SIDES)
    }
    if not kept:
        raise InputError(
            "no probe is followed: raise config keys dynamics.kernels.prompts or dynamics.kernels.pairs, or "
            "dynamics.probes"
        )
    return {key: each for key, (_, each) in kept.items()}, {key: kind for key, (kind, _) in kept.items()}


def prompt_of(probe: str) -> str:
    """The pair whose prompt a probe answers."""
    return probe.rpartition("/")[0]


def measure_budget(followed: Followed, output: str | Path, batch_tokens: int = 4096) -> None:
    """Write the ``budget`` table of a run: one pass over its probes at each stage, and between two."""
    columns: dict[str, list] = {name: [] for name in BUDGET.names}
    path = budgets(Blocks(followed.model), followed.weights(), followed.responses, batch_tokens=batch_tokens)
    gaps = {}
    for (since, _), (step, _), (first, whole) in zip(followed.stages, followed.stages[1:], path, strict=False):
        moment = {**followed.moment, "since": since, "step": step}
        for row, other in zip(whole.rows(), first.rows(), strict=True):
            found = {**moment, **row, "type": followed.types[row["probe_id"]], "block": row["name"]}
            for name in BUDGET.names:
                columns[name].append(other["predicted"] if name == "first_order" else found[name])
        gaps[step] = whole.gap
        progress(f"steps {since} to {step}: {abs(whole.measured).mean():.3g} nats on average, of which the parts miss "
                 f"{whole.gap:.2%} (by first order {first.gap:.1%})")  # fmt: skip
    facts = {**followed.facts, "rule": "simpson", "gaps": gaps, "code": code_digest(f"{__name__}:measure_budget")}
    write_table(BUDGET, pa.table(columns, schema=BUDGET.schema), output, facts)


def measure_kernels(
    followed: Followed,
    kernels: str | Path,
    means: str | Path,
    entanglement: str | Path,
    journal: str | Path,
    batch_tokens: int = 4096,
    norms: str | Path | None = None,
) -> None:
    """Write the kernels of a run's responses at each stage, with what finished blocks a killed job has left.

    `kernels`, `means`, `entanglement`, `norms`: of `gradatlas.kernels.tables`. `journal`: a folder for the kernels of
    single blocks, deleted at the end; those of other models, probes or code are left alone.
    """
    facts = followed.facts | {"code": code_digest(f"{__name__}:measure_kernels"), "batch_tokens": batch_tokens}
    mark = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    kept = Path(journal) / mark
    rows: dict[str, list[dict]] = {"kernels": [], "means": [], "entanglement": [], "norms": []}
    for step, model in followed.models():
        blocks, moment = Blocks(model), {**followed.moment, "step": step}
        found = dict(_journalled(blocks, followed, kept / f"{step:08d}", batch_tokens))
        if norms:
            rows["norms"] += [{**moment, **row} for row in _norms(blocks, followed, batch_tokens)]
        keys, types = list(followed.responses), [followed.types[key] for key in followed.responses]
        whole = sum(found.values())
        rows["kernels"] += [{**moment, "block": ALL, **row} for row in _pairs(keys, whole)]
        for block, matrix in found.items():
            where = {**moment, "layer": block.layer, "block": block.name}
            rows["means"] += [{**where, **row} for row in _means(keys, types, matrix)]
            rows["entanglement"] += [{**where, **row} for row in _entangled(keys, types, matrix, whole)]
    written = ((KERNELS, "kernels", kernels), (KERNEL_MEANS, "means", means),
               (ENTANGLEMENT, "entanglement", entanglement), (KERNEL_NORMS, "norms", norms))  # fmt: skip
    for table, name, path in written:
        if path:
            write_table(table, rows[name], path, facts)
    shutil.rmtree(kept, ignore_errors=True)


def _journalled(
    blocks: Blocks, followed: Followed, folder: Path, batch_tokens: int
) -> Iterator[tuple[Block, np.ndarray]]:
    """Every block's kernel (responses, responses), in one order; each in a file as soon as it is made."""
    every = [*blocks.blocks, *(block for pair in blocks.shared for block in cross_terms(pair))]
    paths = {block: folder / f"{block.layer}.{block.name.replace(' ', '_')}.npy" for block in every}
    known = [block for block in every if paths[block].is_file()]
    responses, memory = list(followed.responses.values()), memory_bound(blocks.model.device.type)
    passes, flop = cost(blocks, responses, memory=memory, batch_tokens=batch_tokens)
    progress(
        f"step {int(folder.name)}: {len(every)} blocks of {len(responses)} responses, {flop:.1e} FLOP, {passes} passes "
        f"within {memory / 1e9:.1f} GB" + (f"; {len(known)} blocks are known" if known else "")
    )
    made = kernels_by_block(blocks, responses, memory=memory, batch_tokens=batch_tokens, known=known)
    for block, matrix in made:
        with replacing(paths[block]) as temporary:
            np.save(temporary, matrix.numpy())
    for block in every:
        yield block, np.load(paths[block])


def _norms(blocks: Blocks, followed: Followed, batch_tokens: int) -> Iterator[dict]:
    keys, seed = followed.normed, followed.moment["seed"]
    memory = memory_bound(blocks.model.device.type)
    found = squared_norms(blocks, [followed.responses[key] for key in keys], draws=DRAWS, seed=seed, memory=memory,
                          batch_tokens=batch_tokens)  # fmt: skip
    for block, squares in found.items():
        layer, name = block or (None, ALL)
        for i, j in zip(*np.triu_indices(len(keys)), strict=True):
            yield {"o": keys[i], "u": keys[j], "layer": layer, "block": name,
                   "squared_norm": float(squares.value[i, j]), "error": float(squares.error[i, j])}  # fmt: skip


def memory_bound(device: str) -> float:
    """Bytes for the factors of some blocks: half of what is free on the device, at most 64 GB."""
    if device == "cuda":
        import torch

        return min(torch.cuda.mem_get_info()[0] / 2, 64e9)
    return min(free_memory() / 2, 64e9)


def cosines(matrix: np.ndarray) -> np.ndarray:
    """k(o, u) / sqrt(k(o, o) k(u, u)), (n, n); NaN where a gradient is zero, or its square negative (cross terms)."""
    scale = np.sqrt(np.where(matrix.diagonal() > 0, matrix.diagonal(), np.nan))
    return matrix / scale / scale[:, None]


def _pairs(keys: Sequence[str], matrix: np.ndarray) -> Iterator[dict]:
    angles = cosines(matrix)
    for i, j in zip(*np.triu_indices(len(keys)), strict=True):
        yield {"o": keys[i], "u": keys[j], "value": float(matrix[i, j]), "cosine": _real(angles[i, j])}


def _means(keys: Sequence[str], types: Sequence[str], matrix: np.ndarray) -> Iterator[dict]:
    """Of each two types, over pairs to one prompt and to two."""
    prompts = np.array([prompt_of(key) for key in keys])
    same, angles = prompts[:, None] == prompts, cosines(matrix)
    itself, kinds = np.eye(len(keys), dtype=bool), list(dict.fromkeys(types))
    member = np.array([[kind == each for each in types] for kind in kinds], dtype=float)
    for one in (True, False):
        mask = (same == one) & ~itself
        counts, sums, turned = (member @ np.where(mask, each, 0) @ member.T for each in (1, matrix, angles))
        for i, o_type in enumerate(kinds):
            for j, u_type in enumerate(kinds):
                if n := round(counts[i, j]):
                    yield {"o_type": o_type, "u_type": u_type, "same": one, "n": n, "value": sums[i, j] / n,
                           "cosine": _real(turned[i, j] / n)}  # fmt: skip


def _entangled(keys: Sequence[str], types: Sequence[str], matrix: np.ndarray, whole: np.ndarray) -> Iterator[dict]:
    places = {key: place for place, key in enumerate(keys)}
    for key, kind in zip(keys, types, strict=True):
        other = f"{prompt_of(key)}/rejected"
        if kind == "chosen" and other in places:
            i, j = places[key], places[other]
            yield {"prompt": prompt_of(key), "cross": float(matrix[i, j]), "chosen": float(matrix[i, i]),
                   "rejected": float(matrix[j, j]), "entanglement": float(matrix[i, j] / whole[i, i])}  # fmt: skip


def _real(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
