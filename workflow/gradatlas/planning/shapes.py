"""The shape of a decoder, as far as cost depends on it: from a config.json, or stated in config/models.tsv."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from gradatlas.models.snapshots import ADAPTER, json_object
from gradatlas.study.settings import PROJECTIONS

#: Bytes of a number. Of quantised weights with their scales: 8-bit 1.1, 4-bit 0.6.
WIDTHS = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
QUANTISED = {"8bit": 1.1, "4bit": 0.6}
# The names of a size in config.json, the first one that is there.
_NAMES = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "width": ("hidden_size", "n_embd", "d_model"),
    "feedforward": ("intermediate_size", "n_inner", "ffn_dim"),
    "heads": ("num_attention_heads", "n_head"),
    "kv_heads": ("num_key_value_heads",),
    "head": ("head_dim",),
    "vocabulary": ("vocab_size",),
    "positions": ("max_position_embeddings", "n_positions"),
    "stored": ("dtype", "torch_dtype"),
}


@dataclass(frozen=True)
class Shape:
    """Layers, their widths, attention heads and their size, vocabulary, positions (0: no limit), the precision of the
    stored weights (empty: unknown), and whether the output layer has the embeddings' weights. `ranks`: of projections
    whose LoRA matrices are measured too, by projection."""

    layers: int
    width: int
    feedforward: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    positions: int
    stored: str
    tied: bool
    ranks: Mapping[str, int] = field(default_factory=dict)

    def measured(self, projections: Sequence[str]) -> list[str]:
        """The `projections`, and the LoRA matrices of those that have some: ``q``, ``q.lora_a``, ``q.lora_b``, ..."""
        found = [(name, f"{name}.lora_a", f"{name}.lora_b") if name in self.ranks else (name,) for name in projections]
        return [each for names in found for each in names]

    def matrix(self, projection: str) -> tuple[int, int]:
        """(rows, columns) of a projection's weight, or of a matrix of its LoRA: outputs, inputs."""
        name, _, part = projection.partition(".")
        if part:
            rows, columns = self.matrix(name)
            return (self.ranks[name], columns) if part == "lora_a" else (rows, self.ranks[name])
        queries, keys = self.heads * self.head, self.kv_heads * self.head
        return {
            "q": (queries, self.width),
            "k": (keys, self.width),
            "v": (keys, self.width),
            "o": (self.width, queries),
            "gate": (self.feedforward, self.width),
            "up": (self.feedforward, self.width),
            "down": (self.width, self.feedforward),
        }[projection]


def of_config(config: Mapping[str, Any]) -> Shape | None:
    """The shape that a model's config.json states, itself or for its language model; None where a size is missing."""
    inner = config.get("text_config")
    places = [config, inner if isinstance(inner, Mapping) else {}]
    found = {
        name: next((place[key] for place in places for key in keys if place.get(key) is not None), None)
        for name, keys in _NAMES.items()
    }
    if not all(isinstance(found[name], int) for name in ("layers", "width", "heads", "vocabulary")):
        return None
    # What a config leaves out, as its architecture has it: GPT-2 and GPT-NeoX.
    found["feedforward"] = found["feedforward"] or 4 * found["width"]
    found["kv_heads"] = found["kv_heads"] or found["heads"]
    found["head"] = found["head"] or found["width"] // found["heads"]
    found["positions"] = max(found["positions"] or 0, 0)
    tied = next((place["tie_word_embeddings"] for place in places if "tie_word_embeddings" in place), True)
    return Shape(**found | {"stored": str(found["stored"] or "")}, tied=bool(tied))


def ranks_of(adapter: Path) -> dict[str, int]:
    """The rank of LoRA by projection, from the config of the `adapter` in a folder.

    Of modules that go by other names than usual, or are named by a pattern, all projections have the largest rank: an
    upper bound.
    """
    config = json_object(adapter / ADAPTER) if (adapter / ADAPTER).is_file() else {}
    sizes = [config.get("r"), *(config.get("rank_pattern") or {}).values()]
    rank = max((size for size in sizes if isinstance(size, int)), default=0)
    targets = config.get("target_modules")
    named = (
        {str(each).rpartition(".")[2].removesuffix("_proj") for each in targets} if isinstance(targets, list) else set()
    )
    known = bool(named) and named <= {*PROJECTIONS}
    return {name: rank for name in (PROJECTIONS if rank else ()) if name in named or not known}


def of_text(text: str) -> Shape | None:
    """The shape in column `shape` of config/models.tsv, whose pattern has been checked; None where it is empty."""
    if not text:
        return None
    given = dict(part.split("=") for part in text.split())
    kinds = {each.name: each.type for each in fields(Shape)}
    convert = {int: int, str: str, bool: lambda value: value == "yes"}
    return Shape(**{name: convert[kinds[name]](value) for name, value in given.items()})
