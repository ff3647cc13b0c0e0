"""The squeezing effect of a softmax classifier, in closed form.

One step on label y of a multi-class logistic regression z = W^T x moves the logits by s (p - e_y) when y is pushed down
and by -s (p - e_y) when it is pulled up, with s = (step size) |x|^2 ("Learning Dynamics of LLM Finetuning", Ren and
Sutherland, ICLR 2025, section 3.3 and appendix E). Pushed down, every ratio is

    alpha_i = p_i' / p_i = exp(s (p_i - [i = y])) / sum_j p_j exp(s (p_j - [j = y]))

so for every s > 0, exactly: alpha_i grows with p_i, and label i != y rises if and only if

    p_i > tau(s) = (1/s) log sum_j p_j exp(s (p_j - [j = y])).

To first order in s, tau = |p|^2 - p_y. tau grows with s (it is a cumulant generating function divided by s), from that
first order up to the largest p_j, so larger steps make more labels fall.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, logsumexp, softmax
from scipy.stats import spearmanr

#: The reference notebook's seed, of numpy's legacy generator, and its sizes.
SEED, LABELS, FEATURES = 10086, 50, 4


@dataclass(frozen=True)
class Case:
    """One step from the logits `z` (labels,): `up` is pulled up and `down` pushed down (None: not), each by `size`.

    `rate` is the step size and `square` is |x|^2; size s = rate x square.
    """

    name: str
    z: np.ndarray
    up: int | None
    down: int | None
    rate: float
    square: float

    @property
    def size(self) -> float:
        """s, the step on the logits."""
        return self.rate * self.square

    @property
    def learned(self) -> int:
        """The label that the step is about: the one pushed down, where there is one."""
        return self.up if self.down is None else self.down

    def probabilities(self) -> tuple[np.ndarray, np.ndarray]:
        """(before, after), each (labels,)."""
        return softmax(self.z), softmax(stepped(self.z, self.size, self.up, self.down))


def stepped(z: np.ndarray, size: float, up: int | None = None, down: int | None = None) -> np.ndarray:
    """The logits (labels,) after one gradient step of `size` up on the log-likelihood of `up` and down on `down`'s."""
    residual = np.zeros_like(z)
    for label, sign in ((up, 1.0), (down, -1.0)):
        if label is not None:
            # With equal weights the two p cancel exactly, so that the control's ratios are exactly equal.
            residual[label] -= sign
    weight = (up is not None) - (down is not None)
    return z - size * (weight * softmax(z) + residual)


def log_ratios(z: np.ndarray, y: int, size: float) -> np.ndarray:
    """log alpha_i (labels,), of the label `y` pushed down, by the closed form."""
    p = softmax(z)
    exponent = size * (p - (np.arange(len(p)) == y))
    return exponent - logsumexp(log_softmax(z) + exponent)


def threshold(z: np.ndarray, y: int, size: float) -> float:
    """tau(s): another label rises if and only if its probability exceeds it."""
    p = softmax(z)
    return float(logsumexp(log_softmax(z) + size * (p - (np.arange(len(p)) == y))) / size)


def first_order_threshold(p: np.ndarray, y: int) -> float:
    """|p|^2 - p_y, the limit of tau(s) for small steps."""
    return float(p @ p - p[y])


def cases() -> list[Case]:
    """The paper's five cases, and the control: case D with label 25 pulled up in the same context, as in the notebook.

    The draws follow the notebook's order: x, then the uniform, flat and peaky weights, then case E's x and weights.
    Peaky weights have taken one step of rate 1 towards labels 5 to 12 at once.
    """
    draw = np.random.RandomState(SEED)
    x = draw.randn(FEATURES)
    square = float(x @ x)
    uniform = x @ draw.randn(FEATURES, LABELS)
    flat = x @ (1 + 0.05 * draw.randn(FEATURES, LABELS))
    peaky = x @ draw.randn(FEATURES, LABELS)
    peaky = peaky + square * (np.isin(np.arange(LABELS), range(5, 13)) - softmax(peaky))
    x_large = draw.randn(50)
    large = x_large @ (0.5 * draw.randn(50, 1000))
    return [
        Case("A", uniform, 21, None, 0.5, square),
        Case("B", flat, None, 42, 0.3, square),
        Case("C", peaky, None, 11, 0.5, square),
        Case("D", peaky, None, 42, 0.5, square),
        Case("E", large, None, 100, 1.0, float(x_large @ x_large)),
        Case("control", peaky, 25, 42, 0.5, square),
    ]


def case_row(case: Case) -> dict:
    """A row of the `toy_squeeze_cases` table; the others are the labels neither pulled up nor pushed down."""
    before, after = case.probabilities()
    y = case.learned
    others = np.setdiff1d(np.arange(len(before)), [label for label in (case.up, case.down) if label is not None])
    winner = int(others[before[others].argmax()])
    ratios = (after / before)[others]
    pushed = case.down is not None and case.up is None
    return {
        "case": case.name,
        "labels": len(before),
        "up": case.up,
        "down": case.down,
        "rate": case.rate,
        "size": case.size,
        "before": float(before[y]),
        "after": float(after[y]),
        "winner": winner,
        "winner_before": float(before[winner]),
        "winner_after": float(after[winner]),
        "rising": int((ratios > 1).sum()),
        "median_ratio": float(np.median(ratios)),
        "ratio_spread": float(np.ptp(np.log(after[others]) - np.log(before[others]))),
        "threshold": threshold(case.z, y, case.size) if pushed else None,
        "first_order_threshold": first_order_threshold(before, y) if pushed else None,
    }


