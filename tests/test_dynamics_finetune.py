"""The finetuning loop: what it minimises, what it measures, kills, divergence, bad input."""

import contextlib
import gc
import json
import math
import re
import signal
import subprocess
import sys
import threading
import time
import weakref

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from conftest import call, settings, user_error
from gradatlas.core.errors import InputError
from gradatlas.data.made_up import grammar
from gradatlas.data.pairs import read_pairs, write_pairs
from gradatlas.finetuning import finetune as training
from gradatlas.finetuning.evaluate import MEASURES, evaluate, measures
from gradatlas.finetuning.examples import order_of, read_examples
from gradatlas.finetuning.losses import LOSSES
from gradatlas.finetuning.probes import TYPES, read_probes
from gradatlas.finetuning.processes import SINGLE_PROCESS
from gradatlas.finetuning.recipe import Recipe
from gradatlas.finetuning.sequences import ResponseEncoder, log_probs
from gradatlas.models.loading import load

SHORT = {"learning_rate": 1e-3, "batch_size": 2, "max_new_tokens": 6}


@pytest.fixture(scope="module")
def data(tmp_path_factory, miniature):
    """(pairs, probes) of 12 questions, 4 of them probed."""
    folder = tmp_path_factory.mktemp("data")
    write_pairs(grammar.pairs(12, 4, 20, 0, 0.75), folder / "pairs.parquet", {})
    done = call("build_probes", "--pairs", folder / "pairs.parquet", "--model", miniature, "--output",
                folder / "probes.parquet", *settings(train=4, held_out=1, seed=0, max_new_tokens=6))  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "pairs.parquet", folder / "probes.parquet"


def arguments(data, init, folder, *more, **chosen):
    """`more` options, and `chosen` settings beside a short run's."""
    pairs, probes = data
    return ["--init", init, "--pairs", pairs, "--probes", probes, "--output", folder / "out", "--journal",
            folder / "journal", *settings(**{"name": "run", "steps": 4, **SHORT, **chosen}), *more]  # fmt: skip


def run(data, init, folder, **chosen):
    done = call("finetune", *arguments(data, init, folder, **chosen))
    assert done.returncode == 0, done.stderr
    return folder / "out"


def curve(out, kind="chosen", measure="log_prob_sum"):
    frame = pl.read_parquet(out / "dynamics.parquet").filter((pl.col("type") == kind) & (pl.col("split") == "train"))
    return frame.group_by("step").agg(pl.col(measure).mean()).sort("step")[measure].to_list()


# --- What is measured ---


def test_measures_of_a_token_against_the_plain_way():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(6, 9, generator=generator, dtype=torch.float64)
    targets = torch.randint(9, (6,), generator=generator)
    for z, y, row in zip(logits, targets, measures(logits, targets), strict=True):
        pi = torch.softmax(z, -1)
        a = torch.eye(9, dtype=torch.float64) - torch.outer(torch.ones(9, dtype=torch.float64), pi)
        plain = [pi[y].log(), pi.max().log(), (1 - pi.max()).log(), -(pi * pi.log()).sum(), a.norm(),
                 (pi - torch.eye(9)[y]).norm()]  # fmt: skip
        torch.testing.assert_close(row, torch.stack(plain))


def test_a_peak_leaves_a_finite_rest():
    """log(1 - max) of a float32 peak is minus infinity when it is computed so."""
    row = measures(torch.tensor([[60.0, 0.0, 0.0]]), torch.tensor([0]))[0]
    assert row.isfinite().all() and float(row[2]) == pytest.approx(math.log(2) - 60, rel=1e-6) and float(row[5]) < 1e-6


def test_batched_evaluation_is_that_of_one_at_a_time(data, miniature):
    model, tokenizer = load(str(miniature), dtype="float64", device="cpu")
    watched, _ = read_probes(str(data[1]), ResponseEncoder(tokenizer, 512))
    responses = {key: encoded for key, (_, encoded) in watched.items()}
    together, alone = evaluate(model, responses, 4096), evaluate(model, responses, 1)
    assert list(together) == list(responses)
    for key, values in together.items():
        assert [values[name] for name in MEASURES] == pytest.approx([alone[key][name] for name in MEASURES], rel=1e-9)
        plain = torch.log_softmax(model(torch.tensor([responses[key].ids])).logits[0].detach(), -1)
        ids, start = responses[key].ids, responses[key].start
        assert values["log_prob_sum"] == pytest.approx(sum(float(plain[i - 1, ids[i]]) for i in range(start, len(ids))))
        assert values["argmax_log_prob"] == pytest.approx(
            sum(float(plain[i - 1].max()) for i in range(start, len(ids)))
        )


