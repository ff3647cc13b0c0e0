"""Sources: the published data files, and rows of hub datasets, as they are.

needs  config/sources.tsv and config/pairs/ (path and sha256 of every file), config/mappings/, a network or `mirror`
makes  resources/sources/{path}, each verified by its checksum before it is placed; resources/datasets/{dataset}.parquet
why    a downloaded byte that differs from the study's is another study
"""


rule fetch_source:
    """Fetch one published file and check its sha256."""
    output:
        "resources/sources/{path}",
    log:
        "logs/fetch_source/{path}.log",
    wildcard_constraints:
        path="|".join(map(re.escape, REMOTE)) or "none",
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        # Not a param: where verified bytes came from makes nothing stale.
        mirror=STUDY.config["mirror"],
    params:
        code=code_digest("data.jobs:fetch_source"),
        url=lambda wildcards: REMOTE[wildcards.path]["url"],
        sha256=lambda wildcards: REMOTE[wildcards.path]["sha256"],
    shell:
        "python -m gradatlas fetch-source --url {params.url:q} --path {wildcards.path:q}"
        " --sha256 {params.sha256} --mirror={resources.mirror:q} --output {output:q} > {log:q} 2>&1"


rule fetch_dataset:
    """Fetch the rows of one hub dataset at its pinned revision."""
    output:
        "resources/datasets/{dataset}.parquet",
    log:
        "logs/fetch_dataset/{dataset}.log",
    wildcard_constraints:
        dataset="|".join(HUB_DATASETS) or "none",
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        # Not a param: where the rows of a pinned revision came from makes nothing stale.
        mirror=STUDY.config["mirror"],
    params:
        code=code_digest("data.jobs:fetch_dataset"),
        source=lambda wildcards: HUB_DATASETS[wildcards.dataset]["source"],
        revision=lambda wildcards: HUB_DATASETS[wildcards.dataset]["revision"],
        settings=lambda wildcards: as_json(**{key: HUB_DATASETS[wildcards.dataset][key] for key in ("split", "name")}),
    shell:
        "python -m gradatlas fetch-dataset --dataset {wildcards.dataset} --source {params.source:q}"
        " --revision={params.revision:q} --mirror={resources.mirror:q} --settings {params.settings:q}"
        " --output {output:q} > {log:q} 2>&1"
