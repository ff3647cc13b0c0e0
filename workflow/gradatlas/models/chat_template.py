"""A tokenizer's chat template: the text of a chat, and which parts of it the loss is over."""

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from gradatlas.core.errors import InputError
from gradatlas.data.responses.prompts import CHAT_DATE_STRING, dated
from gradatlas.data.training.chats import says_something

# As transformers finds them.
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_THOUGHT = re.compile("(</?think>)")
_REASONING = ("reasoning_content", "thinking", "reasoning")
Messages = Sequence[Mapping[str, Any]]
#: The first character of a part of a text, and the one behind its last.
Span = tuple[int, int]


class Refused(Exception):
    """The chat template cannot express a chat; the message is the reason."""


class ChatTemplate:
    """The chat template of a tokenizer with offsets; a template that writes today's date gets a fixed one."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer

    def write(
        self, messages: Messages, tools: Messages = (), *, given: int = 0, last: bool = False
    ) -> tuple[str, list[Span]]:
        """The text of a chat, and its parts in the loss: what the template writes for each assistant turn.

        The first `given` messages are the prompt; of the turns behind them all are in the loss, or the `last` one.
        There are no parts where these turns are empty. Where the template marks the assistant's parts
        (``{% generation %}``), it decides. Elsewhere a turn's part is what follows the generation prompt, with the
        end-of-turn token, as in trl's trainers. Raises `Refused` where the template fails, ignores a message, a tool, a
        tool call or a thought, or writes a turn differently when others follow it (as those that drop earlier
        thoughts): then no such part exists. Raises `InputError` for a template that is not valid.
        """
        text, marked = self._render(messages, tools)
        every = [at for at, each in enumerate(messages) if each["role"] == "assistant"]
        turns = [at for at in every if at >= given]
        if last:
            turns = turns[-1:]
        if not any(says_something(messages[at]) for at in turns):
            return text, []
        if marked is None:
            spans = [self._turn(text, messages, tools, at) for at in turns]
        else:
            start = 0 if turns == every else self._before(text, messages, tools, turns[0])
            spans = [each for each in marked if each[0] >= start]
            if not any(first < last for first, last in spans):
                raise Refused("the template marks no part of it as the assistant's ({% generation %})")
        self._check_expressed(text, messages, tools, turns)
        return text, spans

    def _turn(self, text: str, messages: Messages, tools: Messages, at: int) -> Span:
        """What the template writes for the assistant's turn `at`."""
        if at == 0:
            raise Refused("it begins with an assistant turn, which has no prompt")
        start = self._before(text, messages, tools, at)
        with_header, _ = self._render(messages[:at], tools, prompt=True)
        # A generation prompt may open a thought that the turn does not have: then what they share, as trl does.
        start = len(with_header) if text.startswith(with_header) else max(start, self._shared(text, with_header))
        until = text if at == len(messages) - 1 else self._render(messages[: at + 1], tools)[0]
        if not text.startswith(until):
            raise Refused(
                f"the template writes message {at} differently when others follow it; set turns to 'last', or take a "
                "template with {% generation %}"
            )
        return start, len(until)

    def _before(self, text: str, messages: Messages, tools: Messages, at: int) -> int:
        """The length of the text of the messages before message `at`."""
        if at == 0:
            return 0
        prefix, _ = self._render(messages[:at], tools)
        if not text.startswith(prefix):
            raise Refused(f"the template writes what is before message {at} differently when that follows")
        return len(prefix)

    def _shared(self, text: str, other: str) -> int:
        """The length of the tokens that two texts begin with."""
        read = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
        one, two = self.tokenizer(text, **read), self.tokenizer(other, **read)
        same = takewhile(lambda each: each[0] == each[1], zip(one["input_ids"], two["input_ids"], strict=False))
        return max([0, *(end for (_, end), _ in zip(one["offset_mapping"], same, strict=False))])

    def _check_expressed(self, text: str, messages: Messages, tools: Messages, turns: Sequence[int]) -> None:
        """`Refused` where the template ignores tools, or a part of a message: the text would be the same without."""
        if tools and text == self._render(messages, ())[0]:
            raise Refused("the template ignores tools")
        for at, message in enumerate(messages):
            changes = []
            # A thought in a turn of the loss is a part of its own.
            parts = _THOUGHT.split(message.get("content", "")) if at in turns else [message.get("content", "")]
            for place, part in enumerate(parts):
                # A template may trim or escape a text, so compare with the text of another one.
                if part.strip() and part.strip() not in text:
                    other = "".join([*parts[:place], f"{part} {part}?", *parts[place + 1 :]])
                    changes.append(("content" if len(parts) == 1 else "thought", {**message, "content": other}))
            for key in ("tool_calls", *(_REASONING if at in turns else ())):
                if message.get(key):
                    changes.append((key, {name: value for name, value in message.items() if name != key}))
            for key, other in changes:
                if self._same(text, [*messages[:at], other, *messages[at + 1 :]], tools):
                    raise Refused(f"the template ignores the {key} of message {at} ({message['role']})")

    def _same(self, text: str, messages: Messages, tools: Messages) -> bool:
        try:
            return self._render(messages, tools)[0] == text
        except Refused:
            return False

    def _render(self, messages: Messages, tools: Messages, prompt: bool = False) -> tuple[str, list[Span] | None]:
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
            raise Refused(f"the template fails ({type(error).__name__}: {' '.join(str(error).split())})") from None
        return texts[0], spans[0] if marks else None