def test_argmax_is_that_of_each_types_own_prefixes(data, miniature, tmp_path):
    """The study's code kept the last type's value for all."""
    out = run(data, miniature, tmp_path, steps=1)
    frame = pl.read_parquet(out / "dynamics.parquet").filter(pl.col("step") == 0)
    assert frame.group_by("type").agg(pl.col("argmax_log_prob").sum())["argmax_log_prob"].n_unique() == len(TYPES)


# --- What is minimised ---


def test_evaluates_before_the_first_step_and_after_the_last(data, miniature, tmp_path):
    out = run(data, miniature, tmp_path, evaluate_every=2, steps=5)
    frame = pl.read_parquet(out / "dynamics.parquet")
    assert frame["step"].unique().sort().to_list() == [0, 2, 4, 5]
    assert frame["examples"].unique().sort().to_list() == [0, 4, 8, 10]
    assert frame.group_by("step").len()["len"].to_list() == [5 * len(TYPES)] * 4
    assert len(pl.read_parquet(out / "training.parquet")) == 5
    assert not (tmp_path / "journal").exists()


@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "sft"])
def test_losses_on_pairs_widen_the_margin(loss, data, miniature, tmp_path):
    out = run(data, miniature, tmp_path, loss=loss, probed=True, margin=1, batch_size=4, steps=8, learning_rate=2e-4)
    margin = [up - down for up, down in zip(curve(out), curve(out, "rejected"), strict=True)]
    assert margin[-1] > margin[0]


@pytest.mark.parametrize("optimiser", ["sgd", "rmsprop", "adamw"])
def test_sft_raises_what_it_is_trained_on(optimiser, data, miniature, tmp_path):
    rate = 1e-3 if optimiser != "sgd" else 1e-2
    out = run(data, miniature, tmp_path, optimiser=optimiser, learning_rate=rate, steps=6)
    assert curve(out)[-1] > curve(out)[0] + 1


def test_the_first_loss_is_that_of_the_first_examples_in_float64(data, miniature, tmp_path):
    out = run(data, miniature, tmp_path, dtype="float64", loss="ipo", steps=1)
    assert pl.read_parquet(out / "training.parquet")["loss"][0] == pytest.approx((1 / (2 * 0.1)) ** 2, rel=1e-9)
    out = run(data, miniature, tmp_path, dtype="float64", steps=1)
    model, tokenizer = load(str(miniature), dtype="float64", device="cpu")
    rows, encoder = read_pairs(data[0], "train"), ResponseEncoder(tokenizer, 512)
    first = [rows[i] for i in order_of(12, 0, 2, 0)]
    plain = -sum(float(log_probs(model, [encoder.encode(row["prompt"], row["chosen"])]).detach()) for row in first) / 2
    assert pl.read_parquet(out / "training.parquet")["loss"][0] == pytest.approx(plain, rel=1e-9)


def test_a_target_of_a_probe_type_and_extend(data, miniature, tmp_path):
    out = run(data, miniature, tmp_path, target="unrelated", steps=8)
    assert curve(out, "unrelated")[-1] - curve(out, "unrelated")[0] > 1
    assert json.loads((out / "status.json").read_text())["trained_on"] == 4
    out = run(data, miniature, tmp_path, target="extend", steps=1)
    assert json.loads((out / "status.json").read_text())["trained_on"] == 24


def test_lora_trains_low_rank_terms_and_leaves_an_ordinary_model(data, miniature, tmp_path):
    first = run(data, miniature, tmp_path / "a", parameters="lora", lora_rank=2, clip=0, steps=6)
    assert curve(first)[-1] > curve(first)[0] + 0.5
    before, after = (load_file(folder / "model.safetensors") for folder in (miniature, first / "model"))
    name = "model.layers.0.self_attn.q_proj.weight"
    assert set(before) == set(after) and torch.equal(before["model.norm.weight"], after["model.norm.weight"])
    assert int(torch.linalg.matrix_rank((after[name] - before[name]).double(), rtol=1e-4)) == 2
    second = run(data, first / "model", tmp_path / "b", steps=1)
    assert curve(second)[0] == pytest.approx(curve(first)[-1], rel=1e-5)


