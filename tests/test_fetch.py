"""Fetching sources and models, against real servers on the loopback interface."""

import base64
import csv
import hashlib
import json
import os
import random
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, SHARED, command, needs_shared
from gradatlas.core.checked import write_json
from gradatlas.core.errors import InputError
from gradatlas.data import sources
from gradatlas.models import snapshots
from gradatlas.study.sources import is_hub_id
from loopback import FakeHub, Loopback, closed_port

BODY = random.Random(0).randbytes(300_000)
SUM = hashlib.sha256(BODY).hexdigest()
NAME = "cot_500/some file.json"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server():
    with Loopback() as running:
        running.files[f"/data/{NAME}"] = BODY
        yield running


def fetch(server, output, **options):
    options = {"timeout": 5, "wait": 0.01, "sha256": SUM, "url": f"{server.url}/data", "path": NAME} | options
    sources.fetch(output=output, **options)


def script(name, *arguments, **environment):
    """Run a script as a user does; returns the finished process."""
    whole = [sys.executable, *command(name), *map(str, arguments)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_") or "TIMEOUT" in name}
    return subprocess.run(whole, cwd=ROOT, env=kept | environment, capture_output=True, text=True, timeout=120)


def resumed_at(server):
    """For each GET: None for the whole file, else whether it asked for less than the file and more than nothing."""
    ranges = [seen[2] for seen in server.seen]
    return [asked and 0 < int(asked.removeprefix("bytes=").removesuffix("-")) <= len(BODY) // 2 for asked in ranges]


def one_line(process):
    """The user's error of a script: exit code 2 and a single line."""
    assert process.returncode == 2, process.stderr
    lines = process.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), process.stderr
    return lines[0]


# --- sources ---------------------------------------------------------------------------------------------------------


def test_a_good_fetch_through_the_script(server, tmp_path):
    output = tmp_path / "raw" / "file.json"
    url = f"{server.url}/data"
    done = script("fetch_source", "--url", url, "--path", NAME, "--sha256", SUM, "--output", output)
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == BODY
    assert [file.name for file in output.parent.iterdir()] == ["file.json"]
    assert output.stat().st_mode & 0o044, "colleagues cannot read it"


def test_the_address_of_the_file_itself_and_a_file_that_is_there(server, tmp_path):
    output = tmp_path / "file.json"
    fetch(server, output, url=f"{server.url}/data/cot_500/some%20file.json")
    fetch(server, output)
    assert len(server.seen) == 1, "a file with the right checksum was fetched again"


def test_errors_of_the_server_are_retried(server, tmp_path, capsys):
    server.troubles[f"/data/{NAME}"] = [500, 503, 429]
    fetch(server, tmp_path / "file.json")
    assert (tmp_path / "file.json").read_bytes() == BODY
    assert len(server.seen) == 4
    assert "HTTP 503; try 3 in" in capsys.readouterr().err


@pytest.mark.parametrize("trouble", ["cut", "stall"])
def test_a_broken_transfer_goes_on_where_it_was(server, tmp_path, trouble):
    server.troubles[f"/data/{NAME}"] = [trouble]
    fetch(server, tmp_path / "file.json", timeout=5)
    assert (tmp_path / "file.json").read_bytes() == BODY
    assert resumed_at(server) == [None, True]


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.troubles[f"/data/{NAME}"] = ["cut", "whole"]
    fetch(server, tmp_path / "file.json")
    assert (tmp_path / "file.json").read_bytes() == BODY


def test_pieces_of_two_versions_are_noticed(server, tmp_path):
    server.troubles[f"/data/{NAME}"] = ["cut"]
    changed = hashlib.sha256(BODY[::-1]).hexdigest()

    class Changing(dict):
        def __getitem__(self, key):
            # The first half comes from one version, everything later from another.
            return bytes(len(BODY)) if len(server.seen) == 1 else BODY[::-1]

    server.files = Changing(server.files)
    fetch(server, tmp_path / "file.json", sha256=changed)
    assert (tmp_path / "file.json").read_bytes() == BODY[::-1]
    assert resumed_at(server) == [None, True, None]


@pytest.mark.parametrize(
    ("trouble", "phrase"), [("stall", "no byte was received for 1 s"), ("cut", "interrupted"), (500, "HTTP 500")]
)
def test_a_server_that_never_recovers(server, tmp_path, trouble, phrase):
    server.troubles[f"/data/{NAME}"] = [trouble] * 3
    with pytest.raises(InputError, match=phrase) as error:
        fetch(server, tmp_path / "file.json", timeout=1, attempts=3)
    assert "mirror=FOLDER" in str(error.value)
    assert len(server.seen) == 3
    assert not list(tmp_path.iterdir()), "something half-written was left"


def test_a_wrong_checksum_keeps_the_file_aside(server, tmp_path):
    output = tmp_path / "file.json"
    output.write_text("older")
    server.files[f"/data/{NAME}"] = b"tampered"
    with pytest.raises(InputError) as error:
        fetch(server, output)
    assert SUM in str(error.value) and hashlib.sha256(b"tampered").hexdigest() in str(error.value)
    assert (tmp_path / "file.json.corrupt").read_bytes() == b"tampered"
    assert output.read_text() == "older"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_missing_file_is_not_tried_again(server, tmp_path):
    arguments = ["--url", server.url, "--path", NAME, "--sha256", SUM, "--output", tmp_path / "file.json"]
    line = one_line(script("fetch_source", *arguments))
    assert f"{server.url}/cot_500/some%20file.json" in line and "HTTP 404" in line and "mirror=FOLDER" in line
    assert len(server.seen) == 1 and not list(tmp_path.iterdir())


def test_no_network(tmp_path):
    address = closed_port()
    with pytest.raises(InputError, match="no connection; check the network") as error:
        sources.fetch(address, NAME, SUM, tmp_path / "file.json", attempts=2, wait=0.01)
    assert address in str(error.value) and not list(tmp_path.iterdir())


def test_a_folder_as_mirror(tmp_path):
    place = tmp_path / "mirror" / NAME
    place.parent.mkdir(parents=True)
    place.write_bytes(BODY)
    output = tmp_path / "out" / "file.json"
    arguments = ["--url", closed_port(), "--path", NAME, "--sha256", SUM, "--output", output]
    done = script("fetch_source", *arguments, "--mirror", tmp_path / "mirror")
    assert done.returncode == 0 and output.read_bytes() == BODY
    output.unlink()
    place.write_bytes(b"tampered")
    assert SUM in one_line(script("fetch_source", *arguments, "--mirror", tmp_path / "mirror"))
    assert place.read_bytes() == b"tampered" and (output.parent / "file.json.corrupt").exists()
    place.unlink()
    assert str(place) in one_line(script("fetch_source", *arguments, "--mirror", tmp_path / "mirror"))
    assert "no such folder" in one_line(script("fetch_source", *arguments, "--mirror", tmp_path / "nowhere"))


def test_an_address_as_mirror(server, tmp_path):
    fetch(server, tmp_path / "file.json", url=closed_port(), mirror=f"{server.url}/data/")
    assert (tmp_path / "file.json").read_bytes() == BODY


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        ({"path": "../secret"}, "is outside of its source"),
        ({"path": "/etc/passwd"}, "is outside of its source"),
        ({"sha256": "abc"}, "64 lower-case hexadecimal digits"),
        ({"url": "ftp://somewhere"}, "not an http"),
    ],
)
def test_arguments_that_make_no_sense(server, tmp_path, change, phrase):
    with pytest.raises(InputError, match=phrase):
        fetch(server, tmp_path / "file.json", **change)


