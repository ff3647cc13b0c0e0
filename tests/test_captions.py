"""Captions of Snakemake's report: one for each kind of figure, as Snakemake renders them."""

import html
import re
from types import SimpleNamespace

import jinja2
import pytest
from docutils.core import publish_parts

from conftest import ROOT
from gradatlas.charts.names import KINDS
from gradatlas.figures.generations import MEASURES
from gradatlas.page.figures import CAPTIONS
from test_tables import FOREIGN

ACROSS = ("mad", "steps", "rd", "differences", "biographies_panels", "biographies_variants")
OF_ONE = tuple(kind for kind in KINDS if kind not in ACROSS)


def caption(name, kind, title="GSM8K"):
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    template = environment.from_string((ROOT / "workflow/report" / name).read_text(encoding="utf-8"))
    wildcards = SimpleNamespace(model="mini", relation="wrong_chain", kind=kind, dataset="d")
    config = {"samples": 100, "seed": 0, "bootstrap": 1000, "dynamics": {"seeds": [0, 1]}, "toys": {"draws": 50}}
    config["datasets"] = ["d"]
    params = SimpleNamespace(title=title)
    text = template.render(snakemake=SimpleNamespace(wildcards=wildcards, params=params, config=config))
    return publish_parts(text, writer="html", settings_overrides={"halt_level": 2, "report_level": 5})["body"]


@pytest.mark.parametrize(("name", "kinds"), [("figure.rst", OF_ONE), ("overview.rst", ACROSS)])
def test_each_kind_of_figure_has_its_own_caption(name, kinds):
    found = {kind: caption(name, kind) for kind in kinds}
    assert len(set(found.values())) == len(kinds)
    assert all("wrong chain responses" in text and "<strong>" in text for text in found.values())
    # A kind without a caption of its own is called by its name.
    assert "ind of figure." in caption(name, "new_kind of figure")


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("dynamics.rst", CAPTIONS), ("generations.rst", ("win_rate", *MEASURES))],
    ids=["runs", "generations"],
)
def test_each_kind_of_figure_of_the_second_study_has_its_own_caption(name, kinds):
    found = {kind: caption(name, "sft.curves" if kind == "curves" else kind) for kind in kinds}
    assert len(set(found.values())) == len(kinds)
    assert all("<strong>GSM8K" in text and "{" not in text for text in found.values())
    # One of several parts is of the same kind.
    last = list(kinds)[-1]
    assert caption(name, f"{last}.2") == found[last]
    # A kind without a caption of its own is called by its name.
    assert "ind of figure." in caption(name, "new_kind of figure")


def test_the_caption_of_one_run_and_of_one_step():
    assert "along the run <em>sft10</em>; the paper" in caption("dynamics.rst", "sft10.curves")
    assert "intervals over questions" not in caption("dynamics.rst", "one_step")


@pytest.mark.parametrize("name", ["figure.rst", "dynamics.rst", "dynamics_seeds.rst", "generations.rst"])
@pytest.mark.parametrize(
    "title",
    [
        *(text for text in FOREIGN if text.isprintable() and text[0] != "-"),
        "a** `click <javascript:alert(1)>`_ |b| c_ [1]_ **",
        ".. raw:: html",
        ":raw:`x` *a* ``b``",
    ],
)
def test_a_title_is_no_markup_of_a_caption(name, title):
    """`*` and the like stand as they are, and nothing is a link or a directive."""
    kind = {"figure.rst": "panels", "generations.rst": "win_rate"}.get(name, "sft.curves")
    body = caption(name, kind, title)
    bold = re.search(r"<strong>(.*?)</strong>", body, re.DOTALL)[1]
    assert html.unescape(bold).removesuffix(".") == title
    assert "<a " not in body and "<script" not in body and "system-message" not in body


@pytest.mark.parametrize("name", [path.name for path in sorted((ROOT / "workflow/report").glob("*.rst"))])
def test_every_caption_renders(name):
    kind = {"figure.rst": "panels", "overview.rst": "mad", "generations.rst": "win_rate"}.get(name, "sft.curves")
    assert len(caption(name, kind)) > 100