def test_every_example_comes_once_an_epoch_and_no_batch_is_dropped():
    order = [place for step in range(6) for place in order_of(10, step * 4, 4, seed=3)]
    assert sorted(order[:10]) == sorted(order[10:20]) == list(range(10)) and order[:10] != order[10:20]


def test_one_run_starts_from_another(data, miniature, tmp_path):
    first = run(data, miniature, tmp_path / "a", steps=2)
    second = run(data, first / "model", tmp_path / "b", loss="dpo", steps=1)
    assert curve(second)[0] == pytest.approx(curve(first)[-1], rel=1e-6)


# --- Kills and divergence ---


@pytest.mark.slow
def test_killed_and_run_again_is_as_if_it_had_never_been(data, miniature, tmp_path):
    """The one that is never killed writes every checkpoint, the other one every second."""
    more = {"evaluate_every": 3, "loss": "dpo", "negatives": "self_play", "optimiser": "adamw"}
    more |= {"generate_every": 2, "prompts": 2, "snapshots": (6, 12)}
    quiet = run(data, miniature, tmp_path / "quiet", **more, steps=24)
    given = arguments(data, miniature, tmp_path / "killed", "--checkpoint-every", 2, **more, steps=24)
    command = [sys.executable, "-m", "gradatlas", "finetune", *map(str, given)]
    victim = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    # After the evaluation of step 9, which has no checkpoint.
    while not (tmp_path / "killed/journal/dynamics-00000009.parquet").exists():
        assert victim.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert not (tmp_path / "killed/out").exists()
    done = call("finetune", *given)
    assert done.returncode == 0 and "resumes after step" in done.stderr, done.stderr
    assert int(re.search(r"resumes after step (\d+)", done.stderr)[1]) % 6 == 0
    for name in (
        "dynamics.parquet",
        "generations.parquet",
        "training.parquet",
        "status.json",
        "model/model.safetensors",
        "snapshots/00000006/model.safetensors",
        "snapshots/00000012/model.safetensors",
    ):
        assert (tmp_path / "killed/out" / name).read_bytes() == (quiet / name).read_bytes(), name


def test_a_checkpoint_of_another_recipe_is_not_taken(data, miniature, tmp_path):
    from gradatlas.finetuning.checkpoints import Checkpoints

    kept = Checkpoints(tmp_path / "journal", {"recipe": "another"})
    kept.save(3, {"model": {}, "optimiser": {}, "log": "[]"})
    # As a kill does.
    del kept
    out = run(data, miniature, tmp_path, steps=1)
    assert json.loads((out / "status.json").read_text())["status"] == "ok"


def test_at_most_two_checkpoints_are_on_the_disk(data, miniature, tmp_path):
    given = arguments(data, miniature, tmp_path, "--checkpoint-every", 2, evaluate_every=1, steps=9)
    seen, ended = [], threading.Event()

    def watch():
        while not ended.wait(0.001):
            with contextlib.suppress(FileNotFoundError):
                found = [path for path in (tmp_path / "journal").iterdir() if ".parquet" not in path.name]
                seen.append(frozenset(path.name for path in found if path.stat().st_size > 100_000))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        done = call("finetune", *given)
    finally:
        ended.set()
        watcher.join()
    assert done.returncode == 0, done.stderr
    assert max(map(len, seen)) == 2
    steps = {int(name.split("-")[1]) for names in seen for name in names if name.startswith("state-")}
    assert steps <= {0, 2, 4, 6, 8, 9} and len(steps) > 2