def test_the_sheet_of_sources_is_whole():
    rows = read_sheet("sources.tsv")
    assert len({row["path"] for row in rows}) == len(rows) == 56
    assert len({(row["dataset"], row["variant"], row["relation"]) for row in rows}) == 56
    assert {row["relation"] for row in rows if "_wrong_answer_shuffle/" in row["path"]} == {"published"}
    for row in rows:
        twins = [other for other in rows if (other["dataset"], other["variant"]) == (row["dataset"], row["variant"])]
        assert {twin["relation"] for twin in twins} == {"correct", "published"}


class Guarded(Loopback):
    """Serves only to one user with a password."""

    def serve(self, request):
        if request.headers.get("Authorization") != f"Basic {base64.b64encode(b'someone:hunter2').decode()}":
            return self.answer(request, 401, b"")
        return super().serve(request)


def test_a_mirror_with_a_password_is_read_with_that_of_netrc(tmp_path):
    """As errors of the config advise; the password is in no line and no file."""
    body = b"[]"
    with Guarded() as server:
        server.files["/a.json"] = body
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password hunter2\n")
        given = ("--url", "https://none", "--path", "a.json", "--sha256", hashlib.sha256(body).hexdigest())
        given += ("--mirror", server.url, "--output", tmp_path / "out/a.json")
        own = {"NO_PROXY": "127.0.0.1", "NETRC": str(tmp_path / "nowhere")}
        assert "the server answers HTTP 401" in one_line(script("fetch_source", *given, **own))
        done = script("fetch_source", *given, **own | {"NETRC": str(tmp_path / "netrc")})
    assert done.returncode == 0 and (tmp_path / "out/a.json").read_bytes() == body
    assert "hunter2" not in done.stdout + done.stderr and len(list((tmp_path / "out").iterdir())) == 1


