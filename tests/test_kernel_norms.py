"""Frobenius norms of the kernel of the logits, against explicit Jacobians in float64."""

import pytest
import torch

from gradatlas.core.errors import InputError
from gradatlas.finetuning.sequences import EncodedResponse, response_logits
from gradatlas.kernels.blocks import Block, Blocks
from gradatlas.kernels.gaussian import of_products
from gradatlas.kernels.matrices import kernels
from gradatlas.kernels.norms import Drawn, projected_logits, squared_norms
from test_kernels import close, decoder, exact

# Of two lengths, padded in one batch.
RESPONSES = [EncodedResponse((5, 6, 7, 8, 5), 3), EncodedResponse((1, 2, 3, 0, 7, 0), 2)]
DRAWS = 100


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def known(request):
    """A model's blocks (untied; tied, fused, transposed), and by response and parameter its Jacobian."""
    with pytest.MonkeyPatch.context() as patch:
        exact(patch)
        model = decoder(request.param)
        blocks = Blocks(model)
        named = dict(model.requires_grad_(True).named_parameters())
        jacobians = []
        for each in RESPONSES:
            logits = response_logits(model, [each])[0].flatten()
            rows = [torch.autograd.grad(one, [*named.values()], retain_graph=True) for one in logits]
            jacobians.append(
                {name: torch.stack(part).flatten(1) for name, part in zip(named, zip(*rows, strict=True), strict=True)}
            )
        yield blocks, jacobians


def test_products_are_those_of_the_explicit_kernel(known):
    blocks, jacobians = known
    drawn = [Drawn(each.ids, each.start, 10 * place + draw) for place, each in enumerate(RESPONSES) for draw in (0, 1)]
    found = kernels(blocks, drawn, score=projected_logits)
    vectors = [torch.randn(each.tokens * 60, generator=torch.Generator().manual_seed(each.seed), dtype=torch.float64)
               for each in drawn]  # fmt: skip
    total = 0
    for name in jacobians[0]:
        formed = torch.stack([vector @ jacobians[place // 2][name] for place, vector in enumerate(vectors)])
        mine = [block for block in blocks.blocks if blocks.parameter(block) == name]
        mine += [block for block in found if block.name == "embedding x output" and mine[0].name == "embedding"]
        if (formed @ formed.mT).abs().max() > 1e-20:
            close(sum(found[block] for block in mine), formed @ formed.mT)
        total = total + formed @ formed.mT
    close(sum(found.values()), total)


def test_estimates_are_within_their_standard_errors(known):
    blocks, jacobians = known
    found = squared_norms(blocks, RESPONSES, draws=DRAWS)
    down = next(name for name in jacobians[0] if name.endswith(("1.mlp.down_proj.weight", "1.mlp.c_proj.weight")))
    sides = {
        None: [torch.cat([*each.values()], 1) for each in jacobians],
        Block(1, "down"): [each[down] for each in jacobians],
    }
    for block, (one, other) in sides.items():
        expected = [[(left @ right.mT).square().sum() for right in (one, other)] for left in (one, other)]
        value, error = found[block]
        assert ((value - torch.tensor(expected)).abs() < 4 * error).all() and (error < 0.2 * value).all()
    assert set(found) == {None, *kernels(blocks, RESPONSES)}


# A single direction, where draws matter most, and many.
@pytest.mark.parametrize("rank", [1, 5, 40])
def test_errors_are_the_spread_of_estimates(rank):
    generator = torch.Generator().manual_seed(rank)
    kernel = torch.diag(torch.linspace(1, 0.5, rank, dtype=torch.float64))
    w, v = torch.randn(2, 4000, 16, rank, generator=generator, dtype=torch.float64)
    value, error = of_products(w @ kernel @ v.mT)
    spread = float(value.std())
    assert float(value.mean()) == pytest.approx(float(kernel.square().sum()), abs=4 * spread / 4000**0.5)
    assert float(error.square().mean()) ** 0.5 == pytest.approx(spread, rel=0.1)


def test_one_draw_has_no_error(known):
    with pytest.raises(InputError, match="draws: 1 give no standard error; give 2 or more"):
        squared_norms(known[0], RESPONSES, draws=1)
