"""What is known of a model before a run: from its card, its files as far as they are here, or its row in the sheet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gradatlas.core.files import ROOT
from gradatlas.models.snapshots import ADAPTER, SNAPSHOTS, config_of, read_card
from gradatlas.planning.shapes import WIDTHS, Shape, of_config, of_text, ranks_of
from gradatlas.study.sources import is_folder, is_hub_id


@dataclass(frozen=True)
class Model:
    """A `row` of models.tsv and what is known: its parameters and shape (None: unknown), and the `folder` with its
    config.json and tokenizer, if it is here. `complete`: the weights are here too, or are made here. `adapter`: the
    folder of its adapter, if that is here."""

    row: Mapping[str, Any]
    parameters: int | None
    shape: Shape | None
    folder: Path | None
    complete: bool
    adapter: Path | None = None

    @property
    def is_twin(self) -> bool:
        """Whether it is an untrained twin of a hub model, of which no weights are downloaded."""
        return self.row["kind"] == "random" and is_hub_id(self.row["source"])

    @property
    def download(self) -> float | None:
        """Bytes of its stored weights, where they are not here; None where these are unknown."""
        if self.complete or self.is_twin:
            return 0
        stored = self.shape.stored if self.shape else ""
        return self.parameters * WIDTHS[stored] if self.parameters and stored in WIDTHS else None

    def window(self, max_length: int) -> int:
        """Tokens of a sample at most."""
        positions = self.shape.positions if self.shape else 0
        return min(max_length, positions) if positions else max_length

    def measured(self, projections: Sequence[str]) -> Sequence[str]:
        """What is measured of the `projections`: LoRA's matrices too, where the row asks for them."""
        return self.shape.measured(projections) if self.shape else projections

    @cached_property
    def tokenizer(self) -> Any:
        """Its tokenizer; None where it is not here."""
        if self.folder is None:
            return None
        from gradatlas.models.loading import load_tokenizer

        return load_tokenizer(self.folder, self.row["trust_remote_code"])


def known_model(row: Mapping[str, Any], mirror: str = "", card: str | Path = "") -> Model:
    """What is known of a `row`. Its `card`, or that of rule fetch_model, wins over files, and these over the sheet.

    Nothing is downloaded. Raises `InputError` for a card or a config.json that cannot be read.
    """
    place = Path(card or f"resources/models/{row['model']}.json")
    found = read_card(place) if place.is_file() else {}
    folder = Path(found["path"]) if found else _folder(row["source"], row["revision"], row["kind"], mirror)
    folder = folder if folder and (folder / "config.json").is_file() else None
    config = config_of(folder) if folder else {}
    shape = of_config(config) or of_text(row["shape"])
    parameters = found.get("parameters") or row["parameters"] or (_counted(folder) if folder else None)
    made = row["source"] == "miniature" or is_folder(row["source"])
    weights = bool(folder and any(folder.glob("*.safetensors")))
    adapter = Path(found["adapter"]["path"]) if "adapter" in found else None
    if row["adapter"] and not adapter:
        adapter = _folder(row["adapter"], row["adapter_revision"], "", mirror, ADAPTER)
    if adapter and shape and row["lora"] == "separate":
        shape = replace(shape, ranks=ranks_of(adapter))
    return Model(row, parameters, shape, folder, bool(found) or made or weights, adapter)


def unread_model(row: Mapping[str, Any]) -> Model:
    """What its row alone states of a model."""
    return Model(row, row["parameters"], of_text(row["shape"]), None, False)


def _folder(source: str, revision: str, kind: str, mirror: str, config: str = "config.json") -> Path | None:
    """Where the files of a model or adapter may be: its own folder, the committed miniature of a kind, the mirror, a
    snapshot. `config`: the file that is there then."""
    if source == "miniature":
        return ROOT / "resources/miniature" / ("instruct" if kind == "instruct" else "base")
    if is_folder(source):
        return Path(source).expanduser()
    mirrored = Path(mirror).expanduser() / "models" / source
    places = [mirrored / revision, mirrored] if mirror else []
    places += [Path(SNAPSHOTS) / source / revision] if revision else []
    return next((path for path in places if (path / config).is_file()), None)


def _counted(folder: Path) -> int | None:
    """Parameters of the model that a config.json describes; None where the library fails."""
    model = on_meta(folder)
    return None if model is None else sum(each.numel() for each in model.parameters())


def on_meta(folder: Path) -> Any:
    """The model that a config.json describes, without weights; None where the library fails."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, local_files_only=True))
    # A model of its own code, or one that the library does not know: its size is unknown until its card is made.
    except (ValueError, KeyError, OSError, ImportError, AttributeError):
        return None