@pytest.mark.shared
@needs_shared("paper_data")
def test_the_published_files_come_from_the_shared_mirror(tmp_path):
    rows = read_sheet("sources.tsv")
    listed = [line.split() for line in (SHARED / "paper_data" / "SHA256SUMS").read_text().splitlines()]
    assert sorted((row["sha256"], row["path"]) for row in rows) == sorted(map(tuple, listed))
    present = [row for row in rows if (SHARED / "paper_data" / row["path"]).is_file()]
    assert len(present) >= 26
    for row in present:
        sources.fetch("https://none", row["path"], row["sha256"], tmp_path / row["path"], str(SHARED / "paper_data"))


# --- models ----------------------------------------------------------------------------------------------------------


def write_safetensors(path, tensors):
    from numpy import float32, full
    from safetensors.numpy import save_file

    save_file({name: full(shape, value, float32) for name, (shape, value) in tensors.items()}, path)


@pytest.fixture
def model(tmp_path):
    """A folder that looks like a small Llama with a tokenizer; nothing in these tests runs it."""
    folder = tmp_path / "model"
    folder.mkdir()
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 8}
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 5, "max_position_embeddings": 64}))
    (folder / "generation_config.json").write_text("{}")
    (folder / "tokenizer.json").write_text('{"model": {}}')
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "README.md").write_text("a card")
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    write_safetensors(folder / "model.safetensors", {"a": ((5, 8), 1.0), "b": ((8,), 2.0)})
    return folder


@pytest.fixture
def hub(model):
    with FakeHub() as running:
        yield running


def environment(hub, tmp_path):
    # The plain protocol: the chunked one (Xet) speaks to other servers.
    return {"HF_ENDPOINT": getattr(hub, "url", hub), "HF_HOME": str(tmp_path / "hf_home"), "HF_HUB_DISABLE_XET": "1"}


def download_model(hub, tmp_path, source, revision, *more, name="tiny"):
    given = ["--model", name, "--source", source, "--revision", revision, "--output", tmp_path / "found.json"]
    return script("download_model", *given, "--snapshots", tmp_path / "snapshots", *more, **environment(hub, tmp_path))


def fetch_model(hub, tmp_path, source, revision, *more):
    """Both rules of a hub model, or the one of a folder."""
    given = ["--model", "tiny", "--source", source, "--revision", revision, "--output", tmp_path / "card.json"]
    if is_hub_id(str(source)):
        done = download_model(hub, tmp_path, source, revision, *more)
        if done.returncode:
            return done
        given += ["--downloaded", tmp_path / "found.json"]
    # Checksums need no network.
    return script("fetch_model", *given, **environment(closed_port(), tmp_path))


def test_the_card_of_a_local_folder(model, tmp_path):
    done = fetch_model(closed_port(), tmp_path, model, "")
    assert done.returncode == 0, done.stderr
    card = snapshots.read_card(tmp_path / "card.json")
    assert card["path"] == str(model) and card["revision"] == ""
    assert (card["layers"], card["hidden_size"], card["vocab_size"], card["max_position_embeddings"]) == (2, 8, 5, 64)
    assert (card["parameters"], card["dtype"], card["architecture"]) == (48, "float32", "LlamaForCausalLM")
    assert card["digest"] == snapshots.model_digest(model)
    assert set(card["files"]) == {file.name for file in model.iterdir()} - {"README.md", "pytorch_model.bin"}
    first = (tmp_path / "card.json").read_bytes()
    fetch_model(closed_port(), tmp_path, model, "")
    assert (tmp_path / "card.json").read_bytes() == first


