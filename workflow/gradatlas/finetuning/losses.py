"""The losses of finetuning, each with its residual term G = dL/dz in closed form.

Every loss is a function of the log-probabilities s+ = log pi(y+|x) and s- = log pi(y-|x) of two responses. At each
response token ds/dz = e_y - pi, so G+ = c+ (pi - e_y+) and G- = c- (pi - e_y-), with two numbers c = -dL/ds for a pair,
the same for all its tokens ("Learning Dynamics of LLM Finetuning", Ren and Sutherland, ICLR 2025, section 3). c > 0
raises a response's probability, c < 0 lowers it. Here h = s - r is the log-ratio to the reference model, h+ - h- the
margin.

| loss | L of a pair | c+ | c- |
|---|---|---|---|
| sft | -s+ | 1 | |
| dpo | -log sigma(b (h+ - h-)) | b sigma(-b (h+ - h-)) | -c+ |
| ipo | (h+ - h- - 1/(2 b))^2 | 2 (1/(2 b) - (h+ - h-)) | -c+ |
| slic | max(0, d - (s+ - s-)) - b s+ | [hinge open] + b | -[hinge open] |
| sppo, e = 1/b | (h+ - e/2)^2 + (h- + e/2)^2 | e - 2 h+ | -e - 2 h- |
| kto | 2 - sigma(b (h+ - k)) - sigma(b (k - h-)) | b sigma' | -b sigma' |
| simpo | -log sigma(b (s+/n+ - s-/n-) - g) | b sigma(-...)/n+ | -b sigma(-...)/n- |

Two options of dpo and ipo, as in the study's code: `label_smoothing` e, the probability that the labels of a pair are
exchanged, gives (1 - e) L(y+, y-) + e L(y-, y+) (conservative DPO); `reference_free` takes r = 0.

Differences from the paper, shown by autograd in tests/test_dynamics_losses.py:
- IPO. Equation 17 takes DPO's b (1 - a) with a = h - 1/(2 b), h the margin, that is b (1 - h) + 1/2. The sign is right
  while h < 1/(2 b), but not the number: at the start it is b + 1/2, the true value 1/b (.6 and 10 at b = .1); and it
  changes its sign at h = 1 + 1/(2 b), not at h = 1/(2 b).
- SPPO. Equations 21 and 22 have two positive vectors, and hence no squeezing. The derivative c- = -e - 2 h- is negative
  until h- has fallen to -e/2: the rejected response is pushed down from the first step on, by -e, to a bounded extent.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of a batch of pairs, each (pairs,): sums over the tokens of a response.

    `chosen` and `rejected` under the trained model (with gradient), `chosen_reference` and `rejected_reference` under
    the reference, `chosen_tokens` and `rejected_tokens` the lengths. `divergence`: KTO's k >= 0, without gradient.
    Values that a loss does not use may be None.
    """

    chosen: Tensor
    rejected: Tensor | None = None
    chosen_reference: Tensor | None = None
    rejected_reference: Tensor | None = None
    chosen_tokens: Tensor | None = None
    rejected_tokens: Tensor | None = None
    divergence: Tensor | None = None

    @property
    def ratios(self) -> tuple[Tensor, Tensor]:
        """(h+, h-)."""
        return self.chosen - self.chosen_reference, self.rejected - self.rejected_reference

    @property
    def swapped(self) -> "Scores":
        """The same pairs with chosen and rejected exchanged."""
        return replace(
            self,
            chosen=self.rejected,
            rejected=self.chosen,
            chosen_reference=self.rejected_reference,
            rejected_reference=self.chosen_reference,
            chosen_tokens=self.rejected_tokens,
            rejected_tokens=self.chosen_tokens,
        )


@dataclass(frozen=True)
class Outcome:
    """`loss`, `chosen` (c+) and `rejected` (c-) of every pair, each (pairs,); the latter two without gradient."""

    loss: Tensor
    chosen: Tensor
    rejected: Tensor


