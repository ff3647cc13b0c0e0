"""Gradients: the exact spectrum of every layer's Q, K, V and O gradient, sample by sample.

needs  a model's card, a dataset's responses
makes  results/gradients/{model}/{dataset}.samples.parquet and .spectra.parquet, and .run.json (time, host, device:
       for people, no rule reads it); where config asks for them .singular_values, .cosines and .tokens.parquet;
       results/journal/ keeps finished batches through kills and edits
why    one job is one (model, dataset): the model is loaded once for all of the dataset's response sets; with `shards` one
       job is a part of it, which a cluster's queue may take where the whole would be too long
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
    benchmark:
        f"logs/benchmarks/measure_gradients/{PART}.tsv"
    conda:
        "../../environment.yml"
    threads: lambda wildcards: STUDY.models[wildcards.model]["threads"]
    resources:
        gpu=lambda wildcards: 0 if STUDY.models[wildcards.model]["device"] == "cpu" else 1,
        mem_mb=lambda wildcards: 3000 if STUDY.models[wildcards.model]["scope"] == "miniature" else 48000,
        runtime=240,
        # A retry gets a smaller batch; params would keep their first value.
        batch_tokens=lambda wildcards, attempt: max(1, STUDY.config["batch_tokens"] >> (attempt - 1)),
    params:
        code=code_digest("workflow.scripts.measure_gradients"),
        device=lambda wildcards: STUDY.models[wildcards.model]["device"],
        dtype=lambda wildcards: STUDY.models[wildcards.model]["dtype"],
        chat=lambda wildcards: "--chat" if STUDY.models[wildcards.model]["prompt"] == "chat" else "",
        trust=lambda wildcards: "--trust-remote-code" if STUDY.models[wildcards.model]["trust_remote_code"] else "",
        mapping=lambda wildcards: [
            f"--mapping={each}" for each in [STUDY.models[wildcards.model]["projections"]] if each
        ],
        purpose=lambda wildcards: STUDY.purpose(wildcards.model, wildcards.dataset),
        limit=SUBSET,
        max_length=STUDY.config["max_length"],
        truncation=STUDY.config["truncation"],
        loss_tokens=STUDY.config["loss_tokens"],
        loss_norm=STUDY.config["loss_norm"],
        # Only draws have a seed: another one makes nothing else stale.
        seed=lambda wildcards: drawn_seed(wildcards.model, wildcards.dataset),
        relations=lambda wildcards: STUDY.relations(wildcards.dataset),
        controls=lambda wildcards: STUDY.controls(wildcards.model, wildcards.dataset),
        projections=STUDY.config["projections"],
        metrics=STUDY.config["metrics"],
        tf32="--tf32" if STUDY.config["tf32"] else "",
        compat=STUDY.config["compat"],
        extras=lambda wildcards, output: [part for name in EXTRAS for part in extra_arguments(name, wildcards, output)],
        # All parts plan the same batches, whatever a retry makes of them.
        shard=lambda wildcards: (
            f"--shard {wildcards.shard}/{SHARDS} --planned-tokens {STUDY.config['batch_tokens']}" if SHARDS > 1 else ""
        ),
        journal=lambda wildcards: f"results/journal/{wildcards.model}/{wildcards.dataset}",
    shell:
        "python -m workflow.scripts.measure_gradients --model {input.model:q} --model-name {wildcards.model}"
        " --responses {input.responses:q} --samples {output.samples:q} --spectra {output.spectra:q} --run {output.run:q}"
        " --journal {params.journal:q} {params.chat} {params.trust} {params.limit} --max-length {params.max_length}"
        " --truncation {params.truncation} --loss-tokens {params.loss_tokens} --loss-norm {params.loss_norm}"
        " --seed {params.seed} --projections {params.projections} --metrics {params.metrics} {params.tf32}"
        " --dtype {params.dtype} --device {params.device} --compat {params.compat} --purpose {params.purpose:q}"
        " --relations {params.relations} --controls {params.controls} {params.mapping:q} {params.extras:q} {params.shard}"
        " --batch-tokens {resources.batch_tokens} --threads {threads} > {log:q} 2>&1"


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
            mem_mb=16000,
            runtime=60,
        params:
            code=code_digest("workflow.scripts.gather_shards"),
            tables=lambda wildcards, input, output: [
                part
                for name in ["samples", "spectra", *EXTRAS]
                for part in ("--table", name, output[name], *input[name])
            ],
        shell:
            "python -m workflow.scripts.gather_shards {params.tables:q} --run {output.run:q} {input.run:q} > {log:q} 2>&1"


rule gradients:
    """Every chosen model on every chosen dataset."""
    input:
        collect("results/gradients/{model}/{dataset}.spectra.parquet", model=STUDY.models, dataset=STUDY.datasets),
    localrule: True
