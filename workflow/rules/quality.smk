"""Data quality: samples of high and of low quality compared by their scores, and graded data with planted faults.

needs  scores of the datasets that config/scored.tsv (or an entry of `datasets`) makes a `pair`; scores of graded data
makes  results/graded/{dataset}.jsonl; results/comparisons/{model}/{pair}/: tables and figures; results/recall/{dataset}/:
       how many planted faults each score finds; results/evidence/quality.parquet: the claims' numbers, no verdict yet
why    the study compares the two ends of a measure of quality, whose lengths and losses differ too
"""


def sides(pair):
    """The datasets of a pair of high and low quality: their names and the groups of each side."""
    rows = [row for row in STUDY.scored.values() if row["pair"] == pair]
    return [(row["dataset"], row[side]) for side in ("high", "low") for row in rows if row[side]]


# Pairs of which both sides are scored, and the models of both.
PAIRS = {
    pair: [model for model in STUDY.models if all(STUDY.scores_on(model, name) for name, _ in sides(pair))]
    for pair in dict.fromkeys(row["pair"] for row in STUDY.scored.values() if row["pair"])
    if len(sides(pair)) == 2
}
COMPARISON = "results/comparisons/{model}/{pair}"
GRADED_DATA = [name for name, row in STUDY.scored.items() if row["source"] == GRADED]
QUALITY = [
    f"{COMPARISON}/{figure}.{kind}".format(model=model, pair=pair)
    for pair, models in PAIRS.items()
    for model in models
    for figure in ("study_form", "layers", "effects")
    for kind in STUDY.config["formats"]
]
QUALITY += collect(
    "results/recall/{dataset}/{figure}.{format}",
    dataset=GRADED_DATA,
    figure=["recall", "curves"],
    format=STUDY.config["formats"],
)


def scores_of_pair(wildcards):
    """The scores of both sides; one table where both are groups of it."""
    return list(
        dict.fromkeys(f"results/scores/{wildcards.model}/{name}/scores.parquet" for name, _ in sides(wildcards.pair))
    )


def sides_options(wildcards):
    """The two sides of a comparison as options of the command."""
    (high, of_high), (low, of_low) = sides(wildcards.pair)
    if high != low:
        return []
    return ["--group-a", *of_high, "--group-b", *of_low]


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
        scores_of_pair,
    output:
        tables=multiext(
            f"{COMPARISON}/",
            "comparison.parquet",
            "comparison.csv",
            "comparison.md",
            "comparison.tex",
            "curves.parquet",
        ),
        figures=[
            f"{COMPARISON}/{figure}.{name}" for figure in ("study_form", "effects") for name in STUDY.config["formats"]
        ],
        others=[f"{COMPARISON}/layers.{name}" for name in STUDY.config["formats"] if name != "svg"],
        layers=report(
            f"{COMPARISON}/layers.svg",
            caption="../report/comparison.rst",
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
        other=lambda wildcards, input: ["--other", input[1]] if len(input) > 1 else [],
        settings=lambda wildcards: as_json(draws=STUDY.config["bootstrap"], seed=STUDY.config["seed"]),
        folder=lambda wildcards, output: os.path.dirname(output.layers),
    shell:
        "python -m gradatlas compare-groups --scores {input[0]:q} {params.other:q} {params.sides:q} --name-a 'high quality'"
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
        figures=[f"results/recall/{{dataset}}/curves.{name}" for name in STUDY.config["formats"]],
        others=[f"results/recall/{{dataset}}/recall.{name}" for name in STUDY.config["formats"] if name != "svg"],
        recall=report(
            "results/recall/{dataset}/recall.svg",
            caption="../report/recall.rst",
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
        folder=lambda wildcards, output: os.path.dirname(output.recall),
    shell:
        "python -m gradatlas recall-faults --scores {input:q} --formats {params.formats} --settings {params.settings:q}"
        " --output {params.folder:q} > {log:q} 2>&1"


rule quality:
    """Every comparison of high and low quality, and the recall of planted faults."""
    input:
        QUALITY,
    localrule: True
