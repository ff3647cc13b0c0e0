"""The gradients job as its user runs it: resumed after a kill, after an edit, on bad input, out of memory."""

import json
import re
import shutil
import subprocess
import sys
import time

import polars as pl
import pytest

from conftest import ROOT, call, user_error
from gradatlas.core.tables import read_metadata
from gradatlas.gradients.journal import Journal


def measure(model, responses, folder, *options):
    """Run the job into `folder`; returns the finished call."""
    usual = {"--model": model, "--device": "cpu", "--threads": 1, "--responses": responses}
    usual |= {f"--{name}": folder / f"{name}.parquet" for name in ("samples", "spectra")}
    kept = [each for name, value in usual.items() if name not in options for each in (name, value)]
    return call("measure_gradients", *kept, *options)


def tables(folder):
    return [(folder / name).read_bytes() for name in ("samples.parquet", "spectra.parquet")]


def counts(done):
    """(computed, recalled) from the job's last line."""
    assert done.returncode == 0, done.stderr
    return tuple(map(int, re.search(r"(\d+) computed, (\d+) from the journal", done.stderr).groups()))


@pytest.fixture(scope="module")
def plain(miniature, responses, tmp_path_factory):
    """The tables of an uninterrupted run without a journal."""
    folder = tmp_path_factory.mktemp("plain")
    assert counts(measure(miniature, responses, folder, "--batch-tokens", 256)) == (72, 0)
    return folder


def test_tables_hold_every_row_and_the_facts(plain, responses):
    samples = pl.read_parquet(plain / "samples.parquet")
    spectra = pl.read_parquet(plain / "spectra.parquet")
    assert samples["status"].unique().to_list() == ["ok"]
    assert samples.height == 72 == pl.read_parquet(responses).height
    assert spectra.height == 72 * 6 * 4
    assert spectra["projection"].unique(maintain_order=True).to_list() == ["q", "k", "v", "o"]
    facts = read_metadata(plain / "spectra.parquet")
    assert facts["dtype"] == "float32" and facts["model"] == "mini_random" and len(facts["model_digest"]) == 64
    assert facts["matrix_shapes"]["k"] == [[64, 128]] * 6
    assert not {"time", "host", "seconds"} & set(facts)


def test_kill_and_resume_is_byte_identical(miniature, responses, plain, tmp_path):
    """Kill -9 once some batches are committed: the rerun computes the rest alone, and the bytes are the same."""
    journal = tmp_path / "journal"
    command = [
        sys.executable, "-m", "gradatlas", "measure-gradients", "--model", miniature, "--responses", responses,
        "--samples", tmp_path / "samples.parquet", "--spectra", tmp_path / "spectra.parquet", "--device", "cpu",
        "--threads", "1", "--batch-tokens", "256", "--journal", journal,
    ]  # fmt: skip
    victim = subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=subprocess.DEVNULL)
    while not any(path.stat().st_size > 20_000 for path in journal.glob("*.frames")):
        assert victim.poll() is None, "the job ended before it could be killed"
        time.sleep(0.005)
    victim.kill()
    victim.wait()
    committed = len(Journal(journal).read())
    assert not (tmp_path / "samples.parquet").exists() and not (tmp_path / "spectra.parquet").exists()
    computed, recalled = counts(measure(miniature, responses, tmp_path, "--batch-tokens", 256, "--journal", journal))
    assert recalled == committed > 0 and computed == 72 - committed > 0
    assert tables(tmp_path) == tables(plain)


