"""What the rules share: the study as the config asks for it, and where its files stand.

A text of a sheet or of the config is a param by a function (``lambda wildcards: ...``): Snakemake reads braces in a plain
one as wildcards. Paths with braces cannot be inputs; `read_study` refuses them.
"""

import json
import os
import re
import sys
from pathlib import Path

from workflow.lib.digest import code_digest
from workflow.lib.dynamics.plan import read_plan
from workflow.lib.errors import InputError
from workflow.lib.files import sums_of
from workflow.lib.models.snapshots import WANTED, is_hub_id
from workflow.lib.responses.labels import GOLD
from workflow.lib.statistics.places import local_files, released_path
from workflow.lib.study import is_file, read_study, source_keys

try:
    STUDY = read_study(config, workflow.basedir)
    PLAN = read_plan(STUDY.config["dynamics"], workflow.basedir, STUDY.config["generate"]["model"])
except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


wildcard_constraints:
    model="|".join({**STUDY.models, **STUDY.writers, **STUDY.learners, **STUDY.judges, **STUDY.miniatures}),
    dataset="|".join(STUDY.datasets) or "none",


for note in PLAN.notes:
    print(f"note: {note}", file=sys.stderr)

UNPINNED = [
    name
    for name, row in {**STUDY.learners, **STUDY.judges, **STUDY.models}.items()
    if is_hub_id(row["source"]) and not row["revision"]
]
if UNPINNED and not STUDY.config["mirror"] and STUDY.config["gradients"] == "measured":
    pin = f"python -m workflow.scripts.pin --model {' '.join(UNPINNED)}"
    print(f"warning: no revision in config/models.tsv, will not be fetched before: {pin}", file=sys.stderr)

REMOTE = {
    row["path"]: {"url": STUDY.datasets[row["dataset"]]["url"], "sha256": row["sha256"]}
    for row in STUDY.files.values()
    if row["dataset"] in STUDY.datasets and STUDY.datasets[row["dataset"]]["url"]
}


def is_remote(dataset):
    """Whether a dataset's files are fetched."""
    return bool(STUDY.datasets[dataset]["url"])


# The seeded subset of samples, as arguments.
SUBSET = (
    "" if STUDY.config["samples"] == "all" else f"--limit {STUDY.config['samples']} --limit-seed {STUDY.config['seed']}"
)
FETCHED = "resources/sources"
MIRROR = STUDY.config["mirror"]
PLACES = (FETCHED, os.path.expanduser(MIRROR))
if MIRROR and not MIRROR.lower().startswith(("http://", "https://")):
    # Said before the first job fails: what a folder cannot serve, and how to go on with the rest.
    if not os.path.isdir(os.path.expanduser(MIRROR)):
        print(f"warning: mirror {MIRROR}: no such folder; mend config key mirror", file=sys.stderr)
    wanted = {d: source_keys(STUDY, d) for d in STUDY.datasets if is_remote(d)}
    lacking = {
        d: [key for key in keys if not any(os.path.isfile(os.path.join(p, STUDY.files[key]["path"])) for p in PLACES)]
        for d, keys in wanted.items()
    }
    if any(lacking.values()):
        # Variants whose files are all there, where the gold answers are there too.
        kept = {d: STUDY.variants(d) for d in STUDY.datasets}
        for d, keys in lacking.items():
            answers = GOLD.get(STUDY.datasets[d]["gold"])
            needed = {(d, answers[0], "correct")} if answers else set()
            kept[d] = [v for v in kept[d] if not needed & set(keys) and v not in {key[1] for key in keys}]
        parts = ", ".join(f"{d}: [{','.join(vs)}]" for d, vs in kept.items() if vs and vs != STUDY.variants(d))
        missing = ", ".join(f"{d} ({len(keys)} of {len(wanted[d])})" for d, keys in lacking.items() if keys)
        narrow = f"; or narrow with --config 'datasets=[{','.join(d for d in kept if kept[d])}]'"
        narrow += f" 'variants={{{parts}}}'" if parts else ""
        narrow = narrow if any(kept.values()) else ""
        print(f"warning: mirror {MIRROR} lacks files of {missing}: add them{narrow}", file=sys.stderr)


