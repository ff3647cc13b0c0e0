"""Model folders that somebody else made: sizes that cannot be, deep JSON, links out, pickles, code of their own."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, call, script, settings, user_error
from gradatlas.core.checked import read_json
from gradatlas.core.errors import InputError
from gradatlas.core.files import from_json
from gradatlas.gradients.released import read_line
from gradatlas.models.loading import load, load_tokenizer, locate
from gradatlas.models.snapshots import card_of, model_digest
from loopback import FakeHub

SHIPPED = ROOT / "resources/miniature/base"
DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000


@pytest.fixture
def folder(tmp_path):
    """A copy of the committed miniature, to spoil."""
    return Path(shutil.copytree(SHIPPED, tmp_path / "model"))


def change(folder, **keys):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def refused(folder, message):
    """By its card, and where a job is given the folder itself: one short line, at once."""
    for read in (lambda: card_of("m", str(folder), "", folder), lambda: model_digest(folder), lambda: locate(folder)):
        with pytest.raises(InputError, match=message) as error:
            read()
        assert len(str(error.value)) < 500


# Sizes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [10**9, 10**12, 57, 0, -1, "6", 6.0, True])
def test_layers_that_the_weights_cannot_have(folder, value):
    change(folder, num_hidden_layers=value)
    refused(folder, rf"config\.json: 'num_hidden_layers' is {value!r}, (more than the 56 that|not a size)")


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "intermediate_size", "head_dim", "num_key_value_heads"])
@pytest.mark.parametrize("value", [10**12, 1513, -1, "x", 1.5])
def test_sizes_beyond_the_stored_tensors(folder, key, value):
    change(folder, **{key: value})
    refused(folder, rf"config\.json: '{key}' is {value!r}, (more than the 1512 that the weights can have|not a size)")


def test_sizes_of_a_language_model_within_another_and_of_each_layer(folder):
    change(folder, text_config={"n_inner": [384, 384, 10**12]})
    refused(folder, r"config\.json: 'n_inner' is 1000000000000, more than the 1512")
    change(folder, text_config={}, intermediate_size=[384, None, 0])
    assert card_of("m", str(folder), "", folder)["layers"] == 6


def downloaded(tmp_path, source):
    """Where a hub model's config and tokenizer are, in the mirror beside."""
    given = ["--model", "m", "--source", source, "--revision", "a" * 40, "--mirror", tmp_path / "mirror"]
    done = call("download_model", *given, "--no-weights", "--output", tmp_path / "found.json")
    assert done.returncode == 0, done.stderr
    return tmp_path / "found.json"


def test_the_untrained_twin_of_a_giant_is_refused(folder, tmp_path):
    change(folder, num_hidden_layers=10**9)
    shutil.copytree(folder, tmp_path / "mirror/models/org/giant")
    done = call(
        "write_untrained", "--model", "m", "--source", "org/giant", "--downloaded", downloaded(tmp_path, "org/giant"),
        *settings(seed=0), "--output", tmp_path / "out",
    )  # fmt: skip
    assert "'num_hidden_layers' is 1000000000, more than the 10000" in user_error(done)


# JSON ----------------------------------------------------------------------------------------------------------------

OF_A_MODEL = [
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "chat_template.json", "model.safetensors.index.json",
]  # fmt: skip


@pytest.mark.parametrize("name", OF_A_MODEL)
def test_json_of_a_model_that_is_nested_too_deeply(folder, name):
    if "index" in name:
        (folder / "model.safetensors").unlink()
    (folder / name).write_text(DEEP)
    refused(folder, rf"{name}: not JSON \(nested too deeply\); fetch or save the file again")


def test_json_that_cannot_be_read_or_written(folder):
    for text, message in (
        ('{"model_type": "\\ud800"}', "surrogates not allowed"),
        (f'{{"x": {"1" * 5000}}}', "Exceeds the limit"),
        ("[]", "a JSON object"),
    ):
        (folder / "config.json").write_text(text)
        refused(folder, rf"config\.json: not .*{message}")
    assert from_json('"\\ud83e\\udd9c"') == "🦜"


def test_a_tokenizer_that_its_library_refuses_is_one_line(folder):
    text = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(text | {"model": json.loads('{"a":' * 200 + "1" + "}" * 200)}))
    with pytest.raises(InputError, match=r"no tokenizer could be loaded \(recursion limit exceeded"):
        load_tokenizer(folder)


def test_other_json_that_is_nested_too_deeply(folder, tmp_path):
    (tmp_path / "card.json").write_text(DEEP)
    with pytest.raises(InputError, match=r"card\.json: damaged, not a JSON object \(nested too deeply\); delete it"):
        read_json(tmp_path / "card.json", "fetch_model")
    with pytest.raises(InputError, match=r"line 1: not JSON \(nested too deeply\)"):
        read_line(DEEP, "line 1")
    done = call("build_responses", "--dataset", "d", "--settings", DEEP, "--output", tmp_path / "out.parquet")
    assert "error: --settings: not JSON (nested too deeply)" in user_error(done)


# Links ---------------------------------------------------------------------------------------------------------------