def test_a_run_that_diverges_keeps_the_last_good_model(data, miniature, tmp_path):
    """Also where the last checkpoint is older than it."""
    more = {"optimiser": "sgd", "clip": 0, "warm_up": 0, "evaluate_every": 1, "learning_rate": 1e30, "steps": 6}
    for every in (4, 1):
        done = call("finetune", *arguments(data, miniature, tmp_path / str(every), "--checkpoint-every", every, **more))
        assert done.returncode == 0, done.stderr
    out, rarely = tmp_path / "1/out", tmp_path / "4/out"
    for name in ("status.json", "dynamics.parquet", "training.parquet", "model/model.safetensors"):
        assert (out / name).read_bytes() == (rarely / name).read_bytes(), name
    status = json.loads((out / "status.json").read_text())
    assert status["status"] == "diverged" and status["step"] == status["last_good_step"] + 1 < 6
    frame = pl.read_parquet(out / "dynamics.parquet")
    assert frame["step"].max() == status["last_good_step"]
    assert frame["log_prob_sum"].is_finite().all()
    assert all(weight.isfinite().all() for weight in load_file(out / "model/model.safetensors").values())
    message = user_error(call("finetune", *arguments(data, out / "model", tmp_path / "next")))
    assert f"its run diverged at step {status['step']}; lower its learning_rate" in message


# --- Bad input ---


def test_what_does_not_fit_the_window_is_counted(data, miniature, tmp_path):
    out = run(data, miniature, tmp_path, max_length=34, steps=1)
    status = json.loads((out / "status.json").read_text())
    assert status["trained_on"] + status["excluded"]["too_long"] == 12 and status["excluded"]["too_long"] > 0
    frame = pl.read_parquet(out / "dynamics.parquet").filter(pl.col("step") == 1)
    # A sample of the untrained model may be empty.
    assert set(frame["status"]) - {"empty"} == {"ok", "too_long"} and len(frame) == 5 * len(TYPES)
    assert frame.filter(pl.col("status") == "too_long")["log_prob_sum"].null_count() == status["probes"]["too_long"]
    pairs_alone = ["--pairs", data[0], "--output", tmp_path / "o", "--journal", tmp_path / "j"]
    chosen = settings(name="run", learning_rate=1e-3, steps=1, max_length=8)
    done = call("finetune", "--init", miniature, *pairs_alone, *chosen)
    assert "only 0 examples have at most 8 tokens" in user_error(done)


@pytest.mark.parametrize(
    ("more", "kept"),
    [
        ({}, False),
        ({"parameters": "lora"}, False),
        ({"another": True}, False),
        ({"negatives": "self_play"}, True),
        ({"negatives": "on_policy", "judge": "oracle"}, True),
        ({"loss": "kto"}, True),
    ],
)
def test_a_reference_that_is_not_asked_again_is_freed(more, kept, data, miniature, tmp_path, monkeypatch):
    """Before the first step no reference is left, even without the collector; a copy of the start is made for no run
    that needs the log-probabilities of the data alone."""
    made, alive = [], []
    make, step = training._reference, training._TrainingLoop._step

    def noted(*given):
        reference = make(*given)
        made.append(weakref.ref(reference))
        made.extend(weakref.ref(weight) for weight in reference.parameters())
        return reference

    def counted(loop, number):
        alive.append(sum(each() is not None for each in made))
        return step(loop, number)

    monkeypatch.setattr(training, "_reference", noted)
    monkeypatch.setattr(training._TrainingLoop, "_step", counted)
    given = ("--reference", miniature) if more.get("another") else ()
    chosen = {"loss": "dpo", "steps": 1, **more}
    chosen.pop("another", None)
    gc.disable()
    try:
        done = call("finetune", *arguments(data, miniature, tmp_path, *given, **chosen))
    finally:
        gc.enable()
    assert done.returncode == 0, done.stderr
    assert alive == [len(made) if kept else 0] and bool(made) == (kept or bool(given))


