"""The training loop of all finetuning runs: any loss, target and start, evaluated on probes, resumed after a kill.

Dropout is off, and the order of examples and sampled negatives depend on seed and step only, so that weights and
optimiser state are a complete checkpoint. A resumed run ends with the same bytes on a CPU; a GPU may sum in another
order.
"""

import json
import math
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradatlas.core.checked import read_json, write_json
from gradatlas.core.command import progress
from gradatlas.core.digest import code_digest
from gradatlas.core.errors import InputError
from gradatlas.core.files import sha256_of, writing
from gradatlas.core.machine import libraries, machine
from gradatlas.core.tables import write_table
from gradatlas.finetuning.checkpoints import Checkpoints
from gradatlas.finetuning.evaluate import evaluate
from gradatlas.finetuning.examples import Example, order_of, read_examples, trained_pairs
from gradatlas.finetuning.generations import generate, generation_pairs, read_start, window_of
from gradatlas.finetuning.judging.judges import Answer, Contest, Judge, verdict_of
from gradatlas.finetuning.judging.scores import repetition
from gradatlas.finetuning.losses import LOSSES, Outcome, Scores, divergence_of
from gradatlas.finetuning.probes import read_probes
from gradatlas.finetuning.processes import SINGLE_PROCESS, Processes
from gradatlas.finetuning.recipe import Recipe
from gradatlas.finetuning.sequences import EncodedResponse, ResponseEncoder, log_probs, sample
from gradatlas.finetuning.tables import DYNAMICS, GENERATIONS, TRAINING
from gradatlas.gradients.plan import plan_batches
from gradatlas.models.decoding import batch_key
from gradatlas.models.loading import Location, choose_device, load, locate
from gradatlas.models.snapshots import card_of
from gradatlas.study.seeds import seeded_hash

STATUS = "status.json"
MACHINE = "machine.json"
CARD = "model.json"
SNAPSHOTS = "snapshots"


