"""The config and the sheets, checked, as one plain value: what is to be measured.

Imported by the Snakefile at every start, so nothing heavy here.
"""

import math
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import filter as filter_names
from pathlib import Path
from typing import Any

from gradatlas.core.errors import InputError, nearest
from gradatlas.core.schemas import checked
from gradatlas.core.sheets import Row, check_case, read_sheet
from gradatlas.study.mappings import check_path, check_place, names_answers, read_mapping
from gradatlas.study.models import chosen_row, read_models
from gradatlas.study.relations import BUILT, GOLD_VARIANT
from gradatlas.study.scored import read_scored
from gradatlas.study.settings import Config
from gradatlas.study.sheets import DatasetRow, GradientClaimRow, SourceRow

# Jobs that measure; above, Snakemake takes hours and gigabytes for the graph alone.
MOST_JOBS = 20_000
_LONGEST_NAME = 200  # bytes; file systems allow 255, and temporary names are longer
# The loss on as many random tokens as None has, in two draws; wrong answers, to compare with the model's belief;
# what "irrelevant" is made of; the study's own algorithm's responses, to compare with the corrected ones.
CONTROLS = {
    "standard": ["detailed:correct:random:matched:2", "none:wrong_answer:all"],
    "full": [
        "detailed:wrong_answer:all",
        "detailed:foreign_fluent:all",
        "detailed:shuffled:all",
        "none:reference:all",
        "detailed:reference:all",
    ],
}
# Keys of what was taken out: a config that turns it off is read as before.
GONE = {"interactive": "pages of single figures are gone, the atlas page (results/index.html) has interactive figures"}

# What figures and statistics cannot do without.
NEEDED = {"relations": "correct", "loss_tokens": "all", "metrics": "nuclear_norm", "formats": "svg"}


