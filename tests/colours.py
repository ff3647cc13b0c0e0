"""What the colours of a chart's record stand for, checked against the theme."""

import json
import re

from gradatlas.charts import theme

NEUTRAL = {theme.INK, theme.QUIET, theme.RULE, theme.GRID, "#ffffff"}
RAMPS = {*theme.SEQUENTIAL, *theme.DIVERGING, *theme.RAMP}
MEANINGS = {colour: f"{family}, {key}" for family, found in theme.COLOURS.items() for key, colour in found.items()}


def meanings_of(specification):
    """Colours by what readers see as their entry; fails where a figure breaks the rule of one colour a meaning.

    All colours are the theme's; in one figure no entry has two colours, and no colour two entries.
    """
    used = set(re.findall(r"#[0-9a-f]{6}\b", json.dumps({**specification, "config": {}}).lower()))
    assert used <= {*MEANINGS, *NEUTRAL, *RAMPS}, used - {*MEANINGS, *NEUTRAL, *RAMPS}
    found = {}
    for scale in _scales(specification):
        for entry, colour in zip(scale["domain"], scale["range"], strict=True):
            if colour not in NEUTRAL:
                assert found.setdefault(entry, colour) == colour, entry
    assert len(set(found.values())) == len(found), found
    return found


def _scales(part):
    """Scales of colours with an entry each; a ramp has numbers."""
    if isinstance(part, dict):
        scale = (part.get("color") or {}).get("scale") if isinstance(part.get("color"), dict) else None
        if scale and scale.get("domain") and isinstance(scale["domain"][0], str):
            yield scale
    for each in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _scales(each)
