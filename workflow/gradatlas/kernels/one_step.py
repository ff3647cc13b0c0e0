"""One step of SGD in float64: the measured change of every probe's log-probability, and its first-order prediction.

For an update with the loss L_u, to first order Delta log pi(y_o|x_o) = -eta <s_o, grad L_u>, where s_o is the gradient
of log pi(y_o|x_o): the paper's -eta A K G, summed over the tokens of both, without forming K. With grad L_u = sum_i
c_i grad(-log pi(y_i)) (`gradatlas.finetuning.losses`), the prediction needs only inner products of gradients of
cross-entropies. For a linear layer these are sum((X_o X_u^T) * (D_o D_u^T)), from inputs X and output gradients D:

- *captured*: only the weights of the projections that the gradient engine finds are trained; predicted from X and D.
- *all*: every parameter is trained; predicted by autograd. The column `captured` is the part of the projections.

The residual is of order eta^2: a quarter when eta is halved.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradatlas.core.command import progress
from gradatlas.core.digest import code_digest
from gradatlas.core.errors import InputError
from gradatlas.core.files import sha256_of
from gradatlas.core.machine import libraries
from gradatlas.core.tables import write_table
from gradatlas.data.pairs import read_pairs
from gradatlas.finetuning.losses import Scores, dpo, sft
from gradatlas.finetuning.probes import read_probes
from gradatlas.finetuning.sequences import EncodedResponse, ResponseEncoder, log_probs
from gradatlas.gradients.capture import Capture, Factors
from gradatlas.gradients.plan import plan_batches
from gradatlas.kernels.first_order import summary
from gradatlas.kernels.tables import ONE_STEP
from gradatlas.models.decoders import ATTENTION, find_layers
from gradatlas.models.loading import load, locate
from gradatlas.study.seeds import seeded_hash
from gradatlas.study.settings import PROJECTIONS

LOSSES = {"sft": sft, "dpo": dpo}
TRAINED = ("captured", "all")
_BETA = 0.1


def check_step(
    model: str,
    pairs: str,
    probes: str,
    output: str | Path,
    *,
    updates: int,
    probed: int,
    change: float,
    halvings: int,
    seed: int,
    max_length: int,
    truncation: str = "drop",
    trust_remote_code: bool = False,
    batch_tokens: int = 4096,
) -> None:
    """Write the ``one_step`` table: every probe's predicted and measured change for every update, loss and step size.

    Updates are on `updates` pairs without probes, drawn by `seed`; probes are those of `probed` prompts. The largest
    step changes, to first order, the log-probability of the learned response (sft) or the margin (dpo) by `change`; it
    is halved `halvings` times. Raises `InputError` where there are too few pairs.
    """
    torch.use_deterministic_algorithms(True)
    where = locate(model)
    network, tokenizer = load_exactly(where.path, trust_remote_code)
    encoder = ResponseEncoder(tokenizer, max_length, network, truncation)
    watched, _ = read_probes(probes, encoder)
    prompts = list(dict.fromkeys(key.rpartition("/")[0] for key in watched))[:probed]
    watched = {key: value for key, value in watched.items() if key.rpartition("/")[0] in prompts}
    responses = {key: encoded for key, (_, encoded) in watched.items()}
    learned = _learned_pairs(pairs, watched, encoder, updates, seed)
    captured = Kernels(where.path, trust_remote_code)
    rows = []
    parts = {key: captured.factors(encoded) for key, encoded in responses.items()}
    updates_of = {
        (pair_id, name): _update(network, name, [chosen] if name == "sft" else [chosen, rejected])
        for pair_id, chosen, rejected in learned
        for name in LOSSES
    }
    totals = {key: _summed(network, update) for key, update in updates_of.items()}
    by_autograd = {key: _inner(_gradient(network, encoded), totals) for key, encoded in responses.items()}
    before = _log_probs(network, responses, batch_tokens)
    # Found once: a search is several passes.
    weights = {"captured": captured_weights(network), "all": list(network.parameters())}
    for (pair_id, name), update in updates_of.items():
        pulls = [c for _, c in update]
        sources = [captured.factors(encoded) for encoded, _ in update]
        predicted = {
            "captured": {key: _weighed(part, sources, pulls) for key, part in parts.items()},
            "all": {key: inner[pair_id, name] for key, inner in by_autograd.items()},
        }
        # The step size follows from the update's effect on its own responses.
        own = {
            "captured": [_weighed(part, sources, pulls) for part in sources],
            "all": [_inner(_gradient(network, encoded), totals)[pair_id, name] for encoded, _ in update],
        }
        for trained in TRAINED:
            reach = sum(float(np.sign(c)) * value for c, value in zip(pulls, own[trained], strict=True))
            for halving in range(halvings + 1):
                rate = change / reach / 2**halving
                with _step(network, update, weights[trained], rate):
                    after = _log_probs(network, responses, batch_tokens)
                step = {"seed": seed, "loss": name, "pair_id": pair_id, "trained": trained, "halving": halving}
                rows += [
                    {
                        **step,
                        "learning_rate": rate,
                        "probe_id": key,
                        "type": watched[key][0]["type"],
                        "predicted": rate * predicted[trained][key],
                        "captured": rate * predicted["captured"][key],
                        "measured": after[key] - before[key],
                    }
                    for key in responses
                ]
    facts = {"model": where.digest, "revision": where.revision, "pairs": sha256_of(pairs), "probes": sha256_of(probes)}
    facts |= {"seed": seed, "change": change, "dtype": "float64", "device": "cpu", "window": max_length}
    facts["truncation"] = truncation
    write_table(ONE_STEP, rows, output, {**facts, "code": code_digest(f"{__name__}:check_step"), **libraries()})
    for row in summary(rows):
        progress(
            "{trained}, {loss}, {pair_id}: slope {slope:.4f}, residual smaller by {order:.2f} per halving, "
            "share of the projections {share:.2f}".format(**row)
        )


def load_exactly(path: str, trust_remote_code: bool = False) -> tuple[Any, Any]:
    """A model entirely in float64, and its tokenizer.

    The library's RMS norms compute in float32, with errors larger than the residual of a small step. They are replaced
    by PyTorch's norm where that computes the same.
    """
    model, tokenizer = load(path, dtype="float64", device="cpu", trust_remote_code=trust_remote_code)
    for parent in list(model.modules()):
        for name, norm in list(parent.named_children()):
            if hasattr(norm, "variance_epsilon") and type(norm).__name__.endswith("RMSNorm"):
                exact = nn.RMSNorm(norm.weight.shape, eps=norm.variance_epsilon)
                exact.weight = norm.weight
                tried = torch.linspace(-2, 3, norm.weight.numel(), dtype=torch.float64).view(norm.weight.shape)
                if torch.allclose(exact(tried), norm(tried), rtol=1e-5, atol=1e-6):
                    setattr(parent, name, exact)
    return model, tokenizer


class Kernels:
    """X and D of all captured projections of a model, for inner products of per-sample gradients."""

    def __init__(self, path: str, trust_remote_code: bool = False):
        model, _ = load_exactly(path, trust_remote_code)
        self.capture = Capture(model, captured_projections(model))

    def factors(self, encoded: EncodedResponse) -> dict[str, Factors]:
        """X and D of the response's summed cross-entropy."""
        return self.capture.run([encoded.sample], normalise="sum")[0].factors


