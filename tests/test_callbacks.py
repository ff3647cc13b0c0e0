"""The Trainer callbacks on real trainings of the miniature: the training is unchanged, tables and logs are complete."""

import json
import shutil

import polars as pl
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

import gradatlas
from conftest import ROOT, call, user_error
from gradatlas.core.errors import InputError
from gradatlas.finetuning.processes import launch

MODEL = ROOT / "resources/miniature/instruct"


def chat(question, answer):
    return [{"role": "user", "content": question}], [{"role": "assistant", "content": answer}]


CHATS = [
    {"messages": [*question, *answer]}
    for question, answer in (chat(f"What is {one} + {two}?", str(one + two)) for one in range(4) for two in range(4))
]
PAIRS = [
    {
        "prompt": row["messages"][:1],
        "chosen": row["messages"][1:],
        "rejected": [{"role": "assistant", "content": "No."}],
        "rephrases": {"chosen_semantic": "It is " + row["messages"][1]["content"], "rejected_format": "Yes."},
    }
    for row in CHATS
]
TABLES = ("spectra", "probes", "budget")
# One cannot be measured.
PROBES = [*CHATS[:3], {"messages": chat("What is it?", "")[0]}]


class Recorder(TrainerCallback):
    """What a backend of `report_to` is given."""

    def __init__(self):
        self.seen = []

    def on_log(self, args, state, control, logs=None, **more):
        self.seen.append((state.global_step, dict(logs)))


def network(dropout=0.2):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32, attention_dropout=dropout)


def options(folder, **more):
    return {
        "output_dir": str(folder), "per_device_train_batch_size": 2, "max_steps": 4, "logging_steps": 2,
        "report_to": [], "use_cpu": True, "disable_tqdm": True, "seed": 0, "learning_rate": 1e-3, "save_strategy": "no",
    } | more  # fmt: skip


def trainer(folder, callbacks, model=None, **more):
    """A Trainer on tokenised texts."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    texts = Dataset.from_list(
        [{"input_ids": tokenizer.apply_chat_template(row["messages"])["input_ids"]} for row in CHATS]
    )
    return Trainer(
        model or network(), TrainingArguments(**options(folder, **more)), train_dataset=texts, eval_dataset=texts,
        processing_class=tokenizer, data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        callbacks=callbacks,
    )  # fmt: skip


def both(every=2, **more):
    probes = gradatlas.ResponseProbes(PAIRS[:3], every=every, budget=True)
    return [gradatlas.GradientSpectra(PROBES, every=every, **more), probes]


def same_weights(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def table(folder, name):
    return pl.read_parquet(folder / "gradatlas" / f"{name}.parquet")


MIXED = {"bf16": True, "gradient_accumulation_steps": 2, "neftune_noise_alpha": 5}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training with both callbacks: its folder, its trainer, what was logged."""
    folder, recorder = tmp_path_factory.mktemp("trained"), Recorder()
    run = trainer(folder, [recorder, *both()])
    run.train()
    return folder, run, recorder.seen


@pytest.mark.parametrize("more", [{}, MIXED], ids=["plain", "mixed"])
def test_training_is_the_same_to_the_last_bit(more, trained, tmp_path):
    plain = trainer(tmp_path / "plain", [], **more)
    plain.train()
    run = trained[1]
    if more:
        run = trainer(tmp_path / "watched", both(), **more)
        run.train()
        # The precision of the weights, which are float32 under bf16 too.
        starts = [table(folder, "spectra").filter(step=0) for folder in (tmp_path / "watched", trained[0])]
        assert starts[0].equals(starts[1])
    assert same_weights(plain.model, run.model)
    kept = [{k: v for k, v in row.items() if not k.startswith("train_")} for row in run.state.log_history]
    own = [row for row in kept if not any(name.startswith("gradatlas/") for name in row)]
    before = [{k: v for k, v in row.items() if not k.startswith("train_")} for row in plain.state.log_history]
    assert own == before


