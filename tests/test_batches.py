"""Samples of one batch do not see each other: batches against one by one, where models make that hard."""

import json

import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, Phi3Config

from gradatlas.gradients.plan import key_of, plan_batches
from gradatlas.models.forward import length_regime
from gradatlas.models.tokens import Encoded
from test_measure import measure

LONG = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 3, "long_factor": [4.0] * 3}
BORDER = {"original_max_position_embeddings": 32}
LONG |= {**BORDER, "factor": 8.0}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
SIZES = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.25,
    "pad_token_id": 0,
}


def saved(miniature, folder, kind, **options):
    """A tiny random model of this configuration with the miniature's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(miniature)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(kind(vocab_size=len(tokenizer), **SIZES, **options))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def read(model, folder, rows, *options):
    folder.mkdir()
    (folder / "rows.json").write_text(json.dumps(rows))
    done = measure(model, folder / "rows.json", folder, "--dtype", "float64", *options)
    assert done.returncode == 0, done.stderr
    return pl.read_parquet(folder / "samples.parquet"), pl.read_parquet(folder / "spectra.parquet")


@pytest.mark.parametrize(
    ("kind", "rope", "positions"),
    [
        (Phi3Config, LONG, {**BORDER, "max_position_embeddings": 256}),
        (LlamaConfig, DYNAMIC, {"max_position_embeddings": 48}),
    ],
)
def test_frequencies_that_depend_on_the_length(kind, rope, positions, miniature, tmp_path):
    """A short sample beside a long one gets the table that it has alone."""
    saved(miniature, tmp_path / "model", kind, rope_parameters=rope, **positions)
    rows = [{"instruction": "How many? " * n, "input": "", "output": "3 and 4 is 7"} for n in (1, 2, 3, 9, 12)]
    samples, together = read(tmp_path / "model", tmp_path / "together", rows)
    lengths = samples.select(pl.col("prompt_tokens") + pl.col("response_tokens")).to_series()
    assert lengths.min() < 32 < lengths.max() and set(samples["status"]) == {"ok"}
    one_by_one, alone = read(tmp_path / "model", tmp_path / "alone", rows, "--batch-tokens", 1)
    assert (samples["loss"] / one_by_one["loss"] - 1).abs().max() < 1e-12
    assert ((together["nuclear_norm"] - alone["nuclear_norm"]).abs() / alone["nuclear_norm"].max()).max() < 1e-12


def test_a_plan_keeps_the_regimes_apart_and_depends_on_nothing_else():
    samples = {f"{n}": Encoded((1,) * n, (True,) * n, False) for n in (5, 33, 32, 31, 40, 6)}
    regime = length_regime(Phi3Config(rope_parameters=LONG, **BORDER, **SIZES))
    assert plan_batches(samples, 1000, regime) == [["40", "33"], ["32", "31", "6", "5"]]
    assert plan_batches(dict(reversed(samples.items())), 1000, regime) == plan_batches(samples, 1000, regime)
    assert plan_batches(samples, 1000) == [["40", "33", "32", "31", "6", "5"]]


def test_a_plan_depends_on_the_texts_alone():
    """Neither on the code's digest, which is part of a key, nor on the order of the rows."""
    texts = [Encoded((7, n), (False, True), False) for n in range(40)]

    def planned(samples, engine):
        by_key = {key_of(each, {"engine": engine}): each for each in samples}
        return [[by_key[key].ids for key in batch] for batch in plan_batches(by_key, 16)]

    plan = planned(texts, "one")
    assert len(plan) == 5
    assert planned(texts, "another") == plan and planned(texts[::-1], "one") == plan


def test_each_kind_of_layer_may_have_a_border_of_its_own():
    config = Phi3Config(**SIZES)
    config.rope_parameters = {"one": LONG, "other": {**LONG, "original_max_position_embeddings": 64}, "last": DYNAMIC}
    assert [length_regime(config)(tokens) for tokens in (32, 33, 64, 65)] == [0, 1, 1, 2]
    assert length_regime(LlamaConfig(rope_parameters=DYNAMIC, **SIZES))(9999) == 0


def test_a_token_that_no_sample_has_spoils_none(miniature, tmp_path):
    """Embeddings that are no numbers: of the padding token, and of a token that one sample alone has."""
    model, tokenizer = saved(miniature, tmp_path / "model", LlamaConfig, max_position_embeddings=128)
    rows = [{"instruction": "How many?" * n, "input": "", "output": "3 and 4 is 7"} for n in (1, 2, 6)]
    rows.append({"instruction": "How many?", "input": "", "output": "3 and 4 is 7, or 9"})
    nine = set(tokenizer(rows[3]["output"])["input_ids"]) - set(tokenizer(rows[0]["output"])["input_ids"])
    with torch.no_grad():
        model.get_input_embeddings().weight[[0, *nine]] = float("nan")
    model.save_pretrained(tmp_path / "model")
    samples, _ = read(tmp_path / "model", tmp_path / "together", rows)
    assert samples["status"].to_list() == ["ok"] * 3 + ["nonfinite"]
