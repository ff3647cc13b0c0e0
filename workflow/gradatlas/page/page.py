"""The page itself: its sections, and what each shows."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import markupsafe
import polars as pl

from gradatlas.charts.listing import read_index
from gradatlas.charts.names import (
    KINDS,
    PIPELINE_CHECK,
    in_order,
    label,
    relations_in_order,
    responses_of,
    statistic_label,
    variants_in_order,
)
from gradatlas.claims import ability
from gradatlas.core.checked import read_lines
from gradatlas.core.files import write_text
from gradatlas.core.tables import read_metadata, read_table
from gradatlas.figures import gallery, tables
from gradatlas.figures.gallery import LOSS_TOKENS
from gradatlas.page.explorer import CHARACTERS, GROUPS, SAMPLE_DIGITS, SAMPLES, TEXTS, explorer
from gradatlas.page.fixed import fixed
from gradatlas.page.second import changes_of, groups_of, runs_of
from gradatlas.page.verdicts import verdicts
from gradatlas.statistics.tables import CELLS

TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Section:
    """A part of the page: the id that links name, and its title.

    Its template is ``{id}.html.j2``; it stands on the page where the context has something under its id.
    """

    id: str
    title: str


# In the order of the page. A new part is a line here, a template, and its entry in the context.
SECTIONS = (
    Section("run", "What was run"),
    Section("claims", "What holds"),
    Section("fixed", "Which conclusions survive the fixed data"),
    Section("explorer", "Explore"),
    Section("reading", "How to read it"),
    Section("ability", "What the models can do"),
    Section("figures", "Figures and tables"),
    Section("dynamics", "Learning dynamics"),
    Section("toys", "Toys"),
    Section("config", "Settings and files"),
)
# What a sample can have come to, in words; a column of counts each, shown where any is not zero.
COUNTS = {
    "n_truncated": "truncated",
    "n_no_response_tokens": "no response tokens",
    "n_nonfinite": "not finite",
    "n_out_of_memory": "out of memory",
}
# What a model's metadata are called; others by their key.
FACTS = {
    "dtype": "Precision",
    "compat": "Made to match",
    "max_length": "Longest input, tokens",
    "model_digest": "Digest of the weights",
    "prompt": "Prompts",
}
FORMAT_NAMES = {"svg": "SVG", "png": "PNG", "vl.json": "Vega-Lite"}


def write_atlas(
    figures: Sequence[str | Path],
    cells: Sequence[str | Path],
    csv_tables: Sequence[str | Path],
    config: str | Path,
    output: str | Path,
    accuracy: Sequence[str | Path] = (),
    curves: Sequence[str | Path] = (),
    sample_layers: Sequence[str | Path] = (),
    responses: Sequence[str | Path] = (),
    claims: str | Path | None = None,
    second: Sequence[str | Path] = (),
    runs: Mapping[str, Mapping[str, Any]] | None = None,
    statuses: Sequence[tuple[str, str, str | Path]] = (),
    run_table: str | Path | None = None,
    prompts: Mapping[str, str] | None = None,
) -> int:
    """Write the page to `output`; returns the number of figures on it.

    `figures`: folders of `gallery.draw`, linked relative to the page. `cells`: one table a dataset. `csv_tables`: of
    `tables.write_tables`. `config`: a text file, shown as it is. `prompts`: by model, their form. `accuracy`: tables of
    what the models can do, shown beside their gradients. `curves`, `sample_layers` and `responses`: one table a
    dataset, for the explorer; a page without curves has none. `claims`: the table of verdicts. Of the second study,
    `second`: folders of figures with an index.json each; `runs`, `statuses`: as in `second.runs_of`; `run_table`: of
    `write_dynamics_table`. Without cells the page is of the second study alone. `InputError` where one of them is
    missing or is something else.
    """
    galleries = {index["dataset"]: (index, Path(folder)) for folder in figures for index in [read_index(folder)]}
    empty = pl.from_arrow(CELLS.empty())
    frame = pl.concat([empty, *(pl.from_arrow(read_table(CELLS, path)) for path in cells)])
    # A response counts once, whatever parts of it the loss was taken over too.
    whole = frame.filter(pl.col("loss_tokens") == LOSS_TOKENS)
    facts = [read_metadata(path, CELLS) for path in cells]
    blocks = [block for path in csv_tables for block in _blocks(path)]
    answers = ability.read(accuracy)
    able = ability.abilities(answers)
    base = Path(output).resolve().parent
    titles = {key: index["dataset_title"] for key, (index, _) in galleries.items()}
    datasets = [
        _dataset(
            key,
            titles.get(key, key),
            frame.filter(pl.col("dataset") == key),
            whole if key == gallery.KEY else whole.filter(pl.col("dataset") == key),
            galleries.get(key),
            blocks,
            able,
            base,
        )
        for key in dict.fromkeys([*galleries, *frame["dataset"].unique(maintain_order=True)])
    ]
    titles = {dataset["key"]: dataset["title"] for dataset in datasets}
    models = _models(frame, facts, titles, prompts or {})
    groups = groups_of(second, lambda path: _link(path, base), FORMAT_NAMES)
    drawn = [figure for dataset in datasets for model in dataset["models"] for figure in model["figures"]]
    context = {
        "summary": _summary(whole) if datasets else _summary_of_runs(statuses),
        "checks": _checked(frame),
        "run": {"models": models, "facts": _fact_names(models), "counts": _counts(whole, titles)} if datasets else None,
        "claims": verdicts(claims, titles) if claims else None,
        "fixed": fixed(claims, frame, titles) if claims else None,
        "explorer": explorer(curves, sample_layers, responses, titles),
        "apart": _apart(prompts or {}),
        "limits": {
            "samples": SAMPLES,
            "texts": TEXTS,
            "characters": CHARACTERS,
            "groups": GROUPS,
            "digits": SAMPLE_DIGITS,
        },
        "reading": {
            "draws": sorted({fact["draws"] for fact in facts if "draws" in fact}),
            "notes": {**tables.NOTES, "ability": ability.NOTE},
        }
        if datasets
        else None,
        "ability": ability.table(answers) if len(answers) else None,
        "figures": {
            "count": len(drawn),
            "filters": [
                ("model", "Model", [(model["key"], model["key"]) for model in models]),
                ("dataset", "Dataset", [(dataset["key"], dataset["title"]) for dataset in datasets]),
                ("relation", "Responses", _options([figure["relation"] for figure in drawn], relations_in_order)),
                (
                    "kind",
                    "Figure",
                    [(kind, KINDS.get(kind, kind)) for kind in in_order([f["kind"] for f in drawn], KINDS)],
                ),
            ],
        }
        if datasets
        else None,
        "datasets": datasets,
        "dynamics": {
            "runs": runs_of(runs or {}, statuses),
            "groups": groups["dynamics"],
            "changes": changes_of(run_table, runs or {}) if run_table else [],
        }
        if groups["dynamics"] or statuses
        else None,
        "toys": groups["toys"],
        "config": {
            "text": read_lines(config, "write_config", own=False),
            "files": [
                (Path(path).name, _link(path, base))
                for path in [*csv_tables, *(each for each in (run_table, claims) if each)]
            ],
        },
    }
    write_text(output, _render(context))
    return len(drawn) + sum(len(group["figures"] + group["every"]) for part in groups.values() for group in part)


def _render(context: Mapping[str, Any]) -> str:
    """The page as text; style and scripts are put into it as they are."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["asset"] = lambda name: markupsafe.Markup((TEMPLATES / name).read_text(encoding="utf-8"))
    shown = [section for section in SECTIONS if context[section.id]]
    return environment.get_template("page.html.j2").render(context, sections=shown)


