"""What the rules share: the study as the config asks for it, and where its files are.

A text of a sheet or of the config is a param by a function (``lambda wildcards: ...``): Snakemake reads braces in a plain
one as wildcards. Paths with braces cannot be inputs; `read_study` refuses them.
"""

import json
import os
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from statistics import median

from gradatlas.core import digest, warm
from gradatlas.core.device import check_devices, visible_devices
from gradatlas.core.errors import InputError, user_errors
from gradatlas.core.files import check_all_writable, fingerprint_of, sums_of
from gradatlas.core.schemas import picked
from gradatlas.core.sheets import read_sheet
from gradatlas.data.places import local_files, released_path
from gradatlas.models.adapter_files import FILES as ADAPTER_FILES
from gradatlas.models.snapshots import WANTED
from gradatlas.planning.dynamics import estimate, sizes, total_note
from gradatlas.study.config import fetched_files, read_study, source_keys
from gradatlas.study.mappings import is_file
from gradatlas.study.notes import notes
from gradatlas.study.relations import BUILT
from gradatlas.study.runs import read_plan, snapshots, trained_pairs
from gradatlas.study.scored import GRADED, is_fetched
from gradatlas.study.settings import (
    BridgeTraining,
    Followed,
    Learning,
    Measuring,
    OneStep,
    Pairing,
    Prompting,
    Reading,
    Requesting,
    Sampling,
    Tokenising,
    Window,
    Writing,
)
from gradatlas.study.sheets import Answering, DynamicsClaimRow, Loading, QualityClaimRow, Training, Weights
from gradatlas.study.sources import is_hub_id


def as_json(**settings):
    """A job's settings as one value for the command line. Give it in a function: braces in a plain param are wildcards."""
    return json.dumps(settings, sort_keys=True, ensure_ascii=False)


def code_digest(job, only=None):
    """The digest of a job's code, as a param: taken when a job of the rule is planned, since most starts plan few rules.

    `only`: the chosen entries of registries, or a function of wildcards that gives them.
    """
    return lambda wildcards: digest.code_digest(job, only=only(wildcards) if callable(only) else only)


FETCHED = "resources/sources"
# Where rules put files that others read samples, pairs or rephrases from.
MADE = (f"{FETCHED}/", "resources/datasets/", "resources/pairs/", "results/")


def content_of(paths):
    """What a user's files hold, as a param: a file that is put in the place of another may be older than the results.

    Snakemake compares the content of inputs that are newer than the outputs, and of no others. `paths`: the files, or a
    function of wildcards; those that rules make are left out.
    """
    return lambda wildcards: [
        fingerprint_of(path)
        for path in (paths(wildcards) if callable(paths) else paths)
        if not path.startswith(MADE) and os.path.isfile(path)
    ]


def shipped(*parts):
    """The way to a file beside the code."""
    return os.path.normpath(os.path.join(os.path.relpath(ROOT), *parts))


def kept_work(output, name):
    """The folder of finished work that survives kills and edits, beside a job's output in the same results folder."""
    return f"{output.rpartition('results/')[0]}results/journal/{name}"


with user_errors():
    STUDY = read_study(config, ROOT)
    PLAN = read_plan(STUDY.config["dynamics"], ROOT, STUDY.config["generate"]["model"])
    REMOTE = fetched_files(STUDY, PLAN.probe_files)


def check_results():
    """Stop before the first job where results cannot be written."""
    # Snakemake removes old outputs before a job, and ends with a traceback where it may not.
    with user_errors():
        check_all_writable("results")


