"""Figures, tables and the page that shows them.

needs  results/statistics/
makes  results/figures/{dataset}/ (one chart per model, relation and kind), results/figures/all-datasets/ (what the
       datasets show together), each with its files' checksums beside it ({dataset}.sha256); results/tables/, results/index.html
why    one job draws all figures of a dataset: starting Python costs more than a chart
"""

# The files of every figure; interactive ones share one script.
FORMATS = STUDY.config["formats"] + (["html"] if STUDY.config["interactive"] else [])
BUNDLE = "results/figures/vega.js"
SHARED = f"--bundle {BUNDLE}" if STUDY.config["interactive"] else ""
PAPER_AXES = "--paper-axes" if STUDY.config["paper_axes"] else ""
MODEL_TITLES = [
    part for name, row in STUDY.models.items() if row["title"] for part in ("--model-title", name, row["title"])
]
FIGURES = collect("results/figures/{dataset}", dataset=STUDY.datasets)
FIGURES += ["results/figures/all-datasets"] if STUDY.datasets else []


rule write_vega:
    """Write the script that all interactive figures share."""
    output:
        BUNDLE,
    log:
        "logs/write_vega.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code_digest("workflow.scripts.write_vega"),
    shell:
        "python -m workflow.scripts.write_vega --output {output:q} > {log:q} 2>&1"


rule draw_figures:
    """Draw one dataset's figures."""
    input:
        tables=collect(
            "results/statistics/{{dataset}}/{table}.parquet",
            table=["curves", "mad", "rd", "rd_layers", "cells", "per_sample"],
        ),
        accuracy=accuracy_tables,
        bundle=[BUNDLE] if STUDY.config["interactive"] else [],
    output:
        report(
            directory("results/figures/{dataset}"),
            patterns=["{model}.{relation}.{kind}.svg"],
            caption="../report/figure.rst",
            category="Figures",
            subcategory="{dataset}",
            labels={"model": "{model}", "relation": "{relation}", "figure": "{kind}"},
        ),
        "results/figures/{dataset}.sha256",
    log:
        "logs/draw_figures/{dataset}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        code=code_digest("workflow.scripts.draw_figures"),
        title=lambda wildcards: STUDY.datasets[wildcards.dataset]["title"] or wildcards.dataset,
        model_titles=lambda wildcards: MODEL_TITLES,
        pairs=[part for pair in STUDY.pairs().items() for part in ("--pair", *pair)],
        prompts=PROMPTS,
        axes=lambda wildcards: [
            *([PAPER_AXES] if PAPER_AXES else []),
            *(["--paper-top", top] if (top := STUDY.datasets[wildcards.dataset]["paper_top"]) else []),
        ],
        formats=FORMATS,
        shared=SHARED,
        folder=lambda wildcards, input: os.path.dirname(input.tables[0]),
    shell:
        "python -m workflow.scripts.draw_figures --statistics {params.folder:q} --dataset {wildcards.dataset}"
        " --title {params.title:q} {params.model_titles:q} {params.pairs:q} {params.prompts:q} {params.axes} --accuracy {input.accuracy:q}"
        " --formats {params.formats} {params.shared} --output {output[0]:q} > {log:q} 2>&1"


rule draw_overview:
    """Draw what all datasets show together."""
    input:
        curves=collect("results/statistics/{dataset}/curves.parquet", dataset=STUDY.datasets),
        tables=collect(
            "results/statistics/{dataset}/{table}.parquet",
            dataset=STUDY.datasets,
            table=["mad", "rd", "rd_layers", "cells"],
        ),
        accuracy=accuracy_tables,
        bundle=[BUNDLE] if STUDY.config["interactive"] else [],
    output:
        report(
            directory("results/figures/all-datasets"),
            patterns=["{model}.{relation}.{kind}.svg"],
            caption="../report/overview.rst",
            category="Figures",
            subcategory="all datasets",
            labels={"model": "{model}", "relation": "{relation}", "figure": "{kind}"},
        ),
        "results/figures/all-datasets.sha256",
    log:
        "logs/draw_overview.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        code=code_digest("workflow.scripts.draw_overview"),
        datasets=lambda wildcards: [
            part
            for name, row in STUDY.datasets.items()
            for part in (
                "--dataset",
                name,
                row["title"] or name,
                *(row[key] or "-" for key in ("family", "member", "paper_top")),
            )
        ],
        model_titles=lambda wildcards: MODEL_TITLES,
        axes=PAPER_AXES,
        formats=FORMATS,
        shared=SHARED,
        folders=lambda wildcards, input: [os.path.dirname(path) for path in input.curves],
    shell:
        "python -m workflow.scripts.draw_overview --statistics {params.folders:q} {params.datasets:q}"
        " {params.model_titles:q} {params.axes} --accuracy {input.accuracy:q} --formats {params.formats} {params.shared} --output {output[0]:q} > {log:q} 2>&1"


