"""Training the miniature models: a small Llama with grouped queries, from its seed to its files.

A *base* model is trained on the documents of ``gradatlas.data.made_up.miniature``, with loss on the responses;
*random* is the same model before the first step; *instruct* is a base model trained further on the same
questions as chats. On one machine and thread count the same seed and steps give the same bytes.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from random import Random

import polars as pl
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.core.files import check_sums, replacing, sums_of, write_sums, write_text
from gradatlas.data.made_up.miniature import training_documents
from gradatlas.data.responses.prompts import SYSTEM_PROMPT, base_prompt
from gradatlas.miniature.tokenizer import TURN_END, build_tokenizer

_IGNORED = -100  # a label that takes no part in the loss
_SECONDS_BETWEEN_LINES = 5.0


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes a training run but its kind, seed and number of steps."""

    rows: int = 4  # per step
    row_tokens: int = 256
    learning_rate: float = 2e-3
    final_share: float = 0.05  # of the learning rate, at the last step
    warm_up: int = 100  # steps, at most a tenth of the run
    constant: float = 0.4  # share of the steps before the cosine decay begins
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1  # of matrices
    clip: float = 1.0


BASE = Recipe()
INSTRUCT = Recipe(learning_rate=5e-4, warm_up=20, constant=0.0)


def model_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Six layers of width 128 with grouped queries: 1.4 million parameters, embedding included."""
    return LlamaConfig(
        vocab_size=-(-len(tokenizer) // 8) * 8,
        hidden_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=384,
        max_position_embeddings=1024,
        initializer_range=0.08,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def train(
    output_dir: str | Path,
    seed: int,
    steps: int,
    kind: str = "base",
    base_dir: str | Path | None = None,
    threads: int = 1,
) -> None:
    """Train one miniature and write its folder: config, float32 weights, tokenizer, log and recipe.

    `steps`: 0 for kind random. `base_dir`: the folder that an instruct model starts from. Raises `InputError` for
    a base folder that is missing or not used, and for steps of a random one.
    """
    _check(kind, steps, base_dir)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    if kind == "instruct":
        tokenizer = AutoTokenizer.from_pretrained(base_dir)
        model = LlamaForCausalLM.from_pretrained(base_dir, dtype=torch.float32)
        # A chat's answer ends with its turn.
        tokenizer.eos_token = TURN_END
        model.config.eos_token_id = tokenizer.eos_token_id
        recipe = INSTRUCT
        batches = _batches(_chats(tokenizer, seed), recipe, tokenizer.pad_token_id)
    else:
        tokenizer = build_tokenizer()
        model = LlamaForCausalLM(model_config(tokenizer))
        recipe = BASE
        batches = _batches(_texts(tokenizer, seed), recipe, tokenizer.pad_token_id)
    log = _fit(model, batches, steps, recipe)
    facts = {
        "kind": kind,
        "seed": seed,
        "steps": steps,
        "threads": threads,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "tokens": log[-1]["tokens"] if log else 0,
        "recipe": asdict(recipe),
    }
    _save(Path(output_dir), model, tokenizer, log, facts)


def _check(kind: str, steps: int, base_dir: str | Path | None) -> None:
    if kind == "random" and steps:
        raise InputError(f"a random miniature is not trained, but steps is {steps}; give steps 0")
    if kind == "instruct" and base_dir is None:
        raise InputError("an instruct miniature starts from a base model: give its folder (--base)")
    if kind != "instruct" and base_dir is not None:
        raise InputError(f"a {kind} miniature starts from its seed: leave out the base folder '{base_dir}'")
    if base_dir is not None and not (Path(base_dir) / "config.json").is_file():
        raise InputError(f"{base_dir}: no model there (config.json is missing); train the base first")
    if base_dir is not None and sums_of(base_dir).is_file():
        check_sums(sums_of(base_dir))


# --- The data: endless streams of (token ids, labels), packed into rows ---

Encoded = tuple[list[int], list[int]]


def _texts(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[Encoded]:
    """Documents for a base model, each closed by the end token, with loss on the response and that token."""
    documents = training_documents(seed)
    while True:
        chunk = list(islice(documents, 1000))
        prompts = tokenizer([base_prompt(document.question) for document in chunk])["input_ids"]
        responses = tokenizer([document.response for document in chunk])["input_ids"]
        for prompt, response in zip(prompts, responses, strict=True):
            # Without loss on the questions, which are random and would add noise to a small batch's gradient.
            answer = [*response, tokenizer.eos_token_id]
            yield [*prompt, *answer], [_IGNORED] * len(prompt) + answer


def _chats(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[Encoded]:
    """Questions and answers in the chat template, half with a system message, with loss on the answers."""
    # Other documents than the base model's, and without recitations at the start.
    documents = training_documents(seed + 1_000_000, opening=0)
    rng = Random(f"system messages {seed}")
    while True:
        prompts, answers = [], []
        for document in islice(documents, 1000):
            system = [{"role": "system", "content": SYSTEM_PROMPT}] if rng.random() < 0.5 else []
            messages = [*system, {"role": "user", "content": document.question}]
            prompts.append(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
            answers.append(document.response + TURN_END)
        pairs = zip(tokenizer(prompts)["input_ids"], tokenizer(answers)["input_ids"], strict=True)
        for prompt, answer in pairs:
            yield [*prompt, *answer], [_IGNORED] * len(prompt) + answer


def _batches(stream: Iterator[Encoded], recipe: Recipe, pad: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Rows of whole documents, best fit first; (rows, tokens) of ids and of labels, shifted by one."""
    width = recipe.row_tokens + 1
    waiting: list[Encoded] = []
    ids, labels = [], []
    while True:
        waiting += islice(stream, 256 - len(waiting))
        # The oldest document starts a row, so that none waits for ever; the longest fitting ones fill it.
        row_ids, row_labels = map(list, waiting.pop(0))
        if len(row_ids) > width:
            raise ValueError(f"a training document of {len(row_ids)} tokens does not fit a row of {width}")
        while fitting := [i for i, (other, _) in enumerate(waiting) if len(row_ids) + len(other) <= width]:
            best = max(fitting, key=lambda i: (len(waiting[i][0]), -i))
            more_ids, more_labels = waiting.pop(best)
            row_ids += more_ids
            row_labels += more_labels
        padding = width - len(row_ids)
        ids.append(row_ids + [pad] * padding)
        labels.append(row_labels + [_IGNORED] * padding)
        if len(ids) == recipe.rows:
            yield torch.tensor(ids)[:, :-1], torch.tensor(labels)[:, 1:]
            ids, labels = [], []


