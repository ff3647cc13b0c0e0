"""What the claims of the first study compare: the cells of a model on a dataset, found from what a claim declares.

A claim's row in the sheet names the variants, responses and models (or datasets) that it compares. So what it needs is
known before anything is measured, and a claim whose cells have no usable sample gets a row that says so.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from gradatlas.claims.estimates import (
    NO_NUMBER,
    GradientEstimate,
    Scale,
    Tail,
    estimate,
    paired_tails,
    resampled,
)
from gradatlas.claims.sheet import OVERALL, GradientClaim
from gradatlas.statistics.cells import Cell, cut

LOST = "no usable sample"
MATCHED = "random:matched"
# (variant, relation, loss_tokens)
Key = tuple[str, str, str]


@dataclass(frozen=True)
class View:
    """One model on one dataset: its cells, and what it is compared with.

    `base` is an instructed model's base model, `untrained` the network before training, `others` the same model on
    other datasets, `concentration` each cell's evenness of the loss over its tokens, where that was measured; `lost`
    the keys of cells that were requested and hold no usable sample; `task` the dataset's.
    """

    dataset: str
    model: str
    kind: str
    cells: Mapping[Key, Cell]
    draws: int
    seed: int
    base: "View | None" = None
    untrained: "View | None" = None
    others: Mapping[str, "View"] = field(default_factory=dict)
    concentration: Mapping[Key, np.ndarray] = field(default_factory=dict)
    loss_norm: str = "mean"
    lost: frozenset[Key] = frozenset()
    task: str = "other"

    def cell(self, variant: str, relation: str = "correct", tokens: str = "all") -> Cell | None:
        """A cell, where it was measured; of `MATCHED` tokens, each sample averaged over the draws measured."""
        if tokens != MATCHED:
            return self.cells.get((variant, relation, tokens))
        draws = common([self.cells[key] for key in _of(self.cells, (variant, relation, tokens))])
        if not draws:
            return None
        values = {"nuclear_norm": np.mean([cell.values["nuclear_norm"] for cell in draws], axis=0)}
        return replace(draws[0], loss_tokens=MATCHED, values=values)

    def means(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Means over samples of arrays (samples, ...) under the same bootstrap draws: (1 + draws, ...) each."""
        return resampled(values, self.dataset, self.draws, self.seed)


def _of(keys: Collection[Key], wanted: Key) -> list[Key]:
    """The keys that a wanted one stands for: itself, or all draws of random tokens."""
    return [key for key in keys if key == wanted or (wanted[2] == MATCHED and _drawn(key) == wanted)]


def _drawn(key: Key) -> Key:
    return (*key[:2], MATCHED if key[2].startswith(MATCHED) else key[2])


def common(cells: Sequence[Cell]) -> list[Cell]:
    """The cells cut to the samples that all have, in the order of the first; none where there is no such sample."""
    if not cells:
        return []
    shared = set(cells[0].sample_ids).intersection(*(cell.sample_ids for cell in cells))
    ids = [sample_id for sample_id in cells[0].sample_ids if sample_id in shared]
    return [cut(cell, ids) for cell in cells] if ids else []


def log_sizes(cell: Cell) -> np.ndarray:
    """Each sample's log nuclear norm, averaged over layers before the logarithm: (samples, projections)."""
    with np.errstate(divide="ignore"):
        return np.log(cell.values["nuclear_norm"].mean(2))


@dataclass(frozen=True)
class Compared:
    """What one estimate is made of: the measured cells, in the order of `comparisons`, and the names of its row."""

    claim: GradientClaim
    view: View
    scale: Scale
    cells: Sequence[Cell]
    about: Mapping[str, str]

    @cached_property
    def curves(self) -> list[np.ndarray]:
        """The mean curves of the cells under the same bootstrap draws: (1 + draws, projections, layers) each."""
        return self.view.means([cell.values["nuclear_norm"] for cell in self.cells])

    def estimate(
        self,
        draws: np.ndarray,
        n: int,
        one: Sequence[Cell],
        other: Sequence[Cell] = (),
        *,
        projection: str = OVERALL,
        tails: Tail | None = None,
        test: str = "",
        **about: Any,
    ) -> GradientEstimate:
        """One number from its bootstrap `draws`; `one` and `other`: the cells of the two sides."""
        about = {"projection": projection, **self.about, **sides(one, other), **about}
        return estimate(GradientEstimate, self.claim, draws, self.scale, n, tails, test, **about)

    def by_projection(
        self,
        draws: np.ndarray,
        one: Sequence[Cell],
        other: Sequence[Cell] = (),
        differences: np.ndarray | None = None,
        **about: Any,
    ) -> Iterator[GradientEstimate]:
        """One estimate over all projections, then one for each.

        `draws`: (1 + draws, projections). `differences`: (samples, projections), the samples' own on the scale, for
        Wilcoxon's test; a sample whose gradient is zero has none, and then the bootstrap's standard error serves.
        """
        paired = differences is not None and bool(np.isfinite(differences).all())
        n = len(differences if differences is not None else self.cells[0].sample_ids)
        with np.errstate(divide="ignore", invalid="ignore"):
            columns = {OVERALL: self.scale.combine(draws), **dict(zip(one[0].projections, draws.T, strict=True))}
        for place, (projection, column) in enumerate(columns.items()):
            tails = None
            if paired:
                own = differences.mean(1) if place == 0 else differences[:, place - 1]
                tails = paired_tails(own, self.scale)
            yield self.estimate(column, n, one, other, projection=projection, tails=tails, test="Wilcoxon", **about)


