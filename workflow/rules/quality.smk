"""Data quality: samples of high and of low quality compared by their scores, and graded data with planted faults.

needs  scores of the datasets that config/scored.tsv (or an entry of `datasets`) makes a `pair`; scores of graded data
makes  results/graded/{dataset}.jsonl; results/comparisons/{model}/{pair}/: tables and figures; results/recall/{dataset}/:
       how many planted faults each score finds; results/cosines/{model}/{dataset}.{format}, with
       config key `cosines`; results/evidence/quality/pairs.parquet: the claims' numbers, no verdict yet
why    the study compares the two ends of a measure of quality, whose lengths and losses differ too
"""

# (model, dataset) of all sides of pairs; a pipeline check takes no part in claims.
SCORED_PAIRS = [
    each
    for each in SCORED
    if each[1] in {pair[side][0] for pair in PAIRS.values() for side in ("high", "low")} and is_meant(*each)
]
COMPARISON = "results/comparisons/{model}/{pair}"
GRADED_DATA = [name for name in dict.fromkeys(name for _, name in SCORED) if STUDY.scored[name]["source"] == GRADED]
QUALITY = [
    f"{COMPARISON}/{figure}.{kind}".format(model=model, pair=pair)
    for pair, of_pair in PAIRS.items()
    for model in of_pair["models"]
    for figure in ("study_form", "layers", "effects")
    for kind in STUDY.config["formats"]
]
QUALITY += collect(
    "results/recall/{dataset}/{figure}.{format}",
    dataset=GRADED_DATA,
    figure=["recall", "curves"],
    format=STUDY.config["formats"],
)

if STUDY.config["cosines"]:
    QUALITY += collect(
        "results/cosines/{model}/{dataset}.{format}",
        model=STUDY.models,
        dataset=STUDY.datasets,
        format=STUDY.config["formats"],
    )


rule make_graded:
    """Make graded training data of the miniature's questions."""
    output:
        "results/graded/{dataset}.jsonl",
    log:
        "logs/make_graded/{dataset}.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code_digest("data.jobs:make_graded"),
        settings=lambda wildcards: as_json(seed=STUDY.config["seed"]),
    shell:
        "python -m gradatlas make-graded --settings {params.settings:q} --output {output:q} > {log:q} 2>&1"


rule compare_pair:
    """Compare the samples of high and of low quality of one pair on one model."""
    input:
        scores=scores_of_pair,
    output:
        tables=multiext(
            f"{COMPARISON}/",
            "comparison.parquet",
            "comparison.csv",
            "comparison.md",
            "comparison.tex",
            "curves.parquet",
        ),
        figures=[f"{COMPARISON}/{figure}.{name}" for figure in ("study_form", "effects") for name in FIGURE_FILES],
        others=[f"{COMPARISON}/layers.{name}" for name in FIGURE_FILES if name != "svg"],
        figure=report(
            f"{COMPARISON}/layers.svg",
            caption="../report/caption.rst",
            category="Data quality",
            subcategory="{pair}",
            labels={"model": "{model}", "table": "High and low quality"},
        ),
    log:
        "logs/compare_pair/{model}/{pair}.log",
    wildcard_constraints:
        pair="|".join(PAIRS) or "none",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        code=code_digest("figures.jobs:compare_groups"),
        formats=STUDY.config["formats"],
        sides=sides_options,
        scores=lambda wildcards, input: input.scores[0],
        other=lambda wildcards, input: ["--other", *input.scores[1:]] if len(input.scores) > 1 else [],
        settings=lambda wildcards: as_json(draws=STUDY.config["bootstrap"], seed=STUDY.config["seed"]),
        folder=lambda wildcards, output: os.path.dirname(output.figure),
    shell:
        "python -m gradatlas compare-groups --scores {params.scores:q} {params.other:q} {params.sides:q} --name-a 'high quality'"
        " --name-b 'low quality' --formats {params.formats} --settings {params.settings:q} --output {params.folder:q} > {log:q} 2>&1"


