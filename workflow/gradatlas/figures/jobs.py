"""The jobs of the figures and tables of both studies, one a rule; and ``write-gallery``, for the README's pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradatlas.core.jobs import Json, Options
from gradatlas.statistics.jobs import BootstrapSettings

BOOTSTRAP = BootstrapSettings()


@dataclass(frozen=True)
class Dataset:
    """A dataset as its sheet describes it: `family` and its name within it (`member`), empty where it has none."""

    key: str
    """its name in the tables"""
    title: str
    """its name to readers"""
    family: str = ""
    """datasets of one family are drawn as one figure"""
    member: str = ""
    """its name within the family"""
    paper_top: int | None = None
    """end of the study's axis of nuclear norms, if not 100 for None and 30 for others"""
    task: str = ""
    """the kind of questions: math, knowledge or other"""


@dataclass(frozen=True)
class FigureSettings:
    """What one dataset's figures depend on besides the tables."""

    model_titles: dict[str, str] = field(default_factory=dict)
    """names of models to readers, by key; others are called by their key"""
    partners: dict[str, str] = field(default_factory=dict)
    """by model, the one it is compared with"""
    prompts: dict[str, str] = field(default_factory=dict)
    """by model, the form of its prompts: plain or chat"""
    paper_axes: bool = False
    """the study's own axes, in figures of its own form"""
    paper_top: int | None = None
    """end of its axis of nuclear norms, if not 100 for None and 30 for others"""


@dataclass(frozen=True)
class OverviewSettings:
    """What the figures of all datasets depend on besides the tables."""

    datasets: list[Dataset]
    """in order"""
    model_titles: dict[str, str] = field(default_factory=dict)
    """names of models to readers, by key; others are called by their key"""
    paper_axes: bool = False
    """the study's own axes, in figures of its own form"""


@dataclass(frozen=True)
class Model:
    """A model as its sheet describes it."""

    key: str
    """its name in the tables"""
    kind: str
    """base, instruct or random"""


@dataclass(frozen=True)
class TableSettings:
    """What decides the order and the words of the tables."""

    datasets: list[Dataset]
    """in order"""
    models: list[Model]
    """in order"""


@dataclass(frozen=True)
class VerdictSettings:
    """What decides the words of the figures of verdicts."""

    titles: dict[str, str] = field(default_factory=dict)
    """names of models and datasets to readers, by key"""


@dataclass(frozen=True)
class RunSettings:
    """Which runs are drawn."""

    runs: list[dict[str, Any]]
    """rows of config/runs.tsv, each after the run that it starts from"""
    followed: list[str] = field(default_factory=list)
    """runs with a budget and kernels"""


@dataclass(frozen=True)
class RunTableSettings(RunSettings):
    """Which runs are in the table, and whose they are."""

    titles: dict[str, str] = field(default_factory=dict)
    """titles of models, by key"""


@dataclass(frozen=True, kw_only=True)
class WinRateSettings(RunTableSettings):
    """Which runs are in the table, whose they are, and how long an epoch is."""

    epochs: dict[str, int]
    """examples of an epoch, by run"""


@dataclass(frozen=True, kw_only=True)
class RecallSettings(BootstrapSettings):
    """What decides the recall of planted faults."""

    models: dict[str, str]
    """by model, its name to readers; in the order of the tables"""


def draw_figures(
    *,
    statistics: Path,
    dataset: str,
    title: str,
    accuracy: Sequence[Path] = (),
    formats: list[str],
    output: Path,
    settings: FigureSettings = FigureSettings(),
) -> None:
    """Draw all layer-gradient figures of one dataset.

    Of every model and relation in the tables: {model}.{relation}.{kind}; and index.json, a list of them.

    Parameters
    ----------
    statistics
        folder with curves, mad, rd, rd_layers, cells, per_sample (.parquet)
    dataset
        the dataset's key in the tables
    title
        the dataset's name to readers
    accuracy
        tables of measure-accuracy
    formats
        any of vl.json, svg, png, pdf
    output
        folder to write the figures to
    """
    from gradatlas.figures import gallery

    gallery.draw(statistics, dataset, title, output, formats, settings, accuracy)


