"""One loop for every finetuning run: any loss, target and start, watched by probes, resumed exactly after a kill.

Dropout is off, the order of examples is a function of the seed and the step, and so is a sampled negative: with the
weights and the optimiser's state a checkpoint holds all that the future depends on. (On a CPU, to the last bit; a GPU's
sums may come in another order.)
"""

import json
import os
import shutil
import tempfile
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
from gradatlas.core.files import sha256_of
from gradatlas.core.machine import libraries, machine
from gradatlas.core.tables import write_table
from gradatlas.finetuning.checkpoints import Checkpoints
from gradatlas.finetuning.evaluate import evaluate
from gradatlas.finetuning.examples import Example, order_of, read_examples, trained_pairs
from gradatlas.finetuning.generations import generate, generation_pairs
from gradatlas.finetuning.losses import Outcome, Scores, divergence_of, loss_named
from gradatlas.finetuning.probes import read_probes
from gradatlas.finetuning.processes import SINGLE_PROCESS, Processes
from gradatlas.finetuning.recipe import Recipe
from gradatlas.finetuning.sequences import EncodedResponse, ResponseEncoder, log_probs, sample
from gradatlas.finetuning.tables import DYNAMICS, GENERATIONS, TRAINING
from gradatlas.gradients.plan import plan_batches
from gradatlas.models.decoding import batch_key
from gradatlas.models.loading import choose_device, load, locate
from gradatlas.models.snapshots import card_of
from gradatlas.study.seeds import seeded_hash

STATUS = "status.json"
MACHINE = "machine.json"
CARD = "model.json"


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
    device: str = "cpu",
    dtype: str = "float32",
    trust_remote_code: bool = False,
    max_length: int = 512,
    batch_tokens: int = 4096,
    max_new_tokens: int = 64,
    prompts: int = 0,
    draws: int = 1,
) -> None:
    """Finetune the model at `init` (a folder, a card, or another run's ``model.json``) on a ``pairs`` table.

    Writes to the folder `output`: ``dynamics.parquet`` (of the `probes`, where given), ``generations.parquet`` (`draws`
    free responses to at most `prompts` prompts of either split), ``training.parquet``, ``status.json``,
    ``machine.json`` (what it ran on), ``model/`` and its card ``model.json``, the last of all. A loss or gradient that
    is not finite stops the run at that step: the status is then ``diverged``, and ``model/`` is the last checkpoint
    before it. `reference`: the reference model,
    by default `init`. `journal`: a folder for checkpoints, deleted when the run is whole. Raises `InputError` for a
    start that diverged, a reference with another tokenizer, data that leave nothing to train on, and more `processes`
    than a batch has examples.
    """
    if processes.count > recipe.batch_size:
        raise InputError(
            f"run '{recipe.name}': {processes.count} processes cannot share batches of {recipe.batch_size}; lower "
            "config key dynamics.processes"
        )
    device, start = choose_device(device), locate_start(init)
    torch.use_deterministic_algorithms(device == "cpu")
    how = {"dtype": dtype, "device": device, "trust_remote_code": trust_remote_code}
    model, tokenizer = load(start.path, **how)
    window = min(max_length, getattr(model.config, "max_position_embeddings", max_length))
    encoder = ResponseEncoder(tokenizer, window, model)
    watched, unwatched = read_probes(probes, encoder) if probes else ({}, [])
    trained = trained_pairs(recipe, pairs, probes)
    examples, excluded = read_examples(recipe, trained, encoder)
    asked = generation_pairs(pairs, trained, prompts, recipe.seed)
    facts = {
        **asdict(recipe),
        "init": start.digest,
        "reference": locate_start(reference).digest if reference else start.digest,
        "pairs": sha256_of(pairs),
        "probes": sha256_of(probes) if probes else None,
        "window": window,
        "max_new_tokens": max_new_tokens,
        "prompts": prompts,
        "draws": draws,
        "dtype": dtype,
        "device": device,
        "processes": processes.count,
        "revision": start.revision,
        "code": code_digest(f"{__name__}:finetune"),
        **libraries(),
    }
    kept = Checkpoints(journal, {**facts, "batch_tokens": batch_tokens}, processes)
    other = _reference(model, tokenizer, reference, how) if loss_named(recipe.loss).reference else None
    adapted = _adapted(model, recipe)
    run = _TrainingLoop(model, encoder, recipe, examples, other, max_new_tokens, processes)
    # The run alone holds it, and lets it go once its log-probabilities are known.
    del other

    def seen(step: int) -> dict:
        return {"run": recipe.name, "seed": recipe.seed, "step": step, "examples": step * recipe.batch_size}

    def look(step: int) -> list[dict]:
        found = evaluate(model, {key: encoded for key, (_, encoded) in watched.items()}, batch_tokens, processes)
        rows = [{**seen(step), **watched[key][0], **values, "tokens": watched[key][1].tokens, "status": "ok"}
                for key, values in found.items()]  # fmt: skip
        return rows + [{**seen(step), **row, "tokens": None} for row in unwatched]

    def say(step: int) -> list[dict]:
        said = generate(model, encoder, asked, seed=recipe.seed, draws=draws, max_tokens=max_new_tokens,
                        batch_tokens=batch_tokens, processes=processes)  # fmt: skip
        return [{**seen(step), **row} for row in said]

    run.prepare(batch_tokens)
    # Before a checkpoint is read: a run that goes on after a kill finds the same.
    batch_key(model, window)
    status = run.go(kept, look, say)
    if not processes.is_main:
        return
    for table in (DYNAMICS, GENERATIONS):
        rows = kept.recorded(table, status["last_good_step"])
        write_table(table, rows, Path(output) / f"{table.name}.parquet", facts | {"status": status["status"]})
    write_table(TRAINING, run.log, Path(output) / "training.parquet", facts)
    status |= {"run": recipe.name, "trained_on": len(examples), "excluded": excluded}
    status["probes"] = {"ok": len(watched), **_counted(row["status"] for row in unwatched)}
    folder = Path(output) / "model"
    save_model(adapted.merge_and_unload() if adapted else model, tokenizer, folder)
    card = card_of(recipe.name, str(folder), "", folder)
    write_json(Path(output) / MACHINE, machine(device))
    write_json(Path(output) / STATUS, {**status, "model_digest": card["digest"]})
    write_json(Path(output) / CARD, card)
    kept.remove()


