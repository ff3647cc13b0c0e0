"""Rows of the sheets and keys of the mappings in config/: type, default and meaning of each, once.

Sheets are read against these classes; jobs inherit the parts that they share with them; the tables of config/README.md
are compared with them by a test.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from gradatlas.core.schemas import ABSENT, Schema
from gradatlas.study.probe_types import ProbeType
from gradatlas.study.relations import Built, Given
from gradatlas.study.settings import LISTED, Commit, Count, Few, Filled, Key, Prompting, Reading, Seed, Whole

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["float32", "float64", "bfloat16", "float16"]
Sha256 = Annotated[str, Schema(pattern="^[0-9a-f]{64}$(?!\\n)")]
Title = Annotated[str, Schema(pattern="^(?!-)[^\\x00-\\x1f\\x7f\\x85\\u2028\\u2029]*$")]
VARIANT = "^[A-Za-z0-9_]{1,64}$"
RECIPE = "^((shift|pairs|permutation|pool)|([A-Za-z0-9_]+:)?(dot|line|backslash|sentence))$"
LABELLED = "([A-Za-z0-9_]+=)?[0-9a-f]{40}"
_SIZES = ("layers", "width", "feedforward", "heads", "kv_heads", "head", "vocabulary", "positions")
SHAPE = f"{''.join(f'{name}=[0-9]+ ' for name in _SIZES)}stored=(float32|bfloat16|float16) tied=(yes|no)"


@dataclass(frozen=True)
class Loading:
    """Where and how precisely a model computes."""

    device: Device = "auto"
    """`cpu` needs no GPU, `cuda` insists on one, `auto` takes a GPU where there is one"""
    dtype: Dtype = "float32"
    """precision of weights and passes, whatever the checkpoint has; spectra of `bfloat16` and `float16` are
    computed from float32 copies"""
    trust_remote_code: bool = False
    """run model code that comes with the checkpoint"""


@dataclass(frozen=True)
class Weights(Loading):
    """Which weights are measured: what a model's gradients depend on beside its files."""

    lora: Literal["merged", "separate"] = "merged"
    """of a model with a LoRA adapter: `merged` into its weights, or `separate`: not merged, and its matrices A and B
    are measured as projections of their own (`q.lora_a`, `q.lora_b`, ...)"""
    quantise: Literal["", "8bit", "4bit"] = ""
    """weights of linear layers in `8bit` or `4bit` (NF4) by bitsandbytes, to save memory: the gradients are those of
    the dequantised weights. Empty: in `dtype`"""


