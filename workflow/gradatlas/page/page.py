"""The page itself: its sections, and what each shows of the first study."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from gradatlas.charts.listing import read_index
from gradatlas.charts.names import (
    KINDS,
    VARIANTS,
    in_order,
    label,
    relations_in_order,
    responses_of,
    statistic_label,
    variants_in_order,
)
from gradatlas.charts.numbers import share
from gradatlas.charts.save import size_of_svg
from gradatlas.claims import ability
from gradatlas.core.checked import read_lines
from gradatlas.core.files import write_text
from gradatlas.core.tables import read_metadata, read_table
from gradatlas.figures import gallery, tables
from gradatlas.figures.data import ALL
from gradatlas.page import explorer
from gradatlas.page.drawn import drawn, link
from gradatlas.page.dynamics import changes_of, groups_of, rates_of, runs_of
from gradatlas.page.fixed import fixed
from gradatlas.page.templating import render
from gradatlas.page.verdicts import verdicts
from gradatlas.statistics.counts import LEFT_OUT, WHOLE_RESPONSE, has_check, is_check, is_whole, marks
from gradatlas.statistics.tables import CELLS

# In the order of the page: id, which links name, and title. A section is on the page where the context has something
# under its id; its template is ``{id}.html.j2``.
SECTIONS = {
    "run": "What was run",
    "reading": "How to read it",
    "scores": "Scores of training files",
    "claims": "What holds",
    "fixed": "Which conclusions survive the fixed data",
    "explorer": "Explore",
    "ability": "What the models can do",
    "figures": "Figures and tables",
    "dynamics": "Learning dynamics",
    "toys": "Toys",
    "config": "Settings and files",
}
# What a model's metadata are called; others by their key.
FACTS = {
    "dtype": "Precision",
    "compat": "Made to match",
    "max_length": "Longest input, tokens",
    "model_digest": "Digest of the weights",
    "prompt": "Prompts",
}

Abilities = Mapping[tuple[str, str], ability.Ability]


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
    win_rates: str | Path | None = None,
    prompts: Mapping[str, str] | None = None,
    scores: Sequence[str | Path] = (),
    quality: Sequence[str | Path] = (),
) -> int:
    """Write the page to `output`; returns the number of figures on it.

    `figures`: folders of `gallery.draw`, linked relative to the page. `cells`: one table per dataset. `csv_tables`: of
    `tables.write_tables`. `config`: a text file, shown as it is. `accuracy`: tables of what the models can do.
    `curves`, `sample_layers` and `responses`: one table per dataset, for the explorer; a page without curves has none.
    `claims`: the table of verdicts. `prompts`: by model, the form of its prompts. `scores`: pages to link to;
    `quality`: pictures of what was made of scores. Of the
    second study, `second`: folders of figures, an index.json in each; `runs`, `statuses`: as in `dynamics.runs_of`;
    `run_table`: of `write_dynamics_table`; `win_rates`: of `write_win_rates`. Without cells the page shows the second
    study and scores alone. `InputError` where one of them is missing or is something else.
    """
    base = Path(output).resolve().parent
    runs, prompts = runs or {}, prompts or {}
    frame = pl.concat([pl.from_arrow(table) for table in (CELLS.empty(), *(read_table(CELLS, path) for path in cells))])
    measured = frame.filter(is_whole())
    facts = [read_metadata(path, CELLS) for path in cells]
    answers = ability.read(accuracy)
    datasets = _datasets(figures, frame, csv_tables, ability.abilities(answers), base)
    titles = {dataset["key"]: dataset["title"] for dataset in datasets}
    groups = groups_of(second, base)
    shown = [figure for dataset in datasets for model in dataset["models"] for figure in model["figures"]]
    context: dict[str, Any] = {
        "summary": _summary(measured)
        if datasets
        else _summary_of_runs(statuses)
        if statuses
        else _summary_of_scores(scores),
        "checks": has_check(frame),
        "claims": verdicts(claims, titles) if claims else None,
        "fixed": fixed(claims, frame, titles) if claims else None,
        "explorer": explorer.explorer(curves, sample_layers, responses, titles),
        "limits": explorer,
        "prompt_forms": _prompt_forms(prompts),
        "ability": {"note": ability.NOTE, "table": ability.table(answers)} if len(answers) else None,
        "datasets": datasets,
        "scores": [
            {"of": f"{page.parent.name} on {page.parent.parent.name}", "page": link(page, base)}
            for page in map(Path, scores)
        ],
        "quality": [_of_quality(Path(path), base) for path in quality],
        "toys": groups["toys"],
        "config": {
            "text": read_lines(config, "write_config"),
            "files": [
                (Path(path).name, link(path, base)) for path in (*csv_tables, run_table, win_rates, claims) if path
            ],
        },
        **dict.fromkeys(("run", "reading", "figures", "dynamics")),
    }
    if datasets:
        draws = sorted({fact["draws"] for fact in facts if "draws" in fact})
        context |= {
            "run": {"counts": _counts(measured, titles), "models": _models(frame, facts, titles, prompts)},
            "reading": {"draws": draws, "notes": tables.NOTES, **_terms(frame)},
            "figures": {"count": len(shown), "filters": _filters(frame, titles, shown)},
        }
    if groups["dynamics"] or statuses:
        context["dynamics"] = {
            "runs": runs_of(runs, statuses),
            "groups": groups["dynamics"],
            "changes": changes_of(run_table, runs) if run_table else [],
            "win_rates": rates_of(win_rates, runs) if win_rates else [],
        }
    sections = {key: title for key, title in SECTIONS.items() if context[key]}
    write_text(output, render("page.html.j2", {**context, "sections": sections}))
    return len(shown) + sum(len(group["figures"] + group["every"]) for part in groups.values() for group in part)


def _datasets(
    folders: Sequence[str | Path], cells: pl.DataFrame, csv_tables: Sequence[str | Path], able: Abilities, base: Path
) -> list[dict[str, Any]]:
    """Each dataset, and all of them together (`gallery.KEY`): its samples, and by model figures and tables."""
    galleries = {index["dataset"]: (index, Path(folder)) for folder in folders for index in [read_index(folder)]}
    blocks = [block for path in csv_tables for block in _blocks(path)]
    found = []
    for key in dict.fromkeys([*galleries, *cells["dataset"].unique(maintain_order=True)]):
        index, folder = galleries.get(key, ({"dataset_title": key, "figures": []}, base))
        own = cells.filter(dataset=key)
        # Figures of all datasets together carry the marks of all their cells.
        marked = (cells if key == gallery.KEY else own).filter(is_whole())
        models = [
            {
                "key": model,
                "badges": [*marks(marked.filter(model=model)), *_mark(able, model, key)],
                "figures": [_figure(entry, folder, base) for entry in index["figures"] if entry["model"] == model],
                "tables": [_table(block) for block in blocks if (block.model, block.dataset) == (model, key)],
            }
            for model in sorted({*(entry["model"] for entry in index["figures"]), *own["model"]})
        ]
        found.append({"key": key, "title": index["dataset_title"], "samples": _samples(own, able), "models": models})
    return found


def _blocks(path: str | Path) -> list[tables.Block]:
    kind, frame = tables.read_estimates(path)
    return tables.blocks(frame, kind)


def _mark(able: Abilities, model: str, dataset: str) -> list[str]:
    return [able[model, dataset].mark] if (model, dataset) in able and able[model, dataset].mark else []


def _figure(entry: dict[str, Any], folder: Path, base: Path) -> dict[str, Any]:
    kind, relation = entry["kind"], entry["relation"]
    caption = KINDS.get(kind, label(kind))
    if kind == "compared":
        caption = f"{label(relation)} against correct responses"
    elif relation != ALL:
        caption += f", {responses_of(relation)}"
    return drawn(entry, folder, base, kind, caption)


def _table(block: tables.Block) -> dict[str, Any]:
    tokens = "" if block.loss_tokens == WHOLE_RESPONSE else f", loss on {block.loss_tokens}"
    return {
        "relation": block.relation,
        "name": block.kind.upper(),
        "of": f"{statistic_label(block.statistic)}, {responses_of(block.relation)}{tokens}",
        "header": block.header,
        "rows": block.rows,
    }


def _samples(cells: pl.DataFrame, able: Abilities) -> dict[str, Any]:
    """What was measured on a dataset, a row per cell; of the reasons to leave a sample out, those that occurred.

    Where it was measured, a last column has the model's accuracy in answering by itself.
    """
    counts = {name: words for name, words in {"n_truncated": "truncated", **LEFT_OUT}.items() if cells[name].sum()}
    variants, relations = variants_in_order(cells["variant"]), relations_in_order(cells["relation"])
    rows = sorted(
        cells.to_dicts(),
        key=lambda row: (row["model"], relations.index(row["relation"]), variants.index(row["variant"])),
    )
    answered = any((row["model"], row["dataset"]) in able for row in rows)
    return {
        "header": [
            *("Model", "Responses", "Variant", "Samples", "Used"),
            *map(label, counts.values()),
            *("Loss", "Prompt tokens", "Response tokens"),
            *(["Accuracy"] if answered else []),
        ],
        "rows": [
            [
                row["model"],
                label(row["relation"]) + ("" if row["loss_tokens"] == WHOLE_RESPONSE else f" ({row['loss_tokens']})"),
                label(row["variant"]),
                *(f"{row[name]:,}" for name in ("n", "n_ok", *counts)),
                *(tables.three_digits(row[name]) for name in ("loss", "prompt_tokens", "response_tokens")),
                *([_answers(row, able)] if answered else []),
            ]
            for row in rows
        ],
    }


def _answers(row: dict[str, Any], able: Abilities) -> str:
    known = able.get((row["model"], row["dataset"]))
    if known is None or row["relation"] != "correct" or row["variant"] not in known.shares:
        return "–"
    return f"{share(known.shares[row['variant']][0])} (chance {share(known.chance)})"


def _models(
    cells: pl.DataFrame, facts: Sequence[dict[str, Any]], titles: Mapping[str, str], prompts: Mapping[str, str]
) -> dict[str, Any]:
    """A row per model: what its measurements' metadata state, the form of its prompts, and where it is a check."""
    known: dict[str, dict[str, Any]] = {model: {"prompt": form} for model, form in prompts.items()}
    for fact in facts:
        for model, values in fact.get("models", {}).items():
            known.setdefault(model, {}).update({key: value for key, value in values.items() if value not in (None, "")})
    models = sorted(set(cells["model"]))
    names = sorted({name for model in models for name in known.get(model, {})})
    checks = cells.filter(is_check())
    rows = []
    for model in models:
        values = [str(known.get(model, {}).get(name, "–"))[:16] for name in names]
        datasets = [titles[key] for key in sorted(set(checks.filter(model=model)["dataset"]))]
        rows.append([model, *values, ", ".join(datasets) or "–"])
    return {"header": ["Model", *(FACTS.get(name, label(name)) for name in names), "Pipeline check on"], "rows": rows}


