"""The config and the sheets, checked against their schemas, as one plain value: what is to be measured.

Imported by the Snakefile at every start, so nothing heavy here.
"""

import csv
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from workflow.lib.errors import InputError, nearest
from workflow.lib.models.snapshots import is_hub_id
from workflow.lib.responses.labels import GOLD, names_answers
from workflow.lib.responses.relations import BUILT
from workflow.lib.series import check_mirror, expand_series

Row = dict[str, Any]
# The preference pairs of the miniature's own grammar; all others have a mapping.
MINIATURE_PAIRS = "mini_qa"
# Folders of results/figures that are no dataset's.
RESERVED = ("claims", "dynamics", "generations", "toys")
# What a mapping can read; said here too, since the reader is slow to import.
FORMATS = (".json", ".jsonl", ".csv", ".parquet")
# The loss on as many random tokens as None has, in two draws; wrong answers, to be held against the model's belief;
# what "irrelevant" is made of; the study's own algorithm's responses, to be held against the corrected ones.
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
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Study:
    """The complete `config` and the chosen rows: `models` and `datasets` by key, `files` by
    (dataset, variant, relation). `miniatures`: the chosen ones and the partners they start from. `writers`: the local
    model that writes Detailed responses, where one is asked to. `learners`: the models that are finetuned; `judges`:
    the reward model that judges what they say. The row of a mapped dataset holds its `mapping`. `claims`: the rows of
    the claims' sheet."""

    config: dict[str, Any]
    models: dict[str, Row]
    miniatures: dict[str, Row]
    writers: dict[str, Row]
    learners: dict[str, Row]
    judges: dict[str, Row]
    datasets: dict[str, Row]
    files: dict[tuple[str, str, str], Row]
    claims: dict[str, Row]

    def variants(self, dataset: str) -> list[str]:
        """The variants to measure, in the sheet's order."""
        chosen = self.config["variants"].get(dataset)
        return [name for name in self.datasets[dataset]["variants"] if chosen is None or name in chosen]

    def relations(self, dataset: str) -> list[str]:
        """The relations to measure: of those asked for, what the data have or what is built for any."""
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
        asked = [(*each.split(":", 2), each) for each in wanted]
        return [
            each
            for variant, relation, subset, each in asked
            if variant in variants
            and ("matched" not in subset or "none" in variants)
            and not (subset == "all" and relation in relations)
            and (relation != "wrong_answer" or answers)
            and (relation != "reference" or (trained and "published" not in relations and "derangement" in relations))
        ]

    def built(self, dataset: str) -> list[str]:
        """The relations to build: those measured whole, and those of the controls."""
        controls = [each.split(":")[1] for model in self.models for each in self.controls(model, dataset)]
        return list(dict.fromkeys([*self.relations(dataset), *controls]))

    def compared(self, dataset: str) -> list[str]:
        """The dataset, and those chosen that a claim compares it with."""
        pairs = [pair.split("/") for claim in self.claims.values() for pair in claim["between"]]
        others = [other.split(":")[0] for one, other in pairs if one.split(":")[0] == dataset]
        return list(dict.fromkeys([dataset, *(other for other in others if other in self.datasets)]))

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
    schemas = root / "workflow" / "schemas"
    config = _with_paths(checked(config, schemas / "config.schema.yaml", "config"))
    models = read_sheet(root / "config/models.tsv", schemas / "models.schema.yaml", "model")
    datasets = read_sheet(root / "config/datasets.tsv", schemas / "datasets.schema.yaml", "dataset")
    sources = read_sheet(root / "config/sources.tsv", schemas / "sources.schema.yaml", None)
    claims = read_sheet(root / "config/claims.tsv", schemas / "claims.schema.yaml", "claim")
    for entry in config["models"]:
        if isinstance(entry, Mapping):
            row = checked(entry, schemas / "models.schema.yaml", "config key 'models'")
            models[row["model"]] = row
    models, series = expand_series(models)
    # A model that writes takes the form that its row states; where it states none, its chat template if it has one.
    stated = {name: row["prompt"] for name, row in models.items()}
    for row in models.values():
        row["prompt"] = row["prompt"] or ("chat" if row["kind"] == "instruct" else "plain")
    if not (config["datasets"] or config["dynamics"]["runs"]):
        raise InputError(
            "config keys 'datasets' and 'dynamics.runs' are both empty: nothing to do; name some of either"
        )
    if config["datasets"] and not config["models"]:
        raise InputError("config key 'models' is empty, and datasets are named; name the models to measure them on")
    names = [entry if isinstance(entry, str) else entry["model"] for entry in config["models"]]
    chosen_models = {key: _row(models, key, "models") for name in names for key in series.get(name, [name])}
    if not config["datasets"]:
        # The second study alone: its models are those of `dynamics`.
        chosen_models = {}
    check_mirror(config["mirror"], chosen_models)
    _check_partners(chosen_models, models)
    chosen = {name: _row(datasets, name, "datasets") for name in config["datasets"]}
    for name in chosen:
        if name in RESERVED:
            raise InputError(
                f"dataset '{name}' (config/datasets.tsv): results/figures/{name} is taken; give another name"
            )
    _check_variants(config["variants"], datasets)
    for name in config["controls_models"]:
        _row(models, name, "controls_models")
    _check_generate(config["generate"], chosen)
    for name in ("singular_values", "cosines", "tokens"):
        if config[name] and config["gradients"] == "published":
            raise InputError(f"config key '{name}': released statistics do not tell it; measure, or leave it out")
    if isinstance(config["tokens"], Mapping):
        for dataset in config["tokens"]:
            _row(chosen, dataset, "tokens")
    for name, row in chosen.items():
        if name in config["generate"]["datasets"]:
            row["variants"] = [*row["variants"], "detailed"]
        if row["reader"] == "mapped":
            row["mapping"] = read_mapping(root, name, row, name in config["generate"]["datasets"])
    writers = _writers(config["generate"], config["dynamics"], models)
    writers = {name: row | {"prompt": stated[name]} for name, row in writers.items()}
    files = {(row["dataset"], row["variant"], row["relation"]): row for row in sources.values()}
    for key, row in files.items():
        if key[0] in chosen:
            where = f"config/sources.tsv, dataset '{key[0]}', variant '{key[1]}': 'path'"
            row["path"] = row["path"] if chosen[key[0]]["url"] else os.path.expanduser(row["path"])
            _check_path(row["path"], where)
    learners = _learners(config["dynamics"], models)
    judges = _judges(config["generate"], config["dynamics"], models)
    wanted = chosen_models | writers | learners
    wanted |= _partners(wanted, models)
    for name, row in (wanted | judges).items():
        _check_path(row["source"], f"config/models.tsv, '{name}': 'source'")
    trained = {name: row for name, row in wanted.items() if row["source"] == "miniature"}
    study = Study(config, chosen_models, trained, writers, learners, judges, chosen, files, claims)
    matched = [each for each in config["loss_tokens"] if each.startswith("random:matched")]
    for dataset in chosen:
        _check_files(study, dataset)
        if matched and "none" not in study.variants(dataset):
            raise InputError(
                f"config key 'loss_tokens': '{matched[0]}' asks for as many tokens as the None response has, and "
                f"none of dataset '{dataset}' is measured; add variant 'none', drop the dataset, or ask for random:K"
            )
    return study


