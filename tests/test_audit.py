"""The audit: counts on the published files and on fixtures altered by hand, and the mark that follows them."""

import json

import polars as pl
import pytest

from conftest import ROOT, SHARED, call, needs_shared, published_files, settings, user_error
from gradatlas.charts import listing
from gradatlas.data.audit import audit
from gradatlas.data.samples import with_final
from gradatlas.figures import audit as figure
from gradatlas.figures import gallery
from gradatlas.figures.heading import RIGHT_LABELS
from gradatlas.models.token_counts import Model, find_tokenizer
from gradatlas.study.relations import is_marked
from test_figures import statistic_rows, write_statistics
from test_workflow import make, snakemake

BASE = ROOT / "resources/miniature/base"
# Right labels among the published "irrelevant" None responses.
PUBLISHED = {"gsm8k": 4, "strategyqa": 250, "sensemaking": 241}


@pytest.mark.slow
@needs_shared("paper_data")
def test_the_target_needs_sources_alone(tmp_path):
    """From a mirror that holds some of the files: what is missing is named; narrowed, the counts are those measured."""
    arguments = ["-s", ROOT / "Snakefile", "--cores", 2, "--configfile", ROOT / "config/paper.yaml", "--config"]
    arguments += [f"mirror={SHARED / 'paper_data'}", "formats=[svg]", "models=[mini_instruct, qwen2_1_5b]"]
    arguments += ["controls=none"]
    done = snakemake(tmp_path, "-n", *arguments, "--", "audit")
    assert done.returncode == 0
    warning = next(line for line in done.stderr.splitlines() if "lacks files" in line)
    assert "aqua (6 of 6)" in warning and "wiki_popular (4 of 6)" in warning
    datasets = "gsm8k,strategyqa,sensemaking,math_algebra,wiki_popular,wiki_unpopular"
    assert f"narrow with --config 'datasets=[{datasets}]' 'variants={{wiki_popular: [length_100]}}'" in warning
    nowhere = [f"mirror={tmp_path / 'nowhere'}" if str(part).startswith("mirror=") else part for part in arguments]
    done = snakemake(tmp_path, "-n", *nowhere, "--", "audit")
    assert f"mirror {tmp_path / 'nowhere'}: no such folder; fix config key mirror" in done.stderr
    output = make(tmp_path, *arguments, "datasets=[gsm8k,strategyqa,sensemaking]", "--", "audit")
    assert "lacks files" not in output
    table = pl.read_csv(tmp_path / "results/audit/responses.csv")
    assert table.equals(pl.read_parquet(tmp_path / "results/audit/responses.parquet").cast(dict(table.schema)))
    cells = {(row["dataset"], row["variant"], row["relation"]): row for row in table.to_dicts()}
    for dataset, right in PUBLISHED.items():
        assert cells[dataset, "none", "published"]["label_equals_gold"] == right
        assert cells[dataset, "none", "published"]["n"] == 500
        assert all(
            cells[dataset, v, "derangement"]["label_equals_gold"] == 0 for v in ("none", "simplified", "detailed")
        )
    assert cells["gsm8k", "simplified", "published"]["missing_final_answer"] == 61
    assert cells["gsm8k", "simplified", "published"]["double_final_answer"] == 61
    assert cells["strategyqa", "simplified", "published"]["missing_final_answer"] == 23
    assert cells["strategyqa", "simplified", "published"]["double_final_answer"] == 25
    assert cells["strategyqa", "simplified", "correct"]["double_final_answer"] == 2
    detailed = cells["strategyqa", "detailed", "published"]
    assert (detailed["label_equals_gold"], detailed["labelled"], detailed["marked"]) == (245, 490, True)
    log = (tmp_path / "logs/audit_responses.log").read_text()
    assert "warning: strategyqa, none, published: 250 of 500 labels that should be wrong are right (50.0%)" in log
    tokens = pl.read_csv(tmp_path / "results/audit/tokens.csv")
    assert tokens["model"].unique().to_list() == ["mini_instruct"] and tokens.height == 27
    cut = tokens.filter((pl.col("dataset") == "strategyqa") & (pl.col("variant") == "detailed"))
    assert cut["truncated"].min() > 100 and cut["no_response_tokens"].max() == 0
    assert (
        "qwen2_1_5b: the tokenizer of Qwen/Qwen2-1.5B is not on this machine"
        in (tmp_path / "logs/count_tokens.log").read_text()
    )
    assert "7 of 18 response sets have right labels" in (tmp_path / "results/audit/shares.svg").read_text()