def captured_projections(model: Any) -> tuple[str, ...]:
    """The projections found in a model: attention's, and the feed-forward's where possible.

    Raises `InputError` where attention's are not found in every layer, as in recurrent and hybrid models.
    """
    try:
        find_layers(model, PROJECTIONS)
    except InputError:
        try:
            find_layers(model, ATTENTION)
        except InputError as error:
            raise InputError(f"{error}; or skip the one-step check: set dynamics.one_step.updates to 0") from None
        return ATTENTION
    return PROJECTIONS


def inner_products(one: Mapping[str, Factors], other: Mapping[str, Factors]) -> float:
    """<g, g'> over all layers and projections, as sums of (X X'^T) * (D D'^T)."""
    return sum(
        float(((x @ y.mT) * (d @ e.mT)).sum())
        for name in one
        for (x, d), (y, e) in zip(one[name].pairs(), other[name].pairs(), strict=True)
    )


def _weighed(part: Mapping[str, Factors], by_parts: Sequence[Mapping[str, Factors]], pulls: Sequence[float]) -> float:
    return sum(c * inner_products(part, each) for c, each in zip(pulls, by_parts, strict=True))


def _learned_pairs(pairs: str, watched: Mapping[str, Any], encoder: ResponseEncoder, count: int, seed: int):
    """(pair_id, chosen, rejected) of pairs without probes, drawn by `seed`."""
    probed = {key.rpartition("/")[0] for key in watched}
    rows = [row for row in read_pairs(pairs, "train") if row["pair_id"] not in probed]
    rows.sort(key=lambda row: seeded_hash(seed, f"one step {row['pair_id']}"))
    responses = [
        (row["pair_id"], *(encoder.encode(row["prompt"], row[part]) for part in ("chosen", "rejected"))) for row in rows
    ]
    fitting = [each for each in responses if all(each)]
    if len(fitting) < count:
        raise InputError(
            f"{pairs}: {count} updates are requested, but only {len(fitting)} pairs have no probes; lower config key "
            "dynamics.one_step.updates"
        )
    return fitting[:count]


