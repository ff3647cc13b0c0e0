"""Provenance: the settings of a run, and what its tables were made with.

needs  the config as Snakemake sees it, the tables' metadata, the source files; machines are read from sidecar files beside
       the tables, which are no inputs: another machine makes nothing stale
makes  results/config.effective.yaml, results/manifest.json
why    a number without its model revision, precision and seed cannot be reproduced; tables that disagree are an error
"""


rule write_config:
    """Write the effective config: config files, command line and defaults, merged."""
    output:
        "results/config.effective.yaml",
    log:
        "logs/write_config.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code_digest("study.jobs:write_config"),
        settings=lambda wildcards: as_json(**{**STUDY.config, "models": [*STUDY.models.values()]}),
    shell:
        "python -m gradatlas write-config --settings {params.settings:q} --output {output:q} > {log:q} 2>&1"


LEARNT = {
    model: collect(DYNAMICS_TABLES, pairs=DYNAMICS["pairs"], model=model, seed=DYNAMICS["seeds"])
    for model in STUDY.learners
}


rule write_manifest:
    """Collect what every table was made with, and check that the tables agree."""
    input:
        samples=collect(
            "results/gradients/{model}/{dataset}.samples.parquet", model=STUDY.models, dataset=STUDY.datasets
        ),
        responses=collect("results/responses/{dataset}.parquet", dataset=STUDY.datasets),
        sources=sorted({path for name in STUDY.datasets for path in source_files(name)})
        + (pair_rows(None) + probe_files(None) if LEARNT else [])
        + ([TOY_FILES] if HUB_IMAGES else TOY_FILES) * SHOW_TOYS,
        scores=[f"{os.path.dirname(page)}/scores.parquet" for page in SCORE_PAGES],
        statistics=collect("results/statistics/{dataset}/cells.parquet", dataset=STUDY.datasets),
        cards=collect("resources/models/{model}.json", model=LEARNT),
        learnt=sum(LEARNT.values(), []),
        pairs=collect("results/dynamics/{pairs}/pairs.parquet", pairs=[DYNAMICS["pairs"]] if LEARNT else []),
        toys=collect("results/dynamics/toys/toy_{table}.parquet", table=sum(TOY_TABLES.values(), []) * SHOW_TOYS),
    output:
        report(
            "results/manifest.json",
            caption="../report/manifest.rst",
            category="Provenance",
            labels={"file": "manifest"},
        ),
    log:
        "logs/write_manifest.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code_digest("page.jobs:write_manifest"),
    shell:
        "python -m gradatlas write-manifest --samples {input.samples:q} --responses {input.responses:q}"
        " --sources {input.sources:q} --statistics {input.statistics:q} --cards {input.cards:q}"
        " --learnt {input.learnt:q} --pairs {input.pairs:q} --toys {input.toys:q}"
        " --scores {input.scores:q} --output {output:q}"
        " > {log:q} 2>&1"


rule plan:
    """Print what the study will take, and what will stop it: work, memory, disk, downloads, requests. It starts nothing."""
    input:
        # Not on the command line, which Snakemake prints where this job fails.
        config="results/config.effective.yaml",
    # Without output: what is known changes with every file that is fetched, so it always runs.
    log:
        "logs/plan.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code_digest("planning.jobs:plan"),
        elsewhere="" if workflow.local_exec else "--elsewhere",
        # No output, as it stays where the study cannot run to its end, and this job fails.
        plan="results/plan.json",
    shell:
        "python -m gradatlas plan --config {input.config:q} {params.elsewhere} --output {params.plan:q} 2> {log:q}"
