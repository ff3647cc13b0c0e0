"""Write the study's tables over all datasets: scope, MAD and RD, as Parquet, CSV, Markdown and LaTeX.

  python -m workflow.scripts.write_tables --statistics results/statistics/gsm8k results/statistics/aqua \\
      --dataset gsm8k GSM8K math --dataset aqua AQuA math --model qwen2_1_5b base \\
      --published config/published.tsv --output results/tables
"""

from gradatlas.core.command import parser_for, progress, run

_SCHEMA = "workflow/schemas/published.schema.yaml"


def main(argv=None):
    """Run the command line."""
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--statistics", required=True, nargs="+", metavar="DIR", help="folders with mad, rd and cells tables")
    row = ("NAME", "TITLE", "TASK")
    add("--dataset", nargs=3, action="append", required=True, metavar=row, help="a dataset, in order")
    add("--model", nargs=2, action="append", required=True, metavar=("NAME", "KIND"), help="a model, in order")
    add("--published", metavar="TSV", help="the study's own numbers, to stand beside ours")
    add(
        "--output", required=True, metavar="DIR", help="folder for scope, mad and rd, each .parquet, .csv, .md and .tex"
    )
    run(parser, write, argv)


def write(given):
    """Write the files that the arguments ask for."""
    # Imported late, so that --help and a mistyped argument answer at once.
    from pathlib import Path

    from gradatlas.figures.scope import Sheets, write_scope
    from gradatlas.figures.tables import write_tables
    from gradatlas.study.config import read_sheet

    schema = Path(__file__).resolve().parents[2] / _SCHEMA
    published = list(read_sheet(Path(given.published), schema, None).values()) if given.published else []
    sheets = Sheets({name: (title, task) for name, title, task in given.dataset}, dict(given.model))
    write_scope(given.statistics, sheets, given.output)
    for kind in ("mad", "rd"):
        write_tables(kind, given.statistics, given.output, published)
    progress(f"{len(given.statistics)} datasets: scope, mad and rd in {given.output}")


if __name__ == "__main__":
    main()
