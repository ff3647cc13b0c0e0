"""The tables that a reader takes away: scope, the study's own numbers beside ours, and LaTeX that compiles."""

import re
import shutil
import subprocess

import polars as pl
import pytest

from conftest import ROOT
from gradatlas.charts import latex
from gradatlas.charts import tables as written_tables
from gradatlas.core.sheets import read_sheet
from gradatlas.figures import scope, tables
from gradatlas.figures.jobs import Dataset, Model, TableSettings
from gradatlas.study.sheets import PublishedRow
from synthetic import statistic_rows, write_statistics

SMALL = {"layers": 28, "variants": ("none", "detailed"), "projections": ("q", "v"), "n": 30}
PUBLISHED = list(read_sheet(ROOT / "config/published.tsv", PublishedRow, None).values())
HOSTILE = 'A & B_1 {50 %} #2 $x$ ~ ^ \\ [a] <"é>| σ − × 中'


def written(tmp_path, **options):
    folder = write_statistics(tmp_path / "statistics", statistic_rows(**{**SMALL, **options}))
    for kind in ("mad", "rd"):
        tables.write_tables(kind, [folder], tmp_path, PUBLISHED)
    return folder


def test_the_studys_numbers_are_beside_ours(tmp_path):
    written(tmp_path, models=("qwen2_1_5b", "mini"), dataset="aqua")
    mad = pl.read_csv(tmp_path / "mad.csv").filter(pl.col("published").is_not_null())
    assert set(mad.select("model", "relation", "statistic", "segment").iter_rows()) == {
        ("qwen2_1_5b", "correct", "nuclear_norm", "all")
    }
    assert dict(mad.select(pl.col("variant") + " " + pl.col("projection"), "published").iter_rows()) == {
        "none q": 4.42,
        "none v": 17.32,
        "detailed q": 0.28,
        "detailed v": 0.64,
    }
    markdown = (tmp_path / "mad.md").read_text(encoding="utf-8")
    assert markdown.count("Published (all)") == 1 and markdown.count("Published numbers: arXiv 2410.23743") == 1
    # Of no single projection: in words, below the table of that relation alone.
    rd = (tmp_path / "rd.md").read_text(encoding="utf-8")
    assert rd.count("of no single projection: Detailed about 0.81, None below 0.01") == 1
    assert "Published (" not in rd


def test_parquet_and_csv_hold_the_same(tmp_path):
    written(tmp_path)
    for kind in ("mad", "rd"):
        csv = pl.read_csv(tmp_path / f"{kind}.csv")
        found, parquet = tables.read_estimates(tmp_path / f"{kind}.csv")
        assert found == kind and parquet.columns == csv.columns and parquet.height == csv.height > 0
        assert parquet["value"].to_list() == pytest.approx(csv["value"].to_list(), nan_ok=True)


def test_a_corrected_estimate_is_before_its_interval():
    row = {"value": 4.4249, "low": 4.0, "high": 4.5}
    assert tables._with_interval(row) == "4.42 [4.00, 4.50]" == tables._with_interval({**row, "corrected": 4.4201})
    assert tables._with_interval({**row, "corrected": 4.2}) == "4.42; 4.20 [4.00, 4.50]"
    assert tables._with_interval({**row, "low": None}) == "4.42"


def test_the_scope_says_what_was_measured_and_what_was_not(tmp_path):
    rows = [
        statistic_rows(**SMALL, models=("mini", "mini_it"), dataset="one"),
        statistic_rows(**{**SMALL, "variants": ("none",), "n": 9}, dataset="two", purpose="pipeline check"),
    ]
    folders = [write_statistics(tmp_path / str(i), each) for i, each in enumerate(rows)]
    datasets = [Dataset("two", "Two", task="math"), Dataset("one", "One | 1", task="other")]
    models = [Model("mini_it", "instruct"), Model("mini", "base")]
    scope.write_scope(folders, TableSettings(datasets, models), tmp_path)
    table = (tmp_path / "scope.md").read_text(encoding="utf-8").splitlines()[4:]
    assert table[2] == "| Math | Two | Correct | None (answer only) 9 | 1 base; not mini\\_it; pipeline check: mini |"
    assert table[4] == "| Other | One \\| 1 | Correct | None (answer only) 30, Detailed 30 | 1 base, 1 instruct |"
    frame = pl.read_parquet(tmp_path / "scope.parquet")
    assert frame.height == 2 * 2 * 2 + 2 and frame["n_ok"].unique().sort().to_list() == [9, 30]
    assert (frame["n"] - frame["n_ok"] == 2).all()


def test_latex_escapes_whatever_is_in_a_cell():
    text = latex.escaped(HOSTILE)
    assert text.isprintable() and "中" not in text and "U+4E2D" in text and r"B\_\allowbreak{}1 \{50 \%\}" in text
    assert not re.search(r"(?<!\\)[#$%&_^~]", text)
    assert latex.escaped("a\nb") == "a b"