rule recall_faults:
    """Measure how many planted faults each score finds in graded data."""
    input:
        lambda wildcards: [
            f"results/scores/{model}/{wildcards.dataset}/scores.parquet"
            for model, name in SCORED
            if name == wildcards.dataset
        ],
    output:
        tables=multiext(
            "results/recall/{dataset}/", "recall.parquet", "recall.csv", "recall.md", "recall.tex", "curves.parquet"
        ),
        figures=[f"results/recall/{{dataset}}/curves.{name}" for name in FIGURE_FILES],
        others=[f"results/recall/{{dataset}}/recall.{name}" for name in FIGURE_FILES if name != "svg"],
        figure=report(
            "results/recall/{dataset}/recall.svg",
            caption="../report/caption.rst",
            category="Data quality",
            subcategory="{dataset}",
            labels={"table": "Recall of planted faults"},
        ),
    log:
        "logs/recall_faults/{dataset}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        code=code_digest("figures.jobs:recall_faults"),
        formats=STUDY.config["formats"],
        settings=lambda wildcards: as_json(
            models={
                model: STUDY.models[model]["title"] or model for model, name in SCORED if name == wildcards.dataset
            },
            draws=STUDY.config["bootstrap"],
            seed=STUDY.config["seed"],
        ),
        folder=lambda wildcards, output: os.path.dirname(output.figure),
    shell:
        "python -m gradatlas recall-faults --scores {input:q} --formats {params.formats} --settings {params.settings:q}"
        " --output {params.folder:q} > {log:q} 2>&1"


rule draw_cosines:
    """Draw the cosines between gradients of one sample, of one model and dataset."""
    input:
        "results/gradients/{model}/{dataset}.cosines.parquet",
    output:
        [f"results/cosines/{{model}}/{{dataset}}.{name}" for name in FIGURE_FILES if name != "svg"],
        figure=report(
            "results/cosines/{model}/{dataset}.svg",
            caption="../report/caption.rst",
            category="Data quality",
            subcategory="{dataset}",
            labels={"model": "{model}", "table": "Cosines"},
        ),
    log:
        "logs/draw_cosines/{model}/{dataset}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        code=code_digest("figures.jobs:draw_cosines"),
        title=lambda wildcards: f"{STUDY.datasets[wildcards.dataset]['title'] or wildcards.dataset}, "
        f"{STUDY.models[wildcards.model]['title'] or wildcards.model}",
        formats=STUDY.config["formats"],
        settings=lambda wildcards: as_json(draws=STUDY.config["bootstrap"], seed=STUDY.config["seed"]),
        figure=lambda wildcards, output: os.path.splitext(output.figure)[0],
    shell:
        "python -m gradatlas draw-cosines --cosines {input:q} --title={params.title:q} --formats {params.formats}"
        " --settings {params.settings:q} --output {params.figure:q} > {log:q} 2>&1"


rule gather_quality_evidence:
    """Measure what every claim of the data-quality study is about, on all models."""
    input:
        scores=[f"{SCORES}/scores.parquet".format(model=model, dataset=dataset) for model, dataset in SCORED_PAIRS],
        per_sample=collect("results/statistics/{dataset}/per_sample.parquet", dataset=STUDY.datasets),
        cosines=(
            collect("results/gradients/{model}/{dataset}.cosines.parquet", model=STUDY.models, dataset=STUDY.datasets)
            if STUDY.config["cosines"]
            else []
        ),
    output:
        "results/evidence/quality/pairs.parquet",
    log:
        "logs/gather_quality_evidence.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory(8000),
        runtime=60,
        sheet=QUALITY_CLAIMS_SHEET,
    params:
        code=code_digest("claims.jobs:gather_quality_evidence"),
        claims=lambda wildcards: of_evidence(QUALITY_CLAIMS),
        settings=lambda wildcards: as_json(
            models={
                name: {"kind": row["kind"], "seed": row["seed"], "untrained": untrained_of(name)}
                for name, row in STUDY.models.items()
            },
            scored=["/".join(each) for each in SCORED_PAIRS],
            pairs={
                name: {key: value for key, value in pair.items() if key != "models"} for name, pair in PAIRS.items()
            },
            draws=STUDY.config["bootstrap"],
            seed=STUDY.config["seed"],
        ),
    shell:
        "python -m gradatlas gather-quality-evidence --scores {input.scores:q} --per-sample {input.per_sample:q}"
        " --cosines {input.cosines:q} --claims {resources.sheet:q} --settings {params.settings:q} --output {output:q}"
        " > {log:q} 2>&1"


rule quality:
    """Every comparison of high and low quality, and the recall of planted faults."""
    input:
        QUALITY,
    localrule: True
