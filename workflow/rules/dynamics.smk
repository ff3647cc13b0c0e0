"""Learning dynamics: finetuning watched by probes, and one step held against its first-order prediction.

needs  a model's card; pairs of the miniature's grammar, of a file, or of the hub (config/pairs/); config/runs.tsv
makes  results/dynamics/{pairs}/pairs.parquet; below it, by model and seed, probes.parquet, one_step.parquet and a folder a
       run: dynamics.parquet (every probe at every evaluation), generations.parquet (free responses), training.parquet,
       status.json, machine.json, model/ and its card model.json; results/figures/dynamics/, results/tables/dynamics.*
why    one rule for all runs: what a run is stands in its row of the sheet
"""

ONE_STEP = DYNAMICS["one_step"]


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
        code=code_digest("workflow.scripts.fetch_dataset"),
        source=lambda wildcards: PLAN.mapping["source"],
        name=lambda wildcards: PLAN.mapping["name"],
        folder=lambda wildcards: PLAN.mapping["folder"],
        revision=lambda wildcards: PLAN.mapping["revision"],
        rows=lambda wildcards: PLAN.mapping[f"{wildcards.split}_split"],
    shell:
        "python -m workflow.scripts.fetch_dataset --dataset {wildcards.pairs} --source {params.source:q}"
        " --name={params.name:q} --folder={params.folder:q} --revision={params.revision:q} --split {params.rows:q}"
        " --mirror={resources.mirror:q} --where config/pairs/{wildcards.pairs}.yaml --output {output:q} > {log:q} 2>&1"


rule build_pairs:
    """Build the preference pairs."""
    input:
        pair_rows,
    output:
        "results/dynamics/{pairs}/pairs.parquet",
    log:
        "logs/build_pairs/{pairs}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        code=code_digest("workflow.scripts.build_pairs"),
        # A function: the mapping's braces are no wildcards.
        arguments=lambda wildcards: pairs_arguments(),
        rows=lambda wildcards, input: ["--train-rows", input[0], "--held-out-rows", input[1]] if input else [],
        train=DYNAMICS["train"],
        held_out=DYNAMICS["held_out"],
        seed=STUDY.config["seed"],
    shell:
        "python -m workflow.scripts.build_pairs --name {wildcards.pairs} {params.arguments:q} {params.rows:q}"
        " --train {params.train} --held-out {params.held_out} --seed {params.seed} --output {output:q} > {log:q} 2>&1"


rule write_rephrases:
    """Ask a model for the rephrases of probed responses; each answer is kept."""
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
        gpu=int(any(row["device"] != "cpu" for row in STUDY.writers.values())),
        mem_mb=48000 if any(row["scope"] != "miniature" for row in STUDY.writers.values()) else 3000,
        runtime=720,
        # Not params: how politely an endpoint was asked makes nothing stale.
        requests_per_minute=GENERATE["requests_per_minute"],
        parallel=GENERATE["parallel"],
        attempts=GENERATE["attempts"],
        answer_timeout=GENERATE["timeout"],
        key_variable=GENERATE["key_variable"],
    params:
        code=code_digest("workflow.scripts.write_rephrases"),
        model=lambda wildcards, input: GENERATE["model"] if GENERATE["endpoint"] else input.model,
        local=local_writer,
        endpoint=lambda wildcards: GENERATE["endpoint"],
        max_tokens=GENERATE["max_tokens"],
        temperature=GENERATE["temperature"],
        probes=DYNAMICS["probes"],
        held_out=DYNAMICS["held_out_probes"],
        kept="results/journal/generated/{pairs}.rephrases.jsonl",
    shell:
        "python -m workflow.scripts.write_rephrases --pairs {input.pairs:q} --train {params.probes} --held-out"
        " {params.held_out} --seed {wildcards.seed} --model {params.model:q} {params.local:q}"
        " --endpoint={params.endpoint:q} --key-variable {resources.key_variable:q} --max-tokens {params.max_tokens}"
        " --temperature {params.temperature} --threads {threads} --requests-per-minute {resources.requests_per_minute}"
        " --parallel {resources.parallel} --attempts {resources.attempts} --timeout {resources.answer_timeout}"
        " --kept {params.kept:q} --output {output:q} > {log:q} 2>&1"