def draw_overview(
    *,
    statistics: list[Path],
    accuracy: Sequence[Path] = (),
    formats: list[str],
    output: Path,
    settings: Json[OverviewSettings],
) -> None:
    """Draw what all datasets of a study show together: heatmaps of MAD and RD, families of datasets as one figure.

    Parameters
    ----------
    statistics
        folders with curves, mad, rd, rd_layers, cells (.parquet)
    accuracy
        tables of measure-accuracy
    formats
        any of vl.json, svg, png, pdf
    output
        folder to write the figures to
    """
    from gradatlas.figures import gallery

    gallery.draw_overview(statistics, settings, output, formats, accuracy)


def write_tables(
    *, statistics: list[Path], published: Path | None = None, output: Path, settings: Json[TableSettings]
) -> None:
    """Write the study's tables over all datasets: scope, MAD and RD, as Parquet, CSV, Markdown and LaTeX.

    Parameters
    ----------
    statistics
        folders with mad, rd and cells (.parquet)
    published
        the study's own numbers, shown beside ours (.tsv)
    output
        folder for scope, mad and rd, each .parquet, .csv, .md and .tex
    """
    from gradatlas.core.command import progress
    from gradatlas.core.sheets import read_sheet
    from gradatlas.figures import tables
    from gradatlas.figures.scope import write_scope
    from gradatlas.study.sheets import PublishedRow

    numbers = list(read_sheet(published, PublishedRow, None).values()) if published else []
    write_scope(statistics, settings, output)
    for kind in ("mad", "rd"):
        tables.write_tables(kind, statistics, output, numbers)
    progress(f"{len(statistics)} datasets: scope, mad and rd in {output}")


def draw_claims(
    *,
    claims: Path,
    formats: list[str],
    figure: Path,
    dynamics_figure: Path,
    quality_figure: Path,
    markdown: Path,
    settings: VerdictSettings = VerdictSettings(),
) -> None:
    """Draw the verdicts as a matrix a study, and write them as a table to read.

    Parameters
    ----------
    claims
        the claims table (.parquet)
    formats
        any of vl.json, svg, png, pdf
    figure
        figure to write, without its format
    dynamics_figure
        the second study's figure to write, without its format
    quality_figure
        the third study's figure to write, without its format
    markdown
        table to write
    """
    from gradatlas.figures.verdicts import draw_verdicts, write_verdicts

    draw_verdicts(claims, figure, dynamics_figure, quality_figure, formats, settings.titles)
    write_verdicts(claims, markdown)


def draw_findings(*, findings: Path, formats: list[str], figure: Path) -> None:
    """Draw the findings: every test's effect with its interval, and untrained networks beside them.

    Parameters
    ----------
    findings
        findings.json of write-findings
    formats
        any of vl.json, svg, png, pdf
    figure
        figures to write, without `_STUDY` and their format
    """
    from gradatlas.figures.findings import draw

    draw(findings, figure, formats)


def compare_fixed(
    *,
    claims: Path,
    cells: Sequence[Path] = (),
    formats: list[str],
    figure: Path,
    tables: Path,
    settings: VerdictSettings = VerdictSettings(),
) -> None:
    """Hold the claims on the study's own irrelevant responses against those on corrected ones: a figure and a table.

    Parameters
    ----------
    claims
        the claims table (.parquet)
    cells
        cells tables, for the right labels among the wrong
    formats
        any of vl.json, svg, png, pdf
    figure
        figure to write, without its format
    tables
        stem of the tables to write: .csv and .md
    """
    from gradatlas.core.command import progress
    from gradatlas.figures.fixed import headline, write_fixed

    progress(headline(write_fixed(claims, cells, figure, tables, formats, settings.titles)))


