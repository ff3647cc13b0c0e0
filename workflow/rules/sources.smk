"""Sources: the published data files, as they are.

needs  config/sources.tsv (path and sha256 of every file), a network or `mirror`
makes  resources/sources/{path}, each verified by its checksum before it is placed
why    a downloaded byte that differs from the study's is another study
"""

REMOTE = {
    row["path"]: {"url": STUDY.datasets[row["dataset"]]["url"], "sha256": row["sha256"]}
    for row in STUDY.files.values()
    if row["dataset"] in STUDY.datasets and STUDY.datasets[row["dataset"]]["url"]
}


def source_file(key):
    """Where the file of (dataset, variant, relation) stands: fetched, or a user's own."""
    path = STUDY.files[key]["path"]
    return f"resources/sources/{path}" if path in REMOTE else path


rule fetch_source:
    """Fetch one published file and check its sha256."""
    localrule: True
    output:
        "resources/sources/{path}",
    log:
        "logs/fetch_source/{path}.log",
    wildcard_constraints:
        path="|".join(map(re.escape, REMOTE)) or "none",
    conda:
        "../../environment.yml"
    params:
        code=code_digest("workflow.scripts.fetch_source"),
        url=lambda wildcards: REMOTE[wildcards.path]["url"],
        sha256=lambda wildcards: REMOTE[wildcards.path]["sha256"],
    shell:
        "python -m workflow.scripts.fetch_source --url {params.url:q} --path {wildcards.path:q}"
        " --sha256 {params.sha256} --mirror={config[mirror]:q} --output {output:q} > {log:q} 2>&1"
