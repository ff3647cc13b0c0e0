"""Budgets and kernels: which block of the model moved which response along a run, and which responses move together.

needs  a run's models, from its start over its snapshots to its end; the probes of its model and seed
makes  beside each run of dynamics.kernels.runs: budget.parquet (by block, each probe's change from one model to the
       next), kernels.parquet (all pairs of responses), kernel_means.parquet (types by block) and entanglement.parquet
       (chosen and rejected of a prompt, by block)
why    jobs of their own: an edit here trains no run again
"""


rule measure_budget:
    """Measure each block's part of every probe's change along a run."""
    input:
        init=start_of_run,
        init_weights=lambda wildcards: weights_of(PLAN.runs[wildcards.run]["init"]),
        run=f"{SEED_DIR}/{{run}}/model.json",
        weights=lambda wildcards: weights_of(wildcards.run),
        status=f"{SEED_DIR}/{{run}}/status.json",
        # A folder's time says nothing; the run's card is the input that is compared.
        snapshots=ancient(f"{SEED_DIR}/{{run}}/snapshots"),
        probes=f"{SEED_DIR}/probes.parquet",
    output:
        f"{SEED_DIR}/{{run}}/budget.parquet",
    log:
        "logs/measure_budget/{pairs}/{model}/seed_{seed}/{run}.log",
    conda:
        "../../environment.yml"
    threads: lambda wildcards: STUDY.learners[wildcards.model]["threads"]
    resources:
        gpu=learner_gpu,
        mem_mb=along_memory,
        runtime=time_limit("init", following_work),
        batch_tokens=lambda wildcards, attempt: max(1, STUDY.config["batch_tokens"] >> (attempt - 1)),
    params:
        code=code_digest("kernels.jobs:measure_budget"),
        settings=lambda wildcards: as_json(**along_settings(wildcards)),
        folder=lambda wildcards, input: os.path.dirname(input.run),
    shell:
        "python -m gradatlas measure-budget --init {input.init:q} --folder {params.folder:q} --probes {input.probes:q}"
        " --settings {params.settings:q} --threads {threads} --batch-tokens {resources.batch_tokens}"
        " --output {output:q} > {log:q} 2>&1"


rule measure_kernels:
    """Measure the kernel of a run's probes at its start, its snapshots and its end, block by block."""
    input:
        init=start_of_run,
        init_weights=lambda wildcards: weights_of(PLAN.runs[wildcards.run]["init"]),
        run=f"{SEED_DIR}/{{run}}/model.json",
        weights=lambda wildcards: weights_of(wildcards.run),
        status=f"{SEED_DIR}/{{run}}/status.json",
        snapshots=ancient(f"{SEED_DIR}/{{run}}/snapshots"),
        probes=f"{SEED_DIR}/probes.parquet",
    output:
        **({"norms": f"{SEED_DIR}/{{run}}/kernel_norms.parquet"} if DYNAMICS["kernels"]["norms"] else {}),
        kernels=f"{SEED_DIR}/{{run}}/kernels.parquet",
        means=f"{SEED_DIR}/{{run}}/kernel_means.parquet",
        entanglement=f"{SEED_DIR}/{{run}}/entanglement.parquet",
    log:
        "logs/measure_kernels/{pairs}/{model}/seed_{seed}/{run}.log",
    conda:
        "../../environment.yml"
    threads: lambda wildcards: STUDY.learners[wildcards.model]["threads"]
    resources:
        gpu=learner_gpu,
        mem_mb=along_memory,
        runtime=time_limit("init", following_work),
        batch_tokens=lambda wildcards, attempt: max(1, STUDY.config["batch_tokens"] >> (attempt - 1)),
    params:
        code=code_digest("kernels.jobs:measure_kernels"),
        settings=lambda wildcards: as_json(**along_settings(wildcards)),
        norms=lambda wildcards, output: ["--norms", output.norms] if DYNAMICS["kernels"]["norms"] else [],
        folder=lambda wildcards, input: os.path.dirname(input.run),
        journal="results/journal/kernels/{pairs}/{model}/seed_{seed}/{run}",
    shell:
        "python -m gradatlas measure-kernels --init {input.init:q} --folder {params.folder:q} --probes {input.probes:q}"
        " --settings {params.settings:q} --threads {threads} --batch-tokens {resources.batch_tokens}"
        " --kernels {output.kernels:q} --means {output.means:q} --entanglement {output.entanglement:q}"
        " {params.norms:q} --journal {params.journal:q} > {log:q} 2>&1"
