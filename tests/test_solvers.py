"""Many matrices at once, by every route that runs here, against one SVD of D^T X after the other in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatlas.gradients import spectra as engine
from gradatlas.gradients.capture import Factors
from gradatlas.gradients.metrics import OF_MATRIX
from gradatlas.gradients.solvers import FastestSolver
from gradatlas.gradients.spectra import METRICS, TOLERANCE, decompose, plainly, start

POOL = FastestSolver(2, ("pool",))
ROUTES = {"torch": plainly, "pool": POOL}
#: (rows, columns) of each projection; q, k and v read one input.
SHAPES = {"q": (48, 40), "k": (16, 40), "v": (16, 40), "o": (40, 48)}


def sample(tokens, seed, kind="random", layers=2, dtype=torch.float32):
    """Random factors of four projections, with a difficulty of the given `kind`."""
    generator = torch.Generator().manual_seed(seed)

    def random(width):
        return torch.randn(layers, tokens, width, generator=generator)

    x = {"attention": random(40), "output": random(48)}
    d = {name: random(rows) for name, (rows, _) in SHAPES.items()}
    if kind == "ill-conditioned":
        fall = 10 ** torch.linspace(0, -7, tokens)[:, None]
        x, d = {name: each * fall for name, each in x.items()}, {name: each * fall for name, each in d.items()}
    elif kind == "repeated":
        kept = torch.arange(tokens) % max(1, tokens // 3)
        x = {name: each[:, kept] for name, each in x.items()}
    elif kind == "low rank":
        d = {name: each[..., :2] @ torch.randn(2, each.shape[2], generator=generator) for name, each in d.items()}
    elif kind == "cancelling":
        half = torch.arange(tokens) // 2
        sign = torch.where(torch.arange(tokens) % 2 == 0, 1.0, -(1 + 1e-6))[:, None]
        x = {name: each[:, half] for name, each in x.items()}
        d = {name: each[:, half] * sign for name, each in d.items()}
    elif kind == "zero":
        d = {name: torch.zeros_like(each) for name, each in d.items()}
    x = {name: each.to(dtype) for name, each in x.items()}
    return {name: Factors(x["output" if name == "o" else "attention"], d[name].to(dtype)) for name in SHAPES}


def plain_sigma(factors):
    return {
        (layer, name): torch.linalg.svdvals(part.d[layer].double().mT @ part.x[layer].double())
        for name, part in factors.items()
        for layer in range(len(part.x))
    }


KINDS = ["random", "ill-conditioned", "repeated", "low rank", "cancelling", "zero"]


@pytest.mark.parametrize("route", ROUTES)
@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=4),
    kinds=st.lists(st.sampled_from(KINDS), min_size=4, max_size=4),
    seed=st.integers(0, 99),
)
def test_every_route_agrees_with_plain_svds(route, lengths, kinds, seed):
    samples = [sample(tokens, seed + at, kind) for at, (tokens, kind) in enumerate(zip(lengths, kinds, strict=False))]
    found = start(samples, solve=ROUTES[route], batched=True)()
    for factors, one in zip(samples, found, strict=True):
        alone = decompose(factors)
        assert one.finite and torch.isnan(one.metrics).equal(torch.isnan(alone.metrics))
        for (layer, name), exact in plain_sigma(factors).items():
            place = list(SHAPES).index(name)
            sigma = one.sigma[layer][place]
            exact = exact[: len(sigma)]
            assert len(sigma) == min(len(factors[name].x[layer]), *SHAPES[name]) == len(alone.sigma[layer][place])
            assert abs(sigma.sum() - exact.sum()) <= TOLERANCE * exact.sum()
            assert ((sigma - exact).abs() <= 1e-6 * exact[0]).all()
            of = dict(
                zip(METRICS, zip(one.metrics[layer, place], alone.metrics[layer, place], strict=True), strict=True)
            )
            for metric in ("nuclear_norm", "sigma_max", "frobenius_norm", "mean", "max", "min", "sigma_ratio"):
                ours, theirs = of[metric]
                size = abs(theirs) if metric != "mean" else abs(of["max"][1])
                assert ours.isnan() or abs(ours - theirs) <= 1e-6 * size + 1e-30, metric
            # Its entropy feels each small value.
            assert abs(of["effective_rank"][0] - of["effective_rank"][1]) <= 1e-4 * of["effective_rank"][1]


def test_float64_takes_the_exact_route_in_a_batch():
    samples = [sample(30, 1, dtype=torch.float64), sample(20, 2, dtype=torch.float64)]
    for factors, one in zip(samples, start(samples, batched=True)(), strict=True):
        assert torch.equal(one.metrics[..., 0], decompose(factors).metrics[..., 0])


def test_layers_of_unlike_shapes_and_layers_without_a_projection():
    factors = sample(25, 3)
    x, d = factors["q"].x, factors["q"].d
    uneven = {
        "q": Factors((x[0], x[1]), (d[0], torch.cat([d[1], d[1]], 1))),
        "k": Factors((x[0], None), (factors["k"].d[0], None)),
    }
    one, alone = start([uneven], batched=True)()[0], decompose(uneven)
    assert torch.allclose(one.metrics, alone.metrics, rtol=1e-6, equal_nan=True)
    assert one.metrics[1, 1].isnan().all() and len(one.sigma[1][1]) == 0


def test_a_sample_with_nan_leaves_the_others_alone():
    samples = [sample(25, 4), sample(25, 5), sample(24, 6)]
    samples[1]["k"].d[1, 3, 2] = torch.nan
    samples[2]["q"].x[0, 0, 0] = torch.inf
    found = start(samples, batched=True)()
    assert [one.finite for one in found] == [True, False, False]
    assert torch.allclose(found[0].metrics, decompose(samples[0]).metrics, rtol=1e-6)


def test_without_its_factors_a_sample_for_the_exact_route_is_none():
    samples = [sample(30, 7), sample(30, 8, "cancelling")]
    found = start(samples, batched=True, hold=False)()
    assert found[0] is not None and found[1] is None
    entries = start(samples, ("frobenius_norm", "mean"), with_values=False, batched=True, hold=False)()
    assert entries[0] is not None and entries[1] is None


def test_little_memory_gives_the_same_numbers(monkeypatch):
    """A batch that is computed and solved in many parts."""
    samples = [sample(40, 9), sample(39, 10)]
    whole = start(samples, batched=True)()
    monkeypatch.setattr(engine, "_COPIES", 100_000)
    monkeypatch.setattr(engine, "_CORES", 20_000)
    for one, other in zip(whole, start(samples, batched=True)(), strict=True):
        assert torch.allclose(one.metrics, other.metrics, rtol=1e-6, equal_nan=True)


def test_the_fastest_route_is_used_and_a_route_that_fails_is_left(capsys, monkeypatch):
    solver = FastestSolver(2)
    square = torch.eye(33, dtype=torch.float64).repeat(5, 1, 1)
    assert torch.equal(solver(square)(), torch.ones(5, 33, dtype=torch.float64))
    facts = solver.facts["64"]
    # On a CPU neither batched routine of a GPU runs.
    assert facts["chosen"] in ("torch", "pool") and "no NVIDIA GPU" in facts["nvmath"] and "Error" in facts["cupy"]
    assert facts["chosen"] == min(("torch", "pool"), key=facts.get)
    chosen = facts["chosen"]

    def broken(square):
        raise RuntimeError("CUSOLVER_STATUS_INTERNAL_ERROR")

    monkeypatch.setitem(solver._routes, facts["chosen"], broken)
    assert torch.equal(solver(square)(), torch.ones(5, 33, dtype=torch.float64))
    shown = capsys.readouterr().err
    assert f"{chosen} fails (RuntimeError: CUSOLVER_STATUS_INTERNAL_ERROR)" in shown
    assert solver.facts["64"]["chosen"] != chosen and solver.facts["64"][chosen].startswith("RuntimeError")


def test_a_route_with_wrong_eigenvalues_is_not_used(monkeypatch):
    """Batched Jacobi routines of some versions of cuSOLVER return the diagonal."""
    solver = FastestSolver(2, ("torch", "pool"))
    monkeypatch.setitem(solver._routes, "torch", lambda square: lambda: square.diagonal(dim1=1, dim2=2).sort().values)
    solver(torch.ones(3, 8, 8, dtype=torch.float64))
    assert solver.facts["8"]["chosen"] == "pool" and "differ from LAPACK's" in solver.facts["8"]["torch"]


def test_every_metric_has_a_function():
    assert set(OF_MATRIX) == set(METRICS)
