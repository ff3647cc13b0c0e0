"""The bridge: the first study's gradients, and kernels between its answers, along SFT on its own variants.

needs  a dataset's responses, a model's card
makes  results/bridge/{dataset}/{model}/seed_{seed}/{variant}/: a run's files with snapshots at equal updates and at equal
       response tokens, bridge.parquet (nuclear norms), kernels.parquet and kernel_means.parquet; figures, evidence
why    the same training, kernels and gradients as in both studies, with no rule of theirs changed
"""

BRIDGE_DIR = "results/bridge/{dataset}/{model}/seed_{seed}"
BRIDGE_RUN = f"{BRIDGE_DIR}/{{variant}}"


wildcard_constraints:
    variant="|".join(VARIANTS),


rule train_bridge:
    """Finetune a model on one variant of a dataset's correct responses, with snapshots."""
    input:
        model="resources/models/{model}.json",
        responses="results/responses/{dataset}.parquet",
    output:
        **{name: f"{BRIDGE_RUN}/{name}.parquet" for name in ("pairs", "probes", "dynamics", "training")},
        # Beside them generations.parquet, of no responses, and machine.json.
        model=f"{BRIDGE_RUN}/model.json",
        places=f"{BRIDGE_RUN}/places.json",
        status=f"{BRIDGE_RUN}/status.json",
        weights=directory(f"{BRIDGE_RUN}/model"),
        snapshots=directory(f"{BRIDGE_RUN}/snapshots"),
    log:
        "logs/train_bridge/{dataset}/{model}/seed_{seed}/{variant}.log",
    conda:
        "../../environment.yml"
    threads: lambda wildcards: STUDY.models[wildcards.model]["threads"]
    resources:
        gpu=lambda wildcards: gpus_of([STUDY.models[wildcards.model]]),
        mem_mb=model_memory("model", training=lambda wildcards: [bridge_run()]),
        runtime=lambda wildcards: model_runtime([STUDY.models[wildcards.model]], 720),
        batch_tokens=lambda wildcards, attempt: max(1, STUDY.config["batch_tokens"] >> (attempt - 1)),
    params:
        code=code_digest(
            "finetuning.jobs:train_on_variant",
            only={"finetuning.losses:LOSSES": ["sft"], "finetuning.jobs:JUDGES": []},
        ),
        settings=lambda wildcards: as_json(**bridge_settings(wildcards)),
        folder=lambda wildcards, output: os.path.dirname(output.model),
        journal="results/journal/bridge/{dataset}/{model}/seed_{seed}/{variant}.run",
    shell:
        "python -m gradatlas train-on-variant --model {input.model:q} --responses {input.responses:q}"
        " --output {params.folder:q} --journal {params.journal:q} --settings {params.settings:q} --threads {threads}"
        " --batch-tokens {resources.batch_tokens} > {log:q} 2>&1"


rule measure_bridge:
    """Measure the first study's gradients at each stage of a run."""
    input:
        init="resources/models/{model}.json",
        run=f"{BRIDGE_RUN}/model.json",
        places=f"{BRIDGE_RUN}/places.json",
        probes=f"{BRIDGE_RUN}/probes.parquet",
        snapshots=ancient(f"{BRIDGE_RUN}/snapshots"),
        responses="results/responses/{dataset}.parquet",
    output:
        f"{BRIDGE_RUN}/bridge.parquet",
    log:
        "logs/measure_bridge/{dataset}/{model}/seed_{seed}/{variant}.log",
    conda:
        "../../environment.yml"
    threads: lambda wildcards: STUDY.models[wildcards.model]["threads"]
    resources:
        gpu=lambda wildcards: gpus_of([STUDY.models[wildcards.model]]),
        mem_mb=model_memory("init", work=measuring_work),
        runtime=lambda wildcards: model_runtime([STUDY.models[wildcards.model]], 720),
        batch_tokens=lambda wildcards, attempt: max(1, STUDY.config["batch_tokens"] >> (attempt - 1)),
    params:
        code=code_digest("kernels.jobs:measure_bridge", only={"gradients.extras:MEASURES": []}),
        settings=lambda wildcards: as_json(**bridge_gradient_settings(wildcards)),
        kinds=BRIDGE["measured"],
        folder=lambda wildcards, input: os.path.dirname(input.run),
        journal="results/journal/bridge/{dataset}/{model}/seed_{seed}/{variant}.gradients",
    shell:
        "python -m gradatlas measure-bridge --init {input.init:q} --folder {params.folder:q}"
        " --responses {input.responses:q} --kinds {params.kinds:q} --seed {wildcards.seed} --journal {params.journal:q}"
        " --settings {params.settings:q} --batch-tokens {resources.batch_tokens} --threads {threads}"
        " --output {output:q} > {log:q} 2>&1"


