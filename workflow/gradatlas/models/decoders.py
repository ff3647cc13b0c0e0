"""The query, key, value, output and feed-forward projections of any decoder.

They are found by what they do (`probe`), or by the user's own mapping where that is not understood.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradatlas.core.errors import InputError, nearest
from gradatlas.models.adapters import adapter_problem
from gradatlas.models.probe import Unclear, Unusable, check_runs, classify, linears_of, size_of, usable
from gradatlas.models.projections import ATTENTION, FEED_FORWARD, KNOWN

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
    """The `wanted` projections of every decoder layer, first layer first; the model is left as it was.

    A layer without keys or values of its own (it uses an earlier layer's, or its keys as values) has no entry for them.
    `wanted`: any of q, k, v, o, gate, up, down. `mapping` describes them where they cannot be found:
    ``q=self_attn.qkv[0:64] k=self_attn.qkv[64:96] ...``, paths from the decoder layer, slices of output features.
    Raises `InputError` on a model that is not understood, naming what was seen, and on a mapping that does not fit.
    """
    for name in wanted:
        if name not in KNOWN:
            raise InputError(f"projection '{name}' is not known; {nearest(name, KNOWN)}")
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


def shapes_of(
    layers: Sequence[Mapping[str, Projection]], names: Sequence[str]
) -> dict[str, list[tuple[int, int] | None]]:
    """By projection, the (rows, columns) of each layer's weight; None where a layer has none of its own."""
    return {name: [layer[name].shape if name in layer else None for layer in layers] for name in names}


def _found(model: Any, layers: Sequence[nn.Module], wanted: Sequence[str]) -> list[dict[str, Projection]]:
    """The projections as the probe finds them."""
    try:
        found = classify(model, layers, feed_forward=bool(set(wanted) & set(FEED_FORWARD)))
        for index, parts in enumerate(found):
            if missing := [name for name in wanted if name not in parts]:
                raise Unclear(f"nothing acts as {', '.join(missing)}", index)
        if nowhere := [name for name in wanted if not any(parts[name] for parts in found)]:
            raise Unclear(f"no layer has {', '.join(nowhere)} of its own; leave it out of the projections")
    except Unclear as unclear:
        layer = layers[unclear.layer]
        raise InputError(
            f"{_named(model)}, layer {unclear.layer} ({type(layer).__name__}): {unclear}; linear modules seen (output "
            f"x input features): {_seen(layer)}; where these are the projections, say so with --mapping (column "
            "projections of models.tsv), as in 'q=PATH k=PATH[0:64] v=PATH[64:128] o=PATH' (paths from the decoder "
            "layer, slices of output features)"
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
    """The modules of the one list that is as long as the decoder is deep."""
    config = model.config
    text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    depth = getattr(text, "num_hidden_layers", None)
    lists = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth and all(map(linears_of, module))
    }
    # As many experts as layers make a list within the list.
    outer = [path for path in lists if not any(path.startswith(f"{other}.") for other in lists)]
    if len(outer) > 1 and hasattr(model, "get_decoder"):
        inside = {id(module) for module in model.get_decoder().modules()}
        outer = [path for path in outer if id(lists[path]) in inside]
    if len(outer) != 1:
        raise InputError(
            f"{_named(model)}: the decoder's layers are not clear: {len(outer)} lists of {depth} modules with linear "
            f"layers ({', '.join(outer) or 'none'}) in place of one; only decoders with one such list are supported"
        )
    return list(lists[outer[0]])


def _mapped(
    model: Any, layers: Sequence[nn.Module], wanted: Sequence[str], mapping: str
) -> list[dict[str, Projection]]:
    """The projections that the user described."""
    place = f"{_named(model)}: --mapping (column projections of models.tsv)"
    entries: dict[str, tuple[str, str | None]] = {}
    for entry in mapping.split():
        match = _ENTRY.fullmatch(entry)
        if not match:
            raise InputError(f"{place}: '{entry}' is not understood; write NAME=PATH or NAME=PATH[a:b], without spaces")
        name, path, slices = match.groups()
        if name not in KNOWN:
            raise InputError(f"{place}: '{name}' is not known; {nearest(name, KNOWN)}")
        if name in entries:
            raise InputError(f"{place}: '{name}' is described twice; keep one of them")
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
                    f"{place}: layer {index} has no linear module '{path}' ({name}); it has {_seen(layer)}"
                )
            if path not in plain:
                raise InputError(
                    f"{place}: {path} ({name}) of layer {index} does not map every token exactly once, so that its "
                    "gradient cannot be measured; name another module"
                )
            rows = size_of(linears[path])[0]
            columns = _columns(f"{place}: {name}={path}[{slices}]", slices, rows)
            if taken.setdefault(path, set()) & set(columns):
                raise InputError(f"{place}: '{name}' shares output features of {path} with another one; give slices")
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
            raise InputError(f"{place}: '{piece}' is no ascending slice a:b of its {rows} output features")
        columns.extend(range(start, stop))
    return columns
