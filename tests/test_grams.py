"""The route of float32 passes, by squares in float64, against the SVD of D^T X itself in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatlas.gradients import cores
from gradatlas.gradients import spectra as engine
from gradatlas.gradients.capture import Factors
from gradatlas.gradients.cores import Inputs, core, gram
from gradatlas.gradients.spectra import METRICS, decompose, spectra


def plainly(x, d):
    return torch.linalg.svdvals(d.double().mT @ x.double())


def factors(tokens, rows, columns, seed, condition=0.0):
    """Random float32 factors; tokens' sizes fall by `condition` decades, apart in X and in D."""
    generator = torch.Generator().manual_seed(seed)
    fall = 10 ** torch.linspace(0, -condition, tokens)
    order = torch.randperm(tokens, generator=generator)
    x = torch.randn(tokens, columns, generator=generator) * fall[:, None]
    d = torch.randn(tokens, rows, generator=generator) * fall[order][:, None]
    return x, d


def singular_values(x, d):
    return decompose({"q": Factors(x[None], d[None])}).sigma[0][0]


def assert_close(x, d, tolerance=1e-6):
    ours, exact = singular_values(x, d), plainly(x, d)
    assert ours.dtype == torch.float64
    exact = exact[: len(ours)]
    assert abs(ours.sum() - exact.sum()) <= tolerance * exact.sum()
    assert abs(ours[0] - exact[0]) <= 1e-9 * exact[0]
    assert abs(ours.norm() - exact.norm()) <= 1e-9 * exact.norm()
    assert ((ours - exact).abs() <= 1e-6 * exact[0]).all()


@settings(max_examples=80, deadline=None)
@given(
    tokens=st.integers(1, 300),
    rows=st.integers(1, 200),
    columns=st.integers(1, 200),
    condition=st.floats(0, 8),
    seed=st.integers(0, 999),
)
def test_any_shape_and_any_spread_of_sizes(tokens, rows, columns, condition, seed):
    assert_close(*factors(tokens, rows, columns, seed, condition))


@settings(max_examples=40, deadline=None)
@given(
    distinct=st.integers(1, 40),
    tokens=st.integers(1, 60),
    rows=st.integers(61, 90),
    columns=st.integers(61, 90),
    both=st.booleans(),
    seed=st.integers(0, 999),
)
def test_repeated_tokens(distinct, tokens, rows, columns, both, seed):
    """The same input at several places, with the same or with other output gradients: a singular Gram matrix."""
    x, d = factors(tokens, rows, columns, seed)
    kept = torch.arange(tokens).clamp_max(distinct - 1)
    assert_close(x[kept], d[kept] if both else d)


def test_tokens_without_a_gradient_or_an_input_add_nothing():
    x, d = factors(40, 64, 64, 0)
    d[:20], x[35:] = 0, 0
    assert_close(x, d)
    few = singular_values(x[20:35].contiguous(), d[20:35].contiguous())
    assert torch.allclose(singular_values(x, d)[:15], few, rtol=1e-6)


def test_one_huge_token_does_not_drown_the_others():
    """A token with a thousand times the activations and a small gradient, as an attention sink has."""
    x, d = factors(50, 80, 80, 1)
    x[0] *= 1e4
    d[0] *= 1e-4
    assert_close(x, d)


def test_gradients_that_cancel_are_left_to_the_svd():
    """Two equal inputs with opposite gradients: squares would leave rounding, the other route does not."""
    x, d = factors(30, 64, 64, 2)
    x[1::2] = x[::2]
    d[1::2] = -d[::2] * (1 + 1e-5)
    found = core(Inputs(x[None]), d[None])
    sigma = cores.roots(torch.linalg.eigvalsh(found.square))
    rank = torch.tensor([len(x)])
    assert cores.unsafe(sigma, rank, found.failed, found.before, found.total, found.error).item()
    assert_close(x, d)


def test_a_zero_gradient_is_zero():
    x, d = factors(10, 20, 20, 3)
    values = spectra({"q": Factors(x[None], torch.zeros_like(d)[None])})[0, 0]
    # sigma_max / nuclear_norm is no number.
    assert values[METRICS.index("sigma_ratio")].isnan() and values.nan_to_num().abs().max() == 0
    assert spectra({"q": Factors(x[None], torch.zeros_like(d)[None])}, ["frobenius_norm"]).item() == 0


