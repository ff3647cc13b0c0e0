"""The estimate of what the second study takes, against the slow way, and against the files of a finished run."""

import pytest
import yaml

from conftest import ROOT
from gradatlas.core.sheets import read_sheet
from gradatlas.finetuning.judging.judges import REQUEST
from gradatlas.finetuning.rephrases import PROMPTS
from gradatlas.planning.dynamics import JUDGING, REPHRASING, estimate, sizes, total_note
from gradatlas.planning.estimates import in_bytes, lines, total
from gradatlas.planning.shapes import of_config, of_text
from gradatlas.study.config import read_study
from gradatlas.study.runs import read_plan
from gradatlas.study.sheets import ModelRow

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
    assert found["models"].count == len(plan.runs) * copies
    evaluations = sum(len(range(0, row["steps"], row["evaluate_every"])) + 1 for row in plan.runs.values())
    assert found["checkpoints"].count == evaluations * copies


def test_disk_of_weights_and_checkpoints():
    rows, _, plan = estimated(ALL_KEPT)
    found = by_what(rows)
    seeds, weights = 3, [4 * 405_334_016, 4 * 1_836_828_672]
    assert found["models"].written == seeds * len(plan.runs) * sum(weights)
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
    given = {"checkpoint_every": every, "runs": ["smoke_sft"]}
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