rule build_probes:
    """Build the responses that the runs of one model and seed are watched by."""
    input:
        pairs="results/dynamics/{pairs}/pairs.parquet",
        model=start_of_probes,
        rephrases=rephrases_file,
    output:
        f"{ROOM}/probes.parquet",
    log:
        "logs/build_probes/{pairs}/{model}/seed_{seed}.log",
    conda:
        "../../environment.yml"
    threads: lambda wildcards: STUDY.learners[wildcards.model]["threads"]
    resources:
        gpu=learner_gpu,
        mem_mb=learner_memory,
        runtime=60,
    params:
        code=code_digest("workflow.scripts.build_probes"),
        rephrases=lambda wildcards, input: (
            ["--rephrases", input.rephrases] if input.rephrases else [] if PLAN.rephrases else ["--no-rephrases"]
        ),
        probes=DYNAMICS["probes"],
        held_out=DYNAMICS["held_out_probes"],
        max_length=DYNAMICS["max_length"],
        room=DYNAMICS["max_new_tokens"],
        device=device_arguments,
    shell:
        "python -m workflow.scripts.build_probes --pairs {input.pairs:q} --model {input.model:q} {params.rephrases:q}"
        " --train {params.probes} --held-out {params.held_out} --seed {wildcards.seed} --max-length {params.max_length}"
        " --max-new-tokens {params.room} {params.device} --threads {threads} --output {output:q} > {log:q} 2>&1"


rule finetune:
    """Finetune one run of the sheet, watched by probes."""
    input:
        init=start_of_run,
        pairs="results/dynamics/{pairs}/pairs.parquet",
        probes=lambda wildcards: [f"{ROOM}/probes.parquet"] if PLAN.runs[wildcards.run]["watched"] else [],
    output:
        dynamics=f"{ROOM}/{{run}}/dynamics.parquet",
        generations=f"{ROOM}/{{run}}/generations.parquet",
        training=f"{ROOM}/{{run}}/training.parquet",
        status=f"{ROOM}/{{run}}/status.json",
        # For people and the manifest: no rule takes it as input.
        machine=f"{ROOM}/{{run}}/machine.json",
        # The card stands for the folder model/: a folder's times say nothing of its content.
        model=f"{ROOM}/{{run}}/model.json",
    log:
        "logs/finetune/{pairs}/{model}/seed_{seed}/{run}.log",
    benchmark:
        "logs/benchmarks/finetune/{pairs}/{model}/seed_{seed}/{run}.tsv"
    conda:
        "../../environment.yml"
    threads: lambda wildcards: STUDY.learners[wildcards.model]["threads"] * DYNAMICS["processes"]
    resources:
        gpu=lambda wildcards: learner_gpu(wildcards) * DYNAMICS["processes"],
        mem_mb=lambda wildcards: learner_memory(wildcards) * DYNAMICS["processes"],
        runtime=1440,
    params:
        code=code_digest("workflow.scripts.finetune"),
        run=run_arguments,
        probes=lambda wildcards, input: ["--probes", input.probes] if input.probes else [],
        prompts=lambda wildcards: DYNAMICS["generate_prompts"] if PLAN.runs[wildcards.run]["watched"] else 0,
        draws=DYNAMICS["generate_draws"],
        folder=lambda wildcards, output: os.path.dirname(output.status),
        journal="results/journal/dynamics/{pairs}/{model}/seed_{seed}/{run}",
        max_length=DYNAMICS["max_length"],
        room=DYNAMICS["max_new_tokens"],
        batch_tokens=STUDY.config["batch_tokens"],
        device=device_arguments,
        processes=DYNAMICS["processes"],
    shell:
        "python -m workflow.scripts.finetune --name {wildcards.run} --init {input.init:q} --pairs {input.pairs:q}"
        " {params.probes:q} --output {params.folder:q} --journal {params.journal:q} {params.run} --seed {wildcards.seed}"
        " --prompts {params.prompts} --draws {params.draws} --max-length {params.max_length}"
        " --max-new-tokens {params.room} --batch-tokens {params.batch_tokens} {params.device}"
        " --processes {params.processes} --threads {threads} > {log:q} 2>&1"