@dataclass(frozen=True)
class Study:
    """The complete `config` and the chosen rows: `models` and `datasets` by key, `scored` training files by name,
    `files` by (dataset, variant, relation). `miniatures`: the chosen ones and the partners they start from. `writers`:
    the local model that writes Detailed responses or rephrases, if any. `learners`: the models that are finetuned;
    `judges`: the reward model that judges their free responses. The row of a mapped dataset holds its `mapping`.
    `claims`: the rows of the claims' sheet."""

    config: dict[str, Any]
    models: dict[str, Row]
    miniatures: dict[str, Row]
    writers: dict[str, Row]
    learners: dict[str, Row]
    judges: dict[str, Row]
    datasets: dict[str, Row]
    scored: dict[str, Row]
    files: dict[tuple[str, str, str], Row]
    claims: dict[str, Row]

    def variants(self, dataset: str) -> list[str]:
        """The variants to measure, in the sheet's order."""
        chosen = self.config["variants"].get(dataset)
        return [name for name in self.datasets[dataset]["variants"] if chosen is None or name in chosen]

    def relations(self, dataset: str) -> list[str]:
        """The relations to measure: of those requested, what the data have or what is built for any."""
        available = [*self.datasets[dataset]["relations"], *BUILT]
        return [name for name in self.config["relations"] if name in available]

    def controls(self, model: str, dataset: str) -> list[str]:
        """What is measured beside all of `relations`: VARIANT:RELATION:SUBSET of the tokens that the loss is over.

        Responses with an answer have controls: knowledge has datasets of its own for that. The study's algorithm stands
        in for its own irrelevant responses, where these are not measured themselves, beside the corrected ones; on
        trained models, since an untrained one has no conclusion that could survive.
        """
        level, chosen = self.config["controls"], self.config["controls_models"]
        knows = self.datasets[dataset]["task"] == "knowledge"
        if level == "none" or knows or (chosen and model not in chosen) or self.config["gradients"] == "published":
            return []
        variants, relations = self.variants(dataset), self.relations(dataset)
        answers = "mapping" not in self.datasets[dataset] or names_answers(self.datasets[dataset]["mapping"])
        trained = self.models[model]["kind"] != "random"
        wanted = CONTROLS["standard"] + (CONTROLS["full"] if level == "full" else [])
        split = [(*each.split(":", 2), each) for each in wanted]
        return [
            each
            for variant, relation, subset, each in split
            if variant in variants
            and ("matched" not in subset or "none" in variants)
            and not (subset == "all" and relation in relations)
            and (relation != "wrong_answer" or answers)
            and (relation != "reference" or (trained and "published" not in relations and "derangement" in relations))
        ]

    def built(self, dataset: str) -> list[str]:
        """The relations to build: those measured in full, and those of the controls."""
        controls = [each.split(":")[1] for model in self.models for each in self.controls(model, dataset)]
        return list(dict.fromkeys([*self.relations(dataset), *controls]))

    def compared(self, dataset: str) -> list[str]:
        """The dataset, and those chosen that a claim compares it with."""
        pairs = [pair.split("/") for claim in self.claims.values() for pair in claim["between"]]
        others = [other.split(":")[0] for one, other in pairs if one.split(":")[0] == dataset]
        return list(dict.fromkeys([dataset, *(other for other in others if other in self.datasets)]))

    def claims_on(self, dataset: str) -> list[Row]:
        """The claims that can have evidence on a dataset: what they are about is measured."""
        models = [row for name, row in self.models.items() if self.purpose(name, dataset) == "study"]
        relations, variants, task = {*self.built(dataset)}, self.variants(dataset), self.datasets[dataset]["task"]
        pairs = {f"{dataset}/{other}" for other in self.compared(dataset)}
        return [
            row
            for row in self.claims.values()
            if any(each["kind"] in row["kinds"] for each in models if each["model"] in (row["models"] or self.models))
            and relations & {*row["relations"]}
            and (not row["variants"] or any(filter_names(variants, name.split(":")[0]) for name in row["variants"]))
            and task in (row["tasks"] or [task])
            and (not row["between"] or pairs & {re.sub(":[^/]*", "", pair) for pair in row["between"]})
        ]

    def scores_on(self, model: str, dataset: str) -> bool:
        """Whether a training file is scored on a model."""
        wanted = self.scored[dataset]["models"]
        return not wanted or model in wanted

    def quality_pairs(self) -> dict[str, dict[str, Any]]:
        """By pair of high and low quality, both of whose sides are scored on a model: `high` and `low`, each a dataset
        and its groups, the column of `quality`, and the `models` that both are scored on."""
        found: dict[str, dict[str, Any]] = {}
        for name, row in self.scored.items():
            for side in ("high", "low") if row["pair"] else ():
                if row[side]:
                    found.setdefault(row["pair"], {"quality": row["quality"]})[side] = [name, row[side]]
        whole = {name: pair for name, pair in found.items() if {"high", "low"} <= pair.keys()}
        for pair in whole.values():
            names = {pair[side][0] for side in ("high", "low")}
            pair["models"] = [model for model in self.models if all(self.scores_on(model, name) for name in names)]
        return {name: pair for name, pair in whole.items() if pair["models"]}

    def is_written(self, dataset: str) -> bool:
        """Whether the dataset's Detailed responses are written by a model."""
        return dataset in self.config["generate"]["datasets"]

    def pairs(self) -> dict[str, str]:
        """The measured models that are compared with another measured one, their partner; an untrained one is not."""
        rows = {name: row for name, row in self.models.items() if row["kind"] != "random"}
        return {name: row["partner"] for name, row in rows.items() if row["partner"] in {*self.models} - {name}}

    def purpose(self, model: str, dataset: str) -> str:
        """`study`, or `pipeline check` for a model on data it was never meant for."""
        scope = self.models[model]["scope"]
        meant = scope == "any" or scope == self.datasets[dataset]["scope"]
        return "study" if meant else "pipeline check"


def read_study(config: Mapping[str, Any], root: str | Path) -> Study:
    """Check `config` and the sheets below `root`, fill in defaults, and pick the chosen rows.

    Raises `InputError` naming the file, row and column (or the config key) and the nearest known name.
    """
    root = Path(root)
    config = _read_config(config)
    scored = read_scored(config, root)
    datasets = _read_datasets(config, root, scored)
    models = read_models(config, root)
    files = _read_files(datasets, root)
    claims = read_sheet(root / "config/claims.tsv", GradientClaimRow, "claim")
    study = Study(config, **models, datasets=datasets, scored=scored, files=files, claims=claims)
    for dataset in datasets:
        _check_files(study, dataset)
        _check_subsets(study, dataset)
    _check_bridge(study)
    _check_jobs(study)
    return study


