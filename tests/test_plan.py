"""The plan of a study: what the second one takes, against the slow way; the job on shipped configs."""

import json
import shutil

import peft
import pytest
import transformers
import yaml

from conftest import ROOT, call, settings
from gradatlas.core.sheets import read_sheet
from gradatlas.finetuning.judging.judges import REQUEST
from gradatlas.finetuning.rephrases import PROMPTS
from gradatlas.planning.dynamics import JUDGING, REPHRASING, estimate, sizes, total_note
from gradatlas.planning.estimates import in_bytes, lines, total
from gradatlas.planning.known import known_model
from gradatlas.planning.refusals import Machine, notes, refusals
from gradatlas.planning.shapes import of_config, of_text
from gradatlas.planning.stages import estimates
from gradatlas.planning.throughput import rates
from gradatlas.study.config import read_study
from gradatlas.study.runs import read_plan
from gradatlas.study.sheets import ModelRow

BASE = "resources/miniature/base"
DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())


def merged(*others):
    """The default config with other keys, section by section."""
    config = dict(DEFAULT)
    for other in others:
        config |= {key: config[key] | each if isinstance(each, dict) else each for key, each in other.items()}
    return config


def estimated(config, known=None):
    study = read_study(config, ROOT)
    plan = read_plan(study.config["dynamics"], ROOT, study.config["generate"]["model"])
    known = sizes(study.learners) if known is None else known
    return estimate(study.config, plan, study.learners, known), study, plan


def by_what(rows):
    return {row.what: row for row in rows}


PAPER = merged(yaml.safe_load((ROOT / "config/dynamics_paper.yaml").read_text()), {"datasets": []})
ALL_KEPT = merged(PAPER, {"dynamics": PAPER["dynamics"] | {"keep_models": True, "checkpoint_every": 1}})


def asked_for(config, plan, steps_of):
    """Requests of the judge for one model and seed, one contest at a time: every two different models once, twice."""
    prompts = min(config["dynamics"]["generate_prompts"], config["dynamics"]["held_out"])
    contests, kept = 0, set()
    for name in plan.watched:
        for other in plan.runs[name]["baseline"]:
            if other not in plan.watched:
                continue
            for step in steps_of(name):
                for its in steps_of(other):
                    if step * plan.runs[other]["steps"] != its * plan.runs[name]["steps"]:
                        continue
                    contests += prompts
                    models = []
                    for run, at in ((name, step), (other, its)):
                        if at == 0:
                            run = plan.runs[run]["init"]
                            at = plan.runs[run]["steps"] if run else 0
                        models.append(f"{run}@{at}")
                    if models[0] != models[1]:
                        kept |= {tuple(models), tuple(models[::-1])}
    return contests, prompts * len(kept)


def test_contests_and_requests_one_by_one():
    rows, study, plan = estimated(ALL_KEPT)
    found = by_what(rows)

    def steps_of(name):
        row = plan.runs[name]
        return [
            step
            for step in range(row["steps"] + 1)
            if step in (0, row["steps"]) or (row["generate_every"] and step % row["generate_every"] == 0)
        ]

    contests, requests = asked_for(study.config, plan, steps_of)
    copies = len(study.learners) * len(study.config["dynamics"]["seeds"])
    assert found["judgements"].count == contests * copies
    assert found["judgements, both orders"].requests == requests * copies
    # Of these, extend against baselines before the first update: equal responses of one model.
    assert requests < 2 * contests
    responses = sum(len(steps_of(name)) * (1500 if plan.runs[name]["probed"] else 2000) for name in plan.watched)
    assert found["free responses"].count == responses * copies
    # hh_sft and hh_dpo keep five models each along the way.
    assert found["models"].count == (len(plan.runs) + 10) * copies
    evaluations = sum(len(range(0, row["steps"], row["evaluate_every"])) + 1 for row in plan.runs.values())
    assert found["checkpoints"].count == evaluations * copies


