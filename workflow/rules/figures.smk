"""Figures, tables and the page that shows them.

needs  results/statistics/
makes  results/figures/{dataset}/ (one chart per model, relation and kind), results/tables/, results/index.html
why    one job draws all figures of a dataset: starting Python costs more than a chart
"""


rule draw_figures:
    """Draw one dataset's figures."""
    input:
        tables=collect(
            "results/statistics/{{dataset}}/{table}.parquet", table=["curves", "mad", "rd", "rd_layers", "cells"]
        ),
        accuracy=accuracy_tables,
    output:
        report(
            directory("results/figures/{dataset}"),
            patterns=["{model}.{relation}.{kind}.svg"],
            caption="../report/figure.rst",
            category="Figures",
            subcategory="{dataset}",
            labels={"model": "{model}", "relation": "{relation}", "figure": "{kind}"},
        ),
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
        model_titles=[
            part
            for name, row in STUDY.models.items()
            if row["title"]
            for part in ("--model-title", name, row["title"])
        ],
        formats=STUDY.config["formats"],
        folder=lambda wildcards, input: os.path.dirname(input.tables[0]),
    shell:
        "python -m workflow.scripts.draw_figures --statistics {params.folder:q} --dataset {wildcards.dataset}"
        " --title {params.title:q} {params.model_titles:q} --accuracy {input.accuracy:q} --formats {params.formats}"
        " --output {output:q} > {log:q} 2>&1"


rule write_tables:
    """Write the MAD and RD tables of all datasets."""
    input:
        mad=collect("results/statistics/{dataset}/mad.parquet", dataset=STUDY.datasets),
        rd=collect("results/statistics/{dataset}/rd.parquet", dataset=STUDY.datasets),
    output:
        mad_csv=report(
            "results/tables/mad.csv", caption="../report/mad.rst", category="Tables", labels={"table": "MAD"}
        ),
        mad_md="results/tables/mad.md",
        rd_csv=report("results/tables/rd.csv", caption="../report/rd.rst", category="Tables", labels={"table": "RD"}),
        rd_md="results/tables/rd.md",
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
    shell:
        "python -m workflow.scripts.write_tables --statistics {params.folders:q} --mad-csv {output.mad_csv:q}"
        " --mad-md {output.mad_md:q} --rd-csv {output.rd_csv:q} --rd-md {output.rd_md:q} > {log:q} 2>&1"


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
        figures=collect("results/figures/{dataset}", dataset=STUDY.datasets),
        cells=collect("results/statistics/{dataset}/cells.parquet", dataset=STUDY.datasets),
        tables=["results/tables/mad.csv", "results/tables/rd.csv"],
        accuracy=accuracy_tables,
        accuracy_table=lambda wildcards: ["results/tables/accuracy.csv"] if accuracy_tables(wildcards) else [],
        config="results/config.effective.yaml",
        curves=collect("results/statistics/{dataset}/curves.parquet", dataset=STUDY.datasets),
        per_sample=collect("results/statistics/{dataset}/per_sample.parquet", dataset=STUDY.datasets),
        responses=collect("results/responses/{dataset}.parquet", dataset=STUDY.datasets),
        templates=sorted(str(path) for path in Path(workflow.basedir, "workflow/lib/figures/atlas/templates").iterdir()),
    output:
        "results/index.html",
    log:
        "logs/write_atlas.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code_digest("workflow.scripts.write_atlas"),
    shell:
        "python -m workflow.scripts.write_atlas --figures {input.figures:q} --cells {input.cells:q}"
        " --tables {input.tables:q} --accuracy {input.accuracy:q} --config {input.config:q} --curves {input.curves:q}"
        " --per-sample {input.per_sample:q} --responses {input.responses:q} --output {output:q} > {log:q} 2>&1"


rule figures:
    """Every chosen dataset's figures."""
    input:
        collect("results/figures/{dataset}", dataset=STUDY.datasets),
    localrule: True
