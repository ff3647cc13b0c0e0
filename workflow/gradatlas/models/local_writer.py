"""A local model as a writer: greedy decoding, one prompt at a time.

A text ends with the tokenizer's end token or one of the checkpoint's generation_config. No other setting of that file
is used.
"""

from gradatlas.core.errors import InputError
from gradatlas.data.generation.completions import Completion
from gradatlas.data.responses.prompts import base_prompt, chat_prompt
from gradatlas.models.decoding import continue_prompts
from gradatlas.models.loading import check_ids, choose_device, load, locate
from gradatlas.models.tokens import front_tokens, with_front


class LocalModel:
    """A `Writer`: the model in a folder or a card, with at most `max_tokens` new tokens.

    `prompt`: the form of its prompts, ``plain`` or ``chat``; empty: ``chat`` if it has a chat template.
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
        # Distinguishes these from answers of old versions, which used the checkpoint's generation settings.
        self.facts |= {"decoding": "greedy", **({"prompt": prompt} if prompt else {})}
        self.front, ends = front_tokens(self.tokenizer), self.network.generation_config.eos_token_id
        ends = [*(ends if isinstance(ends, list) else [ends]), self.tokenizer.eos_token_id]
        self.ends = [end for end in dict.fromkeys(ends) if end is not None]

    def complete(self, prompt: str) -> Completion:
        """Answer a prompt; `InputError` where it fills the model's window."""
        text = chat_prompt(self.tokenizer, prompt) if self.chat else base_prompt(prompt)
        ids = with_front(self.front, self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        check_ids(ids, self.network, self.tokenizer, f"prompt '{prompt[:40]}...'")
        window = getattr(self.network.config, "max_position_embeddings", None) or len(ids) + self.max_tokens
        limit = min(self.max_tokens, window - len(ids))
        if limit < 1:
            raise InputError(
                f"model '{self.facts['model']}': a prompt of {len(ids)} tokens fills its window of {window}; shorten it"
            )
        [tokens] = continue_prompts(self.network, [ids], self.ends, limit, do_sample=False)
        return Completion(self.tokenizer.decode(tokens, skip_special_tokens=True).strip(), tokens[-1] in self.ends)