def _counts(cells: pl.DataFrame, titles: Mapping[str, str]) -> dict[str, Any]:
    """Responses measured by dataset and model: a row per dataset, all its variants and kinds of response together."""
    models = sorted(set(cells["model"]))
    counted = {row[:2]: row[2:] for row in cells.group_by("dataset", "model").agg(pl.sum("n_ok", "n")).iter_rows()}
    rows = []
    for dataset in dict.fromkeys(cells["dataset"]):
        found = [counted.get((dataset, model)) for model in models]
        rows.append([titles[dataset], *("–" if pair is None else _of_all(*pair) for pair in found)])
    return {"header": ["Dataset", *models], "rows": rows}


def _of_all(used: int, requested: int) -> str:
    return f"{used:,}" if used == requested else f"{used:,} of {requested:,}"


def _terms(cells: pl.DataFrame) -> dict[str, Any]:
    """The variants and kinds of response that were measured, as (key, name); whether some variants are lengths, and
    whether some losses are on part of a response.
    """
    variants, relations = variants_in_order(cells["variant"]), relations_in_order(cells["relation"])
    return {
        "variants": [(key, label(key)) for key in variants],
        "relations": [(key, label(key)) for key in relations],
        "lengths": any(key not in VARIANTS for key in variants),
        "parts": not cells.filter(~is_whole()).is_empty(),
    }


