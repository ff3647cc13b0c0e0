"""The files of PEFT adapters: fetched at a pinned commit, checked, and described in their model's card.

Without torch and peft. What an adapter does to a model is in `models.adapted`.
"""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from gradatlas.core.checked import write_json
from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.core.files import sha256_of
from gradatlas.models.snapshots import (
    ADAPTER,
    SNAPSHOTS,
    check_against_hub,
    check_links,
    digest_of,
    found,
    json_object,
    mirrored,
    snapshot,
)
from gradatlas.study.sources import is_folder, is_hub_id

WEIGHTS = "adapter_model.safetensors"
FILES = (ADAPTER, WEIGHTS)


def find_adapter(
    model: str, source: str, revision: str, output: str | Path, mirror: str = "", snapshots: str | Path = SNAPSHOTS
) -> None:
    """Find or download the hub adapter `source` of `model`, and write its folder and files to `output` (JSON).

    As `snapshots.find` does for models. Raises `InputError` for a source, revision or file that cannot be used.
    """
    if not is_hub_id(source):
        raise InputError(f"{model}: adapter '{source}' is not a hub id; give ORG/NAME")
    if mirror and (Path(mirror).expanduser() / "models").is_dir():
        path = mirrored(model, source, revision, Path(mirror).expanduser(), ADAPTER)
    else:
        path = download_adapter(source, revision, snapshots, model=model)
    write_json(output, {"folder": str(path), "files": files_of(path)})


def download_adapter(source: str, revision: str, snapshots: str | Path = SNAPSHOTS, *, model: str = "") -> Path:
    """Download the hub adapter `source` at the commit `revision`, as `snapshots.download` does a model; its folder."""

    def check(names: set[str]) -> None:
        for name in FILES:
            if name not in names:
                raise InputError(
                    f"{model or source}: {source} at {revision} has no {name}, so it is not a PEFT adapter in "
                    "safetensors; give another one"
                )

    wanted = {"allow_patterns": list(FILES)}
    return snapshot(source, revision, snapshots, model, check, **wanted)


def card_of_adapter(source: str, revision: str, base: str, downloaded: str | Path | None = None) -> dict[str, Any]:
    """The part of a model's card about its adapter: its folder, its kind, and its files' SHA-256. Reads its weights.

    `source`: a folder, or a hub id whose files are those of `downloaded`. `base`: the source of the model. Key
    `adapter_base`: the base model that the adapter names, where this is another name; else empty. Raises `InputError`
    for a folder without an adapter, and where both names are of the hub and differ.
    """
    path = found(downloaded, "download_adapter") if downloaded else Path(source).expanduser()
    files = files_of(path)
    config = json_object(path / ADAPTER)
    other = other_base(path, base)
    if other:
        progress(
            f"{path}: the adapter's base model is '{other}' (base_model_name_or_path), not '{base}'; only shapes and "
            "modules are compared, so check that these are the same model"
        )
    sums = {name: sha256_of(path / name) for name in files}
    check_against_hub(path, sums)
    return {
        "source": source,
        "revision": revision,
        "path": str(path),
        "peft_type": str(config.get("peft_type")),
        "adapter_base": other,
        "digest": digest_of(sums),
        "files": sums,
    }


def other_base(path: Path, base: str) -> str:
    """The base model that the config of the adapter in `path` states, where that is not `base`; else empty.

    Raises `InputError` where both are on the hub.
    """
    trained = str(json_object(path / ADAPTER).get("base_model_name_or_path") or "not stated")
    if _place(trained) == _place(base):
        return ""
    if is_hub_id(trained) and is_hub_id(base):
        raise InputError(
            f"{path}: an adapter of {trained}, not of {base}; give its own base model (--model, column source of "
            "models.tsv)"
        )
    return trained


def _place(source: str) -> str:
    return str(Path(source).expanduser().resolve()) if is_folder(source) else source.lower()


def files_of(path: Path) -> list[str]:
    """The names of an adapter's files; `InputError` where the folder `path` has no whole adapter."""
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; give one with {ADAPTER} and {WEIGHTS}")
    check_links(path)
    for name in FILES:
        if not (path / name).is_file():
            raise InputError(
                f"{path / name}: no such file, so this is not a PEFT adapter; save it with save_pretrained of PEFT"
            )
    try:
        with safe_open(path / WEIGHTS, framework="numpy"):
            return list(FILES)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path / WEIGHTS}: not a complete safetensors file ({error}); copy it again") from None
