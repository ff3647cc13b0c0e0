"""Score a training file, or rows in memory, on a model: one pass, then tables and a page."""

import platform
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import polars as pl
import torch

from gradatlas.core.checked import write_json
from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.core.machine import machine
from gradatlas.data.formats import format_of
from gradatlas.data.training.read import read_rows, rows_of
from gradatlas.data.training.rows import TrainingRow
from gradatlas.models.adapted import load_adapted, locate_adapted
from gradatlas.models.loading import choose_device
from gradatlas.page.scores import write_page
from gradatlas.scores.columns import OwnColumns
from gradatlas.scores.measure import Scorer
from gradatlas.scores.parts import write_parts
from gradatlas.scores.select import NUMBERS, check_by, check_selection, remove_selected, write_selected
from gradatlas.scores.settings import Settings
from gradatlas.scores.tables import SCORES
from gradatlas.statistics.score_tables import write_scores

# Not in the metadata: numbers do not depend on it.
_NO_FACTS = ("batch_tokens",)


def score_data(
    model: Any,
    data: str | Path | Iterable[Mapping[str, Any]],
    folder: Path,
    settings: Settings,
    *,
    tokenizer: Any = None,
    revision: str = "",
    adapter: str = "",
    adapter_revision: str = "",
    gpus: int = 1,
    data_revision: str = "",
    model_name: str = "",
    title: str = "",
    select: str = "",
    by: str = "outlier",
) -> pl.DataFrame:
    """Write the scores of `data` on `model` into `folder`, and return them without the file's own columns.

    `model`: a folder, a card or a hub id with `revision`, its `adapter` likewise, on `gpus` GPUs; or a live model with
    its `tokenizer`, which is left as it was. `data`: a training file, a folder or a hub id with `data_revision`; or
    rows, as dicts. Finished parts in `folder` are used again, but for a live model. Raises `InputError` where no row
    could be measured.
    """
    if select:
        check_selection(select)
    started = time.time()
    source = data if isinstance(data, str | Path) else list(data)

    def rows(quiet: bool = True) -> Iterator[TrainingRow]:
        if isinstance(source, list):
            return rows_of(source, settings, "data", quiet)
        return read_rows(source, settings, revision=data_revision, quiet=quiet)

    own = OwnColumns(cells=isinstance(source, str | Path) and format_of(source) == ".csv")
    if select and by not in NUMBERS:
        # Which of the file's own columns are numbers is known after its last row; reading is short beside the pass.
        deque(own.watched(rows()), maxlen=0)
        check_by(by, own.fields(SCORES.names))
    digest, adapted, load = "", None, None
    if isinstance(model, str | Path):
        where, adapted = locate_adapted(str(model), revision, adapter, adapter_revision)
        name, revision, digest = model_name or Path(where.path).resolve().name, where.revision, where.digest
        device = choose_device(settings.device)
        # Set explicitly, whatever the library's default: TF32 keeps 10 of float32's 23 bits.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = settings.tf32
        model, tokenizer = load_adapted(where, adapted, settings, device=device, gpus=gpus)
        whole = replace(settings, dtype="float32")

        def load() -> Any:
            return load_adapted(where, adapted, whole, device=device, gpus=gpus)[0]

    else:
        name, device = model_name or type(model).__name__, model.device.type
    scorer = Scorer(model, tokenizer, settings)
    stated = {key: value for key, value in asdict(settings).items() if key not in _NO_FACTS}
    facts = {"model": name, "revision": revision, "settings": stated, "window": scorer.window}
    facts["adapter_base"] = adapted.adapter_base if adapted else ""
    outcome = write_parts(
        scorer,
        own.watched(rows(quiet=False)),
        folder / "measured",
        model_digest=digest,
        adapter_digest=adapted.digest if adapted else "",
        more=facts,
        load=load,
    )
    if not outcome.paths:
        raise InputError(f"{'data' if isinstance(source, list) else source}: has no row; give a file with rows")
    remove_selected(folder)
    scores = write_scores(outcome.paths, rows, own, folder)
    seconds = time.time() - started
    progress(
        f"{len(scores)} samples: {outcome.computed} computed, {outcome.recalled} found in {folder / 'measured'}, in "
        f"{seconds:.1f} s, {scorer.clock.seconds:.1f} s of them in the model's passes"
        if outcome.statuses["ok"]
        else f"{len(scores)} samples: none could be measured, in {seconds:.1f} s"
    )
    write_json(
        folder / "scores.run.json",
        {
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "seconds": round(seconds, 1),
            "seconds_of_passes": round(scorer.clock.seconds, 1),
            "host": platform.node(),
            "machine": machine(device),
            "threads": torch.get_num_threads(),
            "batch_tokens": settings.batch_tokens,
            "source": source if isinstance(source, str) else str(source) if isinstance(source, Path) else "",
            "computed": outcome.computed,
            "recalled": outcome.recalled,
        },
    )
    if set(outcome.statuses) != {"ok"}:
        progress(f"not all rows were measured: {outcome.line()} (columns status and reason)")
    if not outcome.statuses["ok"]:
        raise InputError(f"no row could be measured: {outcome.line()}; {folder / 'scores.csv'} has the reasons")
    write_page(folder, folder / "scores.html", title=title or f"{_named(source)}, {name}")
    progress(f"open {folder / 'scores.html'}")
    if select:
        write_selected(rows(), scores, select, by, folder)
    return scores


def _named(source: str | Path | list) -> str:
    return "Rows" if isinstance(source, list) else Path(source).name
