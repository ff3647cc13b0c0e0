"""The engine on a GPU, against the CPU in float64. Needs no package but the engine's, and no other file of the tests:

pytest --noconftest tests/test_on_gpu.py
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatlas.gradients.capture import Capture, Factors
from gradatlas.gradients.measure import measure
from gradatlas.gradients.settings import Settings
from gradatlas.gradients.solvers import FastestSolver
from gradatlas.gradients.spectra import METRICS, TOLERANCE, decompose, start
from gradatlas.models.loading import load
from gradatlas.models.tokens import Encoded
from test_solvers import KINDS, SHAPES, plain_sigma, sample

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

MINIATURE = Path(__file__).resolve().parents[1] / "resources/miniature/base"


@pytest.fixture(scope="module")
def solvers():
    return {name: FastestSolver(4, (name,)) for name in ("nvmath", "cupy", "torch", "pool")}


@pytest.mark.parametrize("route", ["nvmath", "cupy", "torch", "pool"])
@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=4),
    kinds=st.lists(st.sampled_from(KINDS), min_size=4, max_size=4),
    seed=st.integers(0, 99),
)
def test_every_route_agrees_with_plain_svds(solvers, route, lengths, kinds, seed):
    if route in ("nvmath", "cupy"):
        pytest.importorskip(route)
    samples = [sample(tokens, seed + at, kind) for at, (tokens, kind) in enumerate(zip(lengths, kinds, strict=False))]
    on_gpu = []
    for factors in samples:
        x = {place: factors[place].x.cuda() for place in "qo"}
        on_gpu.append({name: Factors(x["o" if name == "o" else "q"], part.d.cuda()) for name, part in factors.items()})
    for factors, one in zip(samples, start(on_gpu, solve=solvers[route])(), strict=True):
        alone = decompose(factors)
        # Entries are sums of float32 products in another order.
        assert one.finite and torch.isnan(one.metrics).equal(torch.isnan(alone.metrics))
        for (layer, name), exact in plain_sigma(factors).items():
            sigma = one.sigma[layer][list(SHAPES).index(name)]
            exact = exact[: len(sigma)]
            assert abs(sigma.sum() - exact.sum()) <= TOLERANCE * exact.sum()
            assert ((sigma - exact).abs() <= 1e-6 * exact[0]).all()


def test_a_whole_pass_is_the_cpu_s(solvers):
    generator = torch.Generator().manual_seed(0)
    batch = []
    for tokens in (50, 48, 20, 7):
        ids = torch.randint(0, 150, (tokens,), generator=generator).tolist()
        batch.append(Encoded(tuple(ids), tuple(at >= tokens // 2 for at in range(tokens)), False))
    exact = Capture(load(str(MINIATURE), dtype="float64", device="cpu")[0]).run(batch)
    capture = Capture(load(str(MINIATURE), dtype="float32", device="cuda")[0])
    found = start([done.factors for done in capture.run(batch)], solve=FastestSolver(4))()
    for one, other in zip(found, exact, strict=True):
        expected = decompose(other.factors).metrics
        for name in ("nuclear_norm", "sigma_max", "frobenius_norm"):
            at = METRICS.index(name)
            assert ((one.metrics[..., at] / expected[..., at] - 1).abs() < 1e-3).all(), name


@pytest.fixture(scope="module")
def responses(tmp_path_factory):
    path = tmp_path_factory.mktemp("gpu") / "made.json"
    texts = [f"{n} + {n} = {2 * n}. " * (1 + n % 12) for n in range(96)]
    entries = [{"instruction": f"What is {n} + {n}?", "input": "", "output": text} for n, text in enumerate(texts)]
    path.write_text(json.dumps(entries))
    return path


def measured(responses, folder, **more):
    folder.mkdir(exist_ok=True)
    paths = [str(folder / f"{name}.parquet") for name in ("samples", "spectra")]
    journal = {"journal": str(folder / "journal"), "run_path": str(folder / "run.json")}
    measure(str(MINIATURE), str(responses), *paths, Settings(device="cuda", **more), **journal)
    return pq.read_table(paths[1])["nuclear_norm"].to_numpy()


def test_a_batch_that_does_not_fit_is_halved(responses, tmp_path, capsys):
    fits = measured(responses, tmp_path / "fits", batch_tokens=2048)
    facts = json.loads((tmp_path / "fits/run.json").read_text())
    assert facts["solvers"] and all(each["chosen"] in each for each in facts["solvers"].values())
    torch.cuda.empty_cache()
    allowed = torch.cuda.memory_reserved() + (256 << 20)
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(0).total_memory)
    try:
        halved = measured(responses, tmp_path / "halved", batch_tokens=1 << 20)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "trying halves" in capsys.readouterr().err
    np.testing.assert_allclose(halved, fits, rtol=1e-4)


def test_a_killed_job_resumes(responses, tmp_path):
    folder = tmp_path / "killed"
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); from test_on_gpu import measured; "
        "measured(Path(sys.argv[2]), Path(sys.argv[3]), batch_tokens=64)"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(responses), str(folder)]
    job = subprocess.Popen(command, env=os.environ, stderr=subprocess.PIPE)
    ends = time.monotonic() + 120
    while time.monotonic() < ends and job.poll() is None:
        if any(path.stat().st_size > 20_000 for path in (folder / "journal").glob("*.frames")):
            break
        time.sleep(0.01)
    job.send_signal(signal.SIGKILL)
    job.wait()
    assert not (folder / "spectra.parquet").exists()
    resumed = measured(responses, folder, batch_tokens=64)
    facts = json.loads((folder / "run.json").read_text())
    assert facts["recalled"] > 0 and facts["computed"] > 0
    np.testing.assert_allclose(resumed, measured(responses, tmp_path / "whole", batch_tokens=64), rtol=TOLERANCE)
