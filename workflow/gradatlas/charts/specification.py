"""A chart as its specification in Vega-Lite: what Altair's own `to_dict` makes of it, in a tenth of the time.

Altair asks of every text and number in a chart what it might be, and turns data into rows anew for each layer. In the
tests the two are held against each other, and against the schema, for every chart that is saved (`conftest.py`).
"""

import hashlib
import json
from functools import cache
from typing import Any

import altair as alt
import polars as pl
from altair.utils import parse_shorthand, update_nested
from altair.vegalite.v6.schema.channels import FieldChannelMixin


def specification_of(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """The whole specification of a chart, under the theme, with its data."""
    tables = _Tables()
    body = {**_plain(chart, None, tables), "$schema": alt.SCHEMA_URL}
    found = update_nested(alt.theme.get()(), body)
    return found | {"datasets": tables.rows} if tables.rows else found


class _Tables:
    """The data of a chart, each by a name made of its rows, as Altair calls it."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {}
        # With the data itself, so that no other has its id.
        self._names: dict[int, tuple[str, Any]] = {}

    def name(self, data: pl.DataFrame | alt.InlineData) -> str:
        if id(data) not in self._names:
            rows = data.to_dicts() if isinstance(data, pl.DataFrame) else data.values
            digest = hashlib.sha256(json.dumps(rows, sort_keys=True, default=str).encode()).hexdigest()[:32]
            self._names[id(data)] = f"data-{digest}", data
            self.rows[f"data-{digest}"] = rows
        return self._names[id(data)][0]


def _plain(part: Any, data: pl.DataFrame | None, tables: _Tables) -> Any:
    """A part of a chart as JSON has it; `data`: those of the view that it is in."""
    if isinstance(part, dict):
        return {key: _plain(value, data, tables) for key, value in part.items() if value is not alt.Undefined}
    if isinstance(part, (list, tuple)):
        return [_plain(each, data, tables) for each in part]
    if not isinstance(part, alt.SchemaBase):
        return part
    if part._args:
        return _plain(part._args[0], data, tables)
    fields = {key: value for key, value in part._kwds.items() if value is not alt.Undefined}
    if isinstance(part, FieldChannelMixin):
        fields = _encoded(fields, "type" in part._kwds, data)
    elif isinstance(part, alt.TopLevelMixin):
        fields.pop("_cached_hash", None)
        data = fields.get("data", data)
        if "data" in fields:
            fields["data"] = {"name": tables.name(data)}
        if isinstance(fields.get("mark"), str):
            fields["mark"] = {"type": fields["mark"]}
    return _plain(fields, data, tables)


def _encoded(fields: dict[str, Any], typed: bool, data: pl.DataFrame | None) -> dict[str, Any]:
    """A channel with its shorthand (``"x:Q"``) written out; `typed`: whether it has a type (the end of a bar has none).

    A type that is not given is inferred from the data.
    """
    shorthand = fields.pop("shorthand", "")
    parsed = _parsed(shorthand) if ":" in shorthand else parse_shorthand(shorthand, data) if shorthand else {}
    return {key: value for key, value in parsed.items() if typed or key != "type"} | fields


_parsed = cache(parse_shorthand)