def test_without_a_reference_none_is_loaded(data, miniature, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_reference", lambda *_: pytest.fail("a reference was made"))
    out = run(data, miniature, tmp_path, loss="dpo", dtype="float64", reference_free=True, label_smoothing=0.2, steps=1)
    model, tokenizer = load(str(miniature), dtype="float64", device="cpu")
    rows, encoder = read_pairs(data[0], "train"), ResponseEncoder(tokenizer, 512)
    first = [rows[i] for i in order_of(12, 0, 2, 0)]
    up, down = ([float(log_probs(model, [encoder.encode(row["prompt"], row[part])]).detach()) for row in first]
                for part in ("chosen", "rejected"))  # fmt: skip
    inside = [0.1 * (one - other) for one, other in zip(up, down, strict=True)]
    plain = sum(0.8 * math.log1p(math.exp(-each)) + 0.2 * math.log1p(math.exp(each)) for each in inside) / 2
    assert pl.read_parquet(out / "training.parquet")["loss"][0] == pytest.approx(plain, rel=1e-9)


def test_ktos_other_answers_are_read_as_one_text_with_the_prompt(data, miniature):
    model, tokenizer = load(str(miniature), dtype="float64", device="cpu")
    encoder = ResponseEncoder(tokenizer, 512)
    recipe = Recipe(name="run", loss="kto", batch_size=3, learning_rate=1e-4, steps=1)
    examples, _ = read_examples(recipe, read_pairs(data[0], "train")[:3], encoder)
    reference = training._reference(model, tokenizer, None, {})
    with torch.no_grad():
        model.lm_head.weight.mul_(1.1)
    mixed = training._TrainingLoop(model, encoder, recipe, examples, reference, 6, SINGLE_PROCESS)._divergence(examples)
    others = [encoder.encode(examples[i].prompt, examples[(i + 1) % 3].text) for i in range(3)]
    assert [each.text for each in examples] == [row["chosen"] for row in read_pairs(data[0], "train")[:3]]
    k = (log_probs(model, others) - log_probs(reference, others)).mean().clamp(min=0)
    assert float(mixed) == pytest.approx(float(k.detach()), rel=1e-12)


def test_a_reference_with_another_tokenizer_is_refused(data, miniature, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for path in miniature.iterdir():
        if path.is_file():
            (other / path.name).write_bytes(path.read_bytes())
    text = (other / "tokenizer.json").read_text(encoding="utf-8")
    swapped = json.loads(text)
    vocabulary = swapped["model"]["vocab"]
    first, second = list(vocabulary)[300:302]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(swapped), encoding="utf-8")
    message = user_error(call("finetune", *arguments(data, miniature, tmp_path, "--reference", other, loss="dpo")))
    assert "its tokenizer differs" in message and str(other) in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "dop"}, "did you mean 'dpo'"),
        ({"target": "rejected_semantics"}, "did you mean 'rejected_semantic'"),
        ({"loss": "dpo", "target": "extend"}, "set target to chosen"),
        ({"loss": "dpo", "split": "base"}, "needs rejected responses, split base has none"),
        ({"negatives": "on_policy"}, "has no negatives"),
        (
            {"loss": "simpo", "label_smoothing": 0.1},
            "is of the losses dpo and ipo; leave it out for simpo",
        ),
        ({"reference_free": True}, "reference_free is of the losses dpo and ipo; leave it out for sft"),
        ({"loss": "dpo", "label_smoothing": 0.5}, "0.5 is greater than or equal to the maximum of 0.5"),
        ({"loss": "kto", "batch_size": 1}, "batch_size is 1; give at least 2"),
        ({"optimiser": "adam"}, "did you mean 'adamw'"),
        ({"learning_rate": 0.0}, "run 'run': 'learning_rate': 0.0 is less than or equal to the minimum of 0"),
        ({"learning_rate": math.inf}, "'learning_rate' is inf; write a number"),
        ({"steps": 0}, "'steps': 0 is less than the minimum of 1"),
        ({"generate_every": -1}, "'generate_every': -1 is less than the minimum of 0"),
        ({"parameters": "lorra"}, "did you mean 'lora'"),
    ],
)
def test_a_recipe_that_contradicts_itself(changes, message):
    with pytest.raises(InputError, match=message):
        Recipe(**{"name": "run", "learning_rate": 1e-4, "steps": 1} | changes)


@pytest.mark.parametrize("option", ["--init", "--reference"])
def test_a_missing_model_is_named_by_its_option(option, data, miniature, tmp_path):
    given = arguments(data, "nowhere" if option == "--init" else miniature, tmp_path, loss="dpo")
    given += ["--reference", "nowhere"] * (option == "--reference")
    assert f"{option} nowhere: no such folder or card" in user_error(call("finetune", *given))


def test_a_run_on_probes_without_probes(data, miniature, tmp_path):
    given = [each for each in arguments(data, miniature, tmp_path, target="permuted") if each != data[1]]
    given.remove("--probes")
    assert "trains on probes, but there are none" in user_error(call("finetune", *given))
