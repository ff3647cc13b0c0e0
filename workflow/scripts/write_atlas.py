"""Write the atlas: one page with what was run, verdicts, an explorer, every figure and table. It opens offline.

  python -m workflow.scripts.write_atlas --figures results/figures/gsm8k \\
      --cells results/statistics/gsm8k/cells.parquet --tables results/tables/mad.csv results/tables/rd.csv \\
      --config results/config.effective.yaml --output results/index.html
"""

import json

from workflow.lib.command import parser_for, progress, run


def main(argv=None):
    """Run the command line."""
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--figures", nargs="*", default=[], metavar="DIR", help="folders that draw_figures wrote")
    add("--cells", nargs="*", default=[], metavar="PARQUET", help="tables of what the samples were")
    add("--tables", nargs="*", default=[], metavar="CSV", help="MAD and RD tables that write_tables wrote")
    add("--accuracy", nargs="*", default=[], metavar="PARQUET", help="tables of measure_accuracy")
    add("--curves", nargs="*", default=[], metavar="PARQUET", help="mean curves, for the explorer")
    add("--sample-layers", nargs="*", default=[], metavar="PARQUET", help="samples' values by layer, for the explorer")
    add("--responses", nargs="*", default=[], metavar="PARQUET", help="responses tables, for the samples' texts")
    add("--claims", metavar="PARQUET", help="the table of verdicts")
    add("--second", nargs="*", default=[], metavar="DIR", help="folders of the second study's figures")
    add("--runs", type=json.loads, metavar="JSON", help="its runs: rows of config/runs.tsv, by name")
    add("--status", nargs=3, action="append", default=[], metavar=("MODEL", "SEED", "FILE"), help="how a run ended")
    add("--run-table", metavar="CSV", help="its runs from start to end (write_dynamics_table)")
    add(
        "--prompt", nargs=2, action="append", default=[], metavar=("MODEL", "FORM"),
        help="the form of a model's prompts: plain or chat",
    )  # fmt: skip
    add("--config", required=True, metavar="YAML", help="the effective config, shown as it is")
    add("--output", required=True, metavar="HTML", help="the page to write; figures are linked relative to it")
    run(parser, write, argv)


def write(given):
    """Write the page that the arguments name."""
    # Imported late, so that --help and a mistyped argument answer at once.
    from workflow.lib.figures.atlas import write_atlas

    figures = write_atlas(
        given.figures,
        given.cells,
        given.tables,
        given.config,
        given.output,
        given.accuracy,
        given.curves,
        given.sample_layers,
        given.responses,
        given.claims,
        given.second,
        given.runs,
        given.status,
        given.run_table,
        dict(given.prompt),
    )
    progress(f"{given.output}: {figures} figures")


if __name__ == "__main__":
    main()
