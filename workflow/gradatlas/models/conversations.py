"""A row of a training file as a model reads it: token ids, and over which of them the loss is taken."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from gradatlas.core.errors import InputError
from gradatlas.data.training.rows import NO_RESPONSE, TrainingRow
from gradatlas.models.chat_template import ChatTemplate, Refused, Span
from gradatlas.models.tokens import Encoded, check_offsets, front_tokens, with_front, within
from gradatlas.study.settings import Prompting

#: Statuses of a row: the chat template cannot express it; longer than the window, under `truncation` ``drop``; no token
#: of a response is left in the window.
TEMPLATE = "template"
TRUNCATED = "truncated"
NO_TOKENS = "no_response_tokens"


@dataclass(frozen=True)
class EncodedRow:
    """A row as tokens, or why there are none.

    `sample` is None unless the `status` is ``ok``, ``truncated`` or ``no_response_tokens``; only ``ok`` can be
    measured. `texts`: each token's piece of the text; together they are the text, or its part in the window. A BOS that
    the text does not contain has an empty one.
    """

    sample: Encoded | None
    status: str
    reason: str = ""
    texts: tuple[str, ...] = ()


class ConversationEncoder:
    """Encodes rows of training files with one tokenizer.

    A plain text is prompt and completion; chats, and pairs under `prompting.prompt` ``chat``, are rendered by the
    tokenizer's chat template, a pair as a user's message and its answer. The text is tokenised as one, BOS occurs once
    in front (`gradatlas.models.tokens`), and a token with a character of a response is in the loss.

    In chats the loss is over all assistant turns or the last one, end-of-turn tokens included
    (`gradatlas.models.chat_template.ChatTemplate.write`); what the template cannot express has the status ``template``.

    `max_length`: the window in tokens; `prompting.truncation` as for `gradatlas.models.tokens.Encoder`. Raises
    `InputError` for a tokenizer without offsets, and without a chat template where one is needed.
    """

    def __init__(self, tokenizer: Any, prompting: Prompting, *, max_length: int):
        check_offsets(tokenizer)
        self.tokenizer, self.prompting, self.max_length = tokenizer, prompting, max_length
        self.front, self.template = front_tokens(tokenizer), ChatTemplate(tokenizer)
        self.has_template = bool(getattr(tokenizer, "chat_template", None))
        if prompting.prompt == "chat" and not self.has_template:
            raise InputError(
                f"model '{tokenizer.name_or_path}': its tokenizer has no chat template; set prompt to 'plain'"
            )
        self.chat = self.has_template and prompting.prompt != "plain"

    def encode(self, row: TrainingRow) -> EncodedRow:
        """Encode one row; a row with a status other than ``ok`` keeps it.

        Raises `InputError` for a chat where the model has no chat template, or `prompting.prompt` is ``plain``.
        """
        if row.status != "ok":
            return EncodedRow(None, row.status, row.reason)
        try:
            text, spans = self._text(row)
        except Refused as error:
            return EncodedRow(None, TEMPLATE, str(error))
        if not spans:
            return EncodedRow(None, NO_RESPONSE, "the assistant turns that the loss is over are empty")
        ids, response, texts = tokenise_spans(self.tokenizer, self.front, text, spans)
        kept = within(ids, response, self.front, self.max_length, self.prompting.truncation)
        sample = Encoded(
            tuple(ids[i] for i in kept), tuple(response[i] for i in kept), truncated=len(ids) > self.max_length
        )
        status, reason = "ok", ""
        if sample.truncated and self.prompting.truncation == "drop":
            status, reason = TRUNCATED, f"{len(ids)} tokens, but the window has {self.max_length}"
        elif not sample.response_tokens:
            status, reason = NO_TOKENS, "no token of its response is predicted"
            if sample.truncated and True in response:
                before = response.index(True)
                reason = f"its {before} tokens before the response fill the window of {self.max_length}"
        return EncodedRow(sample, status, reason, tuple(texts[i] for i in kept))

    def _text(self, row: TrainingRow) -> tuple[str, list[Span]]:
        """The text of a row, and its parts that are in the loss."""
        last = self.prompting.turns == "last"
        if row.messages:
            if not self.chat:
                raise InputError(
                    f"row {row.number} is a chat; set prompt to 'auto'"
                    if self.has_template
                    else f"row {row.number} is a chat, but model '{self.tokenizer.name_or_path}' has no chat template; "
                    "take one that has, or give prompt and completion as texts"
                )
            return self.template.write(row.messages, row.tools, given=row.given, last=last)
        if self.chat and not row.raw:
            pair = ({"role": "user", "content": row.prompt}, {"role": "assistant", "content": row.completion})
            return self.template.write(pair, given=1)
        prompt = f"{row.prompt}{row.joint}"
        return prompt + row.completion, [(len(prompt), len(prompt) + len(row.completion))]


def tokenise_spans(
    tokenizer: Any, front: Sequence[int], text: str, spans: Sequence[Span]
) -> tuple[list[int], list[bool], list[str]]:
    """Token ids of `front` and `text`, which of them have a character in one of the `spans`, and their pieces of it.

    A token's piece ends where the token ends, and begins where the one before it ended, as some tokenizers leave spaces
    out of their offsets. For one span at the end: as `gradatlas.models.tokens.tokenise`.
    """
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, offsets = list(encoding["input_ids"]), encoding["offset_mapping"]
    bounds = [0]
    for _, end in offsets:
        bounds.append(max(bounds[-1], end))
    response = [
        # The bytes of one character may be several tokens: its later ones have no piece.
        any(end > first and min(offset[0], start) < last for first, last in spans)
        for offset, (start, end) in zip(offsets, pairwise(bounds), strict=True)
    ]
    bounds[-1] = len(text)
    pieces = [text[start:end] for start, end in pairwise(bounds)]
    full = with_front(front, ids)
    added = len(full) - len(ids)
    # BOS is never of the response, also where the text itself begins with it.
    return full, [False] * len(front) + response[len(front) - added :], [""] * added + pieces