# What a spreadsheet runs, what Markdown makes a link or a row of, what LaTeX reads, in wide letters too; NUL, marks
# that turn the direction of writing, and characters of no font.
FOREIGN = [
    "=cmd|' /C calc'!A0", "+1+cmd|x", "-2+3+cmd", "@SUM(A1)", "\t=1", "<script>alert(1)</script>", "{{ 7 * 7 }}",
    "{% x %}", "[click](javascript:alert(1))", "a | b\nc", "`id` $HOME", r"\input{/etc/passwd}",
    "＼input｛/etc/passwd｝", "\x00", "\u202eabc", "\u200f\u2066x", "é 中 🦜", "%{x}", "\\", "a\u2028b", "]{}",
]  # fmt: skip


def test_foreign_texts_are_texts_in_every_format(tmp_path):
    frame = pl.DataFrame({"text": FOREIGN, "number": ["-1.5", "+2", "1e-3", "-12.5%"] + ["0"] * (len(FOREIGN) - 4)})
    section = written_tables.Section(FOREIGN[0], FOREIGN[:2], [[text, text] for text in FOREIGN], FOREIGN)
    written_tables.write_table(tmp_path / "t", frame, "Title", "Note", [section])
    # Parquet is exact; CSV is but for the apostrophe in front of formulas.
    assert pl.read_parquet(tmp_path / "t.parquet").to_dict(as_series=False) == frame.to_dict(as_series=False)
    csv = pl.read_csv(tmp_path / "t.csv", infer_schema=False)
    assert csv["text"].to_list() == ["'" + text for text in FOREIGN[:5]] + FOREIGN[5:]
    assert csv["number"].to_list() == frame["number"].to_list()
    lines = (tmp_path / "t.md").read_text().split("\n")
    rows = [line for line in lines if line.startswith("| ")]
    assert len(rows) == len(FOREIGN) + 2 and all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows)
    text = "\n".join(lines)
    assert "](javascript" not in text and not re.search(r"(?<!\\)[<`]", text) and "\x00" not in text
    tex = (tmp_path / "t.tex").read_text()
    assert check_structure(tex) == 1 and r"\input{/" not in tex and "\x00" not in tex and "\u202e" not in tex
    assert latex.escaped("＼x") == latex.escaped("\\x") and "U+202E" in tex


def test_every_csv_file_is_written_with_that_rule():
    """But for the log of a miniature's training, which holds numbers alone."""
    found = {path.name for path in (ROOT / "workflow/gradatlas").rglob("*.py") if ".write_csv(" in path.read_text()}
    assert found == {"spreadsheets.py", "training.py"}


def check_structure(tex: str) -> int:
    """Every environment is closed, every row has its columns; returns the number of tables."""
    found = re.findall(r"\\begin\{longtable\}\{(.*)\}\n((?s:.*?))\\end\{longtable\}", tex)
    for columns, body in found:
        plain = re.sub(r">\{.*?\}|@\{\}", "", columns)
        width = len(re.findall(r"p\{.*?\}|[lr]", plain))
        rows = [line for line in body.splitlines() if line.endswith(r" \\")]
        assert rows and all(len(re.split(r"(?<!\\)&", row)) == width for row in rows)
        spanning = [line for line in body.splitlines() if line.endswith(r" \\*")]
        assert all(rf"\multicolumn{{{width}}}" in line for line in spanning)
    assert tex.count(r"\begin") == tex.count(r"\end{") == len(found)
    bare = re.sub(r"\\[{}]", "", "\n".join(line for line in tex.splitlines() if not line.startswith("%")))
    assert bare.count("{") == bare.count("}")
    return len(found)


def test_latex_tables_are_well_formed_compile_and_fit_a_plain_page(tmp_path):
    rows = statistic_rows(
        **{**SMALL, "variants": ("none", "detailed", "length_1000")},
        models=("qwen2_1_5b", HOSTILE),
        dataset="aqua",
        purpose="pipeline check",
    )
    for kind in ("mad", "rd"):
        # Numbers as long as they come, and each with all that is beside it.
        long = {"value": 1.234e-5, "corrected": 1.2e-5, "low": -0.0123, "high": -0.000456, "n": 12_345}
        rows[kind] = [{**row, **long} for row in rows[kind]]
    folder = write_statistics(tmp_path / "statistics", rows)
    for kind in ("mad", "rd"):
        tables.write_tables(kind, [folder], tmp_path, PUBLISHED)
    models = [Model("qwen2_1_5b", "base"), Model(HOSTILE, "instruct")]
    scope.write_scope([folder], TableSettings([Dataset("aqua", HOSTILE, task="math")], models), tmp_path)
    names = ("scope", "mad", "rd")
    assert [check_structure((tmp_path / f"{name}.tex").read_text(encoding="utf-8")) for name in names] == [1, 8, 4]
    if shutil.which("pdflatex") is None:
        pytest.skip("well formed; compiling needs pdflatex with booktabs (Debian: texlive-latex-recommended)")
    inputs = "".join(rf"\input{{{name}.tex}}" for name in names)
    document = (
        rf"\documentclass{{article}}\usepackage{{array,booktabs,longtable}}\begin{{document}}{inputs}\end{{document}}"
    )
    (tmp_path / "all.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    for _ in range(2):  # The widths of a longtable settle in the second run.
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
        assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "all.pdf").stat().st_size > 10_000 and "Missing character" not in done.stdout
    beyond = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\)", done.stdout)]
    assert max(beyond, default=0) <= 2, done.stdout