def _dataset(
    key: str,
    title: str,
    cells: pl.DataFrame,
    drawn: pl.DataFrame,
    gallery: tuple[dict[str, Any], Path] | None,
    blocks: Sequence[tables.Block],
    able: Mapping[tuple[str, str], ability.Ability],
    base: Path,
) -> dict[str, Any]:
    """One dataset, or all of them together (`gallery.KEY`): its samples, and by model figures and tables.

    `cells`: the dataset's rows of the cells table; of all of them together, none. `drawn`: the rows that the figures
    are made of, which decide the badges.
    """
    index, folder = gallery or ({"figures": []}, base)
    models = in_order([*(figure["model"] for figure in index["figures"]), *cells["model"]], [])
    return {
        "key": key,
        "title": title,
        "samples": _samples(cells, able),
        "models": [
            {
                "key": model,
                "badges": [*_badges(drawn.filter(pl.col("model") == model)), *_marks(able, model, key)],
                "figures": [_figure(entry, folder, base) for entry in index["figures"] if entry["model"] == model],
                "tables": [_table(block) for block in blocks if (block.model, block.dataset) == (model, key)],
            }
            for model in models
        ],
    }


def _figure(entry: dict[str, Any], folder: Path, base: Path) -> dict[str, Any]:
    """A figure as the page shows it; `image` is the SVG, or the PNG where no SVG was drawn, or nothing."""
    files = {name: _link(folder / file, base) for name, file in entry["files"].items()}
    return {
        **{key: entry[key] for key in ("relation", "kind", "title")},
        "image": files.get("svg") or files.get("png"),
        "width": entry.get("width"),
        "height": entry.get("height"),
        "caption": _caption(entry["kind"], entry["relation"]),
        "description": " ".join([f"{entry['title']}.", *entry["subtitle"]]),
        "files": [(FORMAT_NAMES.get(name, name), link) for name, link in files.items()],
    }


