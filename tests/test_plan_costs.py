"""The formulas of cost: against counts by torch, closed forms, and jobs that were measured."""

import csv
import json
import statistics
import sys
from dataclasses import replace

import pytest

from benchmarks.memory import DYNAMICS
from conftest import ROOT, command, peak_of, settings
from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_table
from gradatlas.gradients.tables import SAMPLES
from gradatlas.planning import costs, resources, scale, throughput
from gradatlas.planning.known import Model, known_model
from gradatlas.planning.shapes import Shape, of_config, of_text
from gradatlas.planning.work import gradient_load
from gradatlas.study.config import read_study
from test_docs_numbers import table_of
from test_plan import DEFAULT, SHEET

MEASURED = list(csv.DictReader((ROOT / "benchmarks/results/memory.csv").open()))
ALL = ("q", "k", "v", "o")


def square(width, layers=4, feedforward=0, vocabulary=32_000, tied=False, head=64):
    heads = width // head
    return Shape(layers, width, feedforward, heads, heads, head, vocabulary, 0, "float32", tied)


def test_flop_of_a_pass_are_those_that_torch_counts():
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import LlamaConfig, LlamaForCausalLM

    from gradatlas.gradients.capture import Capture
    from gradatlas.models.tokens import Encoded

    config = LlamaConfig(
        hidden_size=256, intermediate_size=688, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=1000, tie_word_embeddings=False, attn_implementation="eager",
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    capture = Capture(model, ALL)
    for tokens in (32, 256):
        with FlopCounterMode(display=False) as counter:
            # All tokens but the first are the response, so that the output layer reads them all.
            capture.run([Encoded(tuple(range(tokens)), (False, *[True] * (tokens - 1)), False)] * 2)
        shape = of_config(config.to_dict())
        count = costs.pass_flop(sum(each.numel() for each in model.parameters()), shape, {tokens: 2})
        # Neither counts norms and softmax.
        assert counter.get_total_flops() == pytest.approx(count, rel=0.02)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(("width", "tokens"), [(1024, 128), (2048, 512)])
def test_flop_of_spectra_are_those_of_the_readme(width, tokens):
    """gradients/README.md, Cost: full heads, fewer tokens than columns."""
    core, entries = costs.spectra_flop(square(width, layers=1), {tokens: 3}, ALL)
    added = 3.6 * tokens**2 * width + tokens**3 / 3 * 2 + 8 * tokens**3 + 4 / 3 * tokens**3 * 4
    assert core == pytest.approx(3 * 2 * added) and entries == 3 * 2 * 4 * tokens * width**2


def test_more_tokens_than_columns_cost_a_smaller_eigenvalue_problem():
    grouped = Shape(1, 1024, 0, 16, 2, 64, 0, 0, "", True)
    less, more = (costs.spectra_flop(grouped, {tokens: 1}, ["k"])[0] for tokens in (512, 1024))
    assert costs.spectra_flop(grouped, {512: 1}, ["q"])[0] > 2 * less and more < 8 * less


def test_a_cores_rates_are_those_of_the_engines_benchmark():
    passes, spectra = [], []
    with open(ROOT / "benchmarks/results/engine.csv") as file:
        for row in csv.DictReader(file):
            width, layers = int(row["width"]), int(row["layers"])
            shape = square(width, layers, int(2.75 * width))
            parameters = layers * (4 * width**2 + 3 * width * shape.feedforward) + 2 * shape.vocabulary * width
            lengths, cores = {int(row["tokens"]): int(row["batch"])}, int(row["threads"])
            passes.append(costs.pass_flop(parameters, shape, lengths) / float(row["bare_s"]) / cores)
            spent = float(row["without_s"]) - float(row["bare_s"])
            spectra.append(costs.spectra_flop(shape, lengths, ALL)[0] / spent / cores)
    assert statistics.median(passes) / 1e12 == pytest.approx(throughput.CORE.passes, rel=0.005)
    assert statistics.median(spectra) / 1e12 == pytest.approx(throughput.CORE.spectra, rel=0.005)


def gpu_rows(**wanted):
    """The measured engine on a GPU: by shape, tokens, samples, precision and route, its numbers."""
    found = {}
    with open(ROOT / "benchmarks/results/gpu.csv") as file:
        for row in csv.DictReader(file):
            if row["section"] == "engine" and all(row[name] == value for name, value in wanted.items()):
                key = tuple(row[name] for name in ("model", "tokens", "samples", "precision", "route", "code"))
                found.setdefault(key, {})[row["what"]] = float(row["value"])
    return found


SHEET_NAMES = {"Qwen2-1.5B": "qwen2_1_5b", "gemma-2-2b": "gemma2_2b", "Llama-3.1-8B": "llama3_8b"}


def test_a_gpus_rates_are_those_of_its_benchmark():
    passes, spectra = [], []
    for (model, tokens, samples, *_), values in gpu_rows(precision="float32", route="fastest").items():
        row = SHEET[SHEET_NAMES[model]]
        shape, lengths = of_text(row["shape"]), {int(tokens): int(samples)}
        passes.append(costs.pass_flop(row["parameters"], shape, lengths) / values["bare_s"])
        spectra.append(costs.spectra_flop(shape, lengths, ALL)[0] / (values["without_s"] - values["bare_s"]))
    assert statistics.median(passes) / 1e12 == pytest.approx(throughput.GPU.passes, rel=0.005)
    assert statistics.median(spectra) / 1e12 == pytest.approx(throughput.GPU.spectra, rel=0.005)


def test_memory_of_a_gpu_is_within_a_factor_of_two():
    """Of 4 layers, which were measured."""
    measured = gpu_rows()
    assert len(measured) > 10
    for (model, tokens, samples, precision, *_), values in measured.items():
        row, dtype = SHEET[SHEET_NAMES[model]], "float32" if precision == "tf32" else precision
        shape = of_text(row["shape"])
        table = shape.vocabulary * shape.width * (1 if shape.tied else 2)
        weights = costs.weight_bytes(table + (row["parameters"] - table) * 4 / shape.layers, dtype)
        batch = int(tokens) * int(samples)
        work = costs.pass_bytes(replace(shape, layers=4), int(tokens), batch, dtype, ALL)
        assert 0.5 < (weights + work) / (values["with_peak_gib"] * 2**30) < 2


def test_rates_of_the_config_come_first_and_say_so():
    found = throughput.rates({"gpu_pass": 100.0, "gpu_spectra": None, "core_pass": None, "core_spectra": None})
    assert (found["gpu"].passes, found["gpu"].spectra) == (100, throughput.GPU.spectra)
    assert found["gpu"].source == f"config key throughput; {throughput.GPU.source}"
    assert found["core"] == throughput.CORE


def test_the_tables_of_the_page_are_those_of_the_formulas():
    for rows in scale.TABLES:
        table = scale.markdown(rows())
        assert table_of(ROOT / "docs/scale.md", table[0].split(" | ")[0].strip("| ")) == table
    sheet = {row["parameters"]: of_text(row["shape"]) for row in SHEET.values() if row["shape"]}
    for parameters, shape in scale.MODELS.values():
        assert sheet.get(parameters, shape) == shape


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: f"{row['job']}-{row['width']}")
def test_memory_of_jobs_is_within_a_factor_of_two(row):
    """Measured in whole studies (benchmarks/memory.py), with the batches and windows of their config."""
    sizes = [int(row[name]) for name in ("width", "layers", "feedforward", "vocabulary")]
    model = Model(SHEET["mini"], int(row["parameters"]), square(*sizes, head=min(64, sizes[0] // 4)), None, True)
    config = {"max_length": 512, "projections": ALL, "batch_tokens": 4096}
    # The window of finetuning is the benchmark's: its texts nearly fill it.
    config["dynamics"] = {"max_length": DYNAMICS["max_length"], "processes": 1}
    jobs = {
        "finetune": {"runs": [{"batch_size": 4, "loss": "dpo"}]},
        "check-step": {"runs": [{"batch_size": 1, "loss": "dpo"}], "dtype": "float64"},
    }
    given = {"runs": [], **jobs.get(row["job"], {"work": resources.Work({512: 24}, ALL)})}
    asked = resources.memory_mb([model], config, config, 4096, on_gpu=lambda row: False, **given)
    # Snakemake's own processes were not measured.
    assert 1 < (asked - resources.SNAKEMAKE / 1e6) / int(row["peak_mb"]) < 2


@pytest.fixture(scope="module")
def job(miniature, responses, tmp_path_factory):
    """A job of gradients in a process of its own: its folder, peak memory in bytes, and its samples table."""
    folder = tmp_path_factory.mktemp("job")
    (folder / "results/responses").mkdir(parents=True)
    (folder / "results/responses/mini_arithmetic.parquet").write_bytes(responses.read_bytes())
    outputs = [f"--{name}={folder / name}.parquet" for name in ("samples", "spectra")]
    whole = [
        sys.executable,
        *command("measure_gradients"),
        f"--model={miniature}",
        f"--responses={responses}",
        *outputs,
    ]
    whole += settings(device="cpu", relations=["correct", "derangement"], limit=6, limit_seed=0, seed=0)
    return folder, peak_of(whole), read_table(SAMPLES, folder / "samples.parquet").to_pylist()


def test_the_plan_counts_the_samples_and_tokens_of_the_job(job, miniature, monkeypatch):
    folder, _, samples = job
    config = DEFAULT | {"models": ["mini_random"], "datasets": ["mini_arithmetic"], "samples": 6, "controls": "none"}
    study = read_study(config | {"relations": ["correct", "derangement"], "dynamics": {"runs": []}}, ROOT)
    monkeypatch.chdir(folder)
    model = known_model(study.models["mini_random"])
    load = gradient_load(study, model, "mini_arithmetic")
    assert load.rows == len(samples) and not load.bound
    distinct = {(row["sample_id"], row["variant"], row["relation"]) for row in samples}
    assert len(distinct) == len(samples)
    # Equal responses of two relations are measured once.
    tokens = sum(row["prompt_tokens"] + row["response_tokens"] for row in samples)
    assert 0.8 * tokens < load.tokens <= tokens
    # Without a tokenizer a byte may be a token; without the table a sample may fill the window.
    bounds = [gradient_load(study, model, "mini_arithmetic", bytes_per_token=1)]
    (folder / "results/responses/mini_arithmetic.parquet").rename(folder / "away")
    bounds.append(gradient_load(study, model, "mini_arithmetic"))
    (folder / "away").rename(folder / "results/responses/mini_arithmetic.parquet")
    assert all(bound.bound and bound.rows == load.rows for bound in bounds)
    assert load.tokens < bounds[0].tokens < bounds[1].tokens == load.rows * 1024


def test_memory_of_a_job_that_runs_now(job, miniature):
    _, peak, _ = job
    model = known_model({**SHEET["mini_random"], "source": str(miniature)})
    config = {"max_length": 1024, "projections": list(ALL), "batch_tokens": 4096}
    asked = resources.memory_mb([model], config, config, 4096, [], lambda row: False) * 1e6
    assert 0.5 < (asked - resources.SNAKEMAKE) / peak < 2


def test_more_of_anything_asks_for_more():
    model = known_model(SHEET["llama3_8b"])
    config = {"max_length": 1024, "projections": list(ALL), "batch_tokens": 4096}

    def asked(row=None, batch=4096, on_gpu=False, **changed):
        here = known_model({**model.row, **(row or {})})
        section = config | changed
        return resources.memory_mb([here], section, section, batch, [], lambda row: on_gpu)

    least = asked()
    assert (
        asked(batch=8192) > least > asked(batch=1024) > asked(on_gpu=True) > asked({"dtype": "bfloat16"}, on_gpu=True)
    )
    assert asked({"quantise": "4bit"}, on_gpu=True) < asked({"quantise": "8bit"}, on_gpu=True)
    assert asked(batch=512, max_length=8192) > asked(batch=512)
    # Unknown: three copies of no weights, and the libraries.
    unknown = resources.HEADROOM * (costs.LIBRARIES + costs.CUDA) + resources.SNAKEMAKE
    assert asked({"shape": "", "parameters": None}) == round(unknown / 1e6)


def test_time_limits_follow_from_the_work():
    model = known_model(SHEET["llama3_8b"])
    few, many = (resources.Work({512: count}, ALL) for count in (10, 10_000))
    limits = [resources.minutes_of(model, few, throughput.GPU, 1), resources.minutes_of(model, many, throughput.GPU, 1)]
    assert limits[0] == 30 and 30 < resources.minutes_of(model, many, throughput.CORE, 16) != limits[1] > 200
    assert limits[1] % 10 == 0
    unknown = known_model(SHEET["llama3_8b"] | {"shape": ""})
    assert resources.minutes_of(unknown, many, throughput.GPU, 1) == resources.UNKNOWN


def test_a_card_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "card.json").write_text(json.dumps({"model": "m"}))
    with pytest.raises(InputError, match=r"card\.json"):
        known_model(SHEET["llama3_8b"], card=tmp_path / "card.json")