def report_progress(seconds=30, shown=4):
    """Write a line every so many `seconds`: which jobs run, the end of their logs, and how long the rest may take."""
    begun = time.monotonic()
    # When jobs were first seen to run; by rule, the seconds of those that have ended.
    seen, took = {}, {}

    def look():
        now = time.monotonic()
        running = [job for each in list(workflow.scheduler.running) for job in (each if each.is_group() else [each])]
        for job in running:
            seen.setdefault(job, now)
        for job in seen.keys() - {*running}:
            took.setdefault(job.rule.name, []).append(now - seen.pop(job))
        return running

    def left(running):
        ended = [seconds for each in took.values() for seconds in each]
        # The first jobs say too little of the others.
        if not running or len(ended) < 5:
            return ""
        waiting = 0
        # Listed at once: the main thread goes on.
        for job in list(workflow.dag.needrun_jobs(exclude_finished=False)):
            if not workflow.dag.finished(job):
                spent = time.monotonic() - seen[job] if job in seen else 0
                waiting += max(median(took.get(job.rule.name, ended)) - spent, 0)
        return f", about {max(1, round(waiting / len(running) / 60))} min left if the others take as long"

    def write():
        # Not time.sleep, which fails where the clock is set back.
        pause = threading.Event()
        while not getattr(workflow, "scheduler", None):
            pause.wait(1)
        while True:
            for _ in range(seconds):
                pause.wait(1)
                running = look()
            named = [" ".join([job.rule.name, "/".join(job.wildcards)]).strip() + end_of_log(job) for job in running]
            more = f"; and {len(named) - shown} more" if len(named) > shown else ""
            done = (
                f"{workflow.scheduler.finished_jobs} of {len(workflow.dag)} jobs after {time.monotonic() - begun:.0f} s"
            )
            print(f"{done}{left(running)}; now {'; '.join(named[:shown]) or 'none'}{more}", file=sys.stderr, flush=True)

    threading.Thread(target=write, daemon=True).start()


def warm_up(jobs=10):
    """Have jobs start from a process that has imported torch, if at least so many `jobs` are planned, and none on a GPU."""
    planned = list(workflow.dag.needrun_jobs())
    # A copy of a process in which a package has looked for GPUs cannot use one, and macOS' frameworks do not survive a copy.
    on_gpu = any(job.resources.get("gpu") for job in planned)
    if sys.platform == "linux" and workflow.local_exec and len(planned) >= jobs and not on_gpu:
        warm.start()


def begin():
    """What happens before the first job."""
    check_results()
    check_gpus()
    report_progress()
    warm_up()


def end_of_log(job):
    """The last line of a job's log, in brackets; nothing before there is one."""
    with suppress(OSError, IndexError):
        return f" ({Path(job.log[0]).read_text(errors='replace').splitlines()[-1]})"
    return ""


def gpus_wanted(job):
    """GPUs that a job would take."""
    if job.rule.name == "finetune":
        return STUDY.config["dynamics"]["processes"]
    measured = job.rule.name in ("measure_gradients", "score_samples")
    return gpus_of([STUDY.models[job.wildcards.model]]) if measured else 1


def check_gpus():
    """Stop before the first job where jobs would share a GPU, or wait for one that does not exist."""
    # Nodes of a cluster have GPUs of their own.
    if workflow.local_exec:
        # The limit also cuts what a job asks for.
        wanted = {gpus_wanted(job) for job in workflow.dag.needrun_jobs() if job.resources.get("gpu")}
        limit = workflow.global_resources.get("gpu")
        with user_errors():
            check_devices(wanted, limit and limit.value, os.environ)


# What is written of every figure that is an output by itself: its pictures, and its caption.
FIGURE_FILES = [*STUDY.config["formats"], "caption.md"]
# The rows of models that are measured, finetuned, judge, write responses, or are a miniature's base.
MODELS = {**STUDY.miniatures, **STUDY.writers, **STUDY.judges, **STUDY.learners, **STUDY.models}


wildcard_constraints:
    model="|".join(MODELS),
    dataset="|".join([*STUDY.datasets, *STUDY.scored]) or "none",


def is_remote(dataset):
    """Whether a dataset's files are fetched."""
    return bool(STUDY.datasets[dataset]["url"])


def subset():
    """The seeded subset of samples, as settings; none of them where all are taken."""
    wanted = STUDY.config["samples"]
    return {} if wanted == "all" else {"limit": wanted, "limit_seed": STUDY.config["seed"]}


PLACES = (FETCHED, os.path.expanduser(STUDY.config["mirror"]))
ESTIMATED = total_note(estimate(STUDY.config, PLAN, STUDY.learners, sizes(STUDY.learners)))
for line in [*(f"note: {note}" for note in [*PLAN.notes, *ESTIMATED]), *notes(STUDY, PLACES)]:
    print(line, file=sys.stderr)


def source_file(key):
    """Where the file of (dataset, variant, relation) is: fetched, or a user's own."""
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
SHIPPED = shipped("resources", "miniature")


def is_shipped(model):
    """Whether a miniature's weights are the committed ones: base and instructed, seed 0, unless retraining."""
    row = STUDY.miniatures[model]
    return row["kind"] in ("base", "instruct") and row["seed"] == 0 and not STUDY.config["miniature"]["retrain"]