def _with_paths(config: dict[str, Any]) -> dict[str, Any]:
    """The config with ``~`` written out at the start of its paths; `InputError` for what no rule can take as input."""
    for room, key in (("dynamics", "rephrases"), ("released", "source")):
        config[room][key] = os.path.expanduser(config[room][key])
        _check_path(config[room][key], f"config key '{room}.{key}'")
    images = config["toys"]["images"]
    images["source"] = os.path.expanduser(images["source"])
    _check_path(images["source"], "config key 'toys.images.source'")
    return config


def _check_path(path: str, where: str) -> None:
    if "{" in path or "}" in path:
        raise InputError(
            f"{where}: '{path}' has braces, which Snakemake takes for wildcards; rename the file or folder"
        )


def _check_partners(chosen: Mapping[str, Row], models: Mapping[str, Row]) -> None:
    """`InputError` for an unknown partner, and for an untrained twin of a hub model whose partner is another model."""
    for name, row in chosen.items():
        if row["partner"] and row["partner"] not in models:
            known = nearest(row["partner"], models)
            raise InputError(f"model '{name}' (config/models.tsv): unknown partner '{row['partner']}': {known}")
        if row["kind"] == "random" and is_hub_id(row["source"]):
            partner = models.get(row["partner"], {})
            if any(partner.get(key) != row[key] for key in ("source", "revision")):
                raise InputError(
                    f"config/models.tsv, '{name}': an untrained twin of '{row['source']}' needs a partner of the same "
                    f"source and revision; have '{row['partner']}'"
                )