def _check_bridge(study: Study) -> None:
    """`InputError` for a bridge on a dataset or model that is not measured, or of other variants or prompts."""
    bridge = study.config["bridge"]
    name = bridge["dataset"]
    if not name:
        return
    chosen_row(study.datasets, name, "bridge.dataset")
    needed = {"none", "simplified", "detailed", *(kind.partition(":")[0] for kind in bridge["measured"])}
    if missing := needed - {*study.variants(name)}:
        raise InputError(
            f"config key 'bridge.dataset': '{name}' has no variant {', '.join(sorted(missing))}; a bridge needs "
            "none, simplified and detailed: choose another dataset, or add them to its row or the config key variants"
        )
    for kind in bridge["measured"]:
        if kind.partition(":")[2] not in study.built(name):
            raise InputError(
                f"config key 'bridge.measured': '{kind}': write VARIANT:RELATION with a relation of the config key "
                f"'relations': {', '.join(study.built(name))}"
            )
    for model in bridge["models"]:
        row = chosen_row(study.models, model, "bridge.models")
        if row["prompt"] != "plain" or row["adapter"]:
            raise InputError(
                f"config key 'bridge.models': '{model}' reads chats or has an adapter; choose a model without"
            )


def _check_jobs(study: Study) -> None:
    cells = {
        "models": len(study.models),
        "datasets": len(study.datasets) + len(study.scored),
        "shards": study.config["shards"],
    }
    dynamics = study.config["dynamics"]
    runs = {f"dynamics.{key}": len(dynamics[key]) for key in ("models", "runs", "seeds")}
    for sizes in (cells, runs):
        if math.prod(sizes.values()) > MOST_JOBS:
            found = " x ".join(f"{count:,} {key}" for key, count in sizes.items())
            raise InputError(
                f"config: {found} are {math.prod(sizes.values()):,} jobs, more than {MOST_JOBS:,}; lower one of them, "
                "or run parts of the study one after another"
            )


def _read_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """The complete config, ``~`` expanded at the start of its paths."""
    for key, reason in GONE.items():
        # The command line gives text.
        if str(given.get(key, False)).lower() != "false":
            raise InputError(f"config key '{key}': {reason}; remove the key")
    config = checked({key: value for key, value in given.items() if key not in GONE}, Config, "config")
    for key, needed in NEEDED.items():
        if not {needed, "all"} & {*config[key]}:
            raise InputError(f"config key '{key}': {config[key]} must name '{needed}' too; figures need it")
    places = {
        "dynamics.rephrases": (config["dynamics"], "rephrases"),
        "released.source": (config["released"], "source"),
        "toys.images.source": (config["toys"]["images"], "source"),
    }
    for name, (section, key) in places.items():
        section[key] = os.path.expanduser(section[key])
        check_path(section[key], f"config key '{name}'")
    # No input of a rule: braces are allowed.
    check_place(config["mirror"], "config key 'mirror'")
    check_place(config["generate"]["endpoint"], "config key 'generate.endpoint'")
    if not (config["datasets"] or config["dynamics"]["runs"]):
        raise InputError(
            "config keys 'datasets' and 'dynamics.runs' are both empty: nothing to do; name some of either"
        )
    for name in ("singular_values", "cosines", "tokens"):
        if config[name] and config["gradients"] == "published":
            raise InputError(f"config key '{name}': released statistics do not hold it; measure, or leave it out")
    return config


# Datasets -------------------------------------------------------------------------------------------------------------


def _read_datasets(config: Mapping[str, Any], root: Path, scored: Collection[str]) -> dict[str, Row]:
    """The chosen rows of config/datasets.tsv, each mapped one with its `mapping`."""
    rows = read_sheet(root / "config/datasets.tsv", DatasetRow, "dataset")
    names = [entry for entry in config["datasets"] if isinstance(entry, str) and entry not in scored]
    chosen = {name: chosen_row(rows, name, "datasets") for name in names}
    check_case(chosen, "config key 'datasets'")
    for name, row in chosen.items():
        check_place(row["url"], f"config/datasets.tsv, '{name}': 'url'")
    for name, variants in config["variants"].items():
        known = chosen_row(rows, name, "variants")["variants"]
        for variant in variants:
            if variant not in known:
                raise InputError(
                    f"config key 'variants.{name}': unknown variant '{variant}': {nearest(variant, known)}"
                )
    if isinstance(config["tokens"], Mapping):
        for name in config["tokens"]:
            chosen_row(chosen, name, "tokens")
    written = config["generate"]["datasets"]
    _check_generate(config["generate"], chosen)
    for name, row in chosen.items():
        if name in written:
            row["variants"] = [*row["variants"], "detailed"]
        if row["reader"] == "mapped":
            row["mapping"] = read_mapping(root, name, row, name in written)
    return chosen