def test_the_path_of_a_card_stays_relative(model, monkeypatch):
    monkeypatch.chdir(model.parent)
    assert snapshots.card_of("tiny", "./model", "", "model")["path"] == "model"


def test_the_digest_follows_what_decides_the_numbers(model):
    before = snapshots.card_of("tiny", str(model), "", model)
    (model / "README.md").write_text("other words")
    (model / "generation_config.json").write_text('{"temperature": 1}')
    assert snapshots.model_digest(model) == before["digest"]
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"):
        kept = (model / name).read_bytes()
        if name == "model.safetensors":
            write_safetensors(model / name, {"a": ((5, 8), 1.0), "b": ((8,), 2.5)})
        else:
            (model / name).write_bytes(kept + b" ")
        changed = snapshots.card_of("tiny", str(model), "", model)
        assert changed["digest"] != before["digest"], name
        tokenizer = name in ("tokenizer.json", "chat_template.jinja")
        assert (changed["tokenizer_digest"] != before["tokenizer_digest"]) == tokenizer, name
        (model / name).write_bytes(kept)
    assert snapshots.model_digest(model) == before["digest"]


def test_weights_in_several_files(model):
    (model / "model.safetensors").unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    write_safetensors(model / names[0], {"a": ((5, 8), 1.0)})
    write_safetensors(model / names[1], {"b": ((8,), 2.0)})
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    card = snapshots.card_of("tiny", str(model), "", model)
    assert card["parameters"] == 48 and set(names) < set(card["files"])
    (model / names[1]).unlink()
    with pytest.raises(InputError, match="no such file, though"):
        snapshots.card_of("tiny", str(model), "", model)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def too_long_a_header(path):
    path.write_bytes(struct.pack("<Q", 1 << 40) + path.read_bytes()[8:])


@pytest.mark.parametrize(
    ("file", "harm", "phrase"),
    [
        ("config.json", Path.unlink, "no such file"),
        ("config.json", cut, "not JSON"),
        ("config.json", lambda path: path.write_text("{}"), "'model_type' is missing"),
        ("tokenizer.json", Path.unlink, "no tokenizer; save it"),
        ("model.safetensors", Path.unlink, "no such file, and no index"),
        ("model.safetensors", cut, "not a complete safetensors file"),
        ("model.safetensors", too_long_a_header, "not a complete safetensors file"),
        ("model.safetensors", lambda path: path.write_bytes(b""), "not a complete safetensors file"),
        ("model.safetensors", lambda path: path.write_bytes(struct.pack("<Q", 9) + b"{" * 9), "not a complete"),
    ],
)
def test_a_harmed_folder(model, file, harm, phrase):
    harm(model / file)
    with pytest.raises(InputError, match=phrase) as error:
        snapshots.card_of("tiny", str(model), "", model)
    assert str(model / file) in str(error.value)


def test_a_folder_that_is_not_there(tmp_path):
    assert "no such folder" in one_line(fetch_model(closed_port(), tmp_path, "./nowhere", ""))
    assert "is not a folder or a fetched hub id" in one_line(fetch_model(closed_port(), tmp_path, "miniature", ""))
    assert not list(tmp_path.glob("card*"))


def test_a_card_that_is_none(tmp_path):
    with pytest.raises(InputError, match=r"card\.json: no such file; make it with rule fetch_model"):
        snapshots.read_card(tmp_path / "card.json")
    write_json(tmp_path / "card.json", {})
    with pytest.raises(InputError, match="'model' is missing"):
        snapshots.read_card(tmp_path / "card.json")


