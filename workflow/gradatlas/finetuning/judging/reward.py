"""A reward model as a judge: a sequence classifier with one output."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

from gradatlas.core.errors import InputError
from gradatlas.finetuning.judging.judges import Contest, Judge, Preference, better
from gradatlas.models.loading import choose_device, load_tokenizer, locate
from gradatlas.models.precision import check_scales, dequantising, set_precision
from gradatlas.models.snapshots import config_of
from gradatlas.models.tokens import front_tokens, with_front


class RewardJudge(Judge):
    """The reward model in a folder or a card; `name`: its name in the table.

    Prompt and answer are formatted by its chat template if it has one, else concatenated.

    Texts longer than its window have no score, and their contests no verdict. Raises `InputError` for a model that is
    not a sequence classifier with one output, or has missing weights.
    """

    def __init__(self, model: str, name: str, *, device: str, dtype: str, trust_remote_code: bool = False):
        where, self.name = locate(model), name
        self.facts: Mapping[str, Any] = {"judge": "reward", "model": name, "digest": where.digest, "dtype": dtype}
        # Without this, loading stalls on a compute node without a network.
        os.environ["HF_HUB_OFFLINE"] = "1"
        logging.disable_progress_bar()
        quantisation = dequantising(where.path, config_of(where.path))
        self.tokenizer = load_tokenizer(where.path, trust_remote_code)
        try:
            self.model, report = AutoModelForSequenceClassification.from_pretrained(
                where.path,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                **quantisation,
            )
        except Exception as error:
            raise InputError(
                f"{where.path}: no sequence classifier could be loaded ({' '.join(str(error).split())[:240]}); give a "
                "reward model's folder with config.json, safetensors and tokenizer.json"
            ) from None
        if report["missing_keys"]:
            raise InputError(
                f"{where.path}: not a reward model, weight {sorted(report['missing_keys'])[0]} is missing; give a "
                "sequence classifier with one output"
            )
        if self.model.config.num_labels != 1:
            raise InputError(
                f"{where.path}: a classifier with {self.model.config.num_labels} outputs; give one with one output"
            )
        set_precision(self.model, getattr(torch, dtype))
        if quantisation:
            check_scales(where.path, map(str, report["unexpected_keys"]))
        self.model = self.model.to(choose_device(device)).eval()
        self.front = front_tokens(self.tokenizer)
        self.window = getattr(self.model.config, "max_position_embeddings", None)

    def prefer(self, contests: Sequence[Contest]) -> list[Preference]:
        """Prefers the answer with the higher score; every distinct text is scored once."""
        texts = {(each.prompt, answer.text) for each in contests for answer in (each.run, each.baseline)}
        scores = {text: self._score(*text) for text in sorted(texts)}
        pairs = [(scores[each.prompt, each.run.text], scores[each.prompt, each.baseline.text]) for each in contests]
        return [(None, None) if None in pair else better(*pair) for pair in pairs]

    @torch.inference_mode()
    def _score(self, prompt: str, answer: str) -> float | None:
        # One text at a time: with padding, the classifier would have to know where it is.
        if self.tokenizer.chat_template:
            turns = [{"role": "user", "content": prompt.strip()}, {"role": "assistant", "content": answer.strip()}]
            text = self.tokenizer.apply_chat_template(turns, tokenize=False)
        else:
            text = prompt + answer
        ids = with_front(self.front, self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        if self.window and len(ids) > self.window:
            return None
        score = self.model(input_ids=torch.tensor([ids], device=self.model.device)).logits.float().item()
        # NaN: no preference.
        return score if score == score else None
