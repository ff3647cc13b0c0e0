"""A model and its PEFT adapter as files: merged, or A and B of LoRA as matrices of their own, against autograd."""

import contextlib
import json
import re
import shutil
from pathlib import Path

import peft
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import gradatlas
from conftest import ROOT, call, user_error
from gradatlas.core.errors import InputError
from gradatlas.gradients.capture import Capture
from gradatlas.gradients.spectra import spectra
from gradatlas.models.adapted import load_adapted, locate_adapted
from gradatlas.models.adapter_files import card_of_adapter
from gradatlas.models.adapters import adapter_layers
from gradatlas.models.loading import locate
from gradatlas.page.manifest import manifest
from gradatlas.study.config import read_study
from gradatlas.study.sheets import Weights
from loopback import FakeHub
from test_decoders import BATCH, assert_equals_autograd
from test_fetch import environment, one_line, script
from test_precision import write
from test_study import DEFAULT
from test_workflow import SMOKE, commands, snakemake

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LORA = {"r": 4, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}
KINDS = {
    "lora": peft.LoraConfig(**LORA, lora_dropout=0.1),
    "rslora": peft.LoraConfig(**LORA, use_rslora=True, lora_alpha=2, rank_pattern={"layers.1.*q_proj": 2}),
    "dora": peft.LoraConfig(**{**LORA, "target_modules": LINEAR}, use_dora=True),
    "embeddings": peft.LoraConfig(**{**LORA, "target_modules": ["embed_tokens", "k_proj"]}, modules_to_save=["o_proj"]),
    "ia3": peft.IA3Config(
        target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"], init_ia3_weights=False
    ),
    "lokr": peft.LoKrConfig(r=4, target_modules=LINEAR, init_weights=False),
}
EXACT = {"dtype": "float64"}


@pytest.fixture(scope="module")
def tokenizer(miniature):
    return AutoTokenizer.from_pretrained(miniature)


@pytest.fixture(scope="module")
def base(tokenizer, tmp_path_factory):
    return write(tmp_path_factory.mktemp("base"), tokenizer, tie_word_embeddings=False)


def saved(base, config, folder):
    """The folder of an adapter with random weights, as PEFT saves it, and its model in memory, in float64."""
    torch.manual_seed(1)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "modules_to_save" in name:
                weight.add_(0.1)
    model.save_pretrained(folder)
    return folder, model.double().eval()


@pytest.fixture(scope="module")
def lora(base, tmp_path_factory):
    return saved(base, KINDS["lora"], tmp_path_factory.mktemp("lora"))[0]


def loaded(base, adapter, **weights):
    where, found = locate_adapted(str(base), adapter=str(adapter))
    return load_adapted(where, found, Weights(**{**EXACT, **weights}), device="cpu")[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_adapter_equals_autograd_and_the_adapted_model(base, tmp_path, kind):
    folder, live = saved(base, KINDS[kind], tmp_path / "adapter")
    model = loaded(base, folder)
    assert not adapter_layers(model)
    capture = Capture(model)
    passes = capture.run(BATCH[:2])
    ids = torch.tensor([BATCH[0].ids])
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, live(ids).logits, rtol=1e-8)
        assert not torch.allclose(live(ids).logits, AutoModelForCausalLM.from_pretrained(base).double()(ids).logits)
    assert_equals_autograd(model, capture, passes, BATCH[:2])


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
def test_a_and_b_of_lora_equal_autograd(base, tmp_path, kind):
    folder, live = saved(base, KINDS[kind], tmp_path / "adapter")
    model = loaded(base, folder, lora="separate")
    capture = Capture(model, ("q", "k", "v"), lora="separate")
    passes = capture.run(BATCH[:2])
    assert_equals_autograd(model, capture, passes, BATCH[:2])
    if kind == "dora":
        # Its norm, which PEFT keeps out of the gradient, is not in the product rule below.
        return
    assert capture.projections == ("q", "k", "v", "q.lora_a", "q.lora_b", "v.lora_a", "v.lora_b")
    ranks = {layer["q.lora_a"].shape[0] for layer in capture.layers}
    assert ranks == ({4} if kind == "lora" else {4, 2})
    # The product rule, with the gradient G of W + s B A: s B^T G for A, s G A^T for B.
    layer, part = capture.layers[0], passes[0].factors
    a, b = (layer[f"q.lora_{name}"].module.weight.detach() for name in "ab")
    scale = live.base_model.model.model.layers[0].self_attn.q_proj.scaling["default"]
    whole = part["q"].d[0].mT @ part["q"].x[0]
    assert torch.allclose(part["q.lora_a"].d[0].mT @ part["q.lora_a"].x[0], scale * b.mT @ whole, rtol=1e-8)
    assert torch.allclose(part["q.lora_b"].d[0].mT @ part["q.lora_b"].x[0], scale * whole @ a.mT, rtol=1e-8)
    # The same model merged has the same G.
    merged = Capture(loaded(base, folder), ("q", "k", "v")).run(BATCH[:1])
    assert torch.allclose(
        spectra({name: part[name] for name in "qkv"}, ["nuclear_norm"]),
        spectra(merged[0].factors, ["nuclear_norm"]),
        rtol=1e-7,
    )


