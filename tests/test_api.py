"""The package from Python: what importing costs, and measurements of a model in memory, which stays as it was."""

import subprocess
import sys
from contextlib import contextmanager, nullcontext

import datasets
import numpy as np
import peft
import polars as pl
import pytest
import torch
import transformers

import gradatlas
from conftest import ROOT
from gradatlas.api import live
from gradatlas.core.errors import InputError
from gradatlas.data.training.read import rows_of
from gradatlas.kernels.one_step import load_exactly
from gradatlas.models.conversations import ConversationEncoder
from gradatlas.study.settings import METRICS, Prompting, Reading

MODEL = ROOT / "resources/miniature/instruct"
ROWS = [
    {"prompt": "What is 2 + 3?\n", "completion": "5"},
    {"prompt": "Name a fruit.\n", "completion": "A pear is a fruit, and so is a plum."},
    {"prompt": "Say nothing.\n", "completion": ""},
    {"prompt": "What is 4 + 4?\n", "completion": "4 + 4 = 8"},
]
USABLE = (0, 1, 3)
NAMES = ("q", "k", "v", "o")


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def model():
    return load_exactly(str(MODEL))[0]


def weights(model):
    return [[getattr(layer.self_attn, f"{name}_proj").weight for name in NAMES] for layer in model.model.layers]


@pytest.fixture(scope="module")
def gradients(model, tokenizer):
    """By row, the gradients of all matrices of the mean loss over its completion, by autograd."""
    encoder, found = ConversationEncoder(tokenizer, Prompting(), max_length=1024), {}
    for row in rows_of(ROWS, Reading(), "rows"):
        sample = encoder.encode(row).sample
        if sample is None:
            continue
        ids = torch.tensor([sample.ids])
        targets = ids.masked_fill(~torch.tensor([sample.response]), -100)[0, 1:]
        flat = [weight for layer in weights(model) for weight in layer]
        # The library's own loss would round logits to float32.
        loss = torch.nn.functional.cross_entropy(model(input_ids=ids).logits[0, :-1], targets)
        found[row.number] = torch.autograd.grad(loss, flat)
    return found


def test_importing_is_fast_and_needs_no_torch():
    code = (
        "import sys, time; start = time.process_time(); import gradatlas; dir(gradatlas); "
        "print(time.process_time() - start, *{'torch', 'transformers', 'polars', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, *loaded = done.stdout.split()
    assert float(seconds) < 1 and not loaded


def test_every_public_name_is_found():
    names = {"score", "measure", "inner_products", "GradientSpectra", "ResponseProbes", "Reading"}
    assert names == set(gradatlas.__all__)
    assert set(gradatlas.__all__) <= set(dir(gradatlas))
    assert all(callable(getattr(gradatlas, name)) for name in gradatlas.__all__)
    with pytest.raises(AttributeError, match="no attribute 'mesure'"):
        _ = gradatlas.mesure


def test_spectra_equal_those_of_autograd(model, tokenizer, gradients):
    frame = gradatlas.measure(model, tokenizer, ROWS)
    assert frame.columns[-9:] == list(METRICS)
    for row in USABLE:
        part = frame.filter(row=row)
        assert part["layer"].to_list() == [layer for layer in range(6) for _ in NAMES]
        assert part["projection"].to_list() == list(NAMES) * 6
        for place, gradient in enumerate(gradients[row]):
            sigma = torch.linalg.svdvals(gradient)
            share = sigma / sigma.sum()
            expected = {
                "nuclear_norm": sigma.sum(),
                "sigma_max": sigma[0],
                "frobenius_norm": gradient.norm(),
                "effective_rank": (-torch.special.xlogy(share, share).sum()).exp(),
                "sigma_ratio": sigma[0] / sigma.sum(),
                "mean": gradient.mean(),
                "max": gradient.max(),
            }
            for name, value in expected.items():
                assert part[name][place] == pytest.approx(float(value), rel=1e-8, abs=1e-12), (row, place, name)
    lost = frame.filter(row=2)
    assert lost.height == 1 and lost["status"][0] == "no_response" and lost["reason"][0] and lost["layer"][0] is None


def test_any_form_of_rows_gives_the_same(model, tokenizer):
    expected = gradatlas.measure(model, tokenizer, ROWS, metrics=["frobenius_norm"], batch_tokens=40)
    frames = datasets.Dataset.from_list(ROWS), pl.DataFrame(ROWS), pl.DataFrame(ROWS).to_pandas()
    for rows in frames:
        assert gradatlas.measure(model, tokenizer, rows, metrics=["frobenius_norm"], batch_tokens=40).equals(expected)
    assert expected.columns[-1] == "frobenius_norm" and "nuclear_norm" not in expected.columns
    chats = [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]}
        for row in ROWS
    ]
    same = gradatlas.measure(model, tokenizer, chats, metrics=["frobenius_norm"])
    numbers = [frame["frobenius_norm"].drop_nulls().to_list() for frame in (same, expected)]
    assert len(numbers[0]) == 72 and numbers[0] == pytest.approx(numbers[1], rel=1e-9)


