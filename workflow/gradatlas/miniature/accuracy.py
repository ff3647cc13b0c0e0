"""A miniature's accuracy: greedy exact match on held-out questions, edited questions, and recall of people."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.core.files import write_text
from gradatlas.core.spreadsheets import csv_of
from gradatlas.core.tables import write_table
from gradatlas.data.made_up import knowledge
from gradatlas.data.made_up.miniature import DATASETS, counterfactuals, held_out
from gradatlas.data.responses.prompts import base_prompt, chat_prompt
from gradatlas.data.samples import Sample, label_of
from gradatlas.miniature.tables import ACCURACY
from gradatlas.miniature.tokenizer import TURN_END
from gradatlas.study.shares import wilson

LONGEST = {"none": 6, "simplified": 50, "detailed": 160}  # tokens generated, well above the longest response
BLANKS = 2  # of every person, in this order: the job, the city
_BATCH = 128


class GreedyModel:
    """A model that answers prompts greedily; `chat`: prompts go through its chat template."""

    def __init__(self, model, tokenizer, chat: bool):
        self.model, self.tokenizer, self.chat = model.eval(), tokenizer, chat
        self.ends = sorted({tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(TURN_END)})

    @classmethod
    def load(cls, folder: str | Path, chat: bool) -> "GreedyModel":
        """Load as float32; `InputError` where there is no model."""
        if not (Path(folder) / "config.json").is_file():
            raise InputError(f"{folder}: no model there, config.json is missing; give a model's folder")
        # Never the code or the pickled weights of a folder that somebody else made.
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
        return cls(model, AutoTokenizer.from_pretrained(folder, trust_remote_code=False), chat)

    def prompt(self, instruction: str) -> str:
        """The text before the response, as in the gradients jobs."""
        return chat_prompt(self.tokenizer, instruction) if self.chat else base_prompt(instruction)

    def answers(self, prompts: Sequence[str], longest: int) -> list[str]:
        """Greedy continuations of prompts, up to an end token or `longest` tokens."""
        found: list[str] = []
        for first in range(0, len(prompts), _BATCH):
            found += self._continue(prompts[first : first + _BATCH], longest)
        return found

    @torch.inference_mode()
    def _continue(self, prompts: Sequence[str], longest: int) -> list[str]:
        pad = self.tokenizer.pad_token_id
        encoded = self.tokenizer(list(prompts))["input_ids"]
        width = max(map(len, encoded))
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in encoded])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in encoded])
        position = (mask.cumsum(-1) - 1).clamp(min=0)
        written: list[list[int]] = [[] for _ in encoded]
        going = torch.arange(len(encoded))  # the rows that are not finished
        cache = None
        for _ in range(longest):
            output = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            chosen = output.logits[:, -1].argmax(-1)
            left = (~torch.isin(chosen, torch.tensor(self.ends))).nonzero()[:, 0]
            for row, token in zip(going[left].tolist(), chosen[left].tolist(), strict=True):
                written[row].append(token)
            if not len(left):
                break
            if len(left) < len(going):
                cache.batch_select_indices(left)
            going, ids, position = going[left], chosen[left, None], position[left, -1:] + 1
            mask = torch.cat([mask[left], mask.new_ones(len(left), 1)], dim=1)
        return [self.tokenizer.decode(row) for row in written]

    def labels(self, samples: Sequence[Sample], variant: str) -> list[str]:
        """The final labels of greedy responses to the samples' prompts."""
        prompts = [self.prompt(sample.instructions[variant]) for sample in samples]
        return [label_of(answer) for answer in self.answers(prompts, LONGEST[variant])]


def measure(
    folder: str | Path,
    name: str,
    chat: bool,
    n: int = 500,
    seed: int = 0,
    threads: int = 1,
    datasets: Sequence[str] = tuple(DATASETS),
) -> list[dict]:
    """The rows of the ``accuracy`` table of one model folder, on `n` held-out questions per task.

    `test`: answer, counterfactual (a question and its edit, both answered right) or recall (the next word of a
    description). `low`, `high`: Wilson 95 % bounds. `chance`: accuracy of the best answer that ignores the question.
    """
    unknown = [dataset for dataset in datasets if dataset not in DATASETS]
    if unknown:
        raise InputError(f"dataset '{unknown[0]}': not a miniature one; choose among {', '.join(DATASETS)}")
    torch.set_num_threads(threads)
    reader = GreedyModel.load(folder, chat)
    rows: list[dict] = []
    for dataset in datasets:
        progress(f"{name}: {dataset}")
        rows += EXAMS[dataset](reader, dataset, n, seed)
    return [{"model": name, **row} for row in rows]


