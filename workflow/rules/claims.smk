"""Claims of the study and controls, each tested on every model and dataset.

needs  the samples and spectra of all models, config/claims.tsv (params: another threshold is another result), and
       what the miniatures can do; the second study's evidence
makes  results/findings.{md,json} and results/figures/claims/findings_{study}.{format}: at most six findings a study;
       results/evidence/{dataset}.parquet (numbers, no verdict) and .two_alternative.parquet (what models can do),
       results/claims.{parquet,csv,json}, results/tables/claims.md, results/figures/claims/verdicts.{format} and
       dynamics.{format}, quality.{format}; results/tables/fixed_data.{csv,md}, results/figures/claims/fixed_data.{format}
why    a verdict is corrected for all tests of a run, so it is reached in one place, from small tables
"""

# The findings of each study, drawn.
FINDINGS = ["findings_gradients", "findings_dynamics", "findings_quality"]
# In all formats: Snakefile's `all` and the target `claims` take them, so that another format makes them again.
CLAIM_FILES = collect(
    "results/figures/claims/{figure}.{format}",
    figure=[*FINDINGS, "verdicts", "dynamics", "quality"] * CLAIMED + ["fixed_data"] * bool(STUDY.datasets),
    format=FIGURE_FILES,
)
# Without claims the findings state what was measured.
CLAIM_FILES += ["results/findings.md", *["results/tables/claims.md"] * CLAIMED]
# Model and dataset of everything that is measured.
MEASURED = [(model, dataset) for model in STUDY.models for dataset in STUDY.datasets] + SCORED


include: "claims_dynamics.smk"


rule gather_evidence:
    """Measure what every claim is about, on one dataset."""
    input:
        samples=compared_tables("samples"),
        spectra=compared_tables("spectra"),
    output:
        evidence="results/evidence/{dataset}.parquet",
        accuracy="results/evidence/{dataset}.two_alternative.parquet",
    log:
        "logs/gather_evidence/{dataset}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(4000),
        runtime=60,
        # Neither input nor param: `claims` below holds what counts of the sheet.
        sheet=CLAIMS_SHEET,
    params:
        code=code_digest("claims.jobs:gather_evidence"),
        claims=lambda wildcards: of_evidence(STUDY.claims_on(wildcards.dataset)),
        settings=lambda wildcards: as_json(
            draws=STUDY.config["bootstrap"],
            seed=STUDY.config["seed"],
            task=STUDY.datasets[wildcards.dataset]["task"],
            models=[{key: row[key] for key in ("model", "kind", "partner", "seed")} for row in STUDY.models.values()],
        ),
    shell:
        "python -m gradatlas gather-evidence --dataset {wildcards.dataset} --samples {input.samples:q}"
        " --spectra {input.spectra:q} --claims {resources.sheet:q}"
        " --settings {params.settings:q} --output {output.evidence:q} --accuracy {output.accuracy:q} > {log:q} 2>&1"


rule test_claims:
    """Reach the verdicts of both studies, over all datasets."""
    input:
        evidence=collect("results/evidence/{dataset}.parquet", dataset=STUDY.datasets),
        dynamics=collect(
            "results/evidence/dynamics/{pairs}/{model}.parquet", pairs=DYNAMICS["pairs"], model=STUDY.learners
        ),
        bridge=collect("results/evidence/bridge/{dataset}/{model}.parquet", dataset=BRIDGED, model=BRIDGE["models"]),
        toys=["results/evidence/dynamics/toys.parquet"] if SHOW_TOYS else [],
        quality=["results/evidence/quality/pairs.parquet"] if PAIRS else [],
        accuracy=accuracy_tables,
        two_alternative=collect("results/evidence/{dataset}.two_alternative.parquet", dataset=STUDY.datasets),
    output:
        parquet="results/claims.parquet",
        csv=report(
            "results/claims.csv", caption="../report/claims.rst", category="Claims", labels={"table": "Verdicts"}
        ),
        json="results/claims.json",
    log:
        "logs/test_claims.log",
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        sheet=CLAIMS_SHEET,
        dynamics_sheet=DYNAMICS_CLAIMS_SHEET,
        quality_sheet=QUALITY_CLAIMS_SHEET,
    params:
        code=code_digest("claims.jobs:test_claims"),
        claims=lambda wildcards: as_json(
            claims=tested_claims(), dynamics=DYNAMICS_CLAIMS, quality=QUALITY_CLAIMS if PAIRS else []
        ),
        stem=lambda wildcards, output: os.path.splitext(output.parquet)[0],
        settings=lambda wildcards: as_json(prompts=prompt_forms()),
    shell:
        "python -m gradatlas test-claims --evidence {input.evidence:q} {input.dynamics:q} {input.bridge:q} {input.toys:q} {input.quality:q}"
        " --accuracy {input.accuracy:q} {input.two_alternative:q} --claims {resources.sheet:q}"
        " --dynamics-claims {resources.dynamics_sheet:q} --quality-claims {resources.quality_sheet:q}"
        " --settings {params.settings:q} --output {params.stem:q} > {log:q} 2>&1"


