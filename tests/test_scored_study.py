"""Training files named in the config: scored, linked from the page, and in nothing of the studies."""

import json
import re

import polars as pl
import pytest
import yaml

from conftest import ROOT
from gradatlas.core.errors import InputError
from gradatlas.study.config import read_study
from scored import rows, write
from test_workflow import clone, planned, snakemake

DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())
MINE = "datasets=[{dataset: mine, source: data/mine.jsonl, group: source}]"
SCORED = ("--config", "models=[mini]", "dynamics={runs: []}", MINE)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A clone with a training file, scored by the one command, page and manifest included."""
    folder = clone(tmp_path_factory.mktemp("scored") / "clone")
    (folder / "data").mkdir()
    write(folder / "data/mine.jsonl", rows(12))
    done = snakemake(folder, "--cores", "2", *SCORED)
    assert done.returncode == 0, done.output
    return folder


def test_the_page_links_to_the_scores_and_the_manifest_has_them(project):
    folder = project / "results/scores/mini/mine"
    assert 'href="scores/mini/mine/scores.html"' in (project / "results/index.html").read_text()
    assert {path.name for path in folder.iterdir()} == {
        *("scores.parquet", "scores.csv", "layers.parquet", "scores.html", "scores.run.json", "measured")
    }
    manifest = json.loads((project / "results/manifest.json").read_text())
    (facts,) = manifest["scores"].values()
    assert facts["model"] == "mini" and facts["settings"]["group"] == "source" and len(facts["sha256"]) == 64
    # A miniature is meant for the miniature's data.
    assert "pipeline check" in (folder / "scores.html").read_text()
    assert "shape prompt_completion" in (project / "logs/score_samples/mini/mine.log").read_text()


def test_a_second_run_has_nothing_to_do_and_an_edit_of_one_row_scores_it_again(project):
    assert planned(project, *SCORED) == {}
    changed = rows(12)
    changed[7]["completion"] += " Yes."
    write(project / "data/mine.jsonl", changed)
    jobs = planned(project, *SCORED)
    assert jobs == {"score_samples": 1, "write_manifest": 1, "write_atlas": 1, "all": 1}
    old = pl.read_parquet(project / "results/scores/mini/mine/scores.parquet")
    done = snakemake(project, "--cores", "2", *SCORED, "--", "score")
    assert done.returncode == 0, done.output
    new = pl.read_parquet(project / "results/scores/mini/mine/scores.parquet")
    assert ((old["loss"] / new["loss"] - 1).abs() > 1e-4).arg_true().to_list() == [7]


def test_with_the_other_defaults_the_studies_have_no_job_of_its_data(project):
    jobs = planned(project, "--config", MINE)
    # One of the three models has its scores already.
    assert jobs["score_samples"] == len(DEFAULT["models"]) - 1 and "finetune" in jobs
    first = ("measure_gradients", "build_responses", "draw_figures", "gather_evidence", "compare_fixed")
    assert not {*first} & {*jobs}
    both = planned(project, "--config", MINE.replace("[{", "[mini_taxonomy, {"), "dynamics={runs: []}")
    assert both["measure_gradients"] == 3 and both["score_samples"] == 2 and both["draw_figures"] == 1


def test_a_folder_of_datasets_and_a_hub_dataset_are_sources_too(project):
    import datasets

    datasets.Dataset.from_list(rows(4)).save_to_disk(project / "data/saved")
    hub = f"{{dataset: hub, source: org/set, split: test, revision: '{'0' * 40}'}}"
    listed = f"{{dataset: saved, source: data/saved}}, {hub}"
    words = ("--config", "models=[mini]", "dynamics={runs: []}", f"datasets=[{listed}]", "--", "score")
    done = snakemake(project, "-n", "-p", *words)
    assert done.returncode == 0, done.output
    assert re.search(r"fetch-dataset --dataset hub --source org/set .*\"split\": \"test\"", done.output)
    assert "--data resources/datasets/hub.parquet" in done.output and "--data data/saved " in done.output


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dataset": "mine", "sorce": "x.jsonl"}, "unknown key 'sorce': did you mean 'source'"),
        ({"dataset": "mine"}, "'source' is missing: a training file"),
        ({"dataset": "mine", "source": "config/confg.yaml"}, "'mine': no file 'config/confg.yaml' here: did you mean"),
        ({"dataset": "mine", "source": "org/name"}, "give its 'revision' too"),
        ({"dataset": "mine", "source": "README.md", "revision": "0" * 40}, "'revision' belongs to a hub dataset"),
        ({"dataset": "mine", "source": "README.md", "shape": "mesages"}, "did you mean 'messages'"),
        ({"dataset": "mine", "source": "{x}.jsonl"}, "braces"),
        ({"dataset": "claims", "source": "README.md"}, "none of the workflow's own"),
        ({"dataset": "mini_taxonomy", "source": "README.md"}, "this name occurs twice"),
        ({"dataset": "MINI_taxonomy", "source": "README.md"}, "differ in case alone"),
    ],
    ids=str,
)
def test_a_mistake_in_an_entry_is_one_line(entry, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError) as caught:
        read_study(DEFAULT | {"datasets": ["mini_taxonomy", entry]}, ROOT)
    assert message in str(caught.value) and "config key 'datasets'" in str(caught.value)


def test_an_entry_takes_the_configs_window_and_states_its_own():
    entries = [
        {"dataset": name, "source": "README.md", **more} for name, more in (("a", {}), ("b", {"max_length": 64}))
    ]
    study = read_study(DEFAULT | {"max_length": 300, "truncation": "left", "datasets": entries}, ROOT)
    assert [row["max_length"] for row in study.scored.values()] == [300, 64]
    assert study.scored["b"]["truncation"] == "left" and not study.datasets and study.models