@dataclass(frozen=True, kw_only=True)
class ModelRow(Weights):
    """A row of config/models.tsv."""

    model: Key
    """name in tables, figures and file names (letters, digits, `_`)"""
    title: Title = ""
    """name in figures, on one line, no dash first; empty: the key"""
    source: Annotated[str, Schema(pattern="^(miniature|[.~/].*|[^/]+/[^/]+)$")]
    """a folder (starts with `.`, `/` or `~`), a hub id ORG/NAME, or `miniature`. FP8 and MXFP4 weights are
    dequantised, those of bitsandbytes taken as they are, other quantised ones refused; a PEFT adapter goes into column
    `adapter`, and its base model here"""
    revision: Annotated[str, Schema(pattern=f"^({LABELLED}( {LABELLED})*)?$")] = ""
    """commit of a hub model; empty is unresolved, `gradatlas pin` fills it in, on a machine with a network.
    Several, with spaces between, each as COMMIT or LABEL=COMMIT: a training series, see below"""
    kind: Literal["base", "instruct", "random"] = "base"
    """`base`, `instruct` (tuned to follow instructions) or `random`: untrained. A random row of a hub id is made
    here: config and tokenizer of that model, weights drawn by `seed`, none downloaded; a random row of a folder is
    measured as it is"""
    prompt: Literal["", "plain", "chat"] = ""
    """form of the prompts: `plain` (the instruction and a new line) or `chat` (through the model's own chat
    template). Empty: `chat` for kind `instruct`, `plain` for the others; a local `generate.model` then takes its
    template if it has one"""
    partner: str = ""
    """the model that it is compared with where both are measured, of any kind: a base model with a base model, a
    checkpoint with an earlier one. Figures `instructed` draw the two; where they read prompts of different forms,
    title and page state it. Claims about instructed models are about kind `instruct` with a partner of kind `base`.
    Of a random row, the base model that it belongs to; of a random row of a hub id, one of the same source and
    revision"""
    seed: Seed | None = None
    """of a miniature, or of an untrained network's weights"""
    threads: Few = 4
    """CPU threads of a job (never more than --cores); 1 for a model of a few million parameters"""
    scope: Literal["any", "miniature", "none"] = "any"
    """data that it is meant for: `any`, `miniature` or `none`. Outside of it, every figure and table is marked
    `pipeline check`"""
    released: Annotated[str, Schema(pattern="^[A-Za-z0-9_][A-Za-z0-9_./-]*$|^$")] = ""
    """name of its folder among released statistics; empty: the key"""
    projections: str = ""
    """where q, k, v and o are in a decoder layer, if they are not found by themselves; see below"""
    parameters: Annotated[int, Schema(minimum=1, maximum=10**13)] | None = None
    """how many it has, for `plan` before its files are here; empty: unknown until then"""
    adapter: Annotated[str, Schema(pattern="^([.~/].*|[^/]+/[^/]+)?$")] = ""
    """a PEFT adapter of the model: a folder (starts with `.`, `/` or `~`) or a hub id ORG/NAME; empty: none"""
    adapter_revision: Commit = ""
    """commit of a hub adapter, 40 digits; empty is unresolved, `gradatlas pin` fills it in"""
    gpus: Few = 1
    """GPUs of one node that hold the model's layers together, where one is too small"""
    shape: Annotated[str, Schema(pattern=f"^({SHAPE})?$")] = ""
    """its sizes, for `plan` before its files are here, as the sheet's rows have them (`layers=28 width=1536 ...`):
    those of its config.json, the size of an attention head, the precision of the stored weights, and whether the output
    layer has the embeddings' weights; empty: unknown until then"""
    gated: bool = False
    """its page on the hub asks to accept a licence; `plan` then checks that there is a token"""


@dataclass(frozen=True)
class Answering:
    """Where the answers of a dataset's questions are."""

    gold: Literal["", "none", "final_answer", "boxed"] = ""
    r"""where gold answers of `published` files are: `none` (the None response is the answer), `final_answer` (after
    "The final answer is" of Simplified), `boxed` (the last `\boxed{}` of Simplified); empty: the data have none, or
    a mapping names them"""
    options: Literal["", "listed", "yes_no"] = ""
    """what questions offer: `listed` (options after `Options:` in the instruction, one a line: `(A) 22`, `-
    Sentence A: ...`, `- bank`), `yes_no`; empty: they are open, or have no answer"""


@dataclass(frozen=True, kw_only=True)
class DatasetRow(Answering):
    """A row of config/datasets.tsv."""

    dataset: Key
    """name in tables, figures and file names (letters, digits, `_`)"""
    title: Title = ""
    """name in figures, on one line, no dash first; empty: the key"""
    task: Literal["math", "commonsense", "knowledge", "other"] = "other"
    """kind of task"""
    reader: Literal["published", "mapped", "miniature"]
    """`published` (the study's own layout, files in `sources.tsv`), `mapped` (any file or hub dataset, columns in
    `config/mappings/DATASET.yaml`) or `miniature`"""
    variants: Annotated[tuple[Annotated[str, Schema(pattern=VARIANT)], ...], LISTED] = ("natural",)
    """variants that the data have, in the order of figures, with spaces between; empty: `natural` (one response to
    a question, of no variant)"""
    relations: Annotated[tuple[Given, ...], Schema(uniqueItems=True, contains={"const": "correct"})] = ("correct",)
    """relations that come with the data, with spaces between; of a mapped dataset `correct`"""
    recipe: tuple[Annotated[str, Schema(pattern=RECIPE)], ...] = ()
    """how the study made its irrelevant responses of this dataset, for the `reference` builder: a base map (shift,
    pairs, permutation, pool), then how responses are cut (dot, line, backslash, sentence), for all variants or for
    one (`detailed:line`); empty: `shift dot`"""
    url: str = ""
    """address of the folder that the paths in `sources.tsv` are in; empty: they are local files"""
    scope: Literal["study", "miniature", "user"] = "user"
    """`study` (published by it), `miniature`, or `user` for your own"""
    family: Annotated[str, Schema(pattern="^[A-Za-z0-9_]*$")] = ""
    """datasets of one family are also drawn together; empty: none"""
    member: Title = ""
    """the dataset's name within its family; empty: its title"""
    paper_top: Count | None = None
    """end of the study's own axis of nuclear norms under `paper_axes`; empty: 100 for None, 30 for others"""
    samples: Count | None = None
    """how many it has, for `plan` before its files are here; empty: unknown until then"""


