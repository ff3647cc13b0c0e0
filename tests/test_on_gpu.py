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
from transformers import GPT2Config, GPT2LMHeadModel

from gradatlas.core.tables import read_table, write_table
from gradatlas.data.made_up import grammar
from gradatlas.data.pairs import write_pairs
from gradatlas.data.training.rows import TrainingRow
from gradatlas.finetuning.evaluate import evaluate
from gradatlas.finetuning.finetune import finetune, stages
from gradatlas.finetuning.probes import build_probes, grammar_rephrases
from gradatlas.finetuning.recipe import Recipe
from gradatlas.finetuning.sequences import EncodedResponse, ResponseEncoder
from gradatlas.finetuning.tables import DYNAMICS, PROBES, TRAINING
from gradatlas.gradients.capture import Capture, Factors
from gradatlas.gradients.measure import measure
from gradatlas.gradients.settings import Settings
from gradatlas.gradients.solvers import FastestSolver
from gradatlas.gradients.spectra import METRICS, TOLERANCE, decompose, start
from gradatlas.kernels.along_runs import Followed, measure_budget, measure_kernels
from gradatlas.kernels.blocks import Blocks
from gradatlas.kernels.budget import budget, weights_of
from gradatlas.kernels.matrices import kernels
from gradatlas.kernels.norms import squared_norms
from gradatlas.kernels.tables import BUDGET, ENTANGLEMENT, KERNEL_MEANS, KERNELS
from gradatlas.models.loading import load, locate
from gradatlas.models.tokens import Encoded
from gradatlas.scores.measure import measure_rows
from gradatlas.scores.settings import Scoring
from gradatlas.scores.tables import MEASURED
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


# --- Kernels, budgets and finetuning ---


def encoded(count=12, seed=3):
    """Responses of random tokens, of all lengths, some to the same prompt."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for at in range(count):
        ids = torch.randint(0, 150, (4 + at // 3 + 2 * at,), generator=generator).tolist()
        found[str(at)] = EncodedResponse((5, 7, 9, *ids), 3 + at % 3)
    return found


def on(device, dtype="float64", kind="miniature"):
    """The miniature, whose norms are computed in float32 in any pass; or a tiny GPT-2, which is float64 throughout."""
    if kind == "miniature":
        return load(str(MINIATURE), dtype=dtype, device=device)[0]
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=160, n_embd=32, n_layer=2, n_head=2, n_positions=64)
    return GPT2LMHeadModel(config).to(device, getattr(torch, dtype)).eval()


@pytest.mark.parametrize(("kind", "rounding"), [("gpt2", 1e-11), ("miniature", 1e-6)])
@pytest.mark.parametrize("memory", [2**31, 2**22])
def test_kernels_of_all_blocks_are_the_cpu_s(memory, kind, rounding):
    some = list(encoded().values())
    exact = kernels(Blocks(on("cpu", kind=kind)), some, batch_tokens=64)
    scale = sum(exact.values()).diagonal().sqrt()
    for dtype, allowed in (("float64", rounding), ("float32", 1e-4)):
        found = kernels(Blocks(on("cuda", dtype, kind)), some, memory=memory, batch_tokens=64)
        assert found.keys() == exact.keys()
        for block, matrix in found.items():
            assert ((matrix - exact[block]) / scale / scale[:, None]).abs().max() < allowed, block


def test_norms_of_kernels_of_logits_are_the_cpu_s():
    some = list(encoded(4).values())
    found, exact = (squared_norms(Blocks(on(device)), some, draws=64)[None] for device in ("cuda", "cpu"))
    # Other random vectors: estimates of the same numbers.
    assert (abs(found.value - exact.value) <= 6 * (found.error**2 + exact.error**2) ** 0.5).all()


def changed(model):
    generator = torch.Generator().manual_seed(1)
    return {
        name: each + 1e-3 * torch.randn(each.shape, generator=generator).to(each) * each.std().nan_to_num()
        for name, each in weights_of(model).items()
    }


@pytest.mark.parametrize(("kind", "allowed"), [("gpt2", 1e-10), ("miniature", 1e-4)])
@pytest.mark.parametrize("rule", ["first_order", "trapezoid", "midpoint", "simpson"])
def test_budgets_are_the_cpu_s(rule, kind, allowed):
    some, found = encoded(), {}
    for device in ("cpu", "cuda"):
        model = on(device, kind=kind)
        before = weights_of(model)
        found[device] = budget(Blocks(model), changed(model), some, rule=rule, batch_tokens=64)
        assert all(before[name].equal(each) for name, each in weights_of(model).items())
    assert found["cuda"].parts.keys() == found["cpu"].parts.keys()
    np.testing.assert_allclose(found["cuda"].measured, found["cpu"].measured, rtol=0, atol=allowed)
    for block, part in found["cpu"].parts.items():
        np.testing.assert_allclose(found["cuda"].parts[block], part, rtol=0, atol=allowed)


def test_evaluations_are_the_cpu_s():
    some = encoded()
    exact = evaluate(on("cpu"), some, 64)
    for dtype, allowed in (("float64", 1e-5), ("float32", 1e-3)):
        for key, values in evaluate(on("cuda", dtype), some, 64).items():
            for name, value in values.items():
                assert value == pytest.approx(exact[key][name], rel=allowed, abs=allowed), (key, name)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(pairs, probes) of 12 questions, 4 of them probed."""
    folder = tmp_path_factory.mktemp("made")
    pairs, probes = str(folder / "pairs.parquet"), str(folder / "probes.parquet")
    write_pairs(grammar.pairs(12, 4, 20, 0, 0.75), pairs, {})
    model, tokenizer = load(str(MINIATURE), dtype="float32", device="cpu")
    rows = build_probes(pairs, model, ResponseEncoder(tokenizer, 512), grammar_rephrases(0), train=4, held_out=1,
                        seed=0, max_new_tokens=6)  # fmt: skip
    write_table(PROBES, rows, probes, {})
    return pairs, probes


