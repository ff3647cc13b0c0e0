"""Scores of a training file: numbers against the slow plain way, statuses, finished parts, outliers, selections."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import datasets
import numpy as np
import polars as pl
import pytest
import torch
from tokenizers.processors import TemplateProcessing

from conftest import ROOT, call, command, user_error
from gradatlas.api.scoring import score_data
from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_metadata, read_table
from gradatlas.data.formats import RawValue
from gradatlas.data.training.read import rows_of
from gradatlas.data.training.rows import TrainingRow
from gradatlas.finetuning.sequences import EncodedResponse
from gradatlas.gradients.capture import Capture
from gradatlas.kernels.one_step import inner_products
from gradatlas.models.loading import load_tokenizer
from gradatlas.models.tokens import Encoded
from gradatlas.scores import measure
from gradatlas.scores import select as selecting
from gradatlas.scores.columns import OwnColumns
from gradatlas.scores.measure import Scorer, chunks, last_span, measure_rows
from gradatlas.scores.select import chosen, write_selected
from gradatlas.scores.settings import Settings
from gradatlas.scores.tables import MEASURED, METRICS, SCORES
from gradatlas.statistics.outliers import bins, outliers, robust_z
from gradatlas.statistics.score_tables import sample_scores
from scored import rows, salad, write
from tiny_decoders import tiny

MODEL = ROOT / "resources/miniature/base"
PLANTED = (18, 53)
BAD = {"id": "bad", "prompt": "What?", "completion": "", "source": "detailed"}
CHAT = [
    {"role": "user", "content": "What is 3 plus 4?"},
    {"role": "assistant", "content": "It is 7."},
    {"role": "user", "content": "And 5 plus 6?"},
    {"role": "assistant", "content": "That makes 11."},
]


# --- Numbers against the slow plain way ---


@pytest.fixture(scope="module")
def exact():
    """A float64 decoder of two layers with the miniature's tokenizer, and measured rows of several shapes."""
    tokenizer = load_tokenizer(MODEL)
    # As most tokenizers do, it puts BOS in front.
    bos = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer._tokenizer.post_processor = TemplateProcessing(single=f"{bos[0]} $A", special_tokens=[bos])
    model = tiny("llama", vocabulary=len(tokenizer))
    texts = [{"prompt": row["prompt"], "completion": row["completion"]} for row in rows(3)]
    plain = Settings(prompt="plain", batch_tokens=300, device="cpu")
    items, table = [], []
    for given, settings in ((texts, plain), ([{"messages": CHAT}], Settings()), ([{"text": "The sum is 9."}], plain)):
        scorer = Scorer(model, tokenizer, settings)
        own = list(scorer.items(rows_of(given, settings, "data")))
        items += own
        table += scorer.measure(own).to_pylist()
    return model, tokenizer, items, table


def gradients(model, sample):
    """The loss, each token's loss, and the gradient of every q, k, v and o weight by autograd, by layer."""
    model.requires_grad_(True)
    weights = [getattr(layer.self_attn, f"{name}_proj").weight for layer in model.model.layers for name in "qkvo"]
    ids = torch.tensor([sample.ids])
    losses = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")
    loss = losses[torch.tensor(sample.response[1:])].mean()
    formed = torch.autograd.grad(loss, weights)
    return loss.detach(), losses.detach(), formed


@pytest.mark.parametrize("at", range(5), ids=["text", "text", "text", "chat", "raw"])
def test_losses_and_spectra_are_those_of_autograd(exact, at):
    model, _, items, table = exact
    item, row = items[at], table[at]
    loss, losses, formed = gradients(model, item.sample)
    assert row["status"] == "ok" and row["loss"] == pytest.approx(float(loss), rel=1e-12)
    assert [each is not None for each in row["token_losses"]] == [False, *item.sample.response[1:]]
    kept = losses[torch.tensor(item.sample.response[1:])].tolist()
    assert [each for each in row["token_losses"] if each is not None] == pytest.approx(kept, rel=1e-6)
    values = np.array(row["values"]).reshape(2, 4, len(METRICS))
    for matrix, found in zip(formed, values.reshape(-1, len(METRICS)), strict=True):
        sigma = torch.linalg.svdvals(matrix)
        share = sigma / sigma.sum()
        rank = torch.exp(-torch.special.xlogy(share, share).sum())
        expected = torch.stack([sigma.sum(), rank, sigma.norm(), sigma[0] / sigma.sum()]).tolist()
        assert found.tolist() == pytest.approx(expected, rel=1e-6)


