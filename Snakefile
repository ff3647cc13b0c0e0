"""Gradatlas: what a piece of fine-tuning data does to each layer of a language model.

    snakemake --cores all                                      the study in miniature: offline, no GPU
    snakemake --cores all --configfile config/paper.yaml       the study itself
    snakemake --cores all -- responses | gradients | statistics | figures      up to one stage
"""

import json
import os
import re
import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.19")

configfile: f"{workflow.basedir}/config/config.yaml"


# Rules run `python -m workflow.scripts.x`: with this very Python, from any working directory.
os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
os.environ["PYTHONPATH"] = workflow.basedir

from workflow.lib.digest import code_digest
from workflow.lib.errors import InputError
from workflow.lib.study import miniatures, read_study, source_keys

try:
    STUDY = read_study(config, workflow.basedir)
    MINIATURES = miniatures(STUDY, workflow.basedir)
except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


wildcard_constraints:
    model="|".join({**STUDY.models, **MINIATURES}),
    dataset="|".join(STUDY.datasets),


report: "workflow/report/study.rst"


include: "workflow/rules/sources.smk"
include: "workflow/rules/responses.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/gradients.smk"
include: "workflow/rules/statistics.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/provenance.smk"


rule all:
    """The whole study."""
    default_target: True
    localrule: True
    input:
        "results/index.html",
        "results/manifest.json",