def test_disk_of_weights_and_checkpoints():
    rows, _, plan = estimated(ALL_KEPT)
    found = by_what(rows)
    seeds, weights = 3, [4 * 405_334_016, 4 * 1_836_828_672]
    assert found["models"].written == seeds * (len(plan.runs) + 10) * sum(weights)
    # RMSprop keeps one number for each weight; two of the larger model's states at one time.
    assert found["checkpoints"].temporary == 2 * 2 * weights[1]
    assert found["checkpoints"].written == found["checkpoints"].count // 2 * 2 * sum(weights)
    less = by_what(estimated(PAPER)[0])
    assert less["models"].kept == 0 and less["models"].temporary == found["models"].written
    assert less["checkpoints"].written < found["checkpoints"].written / 8
    unknown, *_ = estimated(PAPER, {"pythia_410m": 405_334_016})
    assert by_what(unknown)["models"].kept is None and by_what(unknown)["models"].count == found["models"].count
    assert total(unknown).kept is None and any("unknown" in line for line in lines(unknown) if line.startswith("total"))


@pytest.mark.parametrize("every", [1, 2, 3, 10])
def test_checkpoints_are_those_that_a_run_writes(every):
    """As the loop does: at the first evaluation, at every so many, and at the last."""
    given = {"checkpoint_every": every, "runs": ["smoke_sft"], "steps": 1}
    rows, _, plan = estimated(merged(DEFAULT, {"dynamics": DEFAULT["dynamics"] | given}))
    run = plan.runs["smoke_sft"]
    evaluations = run["steps"] // run["evaluate_every"] + 1
    written = [place for place in range(evaluations) if place % every == 0 or place == evaluations - 1]
    assert by_what(rows)["checkpoints"].count == len(written)


def test_money_is_of_the_config_s_prices_alone():
    rows, *_ = estimated(PAPER)
    assert total(rows).requests and total(rows).cost is None and "no price" in lines(rows)[-1]
    priced, *_ = estimated(merged(PAPER, {"generate": PAPER["generate"] | {"input_price": 2.5, "output_price": 10}}))
    sums = total(priced)
    assert sums.cost == pytest.approx((sums.tokens_in * 2.5 + sums.tokens_out * 10) / 1e6)
    assert f"{sums.cost:,.2f}" in total_note(priced)[0] and f"{sums.requests:,} requests" in total_note(priced)[0]
    # The oracle costs nothing: no line.
    assert total_note(estimated(DEFAULT)[0]) == [] and total(estimated(DEFAULT)[0]).requests == 0


def test_rephrases_that_a_file_has_are_asked_of_nobody():
    other = PAPER["dynamics"] | {"pairs": "ultrafeedback"}
    found = by_what(estimated(merged(PAPER, {"dynamics": other}))[0])
    assert found["rephrases"].requests == 3 * (500 + 500) * 5
    given = merged(PAPER, {"dynamics": other | {"rephrases": "there.jsonl"}})
    # The study's own files have them for its first dataset.
    assert not {"rephrases"} & (by_what(estimated(given)[0]).keys() | by_what(estimated(PAPER)[0]).keys())


def test_a_request_without_its_texts_is_shorter_than_allowed():
    # English has less than 1.5 tokens a word.
    assert 1.5 * len(REQUEST.split()) <= JUDGING
    assert 1.5 * max(len(each.split()) for each in PROMPTS.values()) <= REPHRASING


SHEET = read_sheet(ROOT / "config/models.tsv", ModelRow, "model")
KINDS = {"Qwen": "Qwen2", "google": "Gemma2", "EleutherAI": "GPTNeoX", "meta-llama": "Llama", "HuggingFaceTB": "Llama"}


@pytest.mark.parametrize("name", [name for name, row in SHEET.items() if row["shape"]])
def test_the_sheets_parameters_are_those_of_its_shapes(name):
    """Counted without weights, by transformers; and the shape is read from its config as it stands in the sheet."""
    import torch
    import transformers

    row = SHEET[name]
    shape = of_text(row["shape"])
    kind = KINDS[row["source"].split("/")[0]]
    given = {"vocab_size": shape.vocabulary, "hidden_size": shape.width, "num_hidden_layers": shape.layers}
    given |= {"num_attention_heads": shape.heads, "intermediate_size": shape.feedforward}
    given |= {"tie_word_embeddings": shape.tied, "max_position_embeddings": shape.positions, "dtype": shape.stored}
    given |= {} if kind == "GPTNeoX" else {"num_key_value_heads": shape.kv_heads}
    given |= {"head_dim": shape.head} if kind in ("Llama", "Gemma2") else {}
    config = getattr(transformers, f"{kind}Config")(**given)
    with torch.device("meta"):
        model = getattr(transformers, f"{kind}ForCausalLM")(config)
    assert sum(each.numel() for each in model.parameters()) == row["parameters"]
    assert of_config(config.to_dict()) == shape


