"""The jobs of the study's config."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradatlas.core.jobs import Json


def write_config(*, output: Path, settings: Json[dict[str, Any]]) -> None:
    """Write the effective config: what the config files, the command line and the defaults came to.

    Parameters
    ----------
    output
        file to write (.yaml)
    settings
        the config, as one JSON object
    """
    import yaml

    from gradatlas.core.checked import write_lines

    write_lines(output, yaml.safe_dump(settings, sort_keys=True, allow_unicode=True), "# checksum: {}")


def estimate(*, cards: Sequence[Path] = (), output: Path, settings: Json[dict[str, Any]]) -> None:
    """Print and write what the second study will take: responses, disk, requests to an endpoint, tokens and money.

    It reads no model and no data. Sizes of models come from their cards, or from column `parameters` of
    config/models.tsv; without either, bytes are unknown.

    Parameters
    ----------
    cards
        cards of the models to finetune, as far as they are there (.json)
    output
        table to write (.csv)
    settings
        the config, as one JSON object
    """
    import csv
    import io
    from dataclasses import astuple, fields

    from gradatlas.core.checked import read_json
    from gradatlas.core.files import ROOT, write_text
    from gradatlas.study.config import read_study
    from gradatlas.study.estimate import Estimate, lines, sizes
    from gradatlas.study.estimate import estimate as rows_of
    from gradatlas.study.runs import read_plan

    study = read_study(settings, ROOT)
    plan = read_plan(study.config["dynamics"], ROOT, study.config["generate"]["model"])
    known = {card["model"]: card["parameters"] for card in (read_json(path, "fetch_model") for path in cards)}
    rows = rows_of(study.config, plan, study.learners, sizes(study.learners) | known)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([[each.name for each in fields(Estimate)], *map(astuple, rows)])
    write_text(output, text.getvalue())
    print("\n".join(lines(rows)))