def test_a_model_from_the_hub(hub, model, tmp_path):
    (model / "original").mkdir()
    shutil.copy(model / "model.safetensors", model / "original" / "model.safetensors")
    commit = hub.add("org/tiny", model)
    done = fetch_model(hub, tmp_path, "org/tiny", commit)
    assert done.returncode == 0, done.stderr
    card = snapshots.read_card(tmp_path / "card.json")
    folder = tmp_path / "snapshots" / "org" / "tiny" / commit
    assert card["path"] == str(folder) and card["revision"] == commit and card["source"] == "org/tiny"
    assert card["digest"] == snapshots.model_digest(model)
    assert {file.name for file in folder.iterdir()} - {".cache"} == set(card["files"])
    # A whole snapshot needs no network, and gives the same card.
    first = (tmp_path / "card.json").read_bytes()
    done = fetch_model(closed_port(), tmp_path, "org/tiny", commit)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "card.json").read_bytes() == first
    # Without one file it is not whole.
    (folder / "tokenizer.json").unlink()
    assert "cannot be fetched from the hub" in one_line(fetch_model(closed_port(), tmp_path, "org/tiny", commit))


@pytest.mark.parametrize("trouble", ["cut", "stall", "mute"])
def test_a_broken_transfer_from_the_hub(hub, model, tmp_path, trouble, monkeypatch):
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "1")
    commit = hub.add("org/tiny", model)
    hub.troubles[f"/org/tiny/resolve/{commit}/model.safetensors"] = [trouble]
    done = fetch_model(hub, tmp_path, "org/tiny", commit)
    assert done.returncode == 0, done.stderr
    assert snapshots.read_card(tmp_path / "card.json")["digest"] == snapshots.model_digest(model)


def test_weights_that_changed_on_the_way(hub, model, tmp_path):
    commit = hub.add("org/tiny", model)
    data = (model / "model.safetensors").read_bytes()
    hub.troubles[f"/org/tiny/resolve/{commit}/model.safetensors"] = [data[:-1] + b"!"]
    line = one_line(fetch_model(hub, tmp_path, "org/tiny", commit))
    assert "model.safetensors: sha256 is" in line and hashlib.sha256(data).hexdigest() in line


def test_what_the_hub_refuses(hub, model, tmp_path):
    commit = hub.add("org/tiny", model)
    line = one_line(fetch_model(hub, tmp_path, "org/tiny", ""))
    assert "has no revision" in line and "gradatlas pin --model tiny" in line
    assert "not a commit hash" in one_line(fetch_model(hub, tmp_path, "org/tiny", "main"))
    assert "has no commit" in one_line(fetch_model(hub, tmp_path, "org/tiny", "0" * 40))
    assert "check the name" in one_line(fetch_model(hub, tmp_path, "org/none", commit))
    (model / "model.safetensors").unlink()
    assert "no safetensors" in one_line(fetch_model(hub, tmp_path, "org/tiny", commit))
    assert not (tmp_path / "card.json").exists()


def test_a_gated_model(hub, model, tmp_path):
    commit = hub.add("org/gated", model, gated=True)
    line = one_line(fetch_model(hub, tmp_path, "org/gated", commit))
    assert "https://huggingface.co/org/gated" in line and "HF_TOKEN" in line
    assert not (tmp_path / "card.json").exists()


def test_a_hub_out_of_reach(tmp_path):
    line = one_line(fetch_model(closed_port(), tmp_path, "org/tiny", "0" * 40))
    assert "mirror=FOLDER" in line and "FOLDER/models/org/tiny" in line


def test_a_mirror_of_models(hub, model, tmp_path):
    place = tmp_path / "mirror" / "models" / "org" / "tiny"
    shutil.copytree(model, place)
    done = fetch_model(closed_port(), tmp_path, "org/tiny", "", "--mirror", tmp_path / "mirror")
    assert done.returncode == 0, done.stderr
    assert snapshots.read_card(tmp_path / "card.json")["path"] == str(place)
    line = one_line(fetch_model(closed_port(), tmp_path, "org/other", "", "--mirror", tmp_path / "mirror"))
    assert str(tmp_path / "mirror" / "models" / "org" / "other") in line
    # A mirror of data alone has no say on models.
    (tmp_path / "data").mkdir()
    assert "has no revision" in one_line(fetch_model(hub, tmp_path, "org/tiny", "", "--mirror", tmp_path / "data"))


