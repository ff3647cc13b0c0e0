"""One pass over the rows of a training file: losses with and without the prompt, and exact spectra of all gradients.

Rows are measured chunk by chunk, so memory does not depend on their number.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from gradatlas.core.command import progress
from gradatlas.data.training.rows import TrainingRow
from gradatlas.finetuning.sequences import EncodedResponse, response_logits
from gradatlas.gradients.capture import Capture, Factors, Pass
from gradatlas.gradients.measure import out_of_memory
from gradatlas.gradients.plan import plan_batches
from gradatlas.gradients.rounding import HALVES, rounding_error, shortest
from gradatlas.gradients.settings import Settings as Gradients
from gradatlas.gradients.solvers import solver_of
from gradatlas.gradients.spectra import Spectrum, start
from gradatlas.models.conversations import ConversationEncoder
from gradatlas.models.forward import length_regime
from gradatlas.models.loading import check_ids
from gradatlas.models.tokens import Encoded, front_tokens
from gradatlas.scores.settings import Scoring
from gradatlas.scores.tables import MEASURED, METRICS

#: A chunk ends at a multiple of so many rows, and after so many tokens: what a killed run loses at most.
CHUNK_ROWS, CHUNK_TOKENS = 256, 32_768


@dataclass(frozen=True)
class Item:
    """One response: its tokens, and each token's piece of the text; or why it cannot be measured."""

    number: int
    response: str
    status: str
    reason: str
    sample: Encoded | None
    texts: tuple[str, ...]

    @property
    def name(self) -> str:
        """What a message calls it; rows count from 0, as in the tables."""
        return f"row {self.number}{f' ({self.response})' if self.response else ''}"


class Scorer:
    """Measures rows on one model, which is left as it was.

    `passes`: seconds of forward and backward passes so far. Raises `InputError` for projections that are not found.
    """

    def __init__(self, model: Any, tokenizer: Any, settings: Scoring):
        self.model, self.tokenizer, self.settings = model, tokenizer, settings
        positions = getattr(model.config, "max_position_embeddings", None)
        # XLNet has -1 for no limit.
        self.window = min(settings.max_length, positions) if positions and positions > 0 else settings.max_length
        if self.window < settings.max_length:
            progress(f"max_length is {settings.max_length}, but the model has {positions} positions; using {positions}")
        self.encoder = ConversationEncoder(tokenizer, settings, max_length=self.window)
        self.capture = self.capture_of(model)
        self.front = front_tokens(tokenizer)
        self.clock = Clock()

    def capture_of(self, model: Any) -> Capture:
        """A capture of the same weights of `model`, which may be in another precision."""
        # Of a model with LoRA that is not merged, the weights that training would change.
        lora = "alone" if self.settings.lora == "separate" else "merged"
        return Capture(model, self.settings.projections, self.settings.mapping, lora)

    def items(self, rows: Iterable[TrainingRow]) -> Iterator[Item]:
        """Each row with its tokens."""
        for row in rows:
            encoded = self.encoder.encode(row)
            if encoded.status == "ok":
                check_ids(encoded.sample.ids, self.model, self.tokenizer, f"row {row.number}")
            yield Item(row.number, row.response, encoded.status, encoded.reason, encoded.sample, encoded.texts)

    def measure(self, chunk: Sequence[Item]) -> pa.Table:
        """The measured table of a chunk, in its order."""
        return measure_chunk(self.capture, chunk, self.front, self.settings.batch_tokens, self.clock)

    def rounding(self, chunk: Sequence[Item], load: Callable[[], Any] | None) -> dict[str, Any]:
        """The metadata on the error of a 16-bit pass, by the shortest samples of a chunk; none of another pass.

        `load` gives the model in float32; None for a live model.
        """
        samples = shortest((item.sample for item in chunk if item.status == "ok"), Gradients.compared)
        if str(self.model.dtype).removeprefix("torch.") not in HALVES or not samples:
            return {}
        if load is None:
            return {"rounding": {"not_measured": "the model was given in memory"}}
        return {"rounding": rounding_error(self.capture, samples, lambda: self.capture_of(load()))}


def measure_rows(model: Any, tokenizer: Any, rows: Iterable[TrainingRow], settings: Scoring) -> Iterator[pa.Table]:
    """The rows on a live model, which is left as it was: one measured table (`scores.tables.MEASURED`) a chunk."""
    scorer = Scorer(model, tokenizer, settings)
    return map(scorer.measure, chunks(scorer.items(rows)))


def chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Cut a stream into chunks. Fixed numbers of rows begin chunks, so an edit of one row moves few others."""
    chunk: list[Item] = []
    tokens = 0
    for item in items:
        full = chunk and (item.number // CHUNK_ROWS != chunk[0].number // CHUNK_ROWS or tokens >= CHUNK_TOKENS)
        # The responses of one row stay together.
        if full and item.number != chunk[-1].number:
            yield chunk
            chunk, tokens = [], 0
        chunk.append(item)
        tokens += len(item.texts)
    if chunk:
        yield chunk


@dataclass
class Clock:
    """Seconds of all passes over a model."""

    seconds: float = field(default=0.0)

    def timed(self, compute: Callable[[], Any]) -> Any:
        """The value of `compute`, whose time is added."""
        started = time.perf_counter()
        value = compute()
        self.seconds += time.perf_counter() - started
        return value


def measure_chunk(
    capture: Capture, chunk: Sequence[Item], front: Sequence[int], batch_tokens: int, clock: Clock
) -> pa.Table:
    """The measured table of a chunk, in its order: batches of alike length, halved where they do not fit into memory.

    `front`: the tokens in front of every text (BOS).
    """
    rows = [_blank(item) for item in chunk]
    samples = {at: item.sample for at, item in enumerate(chunk) if item.status == "ok"}
    regime = length_regime(capture.model.config)

    def both(batch: list[int]) -> dict[int, dict[str, Any]]:
        passes = clock.timed(lambda: capture.run([samples[at] for at in batch]))
        factors = [done.factors for done in passes]
        spectra = start(factors, METRICS, with_values=False, solve=solver_of(capture.model))()
        each = zip(batch, passes, spectra, strict=True)
        found = {at: _measured(samples[at], done, spectrum) for at, done, spectrum in each}
        del passes, factors, spectra, each
        # Another sample of the batch may be the cause.
        again = [at for at in batch if found[at]["status"] == "nonfinite"] if len(batch) > 1 else []
        return found | {at: values for each in again for at, values in both([each]).items()}

    def alone(batch: list[int]) -> dict[int, dict[str, Any]]:
        return clock.timed(lambda: _losses_alone(capture.model, batch, spans))

    with capture:
        for batch in plan_batches(samples, batch_tokens, regime):
            for at, values in _in_halves(both, batch, chunk).items():
                rows[at] |= values
        measured = {at: sample for at, sample in samples.items() if rows[at]["status"] == "ok"}
        spans = {at: span for at, sample in measured.items() if (span := last_span(sample, front))}
        texts = {at: Encoded(span.ids, (True,) * len(span.ids), False) for at, span in spans.items()}
        for batch in plan_batches(texts, batch_tokens, regime):
            for at, values in _in_halves(alone, batch, chunk).items():
                rows[at] |= values | _same_tokens(rows[at], spans[at])
    return pa.Table.from_pylist(rows, schema=MEASURED.schema)


def _blank(item: Item) -> dict[str, Any]:
    sample = item.sample
    counts = {"prompt_tokens": sample.prompt_tokens, "response_tokens": sample.response_tokens} if sample else {}
    return {
        "row": item.number,
        "response": item.response,
        "status": item.status,
        "reason": item.reason,
        **counts,
        "truncated": sample.truncated if sample else None,
        "tokens": list(item.texts),
    }


def _in_halves(compute: Callable, batch: list[int], chunk: Sequence[Item]) -> dict[int, dict[str, Any]]:
    """What `compute` finds of each place in `batch`; where memory does not suffice, of its halves."""
    try:
        return compute(batch)
    except Exception as error:
        if not out_of_memory(error):
            names = ", ".join(chunk[at].name for at in batch)
            raise RuntimeError(f"failed on {names}: {type(error).__name__}: {error}") from error
    # Outside the handler, so that the failed pass's tensors are freed before the next attempt.
    if len(batch) == 1:
        item = chunk[batch[0]]
        return {batch[0]: {"status": "out_of_memory", "reason": f"{len(item.texts)} tokens do not fit into memory"}}
    half = len(batch) // 2
    progress(f"out of memory on a batch of {len(batch)}; trying halves of {half}")
    return _in_halves(compute, batch[:half], chunk) | _in_halves(compute, batch[half:], chunk)


def _measured(sample: Encoded, done: Pass, spectrum: Spectrum) -> dict[str, Any]:
    losses = torch.full((len(sample.ids),), torch.nan, dtype=torch.float64)
    losses[[at for at, counted in enumerate(sample.response) if counted and at]] = done.token_losses
    terms = token_terms(done.factors)
    if not (torch.isfinite(terms).all() and torch.isfinite(done.token_losses).all()):
        return {"status": "nonfinite", "reason": "the loss or a gradient is not finite"}
    return {
        "status": "ok",
        "loss": done.loss,
        "values": spectrum.metrics.flatten().tolist(),
        "token_losses": [None if loss != loss else loss for loss in losses.tolist()],
        "token_terms": terms.tolist(),
    }


def token_terms(factors: Mapping[str, Factors]) -> Tensor:
    """(tokens,): the root of the sum over measured matrices of |x_t|^2 |d_t|^2, the size of each token's own term.

    G is the sum of d_t x_t^T over tokens.
    """
    squares = [
        (x.double().square().sum(-1) * d.double().square().sum(-1)).reshape(-1, x.shape[-2]).sum(0)
        for part in factors.values()
        for x, d in part.pairs()
    ]
    return torch.stack([each.to(squares[0].device) for each in squares]).sum(0).sqrt().cpu()


def last_span(sample: Encoded, front: Sequence[int]) -> EncodedResponse | None:
    """The last continuous span of response tokens, behind BOS alone; None where nothing but BOS comes before it.

    Without BOS its first token is not predicted, and is left out of both losses.
    """
    end = len(sample.ids)
    while end and not sample.response[end - 1]:
        end -= 1
    start = end
    while start and sample.response[start - 1]:
        start -= 1
    if sample.ids[:start] in ((), tuple(front)):
        return None
    ids = (*front, *sample.ids[start:end])
    return EncodedResponse(ids, max(1, len(front))) if len(ids) > 1 else None


@torch.no_grad()
def _losses_alone(model: Any, batch: list[int], spans: Mapping[int, EncodedResponse]) -> dict[int, dict[str, Any]]:
    logits, targets = response_logits(model, [spans[at] for at in batch])
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none").double().cpu()
    each = losses.split([spans[at].tokens for at in batch])
    return {at: {"loss_without_prompt": float(part.mean())} for at, part in zip(batch, each, strict=True)}


def _same_tokens(row: Mapping[str, Any], span: EncodedResponse) -> dict[str, Any]:
    """The loss in context of the tokens whose loss without the prompt was computed."""
    losses = [loss for loss in row["token_losses"] if loss is not None][-span.tokens :]
    return {"loss_with_prompt": sum(losses) / len(losses)}
