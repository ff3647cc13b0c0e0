"""Learning dynamics: finetuning evaluated on probes, and one step compared with its first-order prediction.

needs  a model's card; pairs of the miniature's grammar, of a file, or of the hub (config/pairs/); config/runs.tsv
makes  results/dynamics/{pairs}/pairs.parquet; below it, by model and seed, probes.parquet, one_step.parquet,
       start.generations.parquet (free responses before any run) and a folder a run: dynamics.parquet (every probe at every
       evaluation), generations.parquet (free responses), training.parquet, status.json, machine.json, model/ and its card
       model.json; results/figures/dynamics/, results/tables/dynamics.*
why    one rule for all runs: a run's settings are its row of the sheet
"""

ONE_STEP = DYNAMICS["one_step"]
# The weights of a run: an output that is deleted once no job needs it; where they are kept, its card stands for them.
WEIGHTS = [] if DYNAMICS["keep_models"] else temp(directory(f"{SEED_DIR}/{{run}}/model"))
# Models along the run, with their cards; empty for a run without kernels.
SNAPSHOTS = directory(f"{SEED_DIR}/{{run}}/snapshots")
SNAPSHOTS = SNAPSHOTS if DYNAMICS["keep_models"] else temp(SNAPSHOTS)


wildcard_constraints:
    pairs=DYNAMICS["pairs"],
    run="|".join(PLAN.runs) or "none",
    seed=r"\d+",
    split="train|held_out",


rule fetch_pairs:
    """Fetch the rows of one split of a hub dataset of pairs, at its pinned revision."""
    output:
        "resources/pairs/{pairs}.{split}.parquet",
    log:
        "logs/fetch_pairs/{pairs}.{split}.log",
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        # Not a param: where the rows of a pinned revision came from makes nothing stale.
        mirror=STUDY.config["mirror"],
    params:
        code=code_digest("data.jobs:fetch_dataset"),
        source=lambda wildcards: PLAN.mapping["source"],
        revision=lambda wildcards: PLAN.mapping["revision"],
        settings=lambda wildcards: as_json(
            split=PLAN.mapping[f"{wildcards.split}_split"], **{key: PLAN.mapping[key] for key in ("name", "folder")}
        ),
    shell:
        "python -m gradatlas fetch-dataset --dataset {wildcards.pairs} --source {params.source:q}"
        " --revision={params.revision:q} --mirror={resources.mirror:q} --where config/pairs/{wildcards.pairs}.yaml"
        " --settings {params.settings:q} --output {output:q} > {log:q} 2>&1"


rule build_pairs:
    """Build the preference pairs."""
    input:
        pair_rows,
    output:
        "results/dynamics/{pairs}/pairs.parquet",
    log:
        "logs/build_pairs/{pairs}.log",
    priority: 30
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        code=code_digest("data.jobs:build_pairs", only={"data.jobs:PAIRS": ["mapping" if PLAN.mapping else "grammar"]}),
        content=content_of(pair_rows),
        settings=lambda wildcards: as_json(seed=STUDY.config["seed"], **pairs_settings()),
        rows=lambda wildcards, input: ["--train-rows", input[0], "--held-out-rows", input[1]] if input else [],
    shell:
        "python -m gradatlas build-pairs --name {wildcards.pairs} {params.rows:q} --settings {params.settings:q}"
        " --output {output:q} > {log:q} 2>&1"


rule write_rephrases:
    """Let a model write the rephrases of probed responses; each answer is kept."""
    input:
        pairs="results/dynamics/{pairs}/pairs.parquet",
        model=[] if GENERATE["endpoint"] else f"resources/models/{GENERATE['model']}.json",
    output:
        "results/dynamics/{pairs}/seed_{seed}.rephrases.jsonl",
    log:
        "logs/write_rephrases/{pairs}/seed_{seed}.log",
    # Nodes of a cluster may have no network.
    localrule: bool(GENERATE["endpoint"])
    conda:
        "../../environment.yml"
    threads: 1 if GENERATE["endpoint"] else next((row["threads"] for row in STUDY.writers.values()), 1)
    resources:
        gpu=gpus_of(STUDY.writers.values()),
        mem_mb=model_memory("model", DYNAMICS),
        runtime=model_runtime(STUDY.writers.values(), 720),
        requests=lambda wildcards: REQUESTS,
    params:
        code=code_digest("finetuning.jobs:write_rephrases"),
        settings=lambda wildcards: as_json(**probe_settings(wildcards), writer=writer_settings()),
        model=lambda wildcards, input: ["--model", input.model] if input.model else [],
        kept="results/journal/generated/{pairs}.rephrases.jsonl",
    shell:
        "python -m gradatlas write-rephrases --pairs {input.pairs:q} {params.model:q} --settings {params.settings:q}"
        " --requests {resources.requests:q} --threads {threads} --kept {params.kept:q} --output {output:q} > {log:q} 2>&1"


