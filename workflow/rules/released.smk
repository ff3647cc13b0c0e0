"""Released statistics: read instead of measuring (`gradients: published`), and written from what was measured.

needs  a folder or a hub dataset of JSON Lines (config key `released`); or the gradients tables
makes  the tables of measure_gradients, with no model and no GPU; results/released/grads_exp/...
why    280,000 passes need not be run again to draw their figures
"""

if STUDY.config["gradients"] == "published":

    ruleorder: import_released > measure_gradients

    rule import_released:
        """Read one model's released statistics of one dataset."""
        input:
            responses="results/responses/{dataset}.parquet",
            # An edited file is noticed; what a hub has at a commit stays as it is.
            statistics=released_here,
        output:
            samples="results/gradients/{model}/{dataset}.samples.parquet",
            spectra="results/gradients/{model}/{dataset}.spectra.parquet",
        log:
            "logs/import_released/{model}/{dataset}.log",
        localrule: True
        conda:
            "../../environment.yml"
        params:
            code=code_digest("workflow.scripts.import_released"),
            place=lambda wildcards: STUDY.config["released"]["source"],
            revision=lambda wildcards: STUDY.config["released"]["revision"],
            files=lambda wildcards: [
                part for file in released_files(wildcards.dataset, wildcards.model) for part in ("--file", *file)
            ],
            limit=SUBSET,
            purpose=lambda wildcards: STUDY.purpose(wildcards.model, wildcards.dataset),
        shell:
            "python -m workflow.scripts.import_released --released {params.place:q} --revision={params.revision:q}"
            " {params.files:q} --model-name {wildcards.model} --responses {input.responses:q} {params.limit}"
            " --samples {output.samples:q} --spectra {output.spectra:q} --purpose {params.purpose:q} > {log:q} 2>&1"


EXPORTED = {
    dataset: {
        (model, variant, relation): f"results/released/{path}"
        for model in STUDY.models
        for variant, relation, path in released_files(dataset, model)
    }
    for dataset in STUDY.datasets
}

for dataset, files in EXPORTED.items():

    rule:
        name:
            f"export_{dataset}"
        input:
            samples=collect("results/gradients/{model}/{dataset}.samples.parquet", model=STUDY.models, dataset=dataset),
            spectra=collect("results/gradients/{model}/{dataset}.spectra.parquet", model=STUDY.models, dataset=dataset),
            responses=f"results/responses/{dataset}.parquet",
        output:
            list(files.values()),
        log:
            f"logs/export_statistics/{dataset}.log",
        localrule: True
        conda:
            "../../environment.yml"
        params:
            code=code_digest("workflow.scripts.export_statistics"),
            outputs=[part for key, path in files.items() for part in ("--output", *key, path)],
        shell:
            "python -m workflow.scripts.export_statistics --samples {input.samples:q} --spectra {input.spectra:q}"
            " --responses {input.responses:q} {params.outputs:q} > {log:q} 2>&1"


rule released:
    """What was measured, in the format of the study's released statistics."""
    input:
        [path for files in EXPORTED.values() for path in files.values()],
    localrule: True
