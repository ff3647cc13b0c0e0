"""Free responses along a run: drawn as the model says, each by numbers of its own."""

from random import Random

import polars as pl
import pytest
import torch

from conftest import call, settings, user_error
from gradatlas.data.made_up import grammar
from gradatlas.data.pairs import read_pairs
from gradatlas.finetuning import finetune as training
from gradatlas.finetuning.generations import generate
from gradatlas.finetuning.sequences import ResponseEncoder
from gradatlas.models.loading import load
from gradatlas.study.seeds import seeded_hash
from test_dynamics_finetune import arguments, data, run  # noqa: F401  a fixture

HOW = {"seed": 3, "draws": 2, "max_tokens": 12, "batch_tokens": 4096}


@pytest.fixture(scope="module")
def parts(miniature):
    """(model in float64, encoder, pairs with prompts of several lengths)."""
    model, tokenizer = load(str(miniature), dtype="float64", device="cpu")
    pairs = [pair for pair in grammar.pairs(6, 2, 4, 0, 0.75) if pair["split"] == "train"]
    encoder = ResponseEncoder(tokenizer, 512)
    pairs[0] = {**pairs[0], "prompt": "\n\nHuman: And who is it that eats so many plums?" + pairs[0]["prompt"]}
    assert len({len(encoder.encode_prompt(pair["prompt"])) for pair in pairs}) > 2
    return model, encoder, pairs


def plain(model, encoder, pair, draw):
    """One token at a time, without cache, batch or padding."""
    stream = Random(seeded_hash(HOW["seed"], f"generation {pair['pair_id']} {draw}"))
    head = list(encoder.encode_prompt(pair["prompt"]))
    ids = []
    with torch.no_grad():
        while len(ids) < HOW["max_tokens"]:
            below = torch.softmax(model(torch.tensor([head + ids])).logits[0, -1].double(), -1).cumsum(0)
            ids.append(int((below <= stream.random() * below[-1]).sum()))
            if ids[-1] == encoder.tokenizer.eos_token_id:
                return ids[:-1], len(ids), True
    return ids, len(ids), False


def test_draws_are_those_of_the_plain_way(parts):
    model, encoder, pairs = parts
    rows = generate(model, encoder, pairs, **HOW)
    assert [(row["pair_id"], row["draw"]) for row in rows] == [(p["pair_id"], d) for p in pairs for d in (0, 1)]
    for row, (pair, draw) in zip(rows, ((p, d) for p in pairs for d in (0, 1)), strict=True):
        ids, tokens, finished = plain(model, encoder, pair, draw)
        assert row["response"] == encoder.tokenizer.decode(ids, skip_special_tokens=True)
        assert (row["tokens"], row["finished"], row["status"]) == (tokens, finished, "ok")
    assert len({row["response"] for row in rows}) > len(pairs)


def test_what_else_is_asked_moves_nothing(parts):
    model, encoder, pairs = parts
    together = generate(model, encoder, pairs, **HOW)
    assert generate(model, encoder, pairs, **HOW | {"batch_tokens": 1}) == together
    assert generate(model, encoder, pairs[3:5], **HOW) == together[6:10]
    assert generate(model, encoder, pairs, **HOW | {"draws": 1}) == together[::2]
    other = generate(model, encoder, pairs, **HOW | {"seed": 4})
    assert {row["response"] for row in other}.isdisjoint({row["response"] for row in together})


@pytest.mark.parametrize(("sign", "finished", "tokens"), [(1e4, True, 1), (-1e4, False, 12)])
def test_an_end_is_distinguished_from_a_cut(sign, finished, tokens, parts):
    """A model that can say nothing but the end token, and one that cannot say it."""
    model, encoder, pairs = parts
    only = torch.zeros(len(encoder.tokenizer), dtype=torch.float64)
    only[encoder.tokenizer.eos_token_id] = sign
    hook = model.lm_head.register_forward_hook(lambda module, given, logits: logits + only)
    try:
        rows = generate(model, encoder, pairs[:1], **HOW)
    finally:
        hook.remove()
    assert {(row["finished"], row["tokens"]) for row in rows} == {(finished, tokens)}
    assert not finished or {row["response"] for row in rows} == {""}


def test_a_prompt_that_fills_the_window_and_one_that_nearly_does(parts):
    model, encoder, pairs = parts
    lengths = {pair["pair_id"]: len(encoder.encode_prompt(pair["prompt"])) for pair in pairs}
    window = max(lengths.values())
    rows = generate(model, ResponseEncoder(encoder.tokenizer, window), pairs, **HOW)
    whole = generate(model, encoder, pairs, **HOW)
    for row, unhindered in zip(rows, whole, strict=True):
        room = window - lengths[row["pair_id"]]
        if room == 0:
            assert row["status"] == "too_long" and row["response"] is row["tokens"] is row["finished"] is None
        else:
            assert row["tokens"] == min(unhindered["tokens"], room) and row["status"] == "ok"
    assert {row["status"] for row in rows} == {"ok", "too_long"}


def test_numbers_that_are_none_are_reported(miniature, parts):
    broken, _ = load(str(miniature), dtype="float32", device="cpu")
    with torch.no_grad():
        broken.model.norm.weight[0] = float("nan")
    rows = generate(broken, parts[1], parts[2], **HOW)
    assert {(row["status"], row["response"]) for row in rows} == {("nonfinite", None)}