def _summary(cells: pl.DataFrame) -> list[tuple[str, str]]:
    """The study's size in a few numbers."""
    return _counted(
        (cells["model"].n_unique(), "model", "models"),
        (cells["dataset"].n_unique(), "dataset", "datasets"),
        (cells["variant"].n_unique(), "variant", "variants"),
        (cells["relation"].n_unique(), "kind of response", "kinds of response"),
        (cells["n_ok"].sum(), "response measured", "responses measured"),
        (cells["n"].sum() - cells["n_ok"].sum(), "sample left out", "samples left out"),
    )


def _summary_of_runs(statuses: Sequence[tuple[str, str, str | Path]]) -> list[tuple[str, str]]:
    """The size of the second study, where there is no other."""
    return _counted(
        (len({model for model, _, _ in statuses}), "model", "models"),
        (len({seed for _, seed, _ in statuses}), "seed", "seeds"),
        (len(statuses), "finetuning run", "finetuning runs"),
    )


def _summary_of_scores(pages: Sequence[str | Path]) -> list[tuple[str, str]]:
    """The size of what was scored, where there is no study."""
    places = [Path(page).parts[-3:-1] for page in pages]
    return _counted(
        (len({model for model, _ in places}), "model", "models"),
        (len({dataset for _, dataset in places}), "training file", "training files"),
    )


