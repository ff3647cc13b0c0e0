"""Released statistics: the study's own lines read, figures from them alone, and bad lines."""

import json
import math
import shutil

import polars as pl
import pytest

from conftest import ROOT, SHARED, call, needs_shared, published_files, script, settings, user_error
from gradatlas.core.errors import InputError
from gradatlas.data.places import find_released, released_path
from gradatlas.gradients.released import read_file, read_line
from loopback import FakeHub
from test_workflow import make, snakemake

REFERENCE = SHARED / "reference_stats/grads_exp"
KEYS = ("M_mean", "M_max", "M_min", "frobenius_norm", "S_sum", "S_max", "S_min")


def line(layers=2, **change):
    """A line as the study's code writes it."""
    made = {"instruction": "Q", "output": "A", "loss": 1.5}
    for layer in range(layers):
        for place, projection in enumerate("qkvo"):
            name = f"model.layers.{layer}.self_attn.{projection}_proj.weight"
            made[name] = {key: layer + place + rank / 8 for rank, key in enumerate(KEYS)}
    return made | change


@needs_shared("reference_stats")
@pytest.mark.parametrize("layers", [18, 24, 36])
def test_any_number_of_layers(layers):
    sample = read_line(json.dumps(line(layers)), "x")
    assert len(sample["spectra"]) == layers and sample["spectra"][-1][3]["nuclear_norm"] == layers - 1 + 3 + 0.5


def test_the_follow_ups_singular_values():
    made = line(1)
    for name in [name for name in made if "self_attn" in name]:
        made[name] = {"S_list": [3.0, 1.0, 0.0]}
    values = read_line(json.dumps(made), "x")["spectra"][0][0]
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert values["effective_rank"] == pytest.approx(math.exp(entropy))
    assert (values["nuclear_norm"], values["sigma_max"], values["sigma_min"]) == (4.0, 3.0, 0.0)
    assert values["frobenius_norm"] == pytest.approx(math.sqrt(10)) and values["mean"] is None


def test_both_kinds_of_values_and_their_own_come_first():
    name = "model.layers.0.self_attn.q_proj.weight"
    values = read_line(json.dumps(line(1) | {name: {**line(1)[name], "S_list": [1.0, 1.0]}}), "x")["spectra"][0][0]
    assert values["nuclear_norm"] == line(1)[name]["S_sum"] and values["effective_rank"] == pytest.approx(2)


def without(*names, layers=2):
    return {key: value for key, value in line(layers).items() if key not in names}