def test_a_run_writes_at_the_start_in_between_and_at_the_end(data, miniature, tmp_path):  # noqa: F811
    more = {"evaluate_every": 3, "generate_every": 2, "prompts": 3, "draws": 2}
    frame = pl.read_parquet(run(data, miniature, tmp_path, **more, steps=5) / "generations.parquet")
    assert frame["step"].unique().sort().to_list() == [0, 2, 4, 5]
    assert frame["examples"].unique().sort().to_list() == [0, 4, 8, 10]
    assert frame.group_by("step", "split").len()["len"].to_list() == [6] * 8
    known = {split: {pair["pair_id"] for pair in read_pairs(data[0], split)} for split in ("train", "held_out")}
    assert all(pair in known[split] for split, pair in frame.select("split", "pair_id").iter_rows())
    assert (
        frame.filter(pl.col("step") == 0)["response"].to_list()
        != frame.filter(pl.col("step") == 2)["response"].to_list()
    )
    assert set(frame["status"]) == {"ok"} and frame["tokens"].max() <= 6


def test_equal_weights_say_the_same(data, miniature, tmp_path):  # noqa: F811
    """A run's end, and the start of another run from there; and two runs at their common start."""
    more = {"prompts": 3, "draws": 2}

    def generated(folder, init, **other):
        frame = pl.read_parquet(run(data, init, tmp_path / folder, **more, **other, steps=5) / "generations.parquet")
        return {step: part.drop("run", "step", "examples") for (step,), part in frame.group_by("step")}

    first = generated("first", miniature)
    after = generated("after", tmp_path / "first/out/model", name="after", loss="dpo")
    beside = generated("beside", miniature, name="beside", target="extend")
    assert after[0].equals(first[5]) and beside[0].equals(first[0])
    assert not first[5].equals(first[0]) and not beside[5].equals(first[5])


def test_generations_of_the_start_are_taken_and_are_what_would_be_made(data, miniature, tmp_path, monkeypatch):  # noqa: F811
    """From the start of all runs, and from the end of another run; a run on the probes has fewer prompts."""
    given = settings(seed=0, prompts=5, draws=2, max_new_tokens=6)
    shared, first = tmp_path / "start.parquet", tmp_path / "first/out"
    done = call("generate_start", "--model", miniature, "--pairs", data[0], "--output", shared, *given)
    assert done.returncode == 0, done.stderr
    run(data, miniature, tmp_path / "first", prompts=5, draws=2, steps=2)
    asked = []
    monkeypatch.setattr(training, "generate", lambda model, encoder, pairs, **how: asked.append(len(pairs)) or
                        generate(model, encoder, pairs, **how))  # fmt: skip
    for name, init, table, more in (
        ("beside", miniature, shared, {"target": "extend"}),
        ("probed", miniature, shared, {"probed": True, "target": "rejected"}),
        ("after", first / "model.json", first / "generations.parquet", {"loss": "dpo"}),
    ):
        more |= {"prompts": 5, "draws": 2, "steps": 2}
        made = run(data, init, tmp_path / name / "made", **more)
        asked.clear()
        options = arguments(data, init, tmp_path / name, "--generations", table, **more)
        done = call("finetune", *options)
        assert done.returncode == 0, done.stderr
        # Only those after the last step.
        assert asked == [0, 9 - (name == "probed")]
        one, other = (pl.read_parquet(out / "generations.parquet") for out in (made, tmp_path / name / "out"))
        assert one.equals(other) and len(one.filter(pl.col("step") == 0)) == 2 * asked[1]
    options = arguments(data, first / "model.json", tmp_path / "wrong", "--generations", shared, prompts=5, draws=2)
    message = user_error(call("finetune", *options))
    assert f"{shared}: its last free responses are of another model" in message


def test_what_is_trained_on_the_probes_is_asked_those(data, miniature, tmp_path):  # noqa: F811
    frame = pl.read_parquet(run(data, miniature, tmp_path, probed=True, prompts=99, steps=1) / "generations.parquet")
    probed = {
        name.rpartition("/")[0] for name in pl.read_parquet(data[1]).filter(pl.col("split") == "train")["probe_id"]
    }
    asked = {split: set(part["pair_id"]) for (split,), part in frame.group_by("split")}
    assert asked["train"] == probed and len(asked["held_out"]) == 4


def test_no_prompts_leave_an_empty_table(data, miniature, tmp_path):  # noqa: F811
    assert len(pl.read_parquet(run(data, miniature, tmp_path, steps=1) / "generations.parquet")) == 0


def test_a_run_that_diverges_keeps_what_the_kept_model_wrote(data, miniature, tmp_path):  # noqa: F811
    more = {"optimiser": "sgd", "clip": 0, "evaluate_every": 2, "generate_every": 1, "prompts": 1}
    done = call("finetune", *arguments(data, miniature, tmp_path, **more, learning_rate=1e30, steps=6))
    assert done.returncode == 0, done.stderr
    last = pl.read_parquet(tmp_path / "out/dynamics.parquet")["step"].max()
    assert pl.read_parquet(tmp_path / "out/generations.parquet")["step"].max() == last
