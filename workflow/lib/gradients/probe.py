"""What the linear modules of a decoder do: one tiny forward pass, and autograd.

Names and layouts differ from family to family (three modules, one fused module in blocks, heads interleaved, a
transposed weight); what the projections do does not. So one tiny forward pass replaces the output of every linear
module of every layer by fresh random numbers, and autograd tells what reaches what, column by column:

* the output projection is the linear whose input mixes positions;
* values reach it at the first position too, where a softmax over a single key leaves queries and keys without effect;
* keys reach later positions than their own, queries only their own;
* down is the other linear that linears feed; its input is linear in up, and not linear in gate.

As outputs are replaced, no weight of the checkpoint (zeros, saturated scores) can hide a dependence.
"""

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from workflow.lib.gradients.adapters import adapters_off, without_adapters
from workflow.lib.gradients.forward import BATCH, TOKENS, embeddings_of, evaluating, random_ids, run_forward

# Of the random outputs: scores of about 1 at head widths of 64 to 256.
_SCALE = 0.3
# Values reach the first position by a factor of about 1, queries and keys by rounding at most.
_REACH = 1e-3
# Of heads' keys and values neither is more than so many times wider than the other in any known decoder.
_NARROW = 8

# By path, a mask of output features (width,).
Features = dict[str, Tensor]
# By projection, the path of its module and its output features (None: all); None in place of both where the layer is
# known to have none of its own: it uses an earlier layer's keys and values, or its keys as values.
Parts = dict[str, tuple[str, Tensor | None] | None]


@dataclass(frozen=True, eq=False)
class _Linear:
    """What the probe saw of a linear module: its input `x` and its replaced output `leaf` (batch, tokens, width)."""

    module: nn.Module
    x: Tensor
    leaf: Tensor


class Unclear(Exception):
    """What is not understood of decoder layer number `layer`; becomes the user's error."""

    def __init__(self, problem: str, layer: int = 0):
        super().__init__(problem)
        self.layer = layer


class Unusable(Exception):
    """What no description of the projections can mend; becomes the user's error."""


_NOT_CAUSAL = (
    "earlier positions read later ones, so that this is no causal decoder (is_decoder in its config.json?); leave its "
    "row out of models.tsv, or name a decoder-only checkpoint there"
)


def size_of(module: nn.Module) -> tuple[int, int]:
    """(output features, input features)."""
    shape = tuple(module.weight.shape)
    return (shape[1], shape[0]) if isinstance(module, Conv1D) else (shape[0], shape[1])


def linears_of(layer: nn.Module) -> dict[str, nn.Module]:
    """The linear modules of a layer by their path in it, without those of adapters."""
    return {
        path: module
        for path, module in without_adapters(layer)
        if isinstance(module, nn.Linear | Conv1D) and module.weight.ndim == 2
    }


def classify(model: Any, layers: Sequence[nn.Module], *, feed_forward: bool) -> list[Parts]:
    """The projections of every layer, as far as they are there. Raises `Unclear` where one is ambiguous."""
    # The caller may have turned gradients off.
    with torch.inference_mode(False), torch.enable_grad():
        return _classified(model, layers, feed_forward)


def _classified(model: Any, layers: Sequence[nn.Module], feed_forward: bool) -> list[Parts]:
    seen = _probe(model, layers)
    found: list[Parts] = []
    halves: list[list[Features]] = []
    lenders: dict[str, _Linear] = {}
    for index, (layer, linears) in enumerate(zip(layers, seen, strict=True)):
        with _located(index):
            parts, reach = _attention(linears, lenders, set(linears) == set(linears_of(layer)))
            lenders |= {f"{index} {parts[name][0]}": linears[parts[name][0]] for name in ("k", "v") if parts.get(name)}
            half: list[Features] = []
            if feed_forward:
                more, half = _feed_forward(layer, linears, parts, reach)
                parts |= more
            found.append(parts)
            halves.append(half)
    if any(halves):
        scaled = []
        for which in (0, 1):
            masks = [(i, path, mask) for i, half in enumerate(halves) if half for path, mask in half[which].items()]
            scaled.append(_probe(model, layers, {(i, path): 1 - 3 * mask.long() for i, path, mask in masks}))
        for index, parts in enumerate(found):
            if halves[index]:
                with _located(index):
                    _gate_and_up(parts, halves[index], *(each[index] for each in (seen, *scaled)))
    return found