@dataclass(frozen=True, kw_only=True)
class ScoredRow(Reading, Prompting):
    """A training file whose samples are scored: a row of config/scored.tsv, or an entry of config key `datasets`."""

    dataset: Key
    """name in file names (letters, digits, `_`)"""
    title: Title = ""
    """name on its page, on one line, no dash first; empty: the key"""
    source: Filled
    """a training file (.json, .jsonl, .csv, .parquet, also .gz and .zst; `~` at its start is your home folder), a
    folder that `datasets` saved, a dataset of the hub, ORG/NAME, or `graded`: the miniature's questions with planted
    faults, which the workflow makes"""
    revision: Commit = ""
    """commit of a hub dataset, 40 digits; empty for a file"""
    name: str = ""
    """configuration of a hub dataset that has several, such as `main`"""
    url: str = ""
    """address of the folder that the path `source` is in; empty: it is a local file"""
    sha256: Annotated[str, Schema(pattern="^([0-9a-f]{64})?$")] = ""
    """checksum; needed with a url"""
    scope: Literal["study", "miniature", "user"] = "user"
    """`study` (published by it), `miniature`, or `user` for your own"""
    models: tuple[str, ...] = ()
    """the models that it is scored on, of those chosen; empty: all of them"""
    pair: Annotated[str, Schema(pattern="^[A-Za-z0-9_]*$")] = ""
    """name of a comparison of samples of high and of low quality, which claims on data quality are tested on; its
    samples may be in one dataset or in two. Empty: none"""
    high: tuple[str, ...] = ()
    """the groups of high quality; `*`: all samples"""
    low: tuple[str, ...] = ()
    """the groups of low quality; `*`: all samples"""
    quality: str = ""
    """column of the file that measures the quality of each sample; empty: only high and low are known"""
    samples: Count | None = None
    """how many it has, for `plan` before its file is here; empty: unknown until then"""


@dataclass(frozen=True)
class SourceRow:
    """A row of config/sources.tsv: one file, with one variant and relation of a dataset."""

    dataset: str
    """a row of `datasets.tsv`"""
    variant: str
    """variant that the file holds"""
    relation: Given
    """relation that the file holds"""
    path: Filled
    """below the dataset's url or the mirror; a local file where it has no url"""
    sha256: Annotated[str, Schema(pattern="^([0-9a-f]{64})?$")] = ""
    """checksum; needed for files with a url"""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a run trains."""

    loss: Literal["sft", "dpo", "ipo", "slic", "sppo", "kto", "simpo"] = "sft"
    """loss of an update (workflow/gradatlas/finetuning/losses.py)"""
    target: Literal["extend", ProbeType] = "chosen"
    """of sft: `chosen`, `extend` (chosen and rejected responses both), or a type of probe, to train on the probed
    prompts"""
    split: Literal["train", "base"] = "train"
    """pairs to train on: `train`, or `base`, the miniature's documents for a warm start"""
    probed: bool = False
    """train on the probed pairs alone"""
    negatives: Literal["off_policy", "on_policy", "self_play"] = "off_policy"
    """responses of a pair: the data's own (`off_policy`); both sampled from the model at every step and ranked by
    `dynamics.judge`, a tie giving no gradient (`on_policy`); or the data's chosen one against a sampled one
    (`self_play`, as in SPIN)"""
    parameters: Literal["full", "lora"] = "full"
    """what is trained: all weights, or low-rank terms of all linear layers but the output, scaled by 2, without
    dropout"""
    lora_rank: Count = 8
    """rank of lora's terms"""
    optimiser: Literal["sgd", "rmsprop", "adamw"] = "rmsprop"
    """plain SGD, RMSprop (the study's) or AdamW without decay"""
    learning_rate: Annotated[float, Schema(exclusiveMinimum=0)]
    """after the warm-up"""
    steps: Count
    """updates"""
    batch_size: Count = 4
    """responses (sft) or pairs of an update"""
    warm_up: Whole = 0
    """updates over which the learning rate rises; it stays from there"""
    clip: Annotated[float, Schema(minimum=0)] = 10
    """largest norm of the gradient; 0: no limit"""
    beta: Annotated[float, Schema(exclusiveMinimum=0)] = 0.1
    """of the losses on pairs"""
    margin: Annotated[float, Schema(minimum=0)] = 0
    """of slic (delta) and simpo (gamma)"""
    label_smoothing: Annotated[float, Schema(minimum=0, exclusiveMaximum=0.5)] = 0
    """of dpo and ipo: the assumed share of pairs whose labels are exchanged"""
    reference_free: bool = False
    """of dpo and ipo: compare with no reference model"""
    evaluate_every: Count = 50
    """updates between evaluations of all probes; also before the first update and after the last"""
    generate_every: Whole = 0
    """updates between free responses; 0 or empty: before the first update and after the last alone"""


