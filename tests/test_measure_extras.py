"""The tables that a gradients job writes when asked, and how a loss is spread, against the plain way."""

import os

import polars as pl
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import starts
from conftest import ROOT, user_error
from gradatlas.core.tables import read_metadata
from gradatlas.gradients.capture import Pass
from gradatlas.gradients.extras import Extras
from gradatlas.gradients.plan import Row, read_rows
from gradatlas.models.tokens import Encoder
from test_measure import counts, measure

KEY = ["model", "dataset", "sample_id", "variant", "relation", "loss_tokens"]
NAMES = ("singular_values", "cosines", "tokens")


@pytest.fixture(scope="module")
def few(responses, tmp_path_factory):
    """The correct responses of two questions: six rows."""
    path = tmp_path_factory.mktemp("few") / "mini_arithmetic.parquet"
    table = pl.read_parquet(responses).filter(pl.col("relation") == "correct")
    ids = table["sample_id"].unique(maintain_order=True)[:2].implode()
    table.filter(pl.col("sample_id").is_in(ids)).write_parquet(path)
    return path


def asked(folder, names=NAMES, first=1):
    options = [f"--{name.replace('_', '-')}={folder / name}.parquet" for name in names]
    return options + ([f"--tokens-first={first}"] if "tokens" in names else [])


def run(model, responses, folder, *options):
    done = measure(model, responses, folder, "--dtype", "float64", *options)
    return counts(done)


def read(folder, name):
    return pl.read_parquet(folder / f"{name}.parquet")


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


@pytest.fixture(scope="module")
def measured(miniature, few, tmp_path_factory):
    """All tables of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("measured")
    assert run(miniature, few, folder, *asked(folder)) == (6, 0)
    return folder


@pytest.fixture(scope="module")
def plainly(miniature, few):
    """By row: what the model reads, autograd's weight gradients, [layer][projection], the losses of the response's
    tokens, and by layer and projection the norm of each token's input times that of its output gradient."""
    model = AutoModelForCausalLM.from_pretrained(miniature, dtype=torch.float64).eval()
    modules = [getattr(layer.self_attn, f"{name}_proj") for layer in model.model.layers for name in "qkvo"]
    seen = {}
    for module in modules:
        module.register_forward_hook(lambda module, args, output: seen.__setitem__(module, (args[0], output)))
        module.register_forward_hook(lambda module, args, output: output.retain_grad())
    encoder = Encoder(AutoTokenizer.from_pretrained(miniature), chat=False, max_length=1024)
    found = []
    for row in read_rows(few):
        one = encoder.encode(row.instruction, row.response)
        ids, counted = torch.tensor([one.ids]), torch.tensor(one.response[1:])
        model.zero_grad()
        logits = model(input_ids=ids).logits[0, :-1]
        losses = -logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0][counted]
        losses.mean().backward()
        layers = [
            {name: getattr(layer.self_attn, f"{name}_proj").weight.grad.clone() for name in "qkvo"}
            for layer in model.model.layers
        ]
        terms = [x[0].detach().norm(dim=-1) * y.grad[0].norm(dim=-1) for x, y in map(seen.get, modules)]
        found.append((row, one, layers, losses.detach(), torch.stack(terms)))
    return found


def test_whole_spectra_are_those_of_autograds_gradients(measured, plainly):
    table = read(measured, "singular_values")
    assert table.schema == {
        **dict.fromkeys(KEY, pl.String),
        "layer": pl.Int16,
        "projection": pl.String,
        "singular_values": pl.List(pl.Float64),
    }
    rows = iter(table.iter_rows(named=True))
    for _, one, layers, *_ in plainly:
        for number, layer in enumerate(layers):
            for name, gradient in layer.items():
                row = next(rows)
                assert (row["layer"], row["projection"]) == (number, name)
                ours = torch.tensor(row["singular_values"], dtype=torch.float64)
                expected = torch.linalg.svdvals(gradient)
                assert len(ours) == min(len(one.ids), *gradient.shape)
                assert torch.allclose(ours, expected[: len(ours)], rtol=1e-6, atol=1e-10 * float(expected[0]))
                assert not len(expected) > len(ours) or expected[len(ours)] < 1e-10 * expected[0]
    assert next(rows, None) is None
    spectra = read(measured, "spectra")
    assert (table["singular_values"].list.sum() / spectra["nuclear_norm"] - 1).abs().max() < 1e-12


