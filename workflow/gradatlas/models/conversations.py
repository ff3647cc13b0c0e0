"""A row of a training file as a model reads it: token ids, and over which of them the loss is taken."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from gradatlas.core.errors import InputError
from gradatlas.data.responses.prompts import CHAT_DATE_STRING, dated
from gradatlas.data.training.chats import says_something
from gradatlas.data.training.rows import NO_RESPONSE, TrainingRow
from gradatlas.models.tokens import Encoded, check_offsets, front_tokens, with_front, within
from gradatlas.study.settings import Prompting

#: Statuses of a row: the chat template cannot express it; longer than the window, under `truncation` ``drop``; no token
#: of a response is left in the window.
TEMPLATE = "template"
TRUNCATED = "truncated"
NO_TOKENS = "no_response_tokens"
# As transformers finds them.
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_REASONING = ("reasoning_content", "thinking", "reasoning")
#: The first character of a part of a text, and the one behind its last.
Span = tuple[int, int]


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


class _Refused(Exception):
    """The chat template cannot express a row."""


class ConversationEncoder:
    """Encodes rows of training files with one tokenizer.

    A plain text is prompt and completion; chats, and pairs under `prompting.prompt` ``chat``, are rendered by the
    tokenizer's chat template, a pair as a user's message and its answer. The text is tokenised as one, BOS occurs once
    in front (`gradatlas.models.tokens`), and a token with a character of a response is in the loss.

    In chats the loss is over assistant turns. Where the template marks them (``{% generation %}``), it decides.
    Elsewhere a turn is all that the template writes for it behind the generation prompt, so its end-of-turn token is in
    the loss, as in trl's trainers. A row has the status ``template`` where the template refuses it, ignores a message,
    a tool or a tool call, or writes a turn differently when others follow, so that no such span exists (templates that
    drop earlier thinking); `turns` ``last`` needs the last turn's span only.

    `max_length`: the window in tokens; `prompting.truncation` as for `gradatlas.models.tokens.Encoder`. Raises
    `InputError` for a tokenizer without offsets, and without a chat template where one is needed.
    """

    def __init__(self, tokenizer: Any, prompting: Prompting, *, max_length: int):
        check_offsets(tokenizer)
        self.tokenizer, self.prompting, self.max_length = tokenizer, prompting, max_length
        self.front = front_tokens(tokenizer)
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
        except _Refused as error:
            return EncodedRow(None, TEMPLATE, str(error))
        if not spans:
            return EncodedRow(None, NO_RESPONSE, "its last assistant turn is empty")
        ids, response, texts = tokenise_spans(self.tokenizer, self.front, text, spans)
        kept = within(ids, response, self.front, self.max_length, self.prompting.truncation)
        sample = Encoded(
            tuple(ids[i] for i in kept), tuple(response[i] for i in kept), truncated=len(ids) > self.max_length
        )
        status, reason = "ok", ""
        if sample.truncated and self.prompting.truncation == "drop":
            status, reason = TRUNCATED, f"{len(ids)} tokens, but the window has {self.max_length}"
        elif not sample.response_tokens:
            status, reason = NO_TOKENS, "its response is its first token, which is not predicted"
            if sample.truncated:
                before = response.index(True)
                reason = f"its {before} tokens before the response fill the window of {self.max_length}"
        return EncodedRow(sample, status, reason, tuple(texts[i] for i in kept))

    def _text(self, row: TrainingRow) -> tuple[str, list[Span]]:
        """The text of a row, and its parts that are in the loss."""
        if row.messages:
            if not self.chat:
                raise InputError(
                    f"row {row.number} is a chat; set prompt to 'auto'"
                    if self.has_template
                    else f"row {row.number} is a chat, but model '{self.tokenizer.name_or_path}' has no chat template; "
                    "take one that has, or give prompt and completion as texts"
                )
            return self._chat(row.messages, row.tools, row.given)
        if self.chat and not row.raw:
            pair = ({"role": "user", "content": row.prompt}, {"role": "assistant", "content": row.completion})
            return self._chat(pair, (), 1)
        prompt = f"{row.prompt}{row.joint}"
        return prompt + row.completion, [(len(prompt), len(prompt) + len(row.completion))]

    # --- Chats --------------------------------------------------------------------------------------------------------

    def _chat(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], given: int
    ) -> tuple[str, list[Span]]:
        """The rendered chat and its parts in the loss; the first `given` messages are the prompt."""
        text, marked = self._render(messages, tools)
        every = [at for at, each in enumerate(messages) if each["role"] == "assistant"]
        turns = [at for at in every if at >= given]
        if self.prompting.turns == "last":
            turns = turns[-1:]
        self._check_expressed(text, messages, tools, turns)
        if not any(says_something(messages[at]) for at in turns):
            return text, []
        if marked is None:
            return text, [self._turn(text, messages, tools, at) for at in turns]
        start = 0 if turns == every else self._before(text, messages[: turns[0]], tools, prompt=False)
        spans = [each for each in marked if each[0] >= start]
        if not any(first < last for first, last in spans):
            raise _Refused("the template marks no part of it as the assistant's ({% generation %})")
        return text, spans

    def _turn(self, text: str, messages: Sequence[Any], tools: Sequence[Any], at: int) -> Span:
        """What the template writes for the assistant's turn `at`."""
        if at == 0:
            raise _Refused("it begins with an assistant turn, which has no prompt")
        start = self._before(text, messages[:at], tools, prompt=True)
        until = text if at == len(messages) - 1 else self._render(messages[: at + 1], tools)[0]
        if not text.startswith(until):
            raise _Refused(
                f"the template writes message {at} differently when others follow it; set turns to 'last', or take a "
                "template with {% generation %}"
            )
        return start, len(until)

    def _before(self, text: str, messages: Sequence[Any], tools: Sequence[Any], prompt: bool) -> int:
        """The length of the text that `messages`, and the generation `prompt`, are in front of a turn."""
        prefix, _ = self._render(messages, tools, prompt)
        if not text.startswith(prefix):
            raise _Refused(
                f"the template writes messages 0 to {len(messages) - 1} differently when an assistant turn follows "
                "them, so where it begins is unknown"
            )
        return len(prefix)

    def _check_expressed(self, text: str, messages: Sequence[Any], tools: Sequence[Any], turns: Sequence[int]) -> None:
        """`_Refused` where the template ignores tools, or a part of a message: the text would be the same without."""
        if tools and text == self._render(messages, ())[0]:
            raise _Refused("the template ignores tools")
        for at, message in enumerate(messages):
            changes = []
            content = message.get("content", "")
            # A template may trim or escape a content, so compare with the text of another one.
            if content.strip() and content.strip() not in text:
                changes.append(("content", {**message, "content": f"{content} {content}?"}))
            for key in ("tool_calls", *(_REASONING if at in turns else ())):
                if message.get(key):
                    changes.append((key, {name: value for name, value in message.items() if name != key}))
            for key, other in changes:
                if self._same(text, [*messages[:at], other, *messages[at + 1 :]], tools):
                    raise _Refused(f"the template ignores the {key} of message {at} ({message['role']})")

    def _same(self, text: str, messages: Sequence[Any], tools: Sequence[Any]) -> bool:
        try:
            return self._render(messages, tools)[0] == text
        except _Refused:
            return False

    def _render(
        self, messages: Sequence[Any], tools: Sequence[Any], prompt: bool = False
    ) -> tuple[str, list[Span] | None]:
        """The chat template's text, and its marked parts; None where it has no marks. `prompt`: with the generation
        prompt."""
        # `apply_chat_template` gives the marks as tokens only, and leaves out those that begin with a trimmed space.
        from jinja2 import TemplateSyntaxError
        from transformers.utils.chat_template_utils import render_jinja_template

        tools = list(tools) or None
        options = {**self.tokenizer.special_tokens_map, "date_string": CHAT_DATE_STRING}
        try:
            template = self.tokenizer.get_chat_template(tools=tools)
            marks = bool(_GENERATION.search(template))
            texts, spans = render_jinja_template(
                [list(messages)],
                tools=tools,
                chat_template=dated(template),
                return_assistant_tokens_mask=marks,
                add_generation_prompt=prompt,
                **options,
            )
        except TemplateSyntaxError as error:
            raise InputError(
                f"model '{self.tokenizer.name_or_path}': its chat template is not valid ({error}); fix "
                "chat_template.jinja, or fetch it again"
            ) from None
        except Exception as error:
            # Whatever a template raises, by raise_exception or by itself, is about this row; other rows may be fine.
            raise _Refused(f"the template fails ({type(error).__name__}: {' '.join(str(error).split())})") from None
        return texts[0], spans[0] if marks else None


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