def finetune(
    init: str,
    pairs: str,
    output: str | Path,
    journal: str | Path,
    recipe: Recipe,
    processes: Processes = SINGLE_PROCESS,
    *,
    probes: str | None = None,
    reference: str | None = None,
    generations: str | None = None,
    judge: Judge | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    trust_remote_code: bool = False,
    max_length: int = 512,
    truncation: str = "drop",
    batch_tokens: int = 4096,
    generate_batch_tokens: int = 4096,
    checkpoint_every: int = 1,
    max_new_tokens: int = 64,
    prompts: int = 0,
    draws: int = 1,
    snapshots: Sequence[int] = (),
) -> None:
    """Finetune the model at `init` (a folder, a card, or another run's ``model.json``) on a ``pairs`` table.

    Writes to the folder `output`: ``dynamics.parquet`` (of the `probes`, if given), ``generations.parquet`` (`draws`
    free responses to at most `prompts` prompts of each split), ``training.parquet``, ``status.json``, ``machine.json``
    (hardware and versions), ``model/``, and last its card ``model.json``; the model after each of the steps `snapshots`
    (which are evaluated) in ``snapshots/{step}/``, with a card ``snapshots/{step}.json``. A loss or gradient that is
    not finite stops the run: the status is then ``diverged``, and ``model/`` that of the last evaluation before.

    `reference`: the reference model, by default `init`. `generations`: a table whose last free responses are those of
    `init`, which are not made again. `judge`: ranks on-policy samples; of the main process alone.
    `journal`: a folder for checkpoints, one at every `checkpoint_every`-th evaluation, deleted at the end. Raises
    `InputError` for a start that diverged, a reference with another tokenizer, data without a usable example, and more
    `processes` than a batch has examples.
    """
    if processes.count > recipe.batch_size:
        raise InputError(
            f"run '{recipe.name}': {processes.count} processes cannot share batches of {recipe.batch_size}; lower "
            "config key dynamics.processes"
        )
    if recipe.negatives == "on_policy" and processes.is_main and judge is None:
        raise InputError(f"run '{recipe.name}': its samples are ranked by a judge; give settings.judge")
    device, start = choose_device(device), locate_start(init)
    torch.use_deterministic_algorithms(device == "cpu")
    how = {"dtype": dtype, "device": device, "trust_remote_code": trust_remote_code}
    model, tokenizer = load(start.path, **how)
    window = window_of(model, max_length)
    encoder = ResponseEncoder(tokenizer, window, model, truncation)
    followed, unusable = read_probes(probes, encoder) if probes else ({}, [])
    trained = trained_pairs(recipe, pairs, probes)
    examples, excluded = read_examples(recipe, trained, encoder)
    prompted = generation_pairs(pairs, trained, prompts, recipe.seed)
    how_generated = {"seed": recipe.seed, "max_new_tokens": max_new_tokens, "window": window}
    how_generated |= {"truncation": truncation, "dtype": dtype}
    at_start = read_start(generations, {"model": start.digest, **how_generated}) if generations else {}
    facts = {
        **asdict(recipe),
        "init": start.digest,
        "reference": locate_start(reference, "--reference").digest if reference else start.digest,
        "pairs": sha256_of(pairs),
        "probes": sha256_of(probes) if probes else None,
        "window": window,
        "truncation": truncation,
        "max_new_tokens": max_new_tokens,
        "prompts": prompts,
        "draws": draws,
        "snapshots": list(snapshots),
        "dtype": dtype,
        "device": device,
        "processes": processes.count,
        "judge": dict(judge.facts) if judge else None,
        "revision": start.revision,
        **code_of(recipe.loss, judge and judge.facts["judge"]),
        **libraries(),
    }
    checkpoints = Checkpoints(journal, facts, processes)
    # The start is its own reference until the first step.
    other = _reference(model, tokenizer, reference, how) if reference or recipe.keeps_reference else None
    adapter = _make_trainable(model, recipe)
    run = _TrainingLoop(model, encoder, recipe, examples, other, max_new_tokens, processes, judge)
    # Only `run` holds the reference, and frees it where its log-probabilities are needed once.
    del other

    def moment(step: int) -> dict:
        return {"run": recipe.name, "seed": recipe.seed, "step": step, "examples": step * recipe.batch_size}

    def evaluate_probes(step: int) -> list[dict]:
        found = evaluate(model, {key: encoded for key, (_, encoded) in followed.items()}, batch_tokens, processes)
        rows = [{**moment(step), **followed[key][0], **values, "tokens": followed[key][1].tokens, "status": "ok"}
                for key, values in found.items()]  # fmt: skip
        return rows + [{**moment(step), **row, "tokens": None} for row in unusable]

    def generate_responses(step: int) -> list[dict]:
        known = {} if step else at_start
        keys = {pair["pair_id"]: [(pair["pair_id"], draw) for draw in range(draws)] for pair in prompted}
        missing = [pair for pair in prompted if not known.keys() >= set(keys[pair["pair_id"]])]
        made = generate(model, encoder, missing, seed=recipe.seed, draws=draws, max_tokens=max_new_tokens,
                        batch_tokens=generate_batch_tokens, processes=processes)  # fmt: skip
        found = known | {(row["pair_id"], row["draw"]): row for row in made}
        return [{**moment(step), **found[key]} for pair in prompted for key in keys[pair["pair_id"]]]

    def keep_model(step: int) -> None:
        if processes.is_main:
            kept = deepcopy(adapter).merge_and_unload() if adapter else model
            save_model(kept, tokenizer, checkpoints.snapshots / snapshot_name(step))

    run.prepare(batch_tokens)
    # Tested before a checkpoint is read, so that a resumed run finds the same.
    batch_key(model, window)
    status = run.train(checkpoints, checkpoint_every, evaluate_probes, generate_responses, snapshots, keep_model)
    if not processes.is_main:
        return
    folder = Path(output) / "model"
    save_model(adapter.merge_and_unload() if adapter else model, tokenizer, folder)
    card = card_of(recipe.name, str(folder), "", folder)
    # Weights that are merged at the end round otherwise: they are not the model that gave the last responses.
    ended = {"status": status["status"], "model": None if adapter else card["digest"]}
    ended |= {"vocabulary": model.config.get_text_config().vocab_size}
    for table in (DYNAMICS, GENERATIONS):
        rows = checkpoints.recorded(table, status["last_good_step"])
        write_table(table, rows, Path(output) / f"{table.name}.parquet", facts | ended)
    write_table(TRAINING, run.log, Path(output) / "training.parquet", facts)
    status |= {"run": recipe.name, "trained_on": len(examples), "excluded": excluded}
    status["probes"] = {"ok": len(followed), **Counter(row["status"] for row in unusable)}
    write_json(Path(output) / MACHINE, machine(device))
    good = [step for step in snapshots if step <= status["last_good_step"]]
    _write_snapshots(recipe.name, good, checkpoints.snapshots, Path(output) / SNAPSHOTS)
    write_json(Path(output) / STATUS, {**status, "model_digest": card["digest"]})
    write_json(Path(output) / CARD, card)
    checkpoints.remove()