# The entry of `REPHRASES` that writes them; none where files have the texts of all probes.
REPHRASED_BY = {"written": "file", "probes": ""}.get(PLAN.rephrases, PLAN.rephrases)


rule build_probes:
    """Build the probes of one model and seed: responses whose log-probability is followed."""
    input:
        pairs="results/dynamics/{pairs}/pairs.parquet",
        model=start_of_probes,
        weights=lambda wildcards: weights_of(PLAN.start),
        rephrases=rephrases_file,
        files=probe_files,
    output:
        f"{SEED_DIR}/probes.parquet",
    log:
        "logs/build_probes/{pairs}/{model}/seed_{seed}.log",
    priority: 30
    conda:
        "../../environment.yml"
    threads: lambda wildcards: STUDY.learners[wildcards.model]["threads"]
    resources:
        gpu=learner_gpu,
        mem_mb=model_memory("model", DYNAMICS),
        runtime=60,
    params:
        code=code_digest(
            "finetuning.jobs:build_probes",
            only={
                "finetuning.jobs:TEXTS": ["files" if PLAN.probe_files else "pairs"],
                "finetuning.rephrases:REPHRASES": [REPHRASED_BY],
            },
        ),
        content=content_of(rephrases_file),
        settings=lambda wildcards: as_json(
            **probe_settings(wildcards),
            **learner_settings(wildcards),
            **picked(DYNAMICS, Sampling),
            **probe_file_settings(),
            rephrases=bool(REPHRASED_BY),
        ),
        rephrases=lambda wildcards, input: ["--rephrases", input.rephrases] if input.rephrases else [],
        files=lambda wildcards, input: ["--files", *input.files] if input.files else [],
    shell:
        "python -m gradatlas build-probes --pairs {input.pairs:q} --model {input.model:q} {params.rephrases:q}"
        " {params.files:q} --settings {params.settings:q} --threads {threads} --output {output:q} > {log:q} 2>&1"


rule generate_start:
    """Write the free responses of the model that the runs start from, once for all of them."""
    input:
        model=start_of_probes,
        weights=lambda wildcards: weights_of(PLAN.start),
        pairs="results/dynamics/{pairs}/pairs.parquet",
    output:
        f"{SEED_DIR}/start.generations.parquet",
    log:
        "logs/generate_start/{pairs}/{model}/seed_{seed}.log",
    priority: 30
    conda:
        "../../environment.yml"
    threads: lambda wildcards: STUDY.learners[wildcards.model]["threads"]
    resources:
        gpu=learner_gpu,
        mem_mb=model_memory("model", DYNAMICS, "generate_batch_tokens"),
        runtime=time_limit("model", answering_work),
        batch_tokens=lambda wildcards, attempt: max(1, DYNAMICS["generate_batch_tokens"] >> (attempt - 1)),
    params:
        code=code_digest("finetuning.jobs:generate_start"),
        settings=lambda wildcards: as_json(
            **learner_settings(wildcards), **generate_settings(), seed=int(wildcards.seed)
        ),
    shell:
        "python -m gradatlas generate-start --model {input.model:q} --pairs {input.pairs:q} --settings {params.settings:q}"
        " --threads {threads} --batch-tokens {resources.batch_tokens} --output {output:q} > {log:q} 2>&1"