def sides(one: Sequence[Cell], other: Sequence[Cell] = ()) -> dict[str, Any]:
    """The variants and mean response tokens of the two sides."""
    variants = dict.fromkeys(cell.variant for cell in (*one, *other))
    lengths = [
        float(np.mean([cell.response_tokens.mean() for cell in each])) if each else np.nan for each in (one, other)
    ]
    return {"variants": " ".join(variants), "tokens": lengths[0], "reference_tokens": lengths[1]}


@dataclass(frozen=True)
class Measure:
    """How a number is made of the cells compared, and on which scale.

    `paired`: the cells are cut to the samples that all have. `least`: so many variants are needed; `partial`: those of
    the claim's variants that were measured are enough. `evenness`: the evenness of the loss over a cell's tokens is
    needed too.
    """

    of: Callable[[Compared], Iterator[GradientEstimate]]
    scale: Scale
    paired: bool = True
    least: int = 1
    partial: bool = False
    evenness: bool = False


@dataclass(frozen=True)
class Comparison:
    """The cells that one estimate needs, each by its view and key, and the names of its row."""

    cells: Sequence[tuple[View, Key]]
    about: Mapping[str, str]

    @property
    def lost(self) -> bool:
        """Whether one of the cells was requested and holds no usable sample."""
        return any(_of(view.lost, key) and not _of(view.cells, key) for view, key in self.cells)


def comparisons(view: View, claim: GradientClaim, measure: Measure, with_lost: bool = False) -> Iterator[Comparison]:
    """What a claim compares on a view: by variant, then model (its own, the one compared with), then responses.

    Of what was measured; `with_lost`, of what was requested.
    """

    def there(place: tuple[View, Key]) -> bool:
        each, key = place
        return bool(_of(_keys(each, with_lost), key)) and (not measure.evenness or key in each.concentration)

    if claim.between:
        yield from filter(lambda each: all(map(there, each.cells)), _between(view, claim, with_lost))
        return
    reference = {"base": view.base, "untrained": view.untrained}.get(claim.against)
    if claim.against and reference is None:
        return
    models = [view, *([reference] if reference else [])]
    for relation in claim.relations:
        groups = [
            [(each, (variant, name, tokens)) for each in models for name in dict.fromkeys(("correct", relation))]
            for variant, tokens in _variants(claim, _keys(view, with_lost))
        ]
        usable = [group for group in groups if all(map(there, group))]
        if len(usable) >= measure.least and (measure.partial or len(usable) == len(groups)):
            about = {"relation": relation, "reference_model": reference.model if reference else ""}
            yield Comparison([place for group in usable for place in group], about)


def _keys(view: View, with_lost: bool) -> Collection[Key]:
    return {**view.cells, **dict.fromkeys(sorted(view.lost))} if with_lost else view.cells


def _variants(claim: GradientClaim, keys: Collection[Key]) -> Iterator[tuple[str, str]]:
    """The variants and loss tokens that a claim names; a name that ends in * stands for all that begin so."""
    for name in claim.variants:
        variant, _, matched = name.partition(":")
        known = dict.fromkeys(key[0] for key in keys if key[0].startswith(variant[:-1]))
        for each in known if variant.endswith("*") else [variant]:
            yield each, MATCHED if matched else "all"


def _between(view: View, claim: GradientClaim, with_lost: bool) -> Iterator[Comparison]:
    """One dataset against another: of the other's variants, that whose mean response length is closest."""
    for pair in claim.between:
        own, other = pair.split("/")
        dataset, variant = own.split(":")
        if view.dataset != dataset or other not in view.others:
            continue
        one = view.cell(variant)
        correct = [key for key in _keys(view.others[other], with_lost) if key[1:] == ("correct", "all")]
        closest = min(correct, key=lambda key: _apart(one, view.others[other].cells.get(key)), default=None)
        if closest:
            yield Comparison(
                [(view, (variant, "correct", "all")), (view.others[other], closest)], {"reference_dataset": other}
            )


def _apart(one: Cell | None, other: Cell | None) -> float:
    """How far two mean response lengths lie apart, as logarithms."""
    if one is None or other is None:
        return np.inf
    return abs(np.log(other.response_tokens.mean()) - np.log(one.response_tokens.mean()))


def estimates(view: View, claim: GradientClaim, measure: Measure) -> Iterator[GradientEstimate]:
    """All numbers of a claim on a view, and a row without a number for each that lacks a usable sample."""
    if claim.tasks and view.task not in claim.tasks:
        return
    made = []
    for comparison in comparisons(view, claim, measure):
        cells = [each.cell(*key) for each, key in comparison.cells]
        cells = common(cells) if measure.paired and None not in cells else cells
        if cells and None not in cells:
            found = list(measure.of(Compared(claim, view, measure.scale, cells, comparison.about)))
            made += [comparison.about] if found else []
            yield from found
    for comparison in comparisons(view, claim, measure, with_lost=True):
        if comparison.lost and comparison.about not in made:
            variants = " ".join(dict.fromkeys(variant for _, (variant, *_) in comparison.cells))
            about = dict(comparison.about) | {"variants": variants, "reason": LOST}
            yield GradientEstimate(**NO_NUMBER, scale=measure.scale.name, **about)
