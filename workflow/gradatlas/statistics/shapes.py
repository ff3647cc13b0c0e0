"""Comparing layers whose matrices differ in shape. In most models all have the same shape.

`matrix_shapes` of a gradients job: by projection, each layer's (rows, columns), or None for a layer without its own
matrix. Where these differ, sizes are nuclear norms divided by the root of the smaller dimension
(`nuclear_norm_scaled`), and only layers of the same shape are compared.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gradatlas.core.tables import read_metadata
from gradatlas.statistics.tables import CURVES
from gradatlas.study.settings import PROJECTIONS

Shapes = Mapping[str, Sequence[Sequence[int] | None]]


def own_shapes(facts: Mapping[str, Any]) -> Shapes:
    """The shapes of the model's own matrices in a job's metadata: not those of an adapter. Empty where unknown."""
    return {name: each for name, each in (facts.get("matrix_shapes") or {}).items() if name in PROJECTIONS}


def shapes_differ(shapes: Shapes | None) -> bool:
    """Whether any projection's layers differ in shape, or a layer has none; False for unknown shapes."""
    return any(len({tuple(shape or ()) for shape in each}) > 1 for each in (shapes or {}).values())


def present(shapes: Shapes, projections: Sequence[str]) -> np.ndarray:
    """(projections, layers): whether a layer has its own matrix."""
    return np.array([[shape is not None for shape in shapes[name]] for name in projections])


def steps(shapes: Shapes, projections: Sequence[str]) -> np.ndarray:
    """(projections, layers - 1): whether two neighbouring layers have the same shape."""
    return np.array(
        [
            [bool(one and other) and tuple(one) == tuple(other) for one, other in pairwise(each)]
            for each in (shapes[name] for name in projections)
        ]
    )


def read_shapes(statistics: Sequence[str | Path]) -> dict[str, Shapes]:
    """By model, the shapes of models whose layers differ, from folders of statistics."""
    facts = [read_metadata(Path(folder) / "curves.parquet", CURVES).get("models", {}) for folder in statistics]
    return {
        model: known["matrix_shapes"] for models in facts for model, known in models.items() if "matrix_shapes" in known
    }


def sentence(shapes: Shapes | None) -> list[str]:
    """The note in a figure or table of such a model; none where all layers have the same shape."""
    if not shapes_differ(shapes):
        return []
    sizes = {name: sorted({tuple(shape) for shape in each if shape}) for name, each in shapes.items()}
    differing = [f"{name} {', '.join(f'{r}×{c}' for r, c in each)}" for name, each in sizes.items() if len(each) > 1]
    partial = [name for name, each in shapes.items() if not all(each)]
    parts = [f"Layers differ in shape ({'; '.join(differing)})"] if differing else []
    parts += [f"Some layers have no {', '.join(partial)} of their own"] if partial else []
    stepless = [name for name, each in shapes.items() if not steps({name: each}, [name]).any()]
    parts += [f"No two neighbouring layers of {', '.join(stepless)} have one shape: no MAD"] if stepless else []
    return [
        f"{'. '.join(parts)}. Sizes here are nuclear norms divided by the root of the matrix’s smaller dimension; "
        "steps and MAD are taken between neighbouring layers of one shape alone."
    ]
