"""Budgets and kernels along a finetuning run: its snapshots, against autograd and the run's own evaluations; kills."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch

import starts
from conftest import ROOT, call, settings, user_error
from gradatlas.core.tables import read_metadata
from gradatlas.data.made_up import grammar
from gradatlas.data.pairs import write_pairs
from gradatlas.finetuning.finetune import stages
from gradatlas.finetuning.probes import read_probes
from gradatlas.finetuning.sequences import ResponseEncoder, log_probs
from gradatlas.kernels import along_runs
from gradatlas.kernels.blocks import Blocks
from gradatlas.kernels.budget import budget, budgets, weights_of
from gradatlas.kernels.matrices import cost
from gradatlas.models.loading import load, locate
from gradatlas.statistics.kernels import rank_agreement
from gradatlas.study.runs import snapshots

STEPS, SNAPSHOTS = 6, (2, 4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, miniature):
    """(start, probes, folder of a run of DPO with two snapshots)."""
    folder = tmp_path_factory.mktemp("run")
    write_pairs(grammar.pairs(12, 4, 20, 0, 0.75), folder / "pairs.parquet", {})
    done = call("build_probes", "--pairs", folder / "pairs.parquet", "--model", miniature, "--output",
                folder / "probes.parquet", *settings(train=4, held_out=1, seed=0, max_new_tokens=6))  # fmt: skip
    assert done.returncode == 0, done.stderr
    _finetune(folder, miniature, "run", steps=STEPS, snapshots=SNAPSHOTS)
    return miniature, folder / "probes.parquet", folder / "run"


def _finetune(folder, start, name, **chosen):
    chosen = {"name": name, "loss": "dpo", "learning_rate": 1e-5, "batch_size": 2, "max_new_tokens": 6,
              "evaluate_every": 2} | chosen  # fmt: skip
    done = call("finetune", "--init", start, "--pairs", folder / "pairs.parquet", "--probes", folder / "probes.parquet",
                "--output", folder / name, "--journal", folder / f"{name}.journal", *settings(**chosen))  # fmt: skip
    assert done.returncode == 0, done.stderr


def along(trained, job, *outputs, prompts=1, pairs=3):
    start, probes, run = trained
    chosen = settings(run="run", prompts=prompts, pairs=pairs, max_length=512, device="cpu")
    return [job, "--init", start, "--folder", run, "--probes", probes, *chosen, *outputs]


def kernel_outputs(folder):
    names = ("kernels", "means", "entanglement")
    return [part for name in names for part in (f"--{name}", folder / f"{name}.parquet")] + [
        "--journal", folder / "journal"
    ]  # fmt: skip


@pytest.fixture(scope="module")
def measured(trained, tmp_path_factory):
    """The folder with the run's budget and kernels."""
    folder = tmp_path_factory.mktemp("measured")
    for arguments in (along(trained, "measure_budget", "--output", folder / "budget.parquet"),
                      along(trained, "measure_kernels", *kernel_outputs(folder))):  # fmt: skip
        done = call(*arguments)
        assert done.returncode == 0, done.stderr
    return folder


def test_a_snapshot_is_the_model_of_a_shorter_run(trained, tmp_path):
    start, probes, run = trained
    assert [step for step, _ in stages(str(start), run)] == [0, *SNAPSHOTS, STEPS]
    for name in ("pairs", "probes"):
        (tmp_path / f"{name}.parquet").write_bytes((probes.parent / f"{name}.parquet").read_bytes())
    _finetune(tmp_path, start, "short", steps=SNAPSHOTS[0])
    snapshot = json.loads((run / "snapshots/00000002.json").read_text())
    assert snapshot["files"] == json.loads((tmp_path / "short/model.json").read_text())["files"]
    # Terms of LoRA are merged.
    _finetune(tmp_path, start, "lora", parameters="lora", steps=4, snapshots=(2,), learning_rate=1e-2)
    model, _ = load(locate(str(tmp_path / "lora/snapshots/00000002.json")).path, dtype="float32", device="cpu")
    before, _ = load(str(start), dtype="float32", device="cpu")
    changed = {name for name, each in weights_of(model).items() if not torch.equal(each, weights_of(before)[name])}
    assert changed and all("proj" in name for name in changed)


def test_snapshots_are_at_evaluations():
    row = {"run": "sft", "steps": 400, "evaluate_every": 30}
    assert snapshots(row, {"runs": ["sft"], "intervals": 4}) == [90, 210, 300]
    assert snapshots(row, {"runs": ["sft"], "intervals": 1}) == snapshots(row, {"runs": ["dpo"], "intervals": 4}) == []
    assert snapshots({**row, "evaluate_every": 400}, {"runs": ["sft"], "intervals": 4}) == []


def test_a_run_along_which_nothing_is_measured_by_that_name_is_named(tmp_path):
    words = ["--dry-run", "--directory", tmp_path, "--config", "dynamics={kernels: {runs: [sfd]}}"]
    done = starts.snakemake(ROOT, words, {**os.environ})
    assert done.returncode and "config key 'dynamics.kernels.runs': no watched run 'sfd': " in done.stdout + done.stderr