def test_tables_have_every_probe_at_every_step(trained):
    folder, run, _ = trained
    spectra = table(folder, "spectra")
    assert spectra["step"].unique(maintain_order=True).to_list() == [0, 2, 4]
    ok = spectra.filter(status="ok")
    assert ok.group_by("step", "sample").len()["len"].unique().to_list() == [6 * 4]
    lost = spectra.filter(pl.col("status") != "ok")
    assert lost["sample"].to_list() == ["3"] * 3 and lost["nuclear_norm"].is_null().all()
    # The last step's numbers are those of the trained model.
    expected = gradatlas.measure(run.model, run.processing_class, CHATS[:3])
    last = ok.filter(step=4)
    for name in ("loss", "nuclear_norm", "effective_rank"):
        assert last[name].to_list() == pytest.approx(expected[name].to_list(), rel=1e-6)
    assert ok["mean"].is_null().all()
    probes = table(folder, "probes")
    types = ["chosen", "chosen_semantic", "rejected_format", "rejected"]
    assert probes.filter(step=2)["type"].to_list() == types * 3
    assert (probes["log_prob_sum"] / probes["tokens"]).to_list() == pytest.approx(probes["log_prob_mean"].to_list())
    assert (probes["argmax_log_prob"] >= probes["log_prob_sum"]).all()


def test_the_parts_of_all_blocks_are_the_measured_changes(trained):
    folder, run, seen = trained
    found, probes = table(folder, "budget"), table(folder, "probes")
    assert found.select("since", "step").unique(maintain_order=True).rows() == [(0, 2), (2, 4)]
    # A block a parameter; of the tied embeddings two.
    assert len(found.filter(step=2, pair="0", type="chosen")) == len(list(run.model.parameters())) + 1
    by_response = found.group_by("step", "pair", "type").agg(pl.col("predicted").sum(), pl.col("measured").first())
    levels = {
        (step, pair, kind): value
        for step, pair, kind, value in probes.select("step", "pair", "type", "log_prob_sum").iter_rows()
    }
    assert len(by_response) == 2 * 3 * 4
    for step, pair, kind, _, measured in by_response.iter_rows():
        assert measured == pytest.approx(levels[step, pair, kind] - levels[step - 2, pair, kind])
    gaps = {step: logs["gradatlas/budget_gap"] for step, logs in seen if "gradatlas/budget_gap" in logs}
    for step in (2, 4):
        own = by_response.filter(step=step)
        missed = float(((own["predicted"] - own["measured"]) ** 2).sum() / (own["measured"] ** 2).sum()) ** 0.5
        assert gaps[step] == pytest.approx(missed) and missed < 0.3


def test_numbers_reach_the_log_of_the_trainer(trained):
    folder, run, seen = trained
    spectra, probes = table(folder, "spectra"), table(folder, "probes")
    logged = {step: logs for step, logs in seen if "gradatlas/nuclear_norm" in logs}
    assert list(logged) == [0, 2, 4]
    for step, logs in logged.items():
        mean = spectra.filter(pl.col("step") == step)["nuclear_norm"].mean()
        assert logs["gradatlas/nuclear_norm"] == pytest.approx(mean) and logs["gradatlas/spectra_seconds"] > 0
    assert 0 < logged[4]["gradatlas/spectra_share"] < 1 and "gradatlas/spectra_share" not in logged[0]
    logs = {step: logs for step, logs in seen if "gradatlas/log_prob_chosen" in logs}[4]
    last = probes.filter(step=4, type="chosen")
    assert logs["gradatlas/log_prob_chosen"] == pytest.approx(last["log_prob_sum"].mean())
    assert logs["gradatlas/log_prob_likeliest"] == pytest.approx(last["argmax_log_prob"].mean())
    # The Trainer's own log is still there, and its history has both.
    assert [step for step, logs in seen if "loss" in logs] == [2, 4]
    assert sum("gradatlas/nuclear_norm" in row for row in run.state.log_history) == 3


