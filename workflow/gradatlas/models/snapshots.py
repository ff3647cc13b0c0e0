"""Models' files: snapshots at a pinned commit, cards, and pinning. Without torch and transformers.

A card is a small JSON file that represents a model in the workflow: its folder, its architecture, and the checksums of
its files.
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from gradatlas.core.checked import damaged, read_json, write_json
from gradatlas.core.errors import InputError, nearest
from gradatlas.core.files import from_json, sha256_of, write_text
from gradatlas.core.hub import hub
from gradatlas.study.sources import is_folder, is_hub_id

SNAPSHOTS = "resources/models/snapshots"
TEMPLATES = ("chat_template.jinja", "chat_template.json")
# A tokenizer has at least one of these.
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "*.tiktoken")
TOKENIZER = (*VOCABULARIES, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
WANTED = ["config.json", "generation_config.json", *TOKENIZER, *TEMPLATES, "*.safetensors", "*.safetensors.index.json"]
# `*` in the hub's patterns includes folders; `original/` and `onnx/` hold the same weights again.
UNWANTED = ["*/*", "consolidated*", "adapter_*"]
ADAPTER = "adapter_config.json"
WEIGHT_NOTES = ("generation_config.json", "model.safetensors.index.json")
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
TIMEOUT = 30.0  # seconds for the hub's first answer
# Keys of config.json that are a dimension of a stored tensor, or less.
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
SIZES = ("vocab_size", "hidden_size", "n_embd", "d_model", "intermediate_size", "n_inner", "ffn_dim", "head_dim")
SIZES += ("num_attention_heads", "n_head", "num_key_value_heads", "num_experts", "num_local_experts")
NEEDED = (*LAYERS, "vocab_size", "hidden_size", "n_embd", "d_model", "head_dim", "num_attention_heads", "n_head")
# Of a model without weights, whose config cannot be compared with stored tensors.
MOST_LAYERS, LARGEST_SIZE = 10_000, 10_000_000
CARD_KEYS = ("model", "source", "revision", "path", "digest", "tokenizer_digest", "files")
CARD_RULE = "fetch_model, or finetune for the model of a run"


def find(
    model: str,
    source: str,
    revision: str,
    output: str | Path,
    mirror: str = "",
    snapshots: str = SNAPSHOTS,
    weights: bool = True,
) -> None:
    """Find or download the hub model `source`, and write its folder and its files' names to `output` (JSON).

    The files are used in place from ``mirror/models/ORG/NAME/REVISION`` or ``mirror/models/ORG/NAME``, where the
    `mirror` is a folder with ``models``, else downloaded at the commit `revision` into the folder `snapshots`.
    `weights`: False for config and tokenizer alone. Raises `InputError` for a source, revision or file that cannot be
    used.
    """
    if not is_hub_id(source):
        raise InputError(f"{model}: source '{source}' is not a hub id; give ORG/NAME")
    if mirror and (Path(mirror).expanduser() / "models").is_dir():
        path = mirrored(model, source, revision, Path(mirror).expanduser())
    else:
        path = download(source, revision, snapshots, model=model, weights=weights)
    write_json(output, {"folder": str(path), "files": _files(path) if weights else _shape_names(path)})


def found(path: str | Path, rule: str = "download_model") -> Path:
    """The folder that a `rule` wrote to `path`; `InputError` where one of its files is gone."""
    note = read_json(path, rule)
    folder = Path(note["folder"])
    for name in note["files"]:
        if not (folder / name).is_file():
            raise InputError(
                f"{folder / name}: no such file, though {path} lists it; delete {path} and run again (rule {rule})"
            )
    return folder


def fetch(
    model: str,
    source: str,
    revision: str,
    output: str | Path,
    downloaded: str | Path | None = None,
    adapter: dict[str, Any] | None = None,
) -> None:
    """Write the card of the model `source`, a local folder or a hub id, to `output`. Reads all weights.

    The files of a hub id are those of `downloaded`, which `find` wrote. `adapter`: the part of the card about its
    adapter. Raises `InputError` for a source or file that cannot be used.
    """
    if downloaded:
        path = found(downloaded)
    elif is_folder(source):
        path, revision = Path(source).expanduser(), ""
    else:
        raise InputError(f"{model}: source '{source}' is not a folder or a fetched hub id; give ./FOLDER or ORG/NAME")
    card = card_of(model, source, revision, path)
    check_against_hub(path, card["files"])
    write_json(output, card | ({"adapter": adapter} if adapter else {}))


def shape_files(folder: str | Path) -> list[Path]:
    """The files of the config and the tokenizer in a model's `folder`."""
    path = Path(folder)
    names = _shape_names(path)
    _check_sizes(path, MOST_LAYERS, LARGEST_SIZE)
    return [path / name for name in names]