def test_a_mirror_at_another_commit(hub, model, tmp_path):
    commit = hub.add("org/tiny", model)
    assert fetch_model(hub, tmp_path, "org/tiny", commit).returncode == 0
    place = tmp_path / "mirror" / "models" / "org" / "tiny"
    shutil.copytree(tmp_path / "snapshots" / "org" / "tiny" / commit, place)
    mirror = ["--mirror", tmp_path / "mirror"]
    assert fetch_model(closed_port(), tmp_path, "org/tiny", commit, *mirror).returncode == 0
    assert commit in one_line(fetch_model(closed_port(), tmp_path, "org/tiny", "1" * 40, *mirror))


@pytest.mark.shared
@needs_shared("reference_stats")
def test_the_card_of_the_reference_model():
    folder = SHARED / "reference_stats" / "model"
    card = snapshots.card_of("reference", str(folder), "", folder)
    assert (card["layers"], card["hidden_size"], card["vocab_size"]) == (5, 96, 2048)
    # 2048 x 96 twice, and per layer Q, K, V, O, three of the MLP, two norms; one norm at the end.
    layer = 2 * 96 * 96 + 2 * 96 * 32 + 3 * 96 * 256 + 2 * 96
    assert card["parameters"] == 2 * 2048 * 96 + 5 * layer + 96


# --- pinning ---------------------------------------------------------------------------------------------------------


def test_pin_fills_empty_cells_and_nothing_else(hub, model, tmp_path):
    first, second = hub.add("org/one", model), hub.add("org/two", model, gated=True)
    sheet = tmp_path / "models.tsv"
    lines = [
        "\ufeffmodel\ttitle\tsource\trevision\tkind",
        "mini\tMiniature – klein\tminiature\t\tbase",
        "one\tOne\torg/one\t\tbase",
        "local\tLocal\t./folder\t\tbase\r",
        "two\tTwo\torg/two\t\tbase\r",
        f"old\tOld\torg/old\t{'a' * 40}\tbase",
        "",
    ]
    sheet.write_bytes("\n".join(lines).encode())
    done = script("pin", "--sheet", sheet, "--model", "two", **environment(hub, tmp_path))
    assert (done.returncode, done.stdout) == (0, f"two\t{second}\n"), done.stderr
    lines[4] = f"two\tTwo\torg/two\t{second}\tbase\r"
    assert sheet.read_bytes() == "\n".join(lines).encode()
    done = script("pin", "--sheet", sheet, **environment(hub, tmp_path))
    assert done.stdout == f"one\t{first}\n"
    lines[2] = f"one\tOne\torg/one\t{first}\tbase"
    assert sheet.read_bytes() == "\n".join(lines).encode()
    assert "nothing to pin" in script("pin", "--sheet", sheet, **environment(hub, tmp_path)).stdout
    assert "did you mean 'two'" in one_line(script("pin", "--sheet", sheet, "--model", "tow"))


def test_pin_writes_all_or_nothing(hub, model, tmp_path):
    hub.add("org/one", model)
    sheet = tmp_path / "models.tsv"
    before = "model\tsource\trevision\none\torg/one\t\nlost\torg/lost\t\n"
    sheet.write_text(before)
    assert "lost: the hub shows no model org/lost" in one_line(
        script("pin", "--sheet", sheet, **environment(hub, tmp_path))
    )
    assert "mirror=FOLDER" in one_line(script("pin", "--sheet", sheet, **environment(closed_port(), tmp_path)))
    assert sheet.read_text() == before
    sheet.write_text("model\tsource\none\torg/one\n")
    assert "column 'revision' is missing" in one_line(script("pin", "--sheet", sheet))
    assert "no such file" in one_line(script("pin", "--sheet", tmp_path / "none.tsv"))


def test_the_sheet_of_models_is_whole():
    rows = {row["model"]: row for row in read_sheet("models.tsv")}
    assert len(rows) == 35
    for name, row in rows.items():
        assert None not in row.values(), f"{name}: a column is missing"
        if row["partner"]:
            assert rows[row["partner"]]["kind"] == "base"
        assert (row["kind"] == "base") == (not row["partner"])
        assert snapshots.is_hub_id(row["source"]) != (row["source"] == "miniature")


def read_sheet(name):
    with open(ROOT / "config" / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))
