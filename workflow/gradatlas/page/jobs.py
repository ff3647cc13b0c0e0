"""The jobs of the page and the manifest, one a rule; and ``compare``, for people."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradatlas.core.jobs import Json


@dataclass(frozen=True)
class AtlasSettings:
    """What the page needs to know beside the tables."""

    runs: list[dict[str, Any]] = field(default_factory=list)
    """rows of config/runs.tsv, in order"""
    statuses: list[tuple[str, str]] = field(default_factory=list)
    """model and seed of each file of --statuses, in the same order"""
    prompts: dict[str, str] = field(default_factory=dict)
    """by model, the form of its prompts: plain or chat"""
    titles: dict[str, str] = field(default_factory=dict)
    """names of models and datasets to readers, by key"""


def write_atlas(
    *,
    figures: Sequence[Path] = (),
    cells: Sequence[Path] = (),
    tables: Sequence[Path] = (),
    accuracy: Sequence[Path] = (),
    curves: Sequence[Path] = (),
    sample_layers: Sequence[Path] = (),
    responses: Sequence[Path] = (),
    claims: Path | None = None,
    findings: Path | None = None,
    glossary: Path | None = None,
    scores: Sequence[Path] = (),
    pictures: Sequence[Path] = (),
    second: Sequence[Path] = (),
    statuses: Sequence[Path] = (),
    run_table: Sequence[Path] = (),
    win_rates: Sequence[Path] = (),
    config: Path,
    output: Path,
    settings: Json[AtlasSettings] = AtlasSettings(),
) -> None:
    """Write the atlas: a page with findings, explorer, verdicts and figures, and more.html. It needs no network.

    Parameters
    ----------
    figures
        folders that draw-figures and draw-overview wrote
    cells
        tables of what the samples were, one a dataset
    tables
        MAD and RD tables that write-tables wrote (.csv)
    accuracy
        tables of measure-accuracy
    curves
        mean curves, one table per dataset, for the explorer
    sample_layers
        per-sample values by layer, one table per dataset, for the explorer
    responses
        responses, one table per dataset, for the samples' texts
    claims
        the table of verdicts
    findings
        what the verdicts come to, for the first screen (.json)
    glossary
        the terms, for tooltips and a list (docs/glossary.md)
    scores
        pages of scores of training files, .../MODEL/DATASET/scores.html, to link to
    pictures
        pictures that no folder lists: findings, verdicts, comparisons, recall of planted faults, cosines (.svg)
    second
        folders of the second study's figures
    statuses
        how each of its runs ended (status.json)
    run_table
        the table of its runs that write-dynamics-table wrote (.csv); one at most
    win_rates
        the table of win rates that write-win-rates wrote (.csv); one at most
    config
        the effective config that write-config wrote, shown as it is (.yaml)
    output
        the page to write, and more.html beside it; figures are linked relative to it (.html)
    """
    from gradatlas.core.command import progress
    from gradatlas.core.errors import InputError
    from gradatlas.page import page

    if len(statuses) != len(settings.statuses):
        named = f"--statuses names {len(statuses)} files, settings.statuses {len(settings.statuses)}"
        raise InputError(f"{named}; give the model and seed of each")
    for option, given in (("--run-table", run_table), ("--win-rates", win_rates)):
        if len(given) > 1:
            raise InputError(f"{option} names {len(given)} files; give one at most")
    count = page.write_atlas(
        figures,
        cells,
        tables,
        config,
        output,
        accuracy=accuracy,
        curves=curves,
        sample_layers=sample_layers,
        responses=responses,
        claims=claims,
        findings=findings,
        glossary=glossary,
        second=second,
        runs={row["run"]: row for row in settings.runs},
        statuses=[(*place, path) for place, path in zip(settings.statuses, statuses, strict=True)],
        run_table=run_table[0] if run_table else None,
        win_rates=win_rates[0] if win_rates else None,
        prompts=settings.prompts,
        titles=settings.titles,
        scores=scores,
        pictures=pictures,
    )
    progress(f"{output}: {count} figures")


def write_manifest(
    *,
    samples: Sequence[Path] = (),
    responses: Sequence[Path] = (),
    sources: Sequence[Path] = (),
    statistics: Sequence[Path] = (),
    cards: Sequence[Path] = (),
    learnt: Sequence[Path] = (),
    pairs: Sequence[Path] = (),
    toys: Sequence[Path] = (),
    scores: Sequence[Path] = (),
    output: Path,
) -> None:
    """Collect what every table was made with (models, revisions, code, seeds), and check that the tables agree.

    Parameters
    ----------
    samples
        samples tables of all models and datasets
    responses
        responses tables
    sources
        files that the responses were built from
    statistics
        cells tables of summarise-gradients
    cards
        cards of the finetuned models
    learnt
        tables and status.json of their runs: all files of the first model, then as many of the next
    pairs
        pairs tables that these models were finetuned on
    toys
        tables of the toys
    scores
        tables of the scores of training files
    output
        manifest to write (.json)
    """
    from gradatlas.core.checked import write_json
    from gradatlas.core.errors import InputError
    from gradatlas.models.snapshots import read_card
    from gradatlas.page.manifest import manifest

    each, rest = divmod(len(learnt), max(len(cards), 1))
    if rest or (learnt and not cards):
        raise InputError(f"--learnt names {len(learnt)} files for {len(cards)} --cards; give as many for each")
    learners = {
        read_card(card)["model"]: (str(card), list(map(str, learnt[at * each : (at + 1) * each])))
        for at, card in enumerate(cards)
    }
    # Paths are keys of the manifest.
    named = [list(map(str, paths)) for paths in (samples, responses, sources, statistics)]
    facts = manifest(*named, learners, list(map(str, pairs)), list(map(str, toys)), list(map(str, scores)))
    write_json(output, facts)


def compare(results_a: Path, results_b: Path, /, *, tolerance: float = 0.0, output: Path | None = None) -> int:
    """Report the differences between two results folders: in every table, and in every verdict.

    Exit code 0: no difference; 1: some; 2: a folder or table that cannot be read. Rows are matched by their names,
    layers, steps and the like, in any order; numbers and texts are compared. Of the largest difference in each column
    the row and both values are shown.

    Parameters
    ----------
    results_a
        the first results folder
    results_b
        the second one
    tolerance
        relative difference up to which numbers count as equal
    output
        also write the differences as a table (.csv)
    """
    from gradatlas.core import compare as folders

    changes = folders.compare(results_a, results_b, tolerance)
    verdicts = folders.verdict_changes(results_a, results_b)
    if output:
        folders.write_changes(changes, output)
    print("\n".join(folders.report(changes, verdicts)))
    return 1 if changes or verdicts else 0
