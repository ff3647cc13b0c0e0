"""Gradients: the exact spectrum of every layer's Q, K, V and O gradient, sample by sample.

needs  a model's card, a dataset's responses
makes  results/gradients/{model}/{dataset}.samples.parquet and .spectra.parquet, and .run.json (time, host, device:
       no rule reads it); on request .singular_values, .cosines and .tokens.parquet; results/journal/ keeps finished
       batches through kills and edits
why    one job is one (model, dataset): the model is loaded once for all of the dataset's response sets; with `shards` one
       job is a part of that, for queues with a short time limit
"""

# Released statistics are not measured. (model, dataset), and its part where there are several.
SHARDS = STUDY.config["shards"] if STUDY.config["gradients"] == "measured" else 1
PART = "{model}/{dataset}" if SHARDS == 1 else "{model}/{dataset}/{shard}"
MEASURED = f"results/gradients/{PART}" if SHARDS == 1 else f"results/shards/{PART}"
# A part is read once.
PASSING = temp if SHARDS > 1 else str


wildcard_constraints:
    shard=r"\d+",


rule measure_gradients:
    """Measure one dataset on one model, or a part of it."""
    input:
        responses="results/responses/{dataset}.parquet",
        model="resources/models/{model}.json",
    output:
        **{name: PASSING(f"{MEASURED}.{name}.parquet") for name in ["samples", "spectra", *EXTRAS]},
        run=PASSING(f"{MEASURED}.run.json"),
    log:
        f"logs/measure_gradients/{PART}.log",
    conda:
        "../../environment.yml"
    threads: lambda wildcards: STUDY.models[wildcards.model]["threads"]
    resources:
        gpu=lambda wildcards: gpus_of([STUDY.models[wildcards.model]]),
        mem_mb=model_memory("model", work=measuring_work),
        runtime=time_limit("model", measuring_work),
        disk_mb=measuring_disk,
        # A retry gets a smaller batch; params would keep their first value.
        batch_tokens=lambda wildcards, attempt: max(1, STUDY.config["batch_tokens"] >> (attempt - 1)),
    params:
        code=code_digest("gradients.jobs:measure_gradients", only={"gradients.extras:MEASURES": EXTRAS}),
        settings=lambda wildcards: as_json(**gradient_settings(wildcards.model, wildcards.dataset)),
        # All parts plan the same batches, whatever a retry makes of them.
        shard=lambda wildcards: (
            ["--shard", wildcards.shard, SHARDS, "--planned-tokens", STUDY.config["batch_tokens"]]
            if SHARDS > 1
            else []
        ),
        extras=lambda wildcards, output: [
            part for name in EXTRAS for part in (f"--{name.replace('_', '-')}", output[name])
        ],
        tokens=lambda wildcards: chosen_tokens(wildcards.dataset),
        journal=lambda wildcards, output: kept_work(output.run, f"{wildcards.model}/{wildcards.dataset}"),
    shell:
        "python -m gradatlas measure-gradients --model {input.model:q} --model-name {wildcards.model}"
        " --responses {input.responses:q} --samples {output.samples:q} --spectra {output.spectra:q} --run {output.run:q}"
        " --journal {params.journal:q} --settings {params.settings:q} {params.shard} {params.extras:q} {params.tokens:q}"
        " --batch-tokens {resources.batch_tokens} --gpus {resources.gpu} --threads {threads} > {log:q} 2>&1"


if SHARDS > 1:

    rule gather_shards:
        """Gather one model's tables of a dataset from their parts, and check that these agree."""
        input:
            **{
                name: collect(f"{MEASURED}.{name}.parquet", shard=range(1, SHARDS + 1), allow_missing=True)
                for name in ["samples", "spectra", *EXTRAS]
            },
            run=collect(f"{MEASURED}.run.json", shard=range(1, SHARDS + 1), allow_missing=True),
        output:
            **{
                name: f"results/gradients/{{model}}/{{dataset}}.{name}.parquet"
                for name in ["samples", "spectra", *EXTRAS]
            },
            run="results/gradients/{model}/{dataset}.run.json",
        log:
            "logs/gather_shards/{model}/{dataset}.log",
        conda:
            "../../environment.yml"
        resources:
            mem_mb=memory(16000),
            runtime=60,
        params:
            code=code_digest("gradients.jobs:gather_shards"),
            names=["samples", "spectra", *EXTRAS],
            parts=lambda wildcards, input: [part for name in ["samples", "spectra", *EXTRAS] for part in input[name]],
            outputs=lambda wildcards, output: [output[name] for name in ["samples", "spectra", *EXTRAS]],
        shell:
            "python -m gradatlas gather-shards --names {params.names} --parts {params.parts:q} --outputs {params.outputs:q}"
            " --run-parts {input.run:q} --run {output.run:q} > {log:q} 2>&1"


rule gradients:
    """Every chosen model on every chosen dataset."""
    input:
        collect("results/gradients/{model}/{dataset}.spectra.parquet", model=STUDY.models, dataset=STUDY.datasets),
    localrule: True
