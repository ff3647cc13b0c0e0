"""Responses that a model could be trained on.

needs  the source files of a dataset (and on request a model that writes Detailed ones), or nothing for the miniature
makes  results/responses/{dataset}.parquet: every sample, variant and relation, with the samples that its parts come from
why    built from the complete dataset; `samples` draws its subset later, so that it changes no response
"""


rule build_responses:
    """Build the responses table of one dataset."""
    input:
        sources=dataset_sources,
        written=lambda wildcards: written_file(wildcards.dataset),
    output:
        "results/responses/{dataset}.parquet",
    log:
        "logs/build_responses/{dataset}.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code_digest(
            "data.jobs:build_responses",
            only=lambda wildcards: (
                read_by(wildcards.dataset)
                | {"data.responses.build:BUILDERS": [each for each in STUDY.built(wildcards.dataset) if each in BUILT]}
            ),
        ),
        content=content_of(dataset_sources),
        settings=lambda wildcards: as_json(
            **source_settings(wildcards.dataset),
            variants=STUDY.variants(wildcards.dataset),
            relations=STUDY.built(wildcards.dataset),
            recipe=STUDY.datasets[wildcards.dataset]["recipe"],
        ),
        written=lambda wildcards, input: ["--detailed", *input.written] if input.written else [],
    shell:
        "python -m gradatlas build-responses --dataset {wildcards.dataset} --sources {input.sources:q}"
        " {params.written:q} --settings {params.settings:q} --output {output:q} > {log:q} 2>&1"


rule responses:
    """Every chosen dataset's responses."""
    input:
        collect("results/responses/{dataset}.parquet", dataset=STUDY.datasets),
    localrule: True
