"""The two pages: findings, explorer, verdicts and figures; and beside them data, tables, toys and settings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from gradatlas.claims import ability
from gradatlas.core.checked import read_lines
from gradatlas.core.files import write_text
from gradatlas.core.tables import read_metadata, read_table
from gradatlas.figures import tables
from gradatlas.page import explorer, measured
from gradatlas.page.dynamics import changes_of, rates_of, runs_of
from gradatlas.page.figures import filters, groups_of, link, of_pictures
from gradatlas.page.findings import findings as findings_of
from gradatlas.page.fixed import fixed
from gradatlas.page.glossary import Glossary, read_glossary
from gradatlas.page.templating import render
from gradatlas.page.titles import Titles
from gradatlas.page.verdicts import verdicts
from gradatlas.statistics.counts import has_check, is_whole
from gradatlas.statistics.tables import CELLS

# Of each page, in order: id, which links name, and title. A section is on the page where the context has something
# under its id; its template is ``{id}.html.j2``.
FIRST = {
    "findings": "What was found",
    "explorer": "Explore",
    "claims": "Verdicts",
    "scores": "Scores of training files",
    "figures": "Figures",
}
SECOND = {
    "run": "What was run",
    "terms": "Glossary",
    "ability": "What the models can do",
    "tables": "Samples and tables",
    "dynamics": "Finetuning runs",
    "toys": "Toys",
    "config": "Settings and files",
}
# The second page, beside the first one.
MORE = "more.html"


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
    findings: str | Path | None = None,
    glossary: str | Path | None = None,
    second: Sequence[str | Path] = (),
    runs: Mapping[str, Mapping[str, Any]] | None = None,
    statuses: Sequence[tuple[str, str, str | Path]] = (),
    run_table: str | Path | None = None,
    win_rates: str | Path | None = None,
    prompts: Mapping[str, str] | None = None,
    titles: Mapping[str, str] | None = None,
    scores: Sequence[str | Path] = (),
    pictures: Sequence[str | Path] = (),
) -> int:
    """Write the page to `output` and the second one (`MORE`) beside it; returns the number of figures on them.

    `figures`: folders of `gallery.draw`, linked relative to the page. `cells`: one table per dataset. `csv_tables`: of
    `tables.write_tables`. `config`: a text file, shown as it is. `accuracy`: tables of what the models can do.
    `curves`, `sample_layers` and `responses`: one table per dataset, for the explorer; a page without curves has none.
    `claims`: the table of verdicts; `findings`: the JSON made of it; `glossary`: its terms become tooltips. `prompts`:
    by model, the form of its prompts; `titles`: of models and datasets, by key. `scores`: pages to link to; `pictures`:
    of the claims and of what was made of scores. Of the second study, `second`: folders of figures, an index.json in
    each; `runs`, `statuses`: as in `dynamics.runs_of`; `run_table`: of `write_dynamics_table`; `win_rates`: of
    `write_win_rates`. Without cells the page shows the second study and scores alone. `InputError` where one of them is
    missing or is something else.
    """
    base = Path(output).resolve().parent
    runs, prompts = runs or {}, prompts or {}
    frame = pl.concat([pl.from_arrow(table) for table in (CELLS.empty(), *(read_table(CELLS, path) for path in cells))])
    whole = frame.filter(is_whole())
    facts = [read_metadata(path, CELLS) for path in cells]
    answers = ability.read(accuracy)
    able = ability.abilities(answers)
    groups = groups_of([*figures, *second], base, frame, able)
    named = {group["key"]: group["title"] for group in groups if group["key"] in set(frame["dataset"])}
    titles = Titles(named | dict(titles or {}))
    groups += of_pictures(pictures, base, titles)
    shown = [group for group in groups if group["key"] != "toys"]
    terms = read_glossary(glossary) if glossary else Glossary()
    files = [path for path in (*csv_tables, run_table, win_rates, claims, findings) if path]
    explored = explorer.explorer(curves, sample_layers, responses, titles, able)
    tested = verdicts(claims, titles) if claims else None
    context: dict[str, Any] = {
        "kind": "study" if len(frame) else "runs" if statuses else "scores",
        "summary": measured.summary(whole)
        if len(frame)
        else measured.summary_of_runs(statuses)
        if statuses
        else measured.summary_of_scores(scores),
        "checks": has_check(frame),
        "glossary": terms,
        "findings": findings_of(findings) if findings else None,
        "explorer": explored,
        "limits": explorer,
        "prompt_forms": measured.prompt_forms(prompts, titles),
        "claims": tested,
        "fixed": fixed(claims, frame, titles) if claims else None,
        "scores": [
            (f"{titles[each.parent.name]} on {titles[each.parent.parent.name]}", link(each, base))
            for each in map(Path, scores)
        ],
        "figures": {"groups": shown, "filters": filters(shown, titles), "titles": titles} if shown else None,
        "run": None,
        "terms": terms.terms,
        "ability": {"note": ability.NOTE, "table": ability.table(answers, titles)} if len(answers) else None,
        "notes": tables.NOTES,
        "tables": measured.tables_of(frame, csv_tables, able, titles),
        "dynamics": None,
        "toys": [group for group in groups if group["key"] == "toys"],
        "config": {
            "text": read_lines(config, "write_config"),
            "files": [(Path(path).name, link(path, base)) for path in files],
        },
    }
    if len(frame):
        context["run"] = {
            "draws": sorted({fact["draws"] for fact in facts if "draws" in fact}),
            "counts": measured.counts_table(whole, titles),
            "models": measured.models_table(frame, facts, titles, prompts),
        }
    if statuses:
        context["dynamics"] = {
            "runs": runs_of(runs, statuses, titles),
            "changes": changes_of(run_table, runs, titles) if run_table else [],
            "win_rates": rates_of(win_rates, runs, titles) if win_rates else [],
        }
    pieces = {**(explored["pieces"] if explored else {}), **({"claims": tested["piece"]} if tested else {})}
    pages = {}
    for path, titled, held in ((Path(output), FIRST, pieces), (Path(output).with_name(MORE), SECOND, {})):
        sections = {key: title for key, title in titled.items() if context[key]}
        own = {"sections": sections, "pieces": held, "first": titled is FIRST, "home": Path(output).name, "more": MORE}
        pages[path] = render("page.html.j2", {**context, **own})
    for path, text in pages.items():
        write_text(path, text)
    return sum(len(group["figures"]) for group in groups)
