"""Preference pairs of a user's own, from a file to the page: the shipped runs, no row edited, nothing else asked for.

The rules say what is run; the jobs run in this process, which takes a tenth of the time.
"""

import json
import re

import polars as pl
import pytest

from conftest import call
from gradatlas.charts.listing import read_index
from gradatlas.core.files import sha256_of
from gradatlas.study.probe_types import REPHRASED, STUDY_FIELDS, TYPES
from test_workflow import clone, commands, snakemake

OWN = [
    {
        "question": f"What stands near the {colour} {thing}?",
        "good": f"The {thing} stands near the {colour} bridge, number {place}.",
        "bad": f"I do not know what stands there, {place}.",
    }
    for place, (colour, thing) in enumerate(
        (c, t) for c in ("red", "blue", "old", "new") for t in ["house", "river", "garden", "street", "market"]
    )
]


def messages(row, name):
    return [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row[name]}]


FORMS = {
    "plain": (OWN, ""),
    "chats": (
        [{"question": row["question"], **{name: messages(row, name) for name in ("good", "bad")}} for row in OWN],
        'format: messages\ntemplate: "Human: {prompt}\\nAssistant:"\n',
    ),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A clone with 20 pairs as plain texts and as chats; of the shipped runs only the lengths are cut."""
    folder = clone(tmp_path_factory.mktemp("own") / "clone")
    for name, (rows, more) in FORMS.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / f"config/pairs/{name}.yaml").write_text(
            f"source: {name}.jsonl\ntrain_split: train[:16]\nheld_out_split: train[16:]\n{more}"
            "columns: {prompt: question, chosen: good, rejected: bad}\n"
        )
    sheet = folder / "config/runs.tsv"
    lines = [line.split("\t") for line in sheet.read_text().splitlines()]
    for cells in lines:
        if cells[0] in ("sft", "dpo"):
            cells[lines[0].index("steps")], cells[lines[0].index("evaluate_every")] = "4", "1"
    sheet.write_text("".join("\t".join(cells) + "\n" for cells in lines))
    return folder


def test_texts_of_files_ask_no_writer(project, monkeypatch):
    """The first pairs in the order of the file, probes from files, and no request to the `generate.model` named."""
    sums = []
    for split, rows in (("train", OWN[:3]), ("held_out", OWN[16:17])):
        fields = {field: f"{field}." for field in STUDY_FIELDS.values()}
        lines = [json.dumps({**fields, "prompt": row["question"], "chosen": row["good"]}) for row in rows]
        (project / f"probes.{split}.jsonl").write_text("\n".join(lines))
        sums.append(f"{split}: probes.{split}.jsonl, {split}_sha256: {sha256_of(project / f'probes.{split}.jsonl')}")
    text = (project / "config/pairs/plain.yaml").read_text()
    (project / "config/pairs/filed.yaml").write_text(f"{text}order: file\nprobes: {{{', '.join(sums)}}}\n")
    done = snakemake(project, "-n", "-p", *asked("filed", "train: 5"), "generate={model: mini}")
    assert done.returncode == 0 and "note: no rephrases" not in done.output, done.output
    jobs = commands(done.output)
    assert "write-rephrases" not in {name for name, *_ in jobs}
    monkeypatch.chdir(project)
    for name, arguments, _ in jobs:
        if name in ("fetch-model", "build-pairs", "build-probes"):
            ended = call(name, *arguments)
            assert ended.returncode == 0, (name, ended.stderr)
    built = pl.read_parquet(project / "results/dynamics/filed/mini/seed_0/probes.parquet")
    assert built["status"].unique().to_list() == ["ok"] and built.height == 4 * len(TYPES)
    assert built.filter(type="unrelated")["response"].unique().to_list() == [" irr_hum."]
    pairs = pl.read_parquet(project / "results/dynamics/filed/pairs.parquet").filter(split="train")
    assert pairs["pair_id"].to_list() == [f"train-{number}" for number in range(5)]


def asked(pairs, *more):
    sizes = "steps: 0.5, held_out: 4, probes: 3, held_out_probes: 1, generate_prompts: 2, max_new_tokens: 4"
    sizes = ", ".join([sizes, *(more or ["train: 16"])])
    second = f'dynamics={{pairs: {pairs}, runs: [sft, dpo], judge: "", {sizes}, one_step: {{updates: 0}}}}'
    return ("--config", "datasets=[]", second, "formats=[svg]", "bootstrap=20")


@pytest.mark.parametrize("pairs", FORMS)
def test_own_pairs_to_the_page(pairs, project, monkeypatch):
    done = snakemake(project, "-n", "-p", *asked(pairs))
    assert done.returncode == 0, done.output
    assert (
        f"note: pairs '{pairs}' have no documents for a warm start (base): sft start from the model itself"
        in done.output
    )
    assert f"note: no rephrases of pairs '{pairs}'" in done.output
    monkeypatch.chdir(project)
    jobs = commands(done.output)
    names = [name for name, *_ in jobs]
    assert names.count("finetune") == 2 and not {"draw-toys", "judge-generations", "write-rephrases"} & set(names)
    for name, arguments, _ in jobs:
        ended = call(name, *arguments)
        assert ended.returncode == 0, (name, ended.stderr)
    runs = project / f"results/dynamics/{pairs}/mini/seed_0"
    probes = pl.read_parquet(runs / "probes.parquet")
    counted = dict(probes.group_by("type").agg((pl.col("status") == "ok").sum()).iter_rows())
    assert {kind for kind, count in counted.items() if not count} == set(REPHRASED) and set(counted) == set(TYPES)
    followed = pl.read_parquet(runs / "dpo/dynamics.parquet").filter(pl.col("status") == "ok")
    assert set(followed["type"]) == set(TYPES) - set(REPHRASED) and followed["step"].max() == 2
    figures = {
        each["kind"]: each for each in read_index(project / f"results/figures/dynamics/{pairs}/mini/seed_0")["figures"]
    }
    assert "No probes of these types: chosen, same meaning;" in figures["sft.curves"]["caption"]
    drawn = (project / f"results/figures/dynamics/{pairs}/mini/seed_0/sft.curves.svg").read_text()
    assert ">same meaning<" not in drawn and ">own rephrase<" in drawn
    page = (project / "results/index.html").read_text()
    sections = re.findall(r'<section id="(\w+)"', page)
    more = (project / "results/more.html").read_text()
    sections += re.findall(r'<section id="(\w+)"', more)
    assert sections == ["findings", "claims", "figures", "terms", "dynamics", "config"]
    assert "no usable sample" not in page
    manifest = json.loads((project / "results/manifest.json").read_text())
    assert list(manifest["sources"]) == [f"{pairs}.jsonl"] and manifest["toys"] == {} and manifest["models"] == {}