def check_runs(model: Any) -> None:
    """Raise `Unusable` for a model whose forward pass fails, or whose earlier outputs move with a later token."""
    ids = random_ids(model)
    changed = ids.clone()
    changed[:, -1] = (ids[:, -1] + 1) % embeddings_of(model)
    with evaluating(model), torch.no_grad():
        before, after = (_forward(model, each, logits=TOKENS)[:, :-1] for each in (ids, changed))
    if before.isnan().all():
        raise Unusable(
            "its outputs are not numbers: a damaged weight, or a precision that it overflows in; fetch it again, or "
            "set dtype to float32 in its row of models.tsv"
        )
    # Kernels may sum in another order; 16-bit passes round at each step.
    allowed = torch.finfo(before.dtype).eps ** 0.5 * before.float().abs().max()
    if (after - before).float().abs().max() > allowed:
        raise Unusable(_NOT_CAUSAL)


def _forward(model: Any, ids: Tensor, *, logits: int) -> Tensor:
    try:
        return run_forward(model, ids, logits=logits)
    except Exception as error:
        raise Unusable(
            f"a forward pass over {BATCH} x {TOKENS} tokens fails ({type(error).__name__}: {error}); see that "
            "transformers alone runs this checkpoint (its config.json, its own code's version), with memory to spare"
        ) from error


def usable(model: Any, layers: Sequence[nn.Module]) -> list[set[str]]:
    """By layer, the paths of the linear modules that map every token once, so that their gradient is D^T X."""
    return [set(linears) for linears in _probe(model, layers)]


@contextmanager
def _located(index: int) -> Iterator[None]:
    try:
        yield
    except Unclear as unclear:
        unclear.layer = index
        raise


def _probe(
    model: Any, layers: Sequence[nn.Module], factors: dict[tuple[int, str], Tensor] | None = None
) -> list[dict[str, _Linear]]:
    """One forward pass over random tokens in which every linear's output is replaced; by layer and path.

    `factors`: by layer and path, what the columns of the replaced output are multiplied by, (width,).
    """
    seen: list[dict[str, _Linear]] = [{} for _ in layers]
    used: Counter[nn.Module] = Counter()

    def replace(index: int, path: str):
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            rows, columns = size_of(module)
            if not _is_plain(module, args[0], output):
                return None  # routed tokens, or an output that is no plain product: no candidate
            used[module] += 1
            generator = torch.Generator().manual_seed(zlib.crc32(f"{index} {path}".encode()))
            leaf = torch.randn(BATCH, TOKENS, rows, generator=generator) * _SCALE
            leaf[0].abs_()  # a rectifier lets it pass
            leaf = leaf.to(output)
            if factors and (index, path) in factors:
                leaf *= factors[index, path].to(leaf)
            leaf.requires_grad_()
            seen[index][path] = _Linear(module, args[0].reshape(BATCH, TOKENS, columns), leaf)
            return leaf.reshape(output.shape).clone()  # a copy, as some layers add to it in place

        return hook

    handles = []
    try:
        for index, layer in enumerate(layers):
            for path, module in linears_of(layer).items():
                handles.append(module.register_forward_hook(replace(index, path)))
        with adapters_off(model), evaluating(model), torch.inference_mode(False), torch.enable_grad():
            _forward(model, random_ids(model), logits=TOKENS)
    finally:
        for handle in handles:
            handle.remove()
    # A weight that serves twice has a gradient of two products: no candidate.
    return [{path: linear for path, linear in linears.items() if used[linear.module] == 1} for linears in seen]


def _is_plain(module: nn.Module, x: Tensor, output: Any) -> bool:
    """Whether a linear module maps all tokens of the probe by its own weight, so that its gradient is D^T X."""
    rows, columns = size_of(module)
    if not isinstance(output, Tensor) or x.shape[-1] != columns or output.shape != (*x.shape[:-1], rows):
        return False
    if x.numel() != BATCH * TOKENS * columns:
        return False
    with torch.no_grad():
        weight = module.weight.T if isinstance(module, Conv1D) else module.weight
        expected = nn.functional.linear(x, weight, module.bias)
        return bool((output - expected).abs().max() <= 0.02 * expected.abs().max())