def test_a_resumed_training_continues_its_tables(trained, tmp_path):
    run = trainer(tmp_path, both(), save_strategy="steps", save_steps=2)
    run.train()
    for name in TABLES:
        assert table(tmp_path, name).equals(table(trained[0], name))
    resumed = trainer(tmp_path, both(), save_strategy="steps", save_steps=2)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert same_weights(run.model, resumed.model)
    for name in TABLES:
        assert table(tmp_path, name).equals(table(trained[0], name))
    # At a checkpoint between two evaluations the budget begins there.
    late = gradatlas.ResponseProbes(PAIRS[:1], every=3, output_dir=tmp_path / "late", budget=True)
    trainer(tmp_path, [late]).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert table(tmp_path / "late", "probes")["step"].unique().to_list() == [3, 4]
    assert table(tmp_path / "late", "budget").select("since", "step").unique().sort("step").rows() == [(2, 3), (3, 4)]
    other = [gradatlas.GradientSpectra(PROBES[:2], every=2)]
    with pytest.raises(InputError, match=r"spectra\.parquet: was measured with other probes"):
        trainer(tmp_path, other).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert table(tmp_path, "spectra").equals(table(trained[0], "spectra"))


def test_a_new_training_keeps_the_earlier_table(trained, tmp_path, capsys):
    shutil.copytree(trained[0] / "gradatlas", tmp_path / "gradatlas")
    trainer(tmp_path, [gradatlas.GradientSpectra(PROBES[:2], every=3)], max_steps=1).train()
    assert table(tmp_path, "spectra")["step"].unique().to_list() == [0, 1]
    assert table(tmp_path, "spectra.earlier").equals(table(trained[0], "spectra"))
    assert "renamed to spectra.earlier.parquet" in capsys.readouterr().err


def test_a_training_that_stops_early_is_measured_at_its_end(tmp_path):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **more):
            control.should_training_stop = state.global_step == 1

    trainer(tmp_path, [gradatlas.GradientSpectra(PROBES[:2], every=3), Stop()]).train()
    assert table(tmp_path, "spectra")["step"].unique().to_list() == [0, 1]
    best = trainer(
        tmp_path / "best", [gradatlas.GradientSpectra(PROBES[:2], every=9), EarlyStoppingCallback(1)], max_steps=9,
        eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1, load_best_model_at_end=True,
        learning_rate=1.0,
    )  # fmt: skip
    best.train()
    # Its model at the end is that of another step.
    assert best.state.global_step == 2
    assert table(tmp_path / "best", "spectra")["step"].unique().to_list() == [0]


def trl(kind, folder, callbacks, rows, **more):
    """One of TRL's trainers."""
    made, config = (DPOTrainer, DPOConfig) if kind == "dpo" else (SFTTrainer, SFTConfig)
    adapter = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], lora_dropout=0.1) if kind == "lora" else None
    return made(
        network(more.pop("dropout", 0.2)), args=config(**options(folder, bf16=False, **more)),
        train_dataset=Dataset.from_list(rows), processing_class=AutoTokenizer.from_pretrained(MODEL),
        callbacks=callbacks, peft_config=adapter,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["sft", "lora", "dpo"])
def test_trainers_of_trl_are_watched_and_unchanged(kind, tmp_path):
    rows = [{name: row[name] for name in row if name != "rephrases"} for row in (PAIRS if kind == "dpo" else CHATS)]
    runs = []
    for callbacks in ([], both()):
        # Making a trainer sets the seed.
        runs.append(trl(kind, tmp_path / str(len(callbacks)), callbacks, rows))
        runs[-1].train()
    plain, watched = runs
    assert same_weights(plain.model, watched.model)
    probes = table(tmp_path / "2", "probes")
    change = {
        row["type"]: row["log_prob_sum"]
        for row in probes.group_by("type")
        .agg(pl.col("log_prob_sum").last() - pl.col("log_prob_sum").first())
        .to_dicts()
    }
    blocks = table(tmp_path / "2", "budget")["block"]
    assert blocks.str.contains("lora_").all() == (kind == "lora")
    # SFT is on the chosen; DPO parts the two.
    assert change["chosen"] > (change["rejected"] if kind == "dpo" else 0)
    for name in ("entropy", "mean_token_accuracy"):
        numbers = [[row[name] for row in run.state.log_history if name in row] for run in (plain, watched)]
        assert numbers[0] and numbers[0] == numbers[1]