def model_files(folder: str | Path) -> list[str]:
    """The names of the files of the model in `folder`, sorted; reads no weights, only their headers.

    Raises `InputError` like `card_of`.
    """
    path = Path(folder)
    names = _files(path)
    _checked_tensors(path)
    return names


def card_of(model: str, source: str, revision: str, path: str | Path) -> dict[str, Any]:
    """The card of the model in the folder `path`: its architecture, its stored precision and its files' SHA-256.

    The same files give the same card. `parameters`: count of the stored numbers; `dtype`: their types. Raises
    `InputError` naming the file that is missing, incomplete or unreadable.
    """
    path = Path(path)
    files = _files(path)
    config = config_of(path)
    layers = _layers(config)
    if not isinstance(config.get("model_type"), str) or layers is None:
        key = "model_type" if not isinstance(config.get("model_type"), str) else "num_hidden_layers"
        raise InputError(f"{path / 'config.json'}: '{key}' is missing; give a decoder-only transformers model")
    parameters, dtypes = 0, set()
    for _, kind, shape in _checked_tensors(path):
        parameters += math.prod(shape)
        dtypes.add(DTYPES.get(kind, kind.lower()))
    sums = {name: sha256_of(path / name) for name in files}
    return {
        "model": model,
        "source": source,
        "revision": revision,
        "path": str(path),
        "architecture": next(iter(config.get("architectures") or []), None),
        "model_type": config["model_type"],
        "layers": layers,
        "hidden_size": _setting(config, "hidden_size", "n_embd", "d_model"),
        "vocab_size": _setting(config, "vocab_size"),
        "max_position_embeddings": _setting(config, "max_position_embeddings", "n_positions"),
        "parameters": parameters,
        "dtype": "+".join(sorted(dtypes)),
        "tokenizer_digest": digest_of({name: sums[name] for name in files if _is_tokenizer(name)}),
        "digest": digest_of(_weighty(sums)),
        "files": sums,
    }


def model_digest(path: str | Path) -> str:
    """SHA-256 of the files that a model's numbers depend on: config, tokenizer, chat template and weights (64 digits).

    Reads all weights. Raises `InputError` like `card_of`.
    """
    path = Path(path)
    files = _files(path)
    _checked_tensors(path)
    return digest_of(_weighty({name: sha256_of(path / name) for name in files}))


def read_card(path: str | Path) -> dict[str, Any]:
    """Read a card; `InputError` where the file is missing, damaged or not a card."""
    card = read_json(path, CARD_RULE)
    missing = [key for key in CARD_KEYS if key not in card]
    if missing:
        raise damaged(path, f"not a model's card, '{missing[0]}' is missing", CARD_RULE)
    return card


def check_card(
    card_path: str | Path, card: dict[str, Any], names: Callable[[Path], Iterable[str]] | None = None
) -> None:
    """Compare the model's files with the `card` in `card_path`; or an adapter's with its part of a card.

    Reads all weights. `names`: the files that count in a folder; by default those of a model. Raises `InputError`
    naming the first file that differs from the card.
    """
    path = Path(card["path"])
    recorded = _weighty(card["files"])

    def changed(name: str, what: str) -> InputError:
        return InputError(
            f"{path / name}: {what} since the card {card_path} was written; restore the file, or delete the card and "
            f"run again (rule {CARD_RULE})"
        )

    for name in recorded:
        if not (path / name).is_file():
            raise changed(name, "is gone")
    found = _weighty({name: sha256_of(path / name) for name in (names or _files)(path)})
    for name in sorted({*found, *recorded}):
        if found.get(name) != recorded.get(name):
            raise changed(name, "has changed" if name in recorded else "was added")


