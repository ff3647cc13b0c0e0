"""What a model can do, from what is measured anyway: which of two responses it finds likelier."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import stats

from gradatlas.claims.evidence import View, together

TEST, CHANCE = "two_alternative", 0.5
# The wrong one of the two: another sample's answer, or else a wrong answer in the own response.
WRONG = ("derangement", "wrong_answer")


def two_alternative(view: View) -> Iterator[dict[str, Any]]:
    """Rows of the ``accuracy`` table, a variant each: how often the correct response is likelier than a wrong one.

    The log-probability is summed over the response's tokens; of equal ones none is preferred. `low`, `high`: Wilson's
    95 % bounds. No row where no wrong response, no loss or no length is known.
    """
    for variant in dict.fromkeys(key[0] for key in view.cells):
        relation = next((name for name in WRONG if view.cell(variant, name) is not None), None)
        found = together(view, view.cell(variant), view.cell(variant, relation)) if relation else None
        if found is None:
            continue
        preference = margins(view, *found[0])
        preference = preference[np.isfinite(preference)]
        if not len(preference):
            continue
        right, n = int((preference > 0).sum()), len(preference)
        bounds = stats.binomtest(right, n).proportion_ci(method="wilson")
        yield {
            "model": view.model,
            "dataset": view.dataset,
            "part": "all",
            "test": TEST,
            "variant": variant,
            "n": n,
            "correct": right,
            "accuracy": right / n,
            "low": float(bounds.low),
            "high": float(bounds.high),
            "chance": CHANCE,
        }


def margins(view: View, right, wrong) -> np.ndarray:
    """By how many nats the model finds the right response likelier than the wrong one, sample by sample."""
    # A loss of `sum` is the log-probability of the whole response already.
    length = [cell.response_tokens if view.loss_norm == "mean" else 1 for cell in (right, wrong)]
    return wrong.loss * length[1] - right.loss * length[0]
