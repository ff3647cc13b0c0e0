"""Judging: scores and judgements of the runs' free generations; off without them (dynamics.generate_prompts: 0).

needs  generations.parquet of every watched run; an oracle, an endpoint (its key in the environment of `snakemake`) or a
       reward model's card
makes  generation_scores.parquet and judgements.parquet by model and seed; results/statistics/generations/,
       results/figures/generations/, results/tables/win_rates.*
why    log-probabilities do not show whether a model's answers are better, or borrowed from other questions
"""

JUDGE = DYNAMICS["judge"]
GENERATED = f"{SEED_DIR}/{{run}}/generations.parquet"


rule score_generations:
    """Score every generation of one model's and seed's runs."""
    input:
        generations=collect(GENERATED, run=PLAN.watched, allow_missing=True),
        pairs="results/dynamics/{pairs}/pairs.parquet",
        model="resources/models/{model}.json",
    output:
        f"{SEED_DIR}/generation_scores.parquet",
    log:
        "logs/score_generations/{pairs}/{model}/seed_{seed}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        code=code_digest(
            "finetuning.jobs:score_generations",
            only={"finetuning.judging.scores:SCORERS": ["words" if PLAN.mapping else "grammar"]},
        ),
        settings=lambda wildcards: as_json(
            runs=PLAN.watched,
            oracle=not PLAN.mapping,
            trust_remote_code=STUDY.learners[wildcards.model]["trust_remote_code"],
        ),
    shell:
        "python -m gradatlas score-generations --generations {input.generations:q} --pairs {input.pairs:q}"
        " --model {input.model:q} --settings {params.settings:q} --output {output:q} > {log:q} 2>&1"


rule judge_generations:
    """Judge runs against their baselines, where the config names a judge."""
    input:
        generations=collect(GENERATED, run=PLAN.watched, allow_missing=True),
        scores=f"{SEED_DIR}/generation_scores.parquet",
        pairs="results/dynamics/{pairs}/pairs.parquet",
        judge=[f"resources/models/{name}.json" for name in STUDY.judges],
    output:
        f"{SEED_DIR}/judgements.parquet",
    log:
        "logs/judge_generations/{pairs}/{model}/seed_{seed}.log",
    # Nodes of a cluster may have no network.
    localrule: JUDGE == "endpoint"
    conda:
        "../../environment.yml"
    threads: next((row["threads"] for row in STUDY.judges.values()), 1)
    resources:
        gpu=gpus_of(STUDY.judges.values()),
        mem_mb=model_memory("judge", DYNAMICS),
        runtime=model_runtime(STUDY.judges.values(), 720),
        requests=lambda wildcards: REQUESTS,
    params:
        code=code_digest(
            "finetuning.jobs:judge_generations",
            only={"finetuning.jobs:JUDGES": [judge_settings()["judge"]] if JUDGE else []},
        ),
        settings=lambda wildcards: as_json(runs=judged_runs(), **judge_settings()),
        model=lambda wildcards, input: ["--model", *input.judge] if input.judge else [],
        kept=lambda wildcards: f"results/journal/generated/{wildcards.pairs}.{wildcards.model}.{wildcards.seed}.judge.jsonl",
    shell:
        "python -m gradatlas judge-generations --generations {input.generations:q} --scores {input.scores:q}"
        " --pairs {input.pairs:q} {params.model:q} --settings {params.settings:q}"
        " --requests {resources.requests:q} --threads {threads} --kept {params.kept:q} --output {output:q} > {log:q} 2>&1"


rule summarise_generations:
    """Summarise one model's and seed's generations over prompts."""
    input:
        scores=f"{SEED_DIR}/generation_scores.parquet",
        judgements=[f"{SEED_DIR}/judgements.parquet"] if JUDGE else [],
    output:
        "results/statistics/generations/{pairs}/{model}/seed_{seed}.parquet",
    log:
        "logs/summarise_generations/{pairs}/{model}/seed_{seed}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        code=code_digest("statistics.jobs:summarise_generations"),
        settings=lambda wildcards: as_json(
            starts=run_starts(), draws=STUDY.config["bootstrap"], seed=STUDY.config["seed"]
        ),
        judgements=lambda wildcards, input: ["--judgements", input.judgements] if input.judgements else [],
    shell:
        "python -m gradatlas summarise-generations --model {wildcards.model} --scores {input.scores:q}"
        " {params.judgements:q} --settings {params.settings:q} --output {output:q} > {log:q} 2>&1"


rule draw_generations:
    """Draw one model's and seed's generations along its runs."""
    input:
        curves="results/statistics/generations/{pairs}/{model}/seed_{seed}.parquet",
        published=shipped("config", "published_dynamics.tsv"),
    output:
        folder=report(
            directory("results/figures/generations/{pairs}/{model}/seed_{seed}"),
            patterns=["{kind}.svg"],
            caption="../report/dynamics.rst",
            category="Learning dynamics",
            subcategory="{model}, seed {seed}: free generations",
            labels={"pairs": "{pairs}", "figure": "{kind}"},
        ),
        digest="results/figures/generations/{pairs}/{model}/seed_{seed}.sha256",
    log:
        "logs/draw_generations/{pairs}/{model}/seed_{seed}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        code=code_digest("figures.jobs:draw_generations"),
        # Runs on the probed pairs alone have figures of their own kind.
        settings=lambda wildcards: as_json(runs=[row for row in watched_rows() if not row["probed"]] or watched_rows()),
        title=learner_title,
        formats=STUDY.config["formats"],
    shell:
        "python -m gradatlas draw-generations --curves {input.curves:q} --published {input.published:q}"
        " --settings {params.settings:q} --title={params.title:q} --formats {params.formats} --output {output.folder:q} > {log:q} 2>&1"


rule write_win_rates:
    """Write the win rates of all models and seeds as a table, beside the published ones."""
    input:
        curves=collect(
            "results/statistics/generations/{pairs}/{model}/seed_{seed}.parquet",
            pairs=DYNAMICS["pairs"],
            model=STUDY.learners,
            seed=DYNAMICS["seeds"],
        ),
        published=shipped("config", "published_dynamics.tsv"),
    output:
        report(
            "results/tables/win_rates.csv",
            caption="../report/win_rates.rst",
            category="Learning dynamics",
            subcategory="Tables",
            labels={"table": "Win rates"},
        ),
        collect("results/tables/win_rates.{format}", format=["parquet", "md", "tex"]),
    log:
        "logs/write_win_rates.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code_digest("figures.jobs:write_win_rates"),
        settings=lambda wildcards: as_json(
            runs=watched_rows(),
            titles=titles(STUDY.learners),
            epochs={row["run"]: epoch_of(row) for row in watched_rows()},
        ),
        pairs=DYNAMICS["pairs"],
        stem=lambda wildcards, output: os.path.splitext(output[0])[0],
    shell:
        "python -m gradatlas write-win-rates --pairs {params.pairs:q} --curves {input.curves:q}"
        " --published {input.published:q} --settings {params.settings:q} --output {params.stem:q} > {log:q} 2>&1"