@dataclass(frozen=True, kw_only=True)
class RunRow(Training):
    """A row of config/runs.tsv."""

    run: Key
    """name in tables, figures and file names"""
    title: Title = ""
    """name in figures, on one line, no dash first; empty: the key"""
    init: str = ""
    """the run whose model it starts from; empty: the model of `models.tsv`"""
    watched: bool = True
    """whether probes are evaluated; a warm start that comes before all probes is not watched"""
    baseline: tuple[str, ...] = ()
    """runs whose free responses its own are judged against, with spaces between; those that the config leaves out
    are not"""


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Columns that are joined to the question, each on lines of its own; a field of them may be empty."""

    system: str = ABSENT
    """a system message, written before the question"""
    context: str = ABSENT
    """a passage that the question is about, written after it"""
    input: str = ABSENT
    """what the instruction is to be done with (Alpaca), written after it"""


@dataclass(frozen=True, kw_only=True)
class DatasetColumns(Joined):
    """Which column of a dataset holds what."""

    instruction: str
    """the question, as the model is asked it"""
    rationale: str = ABSENT
    """the short reasoning (Simplified), with the answer"""
    answer: str = ABSENT
    """the final answer (None); without one, the data have no gold answers"""
    detailed: str = ABSENT
    """the long reasoning (Detailed)"""
    response: str = ABSENT
    """a response that is none of these, such as a chat answer; its variant is `natural`"""
    id: str = ABSENT
    """a name of each row, unique; without it, rows are counted from 0"""


@dataclass(frozen=True, kw_only=True)
class DatasetMapping:
    """A file config/mappings/DATASET.yaml: where a dataset's rows come from, and which of their columns is what."""

    source: Filled
    """a file (.json, .jsonl, .csv, .parquet; `~` at its start is your home folder), or a dataset of the hub,
    ORG/NAME"""
    revision: Commit = ""
    """commit of a hub dataset, 40 digits; empty for a file"""
    name: str = ""
    """configuration of a hub dataset that has several, such as `main`"""
    split: Filled = "train"
    """rows to take, as the `datasets` library writes it (`train[:500]`, `train[-10%:]`); a file is one split,
    `train`"""
    columns: DatasetColumns
    """the names of your columns"""
    separator: str = ""
    """what is between reasoning and answer in the rationale's column, such as GSM8K's `####`; the last one
    counts. Empty: they have columns of their own"""
    boxed: bool = False
    r"""`true`: the answer is the last `\boxed{}` of the rationale; Simplified is the rationale as it is"""
    remove: str = ""
    """regular expression of what to delete from rationales, such as GSM8K's `<<[^>]*>>`"""
    answers: dict[str, str] = field(default_factory=dict)
    """the final answer for what the answer's column holds: `{"True": "yes", "False": "no"}`"""


@dataclass(frozen=True, kw_only=True)
class PairsColumns(Joined):
    """Which column of preference pairs holds what."""

    prompt: str = ABSENT
    """the prompt; of format dialogue there is none"""
    chosen: str
    """the preferred response"""
    rejected: str
    """the other one"""