K1 = "model.layers.1.self_attn.k_proj.weight"
WRONG = {
    "cut": ('{"instruction": "Q", ', "not JSON"),
    "a list": ("[]", "not an object"),
    "no loss": (json.dumps(without("loss")), "'loss' is missing"),
    "a missing projection": (json.dumps(without(K1)), "layer 1 has no k_proj, only o, q, v"),
    "a missing layer": (
        json.dumps({key: value for key, value in line(3).items() if ".1." not in key}),
        "has layers 0, 2; give all layers from 0 on",
    ),
    "no layer at all": (json.dumps({"instruction": "Q", "output": "A", "loss": 1}), "has layers none; give all layers"),
    "no values": (json.dumps(line() | {K1: 3}), f"'{K1}': not an object; give S_sum"),
    "a text as a value": (json.dumps(line() | {K1: {"S_sum": "abc", "S_max": 1}}), f"'{K1}': 'S_sum' is \"abc\""),
    "a text in a list": (
        json.dumps(line() | {K1: {"S_list": ["a"]}}),
        f"'{K1}': 'S_list' is \"a\", not a number",
    ),
    "no list": (json.dumps(line() | {K1: {"S_list": 3}}), f"'{K1}': 'S_list' is not a list of numbers"),
    "a text as loss": (json.dumps(line(loss="abc")), "'loss' is \"abc\", not a number"),
    "a list as loss": (json.dumps(line(loss=[1])), "'loss' is [1], not a number"),
    "a list as instruction": (json.dumps(line(instruction=["Q"])), "'instruction' is not a text"),
    "a number as output": (json.dumps(line(output=3)), "'output' is not a text"),
    "too large": (json.dumps(line(loss=10**400)), "'loss' is too large"),
    "no nuclear norm": (json.dumps(line() | {K1: {"S_max": 1}}), f"'{K1}': 'S_sum' is missing, and there is no S_list"),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_lines_are_named(name, tmp_path):
    text, message = WRONG[name]
    path = tmp_path / "grads.jsonl"
    path.write_text(json.dumps(line()) + "\n" + text + "\n")
    with pytest.raises(InputError) as caught:
        list(read_file(path))
    assert f"{path}, line 2" in str(caught.value) and message in str(caught.value)


def test_other_parameters_are_named_and_left_out(tmp_path, capsys):
    path = tmp_path / "grads.jsonl"
    path.write_text(json.dumps(line() | {"lm_head.weight": {"S_sum": 1}}) + "\n")
    assert len(list(read_file(path))) == 1
    assert "not q, k, v or o, ignored: lm_head.weight" in capsys.readouterr().err


def test_bad_files_are_named(tmp_path):
    path = tmp_path / "grads.jsonl"
    for content, message in ((b"", "the file is empty"), (b"\xff", "not UTF-8 at byte 0")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            list(read_file(path))
    path.write_text(json.dumps(line(2)) + "\n" + json.dumps(line(3)) + "\n")
    with pytest.raises(InputError, match="line 2: 3 layers, but 2 before"):
        list(read_file(path))


def test_places(tmp_path):
    path = released_path("cot_500/gsm8k_train_no_cot.json", "qwen2_1_5b_it_new")
    assert path == "grads_exp/cot_500/qwen2_1_5b_it_new/grads_gsm8k_train_no_cot.jsonl"
    place = tmp_path / "cot_500/m/grads_x.jsonl"
    place.parent.mkdir(parents=True)
    place.write_text("")
    assert find_released(str(tmp_path), "", "grads_exp/cot_500/m/grads_x.jsonl", "cache") == str(place)
    with pytest.raises(InputError, match="no such file; add it"):
        find_released(str(tmp_path), "", "grads_exp/cot_500/m/grads_y.jsonl", "cache")
    with pytest.raises(InputError, match=r"no such folder; fix config key released\.source"):
        find_released(str(tmp_path / "nowhere"), "", "grads_exp/x", "cache")
    with pytest.raises(InputError, match=r"no revision is given; put the commit into config key released\.revision"):
        find_released("org/name", "", "grads_exp/x", "cache")


def test_a_hub_dataset_at_its_commit(tmp_path, table):
    """Found, kept for the next time, and one line for a file, commit or dataset that is not there."""
    path = "grads_exp/cot_500/m/grads_x.jsonl"
    place = tmp_path / "repository" / path
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps(line(instruction="Q2", output="no")) + "\n")
    with FakeHub() as hub:
        commit = hub.add_dataset("org/name", tmp_path / "repository")
        environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
        environment |= {"HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}

        def run(source="org/name", revision=commit, file=path):
            return script(
                "import_released", "--released", source, "--revision", revision, *settings(files=[none_correct(file)]),
                "--model-name", "m", "--responses", table, "--samples", tmp_path / "samples.parquet",
                "--spectra", tmp_path / "spectra.parquet", "--cache", tmp_path / "cache", env=environment, timeout=120,
            )  # fmt: skip

        done = run()
        assert done.returncode == 0, done.stderr
        assert pl.read_parquet(tmp_path / "samples.parquet")["sample_id"].to_list() == ["1"]
        assert "the hub shows no dataset org/other" in user_error(run(source="org/other"))
        assert "has no commit" in user_error(run(revision="f" * 40))
        assert "has no file grads_exp/y.jsonl" in user_error(run(file="grads_exp/y.jsonl"))
    assert run().returncode == 0, "what is there needs no network"


# --- through the tables ----------------------------------------------------------------------------------------------

DATA = [("Q1", "yes"), ("Q2", "no"), ("Q1", "yes")]


@pytest.fixture
def table(tmp_path):
    """Responses in which one question stands twice."""
    (tmp_path / "none.json").write_text(json.dumps([{"instruction": q, "output": a} for q, a in DATA]))
    chosen = published_files([("none", "correct", tmp_path / "none.json")], variants=["none"], relations=["correct"])
    done = call("build_responses", "--dataset", "own", *chosen, "--output", tmp_path / "own.parquet")
    assert done.returncode == 0
    return tmp_path / "own.parquet"


def none_correct(path):
    return {"variant": "none", "relation": "correct", "path": path}


def imported(tmp_path, table, lines):
    (tmp_path / "grads.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    return call(
        "import_released", "--released", tmp_path, *settings(files=[none_correct("grads.jsonl")]), "--model-name", "m",
        "--responses", table, "--samples", tmp_path / "samples.parquet", "--spectra", tmp_path / "spectra.parquet",
    )  # fmt: skip


def test_samples_are_found_by_their_texts_also_where_a_question_is_twice(tmp_path, table):
    lines = [line(instruction="Q1", output="yes", loss=loss) for loss in (1.0, 2.0)]
    done = imported(tmp_path, table, [line(instruction="Q2", output="no", loss=3.0), *lines])
    assert done.returncode == 0, done.stderr
    samples = pl.read_parquet(tmp_path / "samples.parquet")
    assert dict(samples.select("sample_id", "loss").iter_rows()) == {"1": 3.0, "0": 1.0, "2": 2.0}
    assert samples["loss_concentration"].is_null().all()
    assert pl.read_parquet(tmp_path / "spectra.parquet").height == 3 * 2 * 4
    error = user_error(imported(tmp_path, table, [line(instruction="Q1", output="no")]))
    assert "grads.jsonl, line 1: its instruction and output are not a none, correct response in" in error


def test_samples_without_a_gradient_keep_their_row(tmp_path, table):
    """The study's code wrote NaN, and zeros for a response that was cut off whole."""
    zeros = line(instruction="Q2", output="no", loss=math.nan)
    for name in [name for name in zeros if "self_attn" in name]:
        zeros[name] = dict.fromkeys(KEYS, 0.0)
    done = imported(tmp_path, table, [line(instruction="Q1", output="yes", loss=math.nan), zeros])
    assert done.returncode == 0, done.stderr
    assert pl.read_parquet(tmp_path / "samples.parquet")["status"].to_list() == ["nonfinite", "no_response_tokens"]
    assert pl.read_parquet(tmp_path / "spectra.parquet").is_empty()


@pytest.mark.slow
@needs_shared("reference_stats")
@needs_shared("paper_data")
def test_figures_with_no_model(tmp_path):
    """From the reference's own files: figures and page with no model, of the lines' own values."""
    released = tmp_path / "there"
    shutil.copytree(REFERENCE, released / "grads_exp")
    arguments = [
        "-s", ROOT / "Snakefile", "--cores", 2, "--configfile", ROOT / "config/paper.yaml", "--config",
        f"mirror={SHARED / 'paper_data'}", "gradients=published", f"released={{source: {released}}}",
        "datasets=[gsm8k]", "relations=[correct,published]", "bootstrap=20", "formats=[svg]",
        "models=[{model: tiny, source: ORG/NAME, released: tiny-llama}]",
    ]  # fmt: skip
    output = make(tmp_path, *arguments, "--", "all")
    assert "measure_gradients" not in output and "fetch_model" not in output
    assert (tmp_path / "results/figures/gsm8k/tiny.published.compared.svg").is_file()
    edited = released / "grads_exp/cot_500/tiny-llama/grads_gsm8k_train_no_cot.jsonl"
    content = edited.read_text(encoding="utf-8")
    edited.chmod(0o644)
    edited.write_text(content + content.splitlines()[0] + "\n", encoding="utf-8")
    again = snakemake(tmp_path, "-n", *arguments, "--", "all")
    assert "import_released" in again.output, "an edited file is noticed"
    curves = pl.read_parquet(tmp_path / "results/statistics/gsm8k/curves.parquet")
    assert set(curves["statistic"]) == {"nuclear_norm", "sigma_ratio"} and set(curves["n"]) == {20}
    means = {}
    for each in read(REFERENCE / "cot_500/tiny-llama/grads_gsm8k_train_no_cot.jsonl"):
        means.setdefault("q", []).append(each["model.layers.0.self_attn.q_proj.weight"]["S_sum"])
    row = curves.filter(
        (pl.col("variant") == "none") & (pl.col("relation") == "correct") & (pl.col("projection") == "q")
        & (pl.col("layer") == 0) & (pl.col("statistic") == "nuclear_norm")
    )  # fmt: skip
    assert row["value"].item() == pytest.approx(sum(means["q"]) / 20)


def read(path):
    return [json.loads(each) for each in path.read_text(encoding="utf-8").splitlines()]


@needs_shared("reference_stats")
def test_a_missing_file_is_named(tmp_path):
    done = snakemake(
        ROOT, "--cores", 1, "--directory", tmp_path, "--configfile", ROOT / "config/paper.yaml", "--config",
        f"mirror={SHARED / 'paper_data'}", "gradients=published", f"released={{source: {SHARED / 'reference_stats'}}}",
        "datasets=[sensemaking]", "relations=[correct]", "models=[qwen2_1_5b_it]", "--", "gradients",
    )  # fmt: skip
    assert done.returncode == 1
    assert "grads_exp/cot_500/qwen2_1_5b_it_new/grads_sensemaking_train_no_cot.jsonl: no such file" in done.output