def test_self_influence_is_the_diagonal_of_the_tangent_kernel(exact):
    model, _, items, table = exact
    facts = {"layers": 2, "projections": "qkvo", "metrics": METRICS}
    scores = sample_scores(measure.pa.Table.from_pylist(table, schema=MEASURED.schema), facts)
    for item, found in zip(items, scores["self_influence"], strict=True):
        factors = Capture(model).run([item.sample])[0].factors
        plain = sum(float(each.square().sum()) for each in gradients(model, item.sample)[2])
        assert found == pytest.approx(plain, rel=1e-6)
        assert found == pytest.approx(inner_products(factors, factors), rel=1e-6)


def test_ifd_compares_the_same_tokens_with_and_without_the_prompt(exact):
    model, tokenizer, items, table = exact
    front = tokenizer.bos_token_id
    for item, row in zip(items[:4], table[:4], strict=True):
        counted = list(item.sample.response)
        end = len(counted) - counted[::-1].index(True)
        start = end - counted[:end][::-1].index(False)
        losses = gradients(model, item.sample)[1]
        span = torch.tensor([[front, *item.sample.ids[start:end]]])
        alone = torch.nn.functional.cross_entropy(model(span).logits[0, :-1], span[0, 1:])
        assert row["loss_with_prompt"] == pytest.approx(float(losses[start - 1 : end - 1].mean()), rel=1e-6)
        assert row["loss_without_prompt"] == pytest.approx(float(alone), rel=1e-12)
    assert table[4]["loss_without_prompt"] is None
    # Of the chat's two turns, the last one.
    assert sum(items[3].sample.response) > end - start


def test_without_bos_the_first_token_is_left_out_of_both_losses():
    sample = Encoded((5, 6, 7, 8, 9), (False, False, True, True, True), False)
    assert last_span(sample, []) == EncodedResponse((7, 8, 9), 1)
    assert last_span(sample, [1]) == EncodedResponse((1, 7, 8, 9), 1)
    # Nothing but BOS comes before it; its only token is not predicted.
    assert last_span(Encoded((1, 6), (False, True), False), [1]) is None
    assert last_span(Encoded((5, 6), (False, True), False), []) is None


def test_the_term_of_a_token_is_the_norm_of_its_outer_products(exact):
    model, _, items, table = exact
    item = items[0]
    squares = torch.zeros(len(item.sample.ids), dtype=torch.float64)
    factors = Capture(model).run([item.sample])[0].factors
    for part in factors.values():
        for layer_x, layer_d in zip(part.x, part.d, strict=True):
            for t in range(len(squares)):
                squares[t] += torch.outer(layer_d[t], layer_x[t]).square().sum()
    assert table[0]["token_terms"] == pytest.approx(squares.sqrt().tolist(), rel=1e-6)


def test_a_live_model_is_left_as_it_was(exact):
    model, tokenizer, *_ = exact
    model.train()
    list(measure_rows(model, tokenizer, rows_of(rows(1), Settings(), "data"), Settings()))
    assert model.training and all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    model.eval()


def test_a_batch_that_does_not_fit_is_halved_and_a_sample_that_does_not_has_a_status(exact, monkeypatch):
    model, tokenizer, items, table = exact
    run, longest = Capture.run, max(len(item.sample.ids) for item in items[:3])

    def little_memory(self, batch, normalise="mean"):
        if len(batch) > 1 or len(batch[0].ids) == longest:
            raise torch.OutOfMemoryError("out of memory")
        return run(self, batch, normalise)

    monkeypatch.setattr(Capture, "run", little_memory)
    found = Scorer(model, tokenizer, Settings(prompt="plain")).measure(items[:3]).to_pylist()
    for item, row, known in zip(items, found, table, strict=False):
        if len(item.sample.ids) == longest:
            assert (row["status"], row["reason"]) == ("out_of_memory", f"{longest} tokens do not fit into memory")
        else:
            assert row["loss"] == pytest.approx(known["loss"], rel=1e-12)