def linked(file, target):
    file.unlink(missing_ok=True)
    file.symlink_to(target)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "own.py"]
)
def test_a_link_out_of_the_folder_is_refused(folder, tmp_path, name):
    (tmp_path / "elsewhere").write_bytes((SHIPPED / name).read_bytes() if (SHIPPED / name).exists() else b"")
    for target in (tmp_path / "elsewhere", "../elsewhere", "/nowhere"):
        linked(folder / name, target)
        refused(folder, rf"{name}: a link to \S+, outside of the model's folder; put a copy of the file here")
        with pytest.raises(InputError, match="a link to"):
            load_tokenizer(folder)


def test_links_within_the_folder_and_to_the_folder_are_followed(folder, tmp_path):
    (folder / "weights").mkdir()
    (folder / "model.safetensors").rename(folder / "weights/own.safetensors")
    linked(folder / "model.safetensors", "weights/own.safetensors")
    linked(tmp_path / "link", folder)
    assert model_digest(tmp_path / "link") == model_digest(SHIPPED)


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "sub/x.safetensors", "..", "", 5, None])
def test_an_index_that_names_a_file_elsewhere_is_refused(folder, tmp_path, name):
    (folder / "model.safetensors").rename(tmp_path / "other.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    refused(folder, r"index\.json: 'weight_map' names .*, not a file of this folder|no such file, though \S+ names it")


def test_a_snapshot_in_the_hubs_cache_is_links_into_its_own_blobs(folder, tmp_path):
    with FakeHub() as hub:
        commit = hub.add("org/tiny", folder)
        own = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
        }
        code = f"import huggingface_hub as h; print(h.snapshot_download('org/tiny', revision='{commit}'))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | own)
    assert done.returncode == 0, done.stderr
    snapshot = Path(done.stdout.strip())
    assert (snapshot / "config.json").is_symlink() and snapshot.parents[1].name == "models--org--tiny"
    assert model_digest(snapshot) == model_digest(folder)
    # The blobs of another model are elsewhere.
    other = snapshot.parents[2] / "models--org--other/blobs"
    other.mkdir(parents=True)
    shutil.copy(SHIPPED / "config.json", other / "config")
    linked(snapshot / "config.json", "../../../models--org--other/blobs/config")
    refused(snapshot, r"config\.json: a link to \S+/models--org--other/blobs/config, outside")


# Code ----------------------------------------------------------------------------------------------------------------


class Payload:
    """Unpickling it writes the file `mark`."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


def test_pickled_weights_are_refused_and_never_read(folder, tmp_path):
    mark = tmp_path / "ran"
    for name in ("pytorch_model.bin", "model.pt", "adapter_model.bin", "training_args.bin"):
        (folder / name).write_bytes(pickle.dumps(Payload(mark)))
    load(str(folder), dtype="float32", device="cpu")
    assert not mark.exists() and set(card_of("m", "", "", folder)["files"]).isdisjoint({"pytorch_model.bin"})
    (folder / "model.safetensors").unlink()
    refused(folder, r"model\.safetensors: no such file, and no index; save the model with save_pretrained")
    with pytest.raises(InputError, match=r"model\.safetensors: no such file"):
        load(str(folder), dtype="float32", device="cpu")
    assert not mark.exists()
    pickle.loads(pickle.dumps(Payload(mark))).close()
    assert mark.exists()


def test_code_of_a_checkpoints_own_never_runs_unasked(folder, responses, tmp_path):
    """Every job that reads a model's folder, with a terminal's answer waiting: none may ask whether to run it."""
    mark = tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    kinds = ("AutoConfig", "AutoModelForCausalLM", "AutoModelForSequenceClassification", "AutoModel")
    change(folder, model_type="own", auto_map={kind: "own.Own" for kind in kinds})
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer |= {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    shutil.copytree(folder, tmp_path / "mirror/models/org/own")
    card, hub = tmp_path / "card.json", ("--downloaded", downloaded(tmp_path, "org/own"))
    model = {"name": "own", "source": str(folder), "revision": "", "chat": False}
    outputs = [f"--{name}={tmp_path / name}.parquet" for name in ("samples", "spectra")]
    jobs = {
        "fetch_model": ("--model", "own", "--source", folder, "--output", card),
        "measure_gradients": ("--model", folder, "--model-name", "own", "--responses", responses, *outputs),
        "measure_accuracy": ("--model", folder, "--name", "own", "--output", tmp_path / "accuracy.parquet"),
        "count_tokens": ("--responses", responses, *settings(models=[model]), "--output", tmp_path / "tokens.csv"),
        "write_untrained": (
            "--model",
            "own",
            "--source",
            "org/own",
            *hub,
            *settings(seed=0),
            "--output",
            tmp_path / "o",
        ),
    }
    for name, arguments in jobs.items():
        done = script(name, *arguments, input="y\n" * 100)
        assert not mark.exists(), name
        if name != "fetch_model":
            assert done.returncode, name
            assert "custom" in done.stderr and re.search("trust_remote_code|choose another", done.stderr), done.stderr
        assert "[y/N]" not in done.stdout + done.stderr, name
    from gradatlas.finetuning.judging.reward import RewardJudge
    from gradatlas.finetuning.judging.tokens import tokens_with

    for read in (
        lambda: RewardJudge(str(folder), "own", device="cpu", dtype="float32"),
        lambda: tokens_with(str(folder)),
    ):
        with pytest.raises(InputError, match="set trust_remote_code to true"):
            read()
    assert not mark.exists()
    # It would run where it is allowed: the test plants it rightly.
    with pytest.raises(InputError):
        load(str(folder), dtype="float32", device="cpu", trust_remote_code=True)
    assert mark.exists()