def trained(made, folder, device, dtype, loss, **more):
    pairs, probes = made
    rate = 1e-5 if loss == "sft" else 5e-6
    recipe = Recipe(name=loss, loss=loss, learning_rate=rate, steps=6, batch_size=4, evaluate_every=2)
    finetune(str(MINIATURE), pairs, folder / "out", folder / "journal", recipe, probes=probes, device=device,
             dtype=dtype, max_new_tokens=6, prompts=2, snapshots=(2, 4), **more)  # fmt: skip
    return folder / "out"


def columns(table, path, *names):
    rows = read_table(table, path).to_pylist()
    return [tuple(row[name] for name in names) for row in rows if row.get("status", "ok") == "ok"]


@pytest.mark.parametrize("loss", ["sft", "dpo"])
def test_a_finetuning_run_with_snapshots_is_the_cpu_s(made, tmp_path, loss):
    runs = {
        (device, dtype): trained(made, tmp_path / f"{device}_{dtype}", device, dtype, loss)
        for device, dtype in (("cpu", "float64"), ("cuda", "float64"), ("cuda", "float32"))
    }
    exact = runs["cpu", "float64"]
    for (_, dtype), run in list(runs.items())[1:]:
        # The miniature's norms are float32 in any pass, and RMSprop's first updates divide by gradients that are near
        # zero in some places, where rounding decides.
        allowed = 1e-4 if dtype == "float64" else 2e-2
        for table, name in ((DYNAMICS, "log_prob_sum"), (TRAINING, "loss"), (TRAINING, "grad_norm")):
            path = f"{table.name}.parquet"
            found, expected = (columns(table, place / path, "step", name) for place in (run, exact))
            assert found
            np.testing.assert_allclose(found, expected, rtol=allowed, atol=allowed, err_msg=f"{dtype} {name}")
        assert [step for step, _ in stages(str(MINIATURE), run)] == [0, 2, 4, 6]
        assert json.loads((run / "machine.json").read_text())["device"] == "cuda"
    begun, weights, others = (
        weights_of(load(path, dtype="float64", device="cpu")[0])
        for path in (str(MINIATURE), *(locate(stages(str(MINIATURE), run)[2][1]).path for run in
                                       (exact, runs["cuda", "float64"])))
    )  # fmt: skip
    change, missed = (
        sum(float((one[name] - weights[name]).square().sum()) for name in weights) ** 0.5 for one in (begun, others)
    )
    assert 0 < missed < 3e-2 * change

    def followed(device, run):
        return Followed(loss, str(MINIATURE), run, made[1], seed=0, prompts=1, pairs=3, max_length=512,
                        truncation="drop", device=device, dtype="float64", trust_remote_code=False)  # fmt: skip

    # Of the same models.
    tables = (KERNELS, KERNEL_MEANS, ENTANGLEMENT)
    for device in ("cpu", "cuda"):
        folder = tmp_path / f"along_{device}"
        measure_budget(followed(device, exact), folder / "budget.parquet")
        measure_kernels(followed(device, exact), *(folder / f"{table.name}.parquet" for table in tables),
                        folder / "journal")  # fmt: skip
    for table, names in ((BUDGET, ("step", "predicted", "measured", "first_order")), (KERNELS, ("step", "value"))):
        found, expected = (
            columns(table, tmp_path / f"along_{device}/{table.name}.parquet", *names) for device in ("cuda", "cpu")
        )
        found, expected = np.array(found), np.array(expected)
        allowed = 1e-4 if table is BUDGET else 1e-5 * abs(expected[:, 1]).max()
        assert len(found)
        np.testing.assert_allclose(found, expected, rtol=0, atol=allowed, err_msg=table.name)