rule measure_bridge_kernels:
    """Measure the kernel between a run's fast and slow answers at each stage, block by block."""
    input:
        init="resources/models/{model}.json",
        run=f"{BRIDGE_RUN}/model.json",
        status=f"{BRIDGE_RUN}/status.json",
        probes=f"{BRIDGE_RUN}/probes.parquet",
        snapshots=ancient(f"{BRIDGE_RUN}/snapshots"),
    output:
        kernels=f"{BRIDGE_RUN}/kernels.parquet",
        means=f"{BRIDGE_RUN}/kernel_means.parquet",
        entanglement=temp(f"{BRIDGE_RUN}/entanglement.parquet"),
    log:
        "logs/measure_bridge_kernels/{dataset}/{model}/seed_{seed}/{variant}.log",
    conda:
        "../../environment.yml"
    threads: lambda wildcards: STUDY.models[wildcards.model]["threads"]
    resources:
        gpu=lambda wildcards: gpus_of([STUDY.models[wildcards.model]]),
        mem_mb=along_memory,
        runtime=lambda wildcards: model_runtime([STUDY.models[wildcards.model]], 720),
        batch_tokens=lambda wildcards, attempt: max(1, STUDY.config["batch_tokens"] >> (attempt - 1)),
    params:
        code=code_digest("kernels.jobs:measure_kernels"),
        settings=lambda wildcards: as_json(**bridge_kernel_settings(wildcards)),
        folder=lambda wildcards, input: os.path.dirname(input.run),
        journal="results/journal/bridge/{dataset}/{model}/seed_{seed}/{variant}.kernels",
    shell:
        "python -m gradatlas measure-kernels --init {input.init:q} --folder {params.folder:q} --probes {input.probes:q}"
        " --settings {params.settings:q} --threads {threads} --batch-tokens {resources.batch_tokens}"
        " --kernels {output.kernels:q} --means {output.means:q} --entanglement {output.entanglement:q}"
        " --journal {params.journal:q} > {log:q} 2>&1"


rule gather_bridge_evidence:
    """Measure what the claims on SFT on the first study's variants are about, on one model's runs of all seeds."""
    input:
        bridge=bridge_tables("bridge"),
        kernels=bridge_tables("kernels"),
    output:
        "results/evidence/bridge/{dataset}/{model}.parquet",
    log:
        "logs/gather_bridge_evidence/{dataset}/{model}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(4000),
        runtime=60,
        sheet=DYNAMICS_CLAIMS_SHEET,
    params:
        code=code_digest("claims.jobs:gather_bridge_evidence"),
        claims=lambda wildcards: of_evidence([row for row in DYNAMICS_CLAIMS if row["table"].startswith("bridge")]),
        settings=lambda wildcards: as_json(
            kind=STUDY.models[wildcards.model]["kind"],
            seeds=BRIDGE["seeds"],
            draws=STUDY.config["bootstrap"],
            seed=STUDY.config["seed"],
        ),
    shell:
        "python -m gradatlas gather-bridge-evidence --dataset {wildcards.dataset} --model {wildcards.model}"
        " --bridge {input.bridge:q} --kernels {input.kernels:q} --claims {resources.sheet:q}"
        " --settings {params.settings:q} --output {output:q} > {log:q} 2>&1"


rule draw_bridge:
    """Draw MAD and cosines along one model's and seed's runs."""
    input:
        bridge=collect(f"{BRIDGE_RUN}/bridge.parquet", variant=VARIANTS, allow_missing=True),
        means=collect(f"{BRIDGE_RUN}/kernel_means.parquet", variant=VARIANTS, allow_missing=True),
    output:
        folder=report(
            directory("results/figures/bridge/{dataset}/{model}/seed_{seed}"),
            patterns=["{kind}.svg"],
            caption="../report/dynamics.rst",
            category="Learning dynamics",
            subcategory="{model}, SFT on its own answers",
            labels={"dataset": "{dataset}", "figure": "{kind}", "seed": "{seed}"},
        ),
        digest="results/figures/bridge/{dataset}/{model}/seed_{seed}.sha256",
    log:
        "logs/draw_bridge/{dataset}/{model}/seed_{seed}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        code=code_digest("figures.jobs:draw_bridge"),
        settings=lambda wildcards: as_json(draws=STUDY.config["bootstrap"], seed=STUDY.config["seed"]),
        title=bridge_title,
        formats=STUDY.config["formats"],
    shell:
        "python -m gradatlas draw-bridge --bridge {input.bridge:q} --means {input.means:q} --title={params.title:q}"
        " --formats {params.formats} --settings {params.settings:q} --output {output.folder:q} > {log:q} 2>&1"


BRIDGE_FIGURES = collect(
    "results/figures/bridge/{dataset}/{model}/seed_{seed}",
    dataset=BRIDGED,
    model=BRIDGE["models"],
    seed=BRIDGE["seeds"],
)


# What the page shows of the second study: folders with an index.json each.
SECOND_FIGURES = DYNAMICS_FIGURES + BRIDGE_FIGURES + ["results/figures/toys"] * SHOW_TOYS


rule bridge:
    """The first study's gradients along SFT on its own variants, drawn; their claims are in the target claims."""
    input:
        BRIDGE_FIGURES,
    localrule: True