def test_log_probabilities_are_those_of_trl(tmp_path):
    """DPOTrainer logs the same sums of the batch that it trains on: here all pairs, and nothing is learnt."""
    rows = [{name: row[name] for name in row if name != "rephrases"} for row in PAIRS[:4]]
    callbacks = [gradatlas.ResponseProbes(rows, every=1)]
    run = trl("dpo", tmp_path, callbacks, rows, max_steps=1, logging_steps=1, learning_rate=0.0, dropout=0.0,
              per_device_train_batch_size=4)  # fmt: skip
    run.train()
    logged = {name: value for row in run.state.log_history for name, value in row.items()}
    for name in ("chosen", "rejected"):
        assert logged[f"gradatlas/log_prob_{name}"] == pytest.approx(logged[f"logps/{name}"], rel=1e-4)


# --- Several processes ---


def of_two(folder, processes):
    """A training in one of two processes; then a model whose parameters are divided."""
    run = trainer(folder / "two", both(), per_device_train_batch_size=1)
    run.train()
    if processes.is_main:
        torch.save(run.model.state_dict(), folder / "watched.pt")
    plain = trainer(folder / "plain", [], per_device_train_batch_size=1)
    plain.train()
    if processes.is_main:
        torch.save(plain.model.state_dict(), folder / "plain.pt")
    from torch.distributed.fsdp import fully_shard

    divided = network()
    fully_shard(divided)
    found = {"world": torch.distributed.get_world_size()}
    for name, model, callback in (
        ("divided", divided, gradatlas.GradientSpectra(PROBES)),
        ("failed", network(), gradatlas.ResponseProbes([{"text": ""}])),
    ):
        run = trainer(folder / name, [callback])
        try:
            callback.on_train_begin(
                run.args, run.state, run.control, model=model, processing_class=run.processing_class
            )
        except InputError as error:
            found[name] = str(error)
    (folder / f"{processes.rank}.json").write_text(json.dumps(found))


@pytest.mark.slow
def test_one_of_two_processes_measures(trained, tmp_path):
    launch(of_two, tmp_path, 2, "cpu")
    watched, plain = (torch.load(tmp_path / f"{name}.pt") for name in ("watched", "plain"))
    assert all(torch.equal(watched[name], plain[name]) for name in plain)
    assert table(tmp_path / "two", "budget")["step"].unique().to_list() == [2, 4]
    for name in ("spectra", "probes"):
        found = table(tmp_path / "two", name)
        assert found["step"].unique().to_list() == [0, 2, 4]
        assert found.filter(step=0).equals(table(trained[0], name).filter(step=0))
    for rank in (0, 1):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["world"] == 2 and "divided among processes (FSDP" in found["divided"]
        assert "none of 1 responses can be measured" in found["failed"]


# --- What is drawn of them ---


def test_watch_draws_all_tables(trained):
    folder = trained[0]
    done = call("watch", folder, "--formats", "vl.json", "svg")
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines == [str(folder / f"gradatlas/{name}.{kind}") for name in TABLES for kind in ("vl.json", "svg")]
    chart = json.loads((folder / "gradatlas/spectra.vl.json").read_text())
    rows = [row for data in chart["datasets"].values() for row in data]
    assert {row["step"] for row in rows} == {0, 2, 4} and len(chart["concat"]) == 4 * 4
    assert "Likeliest token" in (folder / "gradatlas/probes.svg").read_text()
    drawn = json.loads((folder / "gradatlas/budget.vl.json").read_text())
    points = [row for data in drawn["datasets"].values() for row in data if row.get("series") == "sum over blocks"]
    found = table(folder, "budget").filter(type="chosen")
    total = found["predicted"].sum() / 3
    assert [len(part["concat"]) for part in drawn["vconcat"]] == [4, 2]
    assert any(row["step"] == 4 and row["value"] == pytest.approx(total, rel=1e-4) for row in points)


def test_watch_needs_a_table(tmp_path):
    assert "has no spectra.parquet or probes.parquet" in user_error(call("watch", tmp_path))


def test_errors_are_one_line(tmp_path):
    with pytest.raises(InputError, match="every: 0 is not a number"):
        gradatlas.GradientSpectra(PROBES, every=0)
    with pytest.raises(InputError, match="rephrases is no dict"):
        trainer(tmp_path, [gradatlas.ResponseProbes([{**PAIRS[0], "rephrases": "It is 4"}])]).train()
    run = trainer(tmp_path, [gradatlas.GradientSpectra(PROBES)])
    run.callback_handler.processing_class = None
    with pytest.raises(InputError, match="no processing_class; give tokenizer="):
        run.train()
