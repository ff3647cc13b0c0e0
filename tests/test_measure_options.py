"""What a gradients job can be asked for, and what it does with checkpoints and journals that cannot be used."""

import json
import os
import pty
import shutil
import subprocess
import sys
import termios

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

import starts
from conftest import ROOT, call, user_error
from gradatlas.core.tables import read_metadata
from gradatlas.gradients import measure as engine
from gradatlas.gradients.settings import Settings
from gradatlas.gradients.spectra import METRICS
from gradatlas.models.adapted import load_adapted
from test_measure import counts, measure


@pytest.fixture(scope="module")
def few(responses, tmp_path_factory):
    """The correct responses of two questions: six rows."""
    path = tmp_path_factory.mktemp("few") / "mini_arithmetic.parquet"
    table = pl.read_parquet(responses).filter(pl.col("relation") == "correct")
    table.filter(pl.col("sample_id").is_in(table["sample_id"].unique(maintain_order=True)[:2].implode())).write_parquet(
        path
    )
    return path


@pytest.fixture(scope="module")
def plain(miniature, few, tmp_path_factory):
    """Their tables, with nothing asked for."""
    folder = tmp_path_factory.mktemp("plain")
    assert counts(measure(miniature, few, folder)) == (6, 0)
    return read(folder)


def read(folder):
    return tuple(pl.read_parquet(folder / f"{name}.parquet") for name in ("samples", "spectra"))


def run(miniature, few, folder, *options):
    done = measure(miniature, few, folder, *options)
    assert done.returncode == 0, done.stderr
    return read(folder)


def test_drop_leaves_out_what_is_longer_than_the_window(miniature, few, plain, tmp_path):
    lengths = plain[0].select(pl.col("prompt_tokens") + pl.col("response_tokens")).to_series()
    window = int(lengths.median())
    samples, spectra = run(miniature, few, tmp_path, "--max-length", window, "--truncation", "drop")
    assert samples["status"].to_list() == ["truncated" if length > window else "ok" for length in lengths]
    dropped = samples.filter(pl.col("status") == "truncated")
    assert 0 < dropped.height < 6 and dropped["loss"].is_null().all() and dropped["truncated"].all()
    assert spectra.height == (6 - dropped.height) * 24
    assert read_metadata(tmp_path / "samples.parquet")["truncation"] == "drop"


