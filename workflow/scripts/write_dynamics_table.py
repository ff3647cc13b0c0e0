"""Write every finetuning run from start to end as a table: of each type of probe, beside published numbers."""

import json

from gradatlas.core.command import parser_for, progress, run


def main(argv=None):
    parser = parser_for(__doc__)
    add = parser.add_argument
    add(
        "--curves",
        nargs=2,
        action="append",
        required=True,
        metavar=("PAIRS", "FILE"),
        help="the pairs' name and the curves of one model and seed (summarise_dynamics)",
    )
    add("--runs", type=json.loads, required=True, metavar="JSON", help="rows of config/runs.tsv, by name")
    add("--titles", type=json.loads, default={}, metavar="JSON", help="titles of models, by key")
    add("--published", required=True, metavar="TSV", help="known numbers (config/published_curves.tsv)")
    add("--tables", required=True, metavar="STEM", help="writes STEM.parquet, .csv, .md and .tex")
    run(parser, write, argv)


def write(given):
    from pathlib import Path

    from gradatlas.figures.dynamics.table import write_dynamics_table
    from gradatlas.study.config import read_sheet

    schema = Path(__file__).resolve().parents[2] / "workflow/schemas/published_curves.schema.yaml"
    published = list(read_sheet(Path(given.published), schema, None).values())
    rows = write_dynamics_table(given.curves, given.runs, given.titles, published, given.tables)
    progress(f"{len(rows)} rows")


if __name__ == "__main__":
    main()