@pytest.mark.parametrize(
    ("count", "text"), [(None, "unknown"), (0, ""), (999, "999 B"), (1234, "1.23 kB"), (61.3e12, "61.3 TB")]
)
def test_bytes_as_readers_write_them(count, text):
    assert in_bytes(count) == text


# The job --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def planned(tmp_path, monkeypatch, capsys):
    """Runs the job in an empty folder without a token of the hub: exit code, what it printed, its JSON, its error."""
    monkeypatch.chdir(tmp_path)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no_token"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def run(*names, elsewhere=False, **config):
        files = [ROOT / f"config/{name}.yaml" for name in names]
        more = [*(["--config", *files] if files else []), *(["--elsewhere"] if elsewhere else [])]
        done = call("plan", *settings(**config), "--output", tmp_path / "plan.json", *more)
        return done.returncode, capsys.readouterr().out, json.loads((tmp_path / "plan.json").read_text()), done.stderr

    return run


def rows_of(facts, stage):
    return {row["what"]: row for row in facts["rows"] if row["stage"] == stage}


def test_the_default_study_can_run(planned, tmp_path):
    code, text, facts, _ = planned()
    assert code == 0 and facts["stops"] == []
    assert rows_of(facts, "measure_gradients")["mini, mini_arithmetic"]["count"] == 360
    assert facts["total"]["requests"] == facts["total"]["download"] == 0
    assert {row["unit"] for row in facts["rows"]} == {"", "core"}
    assert "core-hours, at 0.0969 TFLOP/s of passes" in text
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_a_study_that_cannot_run_to_its_end_says_why(planned):
    code, text, facts, error = planned("laptop")
    assert code == 2 and "gradatlas pin --model smollm2_135m" in error and len(error.strip().splitlines()) == 1
    (download,) = rows_of(facts, "download_model").values()
    assert download["download"] == 2 * 134_515_008 and f"stop: {facts['stops'][0]}" in text
    # Unpinned, and its licence not accepted: one line for all models that are about the same.
    code, text, facts, error = planned("paper")
    assert code == 2 and len([line for line in facts["stops"] if "no revision" in line]) == 1
    licences = next(line for line in facts["stops"] if "licence" in line)
    assert "gemma2_9b_it" in licences and "llama2_7b" in licences and "qwen" not in licences
    assert rows_of(facts, "write_untrained").keys() == {"qwen2_1_5b_random", "gemma2_2b_random"}
    assert all(row["memory"] and row["hours"] for row in rows_of(facts, "measure_gradients").values())


def test_both_studies_at_the_papers_scale(planned):
    _, text, facts, _ = planned("paper", "dynamics_paper", elsewhere=True)
    assert {row["unit"] for row in facts["rows"]} == {"", "gpu"} and "an NVIDIA H100" in text
    assert any("config/pairs/hh_helpful.yaml" in line for line in facts["stops"])
    assert facts["total"]["requests"] == 552_000 and "OPENAI_API_KEY" in " ".join(facts["notes"])
    # Main memory of a job on a GPU is that of the weights.
    row = rows_of(facts, "measure_gradients")["llama3_8b, gsm8k"]
    assert 4 * 8_030_261_248 < row["memory"] < 40e9 and row["gpu_memory"] > 80e9
    # More memory than this machine has stops a run here alone.
    assert not any("memory" in line for line in facts["stops"])


def test_data_of_quality_have_a_stated_size(planned):
    _, _, facts, _ = planned("data_quality")
    found = rows_of(facts, "score_samples")
    assert found["llama3_8b, s1_r1"]["count"] == 200 and found["llama3_8b, s1_r1"]["tokens"] == 200 * 4096
    assert len(found) == 10 * 32