rule finetune:
    """Finetune one run of the sheet, with evaluations on the probes."""
    input:
        init=start_of_run,
        weights=lambda wildcards: weights_of(PLAN.runs[wildcards.run]["init"]),
        generations=start_generations,
        pairs="results/dynamics/{pairs}/pairs.parquet",
        probes=lambda wildcards: [f"{SEED_DIR}/probes.parquet"] if PLAN.runs[wildcards.run]["watched"] else [],
        judge=lambda wildcards: [f"resources/models/{name}.json" for name in STUDY.judges if is_ranked(wildcards)],
    output:
        dynamics=f"{SEED_DIR}/{{run}}/dynamics.parquet",
        generations=f"{SEED_DIR}/{{run}}/generations.parquet",
        training=f"{SEED_DIR}/{{run}}/training.parquet",
        status=f"{SEED_DIR}/{{run}}/status.json",
        # For people and the manifest: no rule takes it as input.
        machine=f"{SEED_DIR}/{{run}}/machine.json",
        # The card represents the folder model/, whose modification time does not depend on its content.
        model=f"{SEED_DIR}/{{run}}/model.json",
        weights=WEIGHTS,
        snapshots=SNAPSHOTS,
    log:
        "logs/finetune/{pairs}/{model}/seed_{seed}/{run}.log",
    priority: 30
    conda:
        "../../environment.yml"
    threads: lambda wildcards: STUDY.learners[wildcards.model]["threads"] * DYNAMICS["processes"]
    resources:
        gpu=lambda wildcards: learner_gpu(wildcards) * DYNAMICS["processes"],
        # Its processes exchange gradients within one node.
        nodes=1,
        mem_mb=model_memory("init", DYNAMICS, training=run_of),
        runtime=time_limit("init", training_work),
        disk_mb=training_disk,
        # Not a param: how much is evaluated at once makes nothing stale.
        batch_tokens=lambda wildcards, attempt: max(1, STUDY.config["batch_tokens"] >> (attempt - 1)),
        generate_batch_tokens=lambda wildcards, attempt: max(1, DYNAMICS["generate_batch_tokens"] >> (attempt - 1)),
        checkpoint_every=DYNAMICS["checkpoint_every"],
        requests=lambda wildcards: REQUESTS,
    params:
        code=code_digest(
            "finetuning.jobs:finetune",
            only=lambda wildcards: {
                "finetuning.losses:LOSSES": [PLAN.runs[wildcards.run]["loss"]],
                "finetuning.jobs:JUDGES": [judge_settings()["judge"]] if is_ranked(wildcards) else [],
            },
        ),
        settings=lambda wildcards: as_json(
            **run_settings(wildcards),
            **learner_settings(wildcards),
            **generate_settings(PLAN.runs[wildcards.run]["watched"]),
            **ranking_settings(wildcards),
            processes=DYNAMICS["processes"],
        ),
        probes=lambda wildcards, input: ["--probes", input.probes] if input.probes else [],
        generations=lambda wildcards, input: ["--generations", input.generations] if input.generations else [],
        judge=lambda wildcards, input: ["--judge-model", *input.judge] if input.judge else [],
        kept="results/journal/generated/{pairs}.{model}.{seed}.{run}.ranked.jsonl",
        folder=lambda wildcards, output: os.path.dirname(output.status),
        journal="results/journal/dynamics/{pairs}/{model}/seed_{seed}/{run}",
    shell:
        "python -m gradatlas finetune --init {input.init:q} --pairs {input.pairs:q} {params.probes:q}"
        " {params.generations:q} {params.judge:q} --kept {params.kept:q} --requests {resources.requests:q}"
        " --output {params.folder:q} --journal {params.journal:q} --settings {params.settings:q} --threads {threads}"
        " --batch-tokens {resources.batch_tokens} --generate-batch-tokens {resources.generate_batch_tokens}"
        " --checkpoint-every {resources.checkpoint_every} > {log:q} 2>&1"


