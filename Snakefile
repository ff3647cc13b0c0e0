"""Gradatlas: what a piece of fine-tuning data does to each layer of a language model.

snakemake --cores all                                      the study in miniature: offline, no GPU
snakemake --cores all --configfile config/paper.yaml       the study itself
snakemake --cores all -- gradients                         up to one stage; targets: responses, audit, models,
                                                           gradients, statistics, claims, toys,
                                                           dynamics, figures, all
"""

import os
import sys

from snakemake.utils import min_version

min_version("9.19")


configfile: f"{workflow.basedir}/config/config.yaml"


# Rules run `python -m workflow.scripts.x`: with this very Python, from any working directory.
os.environ.update(
    PATH=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]),
    PYTHONPATH=workflow.basedir,
)


include: "workflow/rules/common.smk"
include: "workflow/rules/sources.smk"
include: "workflow/rules/generation.smk"
include: "workflow/rules/responses.smk"
include: "workflow/rules/audit.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/gradients.smk"
include: "workflow/rules/released.smk"
include: "workflow/rules/statistics.smk"
include: "workflow/rules/dynamics.smk"
include: "workflow/rules/judging.smk"
include: "workflow/rules/toys.smk"
include: "workflow/rules/claims.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/provenance.smk"


report: "workflow/report/study.rst"


rule all:
    """The whole study."""
    default_target: True
    input:
        "results/index.html",
        "results/tables/claims.md",
        "results/manifest.json",
        ["results/tables/fixed_data.md", "results/tables/regression.csv"] if STUDY.datasets else [],
        # Other rules depend on their checksums.
        FIGURES,
        ["results/figures/toys"] if SHOW_TOYS else [],
        DYNAMICS_FIGURES,
    localrule: True