ROWS = {
    "cuda": ({"device": "cuda"}, "own: 1 GPU needed"),
    "several GPUs": ({"device": "cuda", "gpus": 2}, "own: 2 GPU needed"),
    "several GPUs, of none": ({"gpus": 2}, "own: 2 GPU needed"),
    "an adapter": ({"adapter": "org/adapter"}, "own: no adapter_revision"),
    "no folder": ({"source": "/nosuch"}, "own: /nosuch: no such folder"),
    "no adapter": ({"adapter": "/nosuch"}, "own: /nosuch: no such folder"),
    "virtual tokens": ({"adapter": "prefix"}, "of kind PREFIX_TUNING adds tokens"),
    "no A and B": ({"adapter": "ia3", "lora": "separate"}, "of kind IA3 has no matrices A and B"),
    "another shape": ({"adapter": "wide"}, "q_proj.lora_A.weight is [4, 256], there it is [4, 128]"),
    "another base on the hub": (
        {"adapter": "hub", "source": "org/base", "revision": "a" * 40},
        "an adapter of org/other",
    ),
    "other modules": ({"adapter": "gpt2"}, "Target modules"),
}
ELSEWHERE = {"cuda", "several GPUs", "several GPUs, of none"}
ADAPTERS = {
    "prefix": (peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4), 128),
    "ia3": (peft.IA3Config(target_modules=["k_proj"], feedforward_modules=[]), 128),
    "lora": (peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"]), 128),
    "wide": (peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"]), 256),
    "hub": (peft.LoraConfig(r=4, target_modules=["q_proj"]), 128),
    "gpt2": (peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"]), 128),
}


@pytest.fixture(scope="session")
def adapters(tmp_path_factory):
    """Folders of adapters of the miniature's base and of others."""
    folder, base = tmp_path_factory.mktemp("adapters"), transformers.AutoConfig.from_pretrained(ROOT / BASE)
    for name, (config, width) in ADAPTERS.items():
        base.hidden_size = width
        peft.get_peft_model(transformers.AutoModelForCausalLM.from_config(base), config).save_pretrained(folder / name)
    place = folder / "gpt2/adapter_config.json"
    place.write_text(place.read_text().replace("_proj", "_other"))
    place = folder / "hub/adapter_config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"base_model_name_or_path": "org/other"}))
    return folder


@pytest.mark.parametrize("case", ROWS)
def test_a_row_that_cannot_be_measured_is_refused(case, planned, adapters):
    row, message = ROWS[case]
    model = {"model": "own", "source": str(ROOT / BASE), **row}
    if row.get("adapter") in ADAPTERS:
        model["adapter"] = str(adapters / row["adapter"])
    config = {"models": [model], "datasets": ["mini_unseen"], "dynamics": {"runs": []}}
    code, _, facts, error = planned(**config)
    assert code == 2 and message in error and len(facts["stops"]) == 1
    # Nodes of a cluster have GPUs of their own.
    assert planned(**config, elsewhere=True)[0] == (0 if case in ELSEWHERE else 2)


def test_lora_apart_is_counted(planned, adapters):
    def row(**more):
        model = {"model": "own", "source": str(ROOT / BASE), "adapter": str(adapters / "lora"), **more}
        code, _, facts, _ = planned(models=[model], datasets=["mini_unseen"], dynamics={"runs": []})
        assert code == 0 and facts["stops"] == []
        return rows_of(facts, "measure_gradients")["own, mini_unseen"]

    merged, apart = row(), row(lora="separate")
    # Q, K, V, O, and A and B of Q and V: twice as many matrices, the new ones of rank 4.
    assert 1.8 < apart["kept"] / merged["kept"] < 2 and apart["memory"] > merged["memory"]
    assert merged["spectra"] < apart["spectra"] < 2 * merged["spectra"]


def test_a_model_of_a_folder_is_read_and_one_that_is_nowhere_is_unknown(planned, tmp_path):
    base = ROOT / "resources/miniature/base"
    shutil.copytree(base, tmp_path / "quantised")
    facts = json.loads((base / "config.json").read_text()) | {"quantization_config": {"quant_method": "gptq"}}
    (tmp_path / "quantised/config.json").write_text(json.dumps(facts))
    models = [
        {"model": "own", "source": str(base)},
        {"model": "quantised", "source": str(tmp_path / "quantised"), "parameters": 5},
        {"model": "nowhere", "source": "org/nowhere", "revision": "a" * 40},
        {"model": "sized", "source": "org/sized", "revision": "a" * 40, "parameters": 10**9},
    ]
    config = {"datasets": ["mini_unseen"], "dynamics": {"runs": []}, "max_length": 2048}
    code, text, facts, _ = planned(models=models, **config)
    found = rows_of(facts, "measure_gradients")
    # Counted from its config.json.
    passes = 4 * 1_374_848 * 1024 + 12 * 1024**2 * 128 * 6
    assert found["own, mini_unseen"]["passes"] == pytest.approx(passes * found["own, mini_unseen"]["count"])
    assert found["nowhere, mini_unseen"]["passes"] is None and found["nowhere, mini_unseen"]["memory"] is None
    assert found["sized, mini_unseen"]["passes"] and found["sized, mini_unseen"]["spectra"] is None
    assert rows_of(facts, "download_model")["sized"]["download"] is None and "unknown" in text
    notes = " ".join(facts["notes"])
    assert "nowhere: size unknown" in notes and "sized: shape unknown" in notes
    assert "own, quantised: 1024 positions, max_length is 2048" in notes
    assert code == 2 and any("weights quantised by 'gptq'" in line for line in facts["stops"])


def test_files_that_a_mirror_lacks(planned, tmp_path):
    (tmp_path / "mirror/models/org/own").mkdir(parents=True)
    shutil.copy(ROOT / "resources/miniature/base/config.json", tmp_path / "mirror/models/org/own")
    # Without a revision, as the mirror has it; without weights there, they would be downloaded.
    models = [{"model": "own", "source": "org/own"}]
    config = {"models": models, "datasets": ["gsm8k"], "mirror": str(tmp_path / "mirror"), "dynamics": {"runs": []}}
    code, _, facts, error = planned(**config)
    assert code == 2 and len(facts["stops"]) == 1
    assert "lacks files of gsm8k (3 of 3): add them" in error and "warning" not in error
    assert rows_of(facts, "measure_gradients")["own, gsm8k"]["spectra"]


def test_a_config_file_that_is_not_there(planned, tmp_path):
    done = call("plan", "--config", tmp_path / "none.yaml", "--output", tmp_path / "plan.json")
    assert done.returncode == 2 and f"--config {tmp_path / 'none.yaml'}: cannot be read" in done.stderr


@pytest.mark.parametrize(
    ("gpu", "row", "message"),
    [
        (None, {"device": "cpu"}, "jobs need more memory than this machine has (25.3 GB): qwen2_1_5b"),
        (80e9, {"device": "cuda"}, ""),
        (24e9, {"device": "cuda"}, ""),
        (6e9, {"device": "cuda"}, "jobs need more memory than a GPU here has (6 GB), with batches of one sample"),
        (6e9, {"device": "cuda", "gpus": 2}, ""),
        (None, {"device": "cuda"}, ""),
    ],
)
def test_jobs_that_do_not_fit_into_memory_are_refused(gpu, row, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    name = "qwen2_1_5b"
    model = SHEET[name] | {"revision": "a" * 40, "partner": ""} | row
    config = merged({"models": [model], "datasets": ["mini_unseen"], "dynamics": {"runs": []}})
    study = read_study(config, ROOT)
    runs = read_plan(study.config["dynamics"], ROOT)
    models, on_gpu = {name: known_model(study.models[name])}, {name: row["device"] == "cuda"}
    found = estimates(study, runs, models, rates(study.config["throughput"]), on_gpu)
    machine = Machine(2 if on_gpu[name] else 0, gpu, 25_300_000_000, 10**15, True)
    stops = refusals(study, runs, models, found, machine)
    assert (message in stops[0] and len(stops) == 1) if message else not stops
    # A full batch of 4,096 tokens; halves of it are tried.
    full = any("full batches need more memory" in line for line in notes(study, models, found, machine, on_gpu))
    assert full == (gpu in (24e9, 6e9))


def test_a_study_without_models_says_so(planned):
    code, text, facts, _ = planned(
        gradients="published", models=["qwen2_1_5b"], datasets=["gsm8k"], dynamics={"runs": []}
    )
    assert code == 0 and "no job reads or downloads a model" in text and facts["rows"] == []
