"""Lists of messages in training files, as chat templates take them."""

import json
import re
from collections.abc import Mapping
from typing import Any

from gradatlas.data.formats import RawValue, plain
from gradatlas.data.training.rows import NO_RESPONSE, UNREADABLE

#: Who a ShareGPT turn is ``from``, as a role; other names are roles themselves.
_SENDERS = {"human": "user", "gpt": "assistant", "observation": "tool"}
_ROLES = ("system", "developer", "user", "assistant", "tool")
_SURROGATE = re.compile("[\ud800-\udfff]")
Message = dict[str, Any]


class Fault(Exception):
    """Why a row cannot be measured: its status and the reason in words."""

    def __init__(self, reason: str, status: str = UNREADABLE):
        super().__init__(reason)
        self.reason, self.status = reason, status


def is_empty(value: Any) -> bool:
    """True for None and NaN, as which pandas writes a missing value."""
    return value is None or value != value


def text_of(row: Mapping[str, Any], column: str) -> str:
    """A column's text; numbers and booleans can be answers too. `Fault` for anything else."""
    return _text(row.get(column), f"column '{column}'", column in row)


def _text(value: Any, name: str, present: bool = True) -> str:
    if is_empty(value):
        raise Fault(f"{name} is {'null' if present else 'missing'}")
    if not isinstance(value, (str, bool, int, float, RawValue)):
        raise Fault(f"{name} is {_kind(value)}, not a text")
    text = str(value)
    if _SURROGATE.search(text):
        raise Fault(f"{name} contains half of a character (a lone surrogate)")
    return text


def _kind(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "a list"
    return "an object" if isinstance(value, Mapping) else f"a value of type {type(value).__name__}"


def messages_of(row: Mapping[str, Any], column: str) -> list[Message]:
    """The messages of a column: a list of {role, content} or {from, value}, or the same as JSON text.

    Keys without a value are left out, numbers become Python's, and a content of text parts becomes one text. `Fault`
    for anything else, and for an unknown role.
    """
    value = _parsed(row.get(column), f"column '{column}'")
    if is_empty(value):
        raise Fault(f"column '{column}' is {'null' if column in row else 'missing'}")
    if not isinstance(value, list):
        raise Fault(f"column '{column}' is {_kind(value)}, not a list of messages")
    return [_message(each, f"'{column}', message {number}") for number, each in enumerate(value)]


def tools_of(row: Mapping[str, Any]) -> list[Message]:
    """The tools that a row declares in its column ``tools``: a list of JSON schemas, or the same as JSON text."""
    tools = _parsed(row.get("tools"), "column 'tools'")
    if is_empty(tools) or tools == "":
        return []
    if not isinstance(tools, list) or not all(isinstance(each, Mapping) for each in tools):
        raise Fault("column 'tools' is not a list of JSON schemas")
    return plain(tools, is_empty)


def check_answered(messages: list[Message]) -> None:
    """`Fault` where no message is an answer: none by the assistant, or empty ones alone."""
    answers = [each for each in messages if each["role"] == "assistant"]
    if not answers:
        raise Fault("no assistant turn", NO_RESPONSE)
    if not any(map(says_something, answers)):
        raise Fault("its assistant turns are empty", NO_RESPONSE)


def says_something(message: Message) -> bool:
    """Whether a message has a text or calls a tool."""
    return bool(message.get("content", "").strip() or message.get("tool_calls"))


def _message(value: Any, name: str) -> Message:
    if not isinstance(value, Mapping):
        raise Fault(f"{name} is {_kind(value)}, not an object with role and content")
    # Arrow gives every object the keys of all others.
    message = plain(value, is_empty)
    if "role" not in message and "from" in message:
        sender = message.pop("from")
        message = {"role": _SENDERS.get(sender, sender) if isinstance(sender, str) else sender, **message}
        if "value" in message:
            message["content"] = message.pop("value")
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES:
        raise Fault(f"{name} has the unknown role {role!r}" if role is not None else f"{name} has no role")
    if content is None and role == "assistant" and message.get("tool_calls"):
        return message
    if isinstance(content, list):
        if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
            raise Fault(f"{name} has a content with parts that are no texts")
        content = "".join(part["text"] for part in content)
    return {**message, "content": _text(content, f"the content of {name}", "content" in message)}


def _parsed(value: Any, name: str) -> Any:
    """A list that a CSV or Parquet file holds as JSON text."""
    if not isinstance(value, str) or not value.strip():
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise Fault(f"{name} is a text that is not JSON") from None
