"""Claims of the second study: the numbers that they are about, with no verdict yet.

needs  the runs of all seeds and what was made beside them, the toys, and config/claims_dynamics.tsv (an input: another
       threshold is another result)
makes  results/evidence/dynamics/{pairs}/{model}.parquet and toys.parquet
why    a claim about training rests on seeds, so all of a model's are gathered at once; the verdicts are claims.smk's
"""

# Of a seed's folder, the tables beside the runs that this config makes.
SEED_TABLES = {
    name: f"{ROOM}/{name}.parquet"
    for name, made in {
        "one_step": ONE_STEP["updates"],
        "generation_scores": DYNAMICS["generate_prompts"],
        "judgements": DYNAMICS["generate_prompts"] and JUDGE,
    }.items()
    if made
}


rule gather_dynamics_evidence:
    """Measure what every claim of the second study is about, on one model's runs of all seeds."""
    input:
        runs=lambda wildcards: collect(
            f"{ROOM}/{{run}}/dynamics.parquet", **wildcards, seed=DYNAMICS["seeds"], run=PLAN.watched
        ),
        tables=lambda wildcards: collect([*SEED_TABLES.values()], **wildcards, seed=DYNAMICS["seeds"]),
        claims=DYNAMICS_CLAIMS_SHEET,
        schema=DYNAMICS_CLAIMS_SCHEMA,
    output:
        "results/evidence/dynamics/{pairs}/{model}.parquet",
    log:
        "logs/gather_dynamics_evidence/{pairs}/{model}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        code=code_digest("workflow.scripts.gather_dynamics_evidence"),
        kind=lambda wildcards: STUDY.learners[wildcards.model]["kind"],
        tables=lambda wildcards: evidence_arguments(wildcards, SEED_TABLES),
        # A function: its braces are no wildcards.
        runs=lambda wildcards: watched_rows(),
        draws=STUDY.config["bootstrap"],
        seed=STUDY.config["seed"],
    shell:
        "python -m workflow.scripts.gather_dynamics_evidence --pairs {wildcards.pairs} --model {wildcards.model}"
        " --kind {params.kind} {params.tables:q} --runs {params.runs:q} --claims {input.claims:q} --schema {input.schema:q}"
        " --draws {params.draws} --seed {params.seed} --output {output:q} > {log:q} 2>&1"


rule gather_toy_evidence:
    """Measure what the claims on toys, and on the losses' formulas, are about."""
    input:
        toys=collect("results/dynamics/toys/toy_{table}.parquet", table=sum(TOY_TABLES.values(), [])),
        claims=DYNAMICS_CLAIMS_SHEET,
        schema=DYNAMICS_CLAIMS_SCHEMA,
    output:
        "results/evidence/dynamics/toys.parquet",
    log:
        "logs/gather_toy_evidence.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        code=code_digest("workflow.scripts.gather_dynamics_evidence"),
        folder=lambda wildcards, input: os.path.dirname(input.toys[0]),
        images=TOY_IMAGES,
    shell:
        "python -m workflow.scripts.gather_dynamics_evidence --toys {params.folder:q} --images {params.images:q} --claims {input.claims:q}"
        " --schema {input.schema:q} --output {output:q} > {log:q} 2>&1"
