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
    "train_classifier": ["predictions", "kernels", "steps", "changes"],
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
        code=code_digest("workflow.scripts.fetch_dataset"),
        source=lambda wildcards: TOY_IMAGES,
        revision=lambda wildcards: TOYS["images"]["revision"],
        split=lambda wildcards: TOYS["images"]["split"],
    shell:
        "python -m workflow.scripts.fetch_dataset --dataset toys --where 'config key toys.images' --source {params.source:q}"
        " --revision={params.revision:q} --split {params.split:q} --mirror={resources.mirror:q} --output {output:q}"
        " > {log:q} 2>&1"


rule squeeze_softmax:
    """Push one label of a softmax down: the paper's five cases, a control, and sweeps."""
    output:
        collect("results/dynamics/toys/toy_{table}.parquet", table=TOY_TABLES["squeeze_softmax"]),
    log:
        "logs/squeeze_softmax.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=code_digest("workflow.scripts.squeeze_softmax"),
        draws=TOYS["draws"],
        seed=STUDY.config["seed"],
        folder=lambda wildcards, output: os.path.dirname(output[0]),
    shell:
        "python -m workflow.scripts.squeeze_softmax --draws {params.draws} --seed {params.seed} --output {params.folder:q}"
        " > {log:q} 2>&1"


rule train_classifier:
    """Train an image classifier; its kernels and single steps along training."""
    input:
        TOY_FILES,
    output:
        collect("results/dynamics/toys/toy_{table}.parquet", table=TOY_TABLES["train_classifier"]),
    log:
        "logs/train_classifier.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        code=code_digest("workflow.scripts.train_classifier"),
        images=TOY_FILES if HUB_IMAGES else TOY_IMAGES,
        image=lambda wildcards: TOYS["images"]["image"],
        label=lambda wildcards: TOYS["images"]["label"],
        rate=TOYS["images"]["rate"],
        seed=STUDY.config["seed"],
        folder=lambda wildcards, output: os.path.dirname(output[0]),
    shell:
        "python -m workflow.scripts.train_classifier --images {params.images:q} --image={params.image:q}"
        " --label={params.label:q} --seed {params.seed} --rate {params.rate} --output {params.folder:q} > {log:q} 2>&1"


rule clip_objective:
    """Push one label of a softmax down by DPO's rejected side and by the clipped objective of PPO and GRPO."""
    output:
        "results/dynamics/toys/toy_clip.parquet",
    log:
        "logs/clip_objective.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=code_digest("workflow.scripts.clip_objective"),
    shell:
        "python -m workflow.scripts.clip_objective --output {output:q} > {log:q} 2>&1"


rule draw_toys:
    """Draw the figures of the toys."""
    input:
        collect("results/dynamics/toys/toy_{table}.parquet", table=sum(TOY_TABLES.values(), [])),
    output:
        report(
            directory("results/figures/toys"),
            patterns=["{toy}.{figure}.svg"],
            caption="../report/toys.rst",
            category="Learning dynamics",
            subcategory="Toys",
            labels={"toy": "{toy}", "figure": "{figure}"},
        ),
        "results/figures/toys.sha256",
    log:
        "logs/draw_toys.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        code=code_digest("workflow.scripts.draw_toys"),
        formats=STUDY.config["formats"],
        folder=lambda wildcards, input: os.path.dirname(input[0]),
    shell:
        "python -m workflow.scripts.draw_toys --tables {params.folder:q} --formats {params.formats} --output {output[0]:q}"
        " > {log:q} 2>&1"


rule toys:
    """The toys' tables and figures."""
    input:
        "results/figures/toys",
    localrule: True