def test_no_count_is_in_the_code():
    numbers = {"249", "241", "250"}
    for path in (ROOT / "workflow").rglob("*.*"):
        if path.suffix in (".py", ".smk", ".yaml"):
            assert not numbers & set(path.read_text(encoding="utf-8").replace(",", " ").split()), path


ROWS = [(f"Q{i}?", f"First {i}. Then {i}.", "yes" if i % 2 else "no") for i in range(6)]


def built(tmp_path, published, rows=ROWS):
    """The audit of a small dataset whose published Simplified responses are given."""
    sources = []
    for variant, relation, outputs in (
        ("none", "correct", [answer for _, _, answer in rows]),
        ("simplified", "correct", [with_final(why, answer) for _, why, answer in rows]),
        ("simplified", "published", published),
    ):
        path = tmp_path / f"{variant}_{relation}.json"
        entries = [{"instruction": row[0], "output": output} for row, output in zip(rows, outputs, strict=True)]
        path.write_text(json.dumps(entries), encoding="utf-8")
        sources.append((variant, relation, path))
    relations = ["correct", "published", "derangement"]
    chosen = published_files(sources, variants=["simplified"], relations=relations, gold="none")
    done = call("build_responses", "--dataset", "own", *chosen, "--output", tmp_path / "own.parquet")
    assert done.returncode == 0, done.stderr
    table = audit([tmp_path / "own.parquet"], tmp_path / "audit.csv", tmp_path / "audit.parquet")
    return {row["relation"]: row for row in table.to_dicts()}, done.stderr


def wrong(i):
    return with_final(ROWS[(i + 1) % 6][1], ROWS[(i + 1) % 6][2])


def test_an_altered_response_changes_its_count(tmp_path):
    published = [wrong(i) for i in range(6)]
    rows, log = built(tmp_path, published)
    before = rows["published"]
    assert before["label_equals_gold"] == 0 and not before["marked"] and "warning" not in log
    assert (before["missing_final_answer"], before["double_final_answer"], before["duplicates"]) == (0, 0, 0)
    assert before["most_uses_of_a_donor"] == 1 and before["own_parts"] == 0
    altered = {
        "label_equals_gold": with_final(ROWS[1][1], "no"),
        "missing_final_answer": "First 1. Then 1.",
        "double_final_answer": wrong(0) + wrong(0),
        "duplicates": wrong(2),
        "mojibake": with_final("First 1 â€“ then 1.", "yes"),
        "artefacts": with_final("First 1.. Then 1.", "yes"),
    }
    for column, response in altered.items():
        after = built(tmp_path, [response, *published[1:]])[0]["published"]
        assert after[column] == 1, column
        assert after["marked"] == (column == "label_equals_gold")
    _, log = built(tmp_path, [altered["label_equals_gold"], *published[1:]])
    assert "warning: own, simplified, published: 1 of 6 labels that should be wrong are right (16.7%)" in log


def test_of_no_label_none_is_counted_right(tmp_path):
    rows = [(question, "So it is.", answer) for question, _, answer in ROWS]
    found, _ = built(tmp_path, ["Well. So"] * 6, rows)
    assert found["published"]["labelled"] == 0 and found["published"]["label_equals_gold"] is None
    assert not found["published"]["marked"]
    line = pl.read_csv(tmp_path / "audit.csv", infer_schema=False).filter(pl.col("relation") == "published")
    assert line["label_equals_gold"].to_list() == [None]


def test_more_than_a_hundredth_is_marked_and_only_where_labels_are_meant_wrong():
    assert is_marked("published", 6, 500) and not is_marked("published", 5, 500)
    assert not is_marked("correct", 500, 500) and not is_marked("shuffled", 500, 500)
    assert not is_marked("published", None, None)


