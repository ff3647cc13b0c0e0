"""Samples and tokens of the first study and of scored files: counted with the tokenizer, or at most."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from gradatlas.core.command import progress
from gradatlas.core.schemas import picked
from gradatlas.data.jobs import GRADED as GRADED_DATA
from gradatlas.data.made_up import grammar
from gradatlas.data.made_up.graded import GRADES
from gradatlas.data.pairs import read_pairs
from gradatlas.data.training.read import read_rows as read_training
from gradatlas.gradients.plan import expand_rows, limit_rows, read_rows
from gradatlas.gradients.settings import Settings
from gradatlas.models.conversations import ConversationEncoder
from gradatlas.models.tokens import Encoder
from gradatlas.planning.known import Model
from gradatlas.study.config import Study
from gradatlas.study.runs import Plan
from gradatlas.study.scored import GRADED, is_fetched
from gradatlas.study.settings import Measuring, Pairing, Prompting, Reading

#: Bytes of a chat template's own text, rounded up.
TEMPLATE = 256


@dataclass(frozen=True)
class Load:
    """`rows` of the samples table, and the number of distinct samples by tokens; `bound`: at most so many."""

    rows: int
    lengths: Mapping[int, int]
    bound: bool

    @property
    def tokens(self) -> int:
        """Tokens of all passes."""
        return sum(length * count for length, count in self.lengths.items())

    @property
    def samples(self) -> int:
        """Samples of all passes."""
        return sum(self.lengths.values())

    @property
    def longest(self) -> int:
        """Tokens of the longest sample."""
        return max(self.lengths, default=0)


def gradient_load(
    study: Study, model: Model, dataset: str, responses: str | Path = "", bytes_per_token: int = 0
) -> Load | None:
    """What one model measures of a dataset; None where the number of samples is unknown.

    Where the table of responses is here, tokens are counted with the model's tokenizer if that is here, as the job
    does; else each byte of a text may be a token. Without the table, each sample may fill the window.
    `responses`: the table, where it is not in the results of this folder. `bytes_per_token`: divide bytes by this
    instead of counting, which takes long.
    """
    config, name = study.config, model.row["model"]
    settings = Settings(
        **picked(config, Measuring),
        relations=tuple(study.relations(dataset)),
        controls=tuple(study.controls(name, dataset)),
    )
    window, chat = model.window(config["max_length"]), model.row["prompt"] == "chat"
    limit = None if config["samples"] == "all" else config["samples"]
    path = Path(responses or f"results/responses/{dataset}.parquet")
    if not path.is_file():
        samples = _stated(study, dataset, limit)
        kinds = [(variant, relation) for variant in study.variants(dataset) for relation in study.built(dataset)]
        rows = sum(len(settings.subsets_of(*kind)) for kind in kinds)
        return None if samples is None else Load(samples * rows, {window: samples * rows}, True)
    if bytes_per_token or model.tokenizer is None:
        # Line breaks and special tokens between prompt and response.
        around, divisor = TEMPLATE if chat else 4, bytes_per_token or 1
        lengths: Counter[int] = Counter()
        texts = _texts(path, path.stat().st_mtime_ns, limit, config["seed"])
        sets = {
            kind: len(settings.subsets_of(*kind)) for kind in {(variant, relation) for variant, relation, _ in texts}
        }
        for variant, relation, size in texts:
            lengths[min(window, (size + around) // divisor + 1)] += sets[variant, relation]
        return Load(lengths.total(), +lengths, True)
    rows = limit_rows(read_rows(path), limit, config["seed"])
    rows = [row for row in rows if settings.subsets_of(row.variant, row.relation)]
    progress(f"counting tokens of {dataset} for {name}")
    encoder = Encoder(
        model.tokenizer, chat=chat, max_length=window, compat=config["compat"], truncation=config["truncation"]
    )
    items = expand_rows(rows, encoder, settings.subsets_of, config["seed"])
    dropped = config["truncation"] == "drop"
    samples = {item.sample for item in items if item.sample.response_tokens and not (dropped and item.sample.truncated)}
    return Load(len(items), Counter(len(sample.ids) for sample in samples), False)


@lru_cache(maxsize=1000)
def _texts(path: Path, changed: int, limit: int | None, seed: int) -> list[tuple[str, str, int]]:
    """Variant, relation and bytes of the texts of a table of responses, read once for all models.

    `changed`: when the file was, so that another one is read again.
    """
    rows = limit_rows(read_rows(path), limit, seed)
    return [(row.variant, row.relation, len(f"{row.instruction}{row.response}".encode())) for row in rows]


def score_load(study: Study, model: Model, dataset: str) -> Load | None:
    """What one model measures of a training file; None where the file is not here and its size is not stated."""
    row = study.scored[dataset]
    window = model.window(row["max_length"])
    path = scored_path(row, dataset)
    if not path.exists():
        made = GRADED_DATA.clean + GRADED_DATA.planted * (len(GRADES) - 1)
        count = made if row["source"] == GRADED else row["samples"]
        return Load(count, {window: count}, True) if count else None
    # The split of a hub dataset was chosen when it was fetched.
    reading = picked(row, Reading) | ({"split": ""} if is_fetched(row) else {})
    rows = read_training(path, Reading(**reading), quiet=True)
    if model.tokenizer is None:
        count = sum(each.status == "ok" for each in rows)
        return Load(count, {window: count}, True)
    encoder = ConversationEncoder(model.tokenizer, Prompting(**picked(row, Prompting)), max_length=window)
    encoded = [encoder.encode(each) for each in rows]
    lengths = Counter(len(each.sample.ids) for each in encoded if each.status == "ok")
    return Load(len(encoded), lengths, False)


def pair_length(study: Study, plan: Plan, model: Model) -> float | None:
    """Tokens of a pair's prompt with one response, on average; None where the pairs or a tokenizer are not here."""
    path = Path(f"results/dynamics/{study.config['dynamics']['pairs']}/pairs.parquet")
    if model.tokenizer is None or (plan.mapping and not path.is_file()):
        return None
    if path.is_file():
        rows = read_pairs(path, "train")
    else:
        made = Pairing(**picked(study.config["dynamics"], Pairing))
        # Documents of the warm start are alike.
        documents = min(made.base_documents, made.train)
        rows = grammar.pairs(made.train, made.held_out, documents, study.config["seed"], made.rejected_rarity)
    texts = [f"{row['prompt']}{row[part]}" for row in rows for part in ("chosen", "rejected") if row[part]]
    # With the end token.
    return sum(len(ids) + 1 for ids in model.tokenizer(texts)["input_ids"]) / len(texts)


def scored_path(row: Mapping, dataset: str) -> Path:
    """Where the rows of a scored dataset are once they are fetched or made."""
    if row["source"] == GRADED:
        return Path(f"results/graded/{dataset}.jsonl")
    if row["url"]:
        return Path("resources/sources", row["source"])
    return Path(f"resources/datasets/{dataset}.parquet") if is_fetched(row) else Path(row["source"])


def _stated(study: Study, dataset: str, limit: int | None) -> int | None:
    """Samples of a dataset whose responses are not here: as the sheet states, or as the miniature makes."""
    row = study.datasets[dataset]
    known = study.config["miniature"]["questions"] if row["reader"] == "miniature" else row["samples"]
    # A dataset of unknown size may have fewer than are asked for.
    return limit if known is None else min(known, limit or known)
