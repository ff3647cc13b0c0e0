"""Figures, tables and the page that shows them.

needs  results/statistics/
makes  results/figures/{dataset}/ (one chart per model, relation and kind), results/figures/all-datasets/ (what the
       datasets show together), each with its files' checksums beside it ({dataset}.sha256); results/tables/,
       results/index.html, results/more.html
why    one job draws all figures of a dataset: starting Python costs more than a chart
"""

FIGURES = collect("results/figures/{dataset}", dataset=STUDY.datasets)
FIGURES += ["results/figures/all-datasets"] if STUDY.datasets else []


rule draw_figures:
    """Draw one dataset's figures."""
    input:
        tables=collect(
            "results/statistics/{{dataset}}/{table}.parquet",
            table=["curves", "mad", "rd", "rd_layers", "cells", "per_sample"],
        ),
        accuracy=accuracy_tables,
    output:
        folder=report(
            directory("results/figures/{dataset}"),
            patterns=["{model}.{relation}.{kind}.svg"],
            caption="../report/figure.rst",
            category="Figures",
            subcategory="{dataset}",
            labels={"model": "{model}", "relation": "{relation}", "figure": "{kind}"},
        ),
        digest="results/figures/{dataset}.sha256",
    log:
        "logs/draw_figures/{dataset}.log",
    priority: 5
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        code=code_digest("figures.jobs:draw_figures"),
        title=lambda wildcards: STUDY.datasets[wildcards.dataset]["title"] or wildcards.dataset,
        settings=lambda wildcards: as_json(
            model_titles=titles(STUDY.models),
            partners=STUDY.pairs(),
            prompts=prompt_forms(),
            paper_axes=STUDY.config["paper_axes"],
            paper_top=STUDY.datasets[wildcards.dataset]["paper_top"],
        ),
        formats=STUDY.config["formats"],
        folder=lambda wildcards, input: os.path.dirname(input.tables[0]),
    shell:
        "python -m gradatlas draw-figures --statistics {params.folder:q} --dataset {wildcards.dataset}"
        " --title={params.title:q} --accuracy {input.accuracy:q} --formats {params.formats}"
        " --settings {params.settings:q} --output {output.folder:q} > {log:q} 2>&1"


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
    output:
        folder=report(
            directory("results/figures/all-datasets"),
            patterns=["{model}.{relation}.{kind}.svg"],
            caption="../report/figure.rst",
            category="Figures",
            subcategory="all datasets",
            labels={"model": "{model}", "relation": "{relation}", "figure": "{kind}"},
        ),
        digest="results/figures/all-datasets.sha256",
    log:
        "logs/draw_overview.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        code=code_digest("figures.jobs:draw_overview"),
        settings=lambda wildcards: as_json(
            datasets=[
                {"key": name, "title": row["title"] or name}
                | {key: row[key] for key in ("family", "member", "paper_top")}
                for name, row in STUDY.datasets.items()
            ],
            model_titles=titles(STUDY.models),
            paper_axes=STUDY.config["paper_axes"],
        ),
        formats=STUDY.config["formats"],
        folders=lambda wildcards, input: [os.path.dirname(path) for path in input.curves],
    shell:
        "python -m gradatlas draw-overview --statistics {params.folders:q} --accuracy {input.accuracy:q}"
        " --formats {params.formats} --settings {params.settings:q} --output {output.folder:q} > {log:q} 2>&1"


rule write_tables:
    """Write the tables of scope, MAD and RD over all datasets."""
    input:
        cells=collect("results/statistics/{dataset}/cells.parquet", dataset=STUDY.datasets),
        mad=collect("results/statistics/{dataset}/mad.parquet", dataset=STUDY.datasets),
        rd=collect("results/statistics/{dataset}/rd.parquet", dataset=STUDY.datasets),
        published=shipped("config", "published.tsv"),
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
        mem_mb=memory(4000),
        runtime=60,
    params:
        code=code_digest("figures.jobs:write_tables"),
        folders=lambda wildcards, input: [os.path.dirname(path) for path in input.mad],
        settings=lambda wildcards: as_json(
            datasets=[
                {"key": name, "title": row["title"] or name, "task": row["task"]}
                for name, row in STUDY.datasets.items()
            ],
            models=[{"key": name, "kind": row["kind"]} for name, row in STUDY.models.items()],
        ),
        folder=lambda wildcards, output: os.path.dirname(output[0]),
    shell:
        "python -m gradatlas write-tables --statistics {params.folders:q} --published {input.published:q}"
        " --settings {params.settings:q} --output {params.folder:q} > {log:q} 2>&1"


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
        code=code_digest("claims.jobs:write_accuracy"),
    shell:
        "python -m gradatlas write-accuracy --accuracy {input:q} --csv {output.csv:q} --markdown {output.markdown:q}"
        " > {log:q} 2>&1"


rule write_atlas:
    """Write the page: findings, explorer, verdicts and figures; and more.html: data, tables, toys and settings."""
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
        claims=["results/claims.parquet"] if CLAIMED else [],
        scores=SCORE_PAGES,
        pictures=[path for path in CLAIM_FILES + QUALITY if path.endswith(".svg")],
        second=[str(sums_of(folder)) for folder in SECOND_FIGURES],
        statuses=RUN_STATUSES,
        run_table=[*DYNAMICS_TABLE, *[str(Path(path).with_suffix(".parquet")) for path in DYNAMICS_TABLE]],
        win_rates=[*WIN_RATES, *[str(Path(path).with_suffix(".parquet")) for path in WIN_RATES]],
        findings="results/findings.json",
        # Relative, so that the whole may be moved.
        glossary=shipped("docs", "glossary.md"),
        templates=sorted(os.path.relpath(path) for path in Path(ROOT, "workflow/gradatlas/page/templates").iterdir()),
    output:
        page="results/index.html",
        more="results/more.html",
    log:
        "logs/write_atlas.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code_digest("page.jobs:write_atlas"),
        settings=lambda wildcards, input: as_json(
            runs=[*PLAN.runs.values()],
            statuses=[status_place(path) for path in input.statuses],
            prompts=prompt_forms(),
            titles=titles({**STUDY.learners, **STUDY.models, **STUDY.scored, **STUDY.datasets}),
        ),
        figures=FIGURES,
        second=SECOND_FIGURES,
        claims=lambda wildcards, input: ["--claims", *input.claims] if input.claims else [],
        tables=lambda wildcards, input: [path for path in input.tables if path.endswith(".csv")],
        run_table=lambda wildcards, input: input.run_table[:1],
        win_rates=lambda wildcards, input: input.win_rates[:1],
    shell:
        "python -m gradatlas write-atlas --figures {params.figures:q} --cells {input.cells:q}"
        " --tables {params.tables:q} --accuracy {input.accuracy:q} --config {input.config:q} --curves {input.curves:q}"
        " --sample-layers {input.layers:q} --responses {input.responses:q} {params.claims:q}"
        " --findings {input.findings:q} --glossary {input.glossary:q}"
        " --scores {input.scores:q} --pictures {input.pictures:q} --second {params.second:q} --statuses {input.statuses:q} --run-table {params.run_table:q}"
        " --win-rates {params.win_rates:q}"
        " --settings {params.settings:q} --output {output.page:q} > {log:q} 2>&1"


rule figures:
    """Every chosen dataset's figures, and those of all together."""
    input:
        FIGURES,
    localrule: True