def test_both_ways_from_the_command_line(miniature, tmp_path):
    """Tables and journal name the adapter; scores of a separate one are those of A and B alone."""
    folder, _ = saved(miniature, KINDS["lora"], tmp_path / "adapter")
    folder = edited(folder, tmp_path / "named", base_model_name_or_path="org/base")
    rows = [{"instruction": f"{n} + 2 =", "input": "", "output": str(n + 2)} for n in range(3)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    card = tmp_path / "card.json"
    done = call("fetch_model", "--model", "mine", "--source", miniature, "--adapter", folder, "--output", card)
    assert done.returncode == 0, done.stderr
    adapter = json.loads(card.read_text())["adapter"]
    assert (
        set(adapter["files"]) == {"adapter_config.json", "adapter_model.safetensors"} and adapter["peft_type"] == "LORA"
    )
    tables = {}
    for lora, given in {"merged": ["--model", card], "separate": ["--model", miniature, "--adapter", folder]}.items():
        out = [part for name in ("samples", "spectra") for part in (f"--{name}", tmp_path / f"{lora}.{name}.parquet")]
        for computed in ("3 computed, 0 from the journal", "0 computed, 3 from the journal"):
            done = call(
                "measure_gradients", *given, "--lora", lora, "--responses", tmp_path / "rows.json", *out,
                "--journal", tmp_path / "journal",
            )  # fmt: skip
            assert done.returncode == 0 and computed in done.stderr + done.stdout, done.stderr
        tables[lora] = pq.read_table(tmp_path / f"{lora}.spectra.parquet")
        facts = json.loads(tables[lora].schema.metadata[b"gradatlas"])
        assert facts["adapter"] == adapter["digest"] and facts["lora"] == lora and facts["quantise"] == ""
        assert facts["adapter_base"] == "org/base" and "gemm_4bit" not in done.stderr
    own = set(tables["separate"]["projection"].to_pylist())
    assert own == {*"qkvo", "q.lora_a", "q.lora_b", "v.lora_a", "v.lora_b"}
    merged, separate = (each.to_pylist() for each in tables.values())
    separate = [row for row in separate if "lora" not in row["projection"]]
    for one, other in zip(merged, separate, strict=True):
        assert one["nuclear_norm"] == pytest.approx(other["nuclear_norm"], rel=1e-3)
    scores = gradatlas.score(str(miniature), rows, adapter=str(folder), lora="separate", output=tmp_path / "scores")
    layers = pq.read_table(tmp_path / "scores/layers.parquet")
    assert scores["status"].to_list() == ["ok"] * 3
    assert set(layers["projection"].to_pylist()) == own - {*"qkvo"}
    page = (tmp_path / "scores/scores.html").read_text()
    assert '["Q, LoRA A", "Q, LoRA B", "V, LoRA A", "V, LoRA B"]' in page and "<bdi>org/base</bdi>" in page
    # Any other job refuses the card.
    with pytest.raises(InputError, match="a model with an adapter, which is only measured and scored"):
        locate(str(card))
    (folder / "adapter_config.json").write_text((folder / "adapter_config.json").read_text() + " ")
    with pytest.raises(InputError, match=r"adapter_config.json: has changed since the card"):
        locate_adapted(str(card))


def edited(folder, to, edit=None, **keys):
    """A copy of an adapter with other keys or weights."""
    shutil.copytree(folder, to)
    path = to / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))
    if edit:
        save_file(edit(load_file(to / "adapter_model.safetensors")), to / "adapter_model.safetensors")
    return to


