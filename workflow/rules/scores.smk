"""Scores: every sample of a training file on every model, with a page that ranks and shows them.

needs  a model's card, training files (entries of config key `datasets` that are written out)
makes  results/scores/{model}/{dataset}/: scores.parquet, scores.csv, layers.parquet, scores.html, scores.run.json (time,
       host, device: no rule reads it), and measured/, which keeps finished parts through kills and edits
why    measured/ is no output: Snakemake deletes outputs before a job, and the parts are what it continues with
"""


rule score_samples:
    """Score one training file on one model."""
    input:
        data=scored_files,
        model="resources/models/{model}.json",
    output:
        parquet=f"{SCORES}/scores.parquet",
        csv=f"{SCORES}/scores.csv",
        layers=f"{SCORES}/layers.parquet",
        page=f"{SCORES}/scores.html",
        run=f"{SCORES}/scores.run.json",
    log:
        "logs/score_samples/{model}/{dataset}.log",
    wildcard_constraints:
        dataset="|".join(STUDY.scored) or "none",
    conda:
        "../../environment.yml"
    threads: lambda wildcards: STUDY.models[wildcards.model]["threads"]
    resources:
        gpu=lambda wildcards: gpus_of([STUDY.models[wildcards.model]]),
        mem_mb=model_memory("model"),
        runtime=time_limit("model", scoring_work),
        # A retry gets a smaller batch; params would keep their first value.
        batch_tokens=lambda wildcards, attempt: max(1, STUDY.config["batch_tokens"] >> (attempt - 1)),
    params:
        code=code_digest("api.jobs:score"),
        settings=lambda wildcards: as_json(**scoring_settings(wildcards.model, wildcards.dataset)),
        content=content_of(scored_files),
        source=lambda wildcards: scored_source(wildcards.dataset),
        title=lambda wildcards: score_title(wildcards.model, wildcards.dataset),
        folder=lambda wildcards, output: os.path.dirname(output.parquet),
    shell:
        "python -m gradatlas score --model {input.model:q} --model-name {wildcards.model} --data {params.source:q}"
        " --title={params.title:q} --settings {params.settings:q} --batch-tokens {resources.batch_tokens} --gpus {resources.gpu}"
        " --threads {threads} --output {params.folder:q} > {log:q} 2>&1"


rule score:
    """Every training file on every chosen model."""
    input:
        SCORE_PAGES,
    localrule: True


include: "quality.smk"