def test_editing_one_row_recomputes_one_sample(miniature, responses, tmp_path):
    journal = tmp_path / "journal"
    assert counts(measure(miniature, responses, tmp_path, "--journal", journal)) == (72, 0)
    before = pl.read_parquet(tmp_path / "spectra.parquet")
    edited = tmp_path / "edited.parquet"
    table = pl.read_parquet(responses)
    last = table["response"].to_list()
    last[-1] += " Indeed."
    pl.DataFrame(table.with_columns(pl.Series("response", last))).write_parquet(edited)
    assert counts(measure(miniature, edited, tmp_path, "--journal", journal)) == (1, 71)
    after = pl.read_parquet(tmp_path / "spectra.parquet")
    changed = (before["nuclear_norm"] != after["nuclear_norm"]).to_list()
    assert not any(changed[:-24]) and all(changed[-24:])


def test_equal_samples_are_computed_once(miniature, responses, tmp_path):
    table = pl.read_parquet(responses).head(3)
    doubled = pl.concat([table, table.with_columns(pl.lit("published").alias("relation"))])
    doubled.write_parquet(tmp_path / "doubled.parquet")
    done = measure(miniature, tmp_path / "doubled.parquet", tmp_path)
    assert counts(done) == (3, 0)
    losses = pl.read_parquet(tmp_path / "samples.parquet")["loss"]
    assert losses[:3].equals(losses[3:])


def test_a_window_too_small_is_a_status(miniature, responses, plain, tmp_path):
    window = int(pl.read_parquet(plain / "samples.parquet")["prompt_tokens"].median())
    done = measure(miniature, responses, tmp_path, "--max-length", window)
    assert done.returncode == 0, done.stderr
    samples = pl.read_parquet(tmp_path / "samples.parquet")
    by_status = dict(samples.group_by("status").len().iter_rows())
    assert set(by_status) == {"ok", "no_response_tokens"}
    left_out = samples.filter(pl.col("status") == "no_response_tokens")
    assert left_out["truncated"].all() and left_out["response_tokens"].max() == 0 and left_out["loss"].is_null().all()
    # Never a row of zeros: what has no gradient has no spectra.
    assert pl.read_parquet(tmp_path / "spectra.parquet").height == by_status["ok"] * 24


def test_limit_takes_the_first_or_a_seeded_nested_subset(miniature, responses, tmp_path):
    ids = pl.read_parquet(responses)["sample_id"].unique(maintain_order=True).to_list()

    def taken(*options):
        assert measure(miniature, responses, tmp_path, "--journal", tmp_path / "j", *options).returncode == 0
        return pl.read_parquet(tmp_path / "samples.parquet")["sample_id"].unique(maintain_order=True).to_list()

    assert taken("--limit", 2) == ids[:2]
    few, more = taken("--limit", 2, "--limit-seed", 5), taken("--limit", 4, "--limit-seed", 5)
    assert set(few) < set(more) and len(more) == 4


