"""Statistics: curves, MAD and RD, each with a 95 % bootstrap interval over samples.

needs  the samples and spectra of all models on a dataset
makes  results/statistics/{dataset}/: curves, mad, rd, rd_layers, cells, per_sample, per_sample_layers; results/tables/:
       MAD and RD of all datasets, and regression: loss and length as covariates
why    one dataset at a time, so that a new dataset leaves the others' statistics as they are
"""


rule summarise_gradients:
    """Summarise one dataset's spectra over samples."""
    input:
        samples=gradient_tables("samples"),
        spectra=gradient_tables("spectra"),
        responses="results/responses/{dataset}.parquet",
    output:
        curves="results/statistics/{dataset}/curves.parquet",
        mad="results/statistics/{dataset}/mad.parquet",
        rd="results/statistics/{dataset}/rd.parquet",
        rd_layers="results/statistics/{dataset}/rd_layers.parquet",
        cells="results/statistics/{dataset}/cells.parquet",
        per_sample="results/statistics/{dataset}/per_sample.parquet",
        per_sample_layers="results/statistics/{dataset}/per_sample_layers.parquet",
    log:
        "logs/summarise_gradients/{dataset}.log",
    priority: 5
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        code=code_digest("statistics.jobs:summarise_gradients"),
        settings=lambda wildcards: as_json(draws=STUDY.config["bootstrap"], seed=STUDY.config["seed"]),
        folder=lambda wildcards, output: os.path.dirname(output.curves),
    shell:
        "python -m gradatlas summarise-gradients --dataset {wildcards.dataset} --samples {input.samples:q}"
        " --spectra {input.spectra:q} --responses {input.responses:q} --settings {params.settings:q}"
        " --output {params.folder:q} > {log:q} 2>&1"


rule regress_gradients:
    """Regress the size of gradients on loss and length, with the residuals of each variant."""
    input:
        collect("results/statistics/{dataset}/per_sample.parquet", dataset=STUDY.datasets),
    output:
        parquet="results/tables/regression.parquet",
        csv=report(
            "results/tables/regression.csv",
            caption="../report/regression.rst",
            category="Tables",
            labels={"table": "Regression"},
        ),
    log:
        "logs/regress_gradients.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        code=code_digest("statistics.jobs:regress_gradients"),
        settings=lambda wildcards: as_json(draws=STUDY.config["bootstrap"], seed=STUDY.config["seed"]),
        folders=lambda wildcards, input: [os.path.dirname(path) for path in input],
    shell:
        "python -m gradatlas regress-gradients --statistics {params.folders:q} --settings {params.settings:q}"
        " --output {output.parquet:q} --csv {output.csv:q} > {log:q} 2>&1"


rule statistics:
    """Every chosen dataset's statistics."""
    input:
        collect("results/statistics/{dataset}/curves.parquet", dataset=STUDY.datasets),
        "results/tables/mad.csv",
        "results/tables/regression.csv",
    localrule: True