def download(
    source: str, revision: str, snapshots: str | Path = SNAPSHOTS, *, model: str = "", weights: bool = True
) -> Path:
    """Download the hub model `source` (ORG/NAME) at the commit `revision`; the folder ``snapshots/ORG/NAME/REVISION``.

    Only safetensors (with `weights`), configs, tokenizer and chat template are downloaded. Existing files are not
    downloaded again, and a complete snapshot needs no network. Raises `InputError` for a revision that is not a commit
    hash, for a gated, unknown or unreachable model, and for one without safetensors. `model`: the key in messages.
    """
    label = model or source

    def check(names: set[str]) -> None:
        if ADAPTER in names and "config.json" not in names:
            raise InputError(f"{label}: {source} is a PEFT adapter, not a model; {_as_adapter({})}")
        if weights and not any(name.endswith(".safetensors") for name in names):
            raise InputError(
                f"{label}: {source} at {revision} has no safetensors weights; convert it with save_pretrained and "
                "give the folder as source"
            )

    patterns = [name for name in WANTED if weights or "safetensors" not in name]
    wanted = {"allow_patterns": patterns, "ignore_patterns": UNWANTED}
    return snapshot(source, revision, snapshots, model, check, **wanted)


def snapshot(
    source: str,
    revision: str,
    snapshots: str | Path,
    model: str,
    check: Callable[[set[str]], None],
    **wanted: list[str],
) -> Path:
    """Download the files of a hub repository at a commit, as `download` does.

    `check`: raises an error for the names of its files; `wanted`: patterns of files to download or not.
    """
    label = model or source
    if not revision:
        raise InputError(
            f"{label}: {source} has no revision; "
            f"run gradatlas pin{f' --model {model}' if model else ''} on a machine with a network"
        )
    if not re.fullmatch("[0-9a-f]{40}", revision):
        raise InputError(
            f"{label}: revision '{revision}' is not a commit hash of 40 digits; empty the cell and run gradatlas pin"
        )
    folder = Path(snapshots) / source / revision
    given = {"revision": revision, "local_dir": folder, **wanted}
    with model_hub(label, source, revision) as library:
        try:
            # First, as it answers or fails within TIMEOUT, which the listing of a snapshot does not.
            info = library.HfApi().model_info(source, revision=revision, timeout=TIMEOUT)
        except Exception as error:
            if not _is_unreachable(error) or not folder.is_dir():
                raise
            library.snapshot_download(source, local_files_only=True, **given)
        else:
            check({file.rfilename for file in info.siblings or []})
            library.snapshot_download(source, **given)
    return folder


def pin(sheet: str | Path, models: Iterable[str] = ()) -> dict[str, str]:
    """Fill the empty `revision` and `adapter_revision` cells of the sheet's hub rows; returns {model: commit}.

    `models`: the rows, all if empty. The rest of the sheet does not change. Raises `InputError` for an unusable sheet
    or row, and where the hub does not answer; then nothing is written.
    """
    sheet = Path(sheet)
    try:
        lines = sheet.read_bytes().decode("utf-8").split("\n")
    except FileNotFoundError:
        raise InputError(f"{sheet}: no such file; give the sheet with --sheet") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{sheet}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    # Some editors write a byte order mark.
    header = lines[0].removeprefix("\ufeff").rstrip("\r").split("\t")
    for column in ("model", "source", "revision"):
        if column not in header:
            raise InputError(f"{sheet}: column '{column}' is missing; add it")
    rows = {}
    for number, line in enumerate(lines[1:], start=1):
        cells = line.rstrip("\r").split("\t")
        if not line.strip() or line.startswith("#"):
            continue
        if len(cells) != len(header):
            raise InputError(f"{sheet}, row {number}: {len(cells)} cells, {len(header)} columns; separate them by tabs")
        rows[cells[header.index("model")]] = (number, cells)
    for name in models:
        if name not in rows:
            raise InputError(f"{sheet}: no model '{name}': {nearest(name, rows)}")
    found = {}
    for name in models or rows:
        number, cells = rows[name]
        for of, revision in (("source", "revision"), ("adapter", "adapter_revision")):
            source = cells[header.index(of)] if {of, revision} <= {*header} else ""
            if not is_hub_id(source) or cells[header.index(revision)]:
                continue
            with model_hub(name, source, "") as library:
                commit = library.HfApi().model_info(source, timeout=TIMEOUT).sha
            if not re.fullmatch("[0-9a-f]{40}", commit or ""):
                raise InputError(f"{name}: the hub's commit of {source} is '{commit}'; check HF_ENDPOINT")
            cells[header.index(revision)] = commit
            found[name if of == "source" else f"{name} (adapter)"] = commit
        lines[number] = "\t".join(cells) + ("\r" if lines[number].endswith("\r") else "")
    if found:
        write_text(sheet, "\n".join(lines))
    return found


