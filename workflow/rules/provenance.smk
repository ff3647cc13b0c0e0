"""Provenance: what was asked for and what was measured with.

needs  the config as Snakemake sees it, the tables' metadata, the source files; what the jobs ran on stands in sidecars
       beside the tables, which are read where they are and make nothing stale
makes  results/config.effective.yaml, results/manifest.json
why    a number without its model revision, precision and seed cannot be repeated; shards that disagree are an error
"""


rule write_config:
    """Write the effective config: files, command line and defaults merged."""
    output:
        "results/config.effective.yaml",
    log:
        "logs/write_config.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code_digest("workflow.scripts.write_config"),
        # A function: braces in the config are no wildcards.
        config=lambda wildcards: json.dumps({**STUDY.config, "models": list(STUDY.models.values())}, sort_keys=True),
    shell:
        "python -m workflow.scripts.write_config --config {params.config:q} --output {output:q} > {log:q} 2>&1"


LEARNT = {
    model: collect(DYNAMICS_TABLES, pairs=DYNAMICS["pairs"], model=model, seed=DYNAMICS["seeds"])
    for model in STUDY.learners
}


rule write_manifest:
    """Gather what every table was made with, and check that they agree."""
    input:
        samples=collect(
            "results/gradients/{model}/{dataset}.samples.parquet", model=STUDY.models, dataset=STUDY.datasets
        ),
        responses=collect("results/responses/{dataset}.parquet", dataset=STUDY.datasets),
        sources=sorted({path for name in STUDY.datasets for path in source_files(name)})
        + (pair_rows(None) if LEARNT else [])
        + ([TOY_FILES] if HUB_IMAGES else TOY_FILES) * SHOW_TOYS,
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
        code=code_digest("workflow.scripts.write_manifest"),
        learners=[
            part
            for model, tables in LEARNT.items()
            for part in ("--learner", model, f"resources/models/{model}.json", *tables)
        ],
    shell:
        "python -m workflow.scripts.write_manifest --samples {input.samples:q} --responses {input.responses:q}"
        " --sources {input.sources:q} --statistics {input.statistics:q} {params.learners:q}"
        " --pairs {input.pairs:q} --toys {input.toys:q} --output {output:q} > {log:q} 2>&1"
