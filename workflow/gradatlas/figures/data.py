"""What a figure of layer gradients is drawn from: the tables of one model, and the names that readers know them by."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from gradatlas.figures.jobs import Dataset
from gradatlas.statistics.shapes import Shapes

REFERENCE = "correct"
# Stands for the relation of a figure of all of them.
ALL = "all"


@dataclass(frozen=True)
class Data:
    """Tables of one model, whose `model` column holds its title, and what the figures of one relation need besides."""

    tables: Mapping[str, pl.DataFrame]
    """curves, mad, rd, rd_layers, cells, per_sample"""
    title: str = ""
    """the dataset's name to readers"""
    relation: str = ALL
    notes: tuple[str, ...] = ()
    """paragraphs of every caption"""
    order: tuple[str, ...] = ()
    """of the variants, where it is not the usual one"""
    tops: Mapping[str, float] | None = None
    """by variant, the end of the study's axis of nuclear norms, beyond which curves are cut off"""
    partner: Mapping[str, pl.DataFrame] | None = None
    """tables of the model that this one is compared with"""
    prompts: tuple[str, str] = ("", "")
    """forms of the partner's and the model's own prompts"""
    draws: int = 0
    seed: int = 0
    datasets: tuple[Dataset, ...] = ()
    """of a figure over all datasets, in order"""
    shapes: Shapes | None = None
    """of a model whose layers differ in shape"""

    def of(self, name: str, *, reference: bool = False) -> pl.DataFrame:
        """The relation's rows of a table; with `reference` those of the correct responses, too."""
        relations = [REFERENCE, self.relation] if reference else [self.relation]
        return self.tables[name].filter(pl.col("relation").is_in(relations))