@pytest.mark.parametrize("loss", ["sft", "dpo"])
def test_a_finetuning_run_on_a_gpu_resumes(made, tmp_path, loss, monkeypatch):
    from gradatlas.finetuning import finetune as module

    whole = trained(made, tmp_path / "whole", "cuda", "float64", loss)
    real = module._TrainingLoop._step

    def failing(self, step):
        if step == 3:
            raise KeyboardInterrupt
        return real(self, step)

    monkeypatch.setattr(module._TrainingLoop, "_step", failing)
    with pytest.raises(KeyboardInterrupt):
        trained(made, tmp_path / "killed", "cuda", "float64", loss)
    monkeypatch.undo()
    resumed = trained(made, tmp_path / "killed", "cuda", "float64", loss)
    found, expected = (
        columns(DYNAMICS, run / f"{DYNAMICS.name}.parquet", "step", "log_prob_sum") for run in (resumed, whole)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_scores_are_the_cpu_s():
    texts = [f"{n} + {n} = {2 * n}. " * (1 + n % 12) for n in range(24)]
    rows = [
        TrainingRow(n, "", str(n), None, {}, prompt=f"What is {n} + {n}?", completion=text)
        for n, text in enumerate(texts)
    ]
    found = {}
    for device, dtype in (("cpu", "float64"), ("cuda", "float64"), ("cuda", "float32")):
        model, tokenizer = load(str(MINIATURE), dtype=dtype, device=device)
        tables = list(measure_rows(model, tokenizer, rows, Scoring(batch_tokens=256)))
        assert tables[0].schema.names == MEASURED.schema.names
        found[device, dtype] = [row for table in tables for row in table.to_pylist()]
    exact = found.pop(("cpu", "float64"))
    assert all(row["status"] == "ok" for row in exact)
    for (_, dtype), measured_rows in found.items():
        allowed = 1e-4 if dtype == "float64" else 2e-3
        for one, other in zip(measured_rows, exact, strict=True):
            assert one["status"] == "ok"
            for name in ("loss", "loss_without_prompt", "loss_with_prompt", "token_losses", "token_terms", "values"):
                # None where a token does not count.
                ours, theirs = (np.array(row[name], dtype=float) for row in (one, other))
                np.testing.assert_allclose(ours, theirs, rtol=allowed, atol=allowed, err_msg=name)
