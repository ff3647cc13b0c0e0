"""Config and sheets: what is chosen, and one clear line for every mistake."""

import shutil

import pytest
import yaml

from conftest import MINIATURE, ROOT
from gradatlas.core.errors import InputError
from gradatlas.data.made_up.miniature import DATASETS
from gradatlas.study.config import read_study, source_keys

DEFAULT = MINIATURE
PAPER = DEFAULT | yaml.safe_load((ROOT / "config/paper.yaml").read_text())


@pytest.fixture
def root(tmp_path):
    """A copy of the sheets, to spoil."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    return tmp_path


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "config").glob("*.yaml")))
def test_shipped_configs_are_valid(name):
    read_study(DEFAULT | yaml.safe_load((ROOT / f"config/{name}.yaml").read_text()), ROOT)


def test_a_config_that_turns_off_what_is_gone_is_read_and_one_that_asks_for_it_is_refused():
    for value in (False, "false"):
        assert read_study(DEFAULT | {"interactive": value}, ROOT).config == read_study(DEFAULT, ROOT).config
    with pytest.raises(InputError, match="'interactive': pages of single figures are gone, the atlas page") as caught:
        read_study(DEFAULT | {"interactive": True}, ROOT)
    assert "\n" not in str(caught.value)


def test_the_paper_config_is_the_study():
    study = read_study(PAPER, ROOT)
    untrained = [name for name, row in study.models.items() if row["kind"] == "random"]
    assert len(study.models) == 10 + len(untrained) and len(untrained) == 2 and len(study.datasets) == 11
    assert sum(row["kind"] == "instruct" for row in study.models.values()) == 5
    assert study.variants("math_algebra") == ["simplified", "detailed"]
    keys = [key for dataset in study.datasets for key in source_keys(study, dataset)]
    assert len(keys) == len(set(keys)) == 56


def test_miniature_rows_say_what_the_grammar_has():
    study = read_study(DEFAULT | {"datasets": list(DATASETS)}, ROOT)
    assert {name: tuple(row["variants"]) for name, row in study.datasets.items()} == DATASETS


def test_relations_are_those_a_dataset_has():
    study = read_study(
        PAPER | {"datasets": ["gsm8k", "mini_taxonomy"], "relations": ["correct", "wrong_chain", "published"]}, ROOT
    )
    assert study.relations("gsm8k") == ["correct", "published"]
    assert study.relations("mini_taxonomy") == ["correct", "wrong_chain"]


def test_a_variant_without_the_gold_answers_still_asks_for_their_file():
    study = read_study(PAPER | {"variants": {"gsm8k": ["detailed"]}, "relations": ["correct"]}, ROOT)
    assert source_keys(study, "gsm8k") == [("gsm8k", "detailed", "correct"), ("gsm8k", "none", "correct")]


def test_purpose_is_a_pipeline_check_outside_of_a_models_scope():
    row = {"model": "tiny", "source": "./tiny", "scope": "none"}
    config = PAPER | {"models": ["qwen2_1_5b", "mini", row], "datasets": ["gsm8k", "mini_taxonomy"]}
    study = read_study(config, ROOT)
    found = {(m, d): study.purpose(m, d) for m in study.models for d in study.datasets}
    assert {cell for cell, purpose in found.items() if purpose == "study"} == {
        ("qwen2_1_5b", "gsm8k"),
        ("qwen2_1_5b", "mini_taxonomy"),
        ("mini", "mini_taxonomy"),
    }


def test_numbers_that_the_command_line_gives_as_text_are_numbers():
    row = {"model": "tiny", "source": "./tiny", "threads": "2", "trust_remote_code": "true"}
    study = read_study(DEFAULT | {"models": [row], "miniature": {"steps": "7"}}, ROOT)
    assert study.models["tiny"]["threads"] == 2 and study.models["tiny"]["trust_remote_code"] is True
    assert study.config["miniature"]["steps"] == 7 and study.config["miniature"]["questions"] == 100
    text = {"seeds": ["0", "12"], "rejected_rarity": "0.5", "one_step": {"change": "0.02", "updates": "0"}}
    given = read_study(DEFAULT | {"dynamics": text}, ROOT).config["dynamics"]
    assert given["seeds"] == [0, 12] and given["rejected_rarity"] == 0.5
    assert given["one_step"]["change"] == 0.02 and given["one_step"]["updates"] == 0
    given = read_study(DEFAULT | {"toys": {"show": "true"}, "shards": "2", "seed": "2"}, ROOT).config
    assert given["toys"]["show"] is True and given["shards"] == 2 and given["seed"] == 2


def test_controls_are_measured_where_questions_have_answers():
    study = read_study(DEFAULT | {"relations": ["correct", "shuffled"]}, ROOT)
    assert study.controls("mini", "mini_popular") == []
    assert study.controls("mini", "mini_taxonomy") == [
        "detailed:correct:random:matched:2",
        "none:wrong_answer:all",
        "detailed:wrong_answer:all",
        "detailed:foreign_fluent:all",
    ]
    assert study.built("mini_taxonomy") == ["correct", "shuffled", "wrong_answer", "foreign_fluent"]
    # By the study's own algorithm, where corrected responses are beside it and the published ones are not.
    own = ["none:reference:all", "detailed:reference:all"]
    assert read_study(DEFAULT, ROOT).controls("mini", "mini_taxonomy")[-2:] == own
    assert not set(own) & set(read_study(DEFAULT, ROOT).controls("mini_random", "mini_taxonomy"))
    assert "reference" in read_study(DEFAULT, ROOT).built("mini_taxonomy")
    assert not set(own) & set(read_study(PAPER, ROOT).controls("qwen2_1_5b", "gsm8k"))
    less = read_study(DEFAULT | {"controls": "standard", "controls_models": ["mini"]}, ROOT)
    assert less.controls("mini_random", "mini_taxonomy") == [] and less.controls("mini", "mini_taxonomy")
    assert less.built("mini_popular") == less.relations("mini_popular")
    assert read_study(DEFAULT | {"controls": "none"}, ROOT).controls("mini", "mini_taxonomy") == []


def test_datasets_that_a_claim_compares_are_read_together():
    study = read_study(DEFAULT, ROOT)
    assert study.compared("mini_unseen") == ["mini_unseen", "mini_popular", "mini_unpopular"]
    assert study.compared("mini_popular") == ["mini_popular"]
    less = read_study(DEFAULT | {"datasets": ["mini_unpopular"]}, ROOT)
    assert less.compared("mini_unpopular") == ["mini_unpopular"]


def test_controls_of_the_paper_are_on_two_models_and_their_twin():
    study = read_study(PAPER, ROOT)
    measured = {model for model in study.models if study.controls(model, "gsm8k")}
    assert measured == {"qwen2_1_5b", "qwen2_1_5b_it", "qwen2_1_5b_random"}
    # Without None there is no number of its tokens.
    assert all(
        each.startswith("detailed:") and "random" not in each for each in study.controls("qwen2_1_5b", "math_algebra")
    )


# What was refused, and what the error says beside the file and the key.
WRONG = {
    "unknown key": ({"sampels": 3}, r"config: unknown key 'sampels': did you mean 'samples'\?"),
    "unknown key of a section": ({"miniature": {"step": 3}}, r"'miniature.step': did you mean 'steps'\?"),
    "unknown key two sections deep": (
        {"dynamics": {"one_step": {"update": 1}}},
        r"unknown key 'dynamics.one_step.update': did you mean 'updates'\?",
    ),
    "unknown key of images": ({"toys": {"images": {"sorce": "x"}}}, r"'toys.images.sorce': did you mean 'source'\?"),
    "a section that is text": ({"released": "folder"}, "'released' is 'folder'; write keys with values"),
    "a section that is a list": ({"dynamics": ["sft"]}, r"'dynamics' is \['sft'\]; write keys with values"),
    "a section that is a number": ({"dynamics": {"one_step": 3}}, "'dynamics.one_step' is 3; write keys with values"),
    "wrong type": (
        {"samples": "many"},
        "'samples': 'many' is not allowed. Meaning: samples of each dataset",
    ),
    "zero samples": ({"samples": 0}, "'samples': 0 is not allowed"),
    "half a sample": ({"samples": 2.5}, "'samples': 2.5 is not allowed"),
    "true for a number": ({"seed": True}, "'seed' is True; write a whole number. Meaning: of the subset"),
    "a word for a number": ({"seed": "x"}, "'seed' is 'x'; write a whole number"),
    "a word for a fraction": (
        {"generate": {"temperature": "warm"}},
        "'generate.temperature' is 'warm'; write a number",
    ),
    "no number": ({"generate": {"temperature": "nan"}}, "'generate.temperature' is nan; write a number"),
    "a fraction for a whole number": (
        {"generate": {"timeout": 1.5}},
        "'generate.timeout' is 1.5; write a whole number",
    ),
    "a number for text": ({"dynamics": {"rephrases": 3}}, "'dynamics.rephrases' is 3; write a text"),
    "nothing for text": ({"mirror": None}, "'mirror' has no value; write a text"),
    "nothing for a number": ({"shards": None}, "'shards' has no value; write a whole number"),
    "text for a list": ({"relations": "correct"}, "'relations' is 'correct'; write a list"),
    "a list for keys": ({"variants": ["none"]}, r"'variants' is \['none'\]; write keys with values"),
    "a number in a list of names": ({"controls_models": [3]}, "'controls_models.0' is 3; write a text"),
    "another word for true": ({"normalise_newlines": "yes"}, "'normalise_newlines' is 'yes'; write true or false"),
    "1 for true": ({"normalise_newlines": 1}, "'normalise_newlines' is 1; write true or false"),
    "true of Python": ({"miniature": {"retrain": "True"}}, "'miniature.retrain' is 'True'; write true or false"),
    "neither true nor false": ({"toys": {"show": "maybe"}}, "'toys.show' is 'maybe'; write true or false or nothing"),
    "below the least": ({"max_length": 1}, "'max_length': 1 is less than the minimum of 2. Meaning: window in tokens"),
    "below the least, as text": ({"miniature": {"steps": "-1"}}, "'miniature.steps': -1 is less than the minimum of 0"),
    "not above": ({"toys": {"images": {"rate": 0}}}, "'toys.images.rate': 0 is less than or equal to the minimum of 0"),
    "above the most": ({"dynamics": {"rejected_rarity": "1.5"}}, "1.5 is greater than the maximum of 1. Meaning: of"),
    "a wrong seed in a list": (
        {"dynamics": {"seeds": [0, -1]}},
        "'dynamics.seeds.1': -1 is less than the minimum of 0",
    ),
    "twice, as text": ({"dynamics": {"seeds": ["1", 1]}}, r"'dynamics.seeds': \[1, 1\] has non-unique elements"),
    "an empty list": ({"projections": []}, r"'projections': \[\] should be non-empty. Meaning: matrices to measure"),
    "an empty list of variants": ({"variants": {"gsm8k": []}}, r"'variants.gsm8k': \[\] should be non-empty"),
    "a branch for a commit": (
        {"released": {"revision": "main"}},
        "'released.revision': 'main' does not match .* commit",
    ),
    "no address": ({"generate": {"endpoint": "ftp://x"}}, "'generate.endpoint': 'ftp://x' does not match .* base URL"),
    "no variable": ({"generate": {"key_variable": "MY-KEY"}}, "'generate.key_variable': 'MY-KEY' does not match"),
    "an empty source": ({"released": {"source": ""}}, "'released.source': '' should be non-empty. Meaning: a folder"),
    "unknown format": ({"formats": ["svg", "jpg"]}, r"'formats.1': 'jpg' is not known: did you mean 'png'\?"),
    "no svg": ({"formats": ["png"]}, r"'formats': \['png'\] must name 'svg' too; figures need it"),
    "no loss over all tokens": ({"loss_tokens": ["last"]}, r"'loss_tokens': \['last'\] must name 'all' too"),
    "braces in a path": ({"dynamics": {"rephrases": "a{b}.jsonl"}}, "'dynamics.rephrases': 'a{b}.jsonl' has braces"),
    "a model that is a number": ({"models": [3]}, "'models.0': 3 is not allowed"),
    "a model row's seed": ({"models": [{"model": "x", "source": "./x", "seed": "x"}]}, "'seed' is 'x'; write a whole"),
    "a model row's source": ({"models": [{"model": "x", "source": "nowhere"}]}, "'source': 'nowhere' does not match"),
    "unknown model": (
        {"models": ["qwen2_1_5"]},
        r"config key 'models': unknown name 'qwen2_1_5': did you mean 'qwen2_1_5b'\?",
    ),
    "unknown dataset": (
        {"datasets": ["gms8k"]},
        r"config key 'datasets': unknown name 'gms8k': did you mean 'gsm8k'\?",
    ),
    "unknown variant": (
        {"variants": {"gsm8k": ["detail"]}},
        r"'variants.gsm8k': unknown variant 'detail': did you mean 'detailed'",
    ),
    "unknown relation": ({"relations": ["correct", "shuffeled"]}, "'relations.1': 'shuffeled' is not known"),
    "only a misspelt relation": (
        {"relations": ["corect"]},
        "'relations.0': 'corect' is not known: did you mean 'correct'",
    ),
    "no correct": ({"relations": ["published"]}, "'relations': .* must name 'correct' too"),
    "bad model row": (
        {"models": [{"model": "x", "source": "./x", "knd": "base"}]},
        r"unknown key 'knd': did you mean 'kind'\?",
    ),
    "model row without source": ({"models": [{"model": "x"}]}, "'source' is missing"),
    "unknown projection": ({"projections": ["q", "kk"]}, r"'projections.1': 'kk' is not known: did you mean 'k'\?"),
    "unknown metric": ({"metrics": ["nuclear_nrom"]}, "'metrics.0': 'nuclear_nrom' is not known: did you mean 'nucl"),
    "metrics without the figures'": ({"metrics": ["sigma_max"]}, "'metrics': .* must name 'nuclear_norm' too"),
    "unknown truncation": ({"truncation": "right"}, "'truncation': 'right' is not known"),
    "unknown loss tokens": (
        {"loss_tokens": ["all", "first"]},
        "'loss_tokens.1': 'first' .* Meaning: one of all, last, last:K, span:A:B",
    ),
    "no None response to match": (
        {"datasets": ["mini_unpopular"], "loss_tokens": ["all", "random:matched:2"]},
        "'random:matched:2' needs .* dataset 'mini_unpopular'",
    ),
    "unknown controls": ({"controls": "all"}, "'controls': 'all' is not known"),
    "controls on an unknown model": (
        {"controls_models": ["minni"]},
        r"config key 'controls_models': unknown name 'minni': did you mean 'mini'\?",
    ),
    "tokens of an unknown dataset": (
        {"tokens": {"mini_arithmetik": ["1"]}},
        r"config key 'tokens': unknown name 'mini_arithmetik': did you mean",
    ),
    "tokens of no sample": (
        {"tokens": {"gsm8k": []}},
        "'tokens': .* is not allowed. Meaning: also write each token",
    ),
    "published cosines": (
        {"cosines": True, "gradients": "published"},
        "config key 'cosines': released statistics do not",
    ),
    "nothing to do": ({"datasets": [], "dynamics": {"runs": []}}, "'datasets' and 'dynamics.runs' are both empty"),
    "no models": ({"models": []}, "'models' is empty, and datasets are named"),
}


@pytest.mark.parametrize("name", WRONG)
def test_config_mistakes_are_one_line(name):
    change, message = WRONG[name]
    with pytest.raises(InputError, match=message) as caught:
        read_study(DEFAULT | change, ROOT)
    assert "\n" not in str(caught.value)


def spoil(root, sheet, old, new):
    path = root / "config" / sheet
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


SPOILED = {
    "missing column": ("models.tsv", "\tsource\t", "\tsrc\t", r"models.tsv, line 1: column 'source' is missing"),
    "too few cells": ("models.tsv", "mini\tMiniature\t", "mini\t", r"models.tsv, line 2: 22 cells, but 23 columns"),
    "not a number": (
        "models.tsv",
        "base\t\t0\tcpu",
        "base\t\tzero\tcpu",
        r"line 2: 'seed' is 'zero'; write a whole number",
    ),
    "not a boolean": (
        "models.tsv",
        "miniature\tfalse",
        "miniature\tno",
        r"line 2: 'trust_remote_code' is 'no'; write true or false",
    ),
    "unknown device": ("models.tsv", "0\tcpu", "0\tgpu", r"line 2: 'device': 'gpu' is not known: did you mean 'cpu'"),
    "bad revision": ("models.tsv", "Qwen/Qwen2-1.5B\t\t", "Qwen/Qwen2-1.5B\tmain\t", r"line 11: 'revision'"),
    "several revisions of a folder": (
        "models.tsv",
        "miniature\t\tbase\t\t0",
        f"miniature\t{'a' * 40} {'b' * 40}\tbase\t\t0",
        "config/models.tsv, 'mini': source 'miniature' is no hub model",
    ),
    "twice": ("models.tsv", "qwen2_1_5b_it\t", "qwen2_1_5b\t", r"line 12: 'qwen2_1_5b' is in an earlier line too"),
    "no checksum": (
        "sources.tsv",
        "952d54a0dfe56f3a56e20d2efb66750114d8aa2cfa91289d6aff9b1e8a81d13a",
        "",
        r"sources.tsv, 'cot_500/aqua_train_no_cot.json': sha256 is empty",
    ),
    "no row": (
        "sources.tsv",
        "aqua\tnone\tcorrect",
        "aqua\tnothing\tcorrect",
        r"no row for dataset 'aqua', variant 'none'",
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_sheet_mistakes_name_file_line_and_column(name, root):
    sheet, old, new, message = SPOILED[name]
    spoil(root, sheet, old, new)
    with pytest.raises(InputError, match=message) as caught:
        read_study(PAPER | {"models": [*PAPER["models"], "mini"]}, root)
    assert "\n" not in str(caught.value)


def test_a_users_file_that_is_not_there_is_named(root):
    with (root / "config/datasets.tsv").open("a") as sheet:
        sheet.write("mine\tMy own\tmath\tpublished\tnone\tcorrect\tnone\t\t\t\tuser\t\t\t\t\n")
    with (root / "config/sources.tsv").open("a") as sheet:
        sheet.write("mine\tnone\tcorrect\tdata/none.json\t\n")
    with pytest.raises(InputError, match=r"sources.tsv, dataset 'mine', variant 'none': no file 'data/none.json' here"):
        read_study(DEFAULT | {"datasets": ["mine"]}, root)


# Prompts and partners ------------------------------------------------------------------------------------------------


def own(model, **cells):
    return {"model": model, "source": "./" + model, **cells}


def test_the_form_of_prompts_is_a_column_of_its_own():
    """By default as before: chat for kind instruct, plain for others, in every row of the sheet too."""
    rows = [own("a"), own("b", kind="instruct"), own("c", kind="instruct", prompt="plain"), own("d", prompt="chat")]
    models = read_study(DEFAULT | {"models": ["mini", "mini_instruct", "mini_random", *rows]}, ROOT).models
    assert {name: row["prompt"] for name, row in models.items()} == {
        "mini": "plain", "mini_instruct": "chat", "mini_random": "plain",
        "a": "plain", "b": "chat", "c": "plain", "d": "chat",
    }  # fmt: skip
    with pytest.raises(InputError, match=r"'prompt': 'chatty' is not known: did you mean 'chat'"):
        read_study(DEFAULT | {"models": [own("a", prompt="chatty")]}, ROOT)


def test_a_writer_takes_the_form_that_its_row_states():
    changed = {"pairs": "hh_helpful", "runs": ["hh_sft"], "judge": ""}
    for form in ("", "plain", "chat"):
        rows = [own("a", **({"prompt": form} if form else {}))]
        wanted = {"models": ["mini", *rows], "dynamics": changed, "generate": DEFAULT["generate"] | {"model": "a"}}
        assert read_study(DEFAULT | wanted, ROOT).writers["a"]["prompt"] == form


def test_a_pair_may_be_of_any_kinds():
    """Base with base, instruct with instruct, a checkpoint with an earlier one; an untrained twin has no figure."""
    rows = [
        own("a"),
        own("b", partner="a"),
        own("c", kind="instruct", partner="d"),
        own("d", kind="instruct"),
        own("e", kind="random", partner="a"),
        own("f", partner="qwen2_1_5b"),
        own("g", partner="g"),
    ]
    study = read_study(DEFAULT | {"models": rows}, ROOT)
    # What is not measured here, and a model itself, is nothing to compare with.
    assert study.pairs() == {"b": "a", "c": "d"}
    assert read_study(DEFAULT, ROOT).pairs() == {"mini_instruct": "mini"}
    with pytest.raises(InputError, match=r"model 'b' .*unknown partner 'aa': did you mean 'a'"):
        read_study(DEFAULT | {"models": [own("a"), own("b", partner="aa")]}, ROOT)


def test_the_second_study_alone_measures_no_model():
    study = read_study(DEFAULT | {"datasets": []}, ROOT)
    assert (study.models, study.datasets, list(study.learners)) == ({}, {}, ["mini"])


def test_a_dataset_is_what_its_row_says_whatever_its_name(root):
    """No miniature by its name."""
    name = "my_mini_set"
    with (root / "config/datasets.tsv").open("a") as sheet:
        sheet.write(f"{name}\tMy own\tother\tpublished\tnatural\tcorrect\t\t\t\t\tuser\t\t\t\t\n")
    with (root / "config/sources.tsv").open("a") as sheet:
        sheet.write(f"{name}\tnatural\tcorrect\t{root}/config/datasets.tsv\t\n")
    study = read_study(DEFAULT | {"datasets": [name]}, root)
    # One variant, natural, without controls that are about None and Detailed; a miniature is not meant for it.
    assert study.variants(name) == ["natural"] and study.controls("mini", name) == []
    assert study.purpose("mini", name) == "pipeline check" and not study.datasets[name]["family"]