def _partners(chosen: Mapping[str, Row], models: Mapping[str, Row]) -> dict[str, Row]:
    """The miniatures that chosen ones are trained from."""
    trained = [row for row in chosen.values() if row["source"] == "miniature" and row["partner"]]
    return {
        row["partner"]: _row(models, row["partner"], f"partner of '{row['model']}' in config/models.tsv")
        for row in trained
    }


def checked(value: Mapping[str, Any], schema_path: Path, where: str) -> dict[str, Any]:
    """`value` with the schema's defaults filled in; `InputError` at the first key that the schema refuses."""
    schema = _schema(schema_path)
    complete = _with_defaults(value, schema)
    errors = list(Draft202012Validator(schema).iter_errors(complete))
    if not errors:
        return complete
    # The deepest is the cause: a misspelt entry, not that the list now lacks the right one.
    error = max(errors, key=lambda each: len(each.absolute_path))
    place = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        unknown = sorted(set(error.instance) - set(known))[0]
        key = f"{place}.{unknown}" if place else unknown
        raise InputError(f"{where}: unknown key '{key}': {nearest(unknown, known)}")
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        raise InputError(f"{where}: '{missing}' is missing; {_described(error.schema, missing)}")
    message = error.message
    if error.validator == "enum":
        message = f"{error.instance!r} is not known: {nearest(error.instance, map(str, error.validator_value))}"
    if error.validator == "contains":
        message = f"{error.instance} must name '{error.validator_value['const']}' too"
    if error.validator == "oneOf":
        message = f"{error.instance!r} is none of what it can be"
    raise InputError(f"{where}: '{place}': {message}. {error.schema.get('description', '')}")


