"""A local model as a writer: greedy decoding, one prompt at a time."""

from workflow.lib.errors import InputError
from workflow.lib.generation.completions import Completion
from workflow.lib.models.loading import choose_device, load, locate
from workflow.lib.responses.prompts import base_prompt, chat_prompt


class LocalModel:
    """A `Writer` on a folder, a card or a pinned hub id; `max_tokens` new tokens at most.

    `prompt`: the form of its prompts, ``plain`` or ``chat``; empty, through its chat template where it has one.
    """

    parallel = 1

    def __init__(
        self,
        model: str,
        name: str,
        *,
        device: str,
        dtype: str,
        max_tokens: int,
        trust_remote_code: bool = False,
        prompt: str = "",
    ):
        where = locate(model)
        self.device, self.max_tokens = choose_device(device), max_tokens
        self.network, self.tokenizer = load(
            where.path, dtype=dtype, device=self.device, trust_remote_code=trust_remote_code
        )
        self.chat = prompt == "chat" if prompt else bool(getattr(self.tokenizer, "chat_template", None))
        self.facts = {"model": name, "digest": where.digest, "dtype": dtype, "max_tokens": max_tokens}
        self.facts |= {"prompt": prompt} if prompt else {}

    def complete(self, prompt: str) -> Completion:
        """Answer a prompt; `InputError` where it leaves no room in the model's window."""
        import torch

        text = chat_prompt(self.tokenizer, prompt) if self.chat else base_prompt(prompt)
        # A chat template writes the beginning of the sequence itself.
        ids = self.tokenizer(text, add_special_tokens=not self.chat, return_tensors="pt").to(self.device)
        length = ids["input_ids"].shape[1]
        window = getattr(self.network.config, "max_position_embeddings", None) or length + self.max_tokens
        room = min(self.max_tokens, window - length)
        if room < 1:
            raise InputError(f"model '{self.facts['model']}': a prompt of {length} tokens fills its window of {window}")
        pad = self.tokenizer.pad_token_id
        pad = self.tokenizer.eos_token_id if pad is None else pad
        with torch.inference_mode():
            made = self.network.generate(**ids, max_new_tokens=room, do_sample=False, pad_token_id=pad)[0, length:]
        ends = self.network.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return Completion(self.tokenizer.decode(made, skip_special_tokens=True).strip(), int(made[-1]) in ends)