def without_first(weights):
    weights.pop(min(weights))
    return weights


def with_a_ninth_layer(weights):
    return weights | {name.replace("layers.1", "layers.9"): weight.clone() for name, weight in weights.items()}


WRONG = {
    "shapes": (lambda lora, to: edited(lora, to, lambda w: {n: x.repeat(1, 2) for n, x in w.items()}), "does not fit"),
    "modules": (lambda lora, to: edited(lora, to, target_modules=["c_attn"]), "does not fit .*c_attn"),
    "missing": (lambda lora, to: edited(lora, to, without_first), "weight .* is missing for"),
    "a deeper model's": (
        lambda lora, to: edited(lora, to, with_a_ninth_layer),
        "weight .*layers.9.* has no place in",
    ),
    "kind": (lambda lora, to: edited(lora, to, peft_type="UNHEARD_OF"), "PEFT cannot read adapter_config.json"),
    "tokens": (
        lambda lora, to: edited(lora, to, peft_type="PREFIX_TUNING", num_virtual_tokens=3, task_type="CAUSAL_LM"),
        "PREFIX_TUNING adds tokens in front of a sample",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_an_adapter_that_does_not_fit_is_one_line(base, lora, tmp_path, case):
    make, message = WRONG[case]
    with pytest.raises(InputError, match=message) as caught:
        loaded(base, make(lora, tmp_path / "other"))
    assert "\n" not in str(caught.value)


def test_another_base_on_the_hub_is_refused_before_loading(miniature, lora, tmp_path):
    other = edited(lora, tmp_path / "other", base_model_name_or_path="org/one")
    shutil.copytree(miniature, tmp_path / "mirror/models/org/two")
    of = ["--model", "m", "--source", "org/two"]
    note, card = tmp_path / "note.json", tmp_path / "card.json"
    call("download_model", *of, "--mirror", tmp_path / "mirror", "--output", note)
    error = user_error(call("fetch_model", *of, "--downloaded", note, "--output", card, "--adapter", other))
    assert "an adapter of org/one, not of org/two" in error and not card.exists()


@pytest.mark.parametrize("name", ["Qwen/Qwen2-1.5B", "/home/them/base", "", "{base}/"])
def test_the_name_of_another_base_is_a_line_and_in_the_metadata(base, lora, tmp_path, capsys, name):
    name = name.format(base=base)
    folder = edited(lora, tmp_path / "other", base_model_name_or_path=name)
    of = ["--model", "m", "--source", base, "--output", tmp_path / "card.json"]
    assert call("fetch_model", *of, "--adapter", folder).returncode == 0
    stated = "" if str(base) in name else name or "not stated"
    for given in ((str(base), "", str(folder)), (str(tmp_path / "card.json"),)):
        assert locate_adapted(*given)[1].adapter_base == stated
    line = f"base model is '{stated}' (base_model_name_or_path), not '{base}'"
    assert (line in capsys.readouterr().err) == bool(stated)


def test_a_folder_without_a_whole_adapter_is_one_line(base, lora, tmp_path):
    empty = tmp_path / "empty"
    for message in ("no such folder", "no such file, so this is not a PEFT adapter"):
        with pytest.raises(InputError, match=message):
            locate_adapted(str(base), adapter=str(empty))
        empty.mkdir(exist_ok=True)
    cut = edited(lora, tmp_path / "cut")
    (cut / "adapter_model.safetensors").write_bytes((lora / "adapter_model.safetensors").read_bytes()[:100])
    with pytest.raises(InputError, match="not a complete safetensors file"):
        locate_adapted(str(base), adapter=str(cut))


def test_separate_is_for_lora_alone(base, tmp_path):
    folder, _ = saved(base, KINDS["ia3"], tmp_path / "ia3")
    with pytest.raises(InputError, match="kind IA3 has no matrices A and B"):
        loaded(base, folder, lora="separate")
    with pytest.raises(InputError, match="--lora separate: the model has no adapter"):
        load_adapted(locate(str(base)), None, Weights(lora="separate"), device="cpu")
    with pytest.raises(InputError, match="no projection that is measured has a LoRA"):
        Capture(AutoModelForCausalLM.from_pretrained(base), lora="separate")


def test_a_kind_that_cannot_be_merged_is_one_line(base, tmp_path):
    config = peft.PolyConfig(r=4, target_modules=["q_proj"], n_tasks=1, n_skills=1, n_splits=1)
    with pytest.raises(InputError, match="an adapter of kind POLY cannot be merged"):
        loaded(base, saved(base, config, tmp_path / "poly")[0])


def test_merging_into_tied_embeddings_is_refused(tokenizer, tmp_path):
    """PEFT merges into the one matrix that both ends share: another model than the adapted one."""
    tied = write(tmp_path / "tied", tokenizer, tie_word_embeddings=True)
    config = peft.LoraConfig(**{**LORA, "target_modules": ["embed_tokens", "k_proj"]})
    folder, _ = saved(tied, config, tmp_path / "adapter")
    with pytest.raises(InputError, match="changes the model's outputs, as it does where embeddings are tied"):
        loaded(tied, folder)


@pytest.fixture(scope="module")
def workflow(tmp_path_factory):
    """A study of one model with a LoRA of one's own, and in 16 bits with one of the hub: figures and tables."""
    folder = tmp_path_factory.mktemp("study")
    mine = shutil.copytree(ROOT / "resources/miniature/base", folder / "mine")
    saved(mine, KINDS["lora"], folder / "lora")
    shutil.copytree(folder / "lora", folder / "mirror/models/org/lora")
    of = "source: ./mine, device: cpu, threads: 1, scope: miniature"
    models = [
        f"{{model: own, {of}, adapter: ./lora, lora: separate}}",
        f"{{model: half, {of}, adapter: org/lora, dtype: bfloat16}}",
    ]
    given = [
        "-s",
        ROOT / "Snakefile",
        *SMOKE[:3],
        ROOT / SMOKE[3],
        "--config",
        f"models=[{','.join(models)}]",
        "mirror=mirror",
    ]
    given += ["datasets=[mini_arithmetic]", "relations=[correct]", "samples=2", "formats=[svg]", "dynamics={runs: []}"]
    given += ["--", "results/figures/mini_arithmetic", "results/tables/mad.csv"]
    done = snakemake(folder, "-n", "-p", *given)
    assert done.returncode == 0, done.output[-3000:]
    with contextlib.chdir(folder):
        for name, words, _ in commands(done.output):
            ended = call(name, *words)
            assert ended.returncode == 0, (name, ended.stderr)
    return folder, done.output


def test_a_study_has_adapters_of_a_folder_and_of_the_hub(workflow):
    folder, planned = workflow
    # Another adapter in the folder makes its card again.
    assert re.search(r"input: .*lora/adapter_config.json, lora/adapter_model.safetensors", planned)
    found = {
        name: pq.read_table(folder / f"results/gradients/{name}/mini_arithmetic.spectra.parquet")
        for name in ("own", "half")
    }
    assert set(found["own"]["projection"].to_pylist()) == {*"qkvo", "q.lora_a", "q.lora_b", "v.lora_a", "v.lora_b"}
    assert set(found["half"]["projection"].to_pylist()) == {*"qkvo"}
    cards = [json.loads((folder / f"resources/models/{name}.json").read_text()) for name in found]
    assert cards[0]["adapter"]["digest"] == cards[1]["adapter"]["digest"]
    assert cards[1]["adapter"]["path"] == "mirror/models/org/lora"
    # Tables of one study agree, though one has A and B beside its own matrices.
    tables = [str(folder / f"results/gradients/{name}/mini_arithmetic.samples.parquet") for name in found]
    stated = manifest(tables, [])
    assert stated["engine"]["projections"] == [*"qkvo"] and stated["models"]["own"]["lora"] == "separate"
    assert stated["models"]["half"]["tables"][tables[1]]["rounding"]["samples"] == 4


def test_figures_and_tables_are_of_the_models_own_matrices_and_state_the_error_of_16_bits(workflow):
    folder, _ = workflow
    curves = pq.read_table(folder / "results/statistics/mini_arithmetic/curves.parquet")
    assert set(curves["projection"].to_pylist()) == {*"qkvo"}
    listed = json.loads((folder / "results/figures/mini_arithmetic/index.json").read_text())
    noted = {each["model"]: each["caption"] for each in listed["figures"]}
    assert "A bfloat16 pass: nuclear norms within" in noted["half"] and "(4 samples)" in noted["half"]
    assert "pass" not in noted["own"]
    assert "A bfloat16 pass: nuclear norms within" in (folder / "results/tables/mad.md").read_text()


def test_an_adapter_of_the_hub_at_its_commit(lora, tmp_path, monkeypatch):
    """Only its two files are downloaded; what is no adapter, or has no commit, is one line."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with FakeHub() as hub:
        folder = edited(lora, tmp_path / "lora", base_model_name_or_path="/home/them/base")
        (folder / "README.md").write_text("A LoRA.")
        commit = hub.add("org/lora", folder)
        other = hub.add("org/model", ROOT / "resources/miniature/base")
        sheet = tmp_path / "models.tsv"
        head = "model\tsource\trevision\tadapter\tadapter_revision\n"
        sheet.write_text(f"{head}mine\t./base\t\torg/lora\t\nplain\t./base\t\t\t\n")
        done = script("pin", "--sheet", sheet, **environment(hub, tmp_path))
        assert done.stdout == f"mine (adapter)\t{commit}\n", done.stderr
        assert sheet.read_text() == f"{head}mine\t./base\t\torg/lora\t{commit}\nplain\t./base\t\t\t\n"

        def fetched(source, revision):
            given = ["--model", "mine", "--source", source, "--revision", revision, "--output", tmp_path / "note.json"]
            more = ["--snapshots", tmp_path / "snapshots"]
            return script("download_adapter", *given, *more, **environment(hub, tmp_path))

        assert "run gradatlas pin --model mine" in one_line(fetched("org/lora", ""))
        assert "org/model at" in (line := one_line(fetched("org/model", other))) and "is not a PEFT adapter" in line
        assert fetched("org/lora", commit).returncode == 0
        note = json.loads((tmp_path / "note.json").read_text())
        assert sorted(path.name for path in Path(note["folder"]).iterdir() if path.is_file()) == sorted(note["files"])
        found = card_of_adapter("org/lora", commit, "org/base", tmp_path / "note.json")
        assert found["revision"] == commit and found["digest"] == card_of_adapter(str(folder), "", "x")["digest"]


OWN = {"model": "m", "source": "./m"}
APART = {
    "of a miniature": ({"source": "miniature", "adapter": "./a"}, "a model that is made here has no adapter"),
    "revision of a folder": ({"adapter": "./a", "adapter_revision": "a" * 40}, "adapter_revision is of a hub adapter"),
    "separate": ({"lora": "separate"}, "lora is separate, but the model has no adapter"),
    "merged": ({"adapter": "./a", "quantise": "4bit"}, "an adapter is not merged into quantised weights"),
    "CPU": ({"gpus": 2, "device": "cpu"}, "gpus is 2, but device is cpu"),
    "quantise": ({"quantise": "2bit"}, "'quantise': '2bit' is not known"),
    "adapter": ({"adapter": "lora"}, "'adapter'"),
}


@pytest.mark.parametrize("case", APART)
def test_columns_that_do_not_fit_together_are_one_line(case):
    keys, message = APART[case]
    with pytest.raises(InputError, match=re.escape(message)):
        read_study(DEFAULT | {"models": [OWN | keys], "dynamics": {"runs": []}}, ROOT)


@pytest.mark.parametrize("key", [{"adapter": "./a"}, {"quantise": "8bit"}, {"gpus": 2}])
def test_a_model_that_is_finetuned_takes_none_of_them(tmp_path, key):
    shutil.copytree(ROOT / "config", tmp_path / "config")
    sheet = tmp_path / "config/models.tsv"
    lines = [line.split("\t") for line in sheet.read_text().splitlines()]
    header, row = lines[0], dict(zip(lines[0], lines[1], strict=True))
    row |= {"model": "mine", "source": "./mine"} | {name: str(value) for name, value in key.items()}
    row["device"] = "auto"
    sheet.write_text(sheet.read_text() + "\t".join(row[name] for name in header) + "\n")
    with pytest.raises(InputError, match=f"'mine': column {next(iter(key))} is for models that are measured or scored"):
        read_study(DEFAULT | {"dynamics": {"models": ["mine"], "runs": ["smoke_dpo"]}}, tmp_path)