def label_rows(case: Case) -> Iterator[dict]:
    """Rows of the `toy_squeeze` table: every label before and after the step."""
    before, after = case.probabilities()
    for label, (old, new) in enumerate(zip(before, after, strict=True)):
        yield {"case": case.name, "label": label, "before": float(old), "after": float(new)}


#: The sweeps: the varied quantity and its levels.
SWEEPS = {
    # A factor of the logits: from nearly uniform to very peaky.
    "peakiness": np.geomspace(0.1, 10, 13),
    # The pushed label's probability; all others keep their proportions.
    "probability": np.geomspace(1e-6, 0.3, 13),
    # The step on the logits.
    "size": np.geomspace(0.01, 30, 13),
}
SWEEP_SIZE, SWEEP_PROBABILITY = 1.0, 1e-3


def sweep_rows(draws: int, seed: int) -> Iterator[dict]:
    """Rows of the `toy_squeeze_sweeps` table: one quantity is varied, for `draws` random softmaxes.

    The other labels' logits are standard normal. If not varied, the pushed label has probability `SWEEP_PROBABILITY`
    and the step is `SWEEP_SIZE`. `falling`: share of the other labels that fall.
    """
    generator = np.random.default_rng(seed)
    for draw in range(draws):
        others = generator.standard_normal(LABELS - 1)
        for sweep, levels in SWEEPS.items():
            for level in levels:
                own = level if sweep == "probability" else SWEEP_PROBABILITY
                q = log_softmax(others * level if sweep == "peakiness" else others)
                z = np.append(q + np.log1p(-own), np.log(own))
                alphas = log_ratios(z, LABELS - 1, level if sweep == "size" else SWEEP_SIZE)
                winner = int(q.argmax())
                p = softmax(z)
                yield {
                    "sweep": sweep,
                    "draw": draw,
                    "level": float(level),
                    "falling": float((alphas[:-1] < 0).mean()),
                    "winner_gain": float(p[winner] * np.expm1(alphas[winner])),
                    "median_log_ratio": float(np.median(alphas[:-1])),
                }


def violations(draws: int, seed: int) -> dict[str, int]:
    """How often each exact statement fails over `draws` random softmaxes, labels and steps; 0 if it holds.

    `own`: the pushed label falls; `winner`: the most likely other label rises; `monotone`: a more likely label has
    the larger ratio; `threshold`: a label rises if and only if its probability exceeds tau.
    """
    generator = np.random.default_rng(seed)
    failed = dict.fromkeys(("own", "winner", "monotone", "threshold"), 0)
    for _ in range(draws):
        labels = int(generator.integers(2, 200))
        z = generator.standard_normal(labels) * 10 ** generator.uniform(-2, 1)
        y, size = int(generator.integers(labels)), 10 ** generator.uniform(-3, 2)
        for name, holds in statements(z, y, size).items():
            failed[name] += not holds
    return failed


#: Ratios this close to 1, and probabilities this close (relatively) to each other or to tau, count as equal.
ROUNDING = 1e-10


def statements(z: np.ndarray, y: int, size: float) -> dict[str, bool]:
    """The exact statements about one step down on `y`, tested on the logits after it (see `violations`).

    Needs two labels or more. The ratios are those of the softmax after the step, not of the closed form; differences
    within rounding do not count.
    """
    p, alphas = softmax(z), log_softmax(stepped(z, size, down=y)) - log_softmax(z)
    others = np.delete(np.arange(len(p)), y)
    ranked = others[np.argsort(p[others], kind="stable")]
    slack = ROUNDING * max(1.0, size)
    tau = threshold(z, y, size)
    clear = others[np.abs(p[others] - tau) > slack / size]
    return {
        "own": bool(alphas[y] < slack),
        "winner": bool(alphas[ranked[-1]] > -slack),
        "monotone": bool((np.diff(alphas[ranked]) > -slack).all()),
        "threshold": bool(((alphas[clear] > 0) == (p[clear] > tau)).all()),
    }


#: Published numbers of the paper's cases: own label and winner before and after, how many others rise. None for E.
PUBLISHED = {
    "A": {"before": 0.072, "after": 0.947, "winner_before": 0.250, "winner_after": 0.007, "rising": 0},
    "B": {"before": 0.0233, "after": 0.0011, "rising": 49},
    "C": {"before": 0.0293, "after": 4.6e-6, "winner_before": 0.763, "winner_after": 0.987, "rising": 1},
    "D": {"before": 4.0e-10, "after": 5.5e-14, "winner_before": 0.763, "winner_after": 0.986, "rising": 1},
}


def trends(rows: list[dict]) -> dict[str, list[float]]:
    """From `toy_squeeze_sweeps` rows, by sweep: Spearman's correlation of level and `falling`, one value per draw.

    Draws with a constant `falling` have no correlation and are left out.
    """
    found: dict[str, list[float]] = {sweep: [] for sweep in SWEEPS}
    for sweep in SWEEPS:
        for draw in sorted({row["draw"] for row in rows if row["sweep"] == sweep}):
            own = [row for row in rows if row["sweep"] == sweep and row["draw"] == draw]
            levels, falling = ([row[name] for row in own] for name in ("level", "falling"))
            if len(set(falling)) > 1:
                found[sweep].append(float(spearmanr(levels, falling).statistic))
    return found
