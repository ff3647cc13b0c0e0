"""The models of a study, by what they are for: rows of config/models.tsv, checked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradatlas.core.errors import InputError, nearest
from gradatlas.core.schemas import checked
from gradatlas.core.sheets import Row, check_case, read_sheet
from gradatlas.study.mappings import MINIATURE_PAIRS, check_path
from gradatlas.study.series import check_mirror, expand_series
from gradatlas.study.sheets import ModelRow
from gradatlas.study.sources import is_hub_id


def chosen_row(rows: Mapping[str, Row], name: str, key: str) -> Row:
    """The row that a config key names; `InputError` with the nearest name where there is none."""
    if name not in rows:
        raise InputError(f"config key '{key}': unknown name '{name}': {nearest(name, rows)}")
    return rows[name]


def read_models(config: Mapping[str, Any], root: Path) -> dict[str, dict[str, Row]]:
    """Rows by name: `models` to measure, `writers`, `learners` and `judges`, and `miniatures` among all of these.

    Raises `InputError` for an unknown name, a partner that does not fit, a path that no rule can take, and a mirror
    without one of several revisions.
    """
    rows, series = _read_rows(config, root)
    stated = {name: row["prompt"] for name, row in rows.items()}
    for row in rows.values():
        row["prompt"] = row["prompt"] or ("chat" if row["kind"] == "instruct" else "plain")
    if config["datasets"] and not config["models"]:
        raise InputError("config key 'models' is empty, and datasets are named; name the models to measure them on")
    names = [entry if isinstance(entry, str) else entry["model"] for entry in config["models"]]
    models = {key: chosen_row(rows, key, "models") for name in names for key in series.get(name, [name])}
    # The second study alone: its models are those of `dynamics`.
    models = models if config["datasets"] else {}
    check_mirror(config["mirror"], models)
    _check_partners(models, rows)
    _check_weights(models)
    for name in config["controls_models"]:
        chosen_row(rows, name, "controls_models")
    generate, dynamics = config["generate"], config["dynamics"]
    # A writer takes the form that its row states; where it states none, its chat template if it has one.
    writers = {
        name: chosen_row(rows, name, "generate.model") | {"prompt": stated[name]}
        for name in _writers(generate, dynamics)
    }
    learners = {name: chosen_row(rows, name, "dynamics.models") for name in dynamics["models"] if dynamics["runs"]}
    judges = _judges(generate, dynamics, rows)
    _check_plain(writers | learners | judges)
    used = models | writers | learners
    used |= _bases(used, rows)
    check_case(used | judges, "config key 'models'")
    for name, row in (used | judges).items():
        check_path(row["source"], f"config/models.tsv, '{name}': 'source'")
    miniatures = {name: row for name, row in used.items() if row["source"] == "miniature"}
    return {"models": models, "miniatures": miniatures, "writers": writers, "learners": learners, "judges": judges}


def _read_rows(config: Mapping[str, Any], root: Path) -> tuple[dict[str, Row], dict[str, list[str]]]:
    """All rows, of the sheet and written out in the config, and the keys of each training series by its name."""
    rows = read_sheet(root / "config/models.tsv", ModelRow, "model")
    for entry in config["models"]:
        if isinstance(entry, Mapping):
            row = checked(entry, ModelRow, "config key 'models'")
            rows[row["model"]] = row
    return expand_series(rows)


def _check_partners(chosen: Mapping[str, Row], rows: Mapping[str, Row]) -> None:
    """`InputError` for an unknown partner, and for an untrained twin of a hub model whose partner is another model."""
    for name, row in chosen.items():
        if row["partner"] and row["partner"] not in rows:
            known = nearest(row["partner"], rows)
            raise InputError(f"model '{name}' (config/models.tsv): unknown partner '{row['partner']}': {known}")
        if row["kind"] == "random" and is_hub_id(row["source"]):
            partner = rows.get(row["partner"], {})
            if any(partner.get(key) != row[key] for key in ("source", "revision")):
                raise InputError(
                    f"config/models.tsv, '{name}': an untrained twin of '{row['source']}' needs a partner of the same "
                    f"source and revision; have '{row['partner']}'"
                )


def _check_weights(models: Mapping[str, Row]) -> None:
    """`InputError` for columns of adapters, quantised weights and GPUs that do not fit together."""
    for name, row in models.items():
        place = f"config/models.tsv, '{name}'"
        if row["adapter"] and (row["source"] == "miniature" or row["kind"] == "random"):
            raise InputError(f"{place}: a model that is made here has no adapter; give its folder a row of its own")
        if row["adapter_revision"] and not is_hub_id(row["adapter"]):
            raise InputError(f"{place}: adapter_revision is of a hub adapter, ORG/NAME; empty it, or name one")
        if row["lora"] == "separate" and not row["adapter"]:
            raise InputError(f"{place}: lora is separate, but the model has no adapter; name one, or empty the cell")
        if row["quantise"] and row["adapter"] and row["lora"] == "merged":
            raise InputError(f"{place}: an adapter is not merged into quantised weights; set lora to separate")
        if row["gpus"] > 1 and row["device"] == "cpu":
            raise InputError(f"{place}: gpus is {row['gpus']}, but device is cpu; change one of them")
        if row["adapter"]:
            check_path(row["adapter"], f"{place}: 'adapter'")


def _check_plain(rows: Mapping[str, Row]) -> None:
    """`InputError` for a model that is not only measured, and has columns that only measuring takes."""
    for name, row in rows.items():
        for key, plain in (("adapter", ""), ("quantise", ""), ("gpus", 1)):
            if row[key] != plain:
                raise InputError(
                    f"config/models.tsv, '{name}': column {key} is for models that are measured or scored; give the "
                    "model that writes, judges or is finetuned a row without it (an adapter merged, merge_and_unload)"
                )


def _bases(chosen: Mapping[str, Row], rows: Mapping[str, Row]) -> dict[str, Row]:
    """The miniatures that chosen ones are trained from."""
    trained = [row for row in chosen.values() if row["source"] == "miniature" and row["partner"]]
    return {
        row["partner"]: chosen_row(rows, row["partner"], f"partner of '{row['model']}' in config/models.tsv")
        for row in trained
    }


def _writers(generate: Mapping[str, Any], dynamics: Mapping[str, Any]) -> list[str]:
    """The local model that writes Detailed responses, or rephrases of pairs that no grammar and no file has."""
    rephrased = dynamics["runs"] and dynamics["pairs"] != MINIATURE_PAIRS and not dynamics["rephrases"]
    needed = generate["datasets"] or (rephrased and generate["model"])
    return [generate["model"]] if needed and not generate["endpoint"] else []


def _judges(generate: Mapping[str, Any], dynamics: Mapping[str, Any], rows: Mapping[str, Row]) -> dict[str, Row]:
    """The reward model that judges free responses, where one does."""
    judge = dynamics["judge"]
    if not (dynamics["runs"] and judge):
        return {}
    if judge == "oracle" and dynamics["generate_prompts"] and dynamics["pairs"] != MINIATURE_PAIRS:
        raise InputError(
            f"config key 'dynamics.judge': 'oracle' knows the answers of {MINIATURE_PAIRS} alone, and pairs are "
            f"'{dynamics['pairs']}'; take endpoint, a reward model of models.tsv, or \"\" for no judge"
        )
    if judge == "endpoint" and not (generate["endpoint"] and generate["model"]):
        raise InputError("config key 'dynamics.judge': 'endpoint' asks generate.model at generate.endpoint; name both")
    if judge in ("oracle", "endpoint"):
        return {}
    if judge not in rows:
        known = ["oracle", "endpoint", *rows]
        raise InputError(f"config key 'dynamics.judge': unknown judge '{judge}': {nearest(judge, known)}")
    return {judge: rows[judge]}
