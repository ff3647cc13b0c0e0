"""What the site of the documentation has beside docs/. mkdocs calls `on_files`; `mkdocs.yml` orders the pages.

Pages keep their places in the repository, so that a link works on the site and in the repository. Every build makes the
reference pages from the code, the rules and the sheets. The example is the page of a finished study in `results/`.
"""

import csv
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "workflow" / "gradatlas"
# Pages, and files that pages link to.
INCLUDED = (
    "*.md", "LICENSE", "Dockerfile", "CITATION.cff", "requirements*.txt", "environment.yml", "docs/**/*", "config/**/*",
    "benchmarks/*.md", "benchmarks/results/*", "resources/miniature/*", "workflow/**/*.md", "workflow/**/*.py",
    "profiles/**/*",
)  # fmt: skip
STUDIES = {
    "claims": "Layer gradients (arXiv 2410.23743)",
    "claims_dynamics": "Learning dynamics (arXiv 2407.10490)",
    "claims_quality": "Data quality (arXiv 2504.10766)",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The files of the theme, of the repository, and those made here."""
    sys.path.insert(0, str(PACKAGE.parent))
    found = [file for file in files if file.src_dir != config.docs_dir]
    found += [
        File(str(path.relative_to(ROOT)), str(ROOT), config.site_dir, config.use_directory_urls)
        for path in sorted({path for pattern in INCLUDED for path in ROOT.glob(pattern)})
        if path.is_file() and "__pycache__" not in path.parts
    ]
    made = {
        "reference/commands.md": commands(),
        "reference/tables.md": tables(),
        "reference/rules.md": rules(),
        "reference/claims.md": claims(),
        "docs/score_my_data.md": notebook(ROOT / "docs/score_my_data.ipynb"),
        "example.md": example((ROOT / config.extra["results"] / "index.html").is_file()),
    }
    found += [File.generated(config, name, content=text) for name, text in made.items()]
    return Files(found + list(results(ROOT / config.extra["results"], config)))


def commands() -> str:
    """Every job with its options, as `gradatlas JOB --help` shows them."""
    from gradatlas.__main__ import DESCRIPTIONS, JOBS
    from gradatlas.core.jobs import application

    text = application(JOBS, DESCRIPTIONS).generate_docs(output_format="markdown")
    lead = "Most commands are jobs that the workflow's rules call ([rules](rules.md)). People call `score`, `watch`, "
    lead += "`compare-groups`, `compare`, `plan`, `pin` and `measure-gradients`.\n\n"
    return "# Commands\n\n" + lead + text[text.index("## gradatlas ") :].replace("## gradatlas ", "## ")


def tables() -> str:
    """Every table of the package with its rule and its columns, and with the comments above these in the code."""
    from gradatlas.core.tables import Table

    parts = ["# Tables and columns\n\nThe Parquet tables that jobs write. Their files: [results](../docs/results.md)."]
    for path in sorted(PACKAGE.glob("*/tables.py")):
        module = importlib.import_module(f"gradatlas.{path.parent.name}.tables")
        # Definitions with the comments above them.
        for block in re.split(r"\n\n+(?=\S)", path.read_text()):
            comment, name = re.match(r"((?:#.*\n)*)(\w*)", block).groups()
            if not isinstance(table := getattr(module, name, None), Table):
                continue
            notes = {column: note for note, column in re.findall(r'((?:\n *#.*)+)\n *\("(\w+)"', block)}
            rows = [f"| `{each.name}` | {each.type} | {_text(notes.get(each.name, ''))} |" for each in table.schema]
            parts.append(f"## {table.name}\n\nWritten by `{table.rule}`. {_text(comment)}")
            parts.append("\n".join(["| column | type | |", "|---|---|---|", *rows]))
    return "\n\n".join(parts)


def _text(comment: str) -> str:
    return " ".join(line.strip().lstrip("#: ") for line in comment.strip().splitlines())


def rules() -> str:
    """Every rule file: its header, and its rules with what they do."""
    parts = ["# Rules\n\n`snakemake --list` names the rules of a study, `snakemake --rulegraph mermaid-js` draws them."]
    for path in sorted((ROOT / "workflow/rules").glob("*.smk")):
        text = path.read_text()
        found = re.findall(r'^ *(?:rule|checkpoint) (\w+):\n\s+"""(.*?)"""', text, re.MULTILINE | re.DOTALL)
        if found:
            rows = "\n".join(f"| `{name}` | {' '.join(meaning.split())} |" for name, meaning in found)
            header = text.split('"""')[1].rstrip()
            parts.append(f"## {path.stem}\n\n```text\n{header}\n```\n\n| rule | |\n|---|---|\n{rows}")
    return "\n\n".join(parts)


def claims() -> str:
    """Every claim of the three sheets, with its bound."""
    parts = ["# All claims\n\nHow a verdict is reached: [claims](../workflow/gradatlas/claims/README.md)."]
    for sheet, study in STUDIES.items():
        lines = (line for line in (ROOT / f"config/{sheet}.tsv").read_text().splitlines() if not line.startswith("#"))
        rows = [
            f"| `{row['claim']}` | {row['title']} "
            f"| {row['statistic']} {row['direction']} {row['threshold']} | {row['source']} |"
            for row in csv.DictReader(lines, delimiter="\t")
        ]
        parts.append("\n".join([f"## {study}\n\n| claim | statement | bound | source |\n|---|---|---|---|", *rows]))
    return "\n\n".join(parts)


def notebook(path: Path) -> str:
    """A notebook's cells and what they show."""
    parts = []
    for cell in nbformat.read(path, as_version=4).cells:
        parts.append(cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```")
        for output in cell.get("outputs", []):
            if png := output.data.get("image/png"):
                parts.append(f"![output](data:image/png;base64,{png.strip()})")
            else:
                parts.append(f"```text\n{output.data['text/plain']}\n```")
    return "\n\n".join(parts)


def example(is_there: bool) -> str:
    """The page that leads to the page of a finished study."""
    text = "[Open the page of the default run](results/index.html)."
    if not is_there:
        text = "This site was built without a finished study. `snakemake --cores all` makes one: `results/index.html`."
    return f"# Example\n\n{text} How to read it: [the page](docs/page.md)."


def results(folder: Path, config: MkDocsConfig) -> Iterator[File]:
    """The page of a finished study with the files that it links."""
    page = folder / "index.html"
    if not page.is_file():
        return
    pages = [path for path in (page, page.with_name("more.html")) if path.is_file()]
    links = {link for path in pages for link in re.findall(r'(?:href|src)="([a-z][^"#:]*)"', path.read_text())}
    for name in sorted({"index.html", *links}):
        if (folder / name).is_file():
            yield File.generated(config, f"results/{name}", abs_src_path=str(folder / name))