rule write_findings:
    """Write what was found, in plain words."""
    input:
        claims=["results/claims.parquet"] if CLAIMED else [],
    output:
        json="results/findings.json",
        markdown=report("results/findings.md", caption="../report/findings.rst", category="Findings"),
    log:
        "logs/write_findings.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code_digest("claims.jobs:write_findings"),
        claims=lambda wildcards, input: ["--claims", *input.claims] if input.claims else [],
        figure=lambda wildcards, output: os.path.join(os.path.dirname(output.json), "figures/claims/findings"),
        settings=lambda wildcards: as_json(
            titles=titles({**STUDY.learners, **STUDY.models, **STUDY.scored, **STUDY.datasets}),
            measured=MEASURED,
        ),
        stem=lambda wildcards, output: os.path.splitext(output.json)[0],
    shell:
        "python -m gradatlas write-findings {params.claims:q} --figure {params.figure:q}"
        " --settings {params.settings:q} --output {params.stem:q} > {log:q} 2>&1"


rule draw_findings:
    """Draw the findings: effects with their intervals, those of untrained networks beside them."""
    input:
        "results/findings.json",
    output:
        collect(
            "results/figures/claims/{figure}.{format}",
            figure=FINDINGS,
            format=[name for name in FIGURE_FILES if name != "svg"],
        ),
        figure=report(
            "results/figures/claims/findings_gradients.svg",
            caption="../report/caption.rst",
            category="Findings",
            labels={"table": "Effects: layer gradients"},
        ),
        dynamics_figure=report(
            "results/figures/claims/findings_dynamics.svg",
            caption="../report/claims_dynamics.rst",
            category="Findings",
            labels={"table": "Effects: learning dynamics"},
        ),
        quality_figure=report(
            "results/figures/claims/findings_quality.svg",
            caption="../report/claims_quality.rst",
            category="Findings",
            labels={"table": "Effects: data quality"},
        ),
    log:
        "logs/draw_findings.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code_digest("figures.jobs:draw_findings"),
        formats=STUDY.config["formats"],
        figure=lambda wildcards, output: output.figure.removesuffix("_gradients.svg"),
    shell:
        "python -m gradatlas draw-findings --findings {input:q} --formats {params.formats} --figure {params.figure:q}"
        " > {log:q} 2>&1"


rule draw_claims:
    """Draw the verdicts as a matrix a study, and write them as a table."""
    input:
        "results/claims.parquet",
    output:
        collect(
            "results/figures/claims/{study}.{format}",
            study=["verdicts", "dynamics", "quality"],
            format=[name for name in FIGURE_FILES if name != "svg"],
        ),
        figure=report(
            "results/figures/claims/verdicts.svg",
            caption="../report/caption.rst",
            category="Claims",
            labels={"table": "Verdict matrix"},
        ),
        dynamics_figure=report(
            "results/figures/claims/dynamics.svg",
            caption="../report/claims_dynamics.rst",
            category="Claims",
            labels={"table": "Verdict matrix, learning dynamics"},
        ),
        quality_figure=report(
            "results/figures/claims/quality.svg",
            caption="../report/claims_quality.rst",
            category="Claims",
            labels={"table": "Verdict matrix, data quality"},
        ),
        markdown="results/tables/claims.md",
    log:
        "logs/draw_claims.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code_digest("figures.jobs:draw_claims"),
        formats=STUDY.config["formats"],
        settings=lambda wildcards: as_json(
            titles=titles({**STUDY.learners, **STUDY.models, **STUDY.scored, **STUDY.datasets}),
        ),
        figure=lambda wildcards, output: os.path.splitext(output.figure)[0],
        dynamics_figure=lambda wildcards, output: os.path.splitext(output.dynamics_figure)[0],
        quality_figure=lambda wildcards, output: os.path.splitext(output.quality_figure)[0],
    shell:
        "python -m gradatlas draw-claims --claims {input:q} --formats {params.formats} --settings {params.settings:q}"
        " --figure {params.figure:q} --dynamics-figure {params.dynamics_figure:q} --quality-figure {params.quality_figure:q}"
        " --markdown {output.markdown:q} > {log:q} 2>&1"


rule compare_fixed:
    """Compare which conclusions survive the fixed data: claims on the study's irrelevant responses and on corrected ones."""
    input:
        claims="results/claims.parquet",
        cells=collect("results/statistics/{dataset}/cells.parquet", dataset=STUDY.datasets),
    output:
        collect(
            "results/figures/claims/fixed_data.{format}",
            format=[name for name in FIGURE_FILES if name != "svg"],
        ),
        figure=report(
            "results/figures/claims/fixed_data.svg",
            caption="../report/caption.rst",
            category="Claims",
            labels={"table": "Fixed data"},
        ),
        csv=report(
            "results/tables/fixed_data.csv",
            caption="../report/fixed.rst",
            category="Claims",
            labels={"table": "Fixed data (numbers)"},
        ),
        markdown="results/tables/fixed_data.md",
    log:
        "logs/compare_fixed.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code_digest("figures.jobs:compare_fixed"),
        formats=STUDY.config["formats"],
        settings=lambda wildcards: as_json(titles=titles({**STUDY.models, **STUDY.datasets})),
        figure=lambda wildcards, output: os.path.splitext(output.figure)[0],
        tables=lambda wildcards, output: os.path.splitext(output.csv)[0],
    shell:
        "python -m gradatlas compare-fixed --claims {input.claims:q} --cells {input.cells:q}"
        " --formats {params.formats} --settings {params.settings:q} --figure {params.figure:q}"
        " --tables {params.tables:q} > {log:q} 2>&1"


rule claims:
    """Every claim's verdicts."""
    input:
        "results/claims.parquet",
        ["results/tables/fixed_data.md"] if STUDY.datasets else [],
        CLAIM_FILES,
    localrule: True
