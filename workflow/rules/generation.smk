"""Generation: Detailed responses for data that have none; off while config key generate.datasets is empty.

needs  a dataset's source files; a local model's card, or an endpoint (its key in the environment of `snakemake`)
makes  results/generated/{dataset}.jsonl: every answer, accepted or rejected, with its prompt and model;
       results/journal/generated/ keeps the answers one by one, through kills and edits
why    thousands of paid answers: none is requested twice, and none with a wrong final answer is accepted
"""


rule generate_detailed:
    """Write one dataset's Detailed responses and check their answers."""
    input:
        sources=dataset_sources,
        model=[] if GENERATE["endpoint"] else f"resources/models/{GENERATE['model']}.json",
    output:
        "results/generated/{dataset}.jsonl",
    log:
        "logs/generate_detailed/{dataset}.log",
    wildcard_constraints:
        dataset="|".join(GENERATE["datasets"]) or "none",
    # Nodes of a cluster may have no network.
    localrule: bool(GENERATE["endpoint"])
    conda:
        "../../environment.yml"
    threads: 1 if GENERATE["endpoint"] else next((row["threads"] for row in STUDY.writers.values()), 1)
    resources:
        gpu=gpus_of(STUDY.writers.values()),
        mem_mb=model_memory("model"),
        runtime=model_runtime(STUDY.writers.values(), 720),
        requests=lambda wildcards: REQUESTS,
    params:
        code=code_digest("models.jobs:generate_detailed", only=lambda wildcards: read_by(wildcards.dataset)),
        content=content_of(dataset_sources),
        settings=lambda wildcards: as_json(
            **source_settings(wildcards.dataset), prompt=GENERATE["prompt"], writer=writer_settings()
        ),
        model=lambda wildcards, input: ["--model", input.model] if input.model else [],
        kept=lambda wildcards: f"results/journal/generated/{wildcards.dataset}.jsonl",
    shell:
        "python -m gradatlas generate-detailed --dataset {wildcards.dataset} --sources {input.sources:q}"
        " {params.model:q} --settings {params.settings:q} --requests {resources.requests:q} --threads {threads}"
        " --kept {params.kept:q} --output {output:q} > {log:q} 2>&1"