def _update(network: Any, loss: str, responses: Sequence[EncodedResponse]) -> list[tuple[EncodedResponse, float]]:
    """The update's responses with their c; the reference is the model itself."""
    with torch.no_grad():
        sums = [log_probs(network, [encoded]) for encoded in responses]
    outcome = LOSSES[loss](Scores(*sums) if loss == "sft" else Scores(*sums, *sums), _BETA, 0.0)
    return list(zip(responses, (float(outcome.chosen), float(outcome.rejected)), strict=False))


def _gradient(network: Any, encoded: EncodedResponse) -> list[Tensor]:
    """The gradient of a response's summed cross-entropy with respect to every parameter."""
    network.requires_grad_(True)
    return list(torch.autograd.grad(-log_probs(network, [encoded]).sum(), list(network.parameters())))


def _inner(gradient: Sequence[Tensor], totals: Mapping[Any, Sequence[Tensor]]) -> dict[Any, float]:
    """The inner product with each update's gradient, over all parameters."""
    return {
        key: sum(float((one * other).sum()) for one, other in zip(gradient, total, strict=True))
        for key, total in totals.items()
    }


def _summed(network: Any, update: Sequence[tuple[EncodedResponse, float]]) -> list[Tensor]:
    """grad L_u of every parameter."""
    parts = [[c * each for each in _gradient(network, encoded)] for encoded, c in update]
    return [sum(each) for each in zip(*parts, strict=True)]


@contextmanager
def _step(
    network: Any, update: Sequence[tuple[EncodedResponse, float]], weights: Sequence[nn.Parameter], rate: float
) -> Iterator[None]:
    """The model after one plain step of these weights; afterwards as it was before."""
    kept = [weight.detach().clone() for weight in weights]
    network.requires_grad_(False)
    for weight in weights:
        weight.requires_grad_(True)
    sum(-c * log_probs(network, [encoded]).sum() for encoded, c in update).backward()
    optimiser = torch.optim.SGD(weights, lr=rate)
    optimiser.step()
    optimiser.zero_grad()
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, old in zip(weights, kept, strict=True):
                weight.copy_(old)


def captured_weights(network: Any) -> list[nn.Parameter]:
    """The weights of the captured projections; a fused module's weight is listed once."""
    layers = find_layers(network, captured_projections(network))
    return [module.weight for module in {part.module: None for layer in layers for part in layer.values()}]


@torch.no_grad()
def _log_probs(network: Any, responses: Mapping[str, EncodedResponse], batch_tokens: int) -> dict[str, float]:
    found = {}
    for keys in plan_batches(responses, batch_tokens):
        found |= zip(keys, log_probs(network, [responses[key] for key in keys]).tolist(), strict=True)
    return found
