"""The jobs of the second study's figures and of its table, one a rule."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradatlas.core.jobs import Json

SCHEMAS = Path(__file__).resolve().parents[3] / "schemas"


@dataclass(frozen=True)
class RowsSettings:
    """Which runs are drawn."""

    runs: list[dict[str, Any]]
    """rows of config/runs.tsv, each after the run that it starts from"""


@dataclass(frozen=True)
class TableSettings(RowsSettings):
    """Which runs are in the table, and whose they are."""

    titles: dict[str, str] = field(default_factory=dict)
    """titles of models, by key"""


def draw_dynamics(
    *,
    curves: Path,
    tables: Path,
    one_step: Path | None = None,
    title: str,
    formats: list[str],
    output: Path,
    settings: Json[RowsSettings],
) -> None:
    """Draw one model's and seed's finetuning runs: each run's probes, and runs beside one another by what they answer.

    Parameters
    ----------
    curves
        curves of summarise-dynamics (.parquet)
    tables
        folder with a folder a run: dynamics.parquet, training.parquet
    one_step
        table of check-step (.parquet)
    title
        the model and seed, as readers see them
    formats
        any of vl.json, svg, png, pdf
    output
        folder to write the figures to
    """
    from gradatlas.figures.dynamics.draw import draw_dynamics as draw

    draw(curves, tables, one_step, _by_name(settings), title, output, formats)


def draw_seeds(
    *, curves: list[Path], title: str, formats: list[str], output: Path, settings: Json[RowsSettings]
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
    from gradatlas.figures.dynamics.draw import draw_seeds as draw

    draw(curves, _by_name(settings), title, output, formats)


def write_dynamics_table(
    *, pairs: str, curves: list[Path], published: Path, output: Path, settings: Json[TableSettings]
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
    from gradatlas.figures.dynamics.table import write_dynamics_table as write

    known = list(read_sheet(published, SCHEMAS / "published_curves.schema.yaml", None).values())
    rows = write([(pairs, path) for path in curves], _by_name(settings), settings.titles, known, output)
    progress(f"{len(rows)} rows")


def draw_generations(
    *, curves: Path, published: Path, title: str, formats: list[str], output: Path, settings: Json[RowsSettings]
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
    from gradatlas.figures.generations import draw_generations as draw

    titles = {name: row["title"] or name for name, row in _by_name(settings).items()}
    starts = {name: row["init"] for name, row in _by_name(settings).items()}
    known = list(read_sheet(published, SCHEMAS / "published_dynamics.schema.yaml", None).values())
    draw(curves, titles, starts, known, title, output, formats)


def _by_name(settings: RowsSettings) -> dict[str, dict[str, Any]]:
    return {row["run"]: row for row in settings.runs}