# --- A file, from the command to its tables ---


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A file of 80 rows, two of them word salad and one without a response, in several chunks; scored."""
    folder = tmp_path_factory.mktemp("scores")
    given = [
        {**row, "quality": at / 2, "tags": ["x", at], "mix": at if at % 2 else "=1+1"}
        for at, row in enumerate(rows(80))
    ]
    for at in PLANTED:
        given[at] = {**salad(given[at], at), "loss": 1}
    given[5] |= BAD
    given[9]["source"] = None
    path = write(folder / "mine.jsonl", given)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "CHUNK_ROWS", 32)
        done = score(path, folder / "out", "--select", "top:5")
    assert done.returncode == 0, done.stderr
    return path, folder / "out", given, done.stderr


def score(path, folder, *more):
    given = ("--model", MODEL, "--data", path, "--output", folder, "--group", "source", "--prompt", "plain")
    return call("score", *given, "--device", "cpu", *more)


def test_every_row_is_in_the_table_in_its_order_with_its_own_columns(mine):
    _, folder, given, log = mine
    table = read_table(SCORES, folder / "scores.parquet")
    found = pl.from_arrow(table)
    assert table.schema.names[: len(SCORES.names)] == SCORES.names
    assert found["row"].to_list() == [*range(80)] and found["id"][0] == found["data.id"][0] == "q0"
    assert found["prompt"].to_list() == [row["prompt"] for row in given]
    assert found["quality"].to_list() == [row["quality"] for row in given]
    assert found["tags"][3] == '["x", 3]' and found["mix"][:2].to_list() == ["=1+1", "1"]
    assert found["data.loss"].drop_nulls().to_list() == [1, 1]
    assert found.filter(status="no_response")["row"].to_list() == [5]
    assert found.row(5, named=True)["reason"] and found["loss"][5] is None and found["rank"][5] is None
    assert "shape prompt_completion" in log and log.count("shape") == 1
    assert "not all rows were measured: 79 ok, 1 no_response" in log and "80 computed" in log


def test_the_csv_has_the_same_numbers_and_no_formula(mine):
    _, folder, *_ = mine
    found, table = pl.read_csv(folder / "scores.csv"), pl.read_parquet(folder / "scores.parquet")
    assert found.columns == table.columns and found["nuclear_norm"].equals(table["nuclear_norm"])
    assert found["mix"][0] == "'=1+1"


def test_layers_are_those_of_all_samples_and_of_each_group(mine):
    _, folder, given, _ = mine
    layers = pl.read_parquet(folder / "layers.parquet")
    parts = [read_table(MEASURED, path) for path in sorted((folder / "measured").iterdir())]
    facts = read_metadata(folder / "measured/00000032.parquet", MEASURED)
    assert facts["metrics"] == [*METRICS] and facts["projections"] == [*"qkvo"] and facts["model"] == "base"
    measured = [row for part in parts for row in part.to_pylist() if row["status"] == "ok"]
    for group in (None, "detailed"):
        values = [row["values"] for row in measured if group in (None, given[row["row"]]["source"])]
        stacked = np.array(values).reshape(len(values), facts["layers"], 4, len(METRICS))
        row = layers.filter(pl.col("group").eq_missing(group), layer=2, projection="v", metric="effective_rank")
        expected = stacked[:, 2, 2, 1]
        assert row["samples"][0] == len(values) and row["mean"][0] == pytest.approx(expected.mean())
        assert row["sd"][0] == pytest.approx(expected.std(ddof=1))
        assert row["p90"][0] == pytest.approx(np.quantile(expected, 0.9))
    assert layers["group"].unique().sort().to_list() == [None, "detailed", "simplified"]


def test_planted_word_salad_ranks_first_whatever_its_length(mine):
    _, folder, *_ = mine
    scores = pl.read_parquet(folder / "scores.parquet")[list(PLANTED)]
    assert sorted(scores["rank"]) == [1, 2] and abs(scores["response_tokens"].diff()[1]) > 100


def test_a_second_run_computes_nothing_and_an_edit_one_part(mine, tmp_path):
    path, folder, given, _ = mine
    shutil.copytree(folder, tmp_path / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "CHUNK_ROWS", 32)
        again = score(path, tmp_path / "out")
        assert "0 computed, 80 found" in again.stderr
        for file in ("scores.parquet", "scores.csv", "layers.parquet"):
            assert (tmp_path / "out" / file).read_bytes() == (folder / file).read_bytes()
        edited = [*given[:40], {**given[40], "completion": given[40]["completion"] + " Yes."}, *given[41:]]
        more = score(write(tmp_path / "edited.jsonl", edited), tmp_path / "out")
        # A column that is not measured makes nothing new.
        other = score(write(tmp_path / "other.jsonl", [{**row, "quality": 1} for row in edited]), tmp_path / "out")
    assert "32 computed, 48 found" in more.stderr and "0 computed, 80 found" in other.stderr
    old, new = (pl.read_parquet(each / "scores.parquet") for each in (folder, tmp_path / "out"))
    # The others of its part are in other batches, which round otherwise.
    changed = ((old["loss"] / new["loss"] - 1).abs() > 1e-4).fill_null(False)
    assert changed.arg_true().to_list() == [40] and new["quality"].to_list() == [1] * 80


def test_the_error_of_16_bits_is_in_the_metadata_and_on_the_page(tmp_path):
    path = write(tmp_path / "few.jsonl", [*rows(6), BAD])
    facts = {}
    for dtype in ("float32", "bfloat16", "bfloat16"):
        done = score(path, tmp_path / dtype, "--dtype", dtype)
        assert done.returncode == 0, done.stderr
        before, facts[dtype] = facts.get(dtype), read_metadata(tmp_path / dtype / "scores.parquet", SCORES)
    assert "0 computed, 7 found" in done.stderr and before == facts["bfloat16"]
    tables = [pl.from_arrow(read_table(MEASURED, next((tmp_path / dtype / "measured").iterdir()))) for dtype in facts]
    length = pl.col("prompt_tokens") + pl.col("response_tokens")
    few = tables[0].filter(status="ok").sort(length, maintain_order=True)["row"].to_list()[:4]
    norms = [np.array([t.row(at, named=True)["values"] for at in few])[:, :: len(METRICS)] for t in tables]
    error = np.abs(norms[1] - norms[0]) / norms[0]
    found = facts["bfloat16"]["rounding"]
    assert found["samples"] == 4 and "rounding" not in facts["float32"]
    assert found["median"] == pytest.approx(np.median(error), rel=0.1) and 0 < found["median"] < 0.1
    page = (tmp_path / "bfloat16/scores.html").read_text()
    assert page.count("A bfloat16 pass: nuclear norms within") == 1 and "<dt>Median</dt>" not in page
    assert "A float32 pass" not in (tmp_path / "float32/scores.html").read_text()


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_bytes(tmp_path):
    path = write(tmp_path / "many.jsonl", [{"text": f"The sum of {at} and 3 is {at + 3}."} for at in range(264)])
    arguments = ["--model", MODEL, "--data", path, "--device", "cpu", "--threads", "1"]
    words = [sys.executable, *command("score"), *arguments, "--output", tmp_path / "killed"]
    running = subprocess.Popen([*map(str, words)], stderr=subprocess.DEVNULL, start_new_session=True)
    first = tmp_path / "killed/measured/00000000.parquet"
    while not first.exists() and running.poll() is None:
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL and not (tmp_path / "killed/scores.parquet").exists()
    resumed = call("score", *arguments, "--output", tmp_path / "killed")
    whole = call("score", *arguments, "--output", tmp_path / "whole")
    assert "264 computed, 0 found" in whole.stderr and "8 computed, 256 found" in resumed.stderr
    for name in ("scores.parquet", "layers.parquet", "measured/00000256.parquet", "measured/00000000.parquet"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_file_without_a_row_that_can_be_measured_is_an_error_with_the_reasons_kept(tmp_path):
    path = write(tmp_path / "bad.jsonl", [BAD, {**BAD, "id": "other"}])
    done = score(path, tmp_path / "out")
    error = user_error(done)
    assert "2 samples: none could be measured, in " in done.stderr
    assert "no row could be measured: 2 no_response" in error and "scores.csv" in error
    assert pl.read_csv(tmp_path / "out/scores.csv")["status"].to_list() == ["no_response"] * 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--select", "best:3"), "--select 'best:3': not known; give top:K"),
        (("--select", "quantile:0.9:0.1"), "not known"),
        (("--select", "quantile:.:1"), "not known"),
        (("--select", "top:3", "--by", "prompt"), "no number of the scores or of the file"),
        (("--select", "top:3", "--by", "los"), "did you mean 'loss'?"),
        (("--projections", "z"), "projections"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_before_anything_is_loaded(more, message, tmp_path):
    assert message in user_error(score(write(tmp_path / "mine.jsonl", rows(2)), tmp_path / "out", *more))
    assert not (tmp_path / "out").exists()


def test_rows_in_memory_give_the_same_scores(mine, tmp_path):
    _, folder, given, _ = mine
    settings = Settings(group="source", prompt="plain", device="cpu")
    found = score_data(str(MODEL), iter(given[:12]), tmp_path, settings)
    known = pl.read_parquet(folder / "scores.parquet")[:12]
    # Batches of another chunk round otherwise.
    assert found["loss"].drop_nulls().to_list() == pytest.approx(known["loss"].drop_nulls().to_list(), rel=1e-5)
    assert found["id"].to_list() == known["id"].to_list()


# --- Chunks, outliers, selections ---


def test_chunks_begin_at_fixed_rows_so_that_an_edit_moves_one(monkeypatch):
    monkeypatch.setattr(measure, "CHUNK_ROWS", 4)
    monkeypatch.setattr(measure, "CHUNK_TOKENS", 3)

    def numbered(lengths):
        return [measure.Item(at, "", "ok", "", None, ("a",) * length) for at, length in enumerate(lengths)]

    def cut(lengths):
        return [[item.number for item in chunk] for chunk in chunks(numbered(lengths))]

    assert cut([1] * 9) == [[0, 1, 2], [3], [4, 5, 6], [7], [8]]
    assert cut([3, *[1] * 8]) == [[0], [1, 2, 3], [4, 5, 6], [7], [8]]
    pair = [measure.Item(0, each, "ok", "", None, ("a",) * 3) for each in ("chosen", "rejected")]
    assert len(list(chunks(pair))) == 1


def frame(length, **columns):
    empty = {name: [1.0] * length for name in ("loss", "ifd", "nuclear_norm", "effective_rank", "sigma_ratio")}
    base = {"status": ["ok"] * length, "response_tokens": [10] * length, **empty, "largest_layer_share": [1.0] * length}
    return pl.DataFrame(base | columns)


def test_an_outlier_is_compared_with_samples_of_like_length():
    """The long samples' norms are ten times the short ones': none of these is an outlier, but a short one with 5."""
    rng = np.random.default_rng(0)
    lengths = np.repeat([10, 100], 60)
    norms = np.where(lengths == 10, 1.0, 10.0) * np.exp(0.1 * rng.standard_normal(120))
    norms[7] = 5.0
    found = outliers(frame(120, response_tokens=lengths, nuclear_norm=norms))
    assert found["rank"][7] == 1 and found["outlier_of"][7] == "nuclear_norm"
    short = np.log(norms[:60])
    middle = np.median(short)
    z = (short[7] - middle) / (1.4826 * np.median(np.abs(short - middle)))
    assert (norms > norms[7]).sum() == 60 and found["outlier"][7] == pytest.approx(z)
    assert found["outlier"].sort()[-2] < 5
    assert sorted(found["rank"]) == [*range(1, 121)]


def test_samples_that_were_not_measured_and_too_few_samples_have_no_outlier_score():
    found = outliers(frame(12, status=["ok"] * 11 + ["truncated"]))
    assert found["outlier"].to_list() == [0.0] * 11 + [None] and found["outlier_of"][11] is None
    few = outliers(frame(12, status=["ok"] * 9 + ["truncated"] * 3))
    assert few["outlier"].null_count() == few["rank"].null_count() == 12


@pytest.mark.parametrize("seed", range(3))
def test_bins_hold_all_samples_with_equal_lengths_together(seed):
    lengths = np.random.default_rng(seed).integers(1, 40, 500)
    parts = list(bins(lengths))
    assert sorted(np.concatenate(parts)) == [*range(500)] and all(len(part) >= 30 for part in parts) and len(parts) > 3
    seen = [set(lengths[part]) for part in parts]
    assert sum(map(len, seen)) == len(set().union(*seen))


def test_equal_values_have_no_distance_and_a_rare_one_is_far():
    assert robust_z(np.ones(5)).tolist() == [0] * 5
    assert np.isnan(robust_z(np.array([1.0, np.nan, 1.0]))[1])
    assert robust_z(np.array([*[1.0] * 30, 2.0]))[-1] > 10


def scores_of(values, groups=None, status=None):
    rows_ = len(values)
    return pl.DataFrame(
        {
            "row": [*range(rows_)],
            "response": [""] * rows_,
            "group": groups or [None] * rows_,
            "status": status or ["ok"] * rows_,
            "loss": values,
            "outlier_of": ["loss"] * rows_,
        }
    )


@pytest.mark.parametrize(
    ("select", "wanted"),
    [
        ("top:2", [3, 0]),
        ("bottom:2", [1, 2]),
        ("balanced:1", [0, 3]),
        ("quantile:0.5:1", [0, 3]),
        ("quantile:0:0.5", [1, 2]),
    ],
)
def test_what_is_selected(select, wanted):
    scores = scores_of([3.0, 1.0, 2.0, 4.0, 9.0], [*"aabbb"], ["ok"] * 4 + ["truncated"])
    found = chosen(scores, select, "loss")
    assert sorted(found) == sorted(wanted)
    assert chosen(scores, "top:1", "loss") == {3: "loss 4: rank 1 of 4"}


def test_a_selection_is_rows_as_the_file_has_them_with_the_reason(mine):
    _, folder, given, log = mine
    lines = [json.loads(line) for line in (folder / "selected.jsonl").read_text().splitlines()]
    scores = pl.read_parquet(folder / "scores.parquet")
    top = sorted(scores.filter(pl.col("rank") <= 5)["row"])
    assert [{k: v for k, v in line.items() if k != "gradatlas_reason"} for line in lines] == [given[at] for at in top]
    first = next(line for line in lines if line["id"] == f"q{scores.filter(rank=1)['row'][0]}")
    assert first["gradatlas_reason"].startswith("outlier ") and "rank 1 of 79" in first["gradatlas_reason"]
    assert "5 rows, of 79 samples with status ok; the other 1 are never selected" in log
    saved = datasets.load_from_disk(folder / "selected").to_list()
    for line in lines:
        line["tags"], line["mix"] = json.dumps(line["tags"]), str(line["mix"])
    assert [{key: value for key, value in row.items() if value is not None} for row in saved] == lines


def test_a_selection_is_a_datasets_folder_too(mine, tmp_path):
    _, _, given, _ = mine
    path = write(
        tmp_path / "plain.jsonl",
        [{key: row[key] for key in ("id", "prompt", "completion", "source")} for row in given[10:22]],
    )
    done = score(path, tmp_path / "out", "--select", "balanced:2", "--by", "loss")
    assert done.returncode == 0, done.stderr
    saved = datasets.load_from_disk(tmp_path / "out/selected")
    assert saved.column_names == ["id", "prompt", "completion", "source", "gradatlas_reason"]
    assert sorted(saved["source"]) == ["detailed", "detailed", "simplified", "simplified"]
    lines = [json.loads(line) for line in (tmp_path / "out/selected.jsonl").read_text().splitlines()]
    assert saved.to_list() == lines


def test_a_datasets_folder_keeps_values_and_makes_text_of_what_has_no_type(tmp_path, monkeypatch):
    monkeypatch.setattr(selecting, "_ROWS", 2)
    given = [
        {"date": "2024-01-01", "nested": {"a": [1]}, "mixed": 1, "huge": 2**70, "number": 2**60 + 1, "float": 1},
        {"date": "2024-01-02", "nested": {"b": {"c": "x"}}, "mixed": ["x"], "huge": 1, "number": 1, "float": 2},
        {"date": "2024-01-03", "nested": {"a": [0.5]}, "mixed": "x", "huge": None, "number": 2.5, "float": 0.5},
        {"date": "", "nested": {}, "mixed": True, "huge": 0, "number": 1, "float": 1, "bool": 1.5},
        {"bool": True, "empty": {}},
    ]
    seen = [TrainingRow(at, "", str(at), None, row) for at, row in enumerate(given)]
    write_selected(seen, scores_of([5.0, 4.0, 3.0, 2.0, 1.0]), "top:5", "loss", tmp_path)
    found = datasets.load_from_disk(tmp_path / "selected").to_dict()
    assert found["date"] == ["2024-01-01", "2024-01-02", "2024-01-03", "", None]
    assert found["nested"][0]["a"] == [1.0] and found["nested"][1]["b"] == {"c": "x"} and found["nested"][4] is None
    assert found["mixed"] == ["1", '["x"]', "x", "true", None] and found["huge"][:2] == [str(2**70), "1"]
    # A float would change the first of them.
    assert found["number"] == [str(2**60 + 1), "1", "2.5", "1", None] and found["float"][:4] == [1, 2, 0.5, 1]
    assert found["bool"] == [None, None, None, "1.5", "true"] and found["empty"] == [None] * 4 + [{}]


def test_a_selection_by_a_column_of_the_file_and_none_that_is_left_of_an_earlier_run(tmp_path):
    given = [{**row, "stars": at, "loss": -at} for at, row in enumerate(rows(4))]
    settings = Settings(prompt="plain", device="cpu")
    for by, first in (("stars", 3), ("data.loss", 0)):
        score_data(str(MODEL), given, tmp_path, settings, select="top:1", by=by)
        [line] = (tmp_path / "selected.jsonl").read_text().splitlines()
        assert json.loads(line)["stars"] == first and f"{by} {first}: rank 1" in line
    with pytest.raises(InputError, match="selects no row by outlier"):
        score_data(str(MODEL), given, tmp_path, settings, select="top:1")
    assert (tmp_path / "scores.html").exists() and not [*tmp_path.glob("*selected*")]


def test_of_a_pair_the_response_that_ranks_first_decides():
    scores = scores_of([1.0, 4.0, 3.0, 2.0]).with_columns(
        row=pl.Series([0, 0, 1, 1]), response=pl.Series(["chosen", "rejected"] * 2)
    )
    assert chosen(scores, "top:2", "loss") == {
        0: "rejected: loss 4: rank 1 of 4",
        1: "chosen: loss 3: rank 2 of 4",
    }


def test_a_selection_by_group_needs_groups_and_an_empty_one_is_an_error(tmp_path):
    scores = scores_of([1.0, None])
    with pytest.raises(InputError, match="no row has a group; name the column of groups with --group"):
        chosen(scores, "balanced:1", "loss")
    with pytest.raises(InputError, match="selects no row by loss"):
        write_selected([], scores.with_columns(status=pl.lit("truncated")), "top:1", "loss", tmp_path)


# --- The file's own columns ---


def own(rows_, **options):
    columns = OwnColumns(**options)
    seen = list(columns.watched(TrainingRow(at, "", str(at), None, row) for at, row in enumerate(rows_)))
    names = [field.name for field in columns.fields(SCORES.names)]
    return dict(zip(names, (array.to_pylist() for array in columns.arrays(seen)), strict=True))


def test_columns_keep_their_kind_and_mixed_ones_are_text():
    raw = RawValue
    given = [
        {"a": raw("1"), "b": raw("1"), "c": True, "d": "x", "e": {"k": [raw("1.50"), None]}, "rank": raw("7")},
        {"a": raw("-2"), "b": raw("0.5"), "c": None, "d": raw("3"), "f": raw("99999999999999999999"), "data.rank": "y"},
    ]
    assert own(given) == {
        "a": [1, -2],
        "b": [1.0, 0.5],
        "c": [True, None],
        "d": ["x", "3"],
        "e": ['{"k": [1.5, null]}', None],
        "data.rank": [7, None],
        "f": [None, "99999999999999999999"],
        "data.data.rank": [None, "y"],
    }
    assert own([{"half \ud800": "\ud800!"}]) == {"half \ufffd": ["\ufffd!"]}


def test_cells_of_a_csv_file_are_numbers_where_all_are():
    given = [{"n": "1", "x": "1e-3", "code": "007", "w": "one"}, {"n": "", "x": "2", "code": "8", "w": ""}]
    assert own(given, cells=True) == {"n": [1, None], "x": [0.001, 2.0], "code": ["007", "8"], "w": ["one", ""]}
    assert own([{"code": "8"}], cells=False) == {"code": ["8"]}
