"""Claims of the second study: the numbers that they are about, with no verdict yet.

needs  the runs of all seeds and what was made beside them, the toys, and config/claims_dynamics.tsv (params: another
       threshold is another result)
makes  results/evidence/dynamics/{pairs}/{model}.parquet and toys.parquet
why    a claim about training rests on seeds, so all of a model's are gathered at once; the verdicts are claims.smk's
"""

# Claims on toys, and on the losses' formulas; and the others.
ON_TOYS = [row for row in DYNAMICS_CLAIMS if row["table"] in ("squeeze", "clip", "images", "formulas")]
ON_RUNS = [row for row in DYNAMICS_CLAIMS if row not in ON_TOYS]


rule gather_dynamics_evidence:
    """Measure what every claim of the second study is about, on one model's runs of all seeds."""
    input:
        runs=lambda wildcards: collect(
            f"{SEED_DIR}/{{run}}/dynamics.parquet", **wildcards, seed=DYNAMICS["seeds"], run=PLAN.watched
        ),
        one_step=seed_tables("one_step", ONE_STEP["updates"]),
        generation_scores=seed_tables("generation_scores", DYNAMICS["generate_prompts"]),
        judgements=seed_tables("judgements", DYNAMICS["generate_prompts"] and JUDGE),
        budget=followed_tables("budget"),
        kernels=followed_tables("kernels"),
        entanglement=followed_tables("entanglement"),
    output:
        "results/evidence/dynamics/{pairs}/{model}.parquet",
    log:
        "logs/gather_dynamics_evidence/{pairs}/{model}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(4000),
        runtime=60,
        sheet=DYNAMICS_CLAIMS_SHEET,
    params:
        code=code_digest(
            "claims.jobs:gather_dynamics_evidence",
            only={
                "claims.dynamics.exact:EXACT": [row["claim"] for row in ON_RUNS],
                "finetuning.losses:LOSSES": sorted({row["loss"] for row in watched_rows()}),
            },
        ),
        claims=lambda wildcards: of_evidence(ON_RUNS),
        settings=lambda wildcards: as_json(
            kind=STUDY.learners[wildcards.model]["kind"],
            seeds=DYNAMICS["seeds"],
            # A title changes no number.
            runs=[{key: row[key] for key in row if key != "title"} for row in watched_rows()],
            draws=STUDY.config["bootstrap"],
            seed=STUDY.config["seed"],
        ),
    shell:
        "python -m gradatlas gather-dynamics-evidence --pairs {wildcards.pairs} --model {wildcards.model}"
        " --runs {input.runs:q} --one-step {input.one_step:q} --generation-scores {input.generation_scores:q}"
        " --judgements {input.judgements:q} --budget {input.budget:q} --kernels {input.kernels:q}"
        " --entanglement {input.entanglement:q} --claims {resources.sheet:q}"
        " --settings {params.settings:q} --output {output:q} > {log:q} 2>&1"


rule gather_toy_evidence:
    """Measure what the claims on toys, and on the losses' formulas, are about."""
    input:
        toys=collect("results/dynamics/toys/toy_{table}.parquet", table=sum(TOY_TABLES.values(), [])),
    output:
        "results/evidence/dynamics/toys.parquet",
    log:
        "logs/gather_toy_evidence.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(2000),
        runtime=20,
        sheet=DYNAMICS_CLAIMS_SHEET,
    params:
        code=code_digest(
            "claims.jobs:gather_toy_evidence",
            only={"claims.dynamics.exact:EXACT": [row["claim"] for row in ON_TOYS]},
        ),
        claims=lambda wildcards: of_evidence(ON_TOYS),
        folder=lambda wildcards, input: os.path.dirname(input.toys[0]),
        images=lambda wildcards: TOY_IMAGES,
    shell:
        "python -m gradatlas gather-toy-evidence --toys {params.folder:q} --images={params.images:q} --claims {resources.sheet:q}"
        " --output {output:q} > {log:q} 2>&1"