# --- The training loop ---


def _fit(model, batches, steps: int, recipe: Recipe) -> list[dict]:
    """Train in place; the log has one row per 10 steps (mean loss of those steps, tokens read so far)."""
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    others = [weight for weight in model.parameters() if weight.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
        betas=recipe.betas,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps, recipe))
    model.train()
    log, losses, tokens = [], [], 0
    began = last_line = time.monotonic()
    for step, (ids, labels) in enumerate(islice(batches, steps), start=1):
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
        counted = labels != _IGNORED  # logits of other tokens are not needed
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[counted]), labels[counted])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        rate = schedule.get_last_lr()[0]
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        tokens += ids.numel()
        if step % 10 == 0 or step == steps:
            mean = sum(losses) / len(losses)
            log.append({"step": step, "tokens": tokens, "learning_rate": f"{rate:.3e}", "loss": f"{mean:.5f}"})
            losses = []
        now = time.monotonic()
        if log and (now - last_line > _SECONDS_BETWEEN_LINES or step == steps):
            left = (now - began) / step * (steps - step)
            speed = tokens / (now - began)
            progress(f"step {step}/{steps}  loss {log[-1]['loss']}  {speed:,.0f} tokens/s  {left:.0f} s left")
            last_line = now
    return log


def _rate(step: int, steps: int, recipe: Recipe) -> float:
    """Share of the learning rate at a step: linear warm-up, constant, cosine decay."""
    warm_up = min(recipe.warm_up, steps // 10)
    if step < warm_up:
        return (step + 1) / warm_up
    decay = max(warm_up, int(recipe.constant * steps))
    if step < decay:
        return 1.0
    done = (step - decay) / max(1, steps - decay)
    cosine = 0.5 * (1.0 + torch.cos(torch.tensor(done * torch.pi)).item())
    return recipe.final_share + (1.0 - recipe.final_share) * cosine


# --- The files ---


def _save(folder: Path, model, tokenizer, log: list[dict], facts: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model.config.dtype = torch.float32
    model.config.architectures = [type(model).__name__]
    write_text(folder / "config.json", model.config.to_json_string())
    save_weights(model, folder / "model.safetensors", torch.float32)
    tokenizer.save_pretrained(folder)
    columns = ["step", "tokens", "learning_rate", "loss"]
    write_text(folder / "training_log.csv", pl.DataFrame(log, schema=columns).write_csv())
    write_text(folder / "training.json", json.dumps(facts, indent=2) + "\n")
    write_sums(folder, "train_miniature")


def save_weights(model: LlamaForCausalLM, path: Path, dtype: torch.dtype) -> None:
    """Write the weights as safetensors, the tied output matrix only once."""
    weights = {
        name: weight.detach().to(dtype).contiguous()
        for name, weight in sorted(model.state_dict().items())
        if name != "lm_head.weight"
    }
    with replacing(path) as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})


def publish(folder: str | Path, output: str | Path) -> None:
    """Copy a trained folder with its weights rounded to bfloat16: half the size, and still loaded as float32."""
    source, target = Path(folder), Path(output)
    model = LlamaForCausalLM.from_pretrained(source, dtype=torch.float32)
    for path in sorted(source.iterdir()):
        if path.suffix in (".json", ".jinja", ".csv"):
            write_text(target / path.name, path.read_text(encoding="utf-8"))
    config = json.loads((source / "config.json").read_text(encoding="utf-8")) | {"dtype": "bfloat16"}
    write_text(target / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
    save_weights(model, target / "model.safetensors", torch.bfloat16)