rule write_tables:
    """Write the tables of scope, MAD and RD over all datasets."""
    input:
        cells=collect("results/statistics/{dataset}/cells.parquet", dataset=STUDY.datasets),
        mad=collect("results/statistics/{dataset}/mad.parquet", dataset=STUDY.datasets),
        rd=collect("results/statistics/{dataset}/rd.parquet", dataset=STUDY.datasets),
        published=os.path.relpath(os.path.join(workflow.basedir, "config", "published.tsv")),
    output:
        report("results/tables/scope.csv", caption="../report/scope.rst", category="Tables", labels={"table": "Scope"}),
        report("results/tables/mad.csv", caption="../report/mad.rst", category="Tables", labels={"table": "MAD"}),
        report("results/tables/rd.csv", caption="../report/rd.rst", category="Tables", labels={"table": "RD"}),
        collect("results/tables/{table}.{format}", table=["scope", "mad", "rd"], format=["parquet", "md", "tex"]),
    log:
        "logs/write_tables.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        code=code_digest("workflow.scripts.write_tables"),
        folders=lambda wildcards, input: [os.path.dirname(path) for path in input.mad],
        datasets=lambda wildcards: [
            part
            for name, row in STUDY.datasets.items()
            for part in ("--dataset", name, row["title"] or name, row["task"])
        ],
        models=lambda wildcards: [part for name, row in STUDY.models.items() for part in ("--model", name, row["kind"])],
        folder=lambda wildcards, output: os.path.dirname(output[0]),
    shell:
        "python -m workflow.scripts.write_tables --statistics {params.folders:q} {params.datasets:q} {params.models:q}"
        " --published {input.published:q} --output {params.folder:q} > {log:q} 2>&1"


rule write_accuracy:
    """Gather what the miniatures can do into one table."""
    input:
        accuracy_tables,
    output:
        csv=report(
            "results/tables/accuracy.csv",
            caption="../report/accuracy.rst",
            category="Tables",
            labels={"table": "Accuracy"},
        ),
        markdown="results/tables/accuracy.md",
    log:
        "logs/write_accuracy.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code_digest("workflow.scripts.write_accuracy"),
    shell:
        "python -m workflow.scripts.write_accuracy --accuracy {input:q} --csv {output.csv:q} --markdown {output.markdown:q}"
        " > {log:q} 2>&1"


rule write_atlas:
    """Write the page: what was run, the explorer, all figures and tables."""
    input:
        figures=[str(sums_of(folder)) for folder in FIGURES],
        cells=collect("results/statistics/{dataset}/cells.parquet", dataset=STUDY.datasets),
        tables=(
            collect("results/tables/{table}.{format}", table=["mad", "rd"], format=["csv", "parquet"])
            if STUDY.datasets
            else []
        ),
        accuracy=accuracy_tables,
        accuracy_table=lambda wildcards: ["results/tables/accuracy.csv"] if accuracy_tables(wildcards) else [],
        config="results/config.effective.yaml",
        curves=collect("results/statistics/{dataset}/curves.parquet", dataset=STUDY.datasets),
        layers=collect("results/statistics/{dataset}/per_sample_layers.parquet", dataset=STUDY.datasets),
        responses=collect("results/responses/{dataset}.parquet", dataset=STUDY.datasets),
        claims="results/claims.parquet",
        second=[str(sums_of(folder)) for folder in SECOND_FIGURES],
        statuses=RUN_STATUSES,
        run_table=[*DYNAMICS_TABLE, *[str(Path(path).with_suffix(".parquet")) for path in DYNAMICS_TABLE]],
        # Relative, so that the whole may be moved.
        templates=sorted(
            os.path.relpath(path) for path in Path(workflow.basedir, "workflow/lib/figures/atlas/templates").iterdir()
        ),
    output:
        "results/index.html",
    log:
        "logs/write_atlas.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code_digest("workflow.scripts.write_atlas"),
        # A function: their braces are no wildcards.
        runs=lambda wildcards: json.dumps(PLAN.runs),
        prompts=PROMPTS,
        statuses=lambda wildcards, input: [
            part for path in input.statuses for part in ("--status", *status_place(path), path)
        ],
        run_table=lambda wildcards, input: ["--run-table", input.run_table[0]] if input.run_table else [],
        figures=FIGURES,
        second=SECOND_FIGURES,
        tables=lambda wildcards, input: [path for path in input.tables if path.endswith(".csv")],
    shell:
        "python -m workflow.scripts.write_atlas --figures {params.figures:q} --cells {input.cells:q}"
        " --tables {params.tables:q} --accuracy {input.accuracy:q} --config {input.config:q} --curves {input.curves:q}"
        " --sample-layers {input.layers:q} --responses {input.responses:q} --claims {input.claims:q}"
        " --second {params.second:q} --runs {params.runs:q} {params.statuses:q} {params.run_table:q}"
        " {params.prompts:q}"
        " --output {output:q} > {log:q} 2>&1"


rule figures:
    """Every chosen dataset's figures, and those of all together."""
    input:
        FIGURES,
    localrule: True
