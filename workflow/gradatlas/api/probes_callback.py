"""Log-probabilities of fixed responses during training: chosen, rejected, rephrases, and the likeliest tokens.

On request with each block's part in their changes between two evaluations.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from gradatlas.api.callback import Watching, digest_of
from gradatlas.api.live import encode, read
from gradatlas.api.tables import TRAINING_BUDGET, TRAINING_PROBES
from gradatlas.core.errors import InputError
from gradatlas.data.training.rows import TrainingRow
from gradatlas.finetuning.evaluate import evaluate
from gradatlas.finetuning.sequences import EncodedResponse
from gradatlas.kernels.blocks import Blocks
from gradatlas.kernels.budget import budget
from gradatlas.models.tokens import Encoded
from gradatlas.study.settings import Prompting, Reading

_MEASURES = ("log_prob_sum", "log_prob_mean", "argmax_log_prob")


class ResponseProbes(Watching):
    """Measures log-probabilities of the responses of fixed `pairs` every `every` optimizer steps.

    >>> DPOTrainer(..., callbacks=[ResponseProbes(pairs, every=50)])

    `pairs`: rows with `chosen` and `rejected` as TRL takes them (texts with a `prompt`, or messages), and optionally
    `rephrases`, a dict of texts by type (``chosen_semantic``, or any name). Rows with one response (`prompt` and
    `completion`, ...) count as chosen. Other arguments as of `gradatlas.GradientSpectra`. Of a chat the last assistant
    turn is measured. Logged, in nats, means over pairs: ``log_prob_{type}`` of whole responses, ``log_prob_likeliest``
    (of the likeliest token at each position along chosen), seconds and share as of `GradientSpectra`. Table:
    `gradatlas.api.tables.TRAINING_PROBES`.

    `budget`: also measure which block of the model (every projection of every layer, embedding, output, norms) changed
    each log-probability since the evaluation before, by one backward pass with the weights halfway. Logged:
    ``budget_gap``, what the parts miss of the changes, 0 if nothing. Table: `gradatlas.api.tables.TRAINING_BUDGET`. A
    copy of the trained weights is kept in the CPU's memory, and a call needs memory for three more copies of all
    weights on the model's device. Raises `InputError` at the start for a model that has other parameters than these.
    """

    name, tables = "probes", {"probes": TRAINING_PROBES}

    def __init__(
        self,
        pairs: Any,
        every: int = 50,
        output_dir: str | Path | None = None,
        *,
        budget: bool = False,
        tokenizer: Any = None,
        prompt: str = "auto",
        max_length: int = 1024,
        batch_tokens: int = 4096,
        reading: Reading | Mapping[str, str] | None = None,
    ):
        super().__init__(every, output_dir, tokenizer)
        self.pairs = pairs
        self.prompting, self.reading, self.batch_tokens = Prompting(prompt, "last", max_length), reading, batch_tokens
        self.last: _Evaluation | None = None
        if budget:
            self.tables = self.tables | {"budget": TRAINING_BUDGET}

    def prepare(self, model: Any, tokenizer: Any, step: int) -> dict[str, Any]:
        """Tokens of all responses; for the budget, the blocks of the model and its weights now."""
        rows = list(_responses(read(self.pairs, "pairs", self.reading)))
        self.encoded = encode(model, tokenizer, rows, "pairs", self.prompting)
        self.responses = {
            str(at): _sequence(each.sample) for at, (_, each) in enumerate(self.encoded) if each.status == "ok"
        }
        if "budget" in self.tables:
            self.blocks = Blocks(model)
            self.last = self._evaluate(model, step)
        return {"probes": digest_of(self.encoded)}

    def measure(self, model: Any, step: int) -> tuple[dict[str, pa.Table], dict[str, float]]:
        """Rows of `TRAINING_PROBES` and of `TRAINING_BUDGET`, means by type and the budget's gap."""
        before = self.last
        now = before if before and before.step == step else self._evaluate(model, step)
        table, numbers = self._probes(step, now.measures)
        if before is None or now is before:
            return {"probes": table}, numbers
        self.last = now
        parts, gap = self._budget(before, now)
        return {"probes": table, "budget": parts}, numbers | {"budget_gap": gap}

    def _evaluate(self, model: Any, step: int) -> "_Evaluation":
        weights = {}
        if "budget" in self.tables:
            # Frozen weights are not copied.
            named = model.named_parameters()
            weights = {name: each.detach().to("cpu", copy=True) if each.requires_grad else each for name, each in named}
        return _Evaluation(step, weights, evaluate(model, self.responses, self.batch_tokens))

    def _budget(self, before: "_Evaluation", now: "_Evaluation") -> tuple[pa.Table, float]:
        """Rows of `TRAINING_BUDGET`, and the gap."""
        # From the weights now, which the model has, back to those before: the same line, and all signs the other way.
        changes = {
            key: before.measures[key]["log_prob_sum"] - found["log_prob_sum"] for key, found in now.measures.items()
        }
        found = budget(
            self.blocks, before.weights, self.responses, rule="midpoint", measured=changes,
            batch_tokens=self.batch_tokens,
        )  # fmt: skip
        rows = []
        for part in found.rows():
            row, _ = self.encoded[int(part["probe_id"])]
            rows.append(
                {"since": before.step, "step": now.step, "pair": row.id, "type": row.response, "layer": part["layer"],
                 "block": part["name"], "predicted": -part["predicted"], "measured": -part["measured"]}
            )  # fmt: skip
        return pa.Table.from_pylist(rows, TRAINING_BUDGET.schema), found.gap

    def _probes(self, step: int, found: Mapping[str, Mapping[str, float]]) -> tuple[pa.Table, dict[str, float]]:
        """Rows of `TRAINING_PROBES`, and means by type."""
        rows = []
        for at, (row, each) in enumerate(self.encoded):
            about = {"step": step, "pair": row.id, "type": row.response, "status": each.status}
            measures = {name: found[str(at)][name] for name in _MEASURES} if str(at) in found else {}
            tokens = self.responses[str(at)].tokens if str(at) in found else None
            rows.append(dict.fromkeys(TRAINING_PROBES.names) | about | {"tokens": tokens} | measures)
        table = pa.Table.from_pylist(rows, TRAINING_PROBES.schema)
        means = pl.from_arrow(table).group_by("type", maintain_order=True).agg(pl.col(_MEASURES).mean()).to_dicts()
        numbers = {f"log_prob_{mean['type']}": mean["log_prob_sum"] for mean in means}
        likeliest = table.filter(pc.equal(table["type"], "chosen"))["argmax_log_prob"]
        numbers["log_prob_likeliest"] = pc.mean(likeliest).as_py()
        return table, {name: value for name, value in numbers.items() if value is not None}


class _Evaluation(NamedTuple):
    """Measures by response at a step; for the budget, the weights by name."""

    step: int
    weights: dict[str, Tensor]
    measures: dict[str, dict[str, float]]


def _responses(rows: Iterable[TrainingRow]) -> Iterator[TrainingRow]:
    """The rows, with the type of each as its `response`; after a chosen one its rephrases."""
    for row in rows:
        row = replace(row, response=row.response or "chosen")
        yield row
        rephrases = (row.own.get("rephrases") or {}) if row.response == "chosen" else {}
        if not isinstance(rephrases, Mapping):
            raise InputError(f"pairs: row {row.number}: rephrases is no dict of texts by type, such as "
                             "{'chosen_semantic': '...'}")  # fmt: skip
        for name, text in rephrases.items():
            if text is None:
                continue
            if row.messages:
                yield replace(row, response=name, messages=(*row.messages[:-1], {**row.messages[-1], "content": text}))
            else:
                yield replace(row, response=name, completion=text)


def _sequence(sample: Encoded) -> EncodedResponse:
    """The sample up to its last response token."""
    places = [at for at, counted in enumerate(sample.response) if counted and at]
    return EncodedResponse(sample.ids[: places[-1] + 1], places[0])