def test_the_figure_counts_what_it_says(tmp_path):
    built(tmp_path, [with_final(ROWS[1][1], "no"), *(wrong(i) for i in range(1, 6))])
    frame = figure.shares(pl.read_parquet(tmp_path / "audit.parquet"))
    assert frame.filter("marked").select("relation", "count", "of").rows() == [("published", 1, 6)]
    assert "1 of 2 response sets have right labels" in figure.heading(frame).title
    files = figure.draw_audit(tmp_path / "audit.parquet", tmp_path / "shares", ["vl.json", "svg"])
    assert "own · Simplified · published" in (tmp_path / files["svg"]).read_text(encoding="utf-8")


def test_every_figure_of_a_marked_set_says_so(tmp_path):
    rows = statistic_rows(relations=("correct", "published", "derangement"))
    for row in rows["cells"]:
        right = 250 if (row["relation"], row["variant"]) == ("published", "none") else 0
        row |= {"n_labelled": 500, "n_label_equals_gold": 500 if row["relation"] == "correct" else right}
    gallery.draw(write_statistics(tmp_path / "s", rows), "gsm8k", "GSM8K", tmp_path / "figures", ["svg"])
    listed = listing.read_index(tmp_path / "figures")["figures"]
    stated = {f["relation"] for f in listed if RIGHT_LABELS in f["caption"]}
    # The figure of all relations has the marked ones in it.
    assert stated == {"published", "all"}
    for entry in listed:
        marked = "None 250 of 500" in entry["caption"]
        assert marked == (entry["relation"] in ("published", "all"))


def test_the_cells_count_right_labels_of_what_was_measured(responses, miniature, tmp_path):
    """Through the engine: the samples drawn, not all of the file."""
    made = {name: tmp_path / f"{name}.parquet" for name in ("samples", "spectra")}
    done = call(
        "measure_gradients", "--model", miniature, "--model-name", "m", "--responses", responses, "--samples",
        made["samples"], "--spectra", made["spectra"], "--limit", 4, "--limit-seed", 0, "--device", "cpu",
        "--threads", 1,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = call(
        "summarise_gradients", "--dataset", "mini_arithmetic", "--samples", made["samples"], "--spectra",
        made["spectra"], "--responses", responses, "--settings.draws", 10, "--output", tmp_path / "s",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    cells = pl.read_parquet(tmp_path / "s/cells.parquet")
    assert cells["n_labelled"].to_list() == [4] * 6
    right = dict(cells.group_by("relation").agg(pl.col("n_label_equals_gold").sum()).iter_rows())
    assert right == {"correct": 12, "derangement": 0}


def test_tokenizers_are_found_where_they_are(miniature, tmp_path):
    hub = Model("m", "ORG/NAME", "", False)
    assert find_tokenizer(hub, "", tmp_path) is None
    place = tmp_path / "mirror/models/ORG/NAME"
    place.parent.mkdir(parents=True)
    place.symlink_to(miniature)
    assert find_tokenizer(hub, str(tmp_path / "mirror"), tmp_path) == place
    assert find_tokenizer(Model("m", str(miniature), "", False), "", tmp_path) == miniature
    assert find_tokenizer(Model("m", str(tmp_path / "nowhere"), "", False), "", tmp_path) is None


@pytest.mark.parametrize("name", ["audit_responses", "draw_audit", "count_tokens"])
def test_a_missing_table_is_named(name, tmp_path):
    gone = tmp_path / "gone.parquet"
    arguments = {
        "audit_responses": ["--responses", gone, "--csv", tmp_path / "a.csv", "--parquet", tmp_path / "a.parquet"],
        "draw_audit": ["--audit", gone, "--formats", "svg", "--output", tmp_path / "a"],
        "count_tokens": [
            "--responses", gone, "--output", tmp_path / "a.csv",
            *settings(models=[{"name": "m", "source": str(BASE), "revision": "", "chat": False}], max_length=9),
        ],
    }  # fmt: skip
    assert "gone.parquet: no such file" in user_error(call(name, *arguments[name]))
    assert not list(tmp_path.iterdir())
