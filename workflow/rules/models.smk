"""Models: the miniatures, committed or trained here; untrained twins; a card for every model; the miniatures' accuracy.

needs  resources/miniature/ or nothing for a miniature; a folder, `mirror` or the hub (with a pinned revision) for any other
makes  resources/models/{model}.download.json (hub models: where the files are), results/models/{model}/ and its files'
       checksums, {model}.sha256 (miniatures: untrained, of another seed, or with `retrain`; untrained twins of hub models),
       resources/models/{model}.adapter.json (hub adapters), resources/models/{model}.json (cards: where the files of
       model and adapter are, their digests),
       results/accuracy/{model}.parquet (miniatures: their own answers to held-out questions)
why    a card of a few hundred bytes is an input in place of gigabytes of weights
"""


rule train_miniature:
    """Train a miniature model, or write its untrained twin."""
    input:
        base_of,
    output:
        collect("results/models/{{model}}/{name}", name=MINIATURE_FILES),
        "results/models/{model}/training.json",
        "results/models/{model}/training_log.csv",
        "results/models/{model}.sha256",
    log:
        "logs/train_miniature/{model}.log",
    wildcard_constraints:
        model="|".join(STUDY.miniatures) or "none",
    priority: 10
    conda:
        "../../environment.yml"
    # One: the bytes of the weights depend on the number of threads.
    threads: 1
    resources:
        mem_mb=memory(3000),
        runtime=60,
    params:
        code=code_digest("miniature.jobs:train_miniature"),
        settings=lambda wildcards: as_json(
            steps=training_steps(wildcards),
            **{key: STUDY.miniatures[wildcards.model][key] for key in ("kind", "seed")},
        ),
        base=lambda wildcards, input: ["--base", os.path.dirname(input[0])] if input else [],
        folder=lambda wildcards, output: os.path.dirname(output[0]),
    shell:
        "python -m gradatlas train-miniature {params.base:q} --settings {params.settings:q} --threads {threads}"
        " --output {params.folder:q} > {log:q} 2>&1"


rule download_model:
    """Find or download a hub model's files; of an untrained twin, config and tokenizer alone."""
    output:
        "resources/models/{model}.download.json",
    log:
        "logs/download_model/{model}.log",
    wildcard_constraints:
        model="|".join(HUB_MODELS) or "none",
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        # Not a param: where verified bytes came from makes nothing stale.
        mirror=STUDY.config["mirror"],
    params:
        code=code_digest("models.jobs:download_model"),
        source=lambda wildcards: HUB_MODELS[wildcards.model]["source"],
        revision=lambda wildcards: HUB_MODELS[wildcards.model]["revision"],
        weights=lambda wildcards: "--no-weights" if wildcards.model in TWINS else "",
    shell:
        "python -m gradatlas download-model --model {wildcards.model} --source {params.source:q}"
        " --revision={params.revision:q} --mirror={resources.mirror:q} {params.weights} --output {output:q} > {log:q} 2>&1"


rule download_adapter:
    """Find or download the files of a hub adapter of a model."""
    output:
        "resources/models/{model}.adapter.json",
    log:
        "logs/download_adapter/{model}.log",
    wildcard_constraints:
        model="|".join(HUB_ADAPTERS) or "none",
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        # As of download_model.
        mirror=STUDY.config["mirror"],
    params:
        code=code_digest("models.jobs:download_adapter"),
        source=lambda wildcards: MODELS[wildcards.model]["adapter"],
        revision=lambda wildcards: MODELS[wildcards.model]["adapter_revision"],
    shell:
        "python -m gradatlas download-adapter --model {wildcards.model} --source {params.source:q}"
        " --revision={params.revision:q} --mirror={resources.mirror:q} --output {output:q} > {log:q} 2>&1"


rule write_untrained:
    """Write the untrained twin of a hub model: its config and tokenizer, with seeded random weights."""
    input:
        "resources/models/{model}.download.json",
    output:
        folder=directory("results/models/{model}"),
        sums="results/models/{model}.sha256",
    log:
        "logs/write_untrained/{model}.log",
    wildcard_constraints:
        model="|".join(TWINS) or "none",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=untrained_memory,
        runtime=60,
    params:
        code=code_digest("models.jobs:write_untrained"),
        source=lambda wildcards: TWINS[wildcards.model]["source"],
        revision=lambda wildcards: TWINS[wildcards.model]["revision"],
        settings=lambda wildcards: as_json(
            seed=TWINS[wildcards.model]["seed"] or 0, trust_remote_code=TWINS[wildcards.model]["trust_remote_code"]
        ),
    shell:
        "python -m gradatlas write-untrained --model {wildcards.model} --source {params.source:q}"
        " --revision={params.revision:q} --downloaded {input:q} --settings {params.settings:q}"
        " --output {output.folder:q} > {log:q} 2>&1"


rule fetch_model:
    """Check a model's files and write its card. A job of its own: the checksums read all weights."""
    input:
        files=model_files,
        adapter=adapter_files,
    output:
        "resources/models/{model}.json",
    log:
        "logs/fetch_model/{model}.log",
    priority: 30
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(2000),
        runtime=60,
    params:
        code=code_digest("models.jobs:fetch_model"),
        content=content_of(own_files),
        # A made model's checksums come first, then its files, if each is known by name.
        source=lambda wildcards, input: (
            os.path.join(
                ".",
                os.path.dirname(input.files[1]) if len(input.files) > 1 else input.files[0].removesuffix(".sha256"),
            )
            if is_made(wildcards.model)
            else MODELS[wildcards.model]["source"]
        ),
        revision=lambda wildcards: "" if is_made(wildcards.model) else MODELS[wildcards.model]["revision"],
        checked=lambda wildcards, input: (
            ["--sums", input.files[0]]
            if is_made(wildcards.model)
            else ["--downloaded", input.files[0]] if wildcards.model in HUB_MODELS else []
        ),
        adapter=adapter_options,
    shell:
        "python -m gradatlas fetch-model --model {wildcards.model} --source {params.source:q}"
        " --revision={params.revision:q} {params.checked:q} {params.adapter:q} --output {output:q} > {log:q} 2>&1"


rule measure_accuracy:
    """Count a miniature's right answers to held-out questions: a study of reasoning needs a model that reasons."""
    input:
        "resources/models/{model}.json",
    output:
        "results/accuracy/{model}.parquet",
    log:
        "logs/measure_accuracy/{model}.log",
    wildcard_constraints:
        model="|".join(STUDY.miniatures) or "none",
    priority: 10
    conda:
        "../../environment.yml"
    threads: lambda wildcards: STUDY.miniatures[wildcards.model]["threads"]
    resources:
        mem_mb=memory(3000),
        runtime=60,
    params:
        code=code_digest(
            "models.jobs:measure_accuracy",
            only={
                "miniature.accuracy:EXAMS": MINIATURE_DATASETS,
                "data.made_up.miniature:GRAMMARS": MINIATURE_DATASETS,
            },
        ),
        settings=lambda wildcards: as_json(
            chat=STUDY.miniatures[wildcards.model]["prompt"] == "chat",
            datasets=MINIATURE_DATASETS,
            questions=STUDY.config["miniature"]["accuracy_questions"],
            seed=STUDY.config["seed"],
        ),
    shell:
        "python -m gradatlas measure-accuracy --model {input:q} --name {wildcards.model} --settings {params.settings:q}"
        " --threads {threads} --output {output:q} > {log:q} 2>&1"


rule models:
    """Every chosen model's card."""
    input:
        collect("resources/models/{model}.json", model=STUDY.models),
    localrule: True
