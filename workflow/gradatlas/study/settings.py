"""The keys of the config: type, default and meaning of each, once.

The config is checked against `Config`; jobs inherit the parts that they share with it; the tables of config/README.md
are compared with it by a test.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, get_args

from gradatlas.core.schemas import Schema
from gradatlas.study.relations import Built, Given

Truncation = Literal["flag", "drop", "left"]
Cut = Literal["drop", "study", "study_start"]
Compat = Literal["none", "reference"]
Projection = Literal["q", "k", "v", "o", "gate", "up", "down"]
Metric = Literal[
    "nuclear_norm", "sigma_max", "sigma_min", "frobenius_norm", "mean", "max", "min", "effective_rank", "sigma_ratio"
]
PROJECTIONS, METRICS = get_args(Projection), get_args(Metric)
Format = Literal["vl.json", "svg", "png", "pdf"]
Count = Annotated[int, Schema(minimum=1)]
Whole = Annotated[int, Schema(minimum=0)]
Tokens = Annotated[int, Schema(minimum=2)]
# Bounds (gradatlas.core.schemas has one for all): of what the workflow itself makes, before any data are read; of jobs,
# processes and threads; of seeds of every random generator.
Made = Annotated[int, Schema(minimum=1, maximum=10**6)]
Few = Annotated[int, Schema(minimum=1, maximum=1000)]
Seed = Annotated[int, Schema(minimum=0, maximum=2**32 - 1)]
#: Names of the workflow's own beside keys in results/, in any case, as macOS reads them; a test compares the rules.
RESERVED = ("bridge", "claims", "dynamics", "generated", "generations", "kernels", "toys")
Key = Annotated[
    str,
    Schema(
        pattern=f"^(?!(?i:{'|'.join(RESERVED)})$)[A-Za-z0-9_]{{1,64}}$",
        title=f"a name of letters, digits and _, at most 64, and none of the workflow's own ({', '.join(RESERVED)})",
    ),
]
Commit = Annotated[str, Schema(pattern="^([0-9a-f]{40})?$")]
Filled = Annotated[str, Schema(minLength=1)]
Positive = Annotated[float, Schema(exclusiveMinimum=0)]
Names = Annotated[tuple[str, ...], Schema(uniqueItems=True)]
#: How a choice of response tokens is written; `gradatlas.gradients.subsets` reads it.
SUBSETS = "all, last, last:K, span:A:B, random:K, random:K:DRAWS, random:matched, random:matched:DRAWS"
_SUBSET = "^(all|last(:[1-9][0-9]*)?|span:[0-9]+:[0-9]+|random:(matched|[1-9][0-9]*)(:[1-9][0-9]*)?)$"
Subset = Annotated[str, Schema(pattern=_SUBSET, description=f"one of {SUBSETS}")]
# Not empty, and nothing twice.
LISTED = Schema(minItems=1, uniqueItems=True)


@dataclass(frozen=True)
class Tokenising:
    """How texts become tokens."""

    max_length: Tokens = 1024
    """window in tokens; `truncation` decides what becomes of longer samples"""
    compat: Compat = "none"
    """`reference` tokenises as the study's own code does (special tokens always added, the response counted from
    the length of the prefix tokenised again), for comparison with its published numbers; `none` tokenises once,
    with offsets"""


@dataclass(frozen=True)
class Measuring(Tokenising):
    """What decides gradients, beside the model and the responses."""

    truncation: Truncation = "flag"
    """of a sample longer than the window: `flag` cuts it on the right and marks it `truncated`; `drop` leaves it
    out (status `truncated`); `left` cuts the start of its prompt behind BOS (of an instructed model's template too)
    and keeps the response if it fits. A response cut off completely has status `no_response_tokens`"""
    loss_tokens: Annotated[tuple[Subset, ...], LISTED] = ("all",)
    """response tokens that the loss is taken over, each choice a row of its own: `all`, `last`, `last:K`,
    `span:A:B`, `random:K`, `random:K:DRAWS`, `random:matched` (as many as the None response has; see Part of a
    response)"""
    loss_norm: Literal["mean", "sum"] = "mean"
    """loss of a response: `mean` or `sum` of the cross-entropy of its tokens; the column `loss` holds the same"""
    projections: Annotated[tuple[Projection, ...], LISTED] = ("q", "k", "v", "o")
    """matrices to measure: `q`, `k`, `v`, `o` of the attention and, of architectures whose MLP is understood,
    `gate`, `up`, `down`; a model that lacks one is refused"""
    metrics: Annotated[tuple[Literal["all", Metric], ...], LISTED] = ("all",)
    """columns of the spectra table to measure, `all` or some by name
    (workflow/gradatlas/gradients/README.md#metrics); the others are null, and figures of them are left out. With
    `nuclear_norm` comes `nuclear_norm_scaled` (divided by the root of the matrix's smaller dimension, so that K and
    V under grouped queries compare with Q and O); `sigma_ratio` is sigma_max / nuclear_norm"""
    tf32: bool = False
    """let a GPU round float32 products to TF32: faster, with 10 of 23 bits"""


@dataclass(frozen=True)
class Batching:
    """How much a model reads at once."""

    batch_tokens: Count = 4096
    """tokens of one batch, padding included; halved on every retry of a job"""


@dataclass(frozen=True)
class Throughput:
    """How fast the machine computes, in TFLOP/s, for the hours of `plan` and the time limits of jobs."""

    gpu_pass: Positive | None = None
    """passes on one GPU; empty, here and below: as in workflow/gradatlas/planning/throughput.py"""
    gpu_spectra: Positive | None = None
    """spectra on one GPU"""
    core_pass: Positive | None = None
    """passes on one CPU core"""
    core_spectra: Positive | None = None
    """spectra on one CPU core"""


@dataclass(frozen=True)
class Released:
    """Where released statistics are read from."""

    source: Filled = "MingLiiii/Layer_Gradient"
    """a folder that holds grads_exp/{task}/{model}/grads_{data}.jsonl, or a dataset of the hub, ORG/NAME"""
    revision: Commit = ""
    """commit of a hub dataset, 40 digits; a folder needs none"""


@dataclass(frozen=True)
class Writing:
    """What the answers of a writing model depend on."""

    endpoint: Annotated[str, Schema(pattern="^(https?://.+)?$")] = ""
    """base URL of an OpenAI-compatible endpoint, such as https://api.openai.com/v1; empty: a local model"""
    max_tokens: Count = 1024
    """tokens of one response at most"""
    temperature: Annotated[float, Schema(minimum=0)] = 0
    """of sampling at an endpoint; local models always decode greedily"""


@dataclass(frozen=True)
class Requesting:
    """How an endpoint is asked; no answer depends on it."""

    key_variable: Annotated[str, Schema(pattern="^[A-Za-z_][A-Za-z0-9_]*$")] = "OPENAI_API_KEY"
    """environment variable with the endpoint's key, which is written nowhere"""
    requests_per_minute: Count = 60
    """requests started per minute, at most"""
    parallel: Count = 4
    """requests under way at one time"""
    attempts: Count = 5
    """tries of one request, with pauses that double, before the job stops"""
    timeout: Count = 120
    """seconds without an answer after which a request is tried again"""


PROMPT = """\
Answer the question below. Reason step by step and in detail, and end with a line of its own that reads "The final \
answer is", followed by the answer alone.

{instruction}"""


@dataclass(frozen=True)
class Generate(Writing, Requesting):
    """Which Detailed responses a model writes, and how."""

    datasets: Names = ()
    """datasets whose Detailed responses are written; samples whose written answer is wrong are left out. Empty:
    off"""
    model: str = ""
    """a row of `models.tsv`, or with an `endpoint` the name that the endpoint knows the model by"""
    prompt: str = PROMPT
    """what the model is asked; {instruction} stands for the question"""
    input_price: Annotated[float, Schema(minimum=0)] | None = None
    """price of a million tokens that the endpoint reads, for the costs in `plan`; empty: costs are unknown"""
    output_price: Annotated[float, Schema(minimum=0)] | None = None
    """the same of a million tokens that it writes"""


@dataclass(frozen=True)
class Learning:
    """How the small classifier reads images and learns."""

    image: str = "image"
    """column of the images, in a Parquet file or hub dataset"""
    label: str = "label"
    """column of the labels, whole numbers from 0"""
    rate: Annotated[float, Schema(exclusiveMinimum=0)] = 0.01
    """step size of training; the reference's for MNIST is 0.001"""


@dataclass(frozen=True)
class Images(Learning):
    """What the small classifier learns."""

    source: Filled = "digits"
    """`digits` (scikit-learn's, offline), a Parquet file, a folder with one folder of images a class, or a dataset
    of the hub such as `ylecun/mnist`"""
    revision: Commit = ""
    """commit of a hub dataset, 40 digits"""
    split: Filled = "train[:4000]"
    """rows of a hub dataset, as the `datasets` library writes it; half of them are trained on, at most 2,000"""


@dataclass(frozen=True)
class Toys:
    """The toys of the second study (workflow/gradatlas/toys/README.md)."""

    show: bool | None = None
    """whether they are part of the study, with their claims and their place on the page; empty: where runs are on
    the miniature's own pairs. The target `toys` makes them in any case"""
    draws: Made = 100
    """random softmaxes in each sweep of the squeezing effect"""
    images: Images = Images()
    """what the small classifier learns"""


@dataclass(frozen=True)
class Miniature:
    """The procedural datasets and the models trained on them."""

    questions: Made = 100
    """held-out questions of each miniature dataset, of which `samples` are measured"""
    accuracy_questions: Made = 500
    """held-out questions of each task that a miniature answers, to measure what it can do"""
    retrain: bool = False
    """train the miniatures of seed 0 too (half an hour) instead of taking the committed ones"""
    steps: Whole = 6500
    """training steps of a base miniature"""
    instruct_steps: Whole = 300
    """training steps of an instructed miniature, on chats"""


@dataclass(frozen=True)
class Pairing:
    """Which preference pairs there are."""

    train: Count = 200
    """pairs to train on, at most"""
    held_out: Count = 60
    """pairs whose prompts are never trained on, at most"""
    rejected_rarity: Annotated[float, Schema(minimum=0, maximum=1)] = 0.75
    """of `mini_qa`: how unlikely the wording of rejected answers is under the base model, from 0 (worded as the
    model would) to 1 (the rarest wording most often)"""
    base_documents: Count = 8000
    """of `mini_qa`: questions and answers that the base model is warmed up on"""


@dataclass(frozen=True)
class Window:
    """What a finetuned model reads."""

    max_length: Tokens = 512
    """window in tokens, of a prompt with its response"""
    truncation: Cut = "drop"
    """of examples and probes longer than the window: `drop` leaves them out and counts them; `study` cuts all prompts
    to their last `max_length` / 2 tokens, then responses at the window's end, as the study does with HH;
    `study_start` keeps the first tokens of prompts, as it does with UltraFeedback. A response that was cut has no end
    token"""


@dataclass(frozen=True)
class Sampling(Window):
    """What a finetuned model reads and samples."""

    max_new_tokens: Count = 64
    """tokens at most of a response that the model samples"""


@dataclass(frozen=True)
class OneStep:
    """The check of one plain step against its first-order prediction, on the model that runs start from."""

    updates: Whole = 1
    """pairs that are each learnt for one step, by sft and by dpo; 0 leaves the check out"""
    probes: Count = 6
    """probed prompts, all types of each, whose change is predicted"""
    change: Annotated[float, Schema(exclusiveMinimum=0)] = 0.04
    """change of the learnt response's own log-probability, to first order, at the largest step, in nats"""
    halvings: Annotated[int, Schema(minimum=1, maximum=50)] = 3
    """how often the step is halved"""


@dataclass(frozen=True)
class Followed:
    """The responses whose budget and kernels are measured: those of probes on prompts that are trained on."""

    prompts: Whole = 3
    """probed prompts whose responses of all types are followed"""
    pairs: Whole = 17
    """further probed prompts, of which chosen and rejected are followed alone"""
    norms: Whole = 0
    """prompts, the first of them, whose chosen and rejected responses have norms of the kernel of their logits, by
    Gaussian vectors: 64 gradients a prompt and model (kernel_norms.parquet)"""


@dataclass(frozen=True)
class Kernels(Followed):
    """Budgets and kernels of runs: which block of the model moved which response."""

    runs: Names = ()
    """watched runs with a budget and kernels, those that `dynamics.runs` leaves out excepted; they write snapshots,
    ordinary models, at evaluations. Empty: none"""
    intervals: Count = 3
    """parts of a run, as equal as its evaluations allow, between the start, the snapshots and the end"""


@dataclass(frozen=True)
class BridgeTraining:
    """SFT on the first study's responses."""

    train: Count = 60
    """questions to learn, of those that have a response of every variant"""
    held_out: Count = 30
    """other questions, whose responses are measured"""
    updates: Count = 60
    """updates on the longest variant; runs on the others go on until they have seen as many response tokens"""
    stages: Count = 2
    """snapshots at equal updates, and as many at equal response tokens; the last ones are at the end"""
    batch_size: Count = 4
    """responses of an update"""
    learning_rate: Positive = 1e-4
    """of RMSprop"""


@dataclass(frozen=True)
class Bridge(BridgeTraining):
    """The first study's gradients along SFT on its own variants: the bridge to the second."""

    dataset: str = ""
    """a dataset of `datasets`, with None, Simplified and Detailed; empty: no bridge"""
    models: Annotated[tuple[str, ...], LISTED] = ("mini", "mini_random")
    """base models to finetune: rows of `models.tsv`"""
    seeds: Annotated[tuple[Seed, ...], Schema(minItems=1, maxItems=1000, uniqueItems=True)] = (0,)
    """seeds of questions and of the order of examples"""
    measured: Annotated[tuple[str, ...], LISTED] = ("none:correct", "detailed:correct", "detailed:wrong_chain")
    """responses whose spectra are measured, VARIANT:RELATION"""
    questions: Count = 10
    """trained questions between whose responses kernels are measured"""


@dataclass(frozen=True)
class Dynamics(Pairing, Sampling):
    """The second study: finetuning watched by probes."""

    CONDITION: ClassVar[dict[str, Any]] = {
        # The grammar makes as many as it is asked for; a file has what it has.
        "if": {"properties": {"pairs": {"const": "mini_qa"}}},
        "then": {"properties": {name: {"maximum": 10**6} for name in ("train", "held_out", "base_documents")}},
    }

    runs: Names = ()
    """rows of `runs.tsv`; the runs that they start from are added. Empty: no second study"""
    models: Annotated[tuple[str, ...], LISTED] = ("mini",)
    """models to finetune: rows of `models.tsv`"""
    seeds: Annotated[tuple[Seed, ...], Schema(minItems=1, maxItems=1000, uniqueItems=True)] = (0,)
    """seeds of the order of examples and of samples; each is a run of its own"""
    pairs: Key = "mini_qa"
    """preference pairs: `mini_qa` (the miniature's grammar), or NAME for a file `config/pairs/NAME.yaml`"""
    steps: Annotated[float, Schema(exclusiveMinimum=0, maximum=1)] = 1
    """share of its `steps` in `runs.tsv` that each run makes, the warm start's too; evaluations stay as far apart"""
    evaluations: Whole = 0
    """evaluations of the probes by one run, at most, beside the one at its start: `evaluate_every` of `runs.tsv` is
    multiplied by the smallest whole number that allows it; 0: as often as `runs.tsv` says"""
    probes: Count = 30
    """probed prompts among those trained on"""
    held_out_probes: Whole = 10
    """probed prompts among those never trained on"""
    rephrases: str = ""
    """a JSON Lines file of `{"pair_id", "type", "text"}`, for every probed pair the types `chosen_semantic`,
    `chosen_format`, `rejected_semantic`, `rejected_format`, `unrelated`; a missing one is an error that names it.
    Empty: the miniature's grammar writes them; for other pairs `generate.model`; without one, probes of these five
    types are left out (their figures state it)"""
    generate_prompts: Whole = 40
    """prompts that every watched run answers freely, at most so many of those trained on and of those held out; 0:
    none"""
    generate_draws: Few = 1
    """free responses to each of them"""
    generate_batch_tokens: Count = 4096
    """tokens of one batch of free responses, prompts and padding included; halved on every retry of a job"""
    checkpoint_every: Count = 1
    """evaluations from one checkpoint of a run to the next; what a killed run computed since the last one is computed
    again. Never more than two are on the disk"""
    keep_models: bool = True
    """keep the models of all runs; if not, a model is deleted when no job of this config needs it any more"""
    processes: Few = 1
    """processes of one run, each with the complete model and, on GPUs, a GPU of its own; they share every batch, and
    the update is that of one process (sums may round otherwise). Not more than a batch has examples"""
    judge: str = "oracle"
    """who judges the free responses of runs with a `baseline`: `oracle` (of `mini_qa`), `endpoint`
    (`generate.model` at `generate.endpoint`), a reward model (a row of `models.tsv`: a sequence classifier with one
    output), or nobody (empty)"""
    one_step: OneStep = OneStep()
    """the check of one plain step against its first-order prediction"""
    kernels: Kernels = Kernels()
    """budgets and kernels of runs (workflow/gradatlas/kernels/README.md)"""


@dataclass(frozen=True, kw_only=True)
class Config(Measuring, Batching):
    """Every key of config/*.yaml and of ``--config``."""

    models: tuple[str | dict[str, Any], ...]
    """models to measure: rows of `models.tsv` by name, or complete rows written out: `{model: mine, source:
    ./folder}`"""
    datasets: Annotated[tuple[str | dict[str, Any], ...], Schema(uniqueItems=True)]
    """datasets to measure: rows of `datasets.tsv` by name; or training files to score, written out: `{dataset: mine,
    source: data/mine.jsonl, group: source}` (see Scores). Empty for the second study alone (`dynamics`), with its
    page"""
    variants: dict[str, Annotated[tuple[str, ...], LISTED]] = field(default_factory=dict)
    """by dataset, the variants to keep: `{wiki_popular: [length_100]}`; others keep all"""
    relations: Annotated[tuple[Literal[Given, Built], ...], LISTED] = ("correct", "derangement")
    """responses to measure; each dataset takes those that it has. With the data come `correct`, `published` (the
    study's irrelevant responses, as they are) and `wrong_chain` (miniature: one error carried through). Built for
    any data (workflow/gradatlas/data/responses/README.md) are `reference` (by the study's own algorithm, with right
    answers among the wrong; beside `derangement` it shows which conclusions survive), `derangement` (another
    sample's response, its label never right), `wrong_answer`, `shuffled`, `foreign_fluent` and `sentence_salad`"""
    controls: Literal["none", "standard", "full"] = "full"
    """measured beside the `relations`, where questions have answers: `none`; `standard`: the loss on as many random
    tokens as None has (two draws, Detailed), and None's wrong answers; `full`: also Detailed with a wrong final
    answer, with another question's rationale, with its sentences shuffled, and, beside `derangement` where nothing
    `published` is measured, None and Detailed by the study's own algorithm (`reference`; on trained models). What
    they are for: workflow/gradatlas/claims/README.md"""
    controls_models: Names = ()
    """models measured on the controls; empty: all"""
    samples: Count | Literal["all"] = "all"
    """samples of each dataset, a seeded subset that is the same for all variants; or `all`"""
    seed: Seed = 0
    """of the subset of samples, the builders of responses, the miniature's questions and the bootstrap"""
    mirror: str = ""
    """where data and models come from instead of their hubs, for machines without a network: a folder (data files
    by their path in `sources.tsv`, models as models/ORG/NAME), or a base URL (data files only). Empty: the hubs"""
    gradients: Literal["measured", "published"] = "measured"
    """`measured` with the models, or `published`: read from released statistics, with no model and no GPU"""
    released: Released = Released()
    """where released statistics are read from"""
    normalise_newlines: bool = False
    """write a backslash and an n within an instruction as the new line that they were meant to be; by default they
    stay, as the study's models read them (AQuA, CREAK, ECQA, Sensemaking)"""
    generate: Generate = Generate()
    """writes Detailed responses for data that have none"""
    singular_values: bool = False
    """also write every gradient's complete spectrum, results/gradients/{model}/{dataset}.singular_values.parquet"""
    cosines: bool = False
    """also write cosines between gradients of a sample (q and o, k and v of a layer where their shapes agree; each
    projection of adjacent layers), results/gradients/{model}/{dataset}.cosines.parquet"""
    tokens: (
        Whole
        | Annotated[
            dict[str, Annotated[tuple[str | int, ...], LISTED]],
            Schema(minProperties=1),
        ]
    ) = 0
    """also write each token's loss and the norm of its term of every gradient, of the first so many samples of each
    dataset or of samples by their ids (`{gsm8k: ["3", "17"]}`), results/gradients/{model}/{dataset}.tokens.parquet;
    0: none"""
    shards: Few = 1
    """jobs that share the measuring of one dataset on one model, for queues that one job would be too long for;
    samples and spectra are the same to the last byte, finished work counts whatever the number was, and parts that
    disagree (revision, tokenizer, code, precision) are an error"""
    throughput: Throughput = Throughput()
    """how fast the machine computes, in TFLOP/s, for the hours of `plan` and the time limits of jobs"""
    bootstrap: Annotated[int, Schema(minimum=10, maximum=100_000)] = 1000
    """draws behind every 95 % interval"""
    formats: Annotated[tuple[Format, ...], LISTED] = ("vl.json", "svg", "png")
    """files of every figure; `pdf` is the one format whose bytes differ from run to run"""
    paper_axes: bool = False
    """give figures in the study's form its own axes (norms to 100 for None, 30 for others, 25 for MATH; ratios to
    0.6) and state how many values they cut off; by default every axis holds all that is drawn"""
    toys: Toys = Toys()
    """the smallest settings in which the second study's claims can be watched"""
    miniature: Miniature = Miniature()
    """the procedural datasets and the models trained on them"""
    dynamics: Dynamics = Dynamics()
    """the second study: finetuning watched by probes"""
    bridge: Bridge = Bridge()
    """the first study's gradients along SFT on its own variants (workflow/gradatlas/kernels/README.md)"""


Shape = Literal[
    "auto", "messages", "conversations", "prompt_completion", "instruction", "dolly", "text", "question_answer",
    "preference", "columns",
]  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """How a training file is read: its shape, and which columns are what."""

    shape: Shape = "auto"
    """`messages`, `conversations` (ShareGPT), `prompt_completion`, `instruction` (Alpaca), `dolly`, `text`,
    `question_answer`, `preference` (chosen and rejected), `columns` (named by `prompt_column` and `response_column`);
    `auto`: by the names of the columns"""
    prompt_column: str = ""
    """column of the prompts, under shape `columns`"""
    response_column: str = ""
    """column of the responses, under shape `columns`"""
    id: str = ""
    """column of ids; empty: the column `id` where there is one, else the row's number"""
    group: str = ""
    """column of the groups to compare; empty: the column `group` where there is one"""
    split: str = ""
    """rows of a hub dataset or of a folder of several splits, as the `datasets` library writes it; empty: `train`, or
    the only one"""


@dataclass(frozen=True)
class Prompting:
    """How a training row becomes tokens, and which of them the loss is over."""

    prompt: Literal["auto", "plain", "chat"] = "auto"
    """`chat`: through the model's chat template; `plain`: prompt and response as one text; `auto`: `chat` for chats,
    and for other shapes where the model has a template (texts: always `plain`)"""
    turns: Literal["all", "last"] = "all"
    """loss of a chat over all assistant turns, or over the last one"""
    max_length: Tokens = 1024
    """window in tokens"""
    truncation: Truncation = "flag"
    """of a sample longer than the window, as the config key of this name"""