def test_cosines_are_those_of_autograds_gradients(measured, plainly):
    table = read(measured, "cosines")
    assert table.schema == {
        **dict.fromkeys(KEY, pl.String),
        "kind": pl.String,
        "pair": pl.String,
        "layer": pl.Int16,
        "cosine": pl.Float64,
    }
    expected = []
    for _, _, layers, *_ in plainly:
        for one, other in ("qo", "kv"):
            expected += [(f"{one}-{other}", i, layer[one], layer[other]) for i, layer in enumerate(layers)]
        for name in "qkvo":
            expected += [(name, i, layers[i][name], layers[i + 1][name]) for i in range(len(layers) - 1)]
    assert table.select("pair", "layer").rows() == [row[:2] for row in expected]
    for ours, (pair, _, one, other) in zip(table["cosine"], expected, strict=True):
        if one.norm() * other.norm() > 1e-20:
            theirs = float((one * other).sum() / one.norm() / other.norm())
            assert ours == pytest.approx(theirs, rel=1e-8, abs=1e-9), pair


def test_tokens_have_their_losses_and_the_norms_of_their_terms(measured, plainly, miniature, few):
    table = read(measured, "tokens")
    assert table.schema == {
        **dict.fromkeys(KEY, pl.String),
        "position": pl.Int32,
        "token_id": pl.Int32,
        "token": pl.String,
        "loss": pl.Float64,
        "layer": pl.Int16,
        "projection": pl.String,
        "term_norm": pl.Float64,
    }
    spectra = read(measured, "spectra")
    first = spectra["sample_id"][0]
    assert table["sample_id"].unique().to_list() == [first]
    assert read_metadata(measured / "tokens.parquet")["tokens_of"] == [first]
    tokenizer = AutoTokenizer.from_pretrained(miniature)
    firsts = [each for each in plainly if each[0].sample_id == first]
    assert len(firsts) == 3
    for row, one, layers, losses, terms in firsts:
        own = table.filter(pl.col("variant") == row.variant)
        tokens = own.unique("position", maintain_order=True)
        assert tokens["token_id"].to_list() == list(one.ids)
        assert tokens["token"].to_list() == tokenizer.convert_ids_to_tokens(list(one.ids))
        assert tokens["loss"].is_not_null().to_list() == [False, *one.response[1:]]
        assert tokens["loss"].drop_nulls().to_list() == pytest.approx(losses.tolist(), rel=1e-9)
        assert own.height == len(one.ids) * len(layers) * 4
        assert own["term_norm"].to_list() == pytest.approx(terms.T.flatten().tolist(), rel=1e-8, abs=1e-13)
        # Terms bound the nuclear norm, and do not add up to it.
        sums = own.group_by("layer", "projection", maintain_order=True).agg(pl.col("term_norm").sum())["term_norm"]
        norms = spectra.filter((pl.col("sample_id") == first) & (pl.col("variant") == row.variant))["nuclear_norm"]
        assert (norms <= sums * (1 + 1e-9)).all() and (norms < 0.99 * sums).any()


def test_a_tokens_term_is_the_gradient_where_it_is_the_only_one(miniature, tmp_path):
    """One response token, layer by layer from the top: O of the last layer gets a term at the position before alone."""
    (tmp_path / "rows.json").write_text('[{"instruction": "Say it.", "input": "", "output": "it"}]')
    run(miniature, tmp_path / "rows.json", tmp_path, *asked(tmp_path))
    last = read(tmp_path, "tokens").filter((pl.col("layer") == 5) & (pl.col("projection") == "o"))
    assert last.filter(pl.col("term_norm") > 0).height == 1
    norm = read(tmp_path, "spectra").filter((pl.col("layer") == 5) & (pl.col("projection") == "o"))["nuclear_norm"]
    assert last["term_norm"].sum() == pytest.approx(norm[0], rel=1e-9)


