"""Claims: what the study says and what the controls say to it, each tested on every model and dataset.

needs  the samples and spectra of all models, config/claims.tsv (an input: another threshold is another result), and
       what the miniatures can do; the second study's evidence
makes  results/evidence/{dataset}.parquet (numbers, no verdict) and .two_alternative.parquet (what models can do),
       results/claims.{parquet,csv,json}, results/tables/claims.md, results/figures/claims/verdicts.{format} and
       dynamics.{format}; results/tables/fixed_data.{csv,md}, results/figures/claims/fixed_data.{format}
why    a verdict is corrected for all tests of a run, so it is reached in one place, from small tables
"""


include: "claims_dynamics.smk"


rule gather_evidence:
    """Measure what every claim is about, on one dataset."""
    input:
        samples=compared_tables("samples"),
        spectra=compared_tables("spectra"),
        claims=CLAIMS_SHEET,
        schema=CLAIMS_SCHEMA,
    output:
        evidence="results/evidence/{dataset}.parquet",
        accuracy="results/evidence/{dataset}.two_alternative.parquet",
    log:
        "logs/gather_evidence/{dataset}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        code=code_digest("workflow.scripts.gather_evidence"),
        models=lambda wildcards: json.dumps(
            {name: {key: row[key] for key in ("kind", "partner", "seed")} for name, row in STUDY.models.items()}
        ),
        task=lambda wildcards: STUDY.datasets[wildcards.dataset]["task"],
        draws=STUDY.config["bootstrap"],
        seed=STUDY.config["seed"],
    shell:
        "python -m workflow.scripts.gather_evidence --dataset {wildcards.dataset} --task {params.task} --samples {input.samples:q}"
        " --spectra {input.spectra:q} --models {params.models:q} --claims {input.claims:q} --schema {input.schema:q}"
        " --draws {params.draws} --seed {params.seed} --output {output.evidence:q} --accuracy {output.accuracy:q}"
        " > {log:q} 2>&1"


rule test_claims:
    """Reach the verdicts of both studies, over all datasets."""
    input:
        evidence=collect("results/evidence/{dataset}.parquet", dataset=STUDY.datasets),
        dynamics=collect(
            "results/evidence/dynamics/{pairs}/{model}.parquet", pairs=DYNAMICS["pairs"], model=STUDY.learners
        ),
        toys=["results/evidence/dynamics/toys.parquet"] if SHOW_TOYS else [],
        accuracy=accuracy_tables,
        two_alternative=collect("results/evidence/{dataset}.two_alternative.parquet", dataset=STUDY.datasets),
        claims=CLAIMS_SHEET,
        schema=CLAIMS_SCHEMA,
        dynamics_claims=[DYNAMICS_CLAIMS_SHEET, DYNAMICS_CLAIMS_SCHEMA],
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
    params:
        code=code_digest("workflow.scripts.test_claims"),
        prompts=PROMPTS,
    shell:
        "python -m workflow.scripts.test_claims --evidence {input.evidence:q} {input.dynamics:q} {input.toys:q}"
        " --accuracy {input.accuracy:q} {input.two_alternative:q} --claims {input.claims:q} --schema {input.schema:q}"
        " --dynamics-claims {input.dynamics_claims:q} {params.prompts:q} --output results/claims > {log:q} 2>&1"


rule draw_claims:
    """Draw the verdicts as a matrix a study, and write them as a table."""
    input:
        "results/claims.parquet",
    output:
        report(
            collect(
                "results/figures/claims/verdicts.{format}",
                format=[name for name in STUDY.config["formats"] if name == "svg"],
            ),
            caption="../report/claims.rst",
            category="Claims",
            labels={"table": "Verdict matrix"},
        ),
        report(
            collect(
                "results/figures/claims/dynamics.{format}",
                format=[name for name in STUDY.config["formats"] if name == "svg"],
            ),
            caption="../report/claims_dynamics.rst",
            category="Claims",
            labels={"table": "Verdict matrix, learning dynamics"},
        ),
        collect(
            "results/figures/claims/{study}.{format}",
            study=["verdicts", "dynamics"],
            format=[name for name in STUDY.config["formats"] if name != "svg"],
        ),
        markdown="results/tables/claims.md",
    log:
        "logs/draw_claims.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code_digest("workflow.scripts.draw_claims"),
        formats=STUDY.config["formats"],
        titles=lambda wildcards: json.dumps(
            {
                name: row["title"]
                for name, row in {**STUDY.learners, **STUDY.models, **STUDY.datasets}.items()
                if row["title"]
            }
        ),
    shell:
        "python -m workflow.scripts.draw_claims --claims {input:q} --formats {params.formats} --titles {params.titles:q}"
        " --figure results/figures/claims/verdicts --dynamics-figure results/figures/claims/dynamics"
        " --markdown {output.markdown:q} > {log:q} 2>&1"


rule compare_fixed:
    """Say which conclusions survive the fixed data: claims on the study's irrelevant responses and on corrected ones."""
    input:
        claims="results/claims.parquet",
        cells=collect("results/statistics/{dataset}/cells.parquet", dataset=STUDY.datasets),
    output:
        report(
            collect(
                "results/figures/claims/fixed_data.{format}",
                format=[name for name in STUDY.config["formats"] if name == "svg"],
            ),
            caption="../report/fixed.rst",
            category="Claims",
            labels={"table": "Fixed data"},
        ),
        collect(
            "results/figures/claims/fixed_data.{format}",
            format=[name for name in STUDY.config["formats"] if name != "svg"],
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
        code=code_digest("workflow.scripts.compare_fixed"),
        formats=STUDY.config["formats"],
        titles=lambda wildcards: json.dumps(
            {
                "models": {name: row["title"] for name, row in STUDY.models.items() if row["title"]},
                "datasets": {name: row["title"] for name, row in STUDY.datasets.items() if row["title"]},
            }
        ),
    shell:
        "python -m workflow.scripts.compare_fixed --claims {input.claims:q} --cells {input.cells:q}"
        " --formats {params.formats} --titles {params.titles:q} --figure results/figures/claims/fixed_data"
        " --tables results/tables/fixed_data > {log:q} 2>&1"


rule claims:
    """Every claim's verdicts."""
    input:
        "results/claims.parquet",
        "results/tables/claims.md",
        ["results/tables/fixed_data.md"] if STUDY.datasets else [],
    localrule: True
