"""Captions beside figures: Markdown that Snakemake's report reads as reStructuredText, in every template of it."""

import html
import re
from types import SimpleNamespace

import jinja2
import pytest
from docutils.core import publish_parts
from markdown_it import MarkdownIt

from conftest import ROOT
from gradatlas.charts.save import CAPTION, caption_of
from test_tables import FOREIGN

REPORT = ROOT / "workflow/report"
#: Templates of figures: the keys of the output and of the wildcards that name the file.
OF_FILES = {"caption.rst": "figure", "claims_dynamics.rst": "dynamics_figure", "claims_quality.rst": "quality_figure"}
OF_FOLDERS = {"figure.rst": ("model", "relation", "kind"), "dynamics.rst": ("kind",), "toys.rst": ("toy", "figure")}
UNTRUSTED = [
    *(text for text in FOREIGN if text.isprintable()),
    "a** `click <javascript:alert(1)>`_ |b| c_ [1]_ **",
    "[x](https://example.org) <b>y</b> a@b.org",
    ".. raw:: html",
    ":raw:`x` *a* ``b``",
    "1. one",
    "A. pulled up",
    "- x + y",
    "(1) one",
]


def caption(title, *paragraphs):
    return caption_of({"description": "\n\n".join([title, *paragraphs])})


def rendered(name):
    """A template as Snakemake's report renders it, in the folder of the results."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    template = environment.from_string((REPORT / name).read_text(encoding="utf-8"))
    output = dict.fromkeys(("figure", "dynamics_figure", "quality_figure"), "figures/a.svg") | {"folder": "figures/d"}
    wildcards = {"model": "mini", "relation": "wrong_chain", "kind": "panels", "toy": "clip", "figure": "steps"}
    config = {"samples": 100, "seed": 0, "bootstrap": 1000, "datasets": ["d"]}
    spaces = {"output": output, "wildcards": wildcards, "params": {"title": "GSM8K"}}
    snakemake = SimpleNamespace(config=config, **{key: SimpleNamespace(**value) for key, value in spaces.items()})
    return html_of_rst(template.render(snakemake=snakemake))


def html_of_rst(text):
    return publish_parts(text, writer="html", settings_overrides={"halt_level": 2, "report_level": 5})["body"]


def text_of(body):
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", body)).split())


@pytest.mark.parametrize("title", UNTRUSTED)
@pytest.mark.parametrize("read", [html_of_rst, MarkdownIt("commonmark").render], ids=["rst", "markdown"])
def test_a_title_is_no_markup_of_a_caption(title, read):
    """`*` and the like stand as they are, and nothing is a link, a list or a directive, in either language."""
    body = read(caption(title, f"{title}: a sentence.", title))
    plain = " ".join(title.split())
    assert text_of(re.search(r"<strong>(.*?)</strong>", body, re.DOTALL)[1]) == plain
    assert text_of(body) == f"{plain} {plain}: a sentence. {plain}"
    assert body.count("<p>") == 3
    assert not any(tag in body for tag in ("<a ", "<script", "<li", "system-message", "<b>", "<em>"))


@pytest.mark.parametrize("name", [*OF_FILES, *OF_FOLDERS])
def test_the_report_shows_the_caption_beside_the_figure(name, tmp_path, monkeypatch):
    (tmp_path / "figures/d").mkdir(parents=True)
    wildcards = {"model": "mini", "relation": "wrong_chain", "kind": "panels", "toy": "clip", "figure": "steps"}
    place = "d/" + ".".join(wildcards[key] for key in OF_FOLDERS[name]) if name in OF_FOLDERS else "a"
    (tmp_path / f"figures/{place}{CAPTION}").write_text(caption("A title, 5 %", "σ max, “drawn”."), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    body = rendered(name)
    assert "<strong>A title, 5 %</strong>" in body and "σ max, “drawn”." in body


@pytest.mark.parametrize("name", sorted({path.name for path in REPORT.glob("*.rst")} - {*OF_FILES, *OF_FOLDERS}))
def test_every_other_template_renders(name):
    assert len(rendered(name)) > 100