def _reasoning(reader: GreedyModel, dataset: str, n: int, seed: int) -> list[dict]:
    samples = held_out(dataset, n, seed)
    pairs = counterfactuals(dataset, n, seed)
    parts = sorted({part_of(dataset, sample) for sample in samples})
    rows = []
    for variant in DATASETS[dataset]:
        hits = [a == s.gold for a, s in zip(reader.labels(samples, variant), samples, strict=True)]
        for part in ("all", *parts):
            chosen = [i for i, sample in enumerate(samples) if part in ("all", part_of(dataset, sample))]
            golds = [(part_of(dataset, samples[i]), samples[i].gold) for i in chosen]
            rows.append(_row(dataset, part, "answer", variant, [hits[i] for i in chosen], chance(dataset, golds)))
        before = dict(zip((sample.sample_id for sample in samples), hits, strict=True))
        # Both must be right, so edits are tried only for right answers.
        tried = [(sample, edit) for sample, edit in pairs if before[sample.sample_id]]
        after = reader.labels([edit for _, edit in tried], variant)
        right = {sample.sample_id for (sample, edit), label in zip(tried, after, strict=True) if label == edit.gold}
        both = [sample.sample_id in right for sample, _ in pairs]
        golds = [(part_of(dataset, sample), sample.gold) for sample, _ in pairs]
        rows.append(_row(dataset, "all", "counterfactual", variant, both, chance(dataset, golds) ** 2))
    return rows


def part_of(dataset: str, sample: Sample) -> str:
    """The kind of question within a dataset: two or three steps, same or which."""
    if dataset == "mini_arithmetic":
        return {2: "two_steps", 3: "three_steps"}[sum(sample.sample_id.count(sign) for sign in "+-")]
    return sample.sample_id.split("-")[0]


def chance(dataset: str, golds: Sequence[tuple[str, str]]) -> float:
    """Arithmetic: always the commonest number. Taxonomy: one of two answers, one of three kinds."""
    if dataset == "mini_arithmetic":
        return Counter(gold for _, gold in golds).most_common(1)[0][1] / len(golds)
    return sum(1 / 2 if part == "same" else 1 / 3 for part, _ in golds) / len(golds)


def recall(reader: GreedyModel, dataset: str) -> dict:
    """The row of recall: how often the model continues a description with the right job and city."""
    variant = "length_short" if "length_short" in DATASETS[dataset] else "natural"
    prompts, golds = [], []
    for person in knowledge.group(dataset):
        start = reader.prompt(f"{knowledge.question(person)} {knowledge.CUES[variant]}")
        for begun, word in knowledge.clozes(person):
            prompts.append(start + begun)
            golds.append(word)
    answers = [answer.strip() for answer in reader.answers(prompts, 1)]
    hits = [answer == gold for answer, gold in zip(answers, golds, strict=True)]
    # The best answer that ignores the person is the commonest job or city.
    kinds = [Counter(golds[first::BLANKS]).most_common(1)[0][1] for first in range(BLANKS)]
    return _row(dataset, "all", "recall", variant, hits, sum(kinds) / len(golds))


def _recall(reader: GreedyModel, dataset: str, n: int, seed: int) -> list[dict]:
    return [recall(reader, dataset)]


def _row(dataset: str, part: str, test: str, variant: str, hits: Sequence[bool], chance: float) -> dict:
    low, high = wilson(sum(hits), len(hits))
    return {
        "dataset": dataset,
        "part": part,
        "test": test,
        "variant": variant,
        "n": len(hits),
        "correct": sum(hits),
        "accuracy": round(sum(hits) / len(hits), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "chance": round(chance, 4),
    }


# One entry per dataset, so that an edit of one exam leaves the others' answers as they are.
EXAMS: dict[str, Callable[[GreedyModel, str, int, int], list[dict]]] = {
    "mini_arithmetic": _reasoning,
    "mini_taxonomy": _reasoning,
    "mini_popular": _recall,
    "mini_unpopular": _recall,
    "mini_unseen": _recall,
}


def write(rows: list[dict], path: str | Path) -> None:
    """Write rows of the ``accuracy`` table as Parquet or CSV, by the suffix of `path`."""
    if Path(path).suffix == ".parquet":
        write_table(ACCURACY, rows, path, {})
        return
    write_text(path, csv_of(pl.DataFrame(rows).select(ACCURACY.names)))
