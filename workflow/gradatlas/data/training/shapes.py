"""The shapes of training files: which columns each needs, and what a row gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from gradatlas.core.errors import InputError
from gradatlas.data.partners import check_partners
from gradatlas.data.training.chats import Fault, check_answered, is_empty, messages_of, text_of, tools_of
from gradatlas.data.training.rows import NO_RESPONSE
from gradatlas.study.relations import PARTNERS
from gradatlas.study.settings import Reading

Row = Mapping[str, Any]
#: LLaMA-Factory's `history` holds the earlier turns of a chat.
_PARTNERS = (*PARTNERS, "history")
#: Arguments of a `TrainingRow`: its texts or messages.
Content = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """`columns`: those that a row needs. `read`: from a row and a response's name, its content; raises `Fault`.

    `responses`: the names of a row's responses. `partners`: columns that belong to a prompt and are read with it; a
    row with another one that is not empty is refused (`gradatlas.data.partners`).
    """

    columns: tuple[str, ...]
    read: Callable[[Row, str], Content]
    responses: tuple[str, ...] = ("",)
    partners: tuple[str, ...] = ()


def shapes_of(reading: Reading) -> dict[str, Shape]:
    """All shapes, or the one that is named, by name."""
    prompt, response = reading.prompt_column, reading.response_column
    named = reading.shape == "columns" or (reading.shape == "auto" and bool(prompt or response))
    if named and not (prompt and response):
        raise InputError("shape 'columns' needs both a prompt_column and a response_column; name them")
    if named:
        return {"columns": Shape((prompt, response), lambda row, _: pair(row, prompt, response, "\n"))}
    if prompt or response:
        raise InputError(f"shape '{reading.shape}' reads no prompt_column and response_column; take shape 'columns'")
    return SHAPES if reading.shape == "auto" else {reading.shape: SHAPES[reading.shape]}


def fits(row: Row, shape: Shape) -> bool:
    """Whether a row has a value in all columns of a shape."""
    return all(not is_empty(row.get(column)) for column in shape.columns)


def content_of(row: Row, response: str, shape: Shape) -> Content:
    """A response's content; raises `Fault`."""
    try:
        used, remedy = {*shape.columns, *shape.partners}, "add it to the prompt, or rename the column"
        check_partners(row, used, "", remedy, _PARTNERS)
    except InputError as error:
        raise Fault(str(error).removeprefix(": ")) from None
    return shape.read(row, response)


def pair(row: Row, prompt: str, completion: str, joint: str = "") -> Content:
    """Prompt and completion from two columns."""
    return {"prompt": text_of(row, prompt), "joint": joint, "completion": _completion(row, completion)}


def _completion(row: Row, column: str) -> str:
    text = text_of(row, column)
    if not text.strip():
        raise Fault(f"column '{column}' is empty", NO_RESPONSE)
    return text


def _instruction(added: str, response: str) -> Callable[[Row, str], Content]:
    """Alpaca's and Dolly's: a non-empty column `added` is added to the instruction on a new line."""

    def read(row: Row, _: str) -> Content:
        content = pair(row, "instruction", response, "\n")
        extra = "" if is_empty(row.get(added)) else text_of(row, added)
        return content | {"prompt": f"{content['prompt']}\n{extra}"} if extra.strip() else content

    return read


def _text(row: Row, _: str) -> Content:
    return {"completion": _completion(row, "text"), "raw": True}


def _chat(column: str) -> Callable[[Row, str], Content]:
    def read(row: Row, _: str) -> Content:
        messages = messages_of(row, column)
        system = row.get("system")
        if not is_empty(system) and system != "":
            if messages and messages[0]["role"] == "system":
                raise Fault("has a column 'system' and a system message; remove one")
            messages.insert(0, {"role": "system", "content": text_of(row, "system")})
        return _conversation([], messages, row)

    return read


def _conversation(prompt: list[Any], answers: list[Any], row: Row) -> Content:
    check_answered(answers)
    return {"messages": (*prompt, *answers), "given": len(prompt), "tools": tuple(tools_of(row))}


def _prompt_completion(row: Row, _: str) -> Content:
    return _prompted(row, "completion")


def _prompted(row: Row, completion: str) -> Content:
    """Prompt and completion, both texts or both lists of messages."""
    lists = [column for column in ("prompt", completion) if isinstance(row.get(column), (list, tuple))]
    if len(lists) == 1:
        raise Fault(f"column '{lists[0]}' is a list, but of prompt and {completion} the other is not")
    if lists:
        return _conversation(messages_of(row, "prompt"), messages_of(row, completion), row)
    return pair(row, "prompt", completion)


def _preference(row: Row, response: str) -> Content:
    """Chosen or rejected; a prompt that is not given is what both begin with, as TRL reads them.

    A text beside lists of messages only repeats their prompt, as in UltraFeedback.
    """
    chats = [isinstance(row.get(column), (list, tuple)) for column in ("chosen", "rejected")]
    if any(chats) != all(chats):
        raise Fault("one of chosen and rejected is a list, the other is not")
    explicit = not is_empty(row.get("prompt"))
    if explicit and (isinstance(row["prompt"], (list, tuple)) or not any(chats)):
        return _prompted(row, response)
    read = messages_of if any(chats) else text_of
    both = [read(row, column) for column in ("chosen", "rejected")]
    if both[0] == both[1]:
        raise Fault("chosen and rejected are equal, so where the prompt ends is unknown", NO_RESPONSE)
    start = sum(1 for _ in takewhile(lambda each: each[0] == each[1], zip(*both, strict=False)))
    own = both[response == "rejected"]
    if any(chats):
        if explicit and text_of(row, "prompt").strip() not in "".join(each.get("content", "") for each in own[:start]):
            raise Fault("the prompt is not among the messages that chosen and rejected begin with")
        return _conversation(own[:start], own[start:], row)
    # A space before the response belongs to it.
    start -= start > 0 and both[0][start - 1] == " "
    if not own[start:].strip():
        raise Fault(f"column '{response}' is empty behind the common prompt", NO_RESPONSE)
    return {"prompt": own[:start], "completion": own[start:], "raw": True}


SHAPES = {
    "messages": Shape(("messages",), _chat("messages"), partners=("system",)),
    "conversations": Shape(("conversations",), _chat("conversations"), partners=("system",)),
    "prompt_completion": Shape(("prompt", "completion"), _prompt_completion),
    "instruction": Shape(("instruction", "output"), _instruction("input", "output"), partners=("input",)),
    "dolly": Shape(("instruction", "response"), _instruction("context", "response"), partners=("context",)),
    "text": Shape(("text",), _text),
    "question_answer": Shape(("question", "answer"), lambda row, _: pair(row, "question", "answer", "\n")),
    "preference": Shape(("chosen", "rejected"), _preference, responses=("chosen", "rejected")),
}