def test_the_budget_adds_up_to_what_the_run_evaluated(trained, measured):
    frame = pl.read_parquet(measured / "budget.parquet")
    sums = frame.group_by("since", "step", "probe_id").agg(
        pl.col("predicted").sum(), pl.col("first_order").sum(), pl.col("measured").first()
    )
    evaluated = pl.read_parquet(trained[2] / "dynamics.parquet").select("step", "probe_id", "log_prob_sum")
    ends = {(row["step"], row["probe_id"]): row["log_prob_sum"] for row in evaluated.to_dicts()}
    for row in sums.to_dicts():
        change = ends[row["step"], row["probe_id"]] - ends[row["since"], row["probe_id"]]
        assert row["measured"] == pytest.approx(change, abs=2e-4)
    missing, first = (
        np.linalg.norm(sums[name] - sums["measured"]) / np.linalg.norm(sums["measured"])
        for name in ("predicted", "first_order")
    )
    assert missing < 0.02 < first
    gaps = read_metadata(measured / "budget.parquet")["gaps"]
    assert set(gaps) == {"2", "4", "6"} and max(gaps.values()) < 0.02
    assert frame["probe_id"].n_unique() == 14 + 3 * 2 and frame["layer"].null_count()


def test_simpsons_parts_are_those_of_finer_steps(trained):
    """In float64: the rule along a path is that of each interval, and near the sum over many small ones."""
    start, probes, run = trained
    models = [load(locate(card).path, dtype="float64", device="cpu") for _, card in stages(str(start), run)[:3]]
    model, tokenizer = models[0]
    usable, _ = read_probes(str(probes), ResponseEncoder(tokenizer, 512, model, "drop"))
    responses = {key: each for key, (_, each) in list(usable.items())[:4]}
    blocks, path = Blocks(model), [weights_of(each) for each, _ in models]
    found = list(budgets(blocks, path, responses, batch_tokens=200))
    for (first, whole), (before, after) in zip(found, pairwise(path), strict=True):
        model.load_state_dict(before, strict=False)
        for rule, each in (("first_order", first), ("simpson", whole)):
            expected = budget(blocks, after, responses, rule=rule)
            for block, part in expected.parts.items():
                assert each.parts[block] == pytest.approx(part, rel=1e-9, abs=1e-12)
        line = [{name: before[name] + (after[name] - before[name]) * t / 8 for name in before} for t in range(9)]
        fine = [each for _, each in budgets(blocks, line, responses)]
        for block, part in whole.parts.items():
            assert part == pytest.approx(sum(each.parts[block] for each in fine), rel=0.02, abs=2e-3)
        assert sum(each.predicted for each in fine) == pytest.approx(whole.measured, rel=1e-4)


def formed(trained, card, probes):
    """(probes, parameters): gradients of log pi by autograd, of one response at a time, in float64."""
    model, tokenizer = load(locate(card).path, dtype="float64", device="cpu")
    usable, _ = read_probes(str(trained[1]), ResponseEncoder(tokenizer, 512, model, "drop"))
    model.requires_grad_(True)
    rows = []
    for key in probes:
        taken = torch.autograd.grad(log_probs(model, [usable[key][1]]).sum(), list(model.parameters()))
        rows.append(torch.cat([each.flatten() for each in taken]))
    return torch.stack(rows)


def test_kernels_means_and_entanglement_are_those_of_autograd(trained, measured):
    pairs, means, entangled = (
        pl.read_parquet(measured / f"{name}.parquet") for name in ("kernels", "means", "entanglement")
    )
    assert set(pairs["step"]) == {0, 2, 4, 6} and set(pairs["block"]) == {"all"}
    for step, card in stages(str(trained[0]), trained[2])[1::2]:
        own = pairs.filter(pl.col("step") == step)
        keys = own["o"].unique(maintain_order=True).to_list()
        gradients = formed(trained, card, keys)
        exact = (gradients @ gradients.mT).numpy()
        place, scale = {key: at for at, key in enumerate(keys)}, np.sqrt(exact.diagonal())
        assert own.height == len(keys) * (len(keys) + 1) // 2
        for row in own.to_dicts():
            i, j = place[row["o"]], place[row["u"]]
            assert row["value"] == pytest.approx(exact[i, j], abs=2e-4 * scale[i] * scale[j])
            assert row["cosine"] == pytest.approx(exact[i, j] / scale[i] / scale[j], abs=2e-4)
        sums = means.filter(pl.col("step") == step).group_by("o_type", "u_type", "same").agg(pl.col("value").sum())
        for row in sums.to_dicts():
            chosen = [
                exact[place[o], place[u]] for o in keys for u in keys
                if o != u and o.endswith(f"/{row['o_type']}") and u.endswith(f"/{row['u_type']}")
                and (o.split("/")[0] == u.split("/")[0]) == row["same"]
            ]  # fmt: skip
            assert row["value"] == pytest.approx(np.mean(chosen), abs=2e-4 * scale.max() ** 2)
        e = entangled.filter(pl.col("step") == step).group_by("prompt").agg(pl.col("entanglement").sum())
        assert e.height == 4
        for row in e.to_dicts():
            i, j = (place[f"{row['prompt']}/{kind}"] for kind in ("chosen", "rejected"))
            assert row["entanglement"] == pytest.approx(exact[i, j] / exact[i, i], abs=1e-3)