def test_a_dropped_sample_takes_nothing_from_one_with_the_same_tokens(miniature, tmp_path):
    """Cut to the window, the second would be the first."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(miniature)
    texts = ["Say it.", "one two three", "one two three four five"]
    (tmp_path / "rows.json").write_text(
        f'[{{"instruction": "{texts[0]}", "output": "{texts[1]}"}}, {{"instruction": "{texts[0]}", '
        f'"output": "{texts[2]}"}}]'
    )
    window = len(tokenizer(f"{texts[0]}\n{texts[1]}")["input_ids"])
    arguments = (miniature, tmp_path / "rows.json", tmp_path, "--max-length", window, "--truncation")
    assert run(*arguments, "drop")[0]["status"].to_list() == ["ok", "truncated"]
    assert counts(measure(*arguments, "flag")) == (1, 0)


def test_left_keeps_the_response_that_the_window_would_cut(miniature, few, plain, tmp_path):
    window = int(plain[0]["prompt_tokens"].max())
    samples, _ = run(miniature, few, tmp_path, "--max-length", window, "--truncation", "left")
    assert samples["response_tokens"].to_list() == [min(n, window - 1) for n in plain[0]["response_tokens"]]
    assert samples["truncated"].any() and samples["status"].unique().to_list() == ["ok"]


def test_the_date_of_a_dated_prompt_is_reported(miniature, few, tmp_path):
    run(miniature, few, tmp_path, "--limit", 1, "--chat")
    assert read_metadata(tmp_path / "samples.parquet")["chat_date"] == "2024-07-26"
    run(miniature, few, tmp_path, "--limit", 1)
    assert read_metadata(tmp_path / "samples.parquet")["chat_date"] is None


def test_subsets_are_rows_of_their_own(miniature, few, plain, tmp_path):
    names = ["all", "last", "span:0:2", "random:2:0", "random:2:1", "random:matched:0"]
    asked = ["all", "last", "span:0:2", "random:2:2", "random:matched"]
    samples, spectra = run(miniature, few, tmp_path, "--loss-tokens", *asked, "--journal", tmp_path / "journal")
    assert samples["loss_tokens"].to_list() == names * 6
    whole = samples.filter(pl.col("loss_tokens") == "all")
    assert whole.drop("loss").equals(plain[0].drop("loss"))
    assert (whole["loss"] - plain[0]["loss"]).abs().max() < 1e-5
    assert samples["prompt_tokens"].to_list() == [n for n in plain[0]["prompt_tokens"] for _ in names]
    matched = samples.filter(pl.col("loss_tokens") == "random:matched:0")
    none = {row["sample_id"]: row["response_tokens"] for row in plain[0].to_dicts() if row["variant"] == "none"}
    assert matched["response_tokens"].to_list() == [none[sample_id] for sample_id in matched["sample_id"]]
    assert spectra["loss_tokens"].unique(maintain_order=True).to_list() == names
    assert spectra.height == samples.height * 24
    # Another seed draws anew; all, last and the span are found in the journal (some of them the same).
    again = measure(miniature, few, tmp_path, "--loss-tokens", *asked, "--journal", tmp_path / "journal", "--seed", 1)
    assert counts(again)[1] >= 12 and counts(again)[0] > 0


def test_controls_are_measured_beside_the_relations(miniature, responses, tmp_path):
    controls = ["detailed:correct:random:matched:2", "none:derangement:all"]
    options = ("--limit", 2, "--relations", "correct", "--controls", *controls)
    samples, spectra = run(miniature, responses, tmp_path, *options)
    cells = samples.select("variant", "relation", "loss_tokens").unique(maintain_order=True).rows()
    assert sorted(cells) == [
        ("detailed", "correct", "all"),
        ("detailed", "correct", "random:matched:0"),
        ("detailed", "correct", "random:matched:1"),
        ("none", "correct", "all"),
        ("none", "derangement", "all"),
        ("simplified", "correct", "all"),
    ]
    assert samples.height == 2 * len(cells) and spectra.height == samples.height * 24
    assert read_metadata(tmp_path / "samples.parquet")["rows"] == 8
    done = measure(miniature, responses, tmp_path, "--controls", "detailed:all")
    assert "--controls 'detailed:all' is not known; write VARIANT:RELATION:SUBSET" in user_error(done)


def test_a_sum_is_the_mean_times_the_tokens(miniature, few, plain, tmp_path):
    samples, spectra = run(miniature, few, tmp_path, "--loss-norm", "sum")
    times = plain[0]["response_tokens"]
    assert (samples["loss"] / (plain[0]["loss"] * times) - 1).abs().max() < 1e-5
    times = pl.Series([n for n in times for _ in range(24)])
    assert (spectra["nuclear_norm"] / (plain[1]["nuclear_norm"] * times) - 1).abs().max() < 1e-3
    assert read_metadata(tmp_path / "samples.parquet")["loss_norm"] == "sum"


def test_projections_and_metrics_that_are_not_asked_for_are_not_there(miniature, few, plain, tmp_path):
    options = ("--projections", "v", "q", "--metrics", "sigma_max", "nuclear_norm")
    _, spectra = run(miniature, few, tmp_path, *options)
    expected = plain[1].filter(pl.col("projection").is_in(["q", "v"]))
    assert spectra.columns == expected.columns and spectra["projection"].equals(expected["projection"])
    for name in METRICS:
        if name in ("sigma_max", "nuclear_norm"):
            assert (spectra[name] / expected[name] - 1).abs().max() < 1e-6
        else:
            assert spectra[name].is_null().all()
    assert spectra["nuclear_norm_scaled"].count() == spectra.height
    facts = read_metadata(tmp_path / "spectra.parquet")
    assert facts["metrics"] == ["nuclear_norm", "sigma_max"] and facts["projections"] == ["q", "v"]
    assert set(facts["matrix_shapes"]) == {"q", "v"}
    assert run(miniature, few, tmp_path, "--metrics", "sigma_min")[1]["nuclear_norm_scaled"].is_null().all()
    listed = run(miniature, few, tmp_path, "--projections", "v", "q", "--metrics", "sigma_max", "nuclear_norm")[1]
    assert listed.equals(spectra)


def test_the_scaled_nuclear_norm_is_divided_by_the_root_of_the_smaller_dimension(plain):
    smaller = {"q": 128, "k": 64, "v": 64, "o": 128}
    roots = pl.Series([smaller[name] ** 0.5 for name in plain[1]["projection"]])
    assert (plain[1]["nuclear_norm_scaled"] * roots / plain[1]["nuclear_norm"] - 1).abs().max() < 1e-12


def test_the_sigma_ratio_is_a_column_and_null_without_a_gradient(miniature, few, plain, tmp_path):
    spectra = plain[1]
    assert spectra["sigma_ratio"].equals(spectra["sigma_max"] / spectra["nuclear_norm"], check_names=False)

    class Flat(engine.Capture):
        def run(self, batch, normalise):
            passes = super().run(batch, normalise)
            for done in passes:
                done.factors["q"].d.zero_()
            return passes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "Capture", Flat)
        options = ("--journal", tmp_path / "journal")
        _, first = run(miniature, few, tmp_path, *options)
        _, recalled = run(miniature, few, tmp_path, *options)
    assert recalled.equals(first)
    flat = pl.col("projection") == "q"
    assert first.filter(flat)["sigma_ratio"].null_count() == 6 * 6 and first["sigma_ratio"].is_nan().sum() == 0
    assert first.filter(~flat)["sigma_ratio"].null_count() == 0


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-3), ("bfloat16", 0.3), ("float16", 0.05)], ids=str)
def test_other_precisions(precision, tolerance, miniature, few, plain, tmp_path):
    option = "--dtype"
    samples, spectra = run(miniature, few, tmp_path, option, precision)
    assert samples["status"].unique().to_list() == ["ok"]
    assert (spectra["nuclear_norm"] / plain[1]["nuclear_norm"] - 1).abs().median() < tolerance
    assert not spectra["nuclear_norm"].equals(plain[1]["nuclear_norm"])
    facts = read_metadata(tmp_path / "spectra.parquet")
    assert facts["dtype"] == precision and facts["tf32"] is False


def test_tf32_is_off_unless_asked_for(miniature, few, tmp_path):
    for options, asked in (((), False), (("--tf32",), True), ((), False)):
        run(miniature, few, tmp_path, "--limit", 1, *options)
        assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is asked
        assert read_metadata(tmp_path / "samples.parquet")["tf32"] is asked


def limited(most):
    """A `Capture` that has memory for `most` samples at once."""

    class Limited(engine.Capture):
        batches: list = []  # noqa: RUF012

        def run(self, batch, normalise):
            if len(batch) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            self.batches.append(len(batch))
            return super().run(batch, normalise)

    return Limited


def test_out_of_memory_halves_until_it_fits(miniature, few, plain, tmp_path, monkeypatch):
    capture = limited(2)
    monkeypatch.setattr(engine, "Capture", capture)
    done = measure(miniature, few, tmp_path, "--batch-tokens", 100_000, "--journal", tmp_path / "journal")
    assert counts(done) == (6, 0)
    assert "out of memory on a batch of 6; trying halves of 3" in done.stderr
    assert capture.batches == [1, 2, 1, 2]
    samples, spectra = read(tmp_path)
    assert samples["status"].unique().to_list() == ["ok"]
    assert (spectra["nuclear_norm"] / plain[1]["nuclear_norm"] - 1).abs().max() < 1e-4
    assert counts(measure(miniature, few, tmp_path, "--journal", tmp_path / "journal")) == (0, 6)


def test_what_does_not_fit_alone_has_a_status_and_is_tried_again(miniature, few, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(engine, "Capture", limited(0))
        done = measure(miniature, few, tmp_path, "--journal", tmp_path / "journal")
    assert "out of memory on one sample: " in done.stderr
    samples, spectra = read(tmp_path)
    assert samples["status"].unique().to_list() == ["out_of_memory"] and spectra.height == 0
    assert counts(measure(miniature, few, tmp_path, "--journal", tmp_path / "journal")) == (6, 0)


def broken(fails, error=ValueError):
    """A `Capture` whose passes over the batches that `fails` says end in an error."""

    class Broken(engine.Capture):
        def run(self, batch, normalise):
            if fails(batch):
                raise error("something else")
            return super().run(batch, normalise)

    return Broken


@pytest.mark.parametrize("case", ["one sample", "together", "the device"])
def test_any_other_failure_names_the_sample_and_writes_nothing(case, miniature, few, tmp_path, monkeypatch):
    lengths = {}
    for row in run(miniature, few, tmp_path)[0].to_dicts():
        lengths[f"mini_arithmetic {row['sample_id']} {row['variant']} correct"] = sum(
            row[f"{part}_tokens"] for part in ("prompt", "response")
        )
    culprit = min(lengths, key=lengths.get)
    least = lengths[culprit]
    assert list(lengths.values()).count(least) == 1, "the culprit is found by its length"
    fails, error, message = {
        "one sample": (lambda batch: min(len(one.ids) for one in batch) <= least, ValueError, f"failed on {culprit}: "),
        "together": (lambda batch: len(batch) > 1, ValueError, "failed on these together, on none of them alone: "),
        # After an assertion on a GPU nothing runs there any more: a retry would blame the innocent.
        "the device": (lambda batch: True, torch.AcceleratorError, "failed on one of: "),
    }[case]
    for path in tmp_path.iterdir():
        path.unlink()
    monkeypatch.setattr(engine, "Capture", broken(fails, error))
    paths = [str(tmp_path / name) for name in ("samples.parquet", "spectra.parquet")]
    settings = Settings(device="cpu")
    with pytest.raises(RuntimeError) as caught:
        engine.measure(str(miniature), str(few), *paths, settings)
    text = str(caught.value)
    assert text.startswith(message) and isinstance(caught.value.__cause__, error) and not list(tmp_path.iterdir())
    assert text.count("mini_arithmetic") == (1 if case == "one sample" else 6)


def test_values_that_are_no_numbers_have_a_status(miniature, few, tmp_path, monkeypatch):
    class Overflowing(engine.Capture):
        def run(self, batch, normalise):
            passes = super().run(batch, normalise)
            passes[0].factors["v"].d[0, 0, 0] = float("inf")
            return passes

    monkeypatch.setattr(engine, "Capture", Overflowing)
    samples, spectra = run(miniature, few, tmp_path, "--batch-tokens", 100_000)
    assert sorted(samples["status"]) == ["nonfinite"] + ["ok"] * 5 and spectra.height == 5 * 24
    assert spectra["nuclear_norm"].is_finite().all()


@pytest.mark.slow
def test_a_terminal_shows_a_bar(miniature, few, tmp_path):
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (25, 120))
    command = [
        sys.executable, "-m", "gradatlas", "measure-gradients", "--model", miniature, "--responses", few,
        "--samples", tmp_path / "a.parquet", "--spectra", tmp_path / "b.parquet", "--device", "cpu", "--threads", "1",
    ]  # fmt: skip
    environment = os.environ | starts.warm()
    done = subprocess.run([*map(str, command)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=follower, env=environment)
    os.close(follower)
    shown = b""
    while chunk := _read(leader):
        shown += chunk
    os.close(leader)
    assert done.returncode == 0 and b"6/6" in shown and b"tokens/s, 0 from the journal" in shown


def _read(leader):
    try:
        return os.read(leader, 65536)
    except OSError:  # Linux's end of file, once the other side is closed.
        return b""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--projections", "q,kk,v"], 'Invalid value "q,kk,v" for --projections. Choose from: "q", "k"'),
        (["--metrics"], "settings: 'metrics': [] should be non-empty. Meaning: columns of the spectra"),
        (["--projections", "q", "kk"], '"up", "down". Did you mean "k"?'),
        (["--metrics", "nuclear_nrom"], 'Did you mean "nuclear_norm"?'),
        (["--truncation", "right"], 'Invalid value "right" for --truncation. Choose from: "flag", "drop", "left"'),
        (["--loss-norm", "total"], 'Invalid value "total" for --loss-norm. Choose from: "mean", "sum"'),
        (["--loss-tokens", "first"], "'loss_tokens.0': 'first' does not match"),
        (["--dtype", "float8"], 'Choose from: "float32"'),
        (["--journal", "{few}"], "no folder can be made here"),
        (["--max-length", 1], "'max_length': 1 is less than the minimum of 2. Meaning: window in tokens"),
        (["--loss-tokens", "all", "first"], "'loss_tokens.1': 'first' does not match"),
        (["--revision", "0" * 40], "is a folder, not a hub id; remove --revision"),
    ],
    ids=str,
)
def test_bad_options_are_one_line(options, message, miniature, few, tmp_path):
    options = [str(option).format(few=few) for option in options]
    assert message in user_error(measure(miniature, few, tmp_path, *options))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--compat", "theirs"], 'Invalid value "theirs" for --compat. Choose from: "none", "reference"'),
        (["--truncation", "right"], 'Invalid value "right" for --truncation'),
        (["--dtype", "float8"], 'Invalid value "float8" for --dtype'),
        (["--device", "tpu"], 'Invalid value "tpu" for --device'),
        (["--cosines", "{few}/c.parquet"], "mini_arithmetic.parquet is no folder; give another path"),
        (["--run", "{out}"], "is a folder; give a file"),
        (["--samples", "{out}"], "is a folder; give a file"),
        (["--spectra", "{few}"], "--responses and --spectra are both"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_reported_before_any_work(options, message, few, tmp_path):
    """The model is not even looked for."""
    options = [str(option).format(few=few, out=tmp_path) for option in options]
    assert message in user_error(measure(tmp_path / "no model", few, tmp_path, *options))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_reported_before_any_work(few, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    error = user_error(measure(tmp_path / "no model", few, tmp_path, "--cosines", tmp_path / "closed/new/c.parquet"))
    assert f"no file may be written into {tmp_path}/closed" in error


def test_a_card_whose_files_have_changed_is_refused(miniature, few, tmp_path):
    folder, card, out = tmp_path / "m", tmp_path / "m.json", tmp_path / "out"
    shutil.copytree(miniature, folder)
    out.mkdir()
    arguments = ("--model", "m", "--source", folder, "--output", card)
    assert call("fetch_model", *arguments).returncode == 0
    (folder / "generation_config.json").write_text("{}")
    assert counts(measure(card, few, out)) == (6, 0)
    weights = load_file(folder / "model.safetensors")
    stamp = os.stat(folder / "model.safetensors")
    weights["model.layers.3.self_attn.v_proj.weight"] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    os.utime(folder / "model.safetensors", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    error = user_error(measure(card, few, out))
    assert f"{folder}/model.safetensors: has changed since the card {card} was written; restore the file" in error
    card.unlink()
    assert call("fetch_model", *arguments).returncode == 0
    assert counts(measure(card, few, out)) == (6, 0)
    (folder / "chat_template.jinja").unlink()
    assert "chat_template.jinja: is gone since the card" in user_error(measure(card, few, out))
    assert "is a card, not a hub id; remove --revision" in user_error(measure(card, few, out, "--revision", "0" * 40))


def test_a_mistyped_folder_is_distinguished_from_a_hub_id(few, tmp_path):
    error = user_error(measure("modles/nope", few, tmp_path))
    assert "--model modles/nope: no such folder; if it is a hub id, give --revision COMMIT" in error


def test_a_model_that_says_minus_one_position_has_no_limit(miniature, few, plain, tmp_path, monkeypatch):
    def unlimited(*arguments, **options):
        network, tokenizer = load_adapted(*arguments, **options)
        network.config.max_position_embeddings = -1
        return network, tokenizer

    monkeypatch.setattr(engine, "load_adapted", unlimited)
    run(miniature, few, tmp_path)
    assert read_metadata(tmp_path / "samples.parquet")["window"] == 1024


def test_commas_part_subsets(miniature, few, tmp_path):
    samples, _ = run(miniature, few, tmp_path, "--loss-tokens", "all", "last", "span:0:2", "--limit", 1)
    assert samples["loss_tokens"].to_list() == ["all", "last", "span:0:2"] * 3


def spoil_bert(folder):
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    size = len(AutoTokenizer.from_pretrained(folder))
    sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    BertForMaskedLM(BertConfig(vocab_size=size, **sizes)).save_pretrained(folder)


def spoil_causality(folder):
    """A decoder's class and head over an encoder: it saves, loads and runs without a word."""
    from transformers import AutoTokenizer, BertConfig, BertLMHeadModel

    size = len(AutoTokenizer.from_pretrained(folder))
    sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    BertLMHeadModel(BertConfig(vocab_size=size, is_decoder=False, **sizes)).save_pretrained(folder)