def test_out_of_memory_halves_the_batch_then_gives_a_status(miniature, tmp_path):
    """A real limit on the address space, around each pass: batches split, what fits is measured."""
    rows = [{"instruction": "Say it.", "input": "", "output": "word " * n} for n in (2, 3, 900)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    code = f"""
import resource
from gradatlas.gradients import measure as module

class Limited(module.Capture):
    size = None

    def run(self, batch, normalise):
        # That of the first pass: memory that a failed one gave back must not be added.
        if self.size is None:
            self.size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (self.size + 20_000_000, before[1]))
        try:
            return super().run(batch, normalise)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)

module.Capture = Limited
settings = module.Settings(device="cpu", batch_tokens=100_000)
module.measure({str(miniature)!r}, {str(tmp_path / "rows.json")!r}, {str(tmp_path / "samples.parquet")!r},
               {str(tmp_path / "spectra.parquet")!r}, settings)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "out of memory on a batch of 3" in done.stderr
    assert pl.read_parquet(tmp_path / "samples.parquet")["status"].to_list() == ["ok", "ok", "out_of_memory"]


def test_a_window_beyond_the_models_positions_is_the_models(miniature, responses, plain, tmp_path):
    done = measure(miniature, responses, tmp_path, "--max-length", 4096, "--batch-tokens", 256)
    assert done.returncode == 0 and "texts are cut at 1024 tokens" in done.stderr
    assert read_metadata(tmp_path / "samples.parquet")["window"] == 1024
    assert pl.read_parquet(tmp_path / "spectra.parquet").equals(pl.read_parquet(plain / "spectra.parquet"))


def test_a_checkpoint_with_a_weight_missing_is_refused(miniature, responses, tmp_path):
    """transformers would fill it with random numbers and go on."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "partial"
    shutil.copytree(miniature, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.2.self_attn.q_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    error = user_error(measure(folder, responses, tmp_path))
    assert "model.layers.2.self_attn.q_proj.weight" in error and "missing" in error


BAD_FILES = {
    "empty": (b"", "holds no entries"),
    "not UTF-8": (b'[{"instruction": "\xff"}]', "not UTF-8 at byte 18"),
    "not JSON": (b"[{", "not JSON at line 1"),
    "not a list": (b"{}", "holds a JSON dict"),
    "no entries": (b"[]", "give at least one"),
    "without output": (b'[{"instruction": "a", "output": "b"}, {"instruction": "a"}]', "row 1: 'output' is missing"),
    "empty output": (b'[{"instruction": "a", "output": ""}]', "row 0: 'output' is not a text, or empty"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_responses_are_one_line_that_names_the_place(name, miniature, tmp_path):
    content, message = BAD_FILES[name]
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    error = user_error(measure(miniature, path, tmp_path))
    assert "rows.json" in error and message in error
    assert list(tmp_path.iterdir()) == [path], "something half-written was left behind"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dtype", "float31"], "float31"),
        (["--limit", 0], "'limit': 0 is less than the minimum of 1"),
        (["--compat", "refrence"], 'Choose from: "none", "reference"'),
        (["--device", "tpu"], 'Choose from: "auto", "cpu", "cuda"'),
        (["--threads", 0], "at least 1"),
        (["--model", "no/such/folder"], "no such folder"),
        (["--model", "Qwen/Qwen2-1.5B"], "--revision"),
    ],
    ids=str,
)
def test_bad_options_are_one_line(options, message, miniature, responses, tmp_path):
    error = user_error(measure(miniature, responses, tmp_path, *options))
    assert message in error
    assert not list(tmp_path.iterdir())


def saved(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_model_that_is_not_understood_is_refused_by_name(miniature, responses, tmp_path):
    from transformers import AutoTokenizer, MambaConfig, MambaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(miniature)
    config = MambaConfig(vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=2, state_size=4)
    folder = saved(MambaForCausalLM(config), tokenizer, tmp_path / "mamba")
    error = user_error(measure(folder, responses, tmp_path))
    assert "MambaForCausalLM" in error and "layer 0 (MambaBlock)" in error
    assert "mixer.in_proj (32x8)" in error and "column projections of models.tsv" in error


def test_a_mapping_gives_what_is_found_without_it(miniature, responses, tmp_path):
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(miniature)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=8, n_layer=2, n_head=2, n_positions=1024)
    folder = saved(GPT2LMHeadModel(config), tokenizer, tmp_path / "gpt2")
    tables = []
    mapping = "q=attn.c_attn[0:8] k=attn.c_attn[8:16] v=attn.c_attn[16:24] o=attn.c_proj"
    for options in ((), ("--mapping", mapping)):
        assert measure(folder, responses, tmp_path, *options).returncode == 0
        tables.append(pl.read_parquet(tmp_path / "spectra.parquet"))
        assert read_metadata(tmp_path / "spectra.parquet")["matrix_shapes"]["k"] == [[8, 8]] * 2
    assert tables[0].equals(tables[1]) and tables[0].height == 72 * 2 * 4
    error = user_error(measure(folder, responses, tmp_path, "--mapping", mapping.replace("8:16", "8:26")))
    assert "k=attn.c_attn[8:26]" in error and "24 output features" in error
