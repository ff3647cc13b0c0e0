"""The query, key, value, output and feed-forward projections of any decoder.

They are found by their function (`probe`), or given by the user's mapping.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradatlas.core.errors import InputError, nearest
from gradatlas.models.adapters import adapter_problem, lora_modules
from gradatlas.models.probe import Unclear, Unusable, check_runs, classify, linears_of, size_of, usable
from gradatlas.study.settings import PROJECTIONS

ATTENTION, FEED_FORWARD = PROJECTIONS[:4], PROJECTIONS[4:]

_MERGED = "leave --lora at merged (column lora of models.tsv)"

# NAME=PATH or NAME=PATH[a:b,c:d]
_ENTRY = re.compile(r"(\w+)=([^\s=\[\]]+)(?:\[([\d:,]+)\])?")


@dataclass(frozen=True, eq=False)
class Projection:
    """One projection of one layer: X is the input of `module`, D the gradient of its output.

    `path`: of the module within its decoder layer. `columns`: the output features that belong to the projection,
    an ascending index, or None for all of them.
    """

    name: str
    module: nn.Module
    path: str
    columns: Tensor | None

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the projection's own weight: output by input features."""
        rows, columns = size_of(self.module)
        return rows if self.columns is None else len(self.columns), columns


def find_layers(
    model: Any, wanted: Sequence[str] = ATTENTION, mapping: str | None = None
) -> list[dict[str, Projection]]:
    """The `wanted` projections of every decoder layer, first layer first. The model is not changed.

    A layer without its own keys or values (it uses an earlier layer's, or its keys as values) has no entry for them.
    `wanted`: any of q, k, v, o, gate, up, down. `mapping`: describes projections that cannot be found, as
    ``q=self_attn.qkv[0:64] k=self_attn.qkv[64:96] ...``, with paths from the decoder layer and slices of output
    features. Raises `InputError` for projections that are not found, listing the linear modules, and for a wrong
    mapping.
    """
    for name in wanted:
        if name not in PROJECTIONS:
            raise InputError(f"unknown projection '{name}': {nearest(name, PROJECTIONS)}")
    layers = _decoder_layers(model)
    try:
        if reason := adapter_problem(model, ()):
            raise Unusable(reason)
        check_runs(model)
        chosen = (
            _mapped(model, layers, wanted, mapping) if mapping and mapping.strip() else _found(model, layers, wanted)
        )
        if reason := adapter_problem(
            model, [[(part.path, part.module) for part in layer.values()] for layer in chosen]
        ):
            raise Unusable(reason)
        return chosen
    except Unusable as unusable:
        raise InputError(f"{_named(model)}: {unusable}") from unusable.__cause__


def lora_of(model: Any, layers: Sequence[dict[str, Projection]]) -> list[dict[str, Projection]]:
    """By layer, the matrices A and B of LoRA of the projections in `layers`: ``q.lora_a``, ``q.lora_b``, ...

    Raises `InputError` where the model has none, and for adapters whose matrices have no gradient of their own.
    """
    found: list[dict[str, Projection]] = []
    for index, layer in enumerate(layers):
        parts = {}
        for name, part in layer.items():
            try:
                modules = lora_modules(model, part.module)
            except ValueError as error:
                raise InputError(f"{_named(model)}, layer {index}: {error}; {_MERGED}") from None
            if modules and part.columns is not None:
                raise InputError(
                    f"{_named(model)}, layer {index}: A and B of {part.path} belong to several projections; {_MERGED}"
                )
            parts |= {
                f"{name}.{key}": Projection(f"{name}.{key}", module, f"{part.path} ({key})", None)
                for key, module in modules.items()
            }
        found.append(parts)
    if not any(found):
        raise InputError(f"{_named(model)}: no projection that is measured has a LoRA; {_MERGED}")
    if reason := adapter_problem(model, [[(part.path, part.module) for part in layer.values()] for layer in found]):
        raise InputError(f"{_named(model)}: {reason}")
    return found


def shapes_of(
    layers: Sequence[Mapping[str, Projection]], names: Sequence[str]
) -> dict[str, list[tuple[int, int] | None]]:
    """By projection, each layer's (rows, columns); None for a layer without its own projection."""
    return {name: [layer[name].shape if name in layer else None for layer in layers] for name in names}


def _found(model: Any, layers: Sequence[nn.Module], wanted: Sequence[str]) -> list[dict[str, Projection]]:
    """The projections that the probe finds."""
    try:
        found = classify(model, layers, feed_forward=bool(set(wanted) & set(FEED_FORWARD)))
        for index, parts in enumerate(found):
            if missing := [name for name in wanted if name not in parts]:
                raise Unclear(f"nothing acts as {', '.join(missing)}", index)
        if nowhere := [name for name in wanted if not any(parts[name] for parts in found)]:
            raise Unclear(f"no layer has its own {', '.join(nowhere)}; remove it from the projections")
    except Unclear as unclear:
        layer = layers[unclear.layer]
        raise InputError(
            f"{_named(model)}, layer {unclear.layer} ({type(layer).__name__}): {unclear}; linear modules (output x "
            f"input features): {_seen(layer)}; if they are the projections, give --mapping (column projections of "
            "models.tsv), such as 'q=PATH k=PATH[0:64] v=PATH[64:128] o=PATH' (paths from the decoder layer, slices of "
            "output features)"
        ) from None
    return [
        {name: _projection(name, layer, *parts[name]) for name in wanted if parts[name]}
        for layer, parts in zip(layers, found, strict=True)
    ]