def _caption(kind: str, relation: str) -> str:
    if kind == "compared":
        return f"{label(relation)} against correct responses"
    return f"{KINDS.get(kind, label(kind))}, {responses_of(relation)}"


def _table(block: tables.Block) -> dict[str, Any]:
    tokens = "" if block.loss_tokens == "all" else f", loss on {block.loss_tokens}"
    return {
        "kind": block.kind,
        "relation": block.relation,
        "name": block.kind.upper(),
        "of": f"{statistic_label(block.statistic)}, {responses_of(block.relation)}{tokens}",
        "header": block.header,
        "rows": block.rows,
    }


def _samples(cells: pl.DataFrame, able: Mapping[tuple[str, str], ability.Ability]) -> dict[str, Any]:
    """What was measured on a dataset, a row a cell; of the ways to fail, those that happened.

    Beside the losses of the correct responses stands how often the model gives the answer itself, where that was asked.
    """
    failed = [name for name in COUNTS if cells[name].sum()]
    variants, relations = (variants_in_order(cells["variant"]), relations_in_order(cells["relation"]))
    rows = sorted(
        cells.to_dicts(),
        key=lambda row: (row["model"], relations.index(row["relation"]), variants.index(row["variant"])),
    )
    means = ("loss", "prompt_tokens", "response_tokens")
    asked = any((row["model"], row["dataset"]) in able for row in rows)
    return {
        "header": [
            *("Model", "Responses", "Variant", "Samples", "Used"),
            *(label(COUNTS[name]) for name in failed),
            *("Loss", "Prompt tokens", "Response tokens"),
            *(["Model’s own answers right"] if asked else []),
        ],
        "rows": [
            [
                row["model"],
                label(row["relation"]) + ("" if row["loss_tokens"] == "all" else f" ({row['loss_tokens']})"),
                label(row["variant"]),
                *(f"{row[name]:,}" for name in ("n", "n_ok", *failed)),
                *(tables.three_digits(row[name]) for name in means),
                *([_answers(row, able)] if asked else []),
            ]
            for row in rows
        ],
    }


def _answers(row: dict[str, Any], able: Mapping[tuple[str, str], ability.Ability]) -> str:
    known = able.get((row["model"], row["dataset"]))
    if known is None or row["relation"] != "correct" or row["variant"] not in known.shares:
        return "–"
    return " ".join([ability.share(known.shares[row["variant"]][0]), f"(chance {ability.share(known.chance)})"])