rule check_step:
    """Compare one step of SGD with its first-order prediction, on the model that the runs start from."""
    input:
        model=start_of_probes,
        weights=lambda wildcards: weights_of(PLAN.start),
        pairs="results/dynamics/{pairs}/pairs.parquet",
        probes=f"{SEED_DIR}/probes.parquet",
    output:
        f"{SEED_DIR}/one_step.parquet",
    log:
        "logs/check_step/{pairs}/{model}/seed_{seed}.log",
    conda:
        "../../environment.yml"
    threads: lambda wildcards: STUDY.learners[wildcards.model]["threads"]
    resources:
        # In float64, on the CPU.
        mem_mb=model_memory("model", DYNAMICS, training=run_of, dtype="float64"),
        runtime=lambda wildcards: model_runtime([STUDY.learners[wildcards.model]], 240),
    params:
        code=code_digest("kernels.jobs:check_step"),
        settings=lambda wildcards: as_json(
            **picked(ONE_STEP, OneStep),
            **picked(DYNAMICS, Window),
            seed=int(wildcards.seed),
            trust_remote_code=STUDY.learners[wildcards.model]["trust_remote_code"],
        ),
    shell:
        "python -m gradatlas check-step --model {input.model:q} --pairs {input.pairs:q} --probes {input.probes:q}"
        " --settings {params.settings:q} --threads {threads} --output {output:q} > {log:q} 2>&1"


rule summarise_dynamics:
    """Summarise one model's and seed's runs over probes."""
    input:
        collect(f"{SEED_DIR}/{{run}}/dynamics.parquet", run=PLAN.watched, allow_missing=True),
    output:
        "results/statistics/dynamics/{pairs}/{model}/seed_{seed}.parquet",
    log:
        "logs/summarise_dynamics/{pairs}/{model}/seed_{seed}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        code=code_digest("statistics.jobs:summarise_dynamics"),
        settings=lambda wildcards: as_json(
            runs=PLAN.watched, starts=run_starts(), draws=STUDY.config["bootstrap"], seed=STUDY.config["seed"]
        ),
    shell:
        "python -m gradatlas summarise-dynamics --model {wildcards.model} --dynamics {input:q}"
        " --settings {params.settings:q} --output {output:q} > {log:q} 2>&1"


rule draw_dynamics:
    """Draw one model's and seed's runs, and the check of one step."""
    input:
        curves="results/statistics/dynamics/{pairs}/{model}/seed_{seed}.parquet",
        tables=collect(
            f"{SEED_DIR}/{{run}}/{{table}}.parquet",
            run=PLAN.watched,
            table=["dynamics", "training"],
            allow_missing=True,
        ),
        one_step=[f"{SEED_DIR}/one_step.parquet"] if ONE_STEP["updates"] else [],
        kernels=collect(
            f"{SEED_DIR}/{{run}}/{{table}}.parquet",
            run=FOLLOWED_RUNS,
            table=["budget", "kernels", "kernel_means", "entanglement"],
            allow_missing=True,
        ),
    output:
        folder=report(
            directory("results/figures/dynamics/{pairs}/{model}/seed_{seed}"),
            patterns=["{kind}.svg"],
            caption="../report/dynamics.rst",
            category="Learning dynamics",
            subcategory="{model}, seed {seed}",
            labels={"pairs": "{pairs}", "figure": "{kind}"},
        ),
        digest="results/figures/dynamics/{pairs}/{model}/seed_{seed}.sha256",
    log:
        "logs/draw_dynamics/{pairs}/{model}/seed_{seed}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        code=code_digest("figures.jobs:draw_dynamics"),
        settings=lambda wildcards: as_json(runs=watched_rows(), followed=FOLLOWED_RUNS),
        # With a folder per run below it.
        folder=lambda wildcards, input: os.path.dirname(os.path.dirname(input.tables[0])),
        one_step=lambda wildcards, input: ["--one-step", input.one_step] if input.one_step else [],
        title=learner_title,
        formats=STUDY.config["formats"],
    shell:
        "python -m gradatlas draw-dynamics --curves {input.curves:q} --tables {params.folder:q} {params.one_step:q}"
        " --settings {params.settings:q} --title={params.title:q} --formats {params.formats}"
        " --output {output.folder:q} > {log:q} 2>&1"


