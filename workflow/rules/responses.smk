"""Responses: what a model could be trained on.

needs  the source files of a dataset, or nothing for a procedural one
makes  results/responses/{dataset}.parquet: every sample x variant x relation, with the samples its parts came from
why    built on the whole dataset; `samples` draws its subset later, so that it changes no response
"""


rule build_responses:
    """Build the responses table of one dataset."""
    input:
        dataset_sources,
    output:
        "results/responses/{dataset}.parquet",
    log:
        "logs/build_responses/{dataset}.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code_digest("workflow.scripts.build_responses"),
        reader=lambda wildcards: STUDY.datasets[wildcards.dataset]["reader"],
        gold=lambda wildcards: STUDY.datasets[wildcards.dataset]["gold"],
        options=lambda wildcards: STUDY.datasets[wildcards.dataset]["options"],
        recipe=lambda wildcards: STUDY.datasets[wildcards.dataset]["recipe"],
        sources=source_arguments,
        checksums=own_checksums,
        variants=lambda wildcards: STUDY.variants(wildcards.dataset),
        relations=lambda wildcards: STUDY.relations(wildcards.dataset),
        seed=STUDY.config["seed"],
        questions=STUDY.config["miniature"]["questions"],
    shell:
        "python -m workflow.scripts.build_responses --dataset {wildcards.dataset} --reader {params.reader}"
        " {params.sources:q} {params.checksums:q} --variants {params.variants} --relations {params.relations} --gold={params.gold:q} --options={params.options:q} --recipe {params.recipe}"
        " --seed {params.seed} --questions {params.questions} --output {output:q} > {log:q} 2>&1"


rule responses:
    """Every chosen dataset's responses."""
    input:
        collect("results/responses/{dataset}.parquet", dataset=STUDY.datasets),
    localrule: True