def source_file(key):
    """Where the file of (dataset, variant, relation) stands: fetched, or a user's own."""
    path = STUDY.files[key]["path"]
    return os.path.join(FETCHED, path) if path in REMOTE else path


MINIATURE_FILES = [
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
]


# The committed miniatures: an input, beside the code, whatever the working directory.
SHIPPED = os.path.normpath(os.path.join(os.path.relpath(workflow.basedir), "resources", "miniature"))


def is_shipped(model):
    """Whether a miniature's weights are the committed ones: base and instructed, seed 0, unless retraining."""
    row = STUDY.miniatures[model]
    return row["kind"] in ("base", "instruct") and row["seed"] == 0 and not STUDY.config["miniature"]["retrain"]


def miniature_folder(model):
    """The folder of a miniature's files: committed, or trained by this workflow."""
    return os.path.join(SHIPPED, STUDY.miniatures[model]["kind"]) if is_shipped(model) else f"results/models/{model}"


# Untrained twins of hub models, made here of their configs.
TWINS = {name: row for name, row in STUDY.models.items() if row["kind"] == "random" and is_hub_id(row["source"])}


def is_made(model):
    """Whether a model's files are made by this workflow, or committed with it."""
    return model in TWINS or model_row(model)["source"] == "miniature"


def made_folder(model):
    """The folder of such a model."""
    return f"results/models/{model}" if model in TWINS else miniature_folder(model)


def sums_of_model(model):
    """The checksums of such a model's files: an input that stands for the folder, whose times say nothing."""
    shipped = model not in TWINS and is_shipped(model)
    return os.path.join(SHIPPED, "SHA256SUMS") if shipped else str(sums_of(made_folder(model)))


def base_of(wildcards):
    """The weights that an instructed miniature starts from, and the checksums of their folder."""
    row = STUDY.miniatures[wildcards.model]
    if row["kind"] != "instruct":
        return []
    return [os.path.join(miniature_folder(row["partner"]), "model.safetensors"), sums_of_model(row["partner"])]


def training_steps(wildcards):
    """Steps of a miniature's training, by its kind."""
    steps = {"base": "steps", "instruct": "instruct_steps"}
    kind = STUDY.miniatures[wildcards.model]["kind"]
    return STUDY.config["miniature"][steps[kind]] if kind in steps else 0


def tokenizer_of(model):
    """NAME PROMPT SOURCE REVISION of a model, as command-line arguments; a dash for no revision."""
    row = STUDY.models[model]
    source = os.path.join(".", miniature_folder(model)) if row["source"] == "miniature" else row["source"]
    return (model, row["prompt"], source, row["revision"] or "-")


# The form of each model's prompts, as arguments.
PROMPTS = [part for name, row in STUDY.models.items() for part in ("--prompt", name, row["prompt"])]


def model_row(model):
    """The row of a model that is measured, finetuned, judges, writes responses, or is a miniature's base."""
    return {**STUDY.miniatures, **STUDY.writers, **STUDY.judges, **STUDY.learners, **STUDY.models}[model]


def model_files(wildcards):
    """What a model's card is made from: files in a folder here; nothing for a hub model."""
    row = model_row(wildcards.model)
    if is_made(wildcards.model):
        # A twin is one folder; of a miniature each file is known by name.
        names = MINIATURE_FILES if row["source"] == "miniature" else []
        return [sums_of_model(wildcards.model), *(os.path.join(made_folder(wildcards.model), name) for name in names)]
    folder = Path(row["source"]).expanduser()
    return sorted({str(path) for pattern in WANTED for path in folder.glob(pattern)})


HUB_DATASETS = {
    name: row["mapping"] for name, row in STUDY.datasets.items() if "mapping" in row and not is_file(row["mapping"])
}