def compare_groups(
    *,
    scores: Path,
    other: Path | None = None,
    group_a: Sequence[str] = (),
    group_b: Sequence[str] = (),
    name_a: str = "",
    name_b: str = "",
    paired: bool = False,
    output: Path,
    formats: Sequence[str] = ("svg", "png"),
    settings: Options[BootstrapSettings] = BOOTSTRAP,
) -> None:
    """Compare groups of scored samples, raw and matched on length and loss: effect sizes, intervals, tests, figures.

    Parameters
    ----------
    scores
        scores.parquet of gradatlas score, with its folder `measured` beside it
    other
        a second one: the two tables' samples are the two groups
    group_a
        of one table, the groups that are the first side; empty: the first group in the table
    group_b
        the groups that are the second side; empty: each of the others by itself
    name_a
        the first side's name in tables and figures; empty: that of the groups or of the table's folder
    name_b
        the second side's name; empty: the same
    paired
        compare row by row: the same file scored by two models or checkpoints, or the chosen and the rejected response
        of each row of one table, which are always paired
    output
        folder for comparison.parquet, .csv, .md, .tex, curves.parquet and the figures
    formats
        vl.json, svg, png, pdf
    """
    from gradatlas.core.errors import InputError
    from gradatlas.figures.groups import write_comparisons
    from gradatlas.statistics.groups import read_groups

    if other and (group_a or group_b):
        raise InputError("--other: two tables are compared whole; leave out --group-a and --group-b")
    if group_b and not group_a:
        raise InputError(f"--group-b {' '.join(group_b)}: needs a first side; give --group-a")
    pairs = read_groups(scores, other, paired, group_a, group_b, (name_a, name_b))
    write_comparisons(pairs, output, formats, settings.draws, settings.seed)


def draw_cosines(
    *, cosines: Path, title: str, output: Path, formats: list[str], settings: BootstrapSettings = BOOTSTRAP
) -> None:
    """Draw the cosines between gradients of one sample over layers, of one model and dataset.

    Parameters
    ----------
    cosines
        cosines table of measure-gradients
    title
        names of the data and the model
    output
        figure to write, without its format
    formats
        any of vl.json, svg, png, pdf
    """
    from gradatlas.figures.cosines import draw_cosines as draw

    draw(cosines, title, output, formats, settings.draws, settings.seed)


def recall_faults(*, scores: list[Path], output: Path, formats: list[str], settings: Json[RecallSettings]) -> None:
    """Measure how many planted faults of the graded data are among the first samples in the order of each score.

    Parameters
    ----------
    scores
        scores.parquet of the graded data, one a model
    output
        folder for recall.parquet, .csv, .md, .tex, curves.parquet and the figures
    formats
        vl.json, svg, png, pdf
    """
    from gradatlas.core.jobs import by_name
    from gradatlas.figures.recall import write_recall

    paths = by_name(list(settings.models), scores, "--scores")
    write_recall(paths, settings.models, output, formats, settings.draws, settings.seed)


def write_gallery(*, figures: Path, chosen: Path, output: Path) -> None:
    """Draw the README's pictures anew from the figures of the default run (needs requirements-dev.txt).

    Parameters
    ----------
    figures
        folder of all figures, with their .vl.json
    chosen
        the figures to show, one a line
    output
        folder to write the pictures to
    """
    from gradatlas.charts import pictures
    from gradatlas.core.command import progress

    progress(f"{len(pictures.write_gallery(chosen, figures, output))} pictures in {output}")


def draw_audit(*, audit: Path, output: Path, formats: list[str]) -> None:
    """Draw the audit: what share of each response set states the right answer or is damaged.

    Parameters
    ----------
    audit
        the audit table (.parquet)
    output
        file to write, without its format
    formats
        any of vl.json, svg, png, pdf
    """
    from gradatlas.figures.audit import draw_audit

    draw_audit(audit, output, formats)


def draw_dynamics(
    *,
    curves: Path,
    tables: Path,
    one_step: Path | None = None,
    title: str,
    formats: list[str],
    output: Path,
    settings: Json[RunSettings],
) -> None:
    """Draw one model's and seed's finetuning runs: each run's probes, and runs beside one another by what they answer.

    Parameters
    ----------
    curves
        curves of summarise-dynamics (.parquet)
    tables
        folder with a folder per run: dynamics.parquet, training.parquet
    one_step
        table of check-step (.parquet)
    title
        the model and seed, as readers see them
    formats
        any of vl.json, svg, png, pdf
    output
        folder to write the figures to
    """
    from gradatlas.figures import run_gallery

    rows, followed = _by_name(settings), settings.followed
    run_gallery.draw_dynamics(curves, tables, one_step, rows, title, output, formats, followed)