@dataclass(frozen=True, kw_only=True)
class ProbeFiles:
    """The study's files of probes: JSON Lines, a probed prompt and its responses a line."""

    train: Filled
    """the file of prompts that are trained on: a path (`~` at its start is your home folder), or an address
    (https://...). Its lines have the study's 14 fields: `prompt`, `chosen`, `chosen_initial`, ...
    (workflow/gradatlas/study/probe_types.py has all, with our names)"""
    train_sha256: Sha256
    """its sha256: 64 digits 0-9 and a-f, in quotes"""
    held_out: Filled
    """the file of prompts that are never trained on"""
    held_out_sha256: Sha256
    """its sha256: 64 digits 0-9 and a-f, in quotes"""
    leading_spaces: Literal["one", "file"] = "one"
    """before each response: `one` space, as answers have in training; or what the `file` has: in the study's files
    no space before rephrases, unrelated and most shuffled texts, which makes their first token unlikely"""


@dataclass(frozen=True, kw_only=True)
class PairsMapping:
    """A file config/pairs/PAIRS.yaml: where preference pairs come from, and which of their columns is what."""

    source: Filled
    """a dataset of the hub, ORG/NAME, or a file of rows to train on (.json, .jsonl, .csv, .parquet; `~` at its
    start is your home folder)"""
    held_out: str = ""
    """where `source` is a file, the file of rows that are held out; empty: `source` itself, cut by `train_split`
    and `held_out_split`"""
    revision: Commit = ""
    """commit of a hub dataset, 40 digits; empty for a file"""
    name: str = ""
    """configuration of a hub dataset that has several"""
    folder: str = ""
    """folder of a hub dataset that keeps its parts in folders, such as helpful-base"""
    train_split: str = "train"
    """rows to train on, as the `datasets` library writes it"""
    held_out_split: str = "train"
    """rows that are held out; of a file, `train` or a part of it, such as `train[80%:]`"""
    format: Literal["plain", "dialogue", "messages"] = "plain"
    """`plain` (three texts), `dialogue` (chosen and rejected are complete dialogues that share the prompt through
    their last "Assistant:"), or `messages` (lists of {role, content}; the last one is the response)"""
    template: Annotated[str, Schema(pattern="\\{prompt\\}")] = "{prompt}"
    """the prompt as the model reads it; {prompt} stands for the prompt's text"""
    order: Literal["drawn", "file"] = "drawn"
    """which rows are taken where there are more than `dynamics.train` or `dynamics.held_out`: `drawn` by the config's
    `seed`, or the first ones in the order of the `file`, as the study does"""
    columns: PairsColumns
    """the names of your columns"""
    probes: ProbeFiles = ABSENT
    """files that have the texts of all probes: which prompts are probed and which responses (but `random_tokens`, which
    are drawn here); nobody is asked for rephrases. The prompts must be among the pairs; `dynamics.probes` and
    `dynamics.held_out_probes` are the numbers of lines"""


@dataclass(frozen=True, kw_only=True)
class ClaimRow:
    """What the rows of both sheets of claims have. Thresholds are fixed before results are seen."""

    CONDITION: ClassVar[dict[str, Any]] = {
        "if": {"properties": {"direction": {"const": "within"}}},
        "then": {"properties": {"margin": {"type": "number", "description": "how far from the threshold is within"}}},
        "else": {"properties": {"margin": {"type": "null", "description": "only of direction `within`, else empty"}}},
    }

    claim: Annotated[str, Schema(pattern="^[a-z0-9_]+$")]
    """the claim's name; in `claims_dynamics.tsv` also that of the function that measures it"""
    status: Literal["stands", "withdrawn", "control"] = "stands"
    """`stands`, `withdrawn` (by its authors) or `control` (ours, to show what else could explain a finding)"""
    source: Filled
    """where it is stated"""
    title: Filled
    """the claim in a few words"""
    statement: Annotated[str, Schema(pattern="^[^{}]*\\{\\}[^{}]*$")]
    """the claim in plain words; {} stands for the number"""
    finding: Annotated[str, Schema(pattern="^(([^{}|]*\\{[^{}|]+\\|[^{}|]+\\})+[^{}|]*)?$")] = ""
    """the claim in words that need no study, for `results/findings.md`: a sentence that begins with a small letter and
    can follow *whether*. Of `{larger|smaller}` the first word stands where the claim holds, the second where it fails.
    Empty: the claim is no finding, and in `claims.md` alone"""
    statistic: Filled
    """what the number is"""
    direction: Literal["above", "below", "within"]
    """where the number is claimed to lie: above or below `threshold`, or within `margin` of it"""
    threshold: float
    """the bound"""
    margin: Annotated[float, Schema(exclusiveMinimum=0)] | None = None
    """of `within`, how far from `threshold` counts as no difference; empty otherwise"""