@dataclass(frozen=True)
class Loss:
    """A loss and whether it needs rejected responses (`paired`), a reference model, and mismatched pairs (KTO's k).

    `optional`: whether it has label smoothing and can do without its reference.
    """

    of: Callable[[Scores, float, float], Outcome]
    paired: bool = True
    reference: bool = True
    mismatched: bool = False
    optional: bool = False

    def smoothed(self, scores: Scores, beta: float, margin: float, smoothing: float) -> Outcome:
        """The loss with labels that are wrong with the probability `smoothing`."""
        right = self.of(scores, beta, margin)
        if not smoothing:
            return right
        wrong = self.of(scores.swapped, beta, margin)
        pairs = ((right.loss, wrong.loss), (right.chosen, wrong.rejected), (right.rejected, wrong.chosen))
        return Outcome(*((1 - smoothing) * one + smoothing * other for one, other in pairs))


def sft(scores: Scores, beta: float, margin: float) -> Outcome:
    return _outcome(-scores.chosen, torch.ones_like(scores.chosen), torch.zeros_like(scores.chosen))


def dpo(scores: Scores, beta: float, margin: float) -> Outcome:
    chosen, rejected = scores.ratios
    inside = beta * (chosen - rejected)
    pull = beta * torch.sigmoid(-inside)
    return _outcome(-logsigmoid(inside), pull, -pull)


def _ipo(scores: Scores, beta: float, margin: float) -> Outcome:
    chosen, rejected = scores.ratios
    gap = chosen - rejected - 1 / (2 * beta)
    return _outcome(gap**2, -2 * gap, 2 * gap)


def _slic(scores: Scores, beta: float, margin: float) -> Outcome:
    # y_ref, the response of the likelihood term, is the chosen one.
    gap = margin - (scores.chosen - scores.rejected)
    hinge = (gap > 0).to(gap.dtype)
    return _outcome(gap.clamp(min=0) - beta * scores.chosen, hinge + beta, -hinge)


def _sppo(scores: Scores, beta: float, margin: float) -> Outcome:
    # The paper's eta is the inverse of beta.
    eta = 1 / beta
    chosen, rejected = scores.ratios
    loss = (chosen - eta / 2) ** 2 + (rejected + eta / 2) ** 2
    return _outcome(loss, eta - 2 * chosen, -eta - 2 * rejected)


def _kto(scores: Scores, beta: float, margin: float) -> Outcome:
    chosen, rejected = scores.ratios
    up, down = (
        torch.sigmoid(beta * (chosen - scores.divergence)),
        torch.sigmoid(beta * (scores.divergence - rejected)),
    )
    return _outcome((1 - up) + (1 - down), beta * up * (1 - up), -beta * down * (1 - down))


def _simpo(scores: Scores, beta: float, margin: float) -> Outcome:
    inside = beta * (scores.chosen / scores.chosen_tokens - scores.rejected / scores.rejected_tokens) - margin
    pull = beta * torch.sigmoid(-inside)
    return _outcome(-logsigmoid(inside), pull / scores.chosen_tokens, -pull / scores.rejected_tokens)


def _outcome(loss: Tensor, chosen: Tensor, rejected: Tensor) -> Outcome:
    return Outcome(loss, chosen.detach(), rejected.detach())


LOSSES: dict[str, Loss] = {
    "sft": Loss(sft, paired=False, reference=False),
    "dpo": Loss(dpo, optional=True),
    "ipo": Loss(_ipo, optional=True),
    "slic": Loss(_slic, reference=False),
    "sppo": Loss(_sppo),
    "kto": Loss(_kto, mismatched=True),
    "simpo": Loss(_simpo, reference=False),
}


def divergence_of(policy: Tensor, reference: Tensor) -> Tensor:
    """KTO's k of a batch: the mean log-ratio of mismatched responses, not below 0; a scalar without gradient.

    `policy`, `reference`: (pairs,) log-probabilities of a response that belongs to another prompt.
    """
    return (policy - reference).mean().clamp(min=0).detach()


def residual(logits: Tensor, targets: Tensor, coefficient: Tensor) -> Tensor:
    """G = c (pi - e_y), as `logits` (..., tokens, vocabulary); `targets` (..., tokens), `coefficient` (...)."""
    pi = torch.softmax(logits, dim=-1)
    one_hot = torch.nn.functional.one_hot(targets, logits.shape[-1]).to(pi.dtype)
    return coefficient[..., None, None] * (pi - one_hot)