def _reach(target: Tensor, sources: dict[str, _Linear]) -> dict[str, Tensor]:
    """How far each source's columns at position s reach `target` at position t: (t, s, width) each, 0 is not at all."""
    if not target.requires_grad or not sources:
        return {}
    generator = torch.Generator().manual_seed(1)
    # Positive, so that effects do not cancel; not constant, as a norm's outputs may have a constant sum.
    weights = (torch.rand(target[:, 0].shape, generator=generator) + 0.5).to(target)
    leaves = [linear.leaf for linear in sources.values()]
    rows = [
        torch.autograd.grad(target[:, t], leaves, weights, retain_graph=True, allow_unused=True) for t in range(TOKENS)
    ]
    reach = {
        path: torch.stack([row[i].abs().amax(0).float().cpu() for row in rows])
        for i, path in enumerate(sources)
        if rows[0][i] is not None
    }
    return {path: size for path, size in reach.items() if size.any()}


def _attention(
    linears: dict[str, _Linear], lenders: dict[str, _Linear], followed: bool
) -> tuple[Parts, dict[str, dict[str, Tensor]]]:
    """q, k, v and o of one layer as far as they are there; and by linear what of the layer reaches its input.

    `lenders`: the keys and values of earlier layers, which a layer may use in place of its own. `followed`: whether
    all linear modules of the layer are among `linears`.
    """
    reach = {
        path: _reach(linear.x, {other: source for other, source in linears.items() if other != path})
        for path, linear in linears.items()
    }
    square = torch.ones(TOKENS, TOKENS)
    past, future = square.tril(-1)[..., None], square.triu(1)[..., None]

    def mixes(sources: dict[str, Tensor]) -> bool:
        return any((size * past).any() for size in sources.values())

    mixing = [path for path, sources in reach.items() if mixes(sources)]
    borrowing = not mixing
    if borrowing:
        # All outputs are replaced: what an earlier layer's keys and values still reach reads them directly.
        mixing = [path for path, linear in linears.items() if mixes(_reach(linear.x, lenders))]
    if len(mixing) != 1:
        raise Unclear(
            f"{len(mixing)} linear modules have inputs that mix positions ({', '.join(mixing) or 'none'}), in place of "
            "the one output projection of softmax attention"
        )
    output = mixing[0]
    borrowed = _reach(linears[output].x, lenders) if borrowing else {}
    parts: Parts = {"o": (output, None)}
    unit = max(float(size[0, 0].max()) for size in (*reach[output].values(), *borrowed.values()))

    def roles(path: str, size: Tensor) -> dict[str, Tensor]:
        if (size * future).any():
            raise Unusable(_NOT_CAUSAL)
        first, later = size[0, 0] > _REACH * unit, (size * past).any(0).any(0)
        if idle := int((~size.any(0).any(0)).sum()):
            raise Unclear(f"{idle} output features of {path} do not reach {output}")
        # What acts at its own position alone, and already at the first one, is a gate on attention's output.
        return {"v": first & later, "k": ~first & later, "q": ~first & ~later}

    for path, size in reach[output].items():
        for name, mask in roles(path, size).items():
            _put(parts, name, path, mask)
    for path, size in borrowed.items():
        parts |= {name: None for name, mask in roles(path, size).items() if mask.any() and name not in parts}
    if "q" in parts and "v" in parts and "k" not in parts and followed:
        # Queries act, so there are keys, and nothing else gives them: one matrix gives keys and values.
        parts |= {"k": parts["v"], "v": None}
    _check_widths(parts, size_of(linears[output].module)[1])
    return parts, reach


def _check_widths(parts: Parts, mixed: int) -> None:
    """`Unclear` where queries or keys are too few for softmax attention of `mixed` features.

    A convolution or a recurrent state has a few features that a threshold on one layer's numbers takes for them.
    """
    count = {name: len(part[1]) for name, part in parts.items() if part is not None and part[1] is not None}
    q, k, v = (count.get(name) for name in "qkv")
    if (q and _NARROW * q < mixed) or (k and v and _NARROW * k < v) or (q and k and q < k):
        found = ", ".join(f"{name} {count[name]}" for name in "qkv" if name in count)
        raise Unclear(f"its features do not fit softmax attention ({found} of {mixed} mixed ones)")


