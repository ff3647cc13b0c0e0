"""Two-alternative accuracy: how often a model finds the correct response likelier than a wrong one."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from gradatlas.claims.ability import OF_TWO
from gradatlas.claims.estimates import Z
from gradatlas.claims.views import View, common
from gradatlas.statistics.cells import Cell
from gradatlas.study.shares import wilson

CHANCE = 0.5
# The wrong response: another sample's, or where that was not measured, the sample's own with a wrong answer.
WRONG = ("derangement", "wrong_answer")


def two_alternative(view: View) -> Iterator[dict[str, Any]]:
    """Rows of the ``accuracy`` table, a variant each: how often the correct response is likelier than a wrong one.

    The log-probability is summed over the response's tokens; a tie counts as wrong. `low`, `high`: Wilson's
    95 % bounds. A variant without a wrong response, losses or lengths has no row.
    """
    for variant in dict.fromkeys(key[0] for key in view.cells):
        relation = next((name for name in WRONG if view.cell(variant, name) is not None), None)
        pair = [view.cell(variant), view.cell(variant, relation)] if relation else [None]
        both = common(pair) if None not in pair else []
        if not both:
            continue
        preference = margins(view, *both)
        preference = preference[np.isfinite(preference)]
        if not len(preference):
            continue
        right, n = int((preference > 0).sum()), len(preference)
        low, high = wilson(right, n, Z)
        yield {
            "model": view.model,
            "dataset": view.dataset,
            "part": "all",
            "test": OF_TWO,
            "variant": variant,
            "n": n,
            "correct": right,
            "accuracy": right / n,
            "low": low,
            "high": high,
            "chance": CHANCE,
        }


def margins(view: View, right: Cell, wrong: Cell) -> np.ndarray:
    """(samples,): log-probability of the right response less that of the wrong one, in nats."""
    # With loss_norm `sum`, the loss is summed over the response already.
    length = [cell.response_tokens if view.loss_norm == "mean" else 1 for cell in (right, wrong)]
    return wrong.loss * length[1] - right.loss * length[0]