def locate_start(init: str):
    """Where the model to start from is; `InputError` for a run that diverged."""
    status = Path(init).parent / STATUS
    if Path(init).name in (CARD, "model") and status.is_file():
        ended = read_json(status, "finetune")
        if ended["status"] != "ok":
            raise InputError(
                f"{init}: its run {ended['status']} at step {ended['step']}; lower its learning_rate in config/runs.tsv"
            )
    return locate(init)


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """A model's folder, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".model.") as place:
        whole = Path(place) / "model"
        model.save_pretrained(whole)
        # How it was read (with or without a network) is no part of a tokenizer, and would change its file.
        tokenizer.init_kwargs.pop("local_files_only", None)
        tokenizer.save_pretrained(whole)
        if folder.is_dir():
            shutil.rmtree(folder)
        os.replace(whole, folder)


def _adapted(model: Any, recipe: Recipe) -> Any:
    """Make the parameters to train trainable; of LoRA, put into the model in place, the adapter that can be merged."""
    if recipe.parameters == "full":
        model.requires_grad_(True)
        return None
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        shape = {"r": recipe.lora_rank, "lora_alpha": 2 * recipe.lora_rank, "lora_dropout": 0.0}
        return get_peft_model(model, LoraConfig(target_modules="all-linear", **shape))


def _counted(names) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _reference(model: Any, tokenizer: Any, reference: str | None, how: Mapping[str, Any]) -> Any:
    """The frozen reference model: another one of the same tokenizer, or the start itself as it is now."""
    if reference is None:
        return deepcopy(model).requires_grad_(False)
    where = locate_start(reference)
    other, other_tokenizer = load(where.path, **how)
    if other_tokenizer.get_vocab() != tokenizer.get_vocab():
        raise InputError(
            f"reference {reference}: another tokenizer than that of the model to train, so that log-probabilities do "
            "not compare; take a reference of the same family"
        )
    return other.requires_grad_(False)


class _TrainingLoop:
    """The loop's state: model, optimiser, log; `reference` is only kept where it is asked again."""

    def __init__(
        self,
        model,
        encoder: ResponseEncoder,
        recipe: Recipe,
        examples: Sequence[Example],
        reference,
        max_new_tokens,
        processes,
    ):
        self.model, self.encoder, self.recipe, self.examples = model, encoder, recipe, examples
        self.loss, self.reference, self.max_new_tokens = loss_named(recipe.loss), reference, max_new_tokens
        self.processes: Processes = processes
        self.trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        # No dropout.
        self.model.eval()
        self.optimiser = _optimiser(list(self.trained.values()), recipe)
        self.known: dict[EncodedResponse, float] = {}
        self.log: list[dict] = []

    @torch.no_grad()
    def prepare(self, batch_tokens: int) -> None:
        """The reference's log-probabilities, once: they never change."""
        if self.loss.reference:
            distinct = {str(i): each for i, each in enumerate(dict.fromkeys(self._responses()))}
            found: dict[str, float] = {}
            for keys in self.processes.share(plan_batches(distinct, batch_tokens)):
                batch = [distinct[key] for key in keys]
                found |= zip(keys, log_probs(self.reference, batch).double().tolist(), strict=True)
            self.known = {distinct[key]: value for key, value in self.processes.gather(found).items()}
        if not (self.loss.reference and (self.loss.mismatched or self.recipe.negatives == "on_policy")):
            self.reference = None

    def _responses(self):
        for example in self.examples:
            yield example.chosen
            if example.rejected and self.recipe.negatives == "off_policy":
                yield example.rejected

    def go(
        self, kept: Checkpoints, look: Callable[[int], list[dict]], say: Callable[[int], list[dict]]
    ) -> dict[str, Any]:
        """Train to the end or to the first number that is not finite; the model is then that of the last good step.

        `look` evaluates the probes, `say` writes free responses.
        """
        recipe = self.recipe
        state = kept.load(str(self.model.device))
        step = self._restore(state) if state else 0
        if state is None:
            kept.record(DYNAMICS, 0, look(0))
            kept.record(GENERATIONS, 0, say(0))
            kept.save(0, self._state())
        else:
            progress(f"goes on after step {step}")
        good = step
        while step < recipe.steps:
            if not self._step(step):
                self._restore(kept.load(str(self.model.device)))
                progress(f"step {step + 1}: loss or gradient not finite; stopped, the model is that of step {good}")
                return {"status": "diverged", "step": step + 1, "last_good_step": good}
            step += 1
            if recipe.evaluates(step):
                rows = look(step)
                if any(row["status"] == "ok" and not _finite(row) for row in rows):
                    self._restore(kept.load(str(self.model.device)))
                    return {"status": "diverged", "step": step, "last_good_step": good}
                kept.record(DYNAMICS, step, rows)
            if recipe.generates(step):
                kept.record(GENERATIONS, step, say(step))
            if recipe.evaluates(step):
                kept.save(step, self._state())
                good = step
                progress(f"step {step}/{recipe.steps}  loss {self.log[-1]['loss']:.4f}")
        return {"status": "ok", "step": step, "last_good_step": step}

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
        """One update; False, with nothing updated, where the loss or the gradient is not finite."""
        recipe = self.recipe
        places = order_of(len(self.examples), step * recipe.batch_size, recipe.batch_size, recipe.seed)
        outcome = self._outcome([self.examples[place] for place in places], step)
        # Over the whole batch: each process has its part of the sum.
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
        told = dict(zip(("loss", "pull", "push", "grad_norm"), [*means.tolist(), norm.item()], strict=True))
        seen = {"run": recipe.name, "seed": recipe.seed, "step": step + 1, "examples": (step + 1) * recipe.batch_size}
        self.log.append({**seen, "learning_rate": rate, **told})
        return True

    def _outcome(self, batch: Sequence[Example], step: int) -> Outcome:
        """The loss of this process's part of a batch."""
        mine = self.processes.share(range(len(batch)))
        chosen = [batch[place].chosen for place in mine]
        if not self.loss.paired:
            return self.loss.of(Scores(log_probs(self.model, chosen)), self.recipe.beta, self.recipe.margin)
        # Samples depend on the batch that they are drawn in: each process draws all of them.
        sampled = self._sampled(batch, step) if self.recipe.negatives == "on_policy" else None
        rejected = [sampled[place] if sampled else batch[place].rejected for place in mine]
        both = log_probs(self.model, chosen + rejected)
        scores = Scores(
            *both.split(len(mine)),
            *(self._known(part, both) if self.loss.reference else None for part in (chosen, rejected)),
            *(torch.tensor([each.tokens for each in part]).to(both) for part in (chosen, rejected)),
            self._divergence(batch) if self.loss.mismatched else None,
        )
        return self.loss.of(scores, self.recipe.beta, self.recipe.margin)

    def _known(self, responses: Sequence[EncodedResponse], like: Tensor) -> Tensor:
        """The reference's log-probabilities; of fresh samples they are asked for."""
        fresh = [each for each in responses if each not in self.known]
        asked: dict[EncodedResponse, float] = {}
        if fresh:
            with torch.no_grad():
                asked = dict(zip(fresh, log_probs(self.reference, fresh).double().tolist(), strict=True))
        return torch.tensor([(self.known | asked)[each] for each in responses], dtype=like.dtype, device=like.device)

    @torch.no_grad()
    def _divergence(self, batch: Sequence[Example]) -> Tensor:
        """KTO's k: what the model, against the reference, makes of the next example's response."""
        mine = self.processes.share(range(len(batch)))
        mixed = [self.encoder.encode_uncut(batch[place].prompt, batch[(place + 1) % len(batch)].text) for place in mine]
        both = torch.stack([log_probs(model, mixed) for model in (self.model, self.reference)], dim=1)
        found = self.processes.gather(dict(zip(mine, both.tolist(), strict=True)))
        return divergence_of(*both.new_tensor([found[place] for place in range(len(batch))]).unbind(1))

    def _sampled(self, batch: Sequence[Example], step: int) -> list[EncodedResponse]:
        """Negatives from the model as it is now; an empty one is the end token alone."""
        seed = int.from_bytes(seeded_hash(self.recipe.seed, f"negatives of step {step}")[:4])
        return sample(self.model, self.encoder, [each.prompt for each in batch], seed, self.max_new_tokens)


def _optimiser(weights: Sequence[Tensor], recipe: Recipe) -> torch.optim.Optimizer:
    made = {
        "sgd": lambda: torch.optim.SGD(weights, lr=recipe.learning_rate),
        "rmsprop": lambda: torch.optim.RMSprop(weights, lr=recipe.learning_rate),
        "adamw": lambda: torch.optim.AdamW(weights, lr=recipe.learning_rate, weight_decay=0.0),
    }
    return made[recipe.optimiser]()


def _finite(row: Mapping[str, Any]) -> bool:
    return all(value == value and abs(value) != float("inf") for value in row.values() if isinstance(value, float))