def _models(
    cells: pl.DataFrame, facts: Sequence[dict[str, Any]], titles: Mapping[str, str], prompts: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Models with what their measurements' metadata say of them, and the form of their prompts."""
    known: dict[str, dict[str, Any]] = {model: {"prompt": form} for model, form in prompts.items()}
    for fact in facts:
        for key, values in fact.get("models", {}).items():
            known.setdefault(key, {}).update({name: value for name, value in values.items() if value not in (None, "")})
    return [
        {
            "key": key,
            "facts": {name: str(value) for name, value in known.get(key, {}).items()},
            "checks": [titles[name] for name in sorted(set(cells.filter(_is_check(), model=key)["dataset"]))],
        }
        for key in sorted(set(cells["model"]))
    ]


def _counts(cells: pl.DataFrame, titles: Mapping[str, str]) -> dict[str, Any]:
    """Responses measured by dataset and model: a row a dataset, all its variants and kinds of response together."""
    models = sorted(set(cells["model"]))
    counted = {row[:2]: row[2:] for row in cells.group_by("dataset", "model").agg(pl.sum("n_ok", "n")).iter_rows()}
    rows = []
    for dataset in dict.fromkeys(cells["dataset"]):
        found = [counted.get((dataset, model)) for model in models]
        rows.append([titles[dataset], *("–" if pair is None else _of_all(*pair) for pair in found)])
    return {"header": ["Dataset", *models], "rows": rows}


def _of_all(ok: int, asked: int) -> str:
    return f"{ok:,}" if ok == asked else f"{ok:,} of {asked:,}"


def _fact_names(models: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return [
        (name, FACTS.get(name, label(name))) for name in sorted({name for model in models for name in model["facts"]})
    ]


def _summary(cells: pl.DataFrame) -> list[tuple[str, str]]:
    """The study's size in a few numbers."""
    counted = [
        (cells["model"].n_unique(), "model", "models"),
        (cells["dataset"].n_unique(), "dataset", "datasets"),
        (cells["variant"].n_unique(), "variant", "variants"),
        (cells["relation"].n_unique(), "kind of response", "kinds of response"),
        (cells["n_ok"].sum(), "response measured", "responses measured"),
        (cells["n"].sum() - cells["n_ok"].sum(), "sample left out", "samples left out"),
    ]
    return [(f"{count:,}", one if count == 1 else many) for count, one, many in counted]


def _summary_of_runs(statuses: Sequence[tuple[str, str, str | Path]]) -> list[tuple[str, str]]:
    """The same of the second study alone."""
    counted = [
        (len({model for model, _, _ in statuses}), "model", "models"),
        (len({seed for _, seed, _ in statuses}), "seed", "seeds"),
        (len(statuses), "finetuning run", "finetuning runs"),
    ]
    return [(f"{count:,}", one if count == 1 else many) for count, one, many in counted]


def _badges(cells: pl.DataFrame) -> list[str]:
    """What holds of one model's cells: of no cell, nothing."""
    checked = cells.select(_is_check()).to_series()
    found = [PIPELINE_CHECK if checked.all() else f"{PIPELINE_CHECK} in part"] if checked.any() else []
    return found + (["no usable sample"] if cells.height and not cells["n_ok"].sum() else [])


def _marks(able: Mapping[tuple[str, str], ability.Ability], model: str, dataset: str) -> list[str]:
    return [able[model, dataset].mark] if (model, dataset) in able and able[model, dataset].mark else []


def _apart(prompts: Mapping[str, str]) -> str:
    """Which models read prompts of which form, where they are not all alike."""
    forms = {form: [model for model, own in prompts.items() if own == form] for form in dict.fromkeys(prompts.values())}
    return "; ".join(f"{form}: {', '.join(models)}" for form, models in forms.items()) if len(forms) > 1 else ""


def _checked(cells: pl.DataFrame) -> bool:
    return not cells.filter(_is_check()).is_empty()


def _is_check() -> pl.Expr:
    return pl.col("purpose") == PIPELINE_CHECK


def _options(keys: Sequence[str], order: Any) -> list[tuple[str, str]]:
    return [(key, label(key)) for key in order(keys)]


def _blocks(path: str | Path) -> list[tables.Block]:
    kind, frame = tables.read_estimates(path)
    return tables.blocks(frame, kind)


def _link(path: str | Path, base: Path) -> str:
    """The way from the page to a file, as a URL."""
    return quote(Path(os.path.relpath(Path(path).resolve(), base)).as_posix())