def _of_quality(path: Path, base: Path) -> dict[str, Any]:
    """A picture of a comparison, of recall or of cosines, as the page shows it; its folders name it."""
    above = path.parent
    if path.stem == "recall":
        title = f"Recall of planted faults in {above.name}"
    elif above.parent.name == "cosines":
        title = f"Cosines of gradients of {path.stem} on {above.name}"
    else:
        title = f"High and low quality of {above.name} on {above.parent.name}"
    width, height = size_of_svg(path)
    return {
        "kind": "quality",
        "relation": "",
        "title": title,
        "caption": title,
        "description": title,
        "image": link(path, base),
        "width": width,
        "height": height,
        "files": [("SVG", link(path, base)), ("Folder", link(path.parent, base))],
    }


def _counted(*counts: tuple[int, str, str]) -> list[tuple[str, str]]:
    return [(f"{count:,}", one if count == 1 else many) for count, one, many in counts]


def _prompt_forms(prompts: Mapping[str, str]) -> str:
    """Which models read prompts of which form, where they are not all alike."""
    forms = {form: [model for model, own in prompts.items() if own == form] for form in dict.fromkeys(prompts.values())}
    return "; ".join(f"{form}: {', '.join(models)}" for form, models in forms.items()) if len(forms) > 1 else ""


def _filters(
    cells: pl.DataFrame, titles: Mapping[str, str], shown: Sequence[dict[str, Any]]
) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Key, title and options (value, text) of each choice that narrows the figures."""
    relations = relations_in_order(figure["relation"] for figure in shown)
    kinds = in_order((figure["kind"] for figure in shown), KINDS)
    return [
        ("model", "Model", [(model, model) for model in sorted(set(cells["model"]))]),
        ("dataset", "Dataset", list(titles.items())),
        ("relation", "Responses", [(key, label(key)) for key in relations]),
        ("kind", "Figure", [(key, KINDS.get(key, label(key))) for key in kinds]),
    ]
