"""One colour a meaning: in the theme's table, in the code, and in every record of a chart."""

import itertools
import json
import re

import numpy as np
import pytest

from colours import MEANINGS, NEUTRAL, RAMPS, meanings_of
from conftest import ROOT
from gradatlas.charts import theme
from test_charts_kinds import GOLDEN
from test_figures import lab

CODE = ROOT / "workflow/gradatlas"


def test_no_two_meanings_share_a_colour():
    """Over all families readers can tell them apart; those of one family, which share figures, better."""
    colours = [colour for family in theme.COLOURS.values() for colour in family.values()]
    assert len(MEANINGS) == len(colours) and not {*colours} & {*NEUTRAL, *RAMPS}
    for one, other in itertools.combinations(MEANINGS, 2):
        apart = 18 if MEANINGS[one].partition(",")[0] == MEANINGS[other].partition(",")[0] else 9
        assert np.linalg.norm(lab(one, "usual") - lab(other, "usual")) > apart, (MEANINGS[one], MEANINGS[other])


def test_modules_take_colours_from_the_theme():
    for path in sorted(CODE.rglob("*.py")):
        own = path == CODE / "charts/theme.py"
        assert own or not re.search(r"""["']#[0-9a-fA-F]{3,8}["']""", path.read_text(encoding="utf-8")), path
    assert "#" in (CODE / "charts/theme.py").read_text(encoding="utf-8")


def test_the_page_has_the_colours_of_the_figures():
    """Beside neutral ones, which its first lines name: those of verdicts, and the ramp of the tokens' losses."""
    templates = CODE / "page/templates"
    assert not [path for path in templates.glob("*.js") if re.search(r"[\"']#[0-9a-f]{6}\b", path.read_text())]
    light, dark = (templates / "atlas.css").read_text().split("@media (prefers-color-scheme: dark)", 1)
    for verdict in ("holds", "fails"):
        assert f"--{verdict}: {theme.COLOURS['verdict'][verdict]};" in light
        assert f"--{verdict}: {theme.ON_DARK['verdict'][verdict]};" in dark.split("}", 1)[0]
    steps = re.findall(r"\.s\d \{ background: (#[0-9a-f]{6})", (templates / "scores.css").read_text())
    _, *ramp = lab(theme.SEQUENTIAL[-1], "usual")
    for step in steps:
        _, *own = lab(step, "usual")
        assert abs(np.degrees(np.arctan2(*own[::-1]) - np.arctan2(*ramp[::-1]))) < 25, step
    assert len(steps) == 10


def test_a_meaning_has_one_hue_in_the_dark():
    """Lighter, so that it stands out, and still the same colour to a reader who changes from one to the other."""
    for family, colours in theme.ON_DARK.items():
        assert list(colours) == [key for key in theme.COLOURS[family] if key in colours]
        for key, colour in colours.items():
            (light, *one), (dark, *other) = lab(theme.COLOURS[family][key], "usual"), lab(colour, "usual")
            turn = np.degrees(np.arctan2(*one[::-1]) - np.arctan2(*other[::-1]))
            assert dark >= light and abs((turn + 180) % 360 - 180) < 45, (family, key, turn)


def test_a_meaning_has_one_colour_over_all_figures_of_gradients():
    found = {}
    for path in sorted(GOLDEN.glob("*.vl.json")):
        for entry, colour in meanings_of(json.loads(path.read_text(encoding="utf-8"))).items():
            assert found.setdefault(entry, colour) == colour, (path.name, entry)
    assert {"Q", "None", "Detailed", "Correct"} <= set(found) and len(set(found.values())) == len(found)


def test_a_figure_that_breaks_the_rule_is_found():
    record = json.loads((GOLDEN / "variants.vl.json").read_text(encoding="utf-8"))
    text = json.dumps(record)
    detailed, none = (theme.COLOURS["variant"][key] for key in ("detailed", "none"))
    for colour in (none, "#123456"):
        with pytest.raises(AssertionError):
            meanings_of(json.loads(text.replace(detailed, colour)))


def test_an_empty_fact_is_left_out_of_the_line():
    """A data set without a title has an empty one."""
    heading = theme.Heading("title", ("", "30 questions"))
    assert theme.one_line(heading, 300) == ["30 questions"] and theme.one_line(theme.Heading("title", ("",)), 300) == []
    (cut,) = theme.one_line(theme.Heading("title", ("a fact that is much too long",)), 60)
    assert cut.endswith("…") and theme.width_of(cut, theme.SUBTITLE_SIZE) <= 60