def rows_file(dataset):
    """The one file of a mapped dataset: a user's own, or fetched from the hub; none for another."""
    if dataset in HUB_DATASETS:
        return [f"resources/datasets/{dataset}.parquet"]
    return [STUDY.datasets[dataset]["mapping"]["source"]] if "mapping" in STUDY.datasets[dataset] else []


def written_file(dataset):
    """The Detailed responses that a model writes for a dataset, where it is asked to."""
    return [f"results/generated/{dataset}.jsonl"] if STUDY.is_written(dataset) else []


def source_files(dataset):
    """The files that a dataset's samples are read from; none for a procedural one."""
    return [source_file(key) for key in source_keys(STUDY, dataset)] + rows_file(dataset)


def dataset_sources(wildcards):
    """The same, as an input."""
    return source_files(wildcards.dataset)


def source_arguments(wildcards):
    """What a dataset's samples are read from, as command-line arguments (`workflow.lib.responses.arguments`)."""
    row, keys = STUDY.datasets[wildcards.dataset], source_keys(STUDY, wildcards.dataset)
    arguments = ["--dataset", wildcards.dataset, "--reader", row["reader"], "--seed", STUDY.config["seed"]]
    arguments += [part for key in keys for part in ("--source", key[1], key[2], source_file(key))]
    stated = {source_file(key): STUDY.files[key]["sha256"] for key in keys}
    arguments += [part for path, sha256 in stated.items() if sha256 for part in ("--checksum", path, sha256)]
    for option in ("gold", "options"):
        arguments += [f"--{option}", row[option]] if row[option] else []
    if row["reader"] == "miniature":
        arguments += ["--questions", STUDY.config["miniature"]["questions"]]
    if "mapping" in row:
        mapping = json.dumps(row["mapping"], sort_keys=True)
        arguments += ["--rows", *rows_file(wildcards.dataset), "--mapping", mapping]
    return arguments + (["--normalise-newlines"] if STUDY.config["normalise_newlines"] else [])


MINIATURE_DATASETS = [name for name, row in STUDY.datasets.items() if row["reader"] == "miniature"]


def accuracy_tables(wildcards):
    """What the miniatures can do, where the study measures them on datasets of theirs."""
    asked = MINIATURE_DATASETS if "dataset" not in wildcards.keys() else {wildcards.dataset} & {*MINIATURE_DATASETS}
    return (
        collect("results/accuracy/{model}.parquet", model=[m for m in STUDY.models if m in STUDY.miniatures])
        if asked
        else []
    )


def drawn_seed(model, dataset):
    """The seed of random tokens, 0 where none are drawn: another one makes nothing else stale."""
    subsets = STUDY.config["loss_tokens"] + [each.split(":", 2)[2] for each in STUDY.controls(model, dataset)]
    return STUDY.config["seed"] if any(each.startswith("random:") for each in subsets) else 0


def gradient_tables(kind):
    """The tables of one kind (samples or spectra) of all models on a dataset."""
    return collect("results/gradients/{model}/{{dataset}}.{kind}.parquet", model=STUDY.models, kind=kind)


# Tables beside samples and spectra, by name, where config asks for them.
EXTRAS = [name for name in ("singular_values", "cosines", "tokens") if STUDY.config[name]]


def extra_arguments(name, wildcards, output):
    """The command-line arguments of one of these."""
    arguments = [f"--{name.replace('_', '-')}", output[name]]
    if name == "tokens":
        chosen = STUDY.config["tokens"]
        ids = chosen.get(wildcards.dataset, []) if isinstance(chosen, dict) else []
        first = 0 if isinstance(chosen, dict) else chosen
        arguments += [f"--tokens-of={each}" for each in ids] or [f"--tokens-first={first}"]
    return arguments


def shipped(*parts):
    """The way to a file that stands beside the code."""
    return os.path.normpath(os.path.join(os.path.relpath(workflow.basedir), *parts))