@dataclass(frozen=True, kw_only=True)
class GradientClaimRow(ClaimRow):
    """A row of config/claims.tsv. Lists are separated by spaces."""

    measure: Annotated[str, Schema(pattern="^[a-z0-9_]+$")]
    """how the number is made from the cells that are compared: a function of claims/findings.py or controls.py"""
    variants: Annotated[
        tuple[Annotated[str, Schema(pattern="^[a-z0-9_]+\\*?(:matched)?$")], ...], Schema(uniqueItems=True)
    ] = ()
    """variants that are compared, in the order that the measure takes them; a name that ends in * stands for all that
    begin so. VARIANT:matched: with the loss on as many random tokens as None has"""
    relations: Annotated[tuple[Literal["correct", Given, Built], ...], Schema(uniqueItems=True)] = ("correct",)
    """responses that are compared with the correct ones, each in a row of its own; empty: the correct ones alone"""
    against: Literal["base", "untrained", ""] = ""
    """the model that the number is compared with: `base` (of an instructed one) or `untrained`; empty: none"""
    kinds: Annotated[tuple[Literal["base", "instruct", "random"], ...], Schema(uniqueItems=True)] = (
        "base",
        "instruct",
        "random",
    )
    """kinds of models that it is tested on; empty: all"""
    models: tuple[Key, ...] = ()
    """the models that it is about, rows of models.tsv; empty: all"""
    tasks: tuple[Annotated[str, Schema(pattern="^[a-z_]+$")], ...] = ()
    """kinds of tasks of the datasets that it is about; empty: all"""
    between: tuple[Annotated[str, Schema(pattern="^[A-Za-z0-9_]+:[A-Za-z0-9_]+/[A-Za-z0-9_]+$")], ...] = ()
    """of a comparison of datasets, DATASET:VARIANT/DATASET; of the second, the variant whose mean response length is
    closest"""
    ability: Literal["needed", "own", "task", "free"] = "needed"
    """no verdict where a model cannot do the task. `needed`: it, or the one it is compared with, does not master it
    with the slowest variant that the claim uses; `own`: only the model itself must master it; `task`: it does not
    master it with its slowest variant, for claims about the gradients of None, which a model may well fail with;
    `free`: nothing is needed"""
    published: tuple[Annotated[str, Schema(pattern="^[A-Za-z0-9_]+/[A-Za-z0-9_]+=-?[0-9.]+$")], ...] = ()
    """numbers that the study has published, MODEL/DATASET=VALUE"""


@dataclass(frozen=True, kw_only=True)
class DynamicsClaimRow(ClaimRow):
    """A row of config/claims_dynamics.tsv. Lists are separated by spaces."""

    rests: Literal["seeds", "draws", "exact"]
    """what a verdict depends on. `seeds`: trainings of different seed, three or more; `draws`: random cases; `exact`:
    nothing random, the number itself lies where it is claimed or does not"""
    table: Literal[
        "dynamics",
        "generation_scores",
        "judgements",
        "budget",
        "kernels",
        "entanglement",
        "bridge",
        "bridge_kernels",
        "one_step",
        "squeeze",
        "clip",
        "images",
        "formulas",
    ] = "dynamics"
    """the table that it is measured on"""
    runs: Annotated[
        tuple[Annotated[str, Schema(pattern="^[A-Za-z0-9_]+([:/][A-Za-z0-9_.-]+)?$")], ...], Schema(uniqueItems=True)
    ] = ()
    """runs that it is tested on, each a row of its own; RUN:RUN, the first against the second. Of images, their source
    (ylecun/mnist) where it is about those alone. A row is made where the config has all its runs"""
    types: Annotated[tuple[Annotated[str, Schema(pattern="^[a-z_]+$")], ...], Schema(uniqueItems=True)] = ()
    """types of probes (or losses) that it is tested on, each a row of its own"""
    at: Annotated[
        tuple[Annotated[str, Schema(pattern="^(end|peak|equal_examples|margin_[1-9][0-9]*)$")], ...],
        Schema(uniqueItems=True),
    ] = ("end",)
    """where on the curves it is measured, each a row of its own. `end`: the last evaluation; `margin_5`: where
    log pi(chosen) - log pi(rejected) has first grown by 5 nats since the run's start, if an evaluation lies within half
    of that; `peak`: where the curve lies
    furthest on the claimed side, each half of the probes by the other half's mean; of RUN:RUN, which has no `peak`,
    `equal_examples`: the last evaluation that both have after as many examples"""
    ability: Literal["needed", "free"] = "free"
    """`needed`: no verdict where the model that a run starts from cannot do the task: the share of its first free
    answers to held-out prompts that are right decides, by the first study's rule"""
    published: tuple[Annotated[str, Schema(pattern="^[a-z0-9_:]+(/[a-z_]+)?=-?[0-9.]+$")], ...] = ()
    """published numbers, RUN=VALUE or RUN/TYPE=VALUE; comments in the sheet state of what they are"""