@pytest.mark.slow
def test_killed_in_the_middle_ends_with_the_same_bytes(trained, measured, tmp_path):
    given = along(trained, "measure-kernels", *kernel_outputs(tmp_path))
    command = [sys.executable, "-m", "gradatlas", *map(str, given)]
    victim = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while len(list((tmp_path / "journal").glob("*/00000002/*.npy"))) < 5:
        assert victim.poll() is None, "the job ended before it could be killed"
        time.sleep(0.002)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert not (tmp_path / "kernels.parquet").exists()
    done = call(*given)
    assert done.returncode == 0 and "blocks are known" in done.stderr, done.stderr
    for name in ("kernels", "means", "entanglement"):
        assert (tmp_path / f"{name}.parquet").read_bytes() == (measured / f"{name}.parquet").read_bytes(), name
    assert not list((tmp_path / "journal").glob("*/*"))


def test_less_memory_takes_more_passes_and_gives_the_same_bytes(trained, measured, tmp_path, monkeypatch):
    monkeypatch.setattr(along_runs, "memory_bound", lambda device: 2e7)
    done = call(*along(trained, "measure_kernels", *kernel_outputs(tmp_path)))
    assert done.returncode == 0 and "FLOP, 1 passes" not in done.stderr and "within 0.0 GB" in done.stderr
    for name in ("kernels", "means", "entanglement"):
        assert (tmp_path / f"{name}.parquet").read_bytes() == (measured / f"{name}.parquet").read_bytes(), name


def test_the_estimate_counts_passes_and_products(trained):
    model, tokenizer = load(str(trained[0]), dtype="float32", device="cpu")
    usable, _ = read_probes(str(trained[1]), ResponseEncoder(tokenizer, 512, model, "drop"))
    blocks, responses = Blocks(model), [each for _, each in usable.values()]
    passes, flop = cost(blocks, responses, batch_tokens=10**6)
    tokens = len(responses) * max(len(each.ids) for each in responses)
    weights = sum(each.numel() for each in model.parameters())
    assert passes == 1 and flop > 4 * weights * tokens
    again, more = cost(blocks, responses, memory=1e6, batch_tokens=10**6)
    assert again > 1 and more - flop == pytest.approx(4 * weights * tokens * (again - 1))


def test_norms_of_a_few_pairs_have_their_errors(trained, tmp_path):
    start, probes, run = trained
    outputs = [*kernel_outputs(tmp_path), "--norms", tmp_path / "norms.parquet"]
    chosen = settings(run="run", prompts=0, pairs=1, norms=1, max_length=512, device="cpu")
    done = call("measure_kernels", "--init", start, "--folder", run, "--probes", probes, *chosen, *outputs)
    assert done.returncode == 0, done.stderr
    whole = pl.read_parquet(tmp_path / "norms.parquet").filter(block="all")
    assert whole.height == 4 * 3 and set(whole["step"]) == {0, 2, 4, 6}
    assert (whole["squared_norm"] > 0).all() and (whole["error"] > 0).all()
    # K of a response with itself has the larger norm than that of two (Cauchy-Schwarz, of the geometric mean).
    own = whole.filter(pl.col("o") == pl.col("u")).group_by("step").agg(pl.col("squared_norm").log().mean())
    cross = whole.filter(pl.col("o") != pl.col("u")).select("step", pl.col("squared_norm").log().alias("cross"))
    both = own.join(cross, on="step")
    assert (both["squared_norm"] > both["cross"] - 0.5).all()


def test_no_probe_to_follow_is_named(trained, tmp_path):
    done = call(*along(trained, "measure_budget", "--output", tmp_path / "b.parquet", prompts=0, pairs=0))
    assert "raise config keys dynamics.kernels.prompts" in user_error(done)


def test_rank_agreement_is_kendalls_tau():
    from scipy import stats

    random, rows, matrices = np.random.default_rng(0), [], []
    for step in (0, 5, 9):
        matrix = random.normal(size=(6, 6))
        matrices.append(matrix + matrix.T)
        rows += [{"step": step, "o": f"p{i}", "u": f"p{j}", "value": matrices[-1][i, j]}
                 for i in range(6) for j in range(i, 6)]  # fmt: skip
    keys, steps, taus = rank_agreement(pl.DataFrame(rows))
    assert keys == [f"p{i}" for i in range(6)] and steps == [5, 9] and taus.shape == (2, 6)
    for interval, (one, other) in enumerate(pairwise(matrices)):
        for o in range(6):
            expected = stats.kendalltau(np.delete(one[o], o), np.delete(other[o], o)).statistic
            assert taus[interval, o] == pytest.approx(expected)