rule check_step:
    """Hold one plain step against its first-order prediction, on the model that the runs start from."""
    input:
        model=start_of_probes,
        pairs="results/dynamics/{pairs}/pairs.parquet",
        probes=f"{ROOM}/probes.parquet",
    output:
        f"{ROOM}/one_step.parquet",
    log:
        "logs/check_step/{pairs}/{model}/seed_{seed}.log",
    benchmark:
        "logs/benchmarks/check_step/{pairs}/{model}/seed_{seed}.tsv"
    conda:
        "../../environment.yml"
    threads: lambda wildcards: STUDY.learners[wildcards.model]["threads"]
    resources:
        # In float64, on the CPU.
        mem_mb=learner_memory,
        runtime=240,
    params:
        code=code_digest("workflow.scripts.check_step"),
        updates=ONE_STEP["updates"],
        probes=ONE_STEP["probes"],
        change=ONE_STEP["change"],
        halvings=ONE_STEP["halvings"],
        max_length=DYNAMICS["max_length"],
        trust=code_arguments,
    shell:
        "python -m workflow.scripts.check_step --model {input.model:q} --pairs {input.pairs:q} --probes {input.probes:q}"
        " --updates {params.updates} --probed {params.probes} --change {params.change} --halvings {params.halvings}"
        " --seed {wildcards.seed} --max-length {params.max_length} {params.trust} --threads {threads} --output {output:q}"
        " > {log:q} 2>&1"


rule summarise_dynamics:
    """Summarise one model's and seed's runs over probes."""
    input:
        collect(f"{ROOM}/{{run}}/dynamics.parquet", run=PLAN.watched, allow_missing=True),
    output:
        "results/statistics/dynamics/{pairs}/{model}/seed_{seed}.parquet",
    log:
        "logs/summarise_dynamics/{pairs}/{model}/seed_{seed}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        code=code_digest("workflow.scripts.summarise_dynamics"),
        runs=lambda wildcards: run_parts(wildcards, lambda run: f"{ROOM}/{run}/dynamics.parquet"),
        draws=STUDY.config["bootstrap"],
        seed=STUDY.config["seed"],
    shell:
        "python -m workflow.scripts.summarise_dynamics --model {wildcards.model} {params.runs:q} --draws {params.draws}"
        " --seed {params.seed} --output {output:q} > {log:q} 2>&1"


rule draw_dynamics:
    """Draw one model's and seed's runs, and the check of one step."""
    input:
        curves="results/statistics/dynamics/{pairs}/{model}/seed_{seed}.parquet",
        tables=collect(
            f"{ROOM}/{{run}}/{{table}}.parquet", run=PLAN.watched, table=["dynamics", "training"], allow_missing=True
        ),
        one_step=[f"{ROOM}/one_step.parquet"] if ONE_STEP["updates"] else [],
    output:
        report(
            directory("results/figures/dynamics/{pairs}/{model}/seed_{seed}"),
            patterns=["{kind}.svg"],
            caption="../report/dynamics.rst",
            category="Learning dynamics",
            subcategory="{model}, seed {seed}",
            labels={"pairs": "{pairs}", "figure": "{kind}"},
        ),
        "results/figures/dynamics/{pairs}/{model}/seed_{seed}.sha256",
    log:
        "logs/draw_dynamics/{pairs}/{model}/seed_{seed}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        code=code_digest("workflow.scripts.draw_dynamics"),
        # Rows of the sheet, in its order; functions, since their braces are no wildcards.
        runs=lambda wildcards: watched_rows(),
        folder=lambda wildcards: ROOM.format(**wildcards),
        one_step=lambda wildcards, input: ["--one-step", input.one_step] if input.one_step else [],
        title=learner_title,
        formats=STUDY.config["formats"],
    shell:
        "python -m workflow.scripts.draw_dynamics --curves {input.curves:q} --tables {params.folder:q} {params.one_step:q}"
        " --runs {params.runs:q} --title {params.title:q} --formats {params.formats}"
        " --output {output[0]:q} > {log:q} 2>&1"