CLAIMS_SHEET = shipped("config", "claims.tsv")
CLAIMS_SCHEMA = shipped("workflow", "schemas", "claims.schema.yaml")
DYNAMICS_CLAIMS_SHEET = shipped("config", "claims_dynamics.tsv")
DYNAMICS_CLAIMS_SCHEMA = shipped("workflow", "schemas", "claims_dynamics.schema.yaml")


def compared_tables(kind):
    """The tables of one kind of all models on a dataset and on those it is compared with."""
    return lambda wildcards: collect(
        "results/gradients/{model}/{dataset}.{kind}.parquet",
        dataset=STUDY.compared(wildcards.dataset),
        model=STUDY.models,
        kind=kind,
    )


def data_path(dataset, variant, relation):
    """The data file that a released file is named after: the study's own, or one by the same scheme."""
    row = STUDY.files.get((dataset, variant, relation))
    task = STUDY.datasets[dataset]["task"] + ("" if relation == "correct" else f"_{relation}")
    return row["path"] if row and is_remote(dataset) else f"{task}/{dataset}_{variant}.json"


def released_name(model):
    """A model's folder among released statistics."""
    return STUDY.models[model]["released"] or model


def released_files(dataset, model):
    """(variant, relation, path) of every file of a model and dataset."""
    return [
        (variant, relation, released_path(data_path(dataset, variant, relation), released_name(model)))
        for variant in STUDY.variants(dataset)
        for relation in STUDY.relations(dataset)
    ]


def released_here(wildcards):
    """The released files that stand in a folder here; missing ones are the job's to name."""
    paths = [path for _, _, path in released_files(wildcards.dataset, wildcards.model)]
    return local_files(STUDY.config["released"]["source"], paths)


def local_writer(wildcards):
    """The local model that writes, as arguments; none for an endpoint."""
    return [
        part
        for name, row in STUDY.writers.items()
        for part in (
            *("--model-name", name, "--device", row["device"], "--dtype", row["dtype"]),
            *(["--trust-remote-code"] if row["trust_remote_code"] else []),
            *(["--form", row["prompt"]] if row["prompt"] else []),
        )
    ]


# Whether the toys are part of the study; the target `toys` makes them anyway.
SHOWN = STUDY.config["toys"]["show"]
SHOW_TOYS = bool(PLAN.runs) and PLAN.mapping is None if SHOWN is None else SHOWN


# The second study: one folder a model and seed.
DYNAMICS = STUDY.config["dynamics"]
ROOM = "results/dynamics/{pairs}/{model}/seed_{seed}"


def start_of_run(wildcards):
    """The card of the model that a run starts from: another run's, or the model's own."""
    init = PLAN.runs[wildcards.run]["init"]
    return f"{ROOM}/{init}/model.json" if init else "resources/models/{model}.json"


def start_of_probes(wildcards):
    """The card of the model that the watched runs start from, whose own samples are probes."""
    return f"{ROOM}/{PLAN.start}/model.json" if PLAN.start else "resources/models/{model}.json"


def pair_rows(wildcards):
    """The files of rows of pairs that are not the miniature's: train, held out."""
    if PLAN.mapping is None:
        return []
    if PLAN.is_file:
        return [PLAN.mapping["source"], PLAN.mapping["held_out"]]
    return collect("resources/pairs/{pairs}.{split}.parquet", pairs=DYNAMICS["pairs"], split=["train", "held_out"])


def pairs_arguments():
    """What pairs are made from, as arguments."""
    if PLAN.mapping:
        return ["--reader", "mapped", "--mapping", json.dumps(PLAN.mapping, sort_keys=True)]
    sizes = ["--base", DYNAMICS["base_documents"], "--rejected-rarity", DYNAMICS["rejected_rarity"]]
    return ["--reader", "miniature", *sizes]


def rephrases_file(wildcards):
    """Kept rephrases: a user's own file, or what a model writes; none of the miniature's grammar, or of nobody."""
    places = {"file": [DYNAMICS["rephrases"]], "written": ["results/dynamics/{pairs}/seed_{seed}.rephrases.jsonl"]}
    return places.get(PLAN.rephrases, [])