def _projection(name: str, layer: nn.Module, path: str, columns: Tensor | None) -> Projection:
    module = layer.get_submodule(path)
    whole = columns is None or len(columns) == size_of(module)[0]
    return Projection(name, module, path, None if whole else columns.cpu())


def _named(model: Any) -> str:
    return f"model '{getattr(model.config, '_name_or_path', '')}' ({type(model).__name__})"


def _seen(layer: nn.Module) -> str:
    parts = [f"{path} ({'x'.join(map(str, size_of(module)))})" for path, module in linears_of(layer).items()]
    return ", ".join(parts[:12]) + (f" and {len(parts) - 12} more" if len(parts) > 12 else "") or "none"


def _decoder_layers(model: Any) -> list[nn.Module]:
    """The modules of the one `ModuleList` with as many entries as the decoder has layers."""
    config = model.config
    text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    depth = getattr(text, "num_hidden_layers", None)
    lists = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth and all(map(linears_of, module))
    }
    # A list of experts within a layer may have the same length.
    outer = [path for path in lists if not any(path.startswith(f"{other}.") for other in lists)]
    if len(outer) > 1 and hasattr(model, "get_decoder"):
        inside = {id(module) for module in model.get_decoder().modules()}
        outer = [path for path in outer if id(lists[path]) in inside]
    if len(outer) != 1:
        raise InputError(
            f"{_named(model)}: the decoder's layers are not found: it has {len(outer)} lists of {depth} modules with "
            f"linear layers ({', '.join(outer) or 'none'}); only decoders with one such list are supported"
        )
    return list(lists[outer[0]])


def _mapped(
    model: Any, layers: Sequence[nn.Module], wanted: Sequence[str], mapping: str
) -> list[dict[str, Projection]]:
    """The projections that the user's mapping describes."""
    place = f"{_named(model)}: --mapping (column projections of models.tsv)"
    entries: dict[str, tuple[str, str | None]] = {}
    for entry in mapping.split():
        match = _ENTRY.fullmatch(entry)
        if not match:
            raise InputError(f"{place}: cannot read '{entry}'; write NAME=PATH or NAME=PATH[a:b], without spaces")
        name, path, slices = match.groups()
        if name not in PROJECTIONS:
            raise InputError(f"{place}: unknown projection '{name}': {nearest(name, PROJECTIONS)}")
        if name in entries:
            raise InputError(f"{place}: '{name}' is given twice; keep one of them")
        entries[name] = path, slices
    if missing := [name for name in wanted if name not in entries]:
        raise InputError(f"{place}: {', '.join(missing)} missing from '{mapping}'; add {missing[0]}=PATH")
    result = []
    for index, (layer, plain) in enumerate(zip(layers, usable(model, layers), strict=True)):
        linears = linears_of(layer)
        taken: dict[str, set[int]] = {}
        parts = {}
        for name, (path, slices) in entries.items():
            if path not in linears:
                raise InputError(
                    f"{place}: layer {index} has no linear module '{path}' ({name}); choose among {_seen(layer)}"
                )
            if path not in plain:
                raise InputError(
                    f"{place}: {path} ({name}) of layer {index} does not map every token exactly once, so its gradient "
                    "cannot be measured; give another module"
                )
            rows = size_of(linears[path])[0]
            columns = _columns(f"{place}: {name}={path}[{slices}]", slices, rows)
            if taken.setdefault(path, set()) & set(columns):
                raise InputError(
                    f"{place}: '{name}' and another projection have the same features of {path}; give slices"
                )
            taken[path] |= set(columns)
            parts[name] = _projection(name, layer, path, torch.tensor(columns))
        result.append({name: parts[name] for name in wanted})
    return result


def _columns(place: str, slices: str | None, rows: int) -> list[int]:
    """The output features of ``a:b,c:d``, ascending."""
    if slices is None:
        return list(range(rows))
    columns: list[int] = []
    for piece in slices.split(","):
        bounds = re.fullmatch(r"(\d+):(\d+)", piece)
        start, stop = map(int, bounds.groups()) if bounds else (0, 0)
        if not (columns[-1] if columns else -1) < start < stop <= rows:
            raise InputError(f"{place}: '{piece}' is not a slice of {rows} output features; give ascending slices a:b")
        columns.extend(range(start, stop))
    return columns