def miniature_folder(model):
    """The folder of a miniature's files: committed, or trained by this workflow."""
    return os.path.join(SHIPPED, STUDY.miniatures[model]["kind"]) if is_shipped(model) else f"results/models/{model}"


# Untrained twins of hub models, made here of their configs.
TWINS = {name: row for name, row in STUDY.models.items() if row["kind"] == "random" and is_hub_id(row["source"])}


# Models whose files are found or downloaded, twins by their config and tokenizer.
HUB_MODELS = {name: row for name, row in MODELS.items() if is_hub_id(row["source"])}


# Adapters of models that are found or downloaded too.
HUB_ADAPTERS = [name for name, row in MODELS.items() if is_hub_id(row["adapter"])]


def is_made(model):
    """Whether a model's files are made by this workflow, or committed with it."""
    return model in TWINS or MODELS[model]["source"] == "miniature"


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
    """A model as far as its tokenizer goes, as settings."""
    row = STUDY.models[model]
    source = os.path.join(".", miniature_folder(model)) if row["source"] == "miniature" else row["source"]
    return {"name": model, "source": source, "revision": row["revision"], "chat": row["prompt"] == "chat"}


def prompt_forms():
    """The form of each model's prompts, by model."""
    return {name: row["prompt"] for name, row in STUDY.models.items()}


def model_files(wildcards):
    """What a model's card is made from: files in a folder here, or where a hub model's files are."""
    row = MODELS[wildcards.model]
    if wildcards.model in HUB_MODELS and wildcards.model not in TWINS:
        return [f"resources/models/{wildcards.model}.download.json"]
    if is_made(wildcards.model):
        # A twin is one folder; of a miniature each file is known by name.
        names = MINIATURE_FILES if row["source"] == "miniature" else []
        return [sums_of_model(wildcards.model), *(os.path.join(made_folder(wildcards.model), name) for name in names)]
    return own_model_files(wildcards)


def own_model_files(wildcards):
    """The files of a model in a folder of the user's; none of another model."""
    if is_made(wildcards.model) or wildcards.model in HUB_MODELS:
        return []
    folder = Path(MODELS[wildcards.model]["source"]).expanduser()
    return sorted({str(path) for pattern in WANTED for path in folder.glob(pattern)})


def adapter_files(wildcards):
    """The same of a model's adapter; none of a model without one."""
    source = MODELS[wildcards.model]["adapter"]
    if is_hub_id(source):
        return [f"resources/models/{wildcards.model}.adapter.json"]
    return [str(Path(source).expanduser() / name) for name in ADAPTER_FILES] if source else []


def adapter_options(wildcards, input):
    """A model's adapter, as options."""
    row = MODELS[wildcards.model]
    if not row["adapter"]:
        return []
    downloaded = [f"--adapter-downloaded={input.adapter[0]}"] if is_hub_id(row["adapter"]) else []
    return [f"--adapter={row['adapter']}", f"--adapter-revision={row['adapter_revision']}", *downloaded]


def own_files(wildcards):
    """The files of a model and its adapter in folders of the user's."""
    adapter = [] if is_hub_id(MODELS[wildcards.model]["adapter"]) else adapter_files(wildcards)
    return own_model_files(wildcards) + adapter


def memory(size):
    """Main memory of a job in MB, as a resource; a retry gets as much again."""
    return lambda wildcards, attempt: size * attempt


@cache
def has_gpus():
    """Whether jobs of this run may get a GPU: they run on nodes of a cluster, or one is visible here."""
    return not workflow.local_exec or bool(visible_devices(os.environ))


def on_gpu(row):
    """Whether the jobs of a model run on a GPU."""
    return row["device"] == "cuda" or (row["device"] == "auto" and has_gpus())


def gpus_of(rows):
    """GPUs of a job on these models."""
    return max((row["gpus"] for row in rows if row["device"] != "cpu"), default=0)


def known_of(card, wildcards):
    """What is known of the model whose card is an input: of a run's, by the model that it was trained from."""
    from gradatlas.planning.known import known_model, unread_model

    # A prefix comes first where this workflow is a module of another.
    of_sheet = os.path.dirname(card).endswith("resources/models")
    name = os.path.basename(card).removesuffix(".json") if of_sheet else wildcards.model
    # Snakemake catches the error of a card that is not yet made, and asks again.
    os.stat(card)
    # A damaged one is the job's to report.
    with suppress(InputError):
        return known_model(MODELS[name], card=card)
    return unread_model(MODELS[name])