def device_arguments(wildcards):
    """Where and how precisely a model is trained, as arguments."""
    row = STUDY.learners[wildcards.model]
    return ["--device", row["device"], "--dtype", row["dtype"], *code_arguments(wildcards)]


def code_arguments(wildcards):
    """Whether a checkpoint's own code may run, as an argument."""
    return ["--trust-remote-code"] if STUDY.learners[wildcards.model]["trust_remote_code"] else []


def run_arguments(wildcards):
    """A run's row as arguments."""
    row = PLAN.runs[wildcards.run]
    told = [
        "loss",
        "target",
        "split",
        "negatives",
        "optimiser",
        "learning_rate",
        "steps",
        "batch_size",
        "warm_up",
        "clip",
    ]
    told += ["beta", "margin", "evaluate_every", "generate_every", "parameters", "lora_rank"]
    arguments = [part for key in told for part in (f"--{key.replace('_', '-')}", row[key])]
    return arguments + (["--probed"] if row["probed"] else [])


def learner_gpu(wildcards):
    """GPUs of a job on a model."""
    return 0 if STUDY.learners[wildcards.model]["device"] == "cpu" else 1


def learner_memory(wildcards):
    """Memory of a job on a model, in MB."""
    return 3000 if STUDY.learners[wildcards.model]["scope"] == "miniature" else 64000


def learner_title(wildcards):
    """A model as readers know it, with its seed, or all seeds, where there are several."""
    title = STUDY.learners[wildcards.model]["title"] or wildcards.model
    if len(DYNAMICS["seeds"]) == 1:
        return title
    return f"{title}, seed {wildcards.seed}" if "seed" in wildcards.keys() else f"{title}, over seeds"


def run_parts(wildcards, third):
    """Name, start and `third` of every watched run, as arguments."""
    starts = {name: PLAN.runs[name]["init"] for name in PLAN.watched}
    return [
        part for name in PLAN.watched for part in ("--run", name, starts[name] or "-", third(name).format(**wildcards))
    ]


def watched_rows():
    """The watched runs' rows of the sheet as JSON, each after the run that it starts from."""
    return json.dumps({name: PLAN.runs[name] for name in PLAN.watched})


def status_place(path):
    """The model and seed of a run's status, as its path has them (`ROOM`)."""
    model, seed = Path(path).parts[-4:-2]
    return model, seed.removeprefix("seed_")


def judged_runs(wildcards):
    """Name, updates, baselines that are run too, and generations of every watched run, as arguments."""
    known = set(PLAN.watched)
    return [
        part
        for name in PLAN.watched
        for part in (
            *("--run", name, PLAN.runs[name]["steps"]),
            ",".join(other for other in PLAN.runs[name]["baseline"] if other in known) or "-",
            f"{ROOM}/{name}/generations.parquet".format(**wildcards),
        )
    ]


def judge_arguments(card):
    """Who judges, as arguments."""
    chosen, asked = DYNAMICS["judge"], STUDY.config["generate"]
    if chosen == "oracle":
        return ["--judge", "oracle"]
    if chosen == "endpoint":
        sizes = ["--max-tokens", asked["max_tokens"], "--temperature", asked["temperature"]]
        return ["--judge", "endpoint", "--endpoint", asked["endpoint"], "--model", asked["model"], *sizes]
    row = STUDY.judges[chosen]
    arguments = ["--judge", "reward", "--model", *card, "--model-name", chosen]
    arguments += ["--device", row["device"], "--dtype", row["dtype"]]
    return arguments + (["--trust-remote-code"] if row["trust_remote_code"] else [])


def evidence_arguments(wildcards, tables):
    """Every seed's runs, and the tables beside them by name, as arguments."""
    found = []
    for seed in DYNAMICS["seeds"]:
        at = {**wildcards, "seed": seed}
        for run in PLAN.watched:
            found += ["--run", seed, run, f"{ROOM}/{run}/dynamics.parquet".format(**at)]
        for name, path in tables.items():
            found += [f"--{name.replace('_', '-')}", seed, path.format(**at)]
    return found