def test_loss_concentration_is_the_participation_of_the_tokens(measured, plainly, miniature, few, tmp_path):
    samples = read(measured, "samples")
    assert samples.columns[6:9] == ["loss", "loss_concentration", "prompt_tokens"]
    for ours, n, (_, _, _, losses, _) in zip(
        samples["loss_concentration"], samples["response_tokens"], plainly, strict=True
    ):
        theirs = float(losses.sum() ** 2 / (len(losses) * (losses**2).sum()))
        assert ours == pytest.approx(theirs, rel=1e-9) and 1 / n <= ours <= 1
    # Of the tokens that the loss is taken over; a sum is spread as its mean is.
    options = ("--loss-tokens", "all", "last", "--loss-norm", "sum")
    run(miniature, few, tmp_path, *options)
    again = read(tmp_path, "samples")
    assert again.filter(pl.col("loss_tokens") == "last")["loss_concentration"].to_list() == pytest.approx([1] * 6)
    whole = again.filter(pl.col("loss_tokens") == "all")["loss_concentration"]
    assert whole.to_list() == pytest.approx(samples["loss_concentration"].to_list(), rel=1e-9)
    run(miniature, few, tmp_path, "--max-length", 4)
    assert read(tmp_path, "samples")["loss_concentration"].is_null().all()


def test_concentration_from_literal_losses():
    def spread(losses):
        return Pass(0.0, losses, {}).loss_concentration

    assert spread(torch.tensor([2.0, 2.0, 2.0, 2.0])) == 1
    assert spread(torch.tensor([0.0, 0.0, 3.0, 0.0])) == 0.25
    assert spread(torch.tensor([1.0, 3.0])) == pytest.approx(16 / 20)
    assert spread(torch.zeros(3)) is None


def test_what_is_asked_for_beside_changes_neither_samples_nor_spectra(measured, miniature, few, tmp_path):
    assert run(miniature, few, tmp_path) == (6, 0)
    assert files(tmp_path).items() < files(measured).items()


def test_resumed_tables_are_byte_identical(measured, miniature, few, tmp_path):
    """A run that stopped after two samples left these in the journal; all numbers of the extras are in it too."""
    journal = ("--journal", tmp_path / "journal", "--batch-tokens", 64)
    (tmp_path / "once").mkdir()
    assert run(miniature, few, tmp_path / "once", *asked(tmp_path / "once"), "--batch-tokens", 64) == (6, 0)
    assert run(miniature, few, tmp_path, *asked(tmp_path), *journal, "--limit", 1) == (3, 0)
    assert run(miniature, few, tmp_path, *asked(tmp_path), *journal) == (3, 3)
    assert run(miniature, few, tmp_path, *asked(tmp_path), *journal) == (0, 6)
    assert files(tmp_path) == files(tmp_path / "once")


def test_a_journal_without_extras_does_not_pass_for_one_with_them(miniature, few, tmp_path):
    journal = ("--journal", tmp_path / "journal")
    assert run(miniature, few, tmp_path, *journal) == (6, 0)
    # One more sample with tokens: the others' records stay good.
    assert run(miniature, few, tmp_path, *journal, *asked(tmp_path, ["tokens"])) == (3, 3)
    assert run(miniature, few, tmp_path, *journal, *asked(tmp_path, ["tokens"], 2)) == (3, 3)
    assert run(miniature, few, tmp_path, *journal, *asked(tmp_path, ["cosines"])) == (6, 0)