rule draw_seeds:
    """Draw what all seeds of one model's runs show together."""
    input:
        collect("results/statistics/dynamics/{{pairs}}/{{model}}/seed_{seed}.parquet", seed=DYNAMICS["seeds"]),
    output:
        folder=report(
            directory("results/figures/dynamics/{pairs}/{model}/seeds"),
            patterns=["{kind}.svg"],
            caption="../report/dynamics.rst",
            category="Learning dynamics",
            subcategory="{model}, over seeds",
            labels={"pairs": "{pairs}", "figure": "{kind}"},
        ),
        digest="results/figures/dynamics/{pairs}/{model}/seeds.sha256",
    log:
        "logs/draw_seeds/{pairs}/{model}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        code=code_digest("figures.jobs:draw_seeds"),
        settings=lambda wildcards: as_json(runs=watched_rows()),
        title=learner_title,
        formats=STUDY.config["formats"],
    shell:
        "python -m gradatlas draw-seeds --curves {input:q} --settings {params.settings:q}"
        " --title={params.title:q} --formats {params.formats} --output {output.folder:q} > {log:q} 2>&1"


# Empty where nothing is watched.
DYNAMICS_TABLE = ["results/tables/dynamics.csv"] if PLAN.watched else []
# Empty where no run is judged against another.
JUDGED = DYNAMICS["judge"] and DYNAMICS["generate_prompts"] and any(each["baselines"] for each in judged_runs())
WIN_RATES = ["results/tables/win_rates.csv"] if JUDGED else []


rule write_dynamics_table:
    """Write all runs from start to end as a table, beside published numbers."""
    input:
        curves=collect(
            "results/statistics/dynamics/{pairs}/{model}/seed_{seed}.parquet",
            pairs=DYNAMICS["pairs"],
            model=STUDY.learners,
            seed=DYNAMICS["seeds"],
        ),
        published=shipped("config", "published_curves.tsv"),
    output:
        report(
            "results/tables/dynamics.csv",
            caption="../report/dynamics_table.rst",
            category="Learning dynamics",
            subcategory="Tables",
            labels={"table": "Runs from start to end"},
        ),
        collect("results/tables/dynamics.{format}", format=["parquet", "md", "tex"]),
    log:
        "logs/write_dynamics_table.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code_digest("figures.jobs:write_dynamics_table"),
        settings=lambda wildcards: as_json(runs=watched_rows(), titles=titles(STUDY.learners)),
        pairs=DYNAMICS["pairs"],
        stem=lambda wildcards, output: os.path.splitext(output[0])[0],
    shell:
        "python -m gradatlas write-dynamics-table --pairs {params.pairs:q} --curves {input.curves:q}"
        " --published {input.published:q} --settings {params.settings:q} --output {params.stem:q} > {log:q} 2>&1"


DYNAMICS_FIGURES = collect(
    [
        "results/figures/dynamics/{pairs}/{model}/seed_{seed}",
        *(["results/figures/generations/{pairs}/{model}/seed_{seed}"] if DYNAMICS["generate_prompts"] else []),
    ],
    pairs=DYNAMICS["pairs"],
    model=STUDY.learners,
    seed=DYNAMICS["seeds"],
) + collect(
    "results/figures/dynamics/{pairs}/{model}/seeds",
    pairs=DYNAMICS["pairs"],
    model=STUDY.learners if len(DYNAMICS["seeds"]) > 1 else [],
)

RUN_STATUSES = collect(
    f"{SEED_DIR}/{{run}}/status.json",
    pairs=DYNAMICS["pairs"],
    model=STUDY.learners,
    seed=DYNAMICS["seeds"],
    run=PLAN.runs,
)


# What the manifest is about, for each pairs, model and seed.
DYNAMICS_TABLES = [
    *([f"{SEED_DIR}/probes.parquet"] if PLAN.watched else []),
    *([f"{SEED_DIR}/one_step.parquet"] if PLAN.watched and ONE_STEP["updates"] else []),
    *collect(
        [path for path in rules.finetune.output if path.endswith((".parquet", "status.json"))],
        run=PLAN.runs,
        allow_missing=True,
    ),
    *([f"{SEED_DIR}/generation_scores.parquet"] if DYNAMICS["generate_prompts"] and PLAN.watched else []),
    *(
        [f"{SEED_DIR}/judgements.parquet"]
        if DYNAMICS["generate_prompts"] and PLAN.watched and DYNAMICS["judge"]
        else []
    ),
]


rule dynamics:
    """The second study: every chosen run of every chosen model and seed, summarised, judged and drawn."""
    input:
        DYNAMICS_FIGURES,
        DYNAMICS_TABLE,
        WIN_RATES,
    localrule: True