def code_of(loss: str, judge: str | None = None) -> dict[str, str]:
    """Digests of what a run's numbers depend on: the code of all runs, that of its loss, and that of its judge."""
    losses, judges = "finetuning.losses:LOSSES", "finetuning.jobs:JUDGES"
    found = {"code": code_digest(f"{__name__}:finetune", only={losses: []})}
    found["loss_code"] = code_digest(losses, only={losses: [loss]})
    return found | ({"judge_code": code_digest(judges, only={judges: [judge]})} if judge else {})


def snapshot_name(step: int) -> str:
    """The name of the model after a step, among a run's snapshots."""
    return f"{step:08d}"


def stages(init: str, run: str | Path) -> list[tuple[int, str]]:
    """(step, card) of every model along a run: its start `init`, the snapshots in its folder `run`, and its end."""
    folder = Path(run)
    kept = [(int(card.stem), str(card)) for card in sorted((folder / SNAPSHOTS).glob("*.json"))]
    ended = read_json(folder / STATUS, "finetune")["last_good_step"]
    return [(0, init), *kept, *([(ended, str(folder / CARD))] if ended not in {0, *dict(kept)} else [])]


def _write_snapshots(name: str, steps: Sequence[int], kept: Path, folder: Path) -> None:
    """Copy the models after `steps` from the checkpoints to `folder`, and write their cards."""
    if folder.is_dir():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for step in map(snapshot_name, steps):
        shutil.copytree(kept / step, folder / step)
        write_json(folder / f"{step}.json", card_of(f"{name}_{step}", str(folder / step), "", folder / step))


def locate_start(init: str, option: str = "--init") -> Location:
    """The location of the model to start from, named by an option; `InputError` for a run that diverged."""
    status = Path(init).parent / STATUS
    if Path(init).name in (CARD, "model") and status.is_file():
        ended = read_json(status, "finetune")
        if ended["status"] != "ok":
            raise InputError(
                f"{init}: its run {ended['status']} at step {ended['step']}; lower its learning_rate in config/runs.tsv"
            )
    return locate(init, option=option)


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a model's folder, through a temporary one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # What a kill has left: one process at a time works on a run.
    for left in folder.parent.glob(".model.*"):
        shutil.rmtree(left)
    with writing(folder), tempfile.TemporaryDirectory(dir=folder.parent, prefix=".model.") as temporary:
        saved = Path(temporary) / "model"
        model.save_pretrained(saved)
        # An argument of loading, which would be written to the tokenizer's file.
        tokenizer.init_kwargs.pop("local_files_only", None)
        tokenizer.save_pretrained(saved)
        if folder.is_dir():
            shutil.rmtree(folder)
        os.replace(saved, folder)


