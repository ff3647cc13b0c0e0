"""Released statistics: read instead of measuring (`gradients: published`).

needs  a folder or a hub dataset of JSON Lines (config key `released`)
makes  the tables of measure_gradients, without a model or a GPU
why    figures of released statistics without 280,000 passes
"""

if STUDY.config["gradients"] == "published":

    ruleorder: import_released > measure_gradients

    rule import_released:
        """Read one model's released statistics of one dataset."""
        input:
            responses="results/responses/{dataset}.parquet",
            # Local files, to notice edits; the files of a hub commit do not change.
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
            code=code_digest("gradients.jobs:import_released"),
            content=content_of(released_here),
            place=lambda wildcards: STUDY.config["released"]["source"],
            revision=lambda wildcards: STUDY.config["released"]["revision"],
            settings=lambda wildcards: as_json(
                files=released_files(wildcards.dataset, wildcards.model),
                purpose=STUDY.purpose(wildcards.model, wildcards.dataset),
                **subset(),
            ),
        shell:
            "python -m gradatlas import-released --released {params.place:q} --revision={params.revision:q}"
            " --model-name {wildcards.model} --responses {input.responses:q} --settings {params.settings:q}"
            " --samples {output.samples:q} --spectra {output.spectra:q} > {log:q} 2>&1"
