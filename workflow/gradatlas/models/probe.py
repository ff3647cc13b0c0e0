"""Finding the function of a decoder's linear modules by one small forward pass and autograd.

Names and layouts differ between families (three modules, one fused module, interleaved heads, a transposed weight), the
function of the projections does not. So the outputs of all linear modules are replaced by random numbers in one forward
pass, and autograd shows, column by column, which outputs affect which inputs:

* o is the linear module whose input mixes positions;
* v affects it at the first position too, where a softmax over a single key makes q and k irrelevant;
* k affects later positions than its own, q only its own;
* down is the other module that depends on linear modules; its input is linear in up, and not linear in gate.

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

from gradatlas.models.adapters import adapters_off, without_adapters
from gradatlas.models.forward import BATCH, TOKENS, embeddings_of, evaluating, random_ids, run_forward
from gradatlas.models.quantised import is_quantised, weight_of

# Scale of the random outputs: scores of about 1 at head widths of 64 to 256.
_SCALE = 0.3
# Threshold of an effect at the first position: values have a factor of about 1, queries and keys at most rounding.
_REACH = 1e-3
# Largest ratio of the widths of keys and values in known decoders.
_NARROW = 8

# By path, a mask of output features (width,).
Features = dict[str, Tensor]
# By projection, the path of its module and its output features (None: all). None for a layer that has no such
# projection of its own: it uses an earlier layer's keys and values, or its keys as values.
Parts = dict[str, tuple[str, Tensor | None] | None]


@dataclass(frozen=True, eq=False)
class _Linear:
    """A linear module in the probe's pass: its input `x` and replaced output `leaf`, (batch, tokens, width)."""

    module: nn.Module
    x: Tensor
    leaf: Tensor


class Unclear(Exception):
    """A projection of decoder layer number `layer` is ambiguous. A mapping can help."""

    def __init__(self, problem: str, layer: int = 0):
        super().__init__(problem)
        self.layer = layer


class Unusable(Exception):
    """The model cannot be measured, also not with a mapping."""


_NOT_CAUSAL = (
    "not a causal decoder, as earlier positions depend on later ones (is_decoder in its config.json?); remove its row "
    "from models.tsv, or give a decoder-only checkpoint there"
)


def size_of(module: nn.Module) -> tuple[int, int]:
    """(output features, input features)."""
    if is_quantised(module):
        return module.out_features, module.in_features
    shape = tuple(module.weight.shape)
    return (shape[1], shape[0]) if isinstance(module, Conv1D) else (shape[0], shape[1])


def linears_of(layer: nn.Module) -> dict[str, nn.Module]:
    """The linear modules of a layer, by path, without those of adapters."""
    return {
        path: module
        for path, module in without_adapters(layer)
        if isinstance(module, nn.Linear | Conv1D) and module.weight.ndim == 2
    }


def classify(model: Any, layers: Sequence[nn.Module], *, feed_forward: bool) -> list[Parts]:
    """The projections found in every layer. Raises `Unclear` where one is ambiguous."""
    # The caller may have disabled gradients.
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
    """Raise `Unusable` for a model whose forward pass fails, or whose outputs depend on later tokens."""
    ids = random_ids(model)
    changed = ids.clone()
    changed[:, -1] = (ids[:, -1] + 1) % embeddings_of(model)
    with evaluating(model), torch.no_grad():
        before, after = (_forward(model, each, logits=TOKENS)[:, :-1] for each in (ids, changed))
    if before.isnan().all():
        raise Unusable(
            "all its outputs are NaN, because of a damaged weight or an overflow; fetch it again, or set dtype to "
            "float32 in its row of models.tsv"
        )
    # Kernels may sum in another order, and 16-bit passes round at each step.
    allowed = torch.finfo(before.dtype).eps ** 0.5 * before.float().abs().max()
    if (after - before).float().abs().max() > allowed:
        raise Unusable(_NOT_CAUSAL)


def _forward(model: Any, ids: Tensor, *, logits: int) -> Tensor:
    try:
        return run_forward(model, ids, logits=logits)
    except Exception as error:
        raise Unusable(
            f"a forward pass over {BATCH} x {TOKENS} tokens fails ({type(error).__name__}: {error}); check that "
            "transformers can run this checkpoint (config.json, version of custom code), and that memory suffices"
        ) from error


def usable(model: Any, layers: Sequence[nn.Module]) -> list[set[str]]:
    """By layer, the paths of the linear modules that map every token exactly once, so that their gradient is D^T X."""
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
    """One forward pass over random tokens with replaced outputs of all linear modules; by layer and path.

    `factors`: by layer and path, factors of the columns of the replaced output, (width,).
    """
    seen: list[dict[str, _Linear]] = [{} for _ in layers]
    used: Counter[nn.Module] = Counter()

    def replace(index: int, path: str):
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            rows, columns = size_of(module)
            if not _is_plain(module, args[0], output):
                return None  # routed tokens, or not a plain product: no candidate
            used[module] += 1
            generator = torch.Generator().manual_seed(zlib.crc32(f"{index} {path}".encode()))
            leaf = torch.randn(BATCH, TOKENS, rows, generator=generator) * _SCALE
            leaf[0].abs_()  # passes a rectifier
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
    # The gradient of a weight that is used twice is a sum of two products: no candidate.
    return [{path: linear for path, linear in linears.items() if used[linear.module] == 1} for linears in seen]