def _check_generate(generate: Mapping[str, Any], datasets: Mapping[str, Row]) -> None:
    for dataset in generate["datasets"]:
        if dataset not in datasets:
            raise InputError(f"config key 'generate.datasets': '{dataset}' is not among the datasets chosen")
        if datasets[dataset]["reader"] == "miniature" or "detailed" in datasets[dataset]["variants"]:
            raise InputError(
                f"config key 'generate.datasets': '{dataset}' has Detailed responses already, or needs none; "
                "take it out, or take 'detailed' out of the variants of its row in config/datasets.tsv"
            )
    if generate["datasets"] and not generate["model"]:
        raise InputError("config key 'generate.model' is empty; name a row of models.tsv, or the endpoint's model")
    if "{instruction}" not in generate["prompt"]:
        raise InputError("config key 'generate.prompt': has no {instruction}; write it where the question goes")


def _check_subsets(study: Study, dataset: str) -> None:
    matched = [each for each in study.config["loss_tokens"] if each.startswith("random:matched")]
    if matched and "none" not in study.variants(dataset):
        raise InputError(
            f"config key 'loss_tokens': '{matched[0]}' needs as many tokens as the None response has, and "
            f"none of dataset '{dataset}' is measured; add variant 'none', drop the dataset, or write random:K"
        )


# Files of published datasets ------------------------------------------------------------------------------------------


def _read_files(datasets: Mapping[str, Row], root: Path) -> dict[tuple[str, str, str], Row]:
    """The rows of config/sources.tsv; of chosen datasets with their local paths expanded."""
    rows = read_sheet(root / "config/sources.tsv", SourceRow, None).values()
    for row in rows:
        if row["dataset"] in datasets:
            where = f"config/sources.tsv, dataset '{row['dataset']}', variant '{row['variant']}': 'path'"
            row["path"] = row["path"] if datasets[row["dataset"]]["url"] else os.path.expanduser(row["path"])
            check_path(row["path"], where)
    return {(row["dataset"], row["variant"], row["relation"]): row for row in rows}


def _check_files(study: Study, dataset: str) -> None:
    url = study.datasets[dataset]["url"]
    for key in source_keys(study, dataset):
        _, variant, relation = key
        if key not in study.files:
            raise InputError(
                f"config/sources.tsv: no row for dataset '{dataset}', variant '{variant}', relation '{relation}'; "
                "add one with the file's path"
            )
        path = study.files[key]["path"]
        if not url and not Path(path).is_file():
            raise InputError(
                f"config/sources.tsv, dataset '{dataset}', variant '{variant}': no file '{path}' here; put it there, "
                "or give the dataset a url in config/datasets.tsv"
            )
        if url and not study.files[key]["sha256"]:
            raise InputError(f"config/sources.tsv, '{path}': sha256 is empty; files with a url need it")


def source_keys(study: Study, dataset: str) -> list[tuple[str, str, str]]:
    """The (dataset, variant, relation) of every file needed: what is measured, and where the gold answers are."""
    if study.datasets[dataset]["reader"] != "published":
        return []
    given = study.datasets[dataset]["relations"]
    written = {("detailed", "correct")} if study.is_written(dataset) else set()
    wanted = [(v, r) for v in study.variants(dataset) for r in study.relations(dataset) if r in given]
    wanted = [key for key in wanted if key not in written]
    gold = GOLD_VARIANT.get(study.datasets[dataset]["gold"])
    if gold:
        wanted.append((gold, "correct"))
    return [(dataset, variant, relation) for variant, relation in dict.fromkeys(wanted)]


def fetched_files(study: Study, probe_files: Iterable[Row]) -> dict[str, dict[str, str]]:
    """The url and sha256 of every file that is fetched, by its path below resources/sources.

    `probe_files`: as `Plan.probe_files`. Raises `InputError` for a path that leads out of that folder, has too long a
    name, or belongs to two files.
    """
    urls = {name: row["url"] for name, row in study.datasets.items()}
    files = [{**row, "url": urls[row["dataset"]]} for row in study.files.values() if row["dataset"] in urls]
    files += [{**row, "path": row["source"]} for row in study.scored.values()]
    found: dict[str, dict[str, str]] = {}
    for file in [*files, *probe_files]:
        path, fetched = file["path"], {key: file[key] for key in ("url", "sha256")}
        if not file["url"]:
            continue
        where = f"file '{path}' of {file['url']} (config/sources.tsv or config/pairs/)"
        if any(part in ("", ".", "..") or len(os.fsencode(part)) > _LONGEST_NAME for part in path.split("/")):
            raise InputError(
                f"{where}: not a relative path without '..' and with names of at most {_LONGEST_NAME} bytes; correct it"
            )
        if found.setdefault(path, fetched) != fetched:
            raise InputError(f"{where}: another file of this path comes from {found[path]['url']}; rename one")
    check_case(found, "config/sources.tsv and config/pairs/")
    return found