@pytest.mark.parametrize("tokens", [1, 127, 255, 256, 300, 513])
def test_a_gram_matrix_in_blocks_is_one(tokens):
    x = torch.randn(tokens, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(gram(x), x @ x.mT, rtol=1e-12, atol=1e-14)


def test_the_number_of_threads_changes_no_digit():
    before = torch.get_num_threads()
    x = torch.randn(5, 90, 70, generator=torch.Generator().manual_seed(4))
    d = torch.randn(5, 90, 96, generator=torch.Generator().manual_seed(5))
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(spectra({"q": Factors(x, d)}, ["nuclear_norm", "sigma_max", "effective_rank"]))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_metrics_are_those_asked_for_in_their_order():
    x, d = factors(20, 30, 40, 6)
    part = {"q": Factors(x[None], d[None])}
    everything = spectra(part)[0, 0]
    assert everything[METRICS.index("sigma_ratio")] == everything[1] / everything[0]
    asked = ("effective_rank", "sigma_max", "min")
    assert torch.equal(spectra(part, asked)[0, 0], everything[[METRICS.index(name) for name in asked]])


def test_projections_of_one_input_share_its_gram_matrix(monkeypatch):
    """Q, K and V read the same tokens: one product, not three."""
    seen = []
    monkeypatch.setattr(cores, "gram", lambda x, real=cores.gram: seen.append(tuple(x.shape)) or real(x))
    x, d = factors(20, 30, 40, 7)
    shared = x[None]
    spectra({name: Factors(shared, d[None]) for name in "qkv"}, ["nuclear_norm"])
    assert seen.count((1, 20, 40)) == 1


@pytest.mark.parametrize("part", [1e-2, 1e-4, 1e-6, 3e-7])
@pytest.mark.parametrize(
    ("tokens", "rows", "columns"), [(400, 256, 512), (512, 256, 1536), (60, 64, 64), (300, 128, 96)]
)
def test_gradients_that_cancel_in_any_shape(tokens, rows, columns, part):
    """Each input twice, with all but opposite gradients: where a square holds little but rounding, it is not used."""
    x, d = factors(tokens // 2, rows, columns, 8)
    assert_close(x.repeat(2, 1), torch.cat([d, -d * (1 + part)]))


@pytest.mark.parametrize(("rows", "columns"), [(64, 256), (128, 96)])
def test_a_low_rank_of_many_tokens(rows, columns):
    x, d = factors(300, rows, columns, 9)
    generator = torch.Generator().manual_seed(10)
    assert_close(x, d[:, :3] @ torch.randn(3, rows, generator=generator))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tokens", [30, 60, 100])
def test_repeated_tokens_leave_a_smallest_singular_value_of_zero(tokens, dtype):
    x, d = (factor.to(dtype) for factor in factors(tokens, 30, 40, 11))
    full = spectra({"q": Factors(x[None], d[None])}, ["sigma_min"]).item()
    assert abs(full / plainly(x, d)[-1] - 1) < 1e-6
    kept = torch.arange(tokens) % 29
    assert spectra({"q": Factors(x[kept][None], d[kept][None])}, ["sigma_min"]).item() == 0
    x[29:] = 0
    assert spectra({"q": Factors(x[None], d[None])}, ["sigma_min"]).item() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("tokens", "cancelling"), [(20, False), (90, False), (90, True)])
def test_entries_and_frobenius_norm_need_no_spectrum(tokens, cancelling, dtype, monkeypatch):
    x, d = (factor.to(dtype) for factor in factors(tokens, 30, 40, 12))
    if cancelling:
        x, d = torch.cat([x, x]), torch.cat([d, -d * (1 + 1e-6)])
    part, asked = {"q": Factors(x[None], d[None])}, ("frobenius_norm", "mean", "max", "min")
    gradient = d.double().mT @ x.double()
    expected = torch.stack([gradient.norm(), gradient.mean(), gradient.max(), gradient.min()])
    calls = []
    monkeypatch.setattr(engine, "exact_values", lambda x, d, real=cores.exact_values: calls.append(1) or real(x, d))
    found = engine.decompose(part, asked, with_values=False)
    values, sigma = found.metrics, found.sigma
    # max and min are those of a product in the factors' own precision.
    rough = 1e-9 if dtype == torch.float64 else 1e-6
    size = d.double().norm() * x.double().norm()
    assert (values[0, 0] - expected).abs().max() <= rough * (size if cancelling else expected[0])
    assert abs(values[0, 0, 0] / expected[0] - 1) < 1e-8
    assert len(calls) == cancelling and not sigma
    assert len(engine.decompose(part, asked).sigma[0][0]) == min(len(x), 30)