def spoil_heads(folder):
    """Three query heads on two key heads: its weights load, its forward pass fails."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    sizes = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=2, head_dim=8)
    size = len(AutoTokenizer.from_pretrained(folder))
    LlamaForCausalLM(LlamaConfig(vocab_size=size, intermediate_size=32, **sizes)).save_pretrained(folder)


def spoil_vocabulary(folder):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(20)
    model.save_pretrained(folder)


def spoil_tokenizer(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()


def spoil_template(folder):
    (folder / "chat_template.jinja").unlink()


def break_template(folder):
    (folder / "chat_template.jinja").write_text("{% for %}")


def break_config(folder):
    (folder / "config.json").write_text("{")


def change_config(**keys):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))

    return change


def spoil_number(folder):
    """One weight that is no number."""
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.3.self_attn.v_proj.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def cut_weights(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def corrupt_weights(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(b"\xff" * 8 + content[8:])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_bert, "not a causal language model: config.json has BertForMaskedLM; give a decoder-only model"),
        (spoil_causality, "(BertLMHeadModel): not a causal decoder, as earlier positions depend on later ones"),
        (spoil_heads, "(LlamaForCausalLM): a forward pass over 8 x 4 tokens fails (RuntimeError: The size of tensor a"),
        (
            change_config(num_attention_heads=7),
            "config.json: no model can be built from it (StrictDataclassClassValidationError: ",
        ),
        (change_config(num_key_value_heads=0), "config.json: no model can be built from it (ZeroDivisionError"),
        (change_config(num_attention_heads=0), "config.json: 'num_attention_heads' is 0, not a size"),
        (spoil_vocabulary, "embeddings; use the tokenizer that belongs to "),
        (spoil_tokenizer, "tokenizer.json: no tokenizer"),
        (spoil_template, "has no chat template; set kind to 'base' in its row"),
        (break_template, "its chat template fails (TemplateSyntaxError: Expected an expression"),
        (break_config, "config.json: not JSON"),
        (change_config(hidden_size=64), "weight model.embed_tokens.weight is of another shape"),
        (
            change_config(num_hidden_layers=3, layer_types=["full_attention"] * 3),
            "weight model.layers.3.input_layernorm.weight is of a layer that the model does not have",
        ),
        (
            change_config(model_type="own", auto_map={"AutoConfig": "own.A", "AutoModelForCausalLM": "own.B"}),
            "contains custom model code; read it, and to run it set trust_remote_code to true",
        ),
        (spoil_number, "all its outputs are NaN, because of a damaged weight"),
        (cut_weights, "model.safetensors: not a complete safetensors file"),
        (corrupt_weights, "model.safetensors: not a complete safetensors file"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_checkpoint_that_cannot_be_used_is_one_line(spoil, message, miniature, few, tmp_path):
    folder, out = tmp_path / "spoilt", tmp_path / "out"
    shutil.copytree(miniature, folder)
    spoil(folder)
    out.mkdir()
    error = user_error(measure(folder, few, out, "--chat"))
    assert message in error and "spoilt" in error
    assert not list(out.iterdir())


def test_a_smaller_job_leaves_the_larger_ones_work_in_the_journal(miniature, few, tmp_path):
    journal = ("--journal", tmp_path / "journal")
    assert counts(measure(miniature, few, tmp_path, *journal, "--limit", 1)) == (3, 0)
    assert counts(measure(miniature, few, tmp_path, *journal)) == (3, 3)
    assert counts(measure(miniature, few, tmp_path, *journal, "--limit", 1)) == (0, 3)
    assert counts(measure(miniature, few, tmp_path, *journal, "--metrics", "mean")) == (6, 0)
    assert counts(measure(miniature, few, tmp_path, *journal)) == (0, 6)
    assert counts(measure(miniature, few, tmp_path, *journal, "--metrics", "mean")) == (0, 6)


def test_work_of_another_version_of_the_engine_is_set_aside_and_found_again(miniature, few, tmp_path, monkeypatch):
    journal = ("--journal", tmp_path / "journal")
    assert counts(measure(miniature, few, tmp_path, *journal)) == (6, 0)
    monkeypatch.setattr(engine, "code_digest", lambda *names: "another")
    assert counts(measure(miniature, few, tmp_path, *journal)) == (6, 0)
    assert len(list((tmp_path / "journal").glob("*.frames"))) == 1
    monkeypatch.undo()
    assert counts(measure(miniature, few, tmp_path, *journal)) == (0, 6)


def test_an_unreadable_journal_segment_is_named(miniature, few, tmp_path):
    (tmp_path / "journal" / "x.frames").mkdir(parents=True)
    error = user_error(measure(miniature, few, tmp_path, "--journal", tmp_path / "journal"))
    assert "x.frames: cannot be read" in error and "or delete it" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal"]
