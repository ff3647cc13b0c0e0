"""What the rows of the ``cells`` table state of a measurement: samples left out, and marks its readers must see."""

import polars as pl

from gradatlas.charts.names import PIPELINE_CHECK

# The loss over the whole response; controls take it over some of its tokens.
WHOLE_RESPONSE = "all"
# With fewer samples an interval is no ground to state a finding on: no verdict, and no such title.
FEWEST_SAMPLES = 20
# Why a sample is left out, by its column of counts.
LEFT_OUT = {
    "n_no_response_tokens": "no response tokens",
    "n_nonfinite": "not finite",
    "n_out_of_memory": "out of memory",
}


def is_whole() -> pl.Expr:
    """Whether a row is of the loss over whole responses: there a response counts once."""
    return pl.col("loss_tokens") == WHOLE_RESPONSE


def is_check() -> pl.Expr:
    """Whether a row is of a model on data that it was never meant for."""
    return pl.col("purpose") == PIPELINE_CHECK


def has_check(frame: pl.DataFrame) -> bool:
    """Whether any row is."""
    return not frame.filter(is_check()).is_empty()


def marks(cells: pl.DataFrame) -> list[str]:
    """The marks of one model's cells: whether they are pipeline checks, and whether no sample is usable."""
    found = []
    if has_check(cells):
        in_part = not cells.filter(~is_check()).is_empty()
        found.append(f"{PIPELINE_CHECK} in part" if in_part else PIPELINE_CHECK)
    if cells.height and not cells["n_ok"].sum():
        found.append("no usable sample")
    return found
