"""Provenance: what was asked for and what was measured with.

needs  the config as Snakemake sees it, the tables' metadata, the source files
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


rule write_manifest:
    """Gather what every gradients table was measured with, and check that they agree."""
    input:
        samples=collect(
            "results/gradients/{model}/{dataset}.samples.parquet", model=STUDY.models, dataset=STUDY.datasets
        ),
        responses=collect("results/responses/{dataset}.parquet", dataset=STUDY.datasets),
        sources=sorted({path for name in STUDY.datasets for path in source_files(name)}),
        statistics=collect("results/statistics/{dataset}/cells.parquet", dataset=STUDY.datasets),
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
    shell:
        "python -m workflow.scripts.write_manifest --samples {input.samples:q} --responses {input.responses:q}"
        " --sources {input.sources:q} --statistics {input.statistics:q} --output {output:q} > {log:q} 2>&1"