def _make_trainable(model: Any, recipe: Recipe) -> Any:
    """Make all parameters trainable, or add LoRA to the model in place and return the PEFT model, for merging."""
    if recipe.parameters == "full":
        model.requires_grad_(True)
        return None
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        shape = {"r": recipe.lora_rank, "lora_alpha": 2 * recipe.lora_rank, "lora_dropout": 0.0}
        return get_peft_model(model, LoraConfig(target_modules="all-linear", **shape))


def _reference(model: Any, tokenizer: Any, reference: str | None, how: Mapping[str, Any]) -> Any:
    """The frozen reference model: another one with the same tokenizer, or a copy of the start."""
    if reference is None:
        return deepcopy(model).requires_grad_(False)
    where = locate_start(reference, "--reference")
    other, other_tokenizer = load(where.path, **how)
    if other_tokenizer.get_vocab() != tokenizer.get_vocab():
        raise InputError(
            f"reference {reference}: its tokenizer differs from the trained model's, so that log-probabilities cannot "
            "be compared; choose a reference of the same family"
        )
    return other.requires_grad_(False)


class _TrainingLoop:
    """The loop and its state: model, optimiser, log. `reference` is kept only if it is needed in every step."""

    def __init__(
        self,
        model,
        encoder: ResponseEncoder,
        recipe: Recipe,
        examples: Sequence[Example],
        reference,
        max_new_tokens,
        processes,
        judge: Judge | None = None,
    ):
        self.model, self.encoder, self.recipe, self.examples = model, encoder, recipe, examples
        self.loss, self.reference, self.max_new_tokens = LOSSES[recipe.loss], reference, max_new_tokens
        self.processes: Processes = processes
        self.judge = judge
        self.trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        # No dropout.
        self.model.eval()
        self.optimiser = _optimiser(list(self.trained.values()), recipe)
        self.known: dict[EncodedResponse, float] = {}
        self.log: list[dict] = []

    @torch.no_grad()
    def prepare(self, batch_tokens: int) -> None:
        """Compute the reference's log-probabilities once, before the first step: they never change."""
        reference = self.model if self.reference is None else self.reference
        if self.recipe.needs_reference:
            distinct = {str(i): each for i, each in enumerate(dict.fromkeys(self._responses()))}
            found: dict[str, float] = {}
            for keys in self.processes.share(plan_batches(distinct, batch_tokens)):
                batch = [distinct[key] for key in keys]
                found |= zip(keys, log_probs(reference, batch).double().tolist(), strict=True)
            self.known = {distinct[key]: value for key, value in self.processes.gather(found).items()}
        if not self.recipe.keeps_reference:
            self.reference = None

    def _responses(self):
        """Those that are in the data."""
        for example in self.examples:
            if self.recipe.negatives != "on_policy":
                yield example.chosen
            if self.recipe.negatives == "off_policy":
                yield example.rejected

    def train(
        self,
        checkpoints: Checkpoints,
        checkpoint_every: int,
        evaluate_probes: Callable[[int], list[dict]],
        generate_responses: Callable[[int], list[dict]],
        snapshots: Sequence[int] = (),
        keep_model: Callable[[int], None] | None = None,
    ) -> dict[str, Any]:
        """Train to the end, or to the first number that is not finite: then return to the last evaluation before."""
        recipe = self.recipe
        state = checkpoints.load(str(self.model.device))
        step = self._restore(state) if state else 0
        if state is None:
            checkpoints.record(DYNAMICS, 0, evaluate_probes(0))
            checkpoints.record(GENERATIONS, 0, generate_responses(0))
            checkpoints.save(0, self._state())
        else:
            progress(f"resumes after step {step}")
        good = step
        while step < recipe.steps:
            if not self._step(step):
                return self._diverged(checkpoints, step + 1, good)
            step += 1
            evaluated = recipe.evaluates(step) or step in snapshots
            if evaluated:
                rows = evaluate_probes(step)
                if any(row["status"] == "ok" and not _finite(row) for row in rows):
                    return self._diverged(checkpoints, step, good)
                checkpoints.record(DYNAMICS, step, rows)
            if recipe.generates(step):
                checkpoints.record(GENERATIONS, step, generate_responses(step))
            if evaluated:
                if step in snapshots:
                    keep_model(step)
                if step == recipe.steps or step // recipe.evaluate_every % checkpoint_every == 0:
                    checkpoints.save(step, self._state())
                good = step
                progress(f"step {step}/{recipe.steps}  loss {self.log[-1]['loss']:.4f}")
        return {"status": "ok", "step": step, "last_good_step": step}

    def _diverged(self, checkpoints: Checkpoints, step: int, good: int) -> dict[str, Any]:
        """The status of a run that diverged at a step; the model is that of the `good` step again."""
        # Updates since the last checkpoint are made again: no number depends on how often checkpoints are written.
        for place in range(self._restore(checkpoints.load(str(self.model.device))), good):
            self._step(place)
        progress(f"step {step}: a number is not finite; stopped with the model of step {good}")
        return {"status": "diverged", "step": step, "last_good_step": good}

    def _state(self) -> dict[str, Any]:
        weights = {name: weight.detach() for name, weight in self.trained.items()}
        return {"model": weights, "optimiser": self.optimiser.state_dict(), "log": json.dumps(self.log)}

    def _restore(self, state: Mapping[str, Any]) -> int:
        with torch.no_grad():
            for name, weight in self.trained.items():
                weight.copy_(state["model"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        self.log = json.loads(state["log"])
        return state["step"]

    def _step(self, step: int) -> bool:
        """One update; returns False, without an update, where the loss or the gradient is not finite."""
        recipe = self.recipe
        places = order_of(len(self.examples), step * recipe.batch_size, recipe.batch_size, recipe.seed)
        outcome, ranked = self._outcome([self.examples[place] for place in places], step)
        # Divided by the size of the whole batch: each process has a part of the sum.
        loss = outcome.loss.sum() / recipe.batch_size
        self.optimiser.zero_grad()
        loss.backward()
        means = torch.stack(
            [part.sum().detach() / recipe.batch_size for part in (outcome.loss, outcome.chosen, outcome.rejected)]
        )
        self.processes.add([means, *(weight.grad for weight in self.trained.values() if weight.grad is not None)])
        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), recipe.clip or float("inf"))
        if not (torch.isfinite(means[0]) and torch.isfinite(norm)):
            return False
        rate = recipe.learning_rate * min(1.0, (step + 1) / (recipe.warm_up + 1))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        loss_mean, pull, push = means.tolist()
        self.log.append(
            {
                "run": recipe.name,
                "seed": recipe.seed,
                "step": step + 1,
                "examples": (step + 1) * recipe.batch_size,
                "learning_rate": rate,
                "loss": loss_mean,
                "pull": pull,
                "push": push,
                "grad_norm": norm.item(),
                "ranked": ranked,
            }
        )
        return True

    def _outcome(self, batch: Sequence[Example], step: int) -> tuple[Outcome, int | None]:
        """The loss of this process's part of a batch, and how many pairs of the whole batch are ranked."""
        recipe, share = self.recipe, self.processes.share(range(len(batch)))
        if not self.loss.paired:
            chosen = [batch[place].chosen for place in share]
            return self.loss.of(Scores(log_probs(self.model, chosen)), recipe.beta, recipe.margin), None
        pairs, ranked = self._pairs(batch, step)
        chosen, rejected = ([pairs[place][side] for place in share] for side in (0, 1))
        both = log_probs(self.model, chosen + rejected)
        scores = Scores(
            *both.split(len(share)),
            *(self._known(part, both) if self.loss.reference else None for part in (chosen, rejected)),
            *(torch.tensor([each.tokens for each in part]).to(both) for part in (chosen, rejected)),
            self._divergence(batch) if self.loss.mismatched else None,
        )
        outcome = self.loss.smoothed(scores, recipe.beta, recipe.margin, recipe.label_smoothing)
        counted = torch.tensor([ranked[place] for place in share]).to(both)
        parts = (outcome.loss, outcome.chosen, outcome.rejected)
        return Outcome(*(part * counted for part in parts)), sum(ranked)

    def _pairs(
        self, batch: Sequence[Example], step: int
    ) -> tuple[list[tuple[EncodedResponse, EncodedResponse]], list[bool]]:
        """Chosen and rejected response of every example, and whether the two are ranked.

        Samples depend on their batch, so every process draws all of them.
        """
        size = len(batch)
        if self.recipe.negatives == "off_policy":
            return [(each.chosen, each.rejected) for each in batch], [True] * size
        if self.recipe.negatives == "self_play":
            return list(zip((each.chosen for each in batch), self._sampled(batch, step), strict=True)), [True] * size
        sampled = self._sampled([*batch, *batch], step)
        pairs = list(zip(sampled[:size], sampled[size:], strict=True))
        # An endpoint is asked by one process.
        found = dict(enumerate(self._verdicts(batch, pairs))) if self.processes.is_main else {}
        verdicts = self.processes.gather(found)
        ordered = [pair[::-1] if verdicts[place] == "baseline" else pair for place, pair in enumerate(pairs)]
        return ordered, [verdicts[place] in ("run", "baseline") for place in range(size)]

    def _verdicts(
        self, batch: Sequence[Example], pairs: Sequence[tuple[EncodedResponse, EncodedResponse]]
    ) -> list[str | None]:
        """The better response of every pair: ``run``, the first, or ``baseline``, the second."""

        def answer(example: Example, response: EncodedResponse) -> Answer:
            ids = response.ids[response.start :]
            text, finished = self.encoder.text(ids), ids[-1] == self.encoder.end
            right = self.judge.right(example.text, text)
            return Answer(text, finished, repetition(ids[: len(ids) - finished]), right)

        contests = [
            Contest(example.prompt, *(answer(example, response) for response in pair))
            for example, pair in zip(batch, pairs, strict=True)
        ]
        return [verdict_of(preference) for preference in self.judge.prefer(contests)]

    def _known(self, responses: Sequence[EncodedResponse], like: Tensor) -> Tensor:
        """The reference's log-probabilities, 0 without one; those of sampled responses are computed now."""
        if self.recipe.reference_free:
            return torch.zeros_like(like[: len(responses)])
        sampled = [each for each in responses if each not in self.known]
        computed: dict[EncodedResponse, float] = {}
        if sampled:
            with torch.no_grad():
                computed = dict(zip(sampled, log_probs(self.reference, sampled).double().tolist(), strict=True))
        known = self.known | computed
        return torch.tensor([known[each] for each in responses], dtype=like.dtype, device=like.device)

    @torch.no_grad()
    def _divergence(self, batch: Sequence[Example]) -> Tensor:
        """KTO's k: the model's log-ratio to the reference for each prompt with the next example's response."""
        share = self.processes.share(range(len(batch)))
        mixed = [self.encoder.encode_any(batch[place].prompt, batch[(place + 1) % len(batch)].text) for place in share]
        both = torch.stack([log_probs(model, mixed) for model in (self.model, self.reference)], dim=1)
        found = self.processes.gather(dict(zip(share, both.tolist(), strict=True)))
        return divergence_of(*both.new_tensor([found[place] for place in range(len(batch))]).unbind(1))

    def _sampled(self, batch: Sequence[Example], step: int) -> list[EncodedResponse]:
        """Responses of the current model."""
        seed = int.from_bytes(seeded_hash(self.recipe.seed, f"samples of step {step}")[:4])
        return sample(self.model, self.encoder, [each.prompt for each in batch], seed, self.max_new_tokens)


def _optimiser(weights: Sequence[Tensor], recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=0.0)
    kind = torch.optim.SGD if recipe.optimiser == "sgd" else torch.optim.RMSprop
    return kind(weights, lr=recipe.learning_rate)


def _finite(row: Mapping[str, Any]) -> bool:
    return all(math.isfinite(value) for value in row.values() if isinstance(value, float))