def _is_plain(module: nn.Module, x: Tensor, output: Any) -> bool:
    """Whether a linear module maps all tokens by its weight, so that its gradient is D^T X."""
    rows, columns = size_of(module)
    if not isinstance(output, Tensor) or x.shape[-1] != columns or output.shape != (*x.shape[:-1], rows):
        return False
    if x.numel() != BATCH * TOKENS * columns:
        return False
    with torch.no_grad():
        weight = module.weight.T if isinstance(module, Conv1D) else weight_of(module).to(x.dtype)
        expected = nn.functional.linear(x, weight, module.bias)
        return bool((output - expected).abs().max() <= 0.02 * expected.abs().max())


def _reach(target: Tensor, sources: dict[str, _Linear]) -> dict[str, Tensor]:
    """The effect of each source's columns at position s on `target` at position t: (t, s, width); 0 for none."""
    if not target.requires_grad or not sources:
        return {}
    generator = torch.Generator().manual_seed(1)
    # Positive, so that effects do not cancel; random, as the outputs of a norm may have a constant sum.
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
    """q, k, v and o found in one layer; and by linear module, the effects of the layer's other modules on its input.

    `lenders`: the keys and values of earlier layers, which a layer may use instead of its own. `followed`: whether all
    linear modules of the layer are among `linears`.
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
        # All outputs are replaced, so only a direct use of an earlier layer's keys and values has an effect.
        mixing = [path for path, linear in linears.items() if mixes(_reach(linear.x, lenders))]
    if len(mixing) != 1:
        raise Unclear(
            f"{len(mixing)} linear modules have inputs that mix positions ({', '.join(mixing) or 'none'}); softmax "
            "attention has one, the output projection"
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
            raise Unclear(f"{idle} output features of {path} have no effect on {output}")
        # A gate on attention's output affects only its own position, also the first.
        return {"v": first & later, "k": ~first & later, "q": ~first & ~later}

    for path, size in reach[output].items():
        for name, mask in roles(path, size).items():
            _put(parts, name, path, mask)
    for path, size in borrowed.items():
        parts |= {name: None for name, mask in roles(path, size).items() if mask.any() and name not in parts}
    if "q" in parts and "v" in parts and "k" not in parts and followed:
        # There are queries, but no separate keys: one matrix gives keys and values.
        parts |= {"k": parts["v"], "v": None}
    _check_widths(parts, size_of(linears[output].module)[1])
    return parts, reach


def _check_widths(parts: Parts, mixed: int) -> None:
    """`Unclear` where there are too few queries or keys for softmax attention of `mixed` features.

    Some features of a convolution or a recurrent state look like queries or keys.
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
    """down and up of one layer without a gate; with a gate, down and the two halves for `_gate_and_up`.

    A half: by path, a mask of output features (width,), each multiplied by a feature of the other half.
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
        raise Unclear(f"{len(downs)} linear modules act as down ({', '.join(downs) or 'none'}), not one")
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
    # Each column affects one input of down: signs with the bits of the input's number identify it.
    meets = torch.zeros_like(base, dtype=torch.long)
    clear = base != 0
    for bit in range(width.bit_length()):
        pulled = pull(1 - 2 * (count >> bit & 1)).gather(0, best)[0]
        meets += (pulled.sign() != base.sign()).long() << bit
        clear &= pulled.abs() == base.abs()
    each = torch.bincount(meets, minlength=width)
    if not clear.all() or len(each) > width or int(each.min()) != int(each.max()) or int(each[0]) > 2:
        raise Unclear(f"the inputs of {down} are not single features of {', '.join(sources)}, or products of two")
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
    """Identify the halves: down's input is linear in up. `scaled`: two more passes, each with one half times -2."""
    down = parts["down"][0]
    expected = -2 * seen[down].x
    errors = [(again[down].x - expected).abs().amax((0, 1)) for again in scaled]
    linear = [error <= 0.01 * expected.abs().amax((0, 1)) for error in errors]
    if linear[0].all() and not linear[1].any():
        up, gate = halves
    elif linear[1].all() and not linear[0].any():
        gate, up = halves
    else:
        raise Unclear(f"the input of {down} is a product, but it is unclear which factor is the gate")
    for name, half in (("gate", gate), ("up", up)):
        for path, mask in half.items():
            _put(parts, name, path, mask)
