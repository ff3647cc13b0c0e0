"""The checks of jobs on the files of a model and its adapter that need no weights: configs, and headers of weights."""

import warnings
from pathlib import Path
from typing import Any

from gradatlas.core.errors import InputError
from gradatlas.models.snapshots import config_of, model_files
from gradatlas.planning.known import Model, on_meta
from gradatlas.study.sources import is_folder


def fault_of(model: Model, *, elsewhere: bool) -> str:
    """The error of the job that would load the model; empty where there is none, or its files are not here yet.

    `elsewhere`: the job runs on another machine, and may find packages that are not installed here.
    """
    row = model.row
    if row["source"] == "miniature":
        return ""
    try:
        if is_folder(row["source"]):
            model_files(Path(row["source"]).expanduser())
        # Of a download that has not ended, only what config.json states.
        if model.folder and (_is_whole(model.folder) or "quantization_config" in config_of(model.folder)):
            _check_model(str(model.folder), row["trust_remote_code"], "" if elsewhere else row["quantise"])
        if model.adapter:
            _check_adapter(model, str(model.adapter))
    except InputError as error:
        return str(error)
    return ""


def _is_whole(folder: Path) -> bool:
    try:
        return bool(model_files(folder))
    except InputError:
        return False


def _check_model(folder: str, trust_remote_code: bool, quantise: str) -> None:
    from gradatlas.models.loading import check_architecture, check_config

    check_config(folder, trust_remote_code, quantise)
    if (model := on_meta(Path(folder))) is not None:
        check_architecture(model, folder)


def _check_adapter(model: Model, folder: str) -> None:
    from gradatlas.models.adapted import check_names, no_fit, read_config
    from gradatlas.models.adapter_files import WEIGHTS, files_of, other_base

    files_of(Path(folder))
    other_base(Path(folder), model.row["source"])
    config, _ = read_config(folder, separate=model.row["lora"] == "separate")
    base = on_meta(model.folder) if model.folder else None
    if base is None:
        return
    from safetensors import safe_open

    try:
        own = _shapes(base, config)
    except ValueError as error:
        raise no_fit(folder, str(model.folder), error) from None
    except (RuntimeError, NotImplementedError):
        # Some ways to start an adapter compute with the base weights, which are not read here.
        return
    with safe_open(Path(folder) / WEIGHTS, framework="numpy") as file:
        stored = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    check_names(folder, str(model.folder), {*stored}, {*own})
    for name, shape in stored.items():
        if shape != own[name]:
            raise no_fit(folder, str(model.folder), ValueError(f"weight {name} is {shape}, there it is {own[name]}"))


def _shapes(base: Any, config: Any) -> dict[str, list[int]]:
    """By name, the shapes of an adapter's weights in the model `base`."""
    import torch
    from peft import get_peft_model, get_peft_model_state_dict

    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        adapted = get_peft_model(base, config)
        return {name: list(each.shape) for name, each in get_peft_model_state_dict(adapted).items()}
