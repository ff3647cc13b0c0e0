"""Toys: the smallest settings in which the claims of the learning-dynamics study can be watched.

needs  nothing; or images to classify, from a file or the hub (config key toys.images)
makes  results/dynamics/toys/toy_*.parquet, results/figures/toys/
why    a softmax and a small classifier show exactly, in seconds, what finetuning shows with noise
"""

TOYS = STUDY.config["toys"]
TOY_IMAGES = TOYS["images"]["source"]
HUB_IMAGES = not is_file(TOYS["images"])
TOY_TABLES = {
    "squeeze_softmax": ["squeeze", "squeeze_cases", "squeeze_sweeps"],
    "train_classifier": ["predictions", "kernels", "steps", "changes", "phases", "norms"],
    "clip_objective": ["clip"],
}


# Fetched from the hub, or a user's own file, or the files of a folder; none for the digits.
if HUB_IMAGES:
    TOY_FILES = f"resources/images/{TOY_IMAGES}.parquet"
elif os.path.isdir(TOY_IMAGES):
    TOY_FILES = sorted(str(path) for path in Path(TOY_IMAGES).rglob("*") if path.is_file())
else:
    TOY_FILES = [TOY_IMAGES] * os.path.exists(TOY_IMAGES)


rule fetch_images:
    """Fetch the rows of a hub dataset of images at its pinned revision."""
    output:
        TOY_FILES if HUB_IMAGES else "resources/images/none.parquet",
    log:
        "logs/fetch_images.log",
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        mirror=STUDY.config["mirror"],
    params:
        code=code_digest("data.jobs:fetch_dataset"),
        source=lambda wildcards: TOY_IMAGES,
        revision=lambda wildcards: TOYS["images"]["revision"],
        settings=lambda wildcards: as_json(split=TOYS["images"]["split"]),
    shell:
        "python -m gradatlas fetch-dataset --dataset toys --where 'config key toys.images' --source {params.source:q}"
        " --revision={params.revision:q} --mirror={resources.mirror:q} --settings {params.settings:q} --output {output:q}"
        " > {log:q} 2>&1"


rule squeeze_softmax:
    """Push one label of a softmax down: the paper's five cases, a control, and sweeps."""
    output:
        collect("results/dynamics/toys/toy_{table}.parquet", table=TOY_TABLES["squeeze_softmax"]),
    log:
        "logs/squeeze_softmax.log",
    priority: 20
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(1000),
        runtime=10,
    params:
        code=code_digest("toys.jobs:squeeze_softmax"),
        settings=lambda wildcards: as_json(draws=TOYS["draws"], seed=STUDY.config["seed"]),
        folder=lambda wildcards, output: os.path.dirname(output[0]),
    shell:
        "python -m gradatlas squeeze-softmax --settings {params.settings:q} --output {params.folder:q} > {log:q} 2>&1"


rule train_classifier:
    """Train an image classifier; its kernels and single steps along training."""
    input:
        TOY_FILES,
    output:
        collect("results/dynamics/toys/toy_{table}.parquet", table=TOY_TABLES["train_classifier"]),
    log:
        "logs/train_classifier.log",
    priority: 20
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        code=code_digest("toys.jobs:train_classifier"),
        content=content_of([] if HUB_IMAGES else TOY_FILES),
        images=lambda wildcards: TOY_FILES if HUB_IMAGES else TOY_IMAGES,
        settings=lambda wildcards: as_json(seed=STUDY.config["seed"], **picked(TOYS["images"], Learning)),
        folder=lambda wildcards, output: os.path.dirname(output[0]),
    shell:
        "python -m gradatlas train-classifier --images {params.images:q} --settings {params.settings:q}"
        " --output {params.folder:q} > {log:q} 2>&1"


rule clip_objective:
    """Push one label of a softmax down by DPO's rejected side and by the clipped objective of PPO and GRPO."""
    output:
        "results/dynamics/toys/toy_clip.parquet",
    log:
        "logs/clip_objective.log",
    priority: 20
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(1000),
        runtime=10,
    params:
        code=code_digest("toys.jobs:clip_objective"),
    shell:
        "python -m gradatlas clip-objective --output {output:q} > {log:q} 2>&1"


rule draw_toys:
    """Draw the figures of the toys."""
    input:
        collect("results/dynamics/toys/toy_{table}.parquet", table=sum(TOY_TABLES.values(), [])),
    output:
        folder=report(
            directory("results/figures/toys"),
            patterns=["{toy}.{figure}.svg"],
            caption="../report/toys.rst",
            category="Learning dynamics",
            subcategory="Toys",
            labels={"toy": "{toy}", "figure": "{figure}"},
        ),
        digest="results/figures/toys.sha256",
    log:
        "logs/draw_toys.log",
    priority: 20
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(2000),
        runtime=20,
    params:
        code=code_digest("toys.jobs:draw_toys"),
        formats=STUDY.config["formats"],
        folder=lambda wildcards, input: os.path.dirname(input[0]),
    shell:
        "python -m gradatlas draw-toys --tables {params.folder:q} --formats {params.formats} --output {output.folder:q}"
        " > {log:q} 2>&1"


rule toys:
    """The toys' tables and figures."""
    input:
        "results/figures/toys",
    localrule: True