def model_memory(name, section=STUDY.config, batch="batch_tokens", work=None, training=None, dtype=""):
    """Main memory of a job on the model whose card is the input `name`, as a resource in MB; a retry gets as much again.

    `section`: of the config, with the window and the tokens of a `batch`. `work`: of a job of gradients, what it reads.
    `training`: the runs that are trained, by wildcards. `dtype`: where it is not the row's.
    """

    def needed(wildcards, input, attempt):
        from gradatlas.planning.resources import memory_mb

        # An endpoint needs no card.
        cards = [input[name]] if isinstance(input[name], str) else list(input[name])
        models = [known_of(card, wildcards) for card in cards]
        return attempt * memory_mb(
            models,
            STUDY.config,
            section,
            section.get(batch, STUDY.config["batch_tokens"]),
            training(wildcards) if training else [],
            on_gpu,
            dtype,
            work(wildcards, input, models[0]) if work else None,
        )

    return needed


def untrained_memory(wildcards, attempt):
    """Main memory in MB of writing a twin: its weights twice in float32; 4 billion where the sheet states no number."""
    return attempt * (3000 + 2 * 4 * (TWINS[wildcards.model]["parameters"] or 4 * 10**9) // 10**6)


def time_limit(name, work):
    """Time limit of a job on the model whose card is the input `name`, in minutes; a retry gets as much again.

    `work`: what it reads, by wildcards, input and model. Of a miniature at most an hour. Jobs go on after their limit,
    where they stopped.
    """

    def minutes(wildcards, input, threads, attempt):
        from gradatlas.planning.resources import minutes_of
        from gradatlas.planning.throughput import rates

        model = known_of(input[name], wildcards)
        unit, workers = ("gpu", 1) if on_gpu(model.row) else ("core", threads)
        found = minutes_of(model, work(wildcards, input, model), rates(STUDY.config["throughput"])[unit], workers)
        return min(60, found) if model.row["scope"] == "miniature" else found * attempt

    return minutes


def measuring_work(wildcards, input, model):
    """What a job of gradients reads."""
    from gradatlas.planning.resources import Work, measuring

    os.stat(input.responses)
    # A damaged table is the job's to report.
    with suppress(InputError):
        return measuring(STUDY, model, wildcards.dataset, input.responses)
    return Work({})


def measuring_disk(wildcards, input):
    """Disk of a job of gradients in MB: its tables and its part of the journal."""
    from gradatlas.planning.resources import disk_mb

    model = known_of(input.model, wildcards)
    return disk_mb(model, measuring_work(wildcards, input, model))


def scoring_work(wildcards, input, model):
    """What a job of scores reads."""
    from gradatlas.planning.resources import scoring

    window = model.window(STUDY.scored[wildcards.dataset]["max_length"])
    return scoring(scored_files(wildcards), window, model.measured(STUDY.config["projections"]))


def run_of(wildcards):
    """The run that a job trains; of the check of one step, which trains none, one of a pair at a time."""
    return [PLAN.runs[wildcards.run]] if "run" in wildcards.keys() else [{"batch_size": 1, "loss": "dpo"}]


def training_work(wildcards, input, model):
    """What a run reads."""
    from gradatlas.planning.resources import reading

    return reading(STUDY.config, run_of(wildcards), model)


def training_disk(wildcards, input):
    """Disk of a run in MB: its models and two checkpoints."""
    from gradatlas.planning.resources import training_disk_mb

    return training_disk_mb(known_of(input.init, wildcards), PLAN.runs[wildcards.run], DYNAMICS["kernels"])


def answering_work(wildcards, input, model):
    """What the model reads and writes that runs start from, before any of them."""
    from gradatlas.planning.resources import answering

    return answering(STUDY.config, PLAN, model)


def model_runtime(rows, minutes):
    """Time limit of a job on models in minutes; of a miniature at most an hour. Jobs go on after it, where they stopped."""
    return min(minutes, 60) if all(row["scope"] == "miniature" for row in rows) else minutes


HUB_DATASETS = {
    name: row["mapping"] for name, row in STUDY.datasets.items() if "mapping" in row and not is_file(row["mapping"])
}
# Scored ones are fetched in the same way.
HUB_DATASETS |= {
    name: {**row, "split": row["split"] or "train"} for name, row in STUDY.scored.items() if is_fetched(row)
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


def scored_source(dataset):
    """Where the rows of a scored dataset are: a file, or a folder that `datasets` saved."""
    row = STUDY.scored[dataset]
    if row["source"] == GRADED or row["url"]:
        return f"results/graded/{dataset}.jsonl" if row["source"] == GRADED else os.path.join(FETCHED, row["source"])
    return f"resources/datasets/{dataset}.parquet" if dataset in HUB_DATASETS else row["source"]


def scored_files(wildcards):
    """The same as files."""
    source = Path(scored_source(wildcards.dataset))
    return sorted(str(path) for path in source.rglob("*") if path.is_file()) if source.is_dir() else [str(source)]


def scoring_settings(model, dataset):
    """How a training file is read and measured."""
    row, loading = STUDY.scored[dataset], STUDY.models[model]
    # The split of a hub dataset is chosen when it is fetched.
    reading = picked(row, Reading) | ({"split": ""} if dataset in HUB_DATASETS else {})
    measuring = {key: STUDY.config[key] for key in ("projections", "tf32")}
    return reading | picked(row, Prompting) | picked(loading, Weights) | measuring | {"mapping": loading["projections"]}


def is_meant(model, dataset):
    """Whether a model is meant for a training file; else its scores are a pipeline check."""
    return STUDY.models[model]["scope"] in ("any", STUDY.scored[dataset]["scope"])


def score_title(model, dataset):
    """What a page of scores is of; a model that was never meant for the data is a pipeline check."""
    title = f"{STUDY.scored[dataset]['title'] or dataset}, {STUDY.models[model]['title'] or model}"
    return title if is_meant(model, dataset) else f"{title} (pipeline check)"


def source_settings(dataset):
    """How a dataset's samples are read, as settings."""
    row, keys = STUDY.datasets[dataset], source_keys(STUDY, dataset)
    settings = picked(row, Answering) | {key: STUDY.config[key] for key in ("seed", "normalise_newlines")}
    settings["reader"] = row["reader"]
    settings["files"] = [{"variant": key[1], "relation": key[2], "sha256": STUDY.files[key]["sha256"]} for key in keys]
    if row["reader"] == "miniature":
        settings["questions"] = STUDY.config["miniature"]["questions"]
    return settings | ({"mapping": row["mapping"]} if "mapping" in row else {})


def read_by(dataset):
    """Of the readers of samples and the miniature's grammars, those of one dataset: the others' code does not count."""
    reader = STUDY.datasets[dataset]["reader"]
    grammars = [dataset] if reader == "miniature" else []
    return {"data.responses.reading:READERS": [reader], "data.made_up.miniature:GRAMMARS": grammars}


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


def chosen_tokens(dataset):
    """Whose tokens are written, as options: samples by their ids, or the first ones."""
    chosen = STUDY.config["tokens"]
    if "tokens" not in EXTRAS:
        return []
    if isinstance(chosen, dict) and chosen.get(dataset):
        return [f"--tokens-of={each}" for each in chosen[dataset]]
    return [f"--tokens-first={0 if isinstance(chosen, dict) else chosen}"]


def gradient_settings(model, dataset):
    """What decides the gradients of a model on a dataset."""
    row = STUDY.models[model]
    return {
        **picked(STUDY.config, Measuring),
        **picked(row, Weights),
        **subset(),
        "chat": row["prompt"] == "chat",
        "mapping": row["projections"],
        "purpose": STUDY.purpose(model, dataset),
        "relations": STUDY.relations(dataset),
        "controls": STUDY.controls(model, dataset),
        # Only draws have a seed: another one makes nothing else stale.
        "seed": drawn_seed(model, dataset),
    }


def titles(rows):
    """The names to readers of models or datasets, by key, where they have one."""
    return {name: row["title"] for name, row in rows.items() if row["title"]}


CLAIMS_SHEET = shipped("config", "claims.tsv")
DYNAMICS_CLAIMS_SHEET = shipped("config", "claims_dynamics.tsv")
DYNAMICS_CLAIMS = [*read_sheet(ROOT / "config/claims_dynamics.tsv", DynamicsClaimRow, "claim").values()]
QUALITY_CLAIMS_SHEET = shipped("config", "claims_quality.tsv")
QUALITY_CLAIMS = [*read_sheet(ROOT / "config/claims_quality.tsv", QualityClaimRow, "claim").values()]
# What of a claim is shown or decides its verdict, but no number of the evidence.
OF_VERDICTS = ("status", "source", "title", "statement", "finding", "statistic", "ability", "published")


def of_evidence(claims):
    """Claims as far as their evidence depends on them, as one param; a p-value is of lying beyond the threshold."""
    return as_json(claims=[{key: row[key] for key in row if key not in OF_VERDICTS} for row in claims])


def untrained_of(model):
    """The measured untrained network that a model was trained from, by name; empty: none is measured."""
    partners = {model, STUDY.models[model]["partner"] if STUDY.models[model]["kind"] == "instruct" else model}
    found = [name for name, row in STUDY.models.items() if row["kind"] == "random" and row["partner"] in partners]
    return found[0] if found and STUDY.models[model]["kind"] != "random" else ""


def tested_claims():
    """The claims that have evidence on any dataset."""
    names = {row["claim"] for dataset in STUDY.datasets for row in STUDY.claims_on(dataset)}
    return [row for name, row in STUDY.claims.items() if name in names]


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
    """Variant, relation and path of every file of a model and dataset."""
    return [
        {
            "variant": variant,
            "relation": relation,
            "path": released_path(data_path(dataset, variant, relation), released_name(model)),
        }
        for variant in STUDY.variants(dataset)
        for relation in STUDY.relations(dataset)
    ]


def released_here(wildcards):
    """The released files in a folder here; missing ones are the job's to name."""
    paths = [file["path"] for file in released_files(wildcards.dataset, wildcards.model)]
    return local_files(STUDY.config["released"]["source"], paths)


GENERATE = STUDY.config["generate"]
# A resource, not a param: the rate of requests makes nothing stale.
REQUESTS = as_json(**picked(GENERATE, Requesting))


def writer_settings():
    """The model that writes: an endpoint's, or the local one of the sheet."""
    settings = picked(GENERATE, Writing) | {"name": GENERATE["model"]}
    return settings | {key: value for row in STUDY.writers.values() for key, value in picked(row, Loading).items()}


# Whether the toys are part of the study; the target `toys` makes them anyway.
SHOWN = STUDY.config["toys"]["show"]
SHOW_TOYS = bool(PLAN.runs) and PLAN.mapping is None if SHOWN is None else SHOWN


# Whether anything has claims; scored data alone have none.
PAIRS = STUDY.quality_pairs()
CLAIMED = bool(STUDY.datasets or PLAN.runs or SHOW_TOYS or PAIRS)
SCORES = "results/scores/{model}/{dataset}"
# (model, dataset) of everything that is scored.
SCORED = [(model, name) for model in STUDY.models for name in STUDY.scored if STUDY.scores_on(model, name)]
SCORE_PAGES = [f"{SCORES}/scores.html".format(model=model, dataset=dataset) for model, dataset in SCORED]


# The second study: one folder per model and seed.
DYNAMICS = STUDY.config["dynamics"]
SEED_DIR = "results/dynamics/{pairs}/{model}/seed_{seed}"


def start_of_run(wildcards):
    """The card of the model that a run starts from: another run's, or the model's own."""
    init = PLAN.runs[wildcards.run]["init"]
    return f"{SEED_DIR}/{init}/model.json" if init else "resources/models/{model}.json"


def start_of_probes(wildcards):
    """The card of the model that the watched runs start from, whose own samples are probes."""
    return f"{SEED_DIR}/{PLAN.start}/model.json" if PLAN.start else "resources/models/{model}.json"


def pair_rows(wildcards):
    """The files of rows of pairs that are not the miniature's: train, held out."""
    if PLAN.mapping is None:
        return []
    if PLAN.is_file:
        return [PLAN.mapping["source"], PLAN.mapping["held_out"]]
    return collect("resources/pairs/{pairs}.{split}.parquet", pairs=DYNAMICS["pairs"], split=["train", "held_out"])


def pairs_settings():
    """What pairs are made from: rows by a mapping, or the miniature's grammar."""
    if PLAN.mapping:
        mapping = {key: value for key, value in PLAN.mapping.items() if key != "probes"}
        return {"mapping": mapping, "train": DYNAMICS["train"], "held_out": DYNAMICS["held_out"]}
    return picked(DYNAMICS, Pairing)


def probe_settings(wildcards):
    """How many prompts are probed, and the seed that draws them."""
    counts = {"train": DYNAMICS["probes"], "held_out": DYNAMICS["held_out_probes"]}
    return counts | {"seed": int(wildcards.seed)}


def probe_files(wildcards):
    """The files that have the texts of the probes, train and held out: fetched, or a user's own; none elsewhere."""
    return [os.path.join(FETCHED, file["path"]) if file["url"] else file["path"] for file in PLAN.probe_files]


def probe_file_settings():
    """The checksums of these files, and the spaces before their texts."""
    if not PLAN.probe_files:
        return {}
    sums = [file["sha256"] for file in PLAN.probe_files]
    return {"file_sums": sums, "leading_spaces": PLAN.mapping["probes"]["leading_spaces"]}


def rephrases_file(wildcards):
    """Kept rephrases: a user's own file, or what a model writes; none of the miniature's grammar, or of nobody."""
    places = {"file": [DYNAMICS["rephrases"]], "written": ["results/dynamics/{pairs}/seed_{seed}.rephrases.jsonl"]}
    return places.get(PLAN.rephrases, [])


def learner_settings(wildcards):
    """Where and how precisely a model is trained."""
    return picked(STUDY.learners[wildcards.model], Loading)


def run_settings(wildcards):
    """How a run trains, with its name and seed, and which models along it are kept."""
    row = PLAN.runs[wildcards.run]
    kept = snapshots(row, DYNAMICS["kernels"])
    return picked(row, Training) | {"name": wildcards.run, "seed": int(wildcards.seed), "snapshots": kept}


# The runs with a budget and kernels.
FOLLOWED_RUNS = [name for name in PLAN.watched if name in DYNAMICS["kernels"]["runs"]]


def along_settings(wildcards):
    """Which responses are followed along a run, and how the model computes."""
    chosen = picked(DYNAMICS["kernels"], Followed) | picked(DYNAMICS, Window) | learner_settings(wildcards)
    return chosen | {"run": wildcards.run, "seed": int(wildcards.seed)}


def along_memory(wildcards, input, attempt):
    """Main memory in MB of a job along a run."""
    from gradatlas.planning.resources import following_memory_mb

    return attempt * following_memory_mb(known_of(input.init, wildcards), STUDY.config, on_gpu)


def following_work(wildcards, input, model):
    """What a job along a run reads."""
    from gradatlas.planning.resources import following

    return following(DYNAMICS, model)


# The first study's gradients along SFT on its own variants.
BRIDGE = STUDY.config["bridge"]
BRIDGED = [BRIDGE["dataset"]] if BRIDGE["dataset"] else []
VARIANTS = ["none", "simplified", "detailed"]


def bridge_run():
    """A run on one variant, as far as its memory goes."""
    return {"batch_size": BRIDGE["batch_size"], "loss": "sft", "optimiser": "rmsprop"}


def bridge_settings(wildcards):
    """What decides a run on one variant."""
    loading = picked(STUDY.models[wildcards.model], Loading)
    chosen = {"variant": wildcards.variant, "variants": VARIANTS, "seed": int(wildcards.seed)}
    return picked(BRIDGE, BridgeTraining) | loading | chosen | {"max_length": STUDY.config["max_length"]}


def bridge_gradient_settings(wildcards):
    """What decides the gradients along it: the first study's settings, of nuclear norms alone."""
    row = STUDY.models[wildcards.model]
    chosen = picked(STUDY.config, Measuring) | picked(row, Loading) | {"mapping": row["projections"]}
    return chosen | {"loss_tokens": ["all"], "metrics": ["nuclear_norm"]}


def bridge_kernel_settings(wildcards):
    """Which of its answers the kernel is between."""
    chosen = {"prompts": BRIDGE["questions"], "pairs": 0, "max_length": STUDY.config["max_length"]}
    names = {"run": f"sft_{wildcards.variant}", "seed": int(wildcards.seed)}
    return picked(STUDY.models[wildcards.model], Loading) | chosen | names


def bridge_tables(name):
    """The tables of this name of all runs of one model: those of the first seed, then of the next."""
    return lambda wildcards: collect(
        f"results/bridge/{{dataset}}/{{model}}/seed_{{seed}}/{{variant}}/{name}.parquet",
        **wildcards,
        seed=BRIDGE["seeds"],
        variant=VARIANTS,
    )


def bridge_title(wildcards):
    """A model and dataset as readers know them."""
    title = STUDY.models[wildcards.model]["title"] or wildcards.model
    return f"{title}, {STUDY.datasets[wildcards.dataset]['title'] or wildcards.dataset}"


def learner_gpu(wildcards):
    """GPUs of a job on a model."""
    return int(STUDY.learners[wildcards.model]["device"] != "cpu")


def learner_title(wildcards):
    """A model as readers know it, with its seed, or all seeds, where there are several."""
    title = STUDY.learners[wildcards.model]["title"] or wildcards.model
    if len(DYNAMICS["seeds"]) == 1:
        return title
    return f"{title}, seed {wildcards.seed}" if "seed" in wildcards.keys() else f"{title}, over seeds"


def run_starts():
    """The run that each watched run starts from, where it starts from one."""
    return {name: PLAN.runs[name]["init"] for name in PLAN.watched if PLAN.runs[name]["init"]}


def watched_rows():
    """The watched runs' rows of the sheet, each after the run that it starts from."""
    return [PLAN.runs[name] for name in PLAN.watched]


def status_place(path):
    """The model and seed of a run's status, as its path has them (`SEED_DIR`)."""
    model, seed = Path(path).parts[-4:-2]
    return model, seed.removeprefix("seed_")


def judged_runs():
    """Name, updates, and baselines that are run too, of every watched run."""
    known = set(PLAN.watched)
    return [
        {"name": row["run"], "steps": row["steps"], "baselines": [other for other in row["baseline"] if other in known]}
        for row in watched_rows()
    ]


def epoch_of(row):
    """Examples of an epoch of a run; extend's are responses."""
    return trained_pairs(row, DYNAMICS) * (2 if row["target"] == "extend" else 1)


def judge_settings():
    """Who judges."""
    judge = DYNAMICS["judge"]
    if judge == "oracle":
        return {"judge": judge}
    if judge == "endpoint":
        return {"judge": judge, "model": picked(GENERATE, Writing) | {"name": GENERATE["model"]}}
    return {"judge": "reward", "model": picked(STUDY.judges[judge], Loading) | {"name": judge}}


def weights_of(run):
    """The folder of a run's weights, where these are deleted when no job needs them any more."""
    # A folder's time says nothing; the card is the input that is compared.
    return [ancient(f"{SEED_DIR}/{run}/model")] if run and not DYNAMICS["keep_models"] else []


def generate_settings(answers=True):
    """Which free responses a model gives."""
    prompts = DYNAMICS["generate_prompts"] if answers else 0
    return {"prompts": prompts, "draws": DYNAMICS["generate_draws"], **picked(DYNAMICS, Sampling)}


def start_generations(wildcards):
    """The table whose last free responses are those of a run's start: of that run, or of the start of all."""
    row = PLAN.runs[wildcards.run]
    if not (row["watched"] and DYNAMICS["generate_prompts"]):
        return []
    if row["init"] == PLAN.start:
        return [f"{SEED_DIR}/start.generations.parquet"]
    # LoRA's terms are merged at the end, which rounds: another model than the one that gave the last responses.
    return [] if PLAN.runs[row["init"]]["parameters"] == "lora" else [f"{SEED_DIR}/{row['init']}/generations.parquet"]


def is_ranked(wildcards):
    """Whether a run's own samples are ranked by the judge."""
    return PLAN.runs[wildcards.run]["negatives"] == "on_policy"


def ranking_settings(wildcards):
    """Who ranks a run's own samples; nothing for other runs."""
    if not is_ranked(wildcards):
        return {}
    settings = judge_settings()
    return {"judge": settings["judge"]} | ({"judge_model": settings["model"]} if "model" in settings else {})


def seed_tables(name, made):
    """The tables of this name beside the runs of each seed; none where this config makes none."""
    return lambda wildcards: collect(f"{SEED_DIR}/{name}.parquet", **wildcards, seed=DYNAMICS["seeds"] if made else [])


def followed_tables(name):
    """The tables of this name of the runs with a budget and kernels: all of the first seed, then of the next."""
    return lambda wildcards: collect(
        f"{SEED_DIR}/{{run}}/{name}.parquet", **wildcards, seed=DYNAMICS["seeds"], run=FOLLOWED_RUNS
    )


def scores_of_pair(wildcards):
    """The scores of both sides; one table where both are groups of it."""
    names = [PAIRS[wildcards.pair][side][0] for side in ("high", "low")]
    return [f"results/scores/{wildcards.model}/{name}/scores.parquet" for name in dict.fromkeys(names)]


def sides_options(wildcards):
    """The groups of both sides of a comparison as options of the command."""
    (high, of_high), (low, of_low) = (PAIRS[wildcards.pair][side] for side in ("high", "low"))
    return ["--group-a", *of_high, "--group-b", *of_low] if high == low else []