def _put(parts: Parts, name: str, path: str, mask: Tensor) -> None:
    if not mask.any():
        return
    if name in parts:
        raise Unclear(f"both {parts[name][0]} and {path} act as {name}")
    parts[name] = (path, mask.nonzero()[:, 0])


def _feed_forward(
    layer: nn.Module, linears: dict[str, _Linear], attention: Parts, reach: dict[str, dict[str, Tensor]]
) -> tuple[Parts, list[Features]]:
    """down and, without a gate, up of one layer; with one, the two halves that `_gate_and_up` is to name.

    A half is by path a mask of output features (width,), each of which meets one of the other half in a product.
    """
    experts = [
        name
        for name, parameter in layer.named_parameters()
        if parameter.ndim == 3 and not isinstance(layer.get_submodule(name.rpartition(".")[0]), nn.Conv1d)
    ]
    if experts or (experts := sorted(set(linears_of(layer)) - set(linears))):
        raise Unclear(f"the feed-forward part is a mixture of experts ({experts[0]}); only q, k, v and o are measured")
    output = attention["o"][0]
    inner = {output, *reach[output]}
    fed = {path: [other for other in reach[path] if other != output] for path in linears if path not in inner}
    downs = [path for path, sources in fed.items() if sources]
    if len(downs) != 1:
        raise Unclear(f"{len(downs)} linear modules act as down ({', '.join(downs) or 'none'}) in place of one")
    down = downs[0]
    sources, width = fed[down], linears[down].x.shape[2]
    target, leaves = linears[down].x, [linears[path].leaf for path in fed[down]]
    count = torch.arange(width, device=target.device)

    def pull(signs: Tensor) -> Tensor:
        """Gradients of all source columns, (batch * tokens, columns of all sources)."""
        weights = signs.to(target).expand_as(target)
        return torch.cat([g.flatten(0, 1) for g in torch.autograd.grad(target, leaves, weights, retain_graph=True)], 1)

    plain = pull(torch.ones_like(count))
    best = plain.abs().max(0).indices[None]
    base = plain.gather(0, best)[0]
    # Where each column acts on one input of down alone, signs that spell the input's number give it away.
    meets = torch.zeros_like(base, dtype=torch.long)
    clear = base != 0
    for bit in range(width.bit_length()):
        pulled = pull(1 - 2 * (count >> bit & 1)).gather(0, best)[0]
        meets += (pulled.sign() != base.sign()).long() << bit
        clear &= pulled.abs() == base.abs()
    each = torch.bincount(meets, minlength=width)
    if not clear.all() or len(each) > width or int(each.min()) != int(each.max()) or int(each[0]) > 2:
        raise Unclear(f"the input of {down} is not one feature of {', '.join(sources)} each, or a product of two")
    order = torch.argsort(meets, stable=True).view(width, -1)
    halves = []
    for members in order.T:
        mask = torch.zeros_like(clear)
        mask[members] = True
        halves.append(dict(zip(sources, mask.split([leaf.shape[2] for leaf in leaves]), strict=True)))
    parts: Parts = {"down": (down, None)}
    if len(halves) == 1:
        for path, mask in halves[0].items():
            _put(parts, "up", path, mask)
        return parts, []
    return parts, halves


def _gate_and_up(parts: Parts, halves: list[Features], seen: dict[str, _Linear], *scaled: dict[str, _Linear]) -> None:
    """Name the halves: down's input is linear in up. `scaled`: the probe again, with one half times -2 each."""
    down = parts["down"][0]
    expected = -2 * seen[down].x
    errors = [(again[down].x - expected).abs().amax((0, 1)) for again in scaled]
    linear = [error <= 0.01 * expected.abs().amax((0, 1)) for error in errors]
    if linear[0].all() and not linear[1].any():
        up, gate = halves
    elif linear[1].all() and not linear[0].any():
        gate, up = halves
    else:
        raise Unclear(f"the input of {down} is a product, but which factor is the gate cannot be told")
    for name, half in (("gate", gate), ("up", up)):
        for path, mask in half.items():
            _put(parts, name, path, mask)