def mirrored(model: str, source: str, revision: str, mirror: Path, config: str = "config.json") -> Path:
    """The folder of a hub repository in a `mirror`, which knows its commit by the note of the file `config`."""
    path = mirror / "models" / source
    if revision and (path / revision).is_dir():
        path = path / revision
    if not path.is_dir():
        raise InputError(f"{model}: no folder {path} in the mirror; put the snapshot of {source} there")
    # Known if the folder was made by `hf download --local-dir`.
    commit, _ = _download_note(path, config)
    if revision and commit and commit != revision:
        raise InputError(f"{model}: {path} is {source} at {commit}, the sheet has {revision}; update one of them")
    return path


def _download_note(folder: Path, name: str) -> tuple[str, str]:
    """The commit and the etag that huggingface_hub noted for a downloaded file, or empty texts."""
    note = folder / ".cache" / "huggingface" / "download" / f"{name}.metadata"
    lines = note.read_text(encoding="utf-8").splitlines() if note.is_file() else []
    return (lines[0].strip(), lines[1].strip()) if len(lines) > 1 else ("", "")


def check_against_hub(folder: Path, sums: dict[str, str]) -> None:
    for name, found in sums.items():
        _, etag = _download_note(folder, name)
        # The etag of a large file is its SHA-256, that of a small one git's hash.
        if len(etag) == 64 and etag != found:
            raise InputError(f"{folder / name}: sha256 is {found}, the hub's is {etag}; delete the file and run again")


def model_hub(label: str, source: str, revision: str) -> AbstractContextManager[Any]:
    return hub(
        label,
        source,
        revision,
        kind="model",
        source_fix="check the name in 'source'",
        revision_fix="empty the cell and run gradatlas pin",
        offline_fix=f"put the files into FOLDER/models/{source} and give --config mirror=FOLDER",
    )


def _is_unreachable(error: Exception) -> bool:
    import httpx2
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        return error.response.status_code >= 500
    return isinstance(error, (httpx2.TransportError, errors.OfflineModeIsEnabled))


def _files(path: Path) -> list[str]:
    """The names of the model's files in the folder `path`, sorted."""
    names = _shape_names(path)
    kept = {*names, *_weights(path), *(name for name in WEIGHT_NOTES if (path / name).is_file())}
    for name in sorted(kept):
        if name.endswith(".json"):
            json_object(path / name)
    return sorted(kept)


def _shape_names(path: Path) -> list[str]:
    """The names of the config and the tokenizer's files in the folder `path`, sorted."""
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; give one with config.json, a tokenizer and safetensors weights")
    check_links(path)
    if (path / ADAPTER).is_file():
        raise _adapter(path)
    if not (path / "config.json").is_file():
        raise InputError(f"{path / 'config.json'}: no such file; save the model with save_pretrained")
    names = [name.name for name in path.iterdir() if name.is_file()]
    if not any(Path(name).match(pattern) for name in names for pattern in VOCABULARIES):
        raise InputError(f"{path / 'tokenizer.json'}: no tokenizer; save it in the model's folder with save_pretrained")
    return sorted({"config.json", *(name for name in names if _is_tokenizer(name))})


def check_links(path: Path) -> None:
    """`InputError` for a file in the folder `path` that is a link to a file elsewhere.

    Of a snapshot in the hub's cache, files are links into the folder ``blobs`` beside ``snapshots``.
    """
    folder = path.resolve()
    allowed = [folder, *([folder.parents[1] / "blobs"] if folder.parent.name == "snapshots" else [])]
    for file in sorted(path.iterdir()):
        target = file.resolve()
        if file.is_symlink() and not target.is_dir() and not any(target.is_relative_to(each) for each in allowed):
            raise InputError(f"{file}: a link to {target}, outside of the model's folder; put a copy of the file here")


def _adapter(path: Path) -> InputError:
    """The error for a folder with an adapter, for which the library would load a base model from elsewhere."""
    found = json_object(path / ADAPTER)
    if any((path / name).is_file() for name in ("model.safetensors", WEIGHT_NOTES[1])):
        return InputError(
            f"{path / ADAPTER}: the folder holds a model and an adapter, and transformers would load the adapter; move "
            "adapter_config.json and adapter_model.safetensors to another folder"
        )
    return InputError(
        f"{path}: a PEFT adapter ({found.get('peft_type') or 'of unknown kind'}), not a model; {_as_adapter(found)}"
    )