rule draw_seeds:
    """Draw what all seeds of one model's runs show together."""
    input:
        collect("results/statistics/dynamics/{{pairs}}/{{model}}/seed_{seed}.parquet", seed=DYNAMICS["seeds"]),
    output:
        report(
            directory("results/figures/dynamics/{pairs}/{model}/seeds"),
            patterns=["{kind}.svg"],
            caption="../report/dynamics_seeds.rst",
            category="Learning dynamics",
            subcategory="{model}, over seeds",
            labels={"pairs": "{pairs}", "figure": "{kind}"},
        ),
        "results/figures/dynamics/{pairs}/{model}/seeds.sha256",
    log:
        "logs/draw_seeds/{pairs}/{model}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        code=code_digest("workflow.scripts.draw_seeds"),
        runs=lambda wildcards: watched_rows(),
        title=learner_title,
        formats=STUDY.config["formats"],
    shell:
        "python -m workflow.scripts.draw_seeds --curves {input:q} --runs {params.runs:q}"
        " --title {params.title:q} --formats {params.formats} --output {output[0]:q} > {log:q} 2>&1"


# Empty where nothing is watched.
DYNAMICS_TABLE = ["results/tables/dynamics.csv"] if PLAN.watched else []
PUBLISHED_CURVES = os.path.normpath(os.path.join(os.path.relpath(workflow.basedir), "config", "published_curves.tsv"))


rule write_dynamics_table:
    """Write all runs from start to end as a table, beside published numbers."""
    input:
        curves=collect(
            "results/statistics/dynamics/{pairs}/{model}/seed_{seed}.parquet",
            pairs=DYNAMICS["pairs"],
            model=STUDY.learners,
            seed=DYNAMICS["seeds"],
        ),
        published=PUBLISHED_CURVES,
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
        code=code_digest("workflow.scripts.write_dynamics_table"),
        # Functions: their braces are no wildcards.
        curves=lambda wildcards, input: [
            part for path in input.curves for part in ("--curves", DYNAMICS["pairs"], path)
        ],
        runs=lambda wildcards: watched_rows(),
        titles=lambda wildcards: json.dumps(
            {name: row["title"] for name, row in STUDY.learners.items() if row["title"]}
        ),
    shell:
        "python -m workflow.scripts.write_dynamics_table {params.curves:q} --runs {params.runs:q}"
        " --titles {params.titles:q} --published {input.published:q} --tables results/tables/dynamics > {log:q} 2>&1"


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

# What the page shows of the second study: folders with an index.json each.
SECOND_FIGURES = DYNAMICS_FIGURES + ["results/figures/toys"] * SHOW_TOYS
RUN_STATUSES = collect(
    f"{ROOM}/{{run}}/status.json",
    pairs=DYNAMICS["pairs"],
    model=STUDY.learners,
    seed=DYNAMICS["seeds"],
    run=PLAN.runs,
)


# What the manifest is about, for each pairs, model and seed.
DYNAMICS_TABLES = [
    *([f"{ROOM}/probes.parquet"] if PLAN.watched else []),
    *([f"{ROOM}/one_step.parquet"] if PLAN.watched and ONE_STEP["updates"] else []),
    *collect(
        [path for path in rules.finetune.output if path.endswith((".parquet", "status.json"))],
        run=PLAN.runs,
        allow_missing=True,
    ),
]


rule dynamics:
    """The second study: every chosen run of every chosen model and seed, summarised, judged and drawn."""
    input:
        DYNAMICS_FIGURES,
        DYNAMICS_TABLE,
    localrule: True