def draw_bridge(
    *,
    bridge: list[Path],
    means: list[Path],
    title: str,
    formats: list[str],
    output: Path,
    settings: BootstrapSettings = BOOTSTRAP,
) -> None:
    """Draw the first study's gradients along one model's SFT on its own variants.

    Parameters
    ----------
    bridge
        bridge tables of measure-bridge, one a run (.parquet)
    means
        kernel_means tables of measure-kernels, in the same order (.parquet)
    title
        the model and dataset, as readers see them
    formats
        any of vl.json, svg, png, pdf
    output
        folder to write the figures to
    """
    from gradatlas.figures import bridge as figures

    figures.draw_bridge(bridge, means, title, output, formats, draws=settings.draws, seed=settings.seed)


def draw_seeds(
    *, curves: list[Path], title: str, formats: list[str], output: Path, settings: Json[RunSettings]
) -> None:
    """Draw what several seeds of one model's finetuning runs show together.

    Parameters
    ----------
    curves
        curves of summarise-dynamics, one a seed (.parquet)
    title
        the model, as readers see it
    formats
        any of vl.json, svg, png, pdf
    output
        folder to write the figures to
    """
    from gradatlas.figures import run_gallery

    run_gallery.draw_seeds(curves, _by_name(settings), title, output, formats)


def write_dynamics_table(
    *, pairs: str, curves: list[Path], published: Path, output: Path, settings: Json[RunTableSettings]
) -> None:
    """Write every finetuning run from start to end as a table: of each type of probe, beside published numbers.

    Parameters
    ----------
    pairs
        the pairs' name
    curves
        curves of summarise-dynamics, one a model and seed (.parquet)
    published
        known numbers (config/published_curves.tsv)
    output
        files to write, without their suffixes .parquet, .csv, .md and .tex
    """
    from gradatlas.core.command import progress
    from gradatlas.core.sheets import read_sheet
    from gradatlas.figures import run_table
    from gradatlas.study.sheets import PublishedCurveRow

    known = list(read_sheet(published, PublishedCurveRow, None).values())
    rows = run_table.write_dynamics_table(
        [(pairs, path) for path in curves], _by_name(settings), settings.titles, known, output
    )
    progress(f"{len(rows)} rows")


def draw_generations(
    *, curves: Path, published: Path, title: str, formats: list[str], output: Path, settings: Json[RunSettings]
) -> None:
    """Draw one model's free generations along its runs: win rates, repetition, answers of other questions.

    Parameters
    ----------
    curves
        curves of summarise-generations (.parquet)
    published
        the study's own win rates (config/published_dynamics.tsv)
    title
        the model, or model and seed, as readers see it
    formats
        any of vl.json, svg, png, pdf
    output
        folder to write the figures to
    """
    from gradatlas.core.sheets import read_sheet
    from gradatlas.figures import run_gallery
    from gradatlas.study.sheets import PublishedRateRow

    known = list(read_sheet(published, PublishedRateRow, None).values())
    run_gallery.draw_generations(curves, _by_name(settings), known, title, output, formats)


def write_win_rates(
    *, pairs: str, curves: list[Path], published: Path, output: Path, settings: Json[WinRateSettings]
) -> None:
    """Write the win rates of runs against their baselines as a table, beside the study's own with their judges.

    Parameters
    ----------
    pairs
        the pairs' name
    curves
        curves of summarise-generations, one a model and seed (.parquet)
    published
        the study's own win rates (config/published_dynamics.tsv)
    output
        files to write, without their suffixes .parquet, .csv, .md and .tex
    """
    from gradatlas.core.command import progress
    from gradatlas.core.sheets import read_sheet
    from gradatlas.figures import win_rates
    from gradatlas.study.sheets import PublishedRateRow

    known = list(read_sheet(published, PublishedRateRow, None).values())
    rows = win_rates.write_win_rates(
        [(pairs, path) for path in curves], _by_name(settings), settings.titles, settings.epochs, known, output
    )
    progress(f"{len(rows)} rows")


def _by_name(settings: RunSettings) -> dict[str, dict[str, Any]]:
    return {row["run"]: row for row in settings.runs}