@dataclass(frozen=True, kw_only=True)
class QualityClaimRow(ClaimRow):
    """A row of config/claims_quality.tsv. Lists are separated by spaces."""

    measure: Annotated[str, Schema(pattern="^[a-z0-9_]+$")]
    """how the number is made: a function of claims/quality/"""
    number: Literal["", "nuclear_norm", "effective_rank"] = ""
    """the score that it is about; empty: the measure names it"""
    matched: Annotated[tuple[Literal["tokens", "loss"], ...], Schema(uniqueItems=True)] = ()
    """what samples of high and low quality are matched on; empty: all are compared"""
    families: tuple[Annotated[str, Schema(pattern="^[A-Za-z0-9_]+=[a-z0-9_]+$")], ...] = ()
    """of a comparison of families of models, MODEL=FAMILY"""


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """A row of config/published.tsv: a number of the MAD and RD tables."""

    table: Literal["mad", "rd"]
    """the table that the number stands in"""
    model: str
    """row of models.tsv"""
    dataset: str
    """row of datasets.tsv"""
    relation: str
    """responses that were measured"""
    statistic: Literal["nuclear_norm", "sigma_ratio"]
    """statistic of a gradient"""
    variant: str
    """variant of the responses"""
    projection: Literal["", "q", "k", "v", "o"] = ""
    """weight matrix; empty where the source does not say which, or means several"""
    part: Literal["early", "middle", "last", "all", "signed", "absolute"]
    """of MAD the segment of the layers (early, middle, last, all), of RD the measure (signed, absolute)"""
    value: str
    """the number as it is printed, or in words (about 0.81)"""
    source: str
    """where it is printed, and how it came here"""


@dataclass(frozen=True, kw_only=True)
class PublishedCurveRow:
    """A row of config/published_curves.tsv: the course of one measure of one type of probe in a run."""

    model: str
    """row of models.tsv"""
    pairs: str
    """file of config/pairs"""
    run: str
    """row of runs.tsv that comes nearest"""
    like: tuple[str, ...] = ()
    """other rows of runs.tsv that ask the same of another model or of other data"""
    type: str
    """type of probe"""
    measure: Literal["log_prob_sum", "argmax_log_prob"]
    """measure of the dynamics_curves table"""
    argmax: Literal["", "fixed", "faulty"] = ""
    """of argmax_log_prob, the key of the study's code: `fixed`, of the row's own type; `faulty`, drawn by the study as
    that of the chosen responses, which is of its last type, random_nonhum"""
    start: float | None = None
    """before the first update"""
    peak: float | None = None
    """the highest between; empty where none is published"""
    peak_examples: int | None = None
    """examples seen by then"""
    end: float | None = None
    """after the last update"""
    change: float | None = None
    """end less start where it is published as a number of its own"""
    source: str
    """whose number it is, and of what"""


@dataclass(frozen=True, kw_only=True)
class PublishedRateRow:
    """A row of config/published_dynamics.tsv: a win rate."""

    measure: Literal["win_rate"]
    """measure of the generation_curves table"""
    model: str
    """row of models.tsv"""
    title: str
    """the model's name to readers; here too, so that another row of models.tsv makes no figure stale"""
    pairs: str
    """file of config/pairs"""
    run: str
    """row of runs.tsv that comes nearest"""
    baseline: str
    """the run that it was judged against"""
    like: tuple[str, ...] = ()
    """other runs that ask the same of another model or of other data, RUN:BASELINE"""
    epochs: Whole
    """epochs of the run; 0, before its first step"""
    judge: str
    """who judged"""
    value: float
    """the number"""
    source: str
    """where it is printed, and how it came here"""
