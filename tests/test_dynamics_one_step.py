"""One step of SGD: the change of log-probabilities against inner products of gradients that are never formed."""

import pytest
import torch

from conftest import call, settings, user_error
from gradatlas.core.tables import read_table
from gradatlas.data.made_up import grammar
from gradatlas.data.pairs import read_pairs, write_pairs
from gradatlas.finetuning.sequences import ResponseEncoder, log_probs
from gradatlas.finetuning.tables import PROBES
from gradatlas.kernels.first_order import summary
from gradatlas.kernels.one_step import Kernels, captured_weights, inner_products, load_exactly
from gradatlas.kernels.tables import ONE_STEP


@pytest.fixture(scope="module")
def data(tmp_path_factory, miniature):
    folder = tmp_path_factory.mktemp("step")
    write_pairs(grammar.pairs(8, 4, 4, 0, 0.75), folder / "pairs.parquet", {})
    done = call("build_probes", "--pairs", folder / "pairs.parquet", "--model", miniature, "--output",
                folder / "probes.parquet", *settings(train=2, held_out=1, seed=0, max_new_tokens=6))  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def arguments(data, miniature, output, updates=1):
    return ["check_step", "--model", miniature, "--pairs", data / "pairs.parquet", "--probes",
            data / "probes.parquet", *settings(updates=updates, probes=3, change=0.02, halvings=2), "--output",
            output]  # fmt: skip


@pytest.fixture(scope="module")
def rows(data, miniature):
    done = call(*arguments(data, miniature, data / "one_step.parquet"))
    assert done.returncode == 0, done.stderr
    return read_table(ONE_STEP, data / "one_step.parquet").to_pylist()


def test_first_order_predicts_every_probe_and_the_rest_falls_fourfold(rows, data):
    found = summary(rows)
    usable = sum(row["status"] == "ok" for row in read_table(PROBES, data / "probes.parquet").to_pylist())
    assert {(row["trained"], row["loss"]) for row in found} == {
        (trained, loss) for trained in ("captured", "all") for loss in ("sft", "dpo")
    }
    for row in found:
        assert row["slope"] == pytest.approx(1, abs=0.02) and row["n"] == usable
        assert row["order"] == pytest.approx(4, abs=0.4)


def test_the_learned_loss_changes_as_requested(rows):
    """sft: nothing else than the prediction says how far; the largest step is 2^2 times the smallest."""
    rates = {row["halving"]: row["learning_rate"] for row in rows if (row["trained"], row["loss"]) == ("all", "sft")}
    assert rates[0] == pytest.approx(4 * rates[2])


def test_projections_are_a_part_of_all_parameters(rows):
    shares = {(row["trained"], row["loss"]): row["share"] for row in summary(rows)}
    assert shares["captured", "sft"] == pytest.approx(1) and 0 < shares["all", "sft"] < 1


def test_inner_products_from_x_and_d_are_those_of_formed_gradients(data, miniature):
    model, tokenizer = load_exactly(str(miniature))
    model.requires_grad_(True)
    encoder, kernels = ResponseEncoder(tokenizer, 512), Kernels(str(miniature))
    learned = [encoder.encode(row["prompt"], row["chosen"]) for row in read_pairs(data / "pairs.parquet", "train")[:3]]
    weights = captured_weights(model)
    assert len(weights) == 6 * 7
    formed = [torch.autograd.grad(-log_probs(model, [encoded]).sum(), weights) for encoded in learned]
    factors = [kernels.factors(encoded) for encoded in learned]
    for i in range(3):
        for j in range(3):
            plain = sum(float((one * other).sum()) for one, other in zip(formed[i], formed[j], strict=True))
            assert inner_products(factors[i], factors[j]) == pytest.approx(plain, rel=1e-9)


def test_more_updates_than_pairs_is_one_line(data, miniature, tmp_path):
    done = call(*arguments(data, miniature, tmp_path / "x.parquet", updates=9))
    assert "9 updates are requested, but only 6 pairs have no probes" in user_error(done)