def test_inner_products_equal_autograd(model, tokenizer, gradients):
    flat = {row: torch.cat([each.flatten() for each in part]) for row, part in gradients.items()}
    found = gradatlas.inner_products(model, tokenizer, ROWS, batch_tokens=40)
    assert found.shape == (4, 4) and found.dtype == np.float64
    assert np.isnan(found[2]).all() and np.isnan(found[:, 2]).all()
    for one in USABLE:
        for other in USABLE:
            assert found[one, other] == pytest.approx(float(flat[one] @ flat[other]), rel=1e-9)
    others = gradatlas.inner_products(model, tokenizer, ROWS[:2], ROWS[1:], projections=["q", "v"])
    q_and_v = {row: torch.cat([each.flatten() for each in part[::2]]) for row, part in gradients.items()}
    assert others.shape == (2, 3)
    assert others[0, 2] == pytest.approx(float(q_and_v[0] @ q_and_v[3]), rel=1e-9)


# --- The model stays as it was ---


def state(model):
    """All that a measurement could change, and the tensors themselves."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return (
        [module.training for module in model.modules()],
        [(id(each), each.requires_grad, each.dtype, each.device, id(each.grad)) for each in model.parameters()],
        [[len(getattr(module, name)) for name in hooks] for module in model.modules()],
        [sorted(vars(module)) for module in model.modules()],
        [float(each.double().sum()) for each in (*model.state_dict().values(), *grads(model))],
        torch.random.get_rng_state().tolist(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
    )


def grads(model):
    return [each.grad for each in model.parameters() if each.grad is not None]


def used(kind, tokenizer):
    """A model in the middle of a training: modes, flags and gradients of its own."""
    model = transformers.AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32, attention_dropout=0.3)
    if kind == "adapter":
        config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], lora_dropout=0.2, init_lora_weights=False)
        model = peft.get_peft_model(model, config)
    if kind == "mixed precision":
        import accelerate

        accelerate.state.AcceleratorState._reset_state(True)
        model = accelerate.Accelerator(mixed_precision="bf16", cpu=True).prepare_model(model)
    model.train()
    layers = (model.base_model.model if kind == "adapter" else model).model.layers
    layers[1].eval()
    layers[2].mlp.up_proj.weight.requires_grad_(False)
    ids = torch.tensor([tokenizer("What is 1 + 1?\n2")["input_ids"]])
    model(input_ids=ids, labels=ids).loss.backward()
    return model


@contextmanager
def autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        yield


@pytest.mark.parametrize("kind", ["plain", "adapter", "mixed precision"])
def test_a_used_model_stays_as_it_was(kind, tokenizer, monkeypatch):
    model = used(kind, tokenizer)
    expected = None
    for context in (nullcontext, torch.no_grad, autocast):
        with context():
            before = state(model)
            frame = gradatlas.measure(model, tokenizer, ROWS[:2], metrics=["nuclear_norm"])
            products = gradatlas.inner_products(model, tokenizer, ROWS[:2])
            assert state(model) == before
        # In the precision of the weights, and without dropout, whatever surrounds the call.
        expected = expected if expected is not None else (frame, products)
        assert frame.equals(expected[0]) and (products == expected[1]).all()

    def fail(*given, **more):
        raise RuntimeError("no more")

    before = state(model)
    for place in ("gradatlas.api.live.start", "gradatlas.gradients.capture.run_forward"):
        with monkeypatch.context() as patch, pytest.raises((RuntimeError, InputError), match="no more"):
            patch.setattr(place, fail)
            gradatlas.measure(model, tokenizer, ROWS[:2])
        assert state(model) == before


def test_a_batch_that_does_not_fit_is_halved(model, tokenizer, monkeypatch):
    expected = gradatlas.measure(model, tokenizer, ROWS, metrics=["nuclear_norm"])
    run = live.Capture.run

    def small(self, batch):
        if len(batch) > 1 or len(batch[0].ids) > 30:
            raise torch.OutOfMemoryError
        return run(self, batch)

    monkeypatch.setattr(live.Capture, "run", small)
    found = gradatlas.measure(model, tokenizer, ROWS, metrics=["nuclear_norm"])
    assert dict(found.select("row", "status").iter_rows()) == {
        0: "ok", 1: "out_of_memory", 2: "no_response", 3: "ok",
    }  # fmt: skip
    for row in (0, 3):
        kept = expected.filter(row=row)["nuclear_norm"].to_list()
        assert found.filter(row=row)["nuclear_norm"].to_list() == pytest.approx(kept, rel=1e-9)


def test_errors_are_one_line(model, tokenizer, tmp_path):
    with pytest.raises(InputError, match=r"unknown metric 'norm'; known: all, nuclear_norm"):
        gradatlas.measure(model, tokenizer, ROWS, metrics=["norm"])
    with pytest.raises(InputError, match="rows: give a list of dicts"):
        gradatlas.measure(model, tokenizer, ROWS[0])
    with pytest.raises(InputError, match="none of 1 responses can be measured"):
        gradatlas.measure(model, tokenizer, [ROWS[2]])
    for rows in ([1, 2], [ROWS[0], "text"], 5, None):
        with pytest.raises(InputError, match=r"rows: (row \d is .*, no dict; )?give a list of dicts"):
            gradatlas.inner_products(model, tokenizer, rows)
    for none in (None, "my_model"):
        with pytest.raises(InputError, match=f"tokenizer: {none!r} is none; give tokenizer="):
            gradatlas.measure(model, none, ROWS)
        with pytest.raises(InputError, match=f"tokenizer: {none!r} is none"):
            gradatlas.score(model, ROWS, tokenizer=none)
        with pytest.raises(InputError, match=f"model: {none!r} is no model in memory"):
            gradatlas.measure(none, tokenizer, ROWS)
    with pytest.raises(InputError, match="settings: 'prompt': 'chatt' is not known"):
        gradatlas.measure(model, tokenizer, ROWS, prompt="chatt")
    with pytest.raises(InputError, match=r"reading: unknown key 'grup': .*group"):
        gradatlas.measure(model, tokenizer, ROWS, reading={"grup": "kind"})
    with pytest.raises(InputError, match="reading: 'shape': 'chats' is not known"):
        gradatlas.measure(model, tokenizer, ROWS, reading=gradatlas.Reading(shape="chats"))
    with pytest.raises(InputError, match=r"reading: .*is 'group'"):
        gradatlas.measure(model, tokenizer, ROWS, reading="group")
    with pytest.raises(InputError, match="no setting 'max_lenght'; did you mean 'max_length'"):
        gradatlas.score(model, ROWS, tokenizer=tokenizer, max_lenght=3)
    with pytest.raises(InputError, match="select writes rows to a folder; give output="):
        gradatlas.score(model, ROWS, tokenizer=tokenizer, select="top:1")
    with pytest.raises(InputError, match="--by 'loud': no number of the scores"):
        gradatlas.score(model, ROWS, tokenizer=tokenizer, select="top:1", by="loud", output=tmp_path)


def test_a_text_is_one_name_and_columns_are_named_by_a_dict(model, tokenizer):
    rows = [{"ask": row["prompt"], "answer": row["completion"], "kind": "a"} for row in ROWS]
    names = {"prompt_column": "ask", "response_column": "answer", "group": "kind"}
    one = gradatlas.measure(model, tokenizer, rows, projections="q", metrics="nuclear_norm", reading=names)
    other = gradatlas.measure(
        model, tokenizer, rows, projections=["q"], metrics=["nuclear_norm"], reading=gradatlas.Reading(**names)
    )
    assert one.equals(other) and one.columns[-1] == "nuclear_norm"
    assert set(one["projection"].drop_nulls()) == {"q"} and set(one["group"]) == {"a"}


def test_parameters_that_are_not_whole_are_refused(tokenizer):
    model = used("plain", tokenizer)
    model.lm_head.weight.ds_shape = model.lm_head.weight.shape  # as DeepSpeed ZeRO-3 marks them
    with pytest.raises(InputError, match="divided among processes"):
        gradatlas.measure(model, tokenizer, ROWS)


# --- Scores ---


def test_scores_of_rows_on_a_live_model_equal_those_of_files(tokenizer, tmp_path):
    model = used("plain", tokenizer)
    rows = [{**row, "source": "a" if at else "b", "quality": at} for at, row in enumerate(ROWS)]
    pl.DataFrame(rows).write_ndjson(tmp_path / "mine.jsonl")
    before = state(model)
    found = gradatlas.score(model, rows, tokenizer=tokenizer, group="source")
    assert state(model) == before
    assert found["quality"].to_list() == [0, 1, 2, 3] and found["status"].to_list()[2] == "no_response"
    filed = gradatlas.score(
        str(MODEL), str(tmp_path / "mine.jsonl"), output=tmp_path / "out", group="source", select="top:1", by="loss"
    )
    (selected,) = pl.read_ndjson(tmp_path / "out" / "selected.jsonl").to_dicts()
    assert selected["quality"] == found.filter(pl.col("loss") == found["loss"].max())["quality"].item()
    assert (tmp_path / "out" / "scores.parquet").exists()
    for name in ("loss", "nuclear_norm", "effective_rank", "self_influence", "ifd"):
        values = [frame[name].drop_nulls().to_list() for frame in (found, filed)]
        assert len(values[0]) == 3 and values[0] == pytest.approx(values[1], rel=1e-5), name
    # The exact diagonal of the tangent kernel of the measured matrices.
    products = gradatlas.inner_products(model, tokenizer, rows)
    assert found["self_influence"].to_list()[:2] == pytest.approx(products.diagonal()[:2], rel=1e-4)


def test_a_hub_dataset_is_fetched_at_the_given_commit(model, tokenizer, monkeypatch):
    with pytest.raises(InputError, match="org/rows: a hub dataset is read at one commit"):
        gradatlas.score(model, "org/rows", tokenizer=tokenizer)

    def fetch(dataset, source, name, revision, *given, **more):
        raise InputError(f"{source} at {revision}")

    monkeypatch.setattr("gradatlas.data.tabular.fetch_rows", fetch)
    with pytest.raises(InputError, match="org/rows at abc"):
        gradatlas.score(model, "org/rows", tokenizer=tokenizer, data_revision="abc")
