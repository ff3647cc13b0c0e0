"""Tables for spreadsheets."""

import polars as pl


def csv_of(frame: pl.DataFrame, *, header: bool = True) -> str:
    """A polars frame as CSV. A text that a spreadsheet would run as a formula has an apostrophe in front.

    `header`: whether the first line names the columns. Numbers as text have none. Parquet holds all texts as they are.
    """
    text = pl.col(pl.String)
    number = text.str.contains(r"^[-+]?[0-9][0-9.,]*([eE][-+]?[0-9]+)?%?$")
    runs = text.str.contains(r"^[=+\-@\t\r]") & ~number
    return frame.with_columns(pl.when(runs).then("'" + text).otherwise(text).name.keep()).write_csv(
        include_header=header
    )
