"""Measurements from Python, of a model in memory."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import polars as pl

from gradatlas.api.live import borrowed, check_tokenizer, encode, listed, measured, metrics_of, read, records
from gradatlas.core.errors import InputError, nearest
from gradatlas.gradients.capture import Capture
from gradatlas.gradients.plan import plan_batches
from gradatlas.kernels.one_step import inner_products as inner_product
from gradatlas.models.decoders import ATTENTION
from gradatlas.models.forward import length_regime
from gradatlas.scores.settings import Settings
from gradatlas.study.settings import Prompting, Reading


def score(
    model: Any,
    data: Any,
    *,
    tokenizer: Any = None,
    output: str | Path | None = None,
    revision: str = "",
    adapter: str = "",
    adapter_revision: str = "",
    gpus: int = 1,
    data_revision: str = "",
    select: str = "",
    by: str = "outlier",
    **settings: Any,
) -> pl.DataFrame:
    """The scores of every sample of training data, in its order, with its own columns (`gradatlas.scores.tables`).

    `model`: a folder, a hub id with its `revision`, or a `PreTrainedModel` with its `tokenizer`, which is left as it
    was. `adapter`: of a model that is not in memory, a folder or a hub id with its `adapter_revision`; `gpus`: how many
    hold it. `data`: a training file, a folder that `datasets` saved, a hub dataset ORG/NAME with its `data_revision`,
    or rows in memory as of `measure`. `output`: a folder for the tables and the page; without one they are not kept.
    `select`: rows that are also written there, by the number `by` (``top:100``; the forms are those of ``gradatlas
    score --select``). `settings`: as `gradatlas.scores.settings.Settings`, the options of ``gradatlas score``. Raises
    `InputError` where no sample can be measured.
    """
    if unknown := [name for name in settings if name not in (known := [each.name for each in fields(Settings)])]:
        raise InputError(f"score: no setting '{unknown[0]}'; {nearest(unknown[0], known)}")
    # Here, as it draws a page: measurements alone need few packages.
    from gradatlas.api.scoring import score_data

    live = not isinstance(model, str | Path)
    if live:
        check_tokenizer(tokenizer)
    if gpus < 1:
        raise InputError(f"score: gpus is {gpus}; leave it out, and give device='cpu' for none")
    if live and (adapter or gpus > 1 or settings.get("quantise")):
        raise InputError("score: adapter, gpus and quantise are for a model that is loaded; give its folder or hub id")
    if select and not output:
        raise InputError("score: select writes rows to a folder; give output=")
    rows = data if isinstance(data, str | Path) else records(data, "data")
    with TemporaryDirectory() as temporary, borrowed(model) if live else nullcontext():
        folder = Path(output or temporary)
        score_data(
            model,
            rows,
            folder,
            Settings(**settings),
            tokenizer=tokenizer,
            revision=revision,
            adapter=adapter,
            adapter_revision=adapter_revision,
            gpus=gpus,
            data_revision=data_revision,
            select=select,
            by=by,
        )
        return pl.read_parquet(folder / "scores.parquet")


def measure(
    model: Any,
    tokenizer: Any,
    rows: Any,
    *,
    projections: str | Sequence[str] = ATTENTION,
    metrics: str | Sequence[str] = ("all",),
    prompt: str = "auto",
    turns: str = "all",
    max_length: int = 1024,
    batch_tokens: int = 4096,
    reading: Reading | Mapping[str, str] | None = None,
    mapping: str = "",
    lora: Literal["merged", "separate"] = "merged",
) -> pl.DataFrame:
    """Spectra of the gradients of every row: one row per response, layer and projection.

    `model`: a `PreTrainedModel`, also with PEFT adapters. It is left as it was, also after an error: modes, gradients,
    hooks, `requires_grad`, precision, random states. `rows`: a list of dicts, a `datasets.Dataset`, or a polars or
    pandas frame, in any shape of training data; `reading`: which shape, and which columns, as a `gradatlas.Reading` or
    a dict of its fields. `prompt`, `turns` and `max_length`: as `gradatlas.study.settings.Prompting`. `metrics`:
    ``all`` or some of `gradatlas.study.settings.METRICS`. `lora`: ``separate`` also measures the matrices A and B of
    the active LoRA, as projections ``q.lora_a``, ``q.lora_b``, ...

    The loss is the mean cross-entropy of the response's tokens, in nats. A response that cannot be measured has one
    row with its status and reason, without layer. Raises `InputError` where none can, for a model whose projections are
    not found, and for parameters divided among processes.
    """
    names = metrics_of(metrics)
    with borrowed(model):
        encoded = encode(model, tokenizer, read(rows, "rows", reading), "rows", Prompting(prompt, turns, max_length))
        return measured(Capture(model, listed(projections), mapping, lora), encoded, names, batch_tokens)


def inner_products(
    model: Any,
    tokenizer: Any,
    rows: Any,
    others: Any = None,
    *,
    projections: str | Sequence[str] = ATTENTION,
    prompt: str = "auto",
    turns: str = "all",
    max_length: int = 1024,
    batch_tokens: int = 4096,
    reading: Reading | Mapping[str, str] | None = None,
    mapping: str = "",
) -> np.ndarray:
    """Inner products of per-sample gradients over all measured matrices: (n, m), float64.

    Of every response of `rows` with every one of `others`, or of `rows` itself (then symmetric; its diagonal holds the
    squares of gradient norms). Each is a sum of (X X'^T) * (D D'^T) over layers and projections; no gradient is formed.
    A response that cannot be measured has NaN. Arguments and errors as of `measure`. Factors of two batches are in
    memory at a time, and the second one is computed again for every first one.
    """
    prompting = Prompting(prompt, turns, max_length)
    with borrowed(model):
        given = {"rows": rows} if others is None else {"rows": rows, "others": others}
        sides = [encode(model, tokenizer, read(each, name, reading), name, prompting) for name, each in given.items()]
        samples = [{str(at): row.sample for at, (_, row) in enumerate(side) if row.status == "ok"} for side in sides]
        regime = length_regime(model.config)
        found = np.full((len(sides[0]), len(sides[-1])), np.nan)
        with Capture(model, listed(projections), mapping) as capture:
            plans = [plan_batches(each, batch_tokens, regime) for each in samples]
            for at, keys in enumerate(plans[0]):
                first = [done.factors for done in capture.run([samples[0][key] for key in keys])]
                for place, partners in enumerate(plans[-1]):
                    if others is None and place < at:
                        continue
                    same = others is None and place == at
                    second = first if same else [
                        done.factors for done in capture.run([samples[-1][key] for key in partners])
                    ]  # fmt: skip
                    for one, left in zip(keys, first, strict=True):
                        for other, right in zip(partners, second, strict=True):
                            found[int(one), int(other)] = inner_product(left, right)
                            if others is None:
                                found[int(other), int(one)] = found[int(one), int(other)]
    return found
