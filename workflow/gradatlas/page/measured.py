"""What was measured, as tables of the page: counts, models, samples, MAD and RD."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from gradatlas.charts.names import (
    TERMS,
    label,
    relations_in_order,
    responses_of,
    statistic_label,
    variants_in_order,
)
from gradatlas.charts.numbers import share
from gradatlas.claims.ability import Abilities
from gradatlas.figures import tables
from gradatlas.page.titles import Titles
from gradatlas.statistics.counts import LEFT_OUT, WHOLE_RESPONSE, is_check

# What a model's metadata are called; others by their key.
FACTS = {
    "dtype": "Precision",
    "compat": "Made to match",
    "max_length": "Longest input, tokens",
    "model_digest": "Digest of the weights",
    "prompt": "Prompts",
}


def tables_of(
    cells: pl.DataFrame, csv_tables: Sequence[str | Path], able: Abilities, titles: Titles
) -> list[dict[str, Any]]:
    """By dataset its samples, and its tables of MAD and RD. `titles`: of models and datasets."""
    blocks = [block for path in csv_tables for block in _blocks(path)]
    return [
        {
            "title": titles[key],
            "samples": _samples(cells.filter(dataset=key), able, titles),
            "tables": [_table(block, titles) for block in blocks if block.dataset == key],
        }
        for key in dict.fromkeys(cells["dataset"])
    ]


def _blocks(path: str | Path) -> list[tables.Block]:
    kind, frame = tables.read_estimates(path)
    return tables.blocks(frame, kind)


def _table(block: tables.Block, titles: Titles) -> dict[str, Any]:
    tokens = "" if block.loss_tokens == WHOLE_RESPONSE else f", loss on {block.loss_tokens}"
    return {
        "name": block.kind.upper(),
        "of": f"{titles[block.model]}, {statistic_label(block.statistic)}, {responses_of(block.relation)}{tokens}",
        "header": block.header,
        "rows": block.rows,
    }


def _samples(cells: pl.DataFrame, able: Abilities, titles: Titles) -> dict[str, Any]:
    """What was measured on a dataset, a row per cell; of the reasons to leave a sample out, those that occurred.

    Where it was measured, a last column has the model's accuracy in answering by itself.
    """
    reasons = {name: words for name, words in {"n_truncated": "truncated", **LEFT_OUT}.items() if cells[name].sum()}
    variants, relations = variants_in_order(cells["variant"]), relations_in_order(cells["relation"])
    rows = sorted(
        cells.to_dicts(),
        key=lambda row: (row["model"], relations.index(row["relation"]), variants.index(row["variant"])),
    )
    answered = any((row["model"], row["dataset"]) in able for row in rows)
    return {
        "header": [
            *("Model", "Responses", "Variant", "Samples", "Used"),
            *map(label, reasons.values()),
            *("Loss", "Prompt tokens", "Response tokens"),
            *(["Accuracy"] if answered else []),
        ],
        "rows": [
            [
                titles[row["model"]],
                TERMS.get(row["relation"], label(row["relation"]))
                + ("" if row["loss_tokens"] == WHOLE_RESPONSE else f" ({row['loss_tokens']})"),
                label(row["variant"]),
                *(f"{row[name]:,}" for name in ("n", "n_ok", *reasons)),
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


def models_table(
    cells: pl.DataFrame, facts: Sequence[dict[str, Any]], titles: Titles, prompts: Mapping[str, str]
) -> dict[str, Any]:
    """A row per model: its key, what its measurements' metadata state, the form of its prompts, where it is a check."""
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
        rows.append([titles[model], model, *values, ", ".join(datasets) or "–"])
    return {
        "header": ["Model", "Key", *(FACTS.get(name, label(name)) for name in names), "Pipeline check on"],
        "rows": rows,
    }


def counts_table(cells: pl.DataFrame, titles: Titles) -> dict[str, Any]:
    """Responses measured by dataset and model: a row per dataset, all its variants and kinds of response together."""
    models = sorted(set(cells["model"]))
    counted = {row[:2]: row[2:] for row in cells.group_by("dataset", "model").agg(pl.sum("n_ok", "n")).iter_rows()}
    rows = []
    for dataset in dict.fromkeys(cells["dataset"]):
        found = [counted.get((dataset, model)) for model in models]
        rows.append([titles[dataset], *("–" if pair is None else _of_all(*pair) for pair in found)])
    return {"header": ["Dataset", *(titles[model] for model in models)], "rows": rows}


def _of_all(used: int, requested: int) -> str:
    return f"{used:,}" if used == requested else f"{used:,} of {requested:,}"


def summary(cells: pl.DataFrame) -> list[tuple[str, str]]:
    """The study's size in a few numbers."""
    return _counted(
        (cells["model"].n_unique(), "model", "models"),
        (cells["dataset"].n_unique(), "dataset", "datasets"),
        (cells["variant"].n_unique(), "variant", "variants"),
        (cells["relation"].n_unique(), "kind of response", "kinds of response"),
        (cells["n_ok"].sum(), "response measured", "responses measured"),
        (cells["n"].sum() - cells["n_ok"].sum(), "sample left out", "samples left out"),
    )


def summary_of_runs(statuses: Sequence[tuple[str, str, str | Path]]) -> list[tuple[str, str]]:
    """The size of the second study, where there is no other."""
    return _counted(
        (len({model for model, _, _ in statuses}), "model", "models"),
        (len({seed for _, seed, _ in statuses}), "seed", "seeds"),
        (len(statuses), "finetuning run", "finetuning runs"),
    )


def summary_of_scores(pages: Sequence[str | Path]) -> list[tuple[str, str]]:
    """The size of what was scored, where there is no study."""
    places = [Path(page).parts[-3:-1] for page in pages]
    return _counted(
        (len({model for model, _ in places}), "model", "models"),
        (len({dataset for _, dataset in places}), "training file", "training files"),
    )


def _counted(*counts: tuple[int, str, str]) -> list[tuple[str, str]]:
    return [(f"{count:,}", one if count == 1 else many) for count, one, many in counts]


def prompt_forms(prompts: Mapping[str, str], titles: Titles) -> str:
    """Which models read prompts of which form, where they are not all alike."""
    forms = {
        form: [titles[model] for model, own in prompts.items() if own == form]
        for form in dict.fromkeys(prompts.values())
    }
    return "; ".join(f"{form}: {', '.join(models)}" for form, models in forms.items()) if len(forms) > 1 else ""