@cache
def _schema(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _described(schema: Mapping[str, Any], key: str) -> str:
    return schema.get("properties", {}).get(key, {}).get("description", "give it a value")


def _with_defaults(value: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    complete = dict(value)
    for key, part in schema.get("properties", {}).items():
        if key not in complete and "default" in part:
            complete[key] = part["default"]
        if key in complete:
            complete[key] = _plain(complete[key], part)
        if part.get("type") == "object" and "properties" in part and isinstance(complete.get(key), Mapping):
            complete[key] = _with_defaults(complete[key], part)
    return complete


def _plain(value: Any, part: Mapping[str, Any]) -> Any:
    """What a text was meant as: Snakemake hands over what stands inside {...} or [...] on its command line as text."""
    if isinstance(value, list):
        return [_plain(each, part.get("items", {})) for each in value]
    if not isinstance(value, str):
        return value
    kind = part.get("type", "")
    if "boolean" in kind and value in ("true", "false"):
        return value == "true"
    if "integer" in kind and value.isdecimal():
        return int(value)
    if "number" in kind:
        # What is no number is the schema's to refuse.
        with suppress(ValueError):
            return float(value)
    return value


def read_sheet(path: Path, schema_path: Path, key: str | None) -> dict[Any, Row]:
    """The rows of a tab-separated sheet, typed and completed by its schema, by `key` (None: by line number).

    A cell is text; the schema says what it becomes (a number, true or false, a list separated by spaces). An empty
    cell takes the default.
    """
    try:
        # Editors write a byte order mark; only the ends of lines end a row.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    schema = _schema(schema_path)
    table = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    header = next(table, [])
    for column in schema["required"]:
        if column not in header:
            raise InputError(f"{path}, line 1: column '{column}' is missing; {_described(schema, column)}")
    rows: dict[Any, Row] = {}
    for number, cells in enumerate(table, start=2):
        if not any(cells) or cells[0].startswith("#"):
            continue
        where = f"{path}, line {number}"
        if len(cells) != len(header):
            raise InputError(f"{where}: {len(cells)} cells, but {len(header)} columns; cells are separated by tabs")
        texts = {column: cell for column, cell in zip(header, cells, strict=True) if cell}
        row = checked({name: _typed(text, schema, name, where) for name, text in texts.items()}, schema_path, where)
        name = row[key] if key else number
        if name in rows:
            raise InputError(f"{where}: '{name}' stands in an earlier line too; give every row its own name")
        rows[name] = row
    return rows


def _typed(text: str, schema: Mapping[str, Any], column: str, where: str) -> Any:
    kind = schema["properties"].get(column, {}).get("type", "string")
    if kind == "array":
        return text.split()
    if kind == "boolean":
        if text not in ("true", "false"):
            raise InputError(f"{where}: column '{column}' is '{text}'; write true or false")
        return text == "true"
    if "number" in kind:
        try:
            return float(text)
        except ValueError:
            raise InputError(f"{where}: column '{column}' is '{text}'; write a number") from None
    if kind == "integer" or "integer" in kind:
        if not text.lstrip("-").isdecimal():
            raise InputError(f"{where}: column '{column}' is '{text}'; write a whole number")
        return int(text)
    return text


def _row(rows: Mapping[str, Row], name: str, key: str) -> Row:
    if name not in rows:
        raise InputError(f"config key '{key}': unknown name '{name}': {nearest(name, rows)}")
    return rows[name]


def read_keys(root: Path, where: str, schema: str, missing: str) -> Row:
    """The checked keys of a YAML file below `root`, ``~`` written out at the start of its paths.

    Raises `InputError`, with the words `missing` where there is no file.
    """
    try:
        value = yaml.safe_load((root / where).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(missing) from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{where}: not YAML ({error})") from None
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: holds no keys; see {schema}")
    keys = checked(value, root / schema, where)
    for key in ("source", "held_out"):
        if key in keys:
            keys[key] = os.path.expanduser(keys[key])
            _check_path(keys[key], f"{where}: '{key}'")
    return keys


def read_mapping(root: Path, dataset: str, row: Row, written: bool) -> Row:
    """The checked mapping of a dataset, config/mappings/DATASET.yaml; `written`: a model writes its Detailed responses.

    Raises `InputError` for a mapping that is missing, contradicts itself, or does not yield the row's variants.
    """
    where = f"config/mappings/{dataset}.yaml"
    missing = "no such file; write one (config/README.md), or take another reader"
    mapping = read_keys(root, where, "workflow/schemas/mapping.schema.yaml", f"{where}: {missing}")
    columns = mapping["columns"]
    inside = bool(mapping["separator"]) + mapping["boxed"]
    if inside + ("answer" in columns) > 1:
        raise InputError(f"{where}: the answer has to come from one of: columns.answer, separator, boxed: true")
    if inside and "rationale" not in columns:
        raise InputError(f"{where}: separator and boxed take the answer out of columns.rationale; name that column")
    if "rationale" in columns and not names_answers(mapping):
        raise InputError(
            f"{where}: columns.rationale is Simplified, which ends with the answer; add columns.answer, separator or "
            "boxed: true, or name the column as columns.response"
        )
    if row["options"] and not names_answers(mapping):
        raise InputError(
            f"config/datasets.tsv, '{dataset}': 'options' is '{row['options']}', and {where} names no answer; name it, "
            "or leave options empty"
        )
    try:
        re.compile(mapping["remove"])
    except re.error as error:
        raise InputError(f"{where}: 'remove': {error}; write a regular expression") from None
    if row["gold"]:
        raise InputError(
            f"config/datasets.tsv, '{dataset}': 'gold' is '{row['gold']}'; a mapping names the answer itself"
        )
    made = {"none"} if names_answers(mapping) else set()
    made |= {"detailed"} if written or "detailed" in columns else set()
    made |= {part for part, column in (("simplified", "rationale"), ("natural", "response")) if column in columns}
    for variant in row["variants"]:
        if variant not in made:
            raise InputError(
                f"{where}: makes no variant '{variant}': {nearest(variant, made)}; name its column"
                f"{' as columns.response' if variant == 'natural' else ''}"
                f"{', or add the dataset to config key generate.datasets' if variant == 'detailed' else ''}"
            )
    if is_file(mapping) and Path(mapping["source"]).suffix.lower() not in FORMATS:
        raise InputError(
            f"{where}: 'source': the kind of file '{mapping['source']}' is not known; give one of "
            f"{', '.join(FORMATS)}, or a hub dataset ORG/NAME"
        )
    if is_file(mapping) and not Path(mapping["source"]).is_file():
        raise InputError(f"{where}: no file '{mapping['source']}' here; put it there, or fix 'source'")
    return mapping


def is_file(mapping: Mapping[str, Any]) -> bool:
    """Whether a mapping's source is a file here, and not a dataset of the hub: by its suffix, form, or being there."""
    source = mapping["source"]
    return Path(source).suffix.lower() in FORMATS or not _HUB_ID.fullmatch(source) or Path(source).exists()


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
        raise InputError("config key 'generate.prompt': has no {instruction}; say where the question goes")


def _writers(generate: Mapping[str, Any], dynamics: Mapping[str, Any], models: Mapping[str, Row]) -> dict[str, Row]:
    # Rephrases of pairs that are not the miniature's, where no file has them and a model is named that can write them.
    rephrased = dynamics["runs"] and dynamics["pairs"] != MINIATURE_PAIRS and not dynamics["rephrases"]
    rephrased = rephrased and generate["model"]
    if not (generate["datasets"] or rephrased) or generate["endpoint"]:
        return {}
    return {generate["model"]: _row(models, generate["model"], "generate.model")}


def _learners(dynamics: Mapping[str, Any], models: Mapping[str, Row]) -> dict[str, Row]:
    return {name: _row(models, name, "dynamics.models") for name in dynamics["models"]} if dynamics["runs"] else {}


def _judges(generate: Mapping[str, Any], dynamics: Mapping[str, Any], models: Mapping[str, Row]) -> dict[str, Row]:
    judge = dynamics["judge"]
    if not (dynamics["runs"] and dynamics["generate_prompts"] and judge):
        return {}
    if judge == "oracle" and dynamics["pairs"] != MINIATURE_PAIRS:
        raise InputError(
            f"config key 'dynamics.judge': 'oracle' knows the answers of {MINIATURE_PAIRS} alone, and pairs are "
            f"'{dynamics['pairs']}'; take endpoint, a reward model of models.tsv, or \"\" for no judge"
        )
    if judge == "endpoint" and not (generate["endpoint"] and generate["model"]):
        raise InputError("config key 'dynamics.judge': 'endpoint' asks generate.model at generate.endpoint; name both")
    if judge in ("oracle", "endpoint"):
        return {}
    if judge not in models:
        known = ["oracle", "endpoint", *models]
        raise InputError(f"config key 'dynamics.judge': unknown judge '{judge}': {nearest(judge, known)}")
    return {judge: models[judge]}


def _check_variants(variants: Mapping[str, list[str]], datasets: Mapping[str, Row]) -> None:
    for dataset, names in variants.items():
        known = _row(datasets, dataset, "variants")["variants"]
        for name in names:
            if name not in known:
                raise InputError(f"config key 'variants.{dataset}': unknown variant '{name}': {nearest(name, known)}")


def _check_files(study: Study, dataset: str) -> None:
    row = study.datasets[dataset]
    if row["reader"] != "published":
        return
    for key in source_keys(study, dataset):
        if key not in study.files:
            raise InputError(
                f"config/sources.tsv: no row for dataset '{dataset}', variant '{key[1]}', relation '{key[2]}'; "
                "add one with the file's path"
            )
        if not row["url"] and not Path(study.files[key]["path"]).is_file():
            raise InputError(
                f"config/sources.tsv, dataset '{dataset}', variant '{key[1]}': no file "
                f"'{study.files[key]['path']}' here; put it there, or give the dataset a url in config/datasets.tsv"
            )
        if row["url"] and not study.files[key]["sha256"]:
            raise InputError(
                f"config/sources.tsv, '{study.files[key]['path']}': sha256 is empty; files with a url need it"
            )


def source_keys(study: Study, dataset: str) -> list[tuple[str, str, str]]:
    """The (dataset, variant, relation) of every file needed: what is measured, and where the gold answers stand."""
    if study.datasets[dataset]["reader"] != "published":
        return []
    given = study.datasets[dataset]["relations"]
    written = {("detailed", "correct")} if study.is_written(dataset) else set()
    wanted = [(v, r) for v in study.variants(dataset) for r in study.relations(dataset) if r in given]
    wanted = [key for key in wanted if key not in written]
    gold = GOLD.get(study.datasets[dataset]["gold"])
    if gold:
        wanted.append((gold[0], "correct"))
    return [(dataset, variant, relation) for variant, relation in dict.fromkeys(wanted)]
