"""Audit: counts of properties of the response sets.

needs  results/responses/ (no model); for token counts, tokenizers on this machine
makes  results/audit/responses.csv and .parquet, results/audit/tokens.csv, results/audit/shares.{format}
why    a gradient is only as meaningful as its response: the audit finds, for example, "wrong" labels that are right
"""


rule audit_responses:
    """Count right labels, missing answers, remains of cutting and the like in every response set."""
    input:
        collect("results/responses/{dataset}.parquet", dataset=STUDY.datasets),
    output:
        csv=report(
            "results/audit/responses.csv",
            caption="../report/audit.rst",
            category="Audit",
            labels={"table": "responses"},
        ),
        parquet="results/audit/responses.parquet",
    log:
        "logs/audit_responses.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code_digest("data.jobs:audit_responses"),
    shell:
        "python -m gradatlas audit-responses --responses {input:q} --csv {output.csv:q}"
        " --parquet {output.parquet:q} > {log:q} 2>&1"


rule draw_audit:
    """Draw the audit's shares, a row per response set."""
    input:
        "results/audit/responses.parquet",
    output:
        collect("results/audit/shares.{format}", format=FIGURE_FILES),
    log:
        "logs/draw_audit.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code_digest("figures.jobs:draw_audit"),
        formats=STUDY.config["formats"],
        stem=lambda wildcards, output: output[0].removesuffix(f".{STUDY.config['formats'][0]}"),
    shell:
        "python -m gradatlas draw-audit --audit {input:q} --formats {params.formats} --output {params.stem:q}"
        " > {log:q} 2>&1"


rule count_tokens:
    """Count tokens and truncation with the tokenizers on this machine (update with --forcerun count_tokens)."""
    input:
        collect("results/responses/{dataset}.parquet", dataset=STUDY.datasets),
    output:
        "results/audit/tokens.csv",
    log:
        "logs/count_tokens.log",
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        # Not a param: the place of a tokenizer makes nothing stale.
        mirror=STUDY.config["mirror"],
    params:
        code=code_digest("models.jobs:count_tokens"),
        settings=lambda wildcards: as_json(
            models=[tokenizer_of(name) for name in STUDY.models], **picked(STUDY.config, Tokenising)
        ),
    shell:
        "python -m gradatlas count-tokens --responses {input:q} --mirror={resources.mirror:q} --settings {params.settings:q}"
        " --output {output:q} > {log:q} 2>&1"


rule audit:
    """The audit of the response sets of all chosen datasets."""
    input:
        "results/audit/responses.csv",
        "results/audit/tokens.csv",
        collect("results/audit/shares.{format}", format=FIGURE_FILES),
    localrule: True