def test_samples_are_chosen_by_id(miniature, few, tmp_path):
    ids = pl.read_parquet(few)["sample_id"].unique(maintain_order=True).to_list()
    table = f"--tokens={tmp_path / 'tokens.parquet'}"
    run(miniature, few, tmp_path, table, f"--tokens-of={ids[1]}", "--projections", "o")
    assert read(tmp_path, "tokens").select("sample_id", "projection").unique().rows() == [(ids[1], "o")]
    run(miniature, few, tmp_path, table, "--tokens-first=0")
    assert read(tmp_path, "tokens").height == 0
    run(miniature, few, tmp_path, table, f"--tokens-of={ids[1]}", f"--tokens-of={ids[0]}", "--projections", "o")
    assert set(read(tmp_path, "tokens")["sample_id"]) == set(ids)


def test_an_id_may_hold_a_comma():
    rows = [Row("d", name, "natural", "correct", "", "") for name in ("a", "b", "a,b", "c,d")]
    extras = [Extras(tokens="t", tokens_of=names) for names in (["a,b"], ["b", "a"], ["c,d", "a"])]
    assert [each.chosen(rows) for each in extras] == [{"a,b"}, {"a", "b"}, {"c,d", "a"}]


def test_a_sample_that_was_not_measured_has_no_rows(miniature, few, tmp_path):
    run(miniature, few, tmp_path, *asked(tmp_path), "--max-length", 4)
    assert [read(tmp_path, name).height for name in NAMES] == [0, 0, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tokens", "{out}/t.parquet"], "--tokens: which samples? give one of --tokens-of ID and --tokens-first N"),
        (
            ["--tokens", "{out}/t.parquet", "--tokens-first", 1, "--tokens-of", "a"],
            "--tokens: which samples? give one of",
        ),
        (["--tokens-first", 1], "choose samples for --tokens; give --tokens OUT too"),
        (["--tokens", "{out}/t.parquet", "--tokens-first", -1], "--tokens-first is -1; give 0 or more"),
        (["--tokens", "{out}/t.parquet", "--tokens-of", "nobody"], "no sample 'nobody' among the 2 measured"),
        (["--cosines", "{out}/spectra.parquet"], "--spectra and --cosines are both"),
    ],
    ids=str,
)
def test_bad_options_are_one_line(options, message, miniature, few, tmp_path):
    assert message in user_error(measure(miniature, few, tmp_path, *[str(o).format(out=tmp_path) for o in options]))
    assert not list(tmp_path.iterdir())


def test_a_journal_of_the_earlier_form_is_passed_over_and_set_aside(miniature, few, tmp_path):
    """Its keys depend on earlier code: it holds nothing that is asked for."""
    from gradatlas.gradients import journal as module

    (tmp_path / "journal").mkdir()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.schema([("key", pa.string())])) as writer:
        writer.write_batch(pa.record_batch([pa.array(["old"])], names=["key"]))
    body = sink.getvalue().to_pybytes()
    fields = module._FIELDS.pack(b"GAJ1", len(body), module._digest(body))
    (tmp_path / "journal/old.frames").write_bytes(fields + module._digest(fields) + body)
    assert run(miniature, few, tmp_path, "--journal", tmp_path / "journal") == (6, 0)
    assert (tmp_path / "journal/earlier/old.frames").exists()


def test_the_rule_makes_what_the_config_asks_for(tmp_path):
    def planned(*config):
        words = [
            "--snakefile", ROOT / "Snakefile", "-n", "-p", "--cores", 1, "--configfile", ROOT / "config/config.yaml",
            "--config", "models=[mini]", *config, "--", "gradients",
        ]  # fmt: skip
        done = starts.snakemake(tmp_path, words, {**os.environ})
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    text = planned()
    assert "--tokens" not in text and not any(f".{name}.parquet" in text for name in NAMES)
    table = "results/gradients/mini/mini_popular"
    text = planned("cosines=true", 'tokens={mini_popular: ["a b", "-1"]}')
    assert f"--cosines {table}.cosines.parquet --tokens {table}.tokens.parquet '--tokens-of=a b' --tokens-of=-1" in text
    assert "mini_unpopular.tokens.parquet --tokens-first=0" in text and "singular_values" not in text