def _as_adapter(adapter: dict[str, Any]) -> str:
    base = adapter.get("base_model_name_or_path") or "its base model"
    return (
        f"to measure, give it as --adapter (column adapter of models.tsv) of {base}; for all else merge it there: "
        "PeftModel.from_pretrained, merge_and_unload(), save_pretrained of the result and of the tokenizer"
    )


def _weights(path: Path) -> list[str]:
    """The safetensors files of the model: the single file, or those of the index."""
    if (path / "model.safetensors").is_file():
        return ["model.safetensors"]
    index = path / "model.safetensors.index.json"
    if not index.is_file():
        raise InputError(
            f"{path / 'model.safetensors'}: no such file, and no index; save the model with save_pretrained"
        )
    places = json_object(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise InputError(f"{index}: 'weight_map' is missing; fetch the file again")
    for name in places.values():
        if not isinstance(name, str) or Path(name).name != name:
            raise InputError(f"{index}: 'weight_map' names {name!r}, not a file of this folder; fetch the model again")
    names = sorted(set(places.values()))
    for name in names:
        if not (path / name).is_file():
            raise InputError(f"{path / name}: no such file, though {index.name} names it; fetch the model again")
    return names


def _is_tokenizer(name: str) -> bool:
    return any(Path(name).match(pattern) for pattern in (*TOKENIZER, *TEMPLATES))


def config_of(path: str | Path) -> dict[str, Any]:
    """config.json of the folder `path`; `InputError` where it is missing or not a JSON object."""
    return json_object(Path(path) / "config.json")


def _setting(config: dict[str, Any], *names: str) -> Any:
    """The first of these keys that the config has, itself or for its language model."""
    inner = config.get("text_config") if isinstance(config.get("text_config"), dict) else {}
    return next((place[name] for place in (config, inner) for name in names if place.get(name) is not None), None)


def _layers(config: dict[str, Any]) -> Any:
    layers = _setting(config, *LAYERS)
    # Some hybrids have a list, or a text, with one kind per layer.
    kinds = _setting(config, "layers_block_type", "hybrid_override_pattern", "layer_types")
    return len(kinds) if layers is None and isinstance(kinds, list | str) else layers


def _check_sizes(path: Path, most_layers: int, largest: int) -> None:
    """`InputError` for a number in config.json that is no size, or of which a model would fill all memory."""
    config = config_of(path)
    for key, most in ((key, most_layers if key in LAYERS else largest) for key in (*LAYERS, *SIZES)):
        found = _setting(config, key)
        # Some models have one for each layer.
        for value in found if isinstance(found, list) else [found]:
            if value is None:
                continue
            # Some models have none of a kind, such as experts.
            if isinstance(value, bool) or not isinstance(value, int) or value < (key in NEEDED):
                raise InputError(f"{path / 'config.json'}: '{key}' is {value!r:.40}, not a size; fetch the file again")
            if value > most:
                raise InputError(
                    f"{path / 'config.json'}: '{key}' is {value}, more than the {most} that the weights can have; "
                    "correct it, or fetch the model again"
                )


def _checked_tensors(path: Path) -> list[tuple[str, str, list[int]]]:
    """The stored tensors, after `_check_sizes`: each layer has one at least, and each size is at most a dimension."""
    tensors = list(stored_tensors(path))
    _check_sizes(path, len(tensors), max((size for _, _, shape in tensors for size in shape), default=0))
    return tensors


def stored_tensors(path: str | Path) -> Iterator[tuple[str, str, list[int]]]:
    """Name, stored type and shape of every tensor of the model in the folder `path`, from the headers of its files.

    Raises `InputError` for a file that is missing, incomplete or not safetensors.
    """
    for name in _weights(Path(path)):
        try:
            with safe_open(Path(path) / name, framework="numpy") as file:
                for key, part in [(key, file.get_slice(key)) for key in list(file.keys())]:
                    yield key, part.get_dtype(), part.get_shape()
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{Path(path) / name}: not a complete safetensors file ({error}); fetch or copy it again"
            ) from None


def _weighty(sums: dict[str, str]) -> dict[str, str]:
    # No measurement depends on generation settings.
    return {name: value for name, value in sums.items() if name != "generation_config.json"}


def digest_of(sums: dict[str, str]) -> str:
    """SHA-256 of files' names and SHA-256."""
    lines = (f"{name} {value}\n" for name, value in sorted(sums.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model; `InputError` where it is missing or holds something else."""
    try:
        value = from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; save the model with save_pretrained") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); fetch or save the file again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: not a JSON object; fetch or save the file again")
    return value
