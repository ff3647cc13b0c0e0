"""The claims that could not be measured for want of a usable sample: a row each, so that none is left out silently."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from gradatlas.claims.evidence import OVERALL, Claim, Estimate, View
from gradatlas.statistics.cells import Cell

REASON = "no usable sample"
_SAMPLES, _LAYERS, _PROJECTIONS = 8, 12, ("q", "k", "v", "o")
_NOTHING = dict.fromkeys(("value", "low", "high", "p_value", "tokens", "reference_tokens"), np.nan)


def unmeasured(view: View, claim: Claim, measure, found: Sequence[Estimate]) -> Iterator[Estimate]:
    """The estimates over all projections that `measure` would have made, had each cell had its samples.

    They hold no number, and the reason. What lacks for another reason (a control that was not measured, too few
    layers) is not among them. `found`: what it made. Stands in for lost cells with made-up ones, and looks only at
    what is compared there.
    """
    views = [view, *(each for each in (view.base, view.untrained, *view.others.values()) if each is not None)]
    lost = {key[:2] for each in views for key in each.lost}
    if not lost:
        return
    have = {_key(each) for each in found}
    for each in measure(_complete(view), claim):
        if each.projection != OVERALL or _key(each) in have:
            continue
        used = {(name, relation) for name in each.variants.split() for relation in ("correct", each.relation)}
        if used & lost:
            yield replace(each, **_NOTHING, n=0, test="", reason=REASON)


def _key(found: Estimate) -> tuple[str, str, str]:
    return found.relation, found.reference_model, found.reference_dataset


def _complete(view: View) -> View:
    """The view, and those compared with it, with made-up cells for all that were measured or lost."""
    keys = {*view.cells, *view.lost}
    return replace(
        view,
        cells={key: _made_up(key) for key in sorted(keys)},
        concentration={key: _random(key).random(_SAMPLES) for key in view.concentration},
        draws=2,
        base=view.base and _complete(view.base),
        untrained=view.untrained and _complete(view.untrained),
        others={name: _complete(other) for name, other in view.others.items()},
    )


def _made_up(key: tuple[str, str, str]) -> Cell:
    random = _random(key)
    values = np.exp(random.normal(size=(_SAMPLES, len(_PROJECTIONS), _LAYERS)))
    loss, lengths = np.exp(random.normal(size=(2, _SAMPLES)))
    ids = tuple(map(str, range(_SAMPLES)))
    return Cell("", *key, "study", ids, _PROJECTIONS, loss, lengths, {"nuclear_norm": values})


def _random(key: Sequence[str]) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(" ".join(key).encode()))


def lost_cells(asked: Mapping, measured: Mapping) -> frozenset:
    """The keys of cells that were asked for and hold no usable sample."""
    return frozenset(asked) - frozenset(measured)
